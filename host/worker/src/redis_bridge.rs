//! Sends requests about the granted keys of Redis to the host.
//!
//! One request at a time. A request without an answer in time stays open: no other is sent before
//! its response has come, so that the host always reads what is sent.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ocelli_protocol::redis_bridge::{RedisOperation, RedisReply, RedisRequest, RedisResponse};
use ocelli_protocol::wire::{self, WireError};
use ocelli_protocol::worker::WorkerLimits;
use parking_lot::Mutex;
use rustix::event::PollFlags;

use crate::poll::ready_by;

/// The error text for a component when no response comes.
const UNREACHABLE: &str = "redis is not reachable";

/// Bytes of one read.
const CHUNK: usize = 64 << 10;

/// The granted keys, for each instance of the component. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct RedisBucket {
    client: Option<Arc<Mutex<RedisClient>>>,
    active: Arc<AtomicBool>,
}

impl RedisBucket {
    /// With the socket to the host; `None` without a grant. `active`: the worker does not start on
    /// standby.
    pub fn new(socket: Option<OwnedFd>, limits: &WorkerLimits, active: bool) -> Self {
        let client = socket.map(|socket| {
            Arc::new(Mutex::new(RedisClient {
                socket: Some(UnixStream::from(socket)),
                received: Vec::new(),
                last_id: 0,
                open: false,
                timeout: Duration::from_millis(u64::from(limits.host_call_ms)),
            }))
        });
        Self { client, active: Arc::new(AtomicBool::new(active)) }
    }

    /// Whether the session was granted keys.
    pub fn is_granted(&self) -> bool {
        self.client.is_some()
    }

    /// The worker is active from now on: the host makes its changes.
    pub fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Performs an operation. `time_left` is the rest of the call under way. The error is for the
    /// component.
    pub fn request(
        &self,
        operation: RedisOperation,
        time_left: Duration,
    ) -> Result<RedisReply, String> {
        operation.check().map_err(|error| error.to_string())?;
        let client = self.client.as_ref().ok_or_else(|| UNREACHABLE.to_owned())?;
        // One thread calls components: the lock is never waited for.
        let mut client = client.lock();
        let active = self.active.load(Ordering::Relaxed);
        client.request(operation, active, time_left)
    }
}

#[derive(Debug)]
struct RedisClient {
    /// `None` once it has failed.
    socket: Option<UnixStream>,
    /// The beginning of a response.
    received: Vec<u8>,
    last_id: u64,
    /// Whether the last request has no response yet.
    open: bool,
    timeout: Duration,
}

impl RedisClient {
    fn request(
        &mut self,
        operation: RedisOperation,
        active: bool,
        time_left: Duration,
    ) -> Result<RedisReply, String> {
        let deadline = Instant::now() + self.timeout.min(time_left);
        let Some(mut socket) = self.socket.take() else { return Err(UNREACHABLE.to_owned()) };
        let response = self.exchange(&mut socket, operation, active, deadline);
        // A socket that failed, or on which half a request was sent, is of no more use.
        response.map_err(|_| UNREACHABLE.to_owned()).and_then(|result| {
            self.socket = Some(socket);
            result.unwrap_or_else(|| Err(UNREACHABLE.to_owned()))
        })
    }

    /// `None` without a response in time.
    fn exchange(
        &mut self,
        socket: &mut UnixStream,
        operation: RedisOperation,
        active: bool,
        deadline: Instant,
    ) -> Result<Option<Result<RedisReply, String>>, WireError> {
        if self.open && self.receive(socket, deadline)?.is_none() {
            return Ok(None);
        }
        self.last_id += 1;
        self.open = true;
        let message = wire::encode(&RedisRequest { id: self.last_id, active, operation }, 0)?;
        send(socket, &message, deadline)?;
        self.receive(socket, deadline)
    }

    /// The response to the last request; `None` if it has not come by `deadline`.
    fn receive(
        &mut self,
        socket: &mut UnixStream,
        deadline: Instant,
    ) -> Result<Option<Result<RedisReply, String>>, WireError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(response) = self.take_response()? {
                if response.id == self.last_id {
                    self.open = false;
                    return Ok(Some(response.result));
                }
                continue;
            }
            match socket.read(&mut chunk) {
                Ok(0) => return Err(WireError::Closed),
                Ok(read) => self.received.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let ready = ready_by(&*socket, PollFlags::IN, deadline);
                    if !ready.map_err(std::io::Error::from)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a response out of the received bytes once it is whole.
    fn take_response(&mut self) -> Result<Option<RedisResponse>, WireError> {
        let Some(header) = self.received.first_chunk() else { return Ok(None) };
        let (length, _) = wire::decode_header(*header)?;
        let end = wire::HEADER + length;
        let Some(message) = self.received.get(wire::HEADER..end) else { return Ok(None) };
        let response = wire::decode(message)?;
        self.received.drain(..end);
        Ok(Some(response))
    }
}

fn send(socket: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !ready_by(&*socket, PollFlags::OUT, deadline)? {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
