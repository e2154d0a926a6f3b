//! `GET /v1/events/{id}/clip.mp4`: the seconds of video around an event. Players seek in it by
//! ranges.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::access::Caller;
use super::control::Control;
use super::extract::InPath;
use super::problem::Problem;
use super::resume::ResumeError;
use super::state::ApiState;
use crate::journal::events::{ClipFile, ClipState};

/// Seconds after which a clip that is being recorded may be asked for again: it is whole some
/// seconds after its event, and a page that waits for it shows it without delay.
const RETRY_AFTER_S: u64 = 2;

/// Bytes that are read of a file at once.
const READ_BYTES: usize = 64 << 10;

/// A clip never changes while it is kept, and should not outlive that for long. `private`, since a
/// shared cache would show it to clients that may not see the session.
const CACHED: &str = "private, max-age=3600";

/// Why a clip ends before its time.
const CUT: HeaderName = HeaderName::from_static("x-ocelli-clip-cut");

/// `GET /v1/events/{id}/clip.mp4`. The event does not exist for a caller that does not see its
/// session.
pub(super) async fn clip<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    request: Request,
) -> Result<Response, Problem> {
    let parts = request.into_parts().0;
    let (session, seq) = event_of(&id).ok_or_else(|| {
        let detail = "an event's id is SESSION:SEQ, of its members `session` and `seq`";
        Problem::bad("bad_event_id", detail)
    })?;
    let found = match caller.sees(session) {
        true => state.hub.events().clip(session, seq).await.map_err(ResumeError::Unreadable)?,
        false => ClipState::NoEvent,
    };
    let missing = |code, detail: &str| {
        Problem::new(StatusCode::NOT_FOUND, code, format!("{detail} {seq} of session {session:?}"))
    };
    let refused = match found {
        ClipState::Kept(clip) => return answer(clip, parts.headers.get(header::RANGE)).await,
        ClipState::Pending => {
            missing("clip_pending", "the clip is being recorded: event").retry_after(RETRY_AFTER_S)
        }
        ClipState::None => missing("no_clip", "there is no clip, or no longer, of event"),
        ClipState::NoEvent => missing("unknown_event", "there is no event, or no longer,"),
    };
    // A clip lies on the host that made it.
    match &state.site {
        Some(link) if caller.sees(session) => link.ask_everyone(&parts).await.ok_or(refused),
        _ => Err(refused),
    }
}

/// The session and the number of an event.
fn event_of(id: &str) -> Option<(&str, u64)> {
    let (session, seq) = id.rsplit_once(':')?;
    let is_number = seq.bytes().all(|digit| digit.is_ascii_digit());
    let seq = seq.parse().ok().filter(|_| is_number)?;
    (!session.is_empty()).then_some((session, seq))
}

async fn answer(clip: ClipFile, range: Option<&HeaderValue>) -> Result<Response, Problem> {
    let ClipFile { file, bytes, cut } = clip;
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHED));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(cut) = cut.and_then(|cut| HeaderValue::from_str(&cut).ok()) {
        headers.insert(CUT, cut);
    }
    let (begin, length) = match wanted(range, bytes) {
        Wanted::All => (0, bytes),
        Wanted::Part { begin, length } => {
            let part = format!("bytes {begin}-{}/{bytes}", begin + length - 1);
            if let Ok(part) = HeaderValue::from_str(&part) {
                headers.insert(header::CONTENT_RANGE, part);
            }
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            (begin, length)
        }
        Wanted::Nothing => return Ok(unsatisfiable(bytes)),
    };
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    let mut file = File::from_std(file);
    file.seek(SeekFrom::Start(begin)).await.map_err(Problem::internal)?;
    *answer.body_mut() = body(file, length);
    Ok(answer)
}

/// A range of which the file has nothing.
fn unsatisfiable(bytes: u64) -> Response {
    let detail = format!("the clip has {bytes} bytes");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", detail);
    let all = [(header::CONTENT_RANGE, format!("bytes */{bytes}"))];
    (all, problem).into_response()
}

/// So many bytes of a file. Where it ends early, so does the connection.
fn body(file: File, length: u64) -> Body {
    let part = |(mut file, left): (File, u64)| async move {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
        if wanted == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        let mut bytes = vec![0; wanted];
        file.read_exact(&mut bytes).await?;
        Ok(Some((Bytes::from(bytes), (file, left - wanted as u64))))
    };
    Body::from_stream(stream::try_unfold((file, length), part))
}

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// At least one byte.
    Part {
        begin: u64,
        length: u64,
    },
    /// What there is not.
    Nothing,
}

/// What a `Range` wants of a file with so many bytes (RFC 9110, 14.1). What is no range, or several,
/// wants all.
fn wanted(range: Option<&HeaderValue>, bytes: u64) -> Wanted {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Wanted::All;
    };
    let (begin, end) = match (number(first), last.is_empty(), number(last)) {
        (Some(first), true, _) => (first, bytes),
        (Some(first), false, Some(last)) if first <= last => {
            (first, last.saturating_add(1).min(bytes))
        }
        (None, false, Some(last)) if first.is_empty() => {
            (bytes.saturating_sub(last), if last == 0 { 0 } else { bytes })
        }
        _ => return Wanted::All,
    };
    match end.checked_sub(begin) {
        Some(length) if length > 0 => Wanted::Part { begin, length },
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_a_session_and_a_number_whatever_the_session_is_called() {
        assert_eq!(event_of("gate:7"), Some(("gate", 7)));
        assert_eq!(event_of("display;gate:west:70"), Some(("display;gate:west", 70)));
        for wrong in ["", "gate", "gate:", ":7", "gate:+7", "gate:-7", "gate:7x", "7"] {
            assert_eq!(event_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_range_wants_what_the_standard_says() {
        let of = |range: &str| wanted(Some(&HeaderValue::from_str(range).unwrap()), 100);
        let part = |begin, length| Wanted::Part { begin, length };
        assert_eq!(wanted(None, 100), Wanted::All);
        assert_eq!(of("bytes=0-"), part(0, 100));
        assert_eq!(of("bytes=0-0"), part(0, 1));
        assert_eq!(of("bytes=10-19"), part(10, 10));
        assert_eq!(of("bytes=90-1000"), part(90, 10));
        assert_eq!(of("bytes=-1"), part(99, 1));
        assert_eq!(of("bytes=-1000"), part(0, 100));
        assert_eq!(of("bytes=99999999999999999999999-"), Wanted::Nothing);
        for nothing in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(of(nothing), Wanted::Nothing, "{nothing}");
        }
        for all in ["bytes=", "bytes=-", "bytes=5-4", "bytes=1-2,4-5", "bytes=a-b", "lines=1-2"] {
            assert_eq!(of(all), Wanted::All, "{all}");
        }
        assert_eq!(wanted(Some(&HeaderValue::from_static("bytes=0-")), 0), Wanted::Nothing);
    }
}
