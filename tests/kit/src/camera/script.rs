//! What is odd about a camera.

use std::time::Duration;

use super::access::Access;
use super::answer::{Answer, Request};
use super::footage::Footage;
use super::packet::{Packet, Report};
use super::tls::Certificate;

/// Where a connection's stream stands.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The number of the picture in this connection.
    pub picture: u64,
    /// Connections that played so far, this one counted.
    pub play: usize,
    /// Whether the picture is an IDR picture.
    pub key: bool,
}

impl Moment {
    /// True at one picture of each `count`, and never at the first.
    pub fn each(self, count: u64) -> bool {
        self.picture % count == count - 1
    }
}

type Bend<A, B> = Box<dyn Fn(A, &mut B) + Send + Sync>;

type BendAnswer = Box<dyn Fn(&Request, &mut Answer) + Send + Sync>;

/// RTCP packets for a sender report.
type Reports = Box<dyn Fn(Report) -> Vec<Vec<u8>> + Send + Sync>;

/// A camera: the well-behaved one over TCP, and what bends it.
pub struct Script {
    pub(super) footage: Footage,
    pub(super) rate: f64,
    pub(super) mtu: usize,
    pub(super) timeout: Duration,
    pub(super) is_strict: bool,
    pub(super) channel: Option<u8>,
    pub(super) server_port: bool,
    pub(super) access: Option<Access>,
    pub(super) certificate: Option<Certificate>,
    pub(super) bend_sdp: Vec<Bend<(), Vec<String>>>,
    pub(super) bend_answer: Vec<BendAnswer>,
    pub(super) bend_units: Vec<Bend<Moment, Vec<Vec<u8>>>>,
    pub(super) bend_packets: Vec<Bend<Moment, Vec<Packet>>>,
    pub(super) time: Box<dyn Fn(u64) -> u32 + Send + Sync>,
    pub(super) wait: Box<dyn Fn(u64) -> Duration + Send + Sync>,
    pub(super) reports: Reports,
    pub(super) says: Box<dyn Fn(Moment) -> Vec<u8> + Send + Sync>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("footage", &self.footage).finish_non_exhaustive()
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::of(Footage::H264)
    }
}

impl Script {
    /// A camera that behaves: ten pictures a second, a sender report every five, a session that
    /// lasts a minute without a keepalive.
    pub fn of(footage: Footage) -> Self {
        Self {
            footage,
            rate: 10.0,
            mtu: 1400,
            timeout: Duration::from_secs(60),
            is_strict: false,
            channel: None,
            server_port: true,
            access: None,
            certificate: None,
            bend_sdp: Vec::new(),
            bend_answer: Vec::new(),
            bend_units: Vec::new(),
            bend_packets: Vec::new(),
            time: Box::new(|picture| (picture * 9000) as u32),
            wait: Box::new(|_| Duration::ZERO),
            reports: Box::new(|report| vec![report.bytes()]),
            says: Box::new(|_| Vec::new()),
        }
    }

    /// Pictures in a second. RTP times follow.
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self.time(move |picture| (picture as f64 * 90_000.0 / rate) as u64 as u32)
    }

    /// Most bytes of payload in a packet.
    pub fn mtu(mut self, bytes: usize) -> Self {
        self.mtu = bytes;
        self
    }

    /// How long the session lasts without a keepalive, in seconds, as SETUP says. `is_strict` ends
    /// the connection after twice as long.
    pub fn timeout(mut self, seconds: u64, is_strict: bool) -> Self {
        (self.timeout, self.is_strict) = (Duration::from_secs(seconds), is_strict);
        self
    }

    /// Packets come on this channel and its next, whatever the client asked for.
    pub fn channel(mut self, channel: u8) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Datagrams come from ports that SETUP does not name.
    pub fn without_server_port(mut self) -> Self {
        self.server_port = false;
        self
    }

    /// Asks for a user name and password.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// Whether it speaks no TLS.
    pub fn is_plain(&self) -> bool {
        self.certificate.is_none()
    }

    /// Bends the lines of SDP.
    pub fn sdp(mut self, bend: impl Fn(&mut Vec<String>) + Send + Sync + 'static) -> Self {
        self.bend_sdp.push(Box::new(move |(), lines| bend(lines)));
        self
    }

    /// Bends all lines of SDP that begin like this.
    pub fn sdp_line(self, start: &'static str, bend: fn(&str) -> String) -> Self {
        self.sdp(move |lines| {
            for line in lines.iter_mut().filter(|line| line.starts_with(start)) {
                *line = bend(line);
            }
        })
    }

    /// Leaves out all lines of SDP that begin like this.
    pub fn without_sdp_line(self, start: &'static str) -> Self {
        self.sdp(move |lines| lines.retain(|line| !line.starts_with(start)))
    }

    /// Bends the answers to all requests.
    pub fn answers(mut self, bend: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Self {
        self.bend_answer.push(Box::new(bend));
        self
    }

    /// Bends the answers to requests of one method.
    pub fn answer(
        self,
        method: &'static str,
        bend: impl Fn(&Request, &mut Answer) + Send + Sync + 'static,
    ) -> Self {
        self.answers(move |request, answer| {
            if request.method == method {
                bend(request, answer);
            }
        })
    }

    /// Bends the NAL units of a picture.
    pub fn units(
        mut self,
        bend: impl Fn(Moment, &mut Vec<Vec<u8>>) + Send + Sync + 'static,
    ) -> Self {
        self.bend_units.push(Box::new(bend));
        self
    }

    /// Bends the packets of a picture.
    pub fn packets(
        mut self,
        bend: impl Fn(Moment, &mut Vec<Packet>) + Send + Sync + 'static,
    ) -> Self {
        self.bend_packets.push(Box::new(bend));
        self
    }

    /// The RTP time of a picture, by its number in a connection.
    pub fn time(mut self, time: impl Fn(u64) -> u32 + Send + Sync + 'static) -> Self {
        self.time = Box::new(time);
        self
    }

    /// How much longer than by the rate it takes until this picture comes.
    pub fn pause(mut self, wait: impl Fn(u64) -> Duration + Send + Sync + 'static) -> Self {
        self.wait = Box::new(wait);
        self
    }

    /// The RTCP packets that come in the place of a sender report.
    pub fn reports(
        mut self,
        reports: impl Fn(Report) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.reports = Box::new(reports);
        self
    }

    /// Bytes that come in the connection behind a picture.
    pub fn says(mut self, says: impl Fn(Moment) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.says = Box::new(says);
        self
    }

    /// A request of the camera's own behind one picture of each `every`.
    pub fn asks(self, method: &'static str, every: u64) -> Self {
        self.says(move |moment| {
            if !moment.each(every) {
                return Vec::new();
            }
            let number = moment.picture;
            format!("{method} * RTSP/1.0\r\nCSeq: {number}\r\nSession: 12345678\r\n\r\n").into()
        })
    }
}
