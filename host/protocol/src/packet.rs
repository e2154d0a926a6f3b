//! The packet sockets between host, workers and inference process: one message each, with
//! descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::inference::{ATTACH_DESCRIPTORS, MAX_PACKET};
use crate::wire::{WireError, decode_within, to_bytes};

/// Most bytes that the lists and texts of a packet take once it is decoded: the catalog's tensors
/// take six times what they take in the packet.
const MAX_DECODED: usize = 8 * MAX_PACKET;

/// Why a packet could not be sent or taken in.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The other side is gone.
    #[error("the connection is closed")]
    Closed,
    /// The packet, or the number of descriptors with it, exceeds its bound.
    #[error("a packet exceeds its bound of {MAX_PACKET} bytes or {ATTACH_DESCRIPTORS} descriptors")]
    TooLong,
    /// The bytes are not a message of the expected type.
    #[error("malformed packet: {0}")]
    Malformed(#[from] WireError),
    /// The socket failed; `WOULDBLOCK` where it does not block and nothing is there.
    #[error(transparent)]
    Io(#[from] rustix::io::Errno),
}

/// Two connected packet sockets: messages keep their bounds and arrive whole, in order.
pub fn packet_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message with descriptors.
pub fn send_with<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    let bytes = to_bytes(message)?;
    if bytes.len() > MAX_PACKET || descriptors.len() > ATTACH_DESCRIPTORS {
        return Err(PacketError::TooLong);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACH_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(PacketError::TooLong);
    }
    let parts = [IoSlice::new(&bytes)];
    match rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)
    }) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(PacketError::Closed),
        Err(errno) => Err(errno.into()),
    }
}

pub fn send<M: Serialize>(socket: BorrowedFd<'_>, message: &M) -> Result<(), PacketError> {
    send_with(socket, message, &[])
}

/// Receives one message and the descriptors that came with it. `buffer` is at least [`MAX_PACKET`]
/// bytes, which the caller reuses.
pub fn receive_with<M: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(M, Vec<OwnedFd>), PacketError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACH_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Err(PacketError::Closed),
        Err(errno) => return Err(errno.into()),
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(PacketError::TooLong);
    }
    // No message of ours is empty, so no bytes means that the other side is gone.
    match buffer.get(..received.bytes) {
        None | Some([]) => Err(PacketError::Closed),
        Some(bytes) => Ok((decode_within(bytes, MAX_DECODED)?, descriptors)),
    }
}

/// Receives one message. Descriptors that came with it are closed.
pub fn receive<M: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<M, PacketError> {
    receive_with(socket, buffer).map(|(message, _)| message)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::inference::{Attach, FromHost, InferenceResponse, Priority, ServiceLevel};

    fn attach(session: &str) -> Attach {
        let service = ServiceLevel {
            share: 1,
            priority: Priority::Normal,
            timeout_ms: 1000,
            stale_ms: None,
            may_load: false,
            budgeted: true,
        };
        Attach { session: session.into(), number: 1, catalog_version: 0, service, suspect: None }
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (ours, theirs) = packet_pair().unwrap();
        let memory = crate::shm::SharedMemory::create(4096).unwrap();
        let message = FromHost::Attach(attach("cam"));
        send_with(ours.as_fd(), &message, &[ours.as_fd(), memory.fd()]).unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let (received, mut descriptors) =
            receive_with::<FromHost>(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!(received, message);
        assert_eq!(descriptors.len(), 2);
        assert_eq!(crate::shm::SharedMemory::map(descriptors.pop().unwrap()).unwrap().len(), 4096);
    }

    #[test]
    fn the_end_of_the_other_side_is_seen() {
        let (ours, theirs) = packet_pair().unwrap();
        drop(theirs);
        let mut buffer = vec![0; MAX_PACKET];
        assert!(matches!(
            receive::<InferenceResponse>(ours.as_fd(), &mut buffer),
            Err(PacketError::Closed)
        ));
        assert!(matches!(send(ours.as_fd(), &InferenceResponse::Hello), Err(PacketError::Closed)));
    }

    #[test]
    fn a_packet_of_random_bytes_is_malformed() {
        let (ours, theirs) = packet_pair().unwrap();
        rustix::net::send(&ours, &[0xff; 40], SendFlags::empty()).unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        assert!(matches!(
            receive::<InferenceResponse>(theirs.as_fd(), &mut buffer),
            Err(PacketError::Malformed(_))
        ));
    }

    #[test]
    fn a_packet_over_the_bound_is_not_sent() {
        let (ours, _theirs) = packet_pair().unwrap();
        let message = FromHost::Attach(attach(&"x".repeat(MAX_PACKET)));
        assert!(matches!(send(ours.as_fd(), &message), Err(PacketError::TooLong)));
    }
}
