//! A worker's messages, read one at a time from its socket, where those that nobody has asked for
//! yet stay: they hold the worker up and take nothing of the host.

use std::io;
use std::sync::Arc;

use ocelli_protocol::gate::{Gate, Violation};
use ocelli_protocol::wire::{self, WireError};
use ocelli_protocol::worker::FromWorker;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::process::SentCounts;

/// The lengths of a message and its first byte, which says what it is.
const HEAD: usize = wire::HEADER + 1;

/// Bytes that are read from the socket at a time: a result with a few detections, or some
/// heartbeats.
const BUFFER: usize = 4 << 10;

/// Why no further message comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum InboxError {
    /// The connection has ended, or what came is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The message may not come now, or not so large. It was not read.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// See the module's documentation.
pub(super) struct Inbox<S> {
    from: BufReader<S>,
    gate: Gate,
    sent: Arc<SentCounts>,
    head: Filling<[u8; HEAD]>,
    /// The message that has been admitted and is not complete.
    incoming: Option<AdmittedMessage>,
}

struct AdmittedMessage {
    message: Filling<Vec<u8>>,
    payload: Filling<Vec<u8>>,
    /// Bytes that the decoded message's lists and texts may take.
    memory: usize,
}

/// Bytes of which the first `filled` have come.
struct Filling<B> {
    bytes: B,
    filled: usize,
}

impl<B: AsMut<[u8]>> Filling<B> {
    fn new(bytes: B) -> Self {
        Self { bytes, filled: 0 }
    }

    /// Reads until all bytes have come. May be dropped at any time. False if the other side has
    /// closed the connection.
    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        loop {
            let rest = self.bytes.as_mut().get_mut(self.filled..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(true);
            }
            match from.read(rest).await? {
                0 => return Ok(false),
                read => self.filled += read,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Inbox<S> {
    pub(super) fn new(from: S, gate: Gate, sent: Arc<SentCounts>) -> Self {
        Self {
            from: BufReader::with_capacity(BUFFER, from),
            gate,
            sent,
            head: Filling::new([0; HEAD]),
            incoming: None,
        }
    }

    /// The next message with its payload. May be dropped at any time. After an error no message
    /// follows.
    pub(super) async fn next(&mut self) -> Result<(FromWorker, Vec<u8>), InboxError> {
        if self.incoming.is_none() {
            if !self.head.fill(&mut self.from).await.map_err(WireError::Io)? {
                return Err(ended(self.head.filled == 0).into());
            }
            self.incoming = Some(self.admit()?);
            self.head.filled = 0;
        }
        if let Some(incoming) = &mut self.incoming {
            for part in [&mut incoming.message, &mut incoming.payload] {
                if !part.fill(&mut self.from).await.map_err(WireError::Io)? {
                    return Err(ended(false).into());
                }
            }
        }
        // It is there: it was put there above, if not before.
        let AdmittedMessage { message, payload, memory } =
            self.incoming.take().ok_or(WireError::Closed)?;
        Ok((wire::decode_within(&message.bytes, memory)?, payload.bytes))
    }

    /// Asks whether the message whose head has come may come.
    fn admit(&mut self) -> Result<AdmittedMessage, InboxError> {
        let [header @ .., first] = self.head.bytes;
        let (message, payload) = wire::decode_header(header)?;
        let sent = |request| self.sent.requests(request);
        let memory = self.gate.admit(first, message, payload, sent)?;
        let mut message = Filling::new(vec![0; message]);
        // No message is empty: the byte that was read as its first is the next one's.
        let begin = message.bytes.first_mut().ok_or(Violation::Empty)?;
        *begin = first;
        message.filled = 1;
        Ok(AdmittedMessage { message, payload: Filling::new(vec![0; payload]), memory })
    }
}

/// How the connection ended: between two messages or within one.
fn ended(between: bool) -> WireError {
    if between { WireError::Closed } else { io::Error::from(io::ErrorKind::UnexpectedEof).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::confinement::Confinement;
    use ocelli_protocol::wire::{MAX_MESSAGE, MAX_PAYLOAD};
    use ocelli_protocol::worker::{LogLevel, Pacing, StoreChange, WorkerMode};
    use tokio::io::AsyncWriteExt;

    fn inbox<S: AsyncRead + Unpin>(from: S) -> Inbox<S> {
        let gate = Gate::new(WorkerMode::Stream(Pacing::NewestWins), false);
        Inbox::new(from, gate, Arc::default())
    }

    fn line(length: usize) -> FromWorker {
        FromWorker::Log {
            level: LogLevel::Info,
            context: String::new(),
            message: "l".repeat(length),
            frame: None,
        }
    }

    fn changes(count: usize) -> FromWorker {
        let change = StoreChange { bucket: String::new(), key: String::new(), value: None };
        FromWorker::StoreCommit(vec![change; count])
    }

    async fn first(bytes: &[u8]) -> InboxError {
        inbox(bytes).next().await.unwrap_err()
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_are_cut_and_whenever_reading_is_given_up() {
        let messages = [FromWorker::SandboxReport(Confinement::default()), line(1), line(9000)];
        let bytes: Vec<u8> =
            messages.iter().flat_map(|message| wire::encode(message, 0).unwrap()).collect();
        let (mut theirs, ours) = tokio::io::duplex(64);
        let writing = tokio::spawn(async move {
            for part in bytes.chunks(7) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut inbox, mut came) = (inbox(ours), Vec::new());
        while came.len() < messages.len() {
            tokio::select! {
                biased;
                message = inbox.next() => came.push(message.unwrap().0),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(came, messages);
        writing.await.unwrap();
        let ended = inbox.next().await.unwrap_err();
        assert!(matches!(ended, InboxError::Wire(WireError::Closed)), "{ended}");
    }

    #[tokio::test]
    async fn what_may_not_come_is_refused_by_its_head() {
        // Of none of these is there more than the head.
        let head = |message: usize, payload: usize, first: u8| {
            let lengths = (message as u64 | (payload as u64) << 32).to_le_bytes();
            [lengths.as_slice(), &[first]].concat()
        };
        let report = 0;
        for (bytes, said) in [
            (head(MAX_MESSAGE + 1, 0, report), "exceeds the bound"),
            (head(1, MAX_PAYLOAD + 1, report), "exceeds the bound"),
            (head(1, 1, report), "exceeds the bound"),
            (head(1 << 20, 0, report), "exceeds the bound"),
            (head(0, 0, report), "empty"),
            (head(9, 0, 200), "no message has the number 200"),
            (head(9, 0, wire::to_bytes(&changes(1)).unwrap()[0]), "out of turn"),
        ] {
            let error = first(&bytes).await.to_string();
            assert!(error.contains(said), "{error} for {said}");
        }
    }

    #[tokio::test]
    async fn an_end_within_a_message_is_no_end_between_two() {
        let bytes = wire::encode(&line(100), 0).unwrap();
        for cut in 1..bytes.len() {
            let error = first(&bytes[..cut]).await;
            assert!(matches!(error, InboxError::Wire(WireError::Io(_))), "cut at {cut}: {error}");
        }
    }
}
