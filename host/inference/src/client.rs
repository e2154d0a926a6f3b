//! A worker's connection, as the engine sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ocelli_protocol::inference::{Attach, InferenceResponse, PacketError, send};
use ocelli_protocol::shm::SharedMemory;
use parking_lot::Mutex;
use rustix::net::Shutdown;

use crate::hook::RunInfo;
use crate::model::Catalog;
use crate::private_models::PrivateModels;
use crate::request::Layout;

/// The connection to one worker, with its own models.
pub(crate) struct Client {
    attach: Attach,
    catalog: Arc<Catalog>,
    socket: OwnedFd,
    memory: SharedMemory,
    /// A request is in the queue or with a runner.
    busy: AtomicBool,
    /// Used by the runner that has the session's one request, so never contended.
    private: Mutex<PrivateModels>,
}

impl Client {
    /// Takes on a connection. The socket is made non-blocking: a worker that does not take its
    /// answers must not hold a runner.
    pub(crate) fn new(
        attach: Attach,
        catalog: Arc<Catalog>,
        socket: OwnedFd,
        memory: OwnedFd,
    ) -> std::io::Result<Self> {
        let memory = SharedMemory::map(memory)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            attach,
            catalog,
            socket,
            memory,
            busy: AtomicBool::new(false),
            private: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.attach.session
    }

    /// The terms that the host announced.
    pub(crate) fn terms(&self) -> &Attach {
        &self.attach
    }

    /// Its version of the catalog.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The models of its own.
    pub(crate) fn private(&self) -> &Mutex<PrivateModels> {
        &self.private
    }

    /// Notes that a request is under way; false where one is already.
    pub(crate) fn begin(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// Answers the request that is under way. A worker that is gone is left to the dispatcher.
    pub(crate) fn answer(&self, answer: &InferenceResponse) {
        // Before the answer: the worker may send its next request as soon as it has read it.
        self.busy.store(false, Ordering::Release);
        match self.send(answer) {
            Ok(()) | Err(PacketError::Closed) => {}
            Err(error) => {
                tracing::warn!(session = self.name(), %error, "dropped a worker that does not \
                    take its answers");
                self.disconnect();
            }
        }
    }

    pub(crate) fn send(&self, message: &InferenceResponse) -> Result<(), PacketError> {
        send(self.socket(), message)
    }

    /// Shuts the connection down: the worker and the dispatcher see its end.
    pub(crate) fn disconnect(&self) {
        if let Err(error) = rustix::net::shutdown(&self.socket, Shutdown::Both) {
            tracing::debug!(session = self.name(), %error, "cannot shut a worker's socket down");
        }
    }

    /// The argument of a hook.
    pub(crate) fn about_to_run<'a>(
        &'a self,
        request: u64,
        model: &'a str,
        layout: &'a Layout,
    ) -> RunInfo<'a> {
        RunInfo {
            session: self.name(),
            request,
            model,
            inputs: &layout.inputs,
            memory: &self.memory,
        }
    }
}
