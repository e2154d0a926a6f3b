//! Receive buffers for the bursts that cameras send over UDP.
//!
//! A key picture of a 1080p camera is some 200 packets sent back to back. Linux keeps about 90 of
//! them by default (`net.core.rmem_default`) and drops the rest, so that key pictures would never
//! arrive whole. retina opens its sockets itself and has no setting for this; its socket is found
//! by its port, and its buffer made larger.

use std::fs;
use std::io;

use retina::StreamContext;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tracing::debug;

/// A key picture of a 4K camera at its largest, about 1 MB, with what the kernel counts on top of
/// each packet. Linux grants up to `net.core.rmem_max`, and takes it only while packets wait.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Makes the receive buffer of a UDP stream larger. The stream also works without it, with losses:
/// a failure is only logged.
pub(super) fn enlarge_receive_buffer(stream: &StreamContext) {
    let enlarged = local_port(&stream.to_string())
        .ok_or_else(|| io::Error::other("the stream does not tell its port"))
        .and_then(enlarge);
    if let Err(error) = enlarged {
        debug!(target: "ocelli::source", %error, "the UDP receive buffer stays as it is");
    }
}

fn enlarge(port: u16) -> io::Result<()> {
    let inodes = udp_inodes(port)?;
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut found = false;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // A descriptor that was closed meanwhile has no link any more.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(true), Some(fd)) =
            (inode.map(|inode| inodes.iter().any(|known| known == inode)), fd)
        {
            // The stream holds the socket open, so the number still means the same socket.
            let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?;
            set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
            found = true;
        }
    }
    if found {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the stream's socket is not to be found"))
    }
}

/// Inodes of the UDP sockets of this network namespace that have a local port.
fn udp_inodes(port: u16) -> io::Result<Vec<String>> {
    let mut inodes = Vec::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        match fs::read_to_string(table) {
            Ok(table) => inodes.extend(table.lines().filter_map(|line| inode_of_port(line, port))),
            // A machine without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(inodes)
}

/// Of a line "0: 0100007F:1388 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 12345 2
/// ...": the local port is behind the second field's colon, the inode is the tenth field.
fn inode_of_port(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, local_port) = fields.next()?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local_port, 16).ok()? == port;
    fields.nth(7).filter(|_| matches).map(str::to_owned)
}

/// Of "127.0.0.1:5000-5001(me) -> 127.0.0.1:6000-6001": 5000, where RTP arrives.
fn local_port(stream: &str) -> Option<u16> {
    let (local, _) = stream.split_once("(me)")?;
    let (rtp, _rtcp) = local.rsplit_once('-')?;
    rtp.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::sockopt::socket_recv_buffer_size;

    use super::*;

    #[test]
    fn a_streams_port_is_read_from_its_description() {
        assert_eq!(local_port("127.0.0.1:5000-5001(me) -> 127.0.0.1:6000-6001"), Some(5000));
        assert_eq!(local_port("::1:5000-5001(me) -> ::1:6000-6001"), Some(5000));
        assert_eq!(local_port("TCP, interleaved channel ids 0-1"), None);
    }

    #[test]
    fn the_buffer_of_the_socket_with_the_port_grows_and_no_other() {
        let (ours, other) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        set_socket_recv_buffer_size(&ours, 8192).unwrap();
        set_socket_recv_buffer_size(&other, 8192).unwrap();
        let before = socket_recv_buffer_size(&ours).unwrap();
        enlarge(ours.local_addr().unwrap().port()).unwrap();
        assert!(socket_recv_buffer_size(&ours).unwrap() > before);
        assert_eq!(socket_recv_buffer_size(&other).unwrap(), before);
        // A port that no socket is given by itself.
        assert_eq!(enlarge(1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
