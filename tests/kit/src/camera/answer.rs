//! RTSP messages: requests as they come, answers as they are sent.

use std::net::SocketAddr;

/// A request of a client.
#[derive(Debug, Clone)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// As sent.
    pub url: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Which of the camera's ports it came to: 0, or 1 for the second.
    pub door: usize,
    /// Where the camera is.
    pub place: Place,
}

/// Where a camera is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its two ports.
    pub doors: [SocketAddr; 2],
    /// Its path, which no other camera has: a client of another test's camera whose port this one
    /// was given later is told that there is no such stream.
    pub path: String,
}

impl Place {
    /// Its URL at one of its ports.
    pub fn url(&self, door: usize) -> String {
        format!("rtsp://{}{}", self.doors[door], self.path)
    }
}

/// What a client sent.
pub(super) enum Message {
    Request(Request),
    /// The answer to a request of the camera's.
    Answer,
}

impl Request {
    /// A header, by its name in lower case; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
    }

    /// The number of the request, as the client wrote it.
    pub fn cseq(&self) -> u32 {
        self.header("cseq").parse().unwrap_or_default()
    }

    /// The URL of the camera at the port that the client came to.
    pub fn base(&self) -> String {
        format!("{}/", self.place.url(self.door))
    }

    /// Whether it is one of these methods.
    pub fn is(&self, methods: &[&str]) -> bool {
        methods.contains(&self.method.as_str())
    }
}

/// Takes the first message out of what came; none where it is not whole yet. Interleaved packets of
/// the client (RTCP) go.
pub(super) fn take(buffer: &mut Vec<u8>, door: usize, place: &Place) -> Option<Message> {
    while let [b'$', _, high, low, rest @ ..] = buffer.as_slice() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if rest.len() < length {
            return None;
        }
        buffer.drain(..4 + length);
    }
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let method = words.next().unwrap_or_default();
    let url = words.next().unwrap_or_default();
    let request = Request { method, url, headers, door, place: place.clone() };
    let body = request.header("content-length").parse().unwrap_or(0);
    if buffer.len() < end + body {
        return None;
    }
    buffer.drain(..end + body);
    Some(if request.method.starts_with("RTSP/") {
        Message::Answer
    } else {
        Message::Request(request)
    })
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    /// It never comes.
    Withheld,
    /// The connection ends in its place.
    Closed,
}

/// An answer of the camera, which a script may bend before it is sent.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The first line.
    pub status_line: String,
    /// In order.
    pub headers: Vec<(String, String)>,
    /// What stands between a header's name and its value.
    pub colon: &'static str,
    /// What ends a line.
    pub line_end: &'static str,
    /// Its length stands in a header of its own, which does not follow it.
    pub body: Vec<u8>,
    /// Sent before the first line.
    pub before: Vec<u8>,
    fate: Fate,
}

impl Answer {
    /// An answer without headers: `200 OK`.
    pub(super) fn new(status: &str) -> Self {
        Self {
            status_line: format!("RTSP/1.0 {status}"),
            headers: Vec::new(),
            colon: ": ",
            line_end: "\r\n",
            body: Vec::new(),
            before: Vec::new(),
            fate: Fate::Sent,
        }
    }

    /// Another status in the place of all that it says, but for the request's number: `404 Not
    /// Found`.
    pub fn refuse(&mut self, status: &str) {
        self.status_line = format!("RTSP/1.0 {status}");
        self.headers.retain(|(name, _)| name == "CSeq");
        self.body.clear();
    }

    /// Gives a header this value; adds it where there is none.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.headers.iter_mut().find(|(header, _)| header == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.headers.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Adds a header, also where there is one of this name.
    pub fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a header away.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(header, _)| header != name);
    }

    /// The value of a header; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
    }

    /// Changes all names of headers.
    pub fn rename(&mut self, new: impl Fn(&str) -> String) {
        for (name, _) in &mut self.headers {
            *name = new(name);
        }
    }

    /// The answer never comes.
    pub fn withhold(&mut self) {
        self.fate = Fate::Withheld;
    }

    /// The connection ends in the place of the answer.
    pub fn close(&mut self) {
        self.fate = Fate::Closed;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.fate == Fate::Closed
    }

    /// Whether the client may take it for a success.
    pub(super) fn is_sent_as_success(&self) -> bool {
        self.fate == Fate::Sent && self.status_line.contains(" 200")
    }

    /// As it is sent; empty where it never is.
    pub(super) fn bytes(&self) -> Vec<u8> {
        if self.fate != Fate::Sent {
            return Vec::new();
        }
        let mut bytes = self.before.clone();
        let mut line = |text: &str| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(self.line_end.as_bytes());
        };
        line(&self.status_line);
        for (name, value) in &self.headers {
            line(&format!("{name}{}{value}", self.colon));
        }
        line("");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
