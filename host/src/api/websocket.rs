//! WebSockets (RFC 6455) with compression (RFC 7692): the handshake, and a connection's two halves.
//!
//! Frame headers and the handshake's answer are tungstenite's. Its sockets, which axum uses, have
//! no compression; no crate with compression limits the size of an unpacked message, or resumes an
//! interrupted write.

mod deflate;
mod frame;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use tungstenite::handshake::server::create_response_with_body;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::problem::Problem;

pub(super) use deflate::CompressedMessages;
use deflate::Deflate;
use frame::Decoder;
pub(super) use frame::{FrameFault, Incoming};

/// The only subprotocol: a browser that offers any, its token for one, expects one to be chosen.
const PROTOCOL: &str = "ocelli.v1";

/// Bytes of one read, more than almost every request; on the stack, so that an idle socket has no
/// buffer.
const READ: usize = 4 << 10;

/// Chunks that one system call writes: eight pictures with their headers.
const GATHERED: usize = 16;

/// From this size on a message is written in place, not copied into a buffer.
const LARGE: usize = 64 << 10;

/// The answer to a request that has lost its upgrade on the way.
const NO_UPGRADE: &str = "the request does not ask for a WebSocket: it needs HTTP/1.1 and the headers \
    \"Connection: Upgrade\" and \"Upgrade: websocket\", which a reverse proxy in front passes on \
    only if its config says so";

/// A connection that is about to become a WebSocket.
pub(super) struct PendingUpgrade {
    upgrade: OnUpgrade,
    deflate: Option<Deflate>,
}

/// Checks a request to open a WebSocket. The connection exists once the answer is sent.
pub(super) fn handshake(mut request: Request) -> Result<(Response, PendingUpgrade), Problem> {
    let refuse = |status, detail: String| Problem::new(status, "not_a_websocket", detail);
    if !asks_to_upgrade(&request) {
        return Err(refuse(StatusCode::UPGRADE_REQUIRED, NO_UPGRADE.into()));
    }
    let mut response = create_response_with_body(&request, Body::empty)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
    // 16 bytes in base64.
    if request.headers().get(header::SEC_WEBSOCKET_KEY).is_none_or(|key| key.len() != 24) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is not 16 bytes in base64".into(),
        ));
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
        refuse(StatusCode::UPGRADE_REQUIRED, "this connection cannot become a WebSocket".into())
    })?;
    let deflate = Deflate::choose(request.headers());
    let answers = response.headers_mut();
    if offers_protocol(request.headers()) {
        answers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    if let Some(answer) = deflate.and_then(|deflate| HeaderValue::try_from(deflate.answer()).ok()) {
        answers.insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
    }
    Ok((response, PendingUpgrade { upgrade, deflate }))
}

/// Whether a request is to become a WebSocket at all: proxies leave these headers out, or ask by
/// HTTP/1.0.
fn asks_to_upgrade(request: &Request) -> bool {
    let named = |name, word: &str| {
        let lines = request.headers().get_all(name).into_iter();
        let mut words = lines.filter_map(|line| line.to_str().ok()).flat_map(|it| it.split(','));
        words.any(|it| it.trim().eq_ignore_ascii_case(word))
    };
    request.version() >= Version::HTTP_11
        && named(header::CONNECTION, "upgrade")
        && named(header::UPGRADE, "websocket")
}

fn offers_protocol(headers: &HeaderMap) -> bool {
    let mut lines = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines.any(|line| line.split(',').any(|protocol| protocol.trim() == PROTOCOL))
}

impl PendingUpgrade {
    /// The connection, once the client has the answer. Reads messages of up to `longest` bytes,
    /// packed and unpacked.
    pub(super) async fn open(self, longest: usize) -> hyper::Result<(Sender, Receiver)> {
        let (reader, writer) = tokio::io::split(TokioIo::new(self.upgrade.await?));
        let decoder = Decoder::new(longest, self.deflate.is_some());
        let receiver = Receiver { reader, decoder, last_frame: Instant::now(), began: None };
        let sender = Sender {
            writer,
            waiting: VecDeque::new(),
            written: 0,
            frames: Vec::new(),
            deflate: self.deflate,
        };
        Ok((sender, receiver))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The connection is closed.
    Gone,
    /// No whole frame came for too long.
    Silent,
    /// A message took too long.
    Unfinished,
    /// The client broke the protocol.
    Fault(FrameFault),
}

pub(super) struct Receiver {
    reader: ReadHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    /// When the last frame came.
    last_frame: Instant,
    /// When an incomplete message began.
    began: Option<Instant>,
}

impl Receiver {
    /// The next message or control frame. An error if no frame comes for `silence`, or a message is
    /// not complete `whole` after it began. Dropping the future loses nothing.
    pub(super) async fn next(
        &mut self,
        silence: Duration,
        whole: Duration,
    ) -> Result<Incoming, ReadEnd> {
        loop {
            if let Some(incoming) = self.decoder.next().map_err(ReadEnd::Fault)? {
                self.last_frame = Instant::now();
                if !self.decoder.in_message() {
                    self.began = None;
                }
                return Ok(incoming);
            }
            if self.decoder.in_message() || self.decoder.in_frame() {
                self.began.get_or_insert_with(Instant::now);
            }
            let silent = self.last_frame + silence;
            let unfinished = self.began.map(|began| began + whole).filter(|at| *at < silent);
            match timeout_at(unfinished.unwrap_or(silent), self.read()).await {
                Ok(true) => {}
                Ok(false) => return Err(ReadEnd::Gone),
                Err(_) if unfinished.is_some() => return Err(ReadEnd::Unfinished),
                Err(_) => return Err(ReadEnd::Silent),
            }
        }
    }

    /// Discards all data until the client closes the connection.
    pub(super) async fn drain(&mut self) {
        while self.read().await {
            self.decoder = Decoder::new(0, false);
        }
    }

    /// Reads more bytes. False at the end.
    async fn read(&mut self) -> bool {
        let Self { reader, decoder, .. } = self;
        poll_fn(|context| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer));
            decoder.feed(buffer.filled());
            Poll::Ready(read.is_ok() && !buffer.filled().is_empty())
        })
        .await
    }
}

/// The texts among what a client sends, in pieces of `piece` bytes, up to the first fault.
pub(super) fn read_texts(bytes: &[u8], piece: usize, longest: usize, deflate: bool) -> Vec<String> {
    let mut decoder = Decoder::new(longest, deflate);
    let mut texts = Vec::new();
    for bytes in bytes.chunks(piece.max(1)) {
        decoder.feed(bytes);
        loop {
            match decoder.next() {
                Ok(Some(Incoming::Text(text))) => texts.push(text),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return texts,
            }
        }
    }
    texts
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum WriteError {
    /// The connection is closed.
    Gone,
    /// The client took no byte for too long.
    Full,
}

/// The writing half. Frames wait in it until they are [flushed](Self::flush).
pub(super) struct Sender {
    writer: WriteHalf<TokioIo<Upgraded>>,
    /// The chunks to write first, and the bytes of the first that are written.
    waiting: VecDeque<Chunk>,
    written: usize,
    /// The frames to write after them.
    frames: Vec<u8>,
    deflate: Option<Deflate>,
}

/// Bytes to write.
enum Chunk {
    Frames(Vec<u8>),
    Text(Arc<str>),
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frames(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Sender {
    pub(super) fn text(&mut self, text: &Arc<str>, squeezed: &CompressedMessages) {
        let opcode = OpCode::Data(Data::Text);
        let packed = self.deflate.and_then(|deflate| squeezed.get(text, deflate));
        if let Some(packed) = packed {
            frame::put_header(&mut self.frames, opcode, true, packed.len());
            self.frames.extend_from_slice(&packed);
            return;
        }
        frame::put_header(&mut self.frames, opcode, false, text.len());
        if text.len() < LARGE {
            self.frames.extend_from_slice(text.as_bytes());
        } else {
            self.settle();
            self.waiting.push_back(Chunk::Text(Arc::clone(text)));
        }
    }

    /// Adds a binary message of two parts, of which the second is not copied. It is never
    /// compressed: pictures are already.
    pub(super) fn binary(&mut self, head: &[u8], rest: Bytes) {
        let opcode = OpCode::Data(Data::Binary);
        frame::put_header(&mut self.frames, opcode, false, head.len() + rest.len());
        self.frames.extend_from_slice(head);
        self.settle();
        self.waiting.push_back(Chunk::Shared(rest));
    }

    /// Adds a ping frame.
    pub(super) fn ping(&mut self) {
        frame::put_control(&mut self.frames, Control::Ping, &[]);
    }

    /// Adds a pong with the ping's payload.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        frame::put_control(&mut self.frames, Control::Pong, payload);
    }

    /// Adds the close frame.
    pub(super) fn close(&mut self, status: u16, reason: &str) {
        let payload = [&status.to_be_bytes(), reason.as_bytes()].concat();
        frame::put_control(&mut self.frames, Control::Close, &payload);
    }

    /// Whether the waiting bytes should be written before more are added.
    pub(super) fn is_full(&self) -> bool {
        let waiting: usize = self.waiting.iter().map(|chunk| chunk.bytes().len()).sum();
        self.frames.len() + waiting >= LARGE
    }

    /// Writes everything that waits. If the future is dropped, the next call resumes.
    pub(super) async fn flush(&mut self, patience: Duration) -> Result<(), WriteError> {
        self.settle();
        while self.pop_written() {
            let mut slices = [IoSlice::new(&[]); GATHERED];
            for (at, (slice, chunk)) in slices.iter_mut().zip(&self.waiting).enumerate() {
                let written = if at == 0 { self.written } else { 0 };
                *slice = IoSlice::new(chunk.bytes().get(written..).unwrap_or_default());
            }
            match timeout(patience, self.writer.write_vectored(&slices)).await {
                Ok(Ok(written @ 1..)) => self.written += written,
                Ok(_) => return Err(WriteError::Gone),
                Err(_) => return Err(WriteError::Full),
            }
        }
        // An idle socket has no buffer.
        self.waiting = VecDeque::new();
        match timeout(patience, self.writer.flush()).await {
            Ok(flushed) => flushed.map_err(|_| WriteError::Gone),
            Err(_) => Err(WriteError::Full),
        }
    }

    /// Ends the connection on this side.
    pub(super) async fn shutdown(&mut self) {
        // An error means that the connection is gone already.
        let _ = self.writer.shutdown().await;
    }

    /// Removes the chunks that are written. Whether any are left.
    fn pop_written(&mut self) -> bool {
        while let Some(first) = self.waiting.front() {
            let Some(into_next) = self.written.checked_sub(first.bytes().len()) else {
                return true;
            };
            self.waiting.pop_front();
            self.written = into_next;
        }
        false
    }

    /// Ends the current chunk of frames.
    fn settle(&mut self) {
        if !self.frames.is_empty() {
            self.waiting.push_back(Chunk::Frames(std::mem::take(&mut self.frames)));
        }
    }
}
