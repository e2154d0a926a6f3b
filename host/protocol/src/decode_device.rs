//! What decodes a camera's stream: the processor, or a device that has to be there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The first node of a GPU that renders and decodes.
const FIRST_RENDER_NODE: &str = "/dev/dri/renderD128";

/// What comes before a device among a worker's arguments.
const ARGUMENT: &str = "device:";

/// What decodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum DecodeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU by VAAPI: its render node.
    Vaapi(String),
    /// An NVIDIA GPU by NVDEC: its number.
    Cuda(u32),
}

impl DecodeDevice {
    /// Whether it is the processor.
    pub fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }

    /// The device as an argument of a worker.
    pub fn argument(&self) -> String {
        format!("{ARGUMENT}{self}")
    }

    /// The device of an argument. `None`: it is none.
    pub fn of_argument(argument: &str) -> Option<Self> {
        argument.strip_prefix(ARGUMENT)?.parse().ok()
    }
}

impl fmt::Display for DecodeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Vaapi(node) => write!(f, "vaapi:{node}"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Why a text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} does not decode: \"cpu\", \"vaapi\", \"vaapi:/dev/dri/renderD128\", \"cuda\" or \"cuda:N\" does"
)]
pub struct InvalidDecodeDevice(String);

impl FromStr for DecodeDevice {
    type Err = InvalidDecodeDevice;

    /// "vaapi" alone is the first render node, "cuda" alone the first GPU.
    fn from_str(text: &str) -> Result<Self, InvalidDecodeDevice> {
        let wrong = || InvalidDecodeDevice(text.to_owned());
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "vaapi" => Ok(Self::Vaapi(FIRST_RENDER_NODE.to_owned())),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("vaapi", node)) if node.starts_with('/') && !node.contains('\0') => {
                Ok(Self::Vaapi(node.to_owned()))
            }
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for DecodeDevice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecodeDevice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a device does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFaultKind {
    /// FFmpeg has no code for such devices.
    NotBuilt,
    /// It is not there, or not for the host's user.
    Missing,
    /// It is no such device, or its driver does not open it.
    Unusable,
    /// It does not decode the stream's codec, or this kind of it.
    Codec,
}

impl DeviceFaultKind {
    /// Its name in reasons and logs, which stays.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotBuilt => "no_hwaccel",
            Self::Missing => "no_device",
            Self::Unusable => "device_unusable",
            Self::Codec => "codec_not_supported",
        }
    }
}

/// A device that does not decode, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {device}: {reason}", kind.code())]
pub struct DeviceFault {
    /// The kind of the fault.
    pub kind: DeviceFaultKind,
    /// The device.
    pub device: DecodeDevice,
    /// For people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_its_text_says_and_behind_an_argument_the_same() {
        let device = |text: &str| text.parse::<DecodeDevice>().unwrap();
        assert_eq!(device("vaapi"), device("vaapi:/dev/dri/renderD128"));
        assert_eq!(device("cuda"), DecodeDevice::Cuda(0));
        for text in ["cpu", "vaapi:/dev/dri/renderD129", "vaapi:/dev/a:b c", "cuda:1"] {
            assert_eq!(device(text).to_string(), text);
            assert_eq!(DecodeDevice::of_argument(&device(text).argument()), Some(device(text)));
            let json = serde_json::to_string(&device(text)).unwrap();
            assert_eq!(serde_json::from_str::<DecodeDevice>(&json).unwrap(), device(text));
        }
        for text in ["", "gpu", "cpu:0", "vaapi:", "vaapi:renderD128", "cuda:", "cuda:-1", "CUDA"] {
            assert!(text.parse::<DecodeDevice>().is_err(), "{text}");
        }
        for argument in ["cuda:0", "device:", "read:/zones", "device:gpu"] {
            assert_eq!(DecodeDevice::of_argument(argument), None, "{argument}");
        }
    }
}
