//! A scripted RTSP camera, and a host's side of the network that says where a reader gets to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ocelli_protocol::ingest::{NetworkRequest, NetworkResponse};
use ocelli_protocol::wire;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::process::nals;

/// How long the camera waits for its reader, and the reader's host for a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ticks of RTP packets' clock in a second.
pub(crate) const CLOCK: u32 = 90_000;

/// A camera's answer to a request: status line and headers without CSeq, and a body.
#[derive(Clone)]
pub(crate) struct Answer(pub(crate) String, pub(crate) String);

/// What a camera does with the requests of one connection after another.
pub(crate) struct Script {
    /// By method. One that is not here is answered with 200 and no header.
    pub(crate) answers: HashMap<&'static str, Answer>,
    /// What it sends once it plays.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Whether the packets go to the reader's UDP ports.
    pub(crate) udp: bool,
    /// Whether it closes the connection behind the last packet, or waits for the reader to go.
    pub(crate) closes: bool,
}

/// A camera that serves one connection at a time.
pub(crate) struct Camera {
    pub(crate) address: SocketAddr,
    /// Each connection's requests, as it ends.
    pub(crate) connections: Receiver<Vec<String>>,
    _thread: JoinHandle<()>,
}

impl Script {
    /// A camera that plays `packets` of H.264 within its connection.
    pub(crate) fn playing(packets: Vec<Vec<u8>>) -> Self {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n\
            m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1\r\na=control:video\r\n\
            m=audio 0 RTP/AVP 0\r\na=control:audio\r\n";
        let ok = |headers: &str| format!("RTSP/1.0 200 OK\r\n{headers}");
        let answers = HashMap::from([
            ("OPTIONS", Answer(ok("Public: DESCRIBE, SETUP, PLAY, OPTIONS\r\n"), String::new())),
            ("DESCRIBE", Answer(ok("Content-Type: application/sdp\r\n"), sdp.to_owned())),
            (
                "SETUP",
                Answer(
                    ok("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"),
                    String::new(),
                ),
            ),
            ("PLAY", Answer(ok("Session: 1\r\n"), String::new())),
        ]);
        Self { answers, packets, udp: false, closes: true }
    }

    /// A camera that answers `method` with a status line and headers.
    pub(crate) fn answering(method: &'static str, head: &str) -> Self {
        let mut script = Self::playing(Vec::new());
        script.answers.insert(method, Answer(head.to_owned(), String::new()));
        script
    }

    /// The camera, on a port of its own.
    pub(crate) fn serve(self) -> Camera {
        self.serve_at(([127, 0, 0, 1], 0).into())
    }

    /// The camera, at an address.
    pub(crate) fn serve_at(self, address: SocketAddr) -> Camera {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = channel();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if sender.send(self.connection(stream)).is_err() {
                    return;
                }
            }
        });
        Camera { address, connections, _thread: thread }
    }

    /// Serves a connection to its end. Gives the requests.
    fn connection(&self, stream: TcpStream) -> Vec<String> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut requests = Vec::new();
        let ports = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut destination = None;
        while let Some(request) = request(&mut reader) {
            let method = request.split(' ').next().unwrap().to_owned();
            let sequence = header(&request, "CSeq").unwrap_or_default();
            if let Some(at) = request.find("client_port=") {
                let port: String =
                    request[at + 12..].chars().take_while(char::is_ascii_digit).collect();
                destination = Some(SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
            }
            let Answer(head, body) =
                self.answers.get(method.as_str()).cloned().unwrap_or_else(|| {
                    Answer("RTSP/1.0 200 OK\r\nSession: 1\r\n".to_owned(), String::new())
                });
            let head = head.replace("SERVER_PORT", &ports.local_addr().unwrap().port().to_string());
            let length = body.len();
            let answer =
                format!("{head}CSeq: {sequence}\r\nContent-Length: {length}\r\n\r\n{body}");
            requests.push(request);
            if (&stream).write_all(answer.as_bytes()).is_err() {
                break;
            }
            if method == "PLAY" {
                for packet in &self.packets {
                    let sent = if self.udp {
                        ports.send_to(packet, destination.unwrap()).map(drop)
                    } else {
                        let channel = u8::from((200..=204).contains(&packet[1]));
                        let length = (packet.len() as u16).to_be_bytes();
                        let head = [b'$', channel, length[0], length[1]];
                        (&stream).write_all(&[&head[..], packet].concat())
                    };
                    if sent.is_err() {
                        return requests;
                    }
                }
                if self.closes {
                    break;
                }
            }
        }
        requests
    }
}

/// A request with its headers. `None` at the end of the connection.
fn request(reader: &mut impl BufRead) -> Option<String> {
    let mut request = String::new();
    loop {
        let first = reader.fill_buf().ok()?.first().copied()?;
        if first == b'$' {
            // A receiver report within the connection.
            let mut head = [0; 4];
            reader.read_exact(&mut head).ok()?;
            let length = u64::from(u16::from_be_bytes([head[2], head[3]]));
            std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
            continue;
        }
        let before = request.len();
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
        if request[before..].trim().is_empty() {
            return Some(request);
        }
    }
}

fn header(request: &str, name: &str) -> Option<String> {
    let line = request.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// RTP packets of access units in Annex B form, `ticks` apart. Long NAL units go in fragments.
pub(crate) fn packets(units: &[Vec<u8>], ticks: u32) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        let time = 1000 + ticks * number as u32;
        let nals = nals(unit);
        for (index, nal) in nals.iter().enumerate() {
            let last = index + 1 == nals.len();
            let mut push = |payload: &[u8], marker: bool| {
                let sequence = 100 + packets.len() as u16;
                let kind = 96 | if marker { 0x80 } else { 0 };
                let mut packet = vec![0x80, kind];
                packet.extend(sequence.to_be_bytes());
                packet.extend(time.to_be_bytes());
                packet.extend([0, 0, 0, 7]);
                packet.extend(payload);
                packets.push(packet);
            };
            if nal.len() <= 1400 {
                push(nal, last);
                continue;
            }
            let parts: Vec<&[u8]> = nal[1..].chunks(1400).collect();
            for (part, bytes) in parts.iter().enumerate() {
                let (start, end) = (part == 0, part + 1 == parts.len());
                let flags = u8::from(start) << 7 | u8::from(end) << 6 | nal[0] & 31;
                push(&[&[nal[0] & 0xe0 | 28, flags], *bytes].concat(), last && end);
            }
        }
    }
    packets
}

/// A sender report: at `seconds` since 1970 the clock of RTP packets stood at `ticks`.
pub(crate) fn sender_report(seconds: u32, ticks: u32) -> Vec<u8> {
    let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 7];
    report.extend((seconds + 2_208_988_800).to_be_bytes());
    report.extend([0; 4]);
    report.extend(ticks.to_be_bytes());
    report.extend([0; 8]);
    report
}

/// The host's side of the network: answers requests as it is told, and keeps them.
pub(crate) struct Broker {
    pub(crate) requests: Receiver<NetworkRequest>,
    _thread: JoinHandle<()>,
}

impl Broker {
    /// `admits` says which addresses are reached; each name is `127.0.0.1`. It serves until the
    /// reader is gone.
    pub(crate) fn serve(
        socket: OwnedFd,
        admits: impl Fn(SocketAddr) -> bool + Send + 'static,
    ) -> Self {
        let (sender, requests) = channel();
        let thread = std::thread::spawn(move || {
            while let Some((request, descriptor)) = received(&socket) {
                // The test may have seen enough.
                let _ = sender.send(request.clone());
                let (answer, connected) = answer(&request, descriptor, &admits);
                if !send(&socket, &answer, connected.as_ref().map(AsFd::as_fd)) {
                    return;
                }
            }
        });
        Self { requests, _thread: thread }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<NetworkRequest> {
        self.requests.try_iter().collect()
    }
}

fn answer(
    request: &NetworkRequest,
    descriptor: Option<OwnedFd>,
    admits: &impl Fn(SocketAddr) -> bool,
) -> (NetworkResponse, Option<OwnedFd>) {
    let failed = |error: std::io::Error| NetworkResponse::Failed {
        error: error.raw_os_error().unwrap_or(libc::EIO),
    };
    match request {
        NetworkRequest::Resolve { .. } => {
            (NetworkResponse::Resolved(vec![IpAddr::from([127, 0, 0, 1])]), None)
        }
        NetworkRequest::Connect { address }
        | NetworkRequest::Bind { address }
        | NetworkRequest::Send { address, .. }
            if !admits(*address) =>
        {
            (NetworkResponse::NotAdmitted, None)
        }
        NetworkRequest::Bind { address } => {
            match UdpSocket::from(descriptor.unwrap()).connect(address) {
                Ok(()) => (NetworkResponse::Bound, None),
                Err(error) => (failed(error), None),
            }
        }
        NetworkRequest::Connect { address } => match TcpStream::connect(address) {
            Ok(stream) => (NetworkResponse::Connected, Some(stream.into())),
            Err(error) => (failed(error), None),
        },
        NetworkRequest::Send { address, data } => {
            let socket = UdpSocket::from(descriptor.unwrap());
            match socket.send_to(data, address) {
                Ok(_) => (NetworkResponse::Sent, None),
                Err(error) => (failed(error), None),
            }
        }
    }
}

fn received(socket: &OwnedFd) -> Option<(NetworkRequest, Option<OwnedFd>)> {
    let mut message = [0; 2048];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (received.bytes > 0).then(|| (wire::decode(&message[..received.bytes]).unwrap(), descriptor))
}

fn send(socket: &OwnedFd, answer: &NetworkResponse, with: Option<BorrowedFd<'_>>) -> bool {
    let message = wire::to_bytes(answer).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = with.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL).is_ok()
}
