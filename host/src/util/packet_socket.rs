//! A packet socket that a task waits on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ocelli_protocol::inference::{MAX_PACKET, PacketError, receive, receive_with, send_with};
use rustix::net::{RecvFlags, recv};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end. It does not block.
pub(crate) struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// Takes over an end and makes it non-blocking. To be called within a tokio runtime.
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        #[expect(
            deprecated,
            reason = "unsound for types that lie about their descriptor; OwnedFd does not, and the \
            replacement is unsafe"
        )]
        Ok(Self(AsyncFd::new(end)?))
    }

    /// Sends a message once the socket is writable. Cancel-safe: it is sent as a whole or not at
    /// all.
    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PacketError> {
        self.when(Interest::WRITABLE, |socket| send_with(socket, message, descriptors)).await
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn receive<M: DeserializeOwned>(&self) -> Result<M, PacketError> {
        let mut buffer = vec![0; MAX_PACKET];
        self.when(Interest::READABLE, |socket| receive(socket, &mut buffer)).await
    }

    /// The next message with the descriptors that came with it. Cancel-safe.
    pub(crate) async fn receive_with<M: DeserializeOwned>(
        &self,
    ) -> Result<(M, Vec<OwnedFd>), PacketError> {
        let mut buffer = vec![0; MAX_PACKET];
        self.when(Interest::READABLE, |socket| receive_with(socket, &mut buffer)).await
    }

    /// Runs a call whenever the socket is ready, until it does not block.
    async fn when<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> Result<T, PacketError>,
    ) -> Result<T, PacketError> {
        let called = self.0.async_io(interest, |socket| match call(socket.as_fd()) {
            Err(PacketError::Io(rustix::io::Errno::WOULDBLOCK)) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => Ok(other),
        });
        called.await.unwrap_or_else(|error| {
            Err(PacketError::Io(
                rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
            ))
        })
    }
}

/// Discards the packets in a socket: the worker sends its request again when it is greeted.
pub(crate) fn discard_pending(socket: &OwnedFd) {
    let mut buffer = vec![0; MAX_PACKET];
    while let Ok((1.., _)) = recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {}
}
