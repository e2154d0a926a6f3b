//! A scripted RTSP camera: it plays small footage as a well-behaved camera does, and a [`Script`]
//! bends single answers, packets and times into those of cameras in the field.
//!
//! Each connection is one task that owns its socket: it takes requests and sends pictures in turn.
//! What a script bends is a value ([`Answer`], lines of SDP, NAL units, [`Packet`]s, times), so a
//! case of the tests is a closure over it and needs no protocol of its own.

mod access;
mod answer;
mod attack;
mod connection;
mod footage;
mod packet;
mod script;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

pub use access::Access;
pub use answer::{Answer, Place, Request};
pub use attack::{Attack, attacks};
pub use footage::Footage;
pub use packet::{Packet, Report};
pub use script::{Moment, Script};
pub use tls::Certificate;

use connection::Connection;

/// Requests that are remembered of one camera: a client that asks without end must not fill the
/// memory of its test.
const MAX_REQUESTS: usize = 10_000;

/// A running camera; it goes when dropped.
#[derive(Debug)]
pub struct Camera {
    place: Place,
    scheme: &'static str,
    credentials: String,
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

/// What a camera saw of its clients.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    /// Those of them that were meant for another camera.
    strangers: usize,
    requests: Vec<String>,
    answers: usize,
}

impl Camera {
    /// Starts a camera. It listens on two ports, so that a script can send clients from one to the
    /// other.
    pub async fn start(script: Script) -> Self {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let doors = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let scheme = if script.certificate.is_some() { "rtsps" } else { "rtsp" };
        let credentials = script.access.as_ref().map(Access::credentials).unwrap_or_default();
        let place = Place { doors, path: format!("/camera-{:08x}", fastrand::u32(..)) };
        let task =
            tokio::spawn(serve(Arc::new(script), listeners, place.clone(), Arc::clone(&seen)));
        Self { place, scheme, credentials, seen, task: task.abort_handle() }
    }

    /// Its URL, with its user name and password where it asks for them.
    pub fn url(&self) -> String {
        self.url_with(&self.credentials)
    }

    /// Its URL with other credentials: `user:password@`, or nothing.
    pub fn url_with(&self, credentials: &str) -> String {
        format!("{}://{credentials}{}{}", self.scheme, self.address(), self.place.path)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.place.doors[0]
    }

    /// How many connections it took, at both ports.
    pub fn connections(&self) -> usize {
        let seen = self.seen.lock();
        seen.connections - seen.strangers
    }

    /// How often it was asked for this method.
    pub fn asked(&self, method: &str) -> usize {
        self.seen.lock().requests.iter().filter(|asked| *asked == method).count()
    }

    /// How many answers to requests of its own it got.
    pub fn answers(&self) -> usize {
        self.seen.lock().answers
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes connections until it is aborted; they end with it.
async fn serve(
    script: Arc<Script>,
    [front, side]: [TcpListener; 2],
    place: Place,
    seen: Arc<Mutex<Seen>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (accepted, door) = tokio::select! {
            accepted = front.accept() => (accepted, 0),
            accepted = side.accept() => (accepted, 1),
            Some(_) = connections.join_next() => continue,
        };
        let Ok((socket, _)) = accepted else { continue };
        seen.lock().connections += 1;
        let _ = socket.set_nodelay(true);
        let connection =
            Connection::new(Arc::clone(&script), place.clone(), door, Arc::clone(&seen));
        let tls = script.certificate.as_ref().map(Certificate::acceptor);
        connections.spawn(async move {
            // A client may go at any moment, and that is the end of its connection alone.
            let _ = match tls {
                None => connection.run(socket).await,
                Some(tls) => match tls.accept(socket).await {
                    Ok(socket) => connection.run(socket).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}
