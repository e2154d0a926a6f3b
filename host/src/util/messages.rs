//! Messages of a child process, read from its stream socket.

use ocelli_protocol::wire::{self, WireError};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The next message and its payload. `longest` bounds the message, and four times as much what its
/// lists and texts take once it is decoded; `payload` says how long the payload of such a message
/// may be: all in bytes. Not cancel-safe: after a call that is given up, the socket is of no more
/// use.
pub(crate) async fn receive<M: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    longest: usize,
    payload: impl FnOnce(&M) -> usize,
) -> Result<(M, Vec<u8>), WireError> {
    let mut header = [0; wire::HEADER];
    if let Err(error) = from.read_exact(&mut header).await {
        let closed = error.kind() == std::io::ErrorKind::UnexpectedEof;
        return Err(if closed { WireError::Closed } else { error.into() });
    }
    let (message, length) = wire::decode_header(header)?;
    if message > longest {
        return Err(WireError::TooLong { what: "message", length: message, bound: longest });
    }
    let mut bytes = vec![0; message];
    from.read_exact(&mut bytes).await?;
    let message = wire::decode_within(&bytes, 4 * longest)?;
    let bound = payload(&message);
    if length > bound {
        return Err(WireError::TooLong { what: "payload", length, bound });
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok((message, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_or_payload_over_its_bound_is_refused_before_it_is_read() {
        let bytes = [wire::encode(&"message", 3).unwrap(), b"abc".to_vec()].concat();
        let read = async |longest, payload| {
            receive::<String>(&mut bytes.as_slice(), longest, |_| payload).await
        };
        assert_eq!(read(8, 3).await.unwrap(), ("message".to_owned(), b"abc".to_vec()));
        let too_long = |error| matches!(error, WireError::TooLong { .. });
        assert!(too_long(read(7, 3).await.unwrap_err()));
        assert!(too_long(read(8, 2).await.unwrap_err()));
        let closed = receive::<String>(&mut [].as_slice(), 8, |_| 0).await;
        assert!(matches!(closed, Err(WireError::Closed)));
    }
}
