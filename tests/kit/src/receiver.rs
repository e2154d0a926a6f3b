//! A receiver of what hosts send over HTTP, webhooks above all: a real server, which does what a
//! test wants it to do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::DEADLINE;

/// What a receiver does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reception {
    /// Takes it.
    Take,
    /// Takes it after so long.
    Slow(Duration),
    /// Reads it, keeps nothing, and answers with this status and these header lines.
    Answer(u16, String),
    /// Reads it and says nothing.
    Silent,
    /// Closes the connection in the middle of the request.
    Hangup,
    /// Takes it, and closes the connection in the middle of its answer.
    HalfAnswer,
    /// Takes it, and answers without end.
    Endless,
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct HookRequest {
    /// By names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// The same as text.
    pub text: String,
    /// The same, null where it is not JSON.
    pub body: Value,
}

/// See the module's documentation. It stops when dropped.
#[derive(Debug)]
pub struct HookReceiver {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<ReceiverState>,
    reception: watch::Sender<Reception>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct ReceiverState {
    taken: Mutex<Vec<HookRequest>>,
    more: Notify,
    /// Requests of which it has seen the head.
    asked: Mutex<usize>,
    /// A session, the number of its event that is refused, and the status.
    refused: Mutex<Option<(String, u64, u16)>>,
}

impl HookReceiver {
    /// Takes whatever comes.
    pub async fn start() -> Self {
        Self::with(Reception::Take).await
    }

    /// Does this with each request.
    pub async fn with(reception: Reception) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reception, watched) = watch::channel(reception);
        let shared = Arc::<ReceiverState>::default();
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&serving), watched.clone()));
            }
        });
        Self { address, shared, reception, task: task.abort_handle() }
    }

    /// From the next request on.
    pub fn set(&self, reception: Reception) {
        self.reception.send_replace(reception);
    }

    /// Refuses each request with this event, whatever else it does.
    pub fn refuse_events_of(&self, session: &str, number: u64, status: u16) {
        *self.shared.refused.lock() = Some((session.to_owned(), number, status));
    }

    /// Its entry of a config.
    pub fn section(&self, name: &str, more: &str) -> String {
        format!(
            "[[webhooks]]\nname = {name:?}\nurl = \"http://{}/hook?a=1\"\nsecret = {:?}\n\
             allow_private = true\n{more}\n",
            self.address,
            Self::SECRET
        )
    }

    /// What its messages are signed with.
    pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The requests that it has taken.
    pub fn taken(&self) -> Vec<HookRequest> {
        self.shared.taken.lock().clone()
    }

    /// Requests that it has seen.
    pub fn asked(&self) -> usize {
        *self.shared.asked.lock()
    }

    /// The numbers of a session's events as they came, doubles included.
    pub fn numbers(&self, session: &str) -> Vec<u64> {
        let taken = self.shared.taken.lock();
        let of = taken.iter().filter(|request| request.body["data"]["session"] == session);
        let events = of.filter_map(|request| request.body["data"]["events"].as_array()).flatten();
        events.map(|event| event["seq"].as_u64().unwrap()).collect()
    }

    /// Waits until what it has seen is as wanted.
    pub async fn until(&self, what: &str, good: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let more = self.shared.more.notified();
                if good(self) {
                    return;
                }
                more.await;
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "{what}: {} requests seen, {:#?}", self.asked(), self.taken());
    }
}

impl Drop for HookReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ReceiverState {
    /// The answer to a request with the event that is refused.
    fn refusal(&self, body: &Value) -> Option<Reception> {
        let (session, number, status) = self.refused.lock().clone()?;
        let data = &body["data"];
        let events = data["events"].as_array()?;
        let holds = data["session"] == *session && events.iter().any(|it| it["seq"] == number);
        holds.then(|| Reception::Answer(status, String::new()))
    }
}

/// Serves requests until the connection ends.
async fn serve(
    mut connection: TcpStream,
    shared: Arc<ReceiverState>,
    reception: watch::Receiver<Reception>,
) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !connection.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                return;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<String, String> =
            lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let reception = reception.borrow().clone();
        *shared.asked.lock() += 1;
        shared.more.notify_waiters();
        if reception == Reception::Hangup {
            return;
        }
        let whole = end + headers["content-length"].parse::<usize>().unwrap();
        while bytes.len() < whole {
            if !connection.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        let body = bytes[end..whole].to_vec();
        bytes.drain(..whole);
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        let request = HookRequest { headers, bytes: body, text, body: json };
        let reception = shared.refusal(&request.body).unwrap_or(reception);
        if !answer(&mut connection, &shared, reception, request).await {
            return;
        }
    }
}

/// Answers a request. False: the connection ends.
async fn answer(
    connection: &mut TcpStream,
    shared: &ReceiverState,
    reception: Reception,
    request: HookRequest,
) -> bool {
    const NONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let take = || {
        shared.taken.lock().push(request);
        shared.more.notify_waiters();
    };
    match reception {
        Reception::Take => {
            take();
            connection.write_all(NONE.as_bytes()).await.is_ok()
        }
        Reception::Slow(wait) => {
            tokio::time::sleep(wait).await;
            take();
            connection.write_all(NONE.as_bytes()).await.is_ok()
        }
        Reception::Answer(status, headers) => {
            let answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 4\r\n\r\nbusy");
            connection.write_all(answer.as_bytes()).await.is_ok()
        }
        Reception::Silent => {
            let _ = tokio::io::copy(connection, &mut tokio::io::sink()).await;
            false
        }
        Reception::Hangup => false,
        Reception::HalfAnswer => {
            take();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
            let _ = connection.write_all(answer).await;
            false
        }
        Reception::Endless => {
            take();
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut open = connection.write_all(head).await.is_ok();
            while open {
                open = connection.write_all(b"10\r\n0123456789abcdef\r\n").await.is_ok();
            }
            false
        }
    }
}
