//! The way back to the host: results, answers, log lines and heartbeats of all threads, one whole
//! message at a time.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ocelli_protocol::limit::{Limit, truncate_line};
use ocelli_protocol::wire;
use ocelli_protocol::worker::{Counters, FromWorker, LogLevel, WorkerStage};
use parking_lot::Mutex;

type Socket = Box<dyn Write + Send>;

/// Sends messages to the host. Cheap to clone.
#[derive(Clone)]
pub struct HostLink {
    to: Arc<Mutex<Socket>>,
}

impl HostLink {
    /// A link over the inherited socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self::from_stream(UnixStream::from(socket))
    }

    /// A link over any stream.
    pub fn from_stream(stream: impl Write + Send + 'static) -> Self {
        Self { to: Arc::new(Mutex::new(Box::new(stream))) }
    }

    /// Sends a message. A host that is gone is noticed by the intake, so a failure here says
    /// nothing more.
    pub fn send(&self, message: &FromWorker) {
        self.send_with(message, &[]);
    }

    /// Sends a message with a payload.
    pub fn send_with(&self, message: &FromWorker, payload: &[u8]) {
        Self::write(&mut self.to.lock(), message, payload);
    }

    /// Makes a message and sends it with nothing in between: what it says is so when the messages
    /// before it have been sent, and those of other threads come after it. `make` is not to wait.
    pub fn send_atomically(&self, make: impl FnOnce() -> FromWorker) {
        let mut to = self.to.lock();
        Self::write(&mut to, &make(), &[]);
    }

    fn write(to: &mut Socket, message: &FromWorker, payload: &[u8]) {
        let sent = wire::write(to, message, payload);
        if let Err(wire::WireError::TooLong { what, length, bound }) = sent {
            let message =
                format!("a {what} of {length} bytes was dropped: at most {bound} bytes are sent");
            let line = FromWorker::Log {
                level: LogLevel::Error,
                context: "worker".into(),
                message,
                frame: None,
            };
            let _ = wire::write(to, &line, &[]);
        }
    }

    /// Sends a log line.
    pub fn log(&self, level: LogLevel, context: &str, message: &str, frame: Option<u64>) {
        let message = truncate_line(message).to_owned();
        self.send(&FromWorker::Log {
            level,
            context: truncate_line(context).to_owned(),
            message,
            frame,
        });
    }

    /// Tells the host that the worker cannot go on.
    pub fn fail(
        &self,
        stage: WorkerStage,
        limit: Option<Limit>,
        counters: Counters,
        message: &str,
    ) {
        self.send(&FromWorker::Failed {
            stage,
            limit,
            counters,
            message: truncate_line(message).to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_never_mix_their_messages() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = HostLink::from_stream(ours);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let link = link.clone();
                std::thread::spawn(move || {
                    for line in 0..200 {
                        link.log(LogLevel::Info, "test", &format!("{thread} {line}"), None);
                    }
                })
            })
            .collect();
        drop(link);
        let mut reader = wire::Reader::new(theirs);
        let mut lines = 0;
        while let Ok((message, _)) = reader.read::<FromWorker>() {
            assert!(matches!(message, FromWorker::Log { .. }));
            lines += 1;
        }
        assert_eq!(lines, 800);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
