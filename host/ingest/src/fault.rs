//! From libavformat's errors and words to the kinds that the host knows.

use ocelli_protocol::ingest::{IngestFault, IngestFaultKind, IngestStep};
use rustix::io::Errno;

use crate::demuxer::AvError;
use crate::log::{Lines, one_line};
use crate::network::{Refusal, is_over_budget};

/// Why the input cannot be read, or not any further. `refusal` is the host's answer if the last
/// connection came to nothing.
pub(crate) fn fault(
    step: IngestStep,
    error: AvError,
    lines: &Lines,
    refusal: Option<&Refusal>,
) -> IngestFault {
    // An end of waiting says more than what was tried before.
    let refusal = refusal.filter(|_| error != AvError::STOPPED);
    let kind = match refusal {
        _ if is_over_budget() || error.errno() == Some(Errno::NOMEM) => IngestFaultKind::TooLarge,
        Some(Refusal::NotAdmitted(_)) => IngestFaultKind::NotAdmitted,
        Some(Refusal::Failed(..)) => IngestFaultKind::Unreachable,
        None => kind(error, lines),
    };
    let said = refusal.map(Refusal::to_string).or_else(|| lines.last.clone());
    let reason = match (error, said) {
        (AvError::STOPPED, None) => "nothing came in time".to_owned(),
        (AvError::STOPPED, Some(said)) => format!("nothing came in time; before that: {said}"),
        (AvError::NO_CONTAINER, _) => "it is none of the containers that are read".to_owned(),
        (AvError::NO_STREAM, _) => "it has no video stream".to_owned(),
        (_, Some(said)) => said,
        (_, None) => error.to_string(),
    };
    IngestFault { step, kind, reason: one_line(&reason) }
}

fn kind(error: AvError, lines: &Lines) -> IngestFaultKind {
    let status = |otherwise: u16| IngestFaultKind::Status(lines.status.unwrap_or(otherwise));
    match error {
        AvError::STOPPED => IngestFaultKind::Timeout,
        AvError::END => IngestFaultKind::Closed,
        AvError::INVALID => IngestFaultKind::InvalidData,
        AvError::NO_CONTAINER => IngestFaultKind::UnknownContainer,
        AvError::NO_STREAM => IngestFaultKind::NoVideo,
        AvError::UNAUTHORIZED | AvError::FORBIDDEN => IngestFaultKind::Unauthorized,
        AvError::BAD_REQUEST => IngestFaultKind::Status(400),
        AvError::NOT_FOUND => IngestFaultKind::Status(404),
        AvError::OTHER_4XX => status(400),
        AvError::SERVER_ERROR => status(500),
        _ if lines.status.is_some() => status(0),
        _ => match error.errno() {
            Some(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                IngestFaultKind::Unreachable
            }
            Some(Errno::CONNRESET | Errno::PIPE | Errno::IO | Errno::NOTCONN) => {
                IngestFaultKind::Closed
            }
            Some(Errno::TIMEDOUT) => IngestFaultKind::Timeout,
            _ => IngestFaultKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(error: AvError, status: Option<u16>) -> IngestFaultKind {
        fault(IngestStep::Open, error, &Lines { status, ..Lines::default() }, None).kind
    }

    #[test]
    fn answers_of_a_camera_have_their_status() {
        assert_eq!(kind_of(AvError::UNAUTHORIZED, Some(401)), IngestFaultKind::Unauthorized);
        assert_eq!(kind_of(AvError::FORBIDDEN, Some(403)), IngestFaultKind::Unauthorized);
        assert_eq!(kind_of(AvError::NOT_FOUND, Some(404)), IngestFaultKind::Status(404));
        assert_eq!(kind_of(AvError::OTHER_4XX, Some(454)), IngestFaultKind::Status(454));
        assert_eq!(kind_of(AvError::SERVER_ERROR, Some(503)), IngestFaultKind::Status(503));
        let unsupported = AvError(-Errno::PROTONOSUPPORT.raw_os_error());
        assert_eq!(kind_of(unsupported, Some(461)), IngestFaultKind::Status(461));
        assert_eq!(kind_of(unsupported, None), IngestFaultKind::Other);
    }

    #[test]
    fn errors_of_the_system_are_told_apart() {
        let of = |errno: Errno| kind_of(AvError(-errno.raw_os_error()), None);
        assert_eq!(of(Errno::CONNREFUSED), IngestFaultKind::Unreachable);
        assert_eq!(of(Errno::CONNRESET), IngestFaultKind::Closed);
        assert_eq!(of(Errno::NOMEM), IngestFaultKind::TooLarge);
        assert_eq!(kind_of(AvError::END, None), IngestFaultKind::Closed);
        assert_eq!(kind_of(AvError::STOPPED, None), IngestFaultKind::Timeout);
    }

    #[test]
    fn a_refused_connection_is_the_cause_unless_time_ran_out() {
        let refusal = Refusal::NotAdmitted("10.0.0.1:554".into());
        let mapped = |error| fault(IngestStep::Open, error, &Lines::default(), Some(&refusal));
        let refused = mapped(AvError(-Errno::ACCESS.raw_os_error()));
        assert_eq!(refused.kind, IngestFaultKind::NotAdmitted);
        assert!(refused.reason.contains("10.0.0.1:554"), "{}", refused.reason);
        assert_eq!(mapped(AvError::STOPPED).kind, IngestFaultKind::Timeout);
    }
}
