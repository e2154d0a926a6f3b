//! Answers of HTTP, read by hand: tests send what no client would.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{DEADLINE, within};

/// An answer.
#[derive(Debug)]
pub struct HttpResponse {
    /// Its status.
    pub status: u16,
    /// The status and the headers, in lower case.
    pub head: String,
    /// The rest.
    pub text: String,
    /// The rest, null where it is not JSON.
    pub body: Value,
}

impl HttpResponse {
    /// Reads one until the connection is closed.
    pub async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Self {
        timeout(DEADLINE, Self::try_read(connection)).await.expect("an answer in time").unwrap()
    }

    /// As [`read`](Self::read), of a host that may be killed meanwhile, and without a deadline.
    pub async fn try_read(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        // A picture's bytes are no text.
        let answer = String::from_utf8_lossy(&answer);
        Self::parse(&answer).ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer}")))
    }

    /// None: it is none.
    fn parse(answer: &str) -> Option<Self> {
        let (head, text) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = serde_json::from_str(text).unwrap_or_default();
        Some(Self { status, head: head.to_lowercase(), text: text.to_owned(), body })
    }

    /// A header, in lower case; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// Holds it to being a problem (RFC 9457) with this status and code.
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        for member in ["title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
    }
}

/// Connects and sends a request: method and path, headers as whole lines, and a body. Its answer
/// ends the connection.
pub async fn request(
    address: SocketAddr,
    request: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(address).await?;
    let head =
        format!("{request} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    connection.write_all(&[head.as_bytes(), body].concat()).await?;
    Ok(connection)
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct EventStream {
    /// The status line and the headers, each with its end of line.
    pub head: String,
    body: BufReader<TcpStream>,
}

impl EventStream {
    /// Asks for `path` with `headers` (whole lines) and reads the head of the answer.
    pub async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let connection = request(address, &format!("GET {path}"), headers, &[]).await.unwrap();
        let mut stream = Self { head: String::new(), body: BufReader::new(connection) };
        while !stream.head.ends_with("\r\n\r\n") {
            let line = stream.line().await;
            stream.head += &line;
        }
        stream
    }

    /// The next line with its end: a field, a comment, a blank one, or the size of a chunk.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(within(self.body.read_line(&mut line)).await.unwrap() > 0, "the stream has ended");
        line
    }

    /// Waits for the end of the connection; what is left to read is passed over.
    pub async fn ends(&mut self) {
        within(self.body.read_to_end(&mut Vec::new())).await.unwrap();
    }

    /// The next message: its kind, its id, and its data.
    pub async fn next(&mut self) -> (String, Option<u64>, Value) {
        let (mut kind, mut id) = (String::new(), None);
        loop {
            match self.line().await.trim_end().split_once(": ") {
                Some(("event", value)) => kind = value.to_owned(),
                Some(("id", value)) => id = value.parse().ok(),
                Some(("data", value)) => return (kind, id, serde_json::from_str(value).unwrap()),
                _ => {}
            }
        }
    }
}
