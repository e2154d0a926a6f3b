//! What simulated hosts send, and how a reader finds it in whatever it is wrapped in.

use crate::history::{Heard, Nanos};

/// How a live message begins, wherever it lies in a payload.
const MARK: &[u8] = b"LAB ";

/// A live message.
pub(crate) fn live(camera: u16, epoch: u64, host: u16, sent: Nanos) -> Vec<u8> {
    let mut message = MARK.to_vec();
    message.extend_from_slice(format!("{camera} {epoch} {host} {sent} ").as_bytes());
    message
}

/// Reads one.
pub(crate) fn heard(payload: &[u8], received: Nanos) -> Option<Heard> {
    let start = payload.windows(MARK.len()).position(|window| window == MARK)?;
    let text = std::str::from_utf8(payload.get(start + MARK.len()..)?).ok()?;
    let mut words = text.split(' ');
    Some(Heard {
        camera: words.next()?.parse().ok()?,
        epoch: words.next()?.parse().ok()?,
        host: words.next()?.parse().ok()?,
        sent: words.next()?.parse().ok()?,
        received,
    })
}

/// The body of an event.
pub(crate) fn event(id: &str) -> String {
    serde_json::json!({ "id": id }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_in_what_it_is_wrapped_in() {
        let message = live(7, 1 << 60, 3, 99);
        let wrapped = [&[0, 255, 76][..], &message].concat();
        let heard = heard(&wrapped, 100).unwrap();
        assert_eq!(heard, Heard { camera: 7, epoch: 1 << 60, host: 3, sent: 99, received: 100 });
        assert_eq!(super::heard(b"something else", 1), None);
        assert_eq!(super::heard(b"LAB 1 2", 1), None);
    }
}
