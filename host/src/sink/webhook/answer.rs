//! What a receiver's answer means.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Longest wait that a receiver may ask for. It names no end, and events go by age.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// An answer, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReceiverAnswer {
    /// It has the message.
    Taken,
    /// It will never take this message.
    Refused(StatusCode),
    /// It wants none any more.
    Gone,
    /// It does not take it now, and asks to be left alone for so long.
    Later(StatusCode, Option<Duration>),
}

impl ReceiverAnswer {
    /// By status: 2xx is the only yes. 400, 413 and 422 are about the message, 410 about the
    /// receiver. All others may be other ones tomorrow: a login, a path, load, a redirection that is
    /// not followed.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        match status {
            _ if status.is_success() => Self::Taken,
            StatusCode::GONE => Self::Gone,
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Self::Refused(status),
            _ => Self::Later(status, retry_after(headers, now)),
        }
    }
}

/// The wait that an answer asks for (RFC 9110, section 10.2.3): seconds, or a time.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until: Timestamp = DateTimeParser::new().parse_timestamp(text).ok()?;
            let until = Duration::from_secs(until.as_second().try_into().ok()?);
            (SystemTime::UNIX_EPOCH + until).duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn answer(status: u16, retry: Option<&'static str>) -> ReceiverAnswer {
        let retry = retry.map(|text| (RETRY_AFTER, HeaderValue::from_static(text)));
        let status = StatusCode::from_u16(status).unwrap();
        // 2015-10-21T07:28:00Z less ten seconds.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        ReceiverAnswer::of(status, &retry.into_iter().collect(), now)
    }

    #[test]
    fn a_status_says_whether_to_go_on_to_leave_out_to_wait_or_to_stop() {
        for status in [200, 202, 204] {
            assert_eq!(answer(status, None), ReceiverAnswer::Taken);
        }
        for status in [400, 413, 422] {
            assert!(matches!(answer(status, None), ReceiverAnswer::Refused(_)), "{status}");
        }
        assert_eq!(answer(410, Some("5")), ReceiverAnswer::Gone);
        for status in [100, 301, 302, 307, 401, 403, 404, 405, 408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(answer(status, None), ReceiverAnswer::Later(_, None)), "{status}");
        }
    }

    #[test]
    fn a_receiver_says_how_long_to_wait_within_a_bound() {
        let wait = |text| match answer(503, Some(text)) {
            ReceiverAnswer::Later(_, wait) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("18446744073709551615"), Some(LONGEST_REST));
        assert_eq!(wait("Wed, 21 Oct 2099 07:28:00 GMT"), Some(LONGEST_REST));
        for odd in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(wait(odd), None, "{odd:?}");
        }
    }
}
