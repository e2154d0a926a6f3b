//! What scripted cameras film: raw streams of `tests/clips/field`, 320x240 at 10 pictures a second
//! where the name does not say otherwise.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::clip;

/// A stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footage {
    /// H.264 with an IDR picture each second, without B frames.
    H264,
    /// The IDR pictures of [`H264`](Self::H264) alone.
    H264Keys,
    /// H.264 with B frames that comes in after its IDR picture: key pictures have a recovery
    /// point.
    H264OpenGop,
    /// H.264 without any key picture: columns of intra blocks go through it, and recovery points
    /// say where they begin.
    H264IntraRefresh,
    /// H.265 with an IDR picture each second.
    H265,
    /// H.265 that comes in after its IDR picture: key pictures are CRA pictures.
    H265OpenGop,
    /// Motion JPEG, 4:2:0.
    Jpeg,
    /// Motion JPEG, 4:2:2.
    Jpeg422,
    /// Motion JPEG with restart markers.
    JpegRestart,
    /// Motion JPEG, 2560x1440.
    JpegWide,
}

/// How the pictures of a stream are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    H265,
    Jpeg,
}

/// A stream in memory.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub codec: Codec,
    /// The NAL units of each picture, or its JPEG file alone.
    pub pictures: Vec<Vec<Vec<u8>>>,
    /// The parameter sets.
    pub sets: Vec<Vec<u8>>,
}

impl Footage {
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::H264 | Self::H264Keys | Self::H264OpenGop | Self::H264IntraRefresh => Codec::H264,
            Self::H265 | Self::H265OpenGop => Codec::H265,
            Self::Jpeg | Self::Jpeg422 | Self::JpegRestart | Self::JpegWide => Codec::Jpeg,
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::H264 | Self::H264Keys => "field/closed.h264",
            Self::H264OpenGop => "field/open-gop.h264",
            Self::H264IntraRefresh => "field/intra-refresh.h264",
            Self::H265 => "field/closed.h265",
            Self::H265OpenGop => "field/open-gop.h265",
            Self::Jpeg => "field/420.mjpeg",
            Self::Jpeg422 => "field/422.mjpeg",
            Self::JpegRestart => "field/restart.mjpeg",
            Self::JpegWide => "field/wide.mjpeg",
        }
    }

    /// Pictures at its beginning that a client who joins does not see: the IDR picture that the
    /// stream began with, and those that follow it up to the middle of a GOP.
    fn missed(self) -> usize {
        match self {
            Self::H264OpenGop | Self::H264IntraRefresh | Self::H265OpenGop => 5,
            _ => 0,
        }
    }

    pub(super) fn load(self) -> Stream {
        let bytes = std::fs::read(clip(self.file())).unwrap();
        let codec = self.codec();
        let mut pictures = match codec {
            Codec::Jpeg => jpegs(&bytes).into_iter().map(|jpeg| vec![jpeg]).collect(),
            Codec::H264 | Codec::H265 => pictures(&bytes, codec),
        };
        let sets: Vec<_> =
            pictures[0].iter().filter(|unit| codec.is_parameter_set(unit)).cloned().collect();
        pictures.drain(..self.missed());
        if self == Self::H264Keys {
            pictures.retain(|units| units.iter().any(|unit| codec.kind(unit) == 5));
        }
        assert!(!pictures.is_empty(), "{} has no picture", self.file());
        Stream { codec, pictures, sets }
    }
}

impl Codec {
    /// The type of a NAL unit.
    pub(super) fn kind(self, unit: &[u8]) -> u8 {
        match self {
            Self::H264 => unit[0] & 0x1f,
            Self::H265 => unit[0] >> 1 & 0x3f,
            Self::Jpeg => 0,
        }
    }

    /// Whether a NAL unit is part of an IDR picture.
    pub(super) fn is_idr(self, unit: &[u8]) -> bool {
        match self {
            Self::H264 => self.kind(unit) == 5,
            Self::H265 => matches!(self.kind(unit), 19 | 20),
            Self::Jpeg => true,
        }
    }

    fn is_parameter_set(self, unit: &[u8]) -> bool {
        match self {
            Self::H264 => matches!(self.kind(unit), 7 | 8),
            Self::H265 => matches!(self.kind(unit), 32..=34),
            Self::Jpeg => false,
        }
    }

    /// Its payload type: a static one where there is one.
    pub(super) fn payload_type(self) -> u8 {
        if self == Self::Jpeg { 26 } else { 96 }
    }
}

impl Stream {
    /// Its lines of SDP.
    pub(super) fn sdp(&self) -> Vec<String> {
        let payload_type = self.codec.payload_type();
        let mut lines =
            vec![format!("m=video 0 RTP/AVP {payload_type}"), "a=control:trackID=0".to_owned()];
        let sets: Vec<_> = self.sets.iter().map(|set| STANDARD.encode(set)).collect();
        match self.codec {
            Codec::Jpeg => {}
            Codec::H264 => {
                let profile: String =
                    self.sets[0][1..4].iter().map(|byte| format!("{byte:02x}")).collect();
                lines.push("a=rtpmap:96 H264/90000".to_owned());
                lines.push(format!(
                    "a=fmtp:96 packetization-mode=1;profile-level-id={profile};\
                     sprop-parameter-sets={}",
                    sets.join(",")
                ));
            }
            Codec::H265 => {
                lines.push("a=rtpmap:96 H265/90000".to_owned());
                lines.push(format!(
                    "a=fmtp:96 sprop-vps={};sprop-sps={};sprop-pps={}",
                    sets[0], sets[1], sets[2]
                ));
            }
        }
        lines
    }
}

/// The NAL units of a stream in Annex B form, without delimiters of access units, by picture.
fn pictures(bytes: &[u8], codec: Codec) -> Vec<Vec<Vec<u8>>> {
    let mut pictures: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    let mut has_slice = false;
    for unit in units(bytes) {
        let kind = codec.kind(unit);
        let (slice, first, leads) = match codec {
            Codec::H264 => (matches!(kind, 1..=5), unit[1] & 0x80 != 0, matches!(kind, 6..=9)),
            _ => (kind < 32, unit[2] & 0x80 != 0, matches!(kind, 32..=35 | 39)),
        };
        if has_slice && (leads || slice && first) {
            pictures.push(Vec::new());
            has_slice = false;
        }
        has_slice |= slice;
        let delimiter = if codec == Codec::H264 { 9 } else { 35 };
        if kind != delimiter {
            pictures.last_mut().unwrap().push(unit.to_owned());
        }
    }
    pictures
}

/// What lies between the start codes of a stream.
fn units(bytes: &[u8]) -> Vec<&[u8]> {
    let code = |window: &[u8]| window == [0, 0, 1];
    let starts: Vec<_> =
        bytes.windows(3).enumerate().filter(|(_, w)| code(w)).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let unit = &bytes[start + 3..end];
        let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
        &unit[..unit.len() - zeros]
    });
    units.filter(|unit| unit.len() > 2).collect()
}

/// The files in a row of JPEG files.
fn jpegs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<_> = bytes
        .windows(3)
        .enumerate()
        .filter(|(_, window)| **window == [0xff, 0xd8, 0xff])
        .map(|(at, _)| at)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(start, end)| bytes[*start..end].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_begin_as_they_are_described() {
        let idr = |footage: Footage| {
            let stream = footage.load();
            let has = |units: &Vec<Vec<u8>>| units.iter().any(|unit| stream.codec.is_idr(unit));
            stream.pictures.iter().filter(|units| has(units)).count()
        };
        assert_eq!(idr(Footage::H264), 3);
        assert_eq!(idr(Footage::H265), 3);
        assert_eq!(Footage::H264Keys.load().pictures.len(), 3);
        for footage in [Footage::H264OpenGop, Footage::H264IntraRefresh, Footage::H265OpenGop] {
            assert_eq!(idr(footage), 0, "{footage:?}");
            assert!(footage.load().pictures.len() > 10, "{footage:?}");
        }
    }
}
