//! Servers that are no cameras, and a relay that counts and cuts connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Something that listens; it stops when dropped.
#[derive(Debug)]
pub struct FakeServer {
    /// Where.
    pub address: SocketAddr,
    task: AbortHandle,
}

impl FakeServer {
    /// Answers every request, whatever its protocol, with `answer`, in which `{cseq}` becomes the
    /// number of an RTSP request, and closes the connection.
    pub async fn answering(answer: String) -> Self {
        Self::replying(move |request| {
            let cseq = request.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("0");
            answer.replace("{cseq}", cseq).into_bytes()
        })
        .await
    }

    /// Answers every request with what `reply` makes of its head, and closes the connection.
    pub async fn replying(reply: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let reply = Arc::new(reply);
        Self::serve(move |mut connection| {
            let reply = Arc::clone(&reply);
            async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n")
                    && connection.read_buf(&mut request).await.is_ok_and(|read| read > 0)
                {
                }
                let answer = reply(&String::from_utf8_lossy(&request));
                let _ = connection.write_all(&answer).await;
            }
        })
        .await
    }

    /// A web server that knows nothing.
    pub async fn web() -> Self {
        Self::answering(
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
        )
        .await
    }

    /// An RTSP server whose stream consists of these media lines of SDP.
    pub async fn describing(media: &str) -> Self {
        let body = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n{media}");
        let head = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\n";
        Self::answering(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
    }

    /// Takes connections, reads what comes, and never says anything.
    pub async fn silent() -> Self {
        Self::serve(|mut connection| async move {
            let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
        })
        .await
    }

    /// An MQTT broker that admits everybody and acknowledges nothing. `flood`: it sends messages
    /// that nobody asked for, as fast as they are read.
    pub async fn mqtt(flood: bool) -> Self {
        // Header, length, topic `x`, identifier, no properties, and what it says.
        let mut message = vec![0x32, 0x86, 0x08, 0, 1, b'x', 0, 1, 0];
        message.resize(message.len() + 1024, b'.');
        Self::serve(move |connection| {
            let message = message.clone();
            async move {
                let (mut from, mut to) = connection.into_split();
                // Success, no properties.
                if to.write_all(&[0x20, 3, 0, 0, 0]).await.is_err() {
                    return;
                }
                let flooding = async {
                    while flood && to.write_all(&message).await.is_ok() {}
                    std::future::pending().await
                };
                let mut nowhere = tokio::io::sink();
                tokio::select! {
                    _ = tokio::io::copy(&mut from, &mut nowhere) => {}
                    () = flooding => {}
                }
            }
        })
        .await
    }

    async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(handle(connection));
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the kernel keeps for a slow relay: with its default, a whole GOP would wait there.
const SLOW_BUFFER: u32 = 16 << 10;

/// Parts of a second of a slow relay: it passes bytes on in each.
const SLOW_PARTS: usize = 20;

/// Passes connections on to a port of this machine, counts them, and cuts them.
#[derive(Debug)]
pub struct Relay {
    fake: FakeServer,
    connections: Arc<AtomicUsize>,
    cuts: watch::Sender<usize>,
}

impl Relay {
    /// A relay to `port`.
    pub async fn to(port: u16) -> Self {
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let (cuts, cut) = watch::channel(0);
        let fake = FakeServer::serve(move |mut inner| {
            count.fetch_add(1, Ordering::SeqCst);
            let mut cut = cut.clone();
            cut.mark_unchanged();
            async move {
                let passing = async {
                    if let Ok(mut outer) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut inner, &mut outer).await;
                    }
                };
                tokio::select! {
                    () = passing => {}
                    _ = cut.changed() => {}
                }
            }
        })
        .await;
        Self { fake, connections, cuts }
    }

    /// A relay to `port` that lets so many bytes a second through to who connects, and keeps little
    /// of what waits. It counts and cuts none.
    pub async fn slow(port: u16, bytes_per_second: usize) -> Self {
        let (cuts, _) = watch::channel(0);
        let fake = FakeServer::serve(move |inner| async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(SLOW_BUFFER).unwrap();
            let Ok(outer) = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await else {
                return;
            };
            let ((mut from, mut to), (mut back, mut forth)) =
                (outer.into_split(), inner.into_split());
            let mut part = vec![0; bytes_per_second / SLOW_PARTS];
            let mut turns = tokio::time::interval(Duration::from_secs(1) / SLOW_PARTS as u32);
            let down = async {
                loop {
                    turns.tick().await;
                    match from.read(&mut part).await {
                        Ok(count) if count > 0 => {
                            if forth.write_all(&part[..count]).await.is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
            };
            tokio::select! {
                () = down => {}
                _ = tokio::io::copy(&mut back, &mut to) => {}
            }
        })
        .await;
        Self { fake, connections: Arc::default(), cuts }
    }

    /// Ends all connections at both ends. New ones are taken as before.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.fake.address
    }

    /// How many connections have come in.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A port that refuses connections, and that nobody else is given while this lives: bound, and not
/// listening.
///
/// A server may be started there, and again after its end: Linux lets one listen beside a socket
/// that does not, where both have set `SO_REUSEADDR`, as servers do. Whoever asks for any free port
/// does not get this one.
#[derive(Debug)]
pub struct ClosedPort {
    /// Which.
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl ClosedPort {
    /// Takes a free port.
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    /// Takes a free port of an address of this machine.
    pub fn on(address: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((address, 0).into()).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }
}

impl Default for ClosedPort {
    fn default() -> Self {
        Self::new()
    }
}
