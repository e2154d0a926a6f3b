//! Many WebSocket clients that cost as little as they can, so that they leave the machine to the
//! host: they look for one number in each message and parse nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What stands before the moment at which a message's result was made, in microseconds since 1970:
/// a pipeline of the tests writes it, as a number or as a text.
const STAMP: &[u8] = b"\"stamp\":";

/// Read at once from a connection: some results.
const READ: usize = 16 << 10;

/// What the kernel is to keep for one that never reads (it takes twice as much): the host has to
/// keep the rest.
const SMALL_BUFFER: u32 = 4096;

/// How a client listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// It reads what comes.
    Reading,
    /// It asks for compressed messages, reads them, and does not look into them.
    Compressed,
    /// It never reads.
    Deaf,
}

/// What came since it was last asked for.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Messages of all clients.
    pub messages: u64,
    /// Milliseconds from a message's stamp to its arrival.
    pub delivery_ms: Vec<f64>,
    /// Messages that say that others were left out.
    pub lagged: u64,
    failed: Option<String>,
}

/// The clients; gone when dropped.
#[derive(Debug)]
pub struct Listeners {
    heard: Arc<Mutex<ListenerCounts>>,
    tasks: JoinSet<()>,
    deaf: Vec<TcpStream>,
}

impl Listeners {
    /// None yet.
    pub fn new() -> Self {
        Self { heard: Arc::default(), tasks: JoinSet::new(), deaf: Vec::new() }
    }

    /// Adds clients of a session, one after the other. They are subscribed when this returns, or
    /// will be soon.
    pub async fn add(
        &mut self,
        count: usize,
        manner: ListenerKind,
        address: SocketAddr,
        session: &str,
        detections: bool,
    ) -> Result<()> {
        let request =
            format!(r#"{{"type":"subscribe","session":"{session}","detections":{detections}}}"#);
        for _ in 0..count {
            let mut stream = open(address, manner).await?;
            stream.write_all(&masked(0x1, request.as_bytes())?).await?;
            if manner == ListenerKind::Deaf {
                self.deaf.push(stream);
                continue;
            }
            let heard = Arc::clone(&self.heard);
            self.tasks.spawn(async move {
                let failed = listen(stream, manner, &heard).await.err();
                let mut heard = heard.lock();
                heard.failed = failed.map(|error| format!("{error:#}"));
            });
        }
        Ok(())
    }

    /// What came since the last call; an error where a connection has ended.
    pub fn take(&self) -> Result<ListenerCounts> {
        let heard = std::mem::take(&mut *self.heard.lock());
        match heard.failed {
            Some(error) => bail!("a subscriber: {error}"),
            None => Ok(heard),
        }
    }
}

impl Default for Listeners {
    fn default() -> Self {
        Self::new()
    }
}

/// A connection that has become a WebSocket (RFC 6455, 4.1).
async fn open(address: SocketAddr, manner: ListenerKind) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if manner == ListenerKind::Deaf {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    let mut stream = socket.connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let extensions = match manner {
        ListenerKind::Compressed => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        ListenerKind::Reading | ListenerKind::Deaf => "",
    };
    // The key is that of the RFC's example: nobody caches in between.
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
         dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        // One byte at a time, so that nothing of the first message is taken.
        answer.push(stream.read_u8().await.context("the host closes the connection")?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 101 "), "no WebSocket: {answer}");
    let compressed = answer.to_lowercase().contains("permessage-deflate");
    ensure!(compressed == (manner == ListenerKind::Compressed), "compression: {answer}");
    Ok(stream)
}

/// A frame of a client with a mask of zeros, which leaves the payload as it is.
fn masked(opcode: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let length = length.context("a client's message is short")?;
    Ok([&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat())
}

async fn listen(
    mut stream: TcpStream,
    manner: ListenerKind,
    heard: &Mutex<ListenerCounts>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        ensure!(stream.read_buf(&mut buffer).await? > 0, "the host has closed the connection");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e6;
        let mut taken = 0;
        let mut pinged = false;
        while let Some((opcode, payload, end)) = frame(buffer.get(taken..).unwrap_or_default()) {
            taken += end;
            match opcode {
                0x8 => bail!("the host says good-bye: {}", String::from_utf8_lossy(payload)),
                0x9 => pinged = true,
                _ => heard.lock().take(payload, manner, now),
            }
        }
        buffer.drain(..taken);
        if pinged {
            // Whatever the ping held: it shows that somebody is here.
            stream.write_all(&masked(0xa, b"")?).await?;
        }
    }
}

impl ListenerCounts {
    fn take(&mut self, payload: &[u8], manner: ListenerKind, now_us: f64) {
        self.messages += 1;
        if manner == ListenerKind::Compressed {
            return;
        }
        if payload.starts_with(br#"{"type":"lagged""#) {
            self.lagged += 1;
        }
        if payload.starts_with(br#"{"type":"error""#) {
            self.failed = Some(String::from_utf8_lossy(payload).into_owned());
        }
        self.delivery_ms.extend(stamp(payload).map(|stamp| (now_us - stamp) / 1e3));
    }
}

/// Opcode and payload of the first frame of some bytes, and where it ends; none where it is not
/// complete. Frames of a host have no mask.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, header) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        length => (u64::from(length), 2),
    };
    let end = header + usize::try_from(length).ok()?;
    Some((first & 0xf, bytes.get(header..end)?, end))
}

/// The number behind the first [`STAMP`], whatever quotes and keys are between.
fn stamp(message: &[u8]) -> Option<f64> {
    let at = message.windows(STAMP.len()).position(|bytes| bytes == STAMP)?;
    let rest = message.get(at + STAMP.len()..)?;
    let digits = rest
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit())
        .take_while(|byte| byte.is_ascii_digit());
    let digits: String = digits.map(|byte| char::from(*byte)).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let long = [&[0x81, 126, 0, 200][..], &[b'x'; 200], &[0x89, 0]].concat();
        let (opcode, payload, end) = frame(&long).unwrap();
        assert_eq!((opcode, payload.len(), end), (1, 200, 204));
        assert_eq!(frame(&long[end..]), Some((9, &[][..], 2)));
        assert_eq!(frame(&long[..203]), None);
        assert_eq!(frame(&[0x81]), None);
    }

    #[test]
    fn a_stamp_is_found_as_a_number_and_as_a_text() {
        assert_eq!(
            stamp(br#"{"data":{"last":7,"stamp":1795313788798000,"x":1}}"#),
            Some(1_795_313_788_798_000.0)
        );
        let attribute = br#"{"attributes":{"stamp":{"value":"1795313788798000","score":1.0}}}"#;
        assert_eq!(stamp(attribute), Some(1_795_313_788_798_000.0));
        assert_eq!(stamp(b"{}"), None);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut heard = ListenerCounts::default();
        heard.take(br#"{"type":"lagged","session":"a","missed":4}"#, ListenerKind::Reading, 0.0);
        heard.take(br#"{"type":"event","data":{"stamp":1000}}"#, ListenerKind::Reading, 3000.0);
        heard.take(&[1, 2, 3], ListenerKind::Compressed, 3000.0);
        assert_eq!(
            (heard.messages, heard.lagged, heard.delivery_ms.as_slice()),
            (3, 1, &[2.0][..])
        );
    }
}
