//! Pictures as RTP packets (RFC 6184, RFC 7798, RFC 2435), and sender reports.

use super::footage::{Codec, Stream};

/// The source of all packets, as SETUP names it.
pub(super) const SSRC: u32 = 0x1234_5678;

/// An RTP packet that a script may bend.
#[derive(Debug, Clone)]
pub struct Packet {
    /// What it carries.
    pub payload: Vec<u8>,
    /// Set on a picture's last.
    pub marker: bool,
    /// As SDP names it.
    pub payload_type: u8,
    /// Of the picture, in the stream's clock.
    pub time: u32,
    /// Who sends it.
    pub ssrc: u32,
    /// The number that it has in the place of the next; those behind it go on from there.
    pub sequence: Option<u16>,
    /// Padding with its own length at the end; sets the bit that says so.
    pub padding: Vec<u8>,
    /// A header extension as it is sent, with its length; sets the bit that says so.
    pub extension: Vec<u8>,
    /// Contributing sources.
    pub contributors: Vec<u32>,
    /// 2.
    pub version: u8,
    /// It takes a number and is never sent.
    pub lost: bool,
    /// How often it is sent.
    pub times: usize,
    /// It is sent behind the next one.
    pub late: bool,
}

impl Packet {
    pub(super) fn new(payload: Vec<u8>, payload_type: u8, time: u32, marker: bool) -> Self {
        Self {
            payload,
            marker,
            payload_type,
            time,
            ssrc: SSRC,
            sequence: None,
            padding: Vec::new(),
            extension: Vec::new(),
            contributors: Vec::new(),
            version: 2,
            lost: false,
            times: 1,
            late: false,
        }
    }

    /// Another packet of the same picture with another payload, and without a marker.
    pub fn beside(&self, payload: &[u8]) -> Self {
        Self::new(payload.to_owned(), self.payload_type, self.time, false)
    }

    /// As it is sent.
    pub(super) fn bytes(&self, sequence: u16) -> Vec<u8> {
        let bit = |set: bool, shift: u8| u8::from(set) << shift;
        let mut bytes = vec![
            self.version << 6
                | bit(!self.padding.is_empty(), 5)
                | bit(!self.extension.is_empty(), 4)
                | self.contributors.len() as u8,
            bit(self.marker, 7) | self.payload_type,
        ];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        for contributor in &self.contributors {
            bytes.extend(contributor.to_be_bytes());
        }
        for part in [&self.extension, &self.payload, &self.padding] {
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// A sender report (RFC 3550, 6.4.1).
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Who sends it.
    pub ssrc: u32,
    /// Seconds since 1900 in the upper half, their fractions in the lower.
    pub ntp: u64,
    /// The time of the stream at that moment.
    pub time: u32,
}

/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

impl Report {
    /// Now.
    pub(super) fn now(time: u32) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock behind 1970");
        let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
        Self { ssrc: SSRC, ntp: (now.as_secs() + NTP_TO_UNIX) << 32 | fraction, time }
    }

    /// The same with another time of day, in seconds since 1970.
    pub fn at(self, unix_seconds: u64) -> Self {
        Self { ntp: (unix_seconds + NTP_TO_UNIX) << 32, ..self }
    }

    /// As a packet of RTCP.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(self.ntp.to_be_bytes());
        bytes.extend(self.time.to_be_bytes());
        // Packets and bytes so far.
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        bytes
    }
}

impl Stream {
    /// The packets of a picture's units, with at most `mtu` bytes of payload in each.
    pub(super) fn packets(&self, units: &[Vec<u8>], time: u32, mtu: usize) -> Vec<Packet> {
        let payloads: Vec<_> = match self.codec {
            Codec::Jpeg => units.iter().flat_map(|jpeg| jpeg_payloads(jpeg, mtu)).collect(),
            codec => units.iter().flat_map(|unit| nal_payloads(codec, unit, mtu)).collect(),
        };
        let last = payloads.len().saturating_sub(1);
        let payload_type = self.codec.payload_type();
        let packet = |(at, payload)| Packet::new(payload, payload_type, time, at == last);
        payloads.into_iter().enumerate().map(packet).collect()
    }
}

/// A NAL unit as it is, or in fragments (FU-A, FU).
fn nal_payloads(codec: Codec, unit: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    if unit.len() <= mtu {
        return vec![unit.to_owned()];
    }
    let (header, body, kind) = if codec == Codec::H264 {
        (vec![unit[0] & 0xe0 | 28], &unit[1..], unit[0] & 0x1f)
    } else {
        (vec![unit[0] & 0x81 | 49 << 1, unit[1]], &unit[2..], unit[0] >> 1 & 0x3f)
    };
    let parts = body.chunks(mtu);
    let last = parts.len() - 1;
    let fragment = |(at, part): (usize, &[u8])| {
        let place = u8::from(at == 0) << 7 | u8::from(at == last) << 6;
        [header.as_slice(), &[place | kind], part].concat()
    };
    parts.enumerate().map(fragment).collect()
}

/// What RFC 2435 says of a JPEG file beside its entropy-coded data.
#[derive(Default)]
struct JpegHeader {
    /// 0 for 4:2:2, 1 for 4:2:0.
    sampling: u8,
    /// In eights of pixels; 0 where it is too much to be said.
    size: [u8; 2],
    /// Two tables of 64 bytes.
    tables: Vec<u8>,
    /// Blocks from one restart marker to the next; 0 without any.
    restart: u16,
    /// Where the data begins.
    data: usize,
}

impl JpegHeader {
    fn of(jpeg: &[u8]) -> Self {
        let mut header = Self::default();
        let mut at = 2;
        while header.data == 0 {
            let (kind, length) = (jpeg[at + 1], usize::from(word(jpeg, at + 2)));
            let body = &jpeg[at + 4..at + 2 + length];
            match kind {
                0xdb => {
                    header.tables.extend(body.chunks(65).flat_map(|table| &table[1..]));
                }
                0xc0 => {
                    let eights = |pixels: u16| u8::try_from(pixels.div_ceil(8)).unwrap_or(0);
                    header.size = [eights(word(body, 3)), eights(word(body, 1))];
                    header.sampling = u8::from(body[7] == 0x22);
                }
                0xdd => header.restart = word(body, 0),
                0xda => header.data = at + 2 + length,
                _ => {}
            }
            at += 2 + length;
        }
        if header.tables.len() == 64 {
            header.tables.extend_from_within(..);
        }
        header
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn jpeg_payloads(jpeg: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = JpegHeader::of(jpeg);
    // The end marker is not sent.
    let data = &jpeg[header.data..jpeg.len() - 2];
    let has_restart = header.restart > 0;
    let fragment = |(at, part): (usize, &[u8])| {
        let offset = (at * mtu) as u32;
        let mut payload = offset.to_be_bytes().to_vec();
        payload.extend([header.sampling | u8::from(has_restart) << 6, 255]);
        payload.extend(header.size);
        if has_restart {
            payload.extend(header.restart.to_be_bytes());
            // Fragments are cut anywhere: first and last bit set, no count.
            payload.extend([0xff, 0xff]);
        }
        if at == 0 {
            payload.extend([0, 0]);
            payload.extend((header.tables.len() as u16).to_be_bytes());
            payload.extend(&header.tables);
        }
        payload.extend(part);
        payload
    };
    data.chunks(mtu).enumerate().map(fragment).collect()
}
