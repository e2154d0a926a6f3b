//! The host's side of an ingest process's network: it resolves names, connects and sends, where the
//! camera's rule admits it, and passes connected sockets on.
//!
//! A configured camera may lead its reader to itself alone: to any port of the host that its URL
//! names. A camera that a subscriber named may also lead it to what `[subscriptions] sources`
//! admits at that moment. Of a name, addresses that no camera has (link-local ones, where clouds
//! keep their secrets, and those of no one host) are left out unless the URL names them itself.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::ingest::{MAX_ADDRESSES, MAX_DATAGRAM, NetworkRequest, NetworkResponse};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_type};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::tls::{self, TlsError};
use crate::config::SourcePattern;
use crate::config::source::RtspSource;
use crate::util::address::is_ordinary;
use crate::util::packet_socket::PacketSocket;

/// Resolving a name, or connecting, TLS included.
const LIMIT: Duration = Duration::from_secs(5);

/// Connections of one process: a redirect or two, each with two addresses, and a second try of all;
/// or the strict reader's one, and some tries of TEARDOWN.
const MAX_CONNECTIONS: usize = 16;

/// Names that one process may ask for: the camera's own, and of a redirect.
const MAX_NAMES: usize = 8;

/// Bytes that wait on each way of a connection with TLS: a key picture of a 1080p camera.
const RELAY_BUFFER: usize = 128 << 10;

/// Receive buffer of a UDP stream: a key picture of a 4K camera at its largest, about 1 MB, with
/// what the kernel counts on top of each packet. Linux grants up to `net.core.rmem_max`, and takes
/// it only while packets wait.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The names that subscribers' cameras may lead to, as the config in force has them.
pub(in crate::source) type Admitted = Arc<Mutex<Arc<[SourcePattern]>>>;

/// Why a connection came to nothing, if the host knows better than the process.
#[derive(Debug)]
pub(super) enum NetworkRefusal {
    /// More connections than a process may have: redirects without end.
    TooMany,
    /// The camera led to this place, which its rule does not admit.
    NotAdmitted(String),
    Tls(TlsError),
}

/// A camera's network. Its connections with TLS end when this is dropped.
#[derive(Debug)]
pub(super) struct Broker {
    refusal: Arc<Mutex<Option<NetworkRefusal>>>,
    _task: AbortOnDropHandle<()>,
}

impl Broker {
    /// Serves the other end of this socket, within a tokio runtime.
    pub(super) fn start(
        source: RtspSource,
        admitted: Admitted,
        socket: OwnedFd,
    ) -> io::Result<Self> {
        let refusal = Arc::<Mutex<Option<NetworkRefusal>>>::default();
        let desk = Desk {
            rule: Rule { source, admitted },
            refusal: Arc::clone(&refusal),
            names: BTreeMap::new(),
            connections: 0,
            relays: JoinSet::new(),
        };
        let task = tokio::spawn(desk.serve(PacketSocket::new(socket)?));
        Ok(Self { refusal, _task: AbortOnDropHandle::new(task) })
    }

    /// Why the last connection came to nothing.
    pub(super) fn take_refusal(&self) -> Option<NetworkRefusal> {
        self.refusal.lock().take()
    }
}

/// Where a camera may lead its reader.
#[derive(Debug)]
struct Rule {
    source: RtspSource,
    admitted: Admitted,
}

impl Rule {
    /// Whether `host`, a name or an address as it is written, is admitted at this port. `None`: at
    /// some port.
    fn admits(&self, host: &str, port: Option<u16>) -> bool {
        let own = self.source.address().0;
        if !self.source.is_subscribers {
            return host.eq_ignore_ascii_case(own);
        }
        let patterns = Arc::clone(&self.admitted.lock());
        patterns.iter().any(|pattern| match port {
            Some(port) => pattern.admits_host(host, port),
            // Which port it will be is asked when it connects.
            None => pattern.admits_name(host),
        })
    }
}

/// Answers one process.
struct Desk {
    rule: Rule,
    refusal: Arc<Mutex<Option<NetworkRefusal>>>,
    /// What was resolved, by name.
    names: BTreeMap<String, Vec<IpAddr>>,
    connections: usize,
    relays: JoinSet<()>,
}

impl Desk {
    /// Answers one request after the other until the process has ended.
    async fn serve(mut self, socket: PacketSocket) {
        loop {
            let (request, descriptors) = match socket.receive_with().await {
                Ok(received) => received,
                Err(error) => {
                    debug!(target: "ocelli::source", "network of a reader process: {error}");
                    return;
                }
            };
            let (response, connection) = self.answer(request, descriptors).await;
            let descriptors: Vec<_> = connection.iter().map(AsFd::as_fd).collect();
            if socket.send(&response, &descriptors).await.is_err() {
                return;
            }
        }
    }

    async fn answer(
        &mut self,
        request: NetworkRequest,
        descriptors: Vec<OwnedFd>,
    ) -> (NetworkResponse, Option<OwnedFd>) {
        let response = match request {
            NetworkRequest::Resolve { name } => self.resolve(name).await,
            NetworkRequest::Connect { address } => match self.connect(address).await {
                Ok(connection) => return (NetworkResponse::Connected, Some(connection)),
                Err(response) => response,
            },
            NetworkRequest::Bind { address } => self.bind(address, &descriptors),
            NetworkRequest::Send { address, data } => self.send(address, &data, &descriptors),
        };
        (response, None)
    }

    async fn resolve(&mut self, name: String) -> NetworkResponse {
        if !self.rule.admits(&name, None) {
            return self.refuse(name);
        }
        if self.names.len() >= MAX_NAMES {
            return failed(Errno::MFILE);
        }
        let found = match timeout(LIMIT, lookup_host((name.as_str(), 0))).await {
            Ok(Ok(found)) => found.map(|address| address.ip()),
            Ok(Err(_)) => return failed(Errno::HOSTUNREACH),
            Err(_) => return failed(Errno::TIMEDOUT),
        };
        let addresses: Vec<IpAddr> =
            found.filter(|address| is_ordinary(*address)).take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return self.refuse(name);
        }
        self.names.insert(name, addresses.clone());
        NetworkResponse::Resolved(addresses)
    }

    /// Whether the process may reach this address: it is written in the URL or the rule, or it is
    /// one of a name that is.
    fn admits(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip(), Some(address.port()));
        let of_name = |(name, addresses): (&String, &Vec<IpAddr>)| {
            addresses.contains(&ip) && self.rule.admits(name, port)
        };
        self.rule.admits(&ip.to_canonical().to_string(), port)
            || self.rule.admits(&ip.to_string(), port)
            || self.names.iter().any(of_name)
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<OwnedFd, NetworkResponse> {
        if !self.admits(address) {
            return Err(self.refuse(address.to_string()));
        }
        if self.connections >= MAX_CONNECTIONS {
            *self.refusal.lock() = Some(NetworkRefusal::TooMany);
            return Err(failed(Errno::MFILE));
        }
        self.connections += 1;
        match timeout(LIMIT, self.connected(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(failed(Errno::TIMEDOUT)),
        }
    }

    async fn connected(&mut self, address: SocketAddr) -> Result<OwnedFd, NetworkResponse> {
        let connection = TcpStream::connect(address).await.map_err(io_failed)?;
        let Some(trust) = self.rule.source.tls.clone() else {
            return blocking(connection.into_std());
        };
        // Requests and reports are small, and none is to wait for the answer to the one before.
        connection.set_nodelay(true).map_err(io_failed)?;
        let mut encrypted = match tls::handshake(&self.rule.source, trust, connection).await {
            Ok(encrypted) => encrypted,
            Err(error) => {
                *self.refusal.lock() = Some(NetworkRefusal::Tls(error));
                return Err(failed(Errno::PROTO));
            }
        };
        let (mut ours, theirs) = UnixStream::pair().map_err(io_failed)?;
        self.relays.spawn(async move {
            // Whichever side ends it: the process sees its end, and the camera too.
            let _ = tokio::io::copy_bidirectional_with_sizes(
                &mut encrypted,
                &mut ours,
                RELAY_BUFFER,
                RELAY_BUFFER,
            )
            .await;
        });
        blocking(theirs.into_std())
    }

    /// Lets a socket of the process exchange datagrams with this address alone. Linux keeps about
    /// 90 packets of a socket by default (`net.core.rmem_default`) and drops the rest, so that key
    /// pictures would never arrive whole.
    fn bind(&mut self, address: SocketAddr, descriptors: &[OwnedFd]) -> NetworkResponse {
        let [socket] = descriptors else { return failed(Errno::BADF) };
        if !self.admits(address) {
            return self.refuse(address.to_string());
        }
        if socket_type(socket) != Ok(rustix::net::SocketType::DGRAM) {
            return failed(Errno::NOTSOCK);
        }
        if let Err(error) = set_socket_recv_buffer_size(socket, RECEIVE_BUFFER) {
            debug!(target: "ocelli::source", %error, "the UDP receive buffer stays as it is");
        }
        match rustix::net::connect(socket, &address) {
            Ok(()) => NetworkResponse::Bound,
            Err(error) => failed(error),
        }
    }

    /// Sends a datagram from a socket of the process.
    fn send(
        &mut self,
        address: SocketAddr,
        data: &[u8],
        descriptors: &[OwnedFd],
    ) -> NetworkResponse {
        let [socket] = descriptors else { return failed(Errno::BADF) };
        if data.len() > MAX_DATAGRAM {
            return failed(Errno::MSGSIZE);
        }
        if !self.admits(address) {
            return self.refuse(address.to_string());
        }
        if socket_type(socket) != Ok(rustix::net::SocketType::DGRAM) {
            return failed(Errno::NOTSOCK);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendto(socket, data, flags, &address) {
            Ok(_) => NetworkResponse::Sent,
            Err(error) => failed(error),
        }
    }

    fn refuse(&self, place: String) -> NetworkResponse {
        *self.refusal.lock() = Some(NetworkRefusal::NotAdmitted(place));
        NetworkResponse::NotAdmitted
    }
}

fn failed(error: Errno) -> NetworkResponse {
    NetworkResponse::Failed { error: error.raw_os_error() }
}

fn io_failed(error: io::Error) -> NetworkResponse {
    failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A connection as the process expects it.
fn blocking(connection: io::Result<impl Into<OwnedFd>>) -> Result<OwnedFd, NetworkResponse> {
    let connection: OwnedFd = connection.map_err(io_failed)?.into();
    rustix::io::ioctl_fionbio(&connection, false).map_err(failed)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::inference::{MAX_PACKET, packet_pair, receive_with, send, send_with};
    use rustix::net::sockopt::socket_recv_buffer_size;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::source::Source;

    fn camera(text: &str) -> RtspSource {
        match Source::parse(text, None, None, false).unwrap() {
            Source::Rtsp(source) => source,
            Source::File(_) => panic!("{text} is no file"),
        }
    }

    fn patterns(texts: &[&str]) -> Admitted {
        let patterns: Vec<SourcePattern> = texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Mutex::new(patterns.into()))
    }

    /// A broker of a camera, asked as its process asks.
    struct Asked {
        broker: Broker,
        socket: OwnedFd,
    }

    impl Asked {
        fn new(source: RtspSource, admitted: Admitted) -> Self {
            let (ours, theirs) = packet_pair().unwrap();
            Self { broker: Broker::start(source, admitted, ours).unwrap(), socket: theirs }
        }

        async fn ask(
            &self,
            request: NetworkRequest,
            socket: Option<OwnedFd>,
        ) -> (NetworkResponse, Vec<OwnedFd>) {
            let process = self.socket.try_clone().unwrap();
            let asking = tokio::task::spawn_blocking(move || {
                match &socket {
                    Some(socket) => send_with(process.as_fd(), &request, &[socket.as_fd()]),
                    None => send(process.as_fd(), &request),
                }
                .unwrap();
                receive_with(process.as_fd(), &mut vec![0; MAX_PACKET]).unwrap()
            });
            asking.await.unwrap()
        }

        async fn resolve(&self, name: &str) -> NetworkResponse {
            self.ask(NetworkRequest::Resolve { name: name.to_owned() }, None).await.0
        }

        async fn connect(&self, address: SocketAddr) -> (NetworkResponse, Vec<OwnedFd>) {
            self.ask(NetworkRequest::Connect { address }, None).await
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_configured_camera_leads_to_any_port_of_its_own_and_nowhere_else() {
        let (listener, address) = listener().await;
        let asked = Asked::new(camera("rtsp://127.0.0.1:554/a"), Admitted::default());
        let (response, connection) = asked.connect(address).await;
        assert_eq!(response, NetworkResponse::Connected);
        assert_eq!(connection.len(), 1);
        listener.accept().await.unwrap();
        assert!(asked.broker.take_refusal().is_none());
        for elsewhere in ["127.0.0.2:554", "169.254.169.254:80", "[::1]:554", "10.0.0.1:554"] {
            let (response, connection) = asked.connect(elsewhere.parse().unwrap()).await;
            assert_eq!((response, connection.len()), (NetworkResponse::NotAdmitted, 0));
            let refusal = asked.broker.take_refusal();
            assert!(
                matches!(&refusal, Some(NetworkRefusal::NotAdmitted(place)) if place == elsewhere),
                "{refusal:?}"
            );
        }
        for name in ["localhost", "127.0.0.1.evil.example"] {
            assert_eq!(asked.resolve(name).await, NetworkResponse::NotAdmitted, "{name}");
        }
    }

    #[tokio::test]
    async fn addresses_of_a_name_are_admitted_once_it_was_resolved() {
        let (listener, address) = listener().await;
        let asked = Asked::new(camera("rtsp://LocalHost/a"), Admitted::default());
        assert_eq!(asked.connect(address).await.0, NetworkResponse::NotAdmitted);
        let NetworkResponse::Resolved(addresses) = asked.resolve("localhost").await else {
            panic!("localhost has addresses")
        };
        assert!(addresses.contains(&address.ip()));
        assert_eq!(asked.connect(address).await.0, NetworkResponse::Connected);
        listener.accept().await.unwrap();
        assert_eq!(asked.resolve("other.example").await, NetworkResponse::NotAdmitted);
    }

    #[tokio::test]
    async fn a_subscribers_camera_leads_to_what_the_config_admits() {
        let (listener, address) = listener().await;
        let source =
            match Source::parse("rtsp://127.0.0.1:1/a", None, None, false).unwrap().of_subscriber()
            {
                Source::Rtsp(source) => source,
                Source::File(_) => panic!("no file"),
            };
        let admitted = patterns(&["rtsp://127.0.0.1:1"]);
        let asked = Asked::new(source, Arc::clone(&admitted));
        assert_eq!(asked.connect(address).await.0, NetworkResponse::NotAdmitted, "another port");
        *admitted.lock() = [format!("rtsp://{address}").parse().unwrap()].into();
        assert_eq!(asked.connect(address).await.0, NetworkResponse::Connected);
        listener.accept().await.unwrap();
        assert_eq!(asked.resolve("localhost").await, NetworkResponse::NotAdmitted);
    }

    #[tokio::test]
    async fn connections_are_bounded_and_a_refused_one_is_told_by_its_error() {
        let (listener, address) = listener().await;
        let asked = Asked::new(camera("rtsp://127.0.0.1/a"), Admitted::default());
        drop(listener);
        let refused = NetworkResponse::Failed { error: Errno::CONNREFUSED.raw_os_error() };
        for _ in 0..MAX_CONNECTIONS {
            assert_eq!(asked.connect(address).await.0, refused);
        }
        assert_eq!(asked.connect(address).await.0, failed(Errno::MFILE));
    }

    #[tokio::test]
    async fn a_socket_is_bound_to_the_camera_and_its_buffer_grows() {
        let camera_end = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = camera_end.local_addr().unwrap();
        let asked = Asked::new(camera("rtsp://127.0.0.1/a"), Admitted::default());
        let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        set_socket_recv_buffer_size(&ours, 8192).unwrap();
        let before = socket_recv_buffer_size(&ours).unwrap();
        let socket = || OwnedFd::from(ours.try_clone().unwrap());
        let elsewhere = NetworkRequest::Bind { address: "127.0.0.2:9".parse().unwrap() };
        assert_eq!(asked.ask(elsewhere, Some(socket())).await.0, NetworkResponse::NotAdmitted);
        assert!(ours.peer_addr().is_err());
        let bind = NetworkRequest::Bind { address };
        assert_eq!(asked.ask(bind, Some(socket())).await.0, NetworkResponse::Bound);
        assert_eq!(ours.peer_addr().unwrap(), address);
        assert!(socket_recv_buffer_size(&ours).unwrap() > before);
    }

    #[tokio::test]
    async fn datagrams_go_from_sockets_of_the_process_to_the_camera_alone() {
        let camera_end = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = camera_end.local_addr().unwrap();
        let asked = Asked::new(camera("rtsp://127.0.0.1/a"), Admitted::default());
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let request = |address, size| NetworkRequest::Send { address, data: vec![7; size] };
        let sent = asked.ask(request(address, 4), Some(socket())).await.0;
        assert_eq!(sent, NetworkResponse::Sent);
        let mut buffer = [0; 16];
        assert_eq!(camera_end.recv(&mut buffer).unwrap(), 4);
        let elsewhere = "127.0.0.2:9".parse().unwrap();
        let refused = asked.ask(request(elsewhere, 4), Some(socket())).await.0;
        assert_eq!(refused, NetworkResponse::NotAdmitted);
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for (size, descriptor) in [(4, Some(file)), (4, None), (MAX_DATAGRAM + 1, Some(socket()))] {
            let answer = asked.ask(request(address, size), descriptor).await.0;
            assert!(matches!(answer, NetworkResponse::Failed { .. }), "{answer:?}");
        }
    }
}
