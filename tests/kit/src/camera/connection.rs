//! One connection of a client: requests in, answers and pictures out, in one task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::Seen;
use super::access::Nonce;
use super::answer::{Answer, Message, Place, Request, take};
use super::footage::Stream;
use super::packet::{Packet, Report};
use super::script::{Moment, Script};

/// The name of every session.
const SESSION: &str = "12345678";

/// From one sender report to the next.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Reads of a client: its requests are shorter.
const READ: usize = 4096;

/// The way of packets to the client.
enum Path {
    /// Within the connection; the channel of RTP, and RTCP on the next.
    Interleaved(u8),
    /// In datagrams.
    Datagrams([UdpSocket; 2], [SocketAddr; 2]),
}

/// A connection.
pub(super) struct Connection {
    script: Arc<Script>,
    stream: Stream,
    place: Place,
    door: usize,
    seen: Arc<Mutex<Seen>>,
    nonce: Nonce,
    path: Option<Path>,
    play: Option<Play>,
    heard: Instant,
}

/// A stream that plays.
struct Play {
    number: usize,
    picture: u64,
    sequence: u16,
    begun: Instant,
    /// Pauses so far.
    paused: Duration,
    report: Instant,
}

impl Connection {
    pub(super) fn new(
        script: Arc<Script>,
        place: Place,
        door: usize,
        seen: Arc<Mutex<Seen>>,
    ) -> Self {
        let stream = script.footage.load();
        Self {
            script,
            stream,
            place,
            door,
            seen,
            nonce: Nonce::default(),
            path: None,
            play: None,
            heard: Instant::now(),
        }
    }

    /// Serves until the client goes or the script ends it.
    pub(super) async fn run(
        mut self,
        mut socket: impl AsyncRead + AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut buffer = Vec::with_capacity(READ);
        loop {
            let due = self.play.as_ref().map(|play| self.due(play));
            tokio::select! {
                read = socket.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let bytes = self.picture().await?;
                    socket.write_all(&bytes).await?;
                    socket.flush().await?;
                    let patience = 2 * self.script.timeout;
                    if self.script.is_strict && self.heard.elapsed() > patience {
                        return Ok(());
                    }
                    continue;
                }
            }
            while let Some(message) = take(&mut buffer, self.door, &self.place) {
                self.heard = Instant::now();
                let Message::Request(request) = message else {
                    self.seen.lock().answers += 1;
                    continue;
                };
                let answer = self.answer(&request).await?;
                if answer.is_closed() {
                    return Ok(());
                }
                socket.write_all(&answer.bytes()).await?;
                socket.flush().await?;
                if request.method == "TEARDOWN" {
                    return Ok(());
                }
                if request.method == "PLAY" && answer.is_sent_as_success() {
                    self.begin();
                }
            }
        }
    }

    async fn answer(&mut self, request: &Request) -> std::io::Result<Answer> {
        if request.method == "DESCRIBE" && !request.url.contains(&self.place.path) {
            self.seen.lock().strangers += 1;
            return Ok(Answer::new("404 Not Found"));
        }
        {
            let mut seen = self.seen.lock();
            if seen.requests.len() < super::MAX_REQUESTS {
                seen.requests.push(request.method.clone());
            }
        }
        let access = self.script.access.as_ref();
        let refusal = access.and_then(|access| access.refusal(&mut self.nonce, request));
        let mut answer = match refusal {
            Some(refusal) => refusal,
            None => self.success(request).await?,
        };
        if let Some(cseq) = Some(request.header("cseq")).filter(|cseq| !cseq.is_empty()) {
            answer.headers.insert(0, ("CSeq".to_owned(), cseq.to_owned()));
        }
        for bend in &self.script.bend_answer {
            bend(request, &mut answer);
        }
        Ok(answer)
    }

    /// What a well-behaved camera answers.
    async fn success(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut answer = Answer::new("200 OK");
        match request.method.as_str() {
            "OPTIONS" => {
                let methods = "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, PAUSE, GET_PARAMETER";
                answer.add("Public", methods);
            }
            "DESCRIBE" => {
                let mut sdp: Vec<_> = [
                    "v=0",
                    "o=- 1 1 IN IP4 127.0.0.1",
                    "s=stream",
                    "c=IN IP4 0.0.0.0",
                    "t=0 0",
                    "a=control:*",
                ]
                .map(str::to_owned)
                .into();
                sdp.extend(self.stream.sdp());
                for bend in &self.script.bend_sdp {
                    bend((), &mut sdp);
                }
                answer.body =
                    sdp.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
                answer.add("Content-Base", &request.base());
                answer.add("Content-Type", "application/sdp");
                answer.add("Content-Length", &answer.body.len().to_string());
            }
            "SETUP" => {
                let timeout = self.script.timeout.as_secs();
                answer.add("Session", &format!("{SESSION};timeout={timeout}"));
                answer.add("Transport", &self.set_up(request).await?);
            }
            "PLAY" => {
                let base = request.base();
                answer.add("Session", SESSION);
                answer.add("Range", "npt=0.000-");
                answer.add("RTP-Info", &format!("url={base}trackID=0;seq=1;rtptime=0"));
            }
            "GET_PARAMETER" | "SET_PARAMETER" | "PAUSE" | "TEARDOWN" => {
                answer.add("Session", SESSION);
            }
            _ => answer = Answer::new("501 Not Implemented"),
        }
        Ok(answer)
    }

    /// Prepares the way of packets that a client asks for; the value of `Transport`.
    async fn set_up(&mut self, request: &Request) -> std::io::Result<String> {
        let asked = request.header("transport");
        if request.url.contains("trackID=") && !request.url.contains("trackID=0") {
            // Of a track that a script adds beside the video: nothing ever comes on it.
            return Ok(asked.to_owned());
        }
        let number = |name: &str| {
            let digits = asked.split_once(name)?.1;
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits[..end].parse::<u16>().ok()
        };
        if let Some(client) = number("client_port=") {
            let sockets = datagram_pair().await?;
            let server = sockets[0].local_addr()?.port();
            let client_address = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let clients = [client_address(client), client_address(client + 1)];
            self.path = Some(Path::Datagrams(sockets, clients));
            let ports = format!("RTP/AVP;unicast;client_port={client}-{}", client + 1);
            return Ok(if self.script.server_port {
                format!("{ports};server_port={server}-{};ssrc={SESSION}", server + 1)
            } else {
                ports
            });
        }
        let asked = number("interleaved=").and_then(|channel| u8::try_from(channel).ok());
        let channel = self.script.channel.or(asked).unwrap_or(0);
        self.path = Some(Path::Interleaved(channel));
        let next = channel + 1;
        Ok(format!("RTP/AVP/TCP;unicast;interleaved={channel}-{next};ssrc={SESSION}"))
    }

    fn begin(&mut self) {
        let number = self.seen.lock().requests.iter().filter(|asked| *asked == "PLAY").count();
        let begun = Instant::now();
        let play =
            Play { number, picture: 0, sequence: 1, begun, paused: Duration::ZERO, report: begun };
        self.play.get_or_insert(play);
    }

    /// When the next picture comes.
    fn due(&self, play: &Play) -> Instant {
        let by_rate = Duration::from_secs_f64(play.picture as f64 / self.script.rate);
        play.begun + by_rate + play.paused + (self.script.wait)(play.picture)
    }

    /// Sends the next picture, or gives what is to be written into the connection.
    async fn picture(&mut self) -> std::io::Result<Vec<u8>> {
        let (Some(play), Some(path)) = (&mut self.play, &self.path) else { return Ok(Vec::new()) };
        let script = &*self.script;
        let mut units = self.stream.pictures
            [(play.picture % self.stream.pictures.len() as u64) as usize]
            .clone();
        let key = units.iter().any(|unit| self.stream.codec.is_idr(unit));
        let moment = Moment { picture: play.picture, play: play.number, key };
        let time = (script.time)(play.picture);
        for bend in &script.bend_units {
            bend(moment, &mut units);
        }
        let mut packets = self.stream.packets(&units, time, script.mtu);
        for bend in &script.bend_packets {
            bend(moment, &mut packets);
        }
        let mut out = Vec::new();
        let now = Instant::now();
        if now >= play.report {
            play.report = now + REPORT_EVERY;
            for report in (script.reports)(Report::now(time)) {
                path.send(1, &report, &mut out).await?;
            }
        }
        for bytes in play.in_order(packets) {
            path.send(0, &bytes, &mut out).await?;
        }
        out.extend((script.says)(moment));
        play.paused += (script.wait)(play.picture);
        play.picture += 1;
        Ok(out)
    }
}

impl Play {
    /// Numbers packets; gives those that are sent as they are sent.
    fn in_order(&mut self, packets: Vec<Packet>) -> Vec<Vec<u8>> {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut late: Option<Vec<u8>> = None;
        for packet in packets {
            let sequence = packet.sequence.unwrap_or(self.sequence);
            self.sequence = sequence.wrapping_add(1);
            let bytes = packet.bytes(sequence);
            if packet.late && late.is_none() {
                late = Some(bytes);
                continue;
            }
            if !packet.lost {
                sent.extend(std::iter::repeat_n(bytes, packet.times));
            }
            sent.extend(late.take());
        }
        sent.extend(late);
        sent
    }
}

impl Path {
    /// Sends a packet of RTP (0) or RTCP (1) in a datagram, or adds it to what goes into the
    /// connection.
    async fn send(&self, kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Interleaved(channel) => {
                let length = u16::try_from(bytes.len()).expect("a packet of at most 64 KiB");
                out.extend([b'$', channel + kind]);
                out.extend(length.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Datagrams(sockets, clients) => {
                let place = usize::from(kind);
                // A client that has just gone refuses it.
                let _ = sockets[place].send_to(bytes, clients[place]).await;
            }
        }
        Ok(())
    }
}

/// Two sockets on neighbouring ports, the first one even.
async fn datagram_pair() -> std::io::Result<[UdpSocket; 2]> {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").await?;
        let port = first.local_addr()?.port();
        if port % 2 != 0 || port == u16::MAX {
            continue;
        }
        if let Ok(second) = UdpSocket::bind(("127.0.0.1", port + 1)).await {
            return Ok([first, second]);
        }
    }
}
