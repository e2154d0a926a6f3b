//! A component's standard output and error.

use std::sync::Arc;

use bytes::Bytes;
use ocelli_protocol::worker::LogLevel;
use parking_lot::Mutex;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::log::GuestLog;

/// Longest line that is collected before it is given out without its end, in bytes.
const MAX_LINE: usize = 4 << 10;

/// Bytes of the latest output that explain a trap: a panic's message and a little before it.
const MAX_TAIL: usize = 2 << 10;

/// Bytes that a component may write at a time.
const PERMIT: usize = 64 << 10;

/// A component's standard output or error: each line goes to the session's log, and the latest text
/// stays in memory to explain a trap.
#[derive(Clone)]
pub(super) struct Console {
    log: GuestLog,
    level: LogLevel,
    context: &'static str,
    text: Arc<Mutex<ConsoleText>>,
}

#[derive(Default)]
struct ConsoleText {
    line: Vec<u8>,
    tail: Vec<u8>,
}

impl Console {
    /// A console whose lines are logged with this level and context.
    pub(super) fn new(log: GuestLog, level: LogLevel, context: &'static str) -> Self {
        Self { log, level, context, text: Arc::default() }
    }

    /// Takes what was written since the last call of this function: at most the last 2 KiB.
    pub(super) fn take_tail(&self) -> String {
        let mut text = self.text.lock();
        String::from_utf8_lossy(&std::mem::take(&mut text.tail)).trim().to_owned()
    }

    fn append(&self, bytes: &[u8]) {
        let mut text = self.text.lock();
        text.tail.extend_from_slice(bytes);
        let excess = text.tail.len().saturating_sub(MAX_TAIL);
        text.tail.drain(..excess);
        for &byte in bytes {
            if byte != b'\n' {
                text.line.push(byte);
            }
            if byte == b'\n' || text.line.len() >= MAX_LINE {
                self.log.line(self.level, self.context, &String::from_utf8_lossy(&text.line));
                text.line.clear();
            }
        }
    }
}

impl IsTerminal for Console {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Console {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Asked for by WASI 0.3 alone, which no version of our world offers.
        Box::new(tokio::io::empty())
    }
}

#[async_trait]
impl Pollable for Console {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Console {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_link::HostLink;
    use ocelli_protocol::wire::Reader;
    use ocelli_protocol::worker::FromWorker;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_are_logged_whole_and_the_latest_text_is_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = GuestLog::new(HostLink::from_stream(ours), Arc::default(), 50);
        let console = Console::new(log, LogLevel::Warn, "stderr");
        console.append(b"first li");
        console.append(b"ne\nsecond");
        let mut reader = Reader::new(theirs);
        let (message, _) = reader.read::<FromWorker>().unwrap();
        assert!(matches!(message, FromWorker::Log { message, .. } if message == "first line"));
        assert_eq!(console.take_tail(), "first line\nsecond");
        assert_eq!(console.take_tail(), "");
        console.append(&vec![b'x'; 3 * MAX_TAIL]);
        assert_eq!(console.take_tail().len(), MAX_TAIL);
    }
}
