//! The dispatcher: waits for requests on the sockets of all sessions and puts them into the queue.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{
    InferenceRequest, InferenceResponse, MAX_PACKET, MAX_TENSORS, PacketError, receive,
};
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::client::Client;
use crate::error::AttachError;
use crate::job::Job;
use crate::shared::{EngineShared, MAX_SESSIONS};

/// The key of the descriptor that stops the dispatcher. Sessions count from 1.
const STOP: u64 = 0;

/// Events that are taken from the system at once.
const EVENTS: usize = 64;

pub(crate) struct Dispatcher {
    shared: Arc<EngineShared>,
    epoll: OwnedFd,
    stop: OwnedFd,
    sessions: Mutex<HashMap<u64, Connection>>,
    next_key: AtomicU64,
}

/// A session, and the dispatcher's notes on it.
struct Connection {
    client: Arc<Client>,
    /// The largest request number that was taken.
    last_id: Option<u64>,
}

/// Why a client is disconnected.
#[derive(Debug, thiserror::Error)]
enum ProtocolViolation {
    #[error(transparent)]
    Packet(PacketError),
    #[error("the queue is full or closed")]
    Queue,
    #[error("request {id} has {inputs} inputs, over the bound of {MAX_TENSORS}")]
    TooManyInputs { id: u64, inputs: usize },
    #[error("request {0} came while another one was under way")]
    Busy(u64),
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<EngineShared>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let sessions = Mutex::default();
        Ok(Self { shared, epoll, stop, sessions, next_key: AtomicU64::new(STOP + 1) })
    }

    /// Greets a session's worker and waits for its requests from now on.
    pub(crate) fn attach(&self, session: Client) -> Result<(), AttachError> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            return Err(AttachError::TooMany);
        }
        session.send(&InferenceResponse::Hello)?;
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, session.socket(), data, epoll::EventFlags::IN)
            .map_err(std::io::Error::from)?;
        sessions.insert(key, Connection { client: Arc::new(session), last_id: None });
        Ok(())
    }

    /// Waits for requests until it is stopped.
    pub(crate) fn dispatch(&self) {
        let mut buffer = vec![0; MAX_PACKET];
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for requests");
                    return;
                }
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    STOP => return,
                    key => self.take(key, &mut buffer),
                }
            }
        }
    }

    /// Ends [`dispatch`](Self::dispatch) for good.
    pub(crate) fn stop(&self) -> std::io::Result<()> {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Takes one packet from a session's socket.
    fn take(&self, key: u64, buffer: &mut [u8]) {
        let mut sessions = self.sessions.lock();
        let Some(connection) = sessions.get_mut(&key) else { return };
        let session = Arc::clone(&connection.client);
        let violation = match receive::<InferenceRequest>(session.socket(), buffer) {
            Ok(request) => match connection.admit(&request) {
                Ok(true) => {
                    if let InferenceRequest::Ask { id, want } = request {
                        let granted = self.weigh(&session, want);
                        return session.answer(&InferenceResponse::Granted { id, granted });
                    }
                    let request = Job::new(Arc::clone(&session), request, monotonic_ns()).waiting();
                    let late_ns = request.late_ns;
                    match self.shared.queue.push(request) {
                        Ok(()) => return self.shared.timer.wake_by(late_ns),
                        Err(_) => ProtocolViolation::Queue,
                    }
                }
                Ok(false) => return,
                Err(violation) => violation,
            },
            Err(PacketError::Io(Errno::AGAIN | Errno::INTR)) => return,
            Err(PacketError::Closed) => {
                tracing::debug!(session = session.name(), "a worker is gone");
                self.forget(&mut sessions, key);
                return;
            }
            Err(error) => ProtocolViolation::Packet(error),
        };
        tracing::warn!(
            session = session.name(),
            fault = %violation,
            "dropped a worker that broke the protocol"
        );
        session.disconnect();
        self.forget(&mut sessions, key);
    }

    /// Whether a session's models may run now.
    fn weigh(&self, session: &Client, want: u16) -> bool {
        let terms = session.terms();
        let weight = terms.service.priority.weight();
        !terms.service.budgeted
            || self.shared.budget.lock().ask(terms.number, weight, want, monotonic_ns())
    }

    fn forget(&self, sessions: &mut HashMap<u64, Connection>, key: u64) {
        let Some(Connection { client: session, .. }) = sessions.remove(&key) else { return };
        if let Err(error) = epoll::delete(&self.epoll, session.socket()) {
            tracing::warn!(session = session.name(), %error, "cannot stop waiting for a session");
        }
        self.shared.queue.forget(|job| Arc::ptr_eq(&job.client, &session));
        self.shared.budget.lock().forget(session.terms().number);
        drop(session);
        self.shared.changed();
    }
}

impl Connection {
    /// Whether to run a request: not where its number was taken before, which is how a worker asks
    /// again when it does not know whether the last process took it. An error breaks the protocol.
    fn admit(&mut self, request: &InferenceRequest) -> Result<bool, ProtocolViolation> {
        let id = request.id();
        if self.last_id.is_some_and(|last| id <= last) {
            return Ok(false);
        }
        if let InferenceRequest::Run { inputs, .. } = request
            && inputs.len() > MAX_TENSORS
        {
            return Err(ProtocolViolation::TooManyInputs { id, inputs: inputs.len() });
        }
        if !self.client.begin() {
            return Err(ProtocolViolation::Busy(id));
        }
        self.last_id = Some(id);
        Ok(true)
    }
}
