//! A device that decodes in the processor's place: a GPU, by libavcodec.
//!
//! It is opened before the process confines itself, since its driver opens files and loads
//! libraries. A picture comes back to memory at once. Nothing here falls back to the processor: an
//! operator who names a device has left room for no other load.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use ocelli_protocol::decode_device::{DecodeDevice, DeviceFault, DeviceFaultKind};
use rustix::fs::{Access, access};

use super::decoder::{quiet, text};

#[allow(unsafe_code)]
unsafe extern "C" {
    fn ocelli_has_device_kind(kind: *const c_char) -> c_int;
    fn ocelli_open_device(
        kind: *const c_char,
        name: *const c_char,
        opened: *mut *mut c_void,
    ) -> c_int;
    fn ocelli_close_device(device: *mut c_void);
}

/// The major number of the nodes of GPUs (DRM), of which those from 128 on render.
const DRM_MAJOR: u32 = 226;

/// The first minor number of nodes that render and do nothing else.
const FIRST_RENDERING: u32 = 128;

/// An open device. Clones are the same.
#[derive(Debug, Clone)]
pub struct Device(Arc<OpenDevice>);

#[derive(Debug)]
struct OpenDevice {
    raw: NonNull<c_void>,
    name: DecodeDevice,
}

// SAFETY: a device of libavutil counts its references atomically, and decoders of several threads
// may use one.
#[allow(unsafe_code)]
unsafe impl Send for OpenDevice {}
// SAFETY: as above; it is not changed once it is open.
#[allow(unsafe_code)]
unsafe impl Sync for OpenDevice {}

impl Device {
    /// Opens a device and loads its driver. `None` for the processor.
    pub fn open(name: &DecodeDevice) -> Result<Option<Self>, DeviceFault> {
        let (kind, driver, nodes) = match name {
            DecodeDevice::Cpu => return Ok(None),
            DecodeDevice::Vaapi(node) => (c"vaapi", node.clone(), vec![node.clone()]),
            DecodeDevice::Cuda(number) => {
                let nodes = vec!["/dev/nvidiactl".to_owned(), format!("/dev/nvidia{number}")];
                (c"cuda", number.to_string(), nodes)
            }
        };
        let fault = |kind, reason: String| DeviceFault { kind, device: name.clone(), reason };
        quiet();
        // SAFETY: the text ends with a zero.
        #[allow(unsafe_code)]
        let is_built = unsafe { ocelli_has_device_kind(kind.as_ptr()) } != 0;
        if !is_built {
            let reason = "this machine's FFmpeg is built without it".to_owned();
            return Err(fault(DeviceFaultKind::NotBuilt, reason));
        }
        for node in &nodes {
            check_node(Path::new(node), matches!(name, DecodeDevice::Vaapi(_)))
                .map_err(|(kind, reason)| fault(kind, format!("{node}: {reason}")))?;
        }
        let driver = CString::new(driver)
            .map_err(|error| fault(DeviceFaultKind::Missing, error.to_string()))?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: both texts end with a zero, and `raw` is there to be written.
        #[allow(unsafe_code)]
        let result = unsafe { ocelli_open_device(kind.as_ptr(), driver.as_ptr(), &mut raw) };
        match NonNull::new(raw) {
            Some(raw) if result >= 0 => {
                Ok(Some(Self(Arc::new(OpenDevice { raw, name: name.clone() }))))
            }
            _ => {
                let reason = format!("its driver does not open it: {}", text(result));
                Err(fault(DeviceFaultKind::Unusable, reason))
            }
        }
    }

    /// For the shim.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.0.raw.as_ptr()
    }

    /// Whether its driver reserves addresses without measure, so that a bound on them leaves none:
    /// CUDA maps the memory of all devices and of the machine into one space.
    pub fn maps_freely(&self) -> bool {
        matches!(self.0.name, DecodeDevice::Cuda(_))
    }

    /// The fault of a stream that it does not decode.
    pub(super) fn refuses(&self, reason: String) -> DeviceFault {
        DeviceFault { kind: DeviceFaultKind::Codec, device: self.0.name.clone(), reason }
    }
}

impl Drop for OpenDevice {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the reference is this value's own; decoders have their own.
        unsafe { ocelli_close_device(self.raw.as_ptr()) };
    }
}

/// Looks at a device's node before its driver does, whose own words say little.
fn check_node(node: &Path, of_drm: bool) -> Result<(), (DeviceFaultKind, String)> {
    let about =
        fs::metadata(node).map_err(|error| (DeviceFaultKind::Missing, error.to_string()))?;
    let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    if !about.file_type().is_char_device() || (of_drm && major != DRM_MAJOR) {
        return Err((DeviceFaultKind::Unusable, "it is the node of no GPU".to_owned()));
    }
    // The others set modes of displays, and open what other processes draw.
    if of_drm && minor < FIRST_RENDERING {
        let reason = "it is a GPU's node for displays: name one like /dev/dri/renderD128";
        return Err((DeviceFaultKind::Unusable, reason.to_owned()));
    }
    access(node, Access::READ_OK | Access::WRITE_OK).map_err(|error| {
        let reason = format!("{error}: add the host's user to the group that the node has");
        (DeviceFaultKind::Missing, reason)
    })
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::worker::{Codec, Decode, UnitHeader};

    use super::super::{Decoder, DecoderError, Frame, MAX_PIXELS, Stream};
    use super::*;

    fn fault(device: &str) -> DeviceFault {
        Device::open(&device.parse().unwrap()).unwrap_err()
    }

    #[test]
    fn the_processor_is_no_device() {
        assert!(Device::open(&DecodeDevice::Cpu).unwrap().is_none());
    }

    #[test]
    fn what_is_not_there_and_what_is_no_gpu_is_told_apart_in_plain_words() {
        let missing = fault("vaapi:/dev/dri/renderD999");
        assert_eq!(missing.kind, DeviceFaultKind::Missing);
        assert_eq!(
            missing.to_string(),
            "no_device: vaapi:/dev/dri/renderD999: /dev/dri/renderD999: No such file or directory \
             (os error 2)"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("card");
        fs::write(&file, "").unwrap();
        for other in ["/dev/null", folder.path().to_str().unwrap(), file.to_str().unwrap()] {
            let fault = fault(&format!("vaapi:{other}"));
            assert_eq!(fault.kind, DeviceFaultKind::Unusable, "{fault}");
            assert!(fault.to_string().contains("the node of no GPU"), "{fault}");
        }
        if !Path::new("/dev/nvidiactl").exists() {
            let fault = fault("cuda:0");
            assert_eq!(fault.kind, DeviceFaultKind::Missing, "{fault}");
            assert!(fault.to_string().contains("/dev/nvidiactl"), "{fault}");
        }
    }

    /// A device that no driver stands behind.
    #[allow(unsafe_code)]
    fn without_driver(kind: &std::ffi::CStr) -> Device {
        unsafe extern "C" {
            fn ocelli_device_without_driver(kind: *const c_char) -> *mut c_void;
        }
        // SAFETY: the text ends with a zero.
        let raw = NonNull::new(unsafe { ocelli_device_without_driver(kind.as_ptr()) }).unwrap();
        Device(Arc::new(OpenDevice { raw, name: DecodeDevice::Vaapi("/dev/dri/none".to_owned()) }))
    }

    fn refusal(error: DecoderError) -> DeviceFault {
        match error {
            DecoderError::Device(fault) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_codec_that_such_devices_do_not_decode_opens_no_decoder() {
        // Which decodes nothing by way of a device context.
        let device = without_driver(c"drm");
        for codec in [Codec::H264, Codec::H265, Codec::Mjpeg] {
            let fault = refusal(Decoder::new(codec, MAX_PIXELS, Some(&device)).unwrap_err());
            assert_eq!(fault.kind, DeviceFaultKind::Codec);
            let text = fault.to_string();
            assert!(text.contains(codec.name()) && text.contains("codec_not_supported"), "{text}");
        }
    }

    /// H.264 of 64 x 64 with chroma of full resolution, which no VAAPI device is offered: a set of
    /// parameters, another, and a grey key picture.
    const FULL_CHROMA: [u8; 57] = *b"\0\0\0\x01\x67\xf4\x10\x0a\x91\x97\x10\x9a\x10\0\0\x03\0\x10\
        \0\0\x03\x03\x20\x40\0\0\0\x01\x68\xce\x03\x91\x92\0\0\0\x01\x65\x88\x84\x3a\x27\x93\xc9\
        \xe4\xf5\xeb\xd7\xaf\x5e\xbd\x7a\xf5\xeb\xd7\xaf\x80";

    #[test]
    fn a_stream_that_a_device_does_not_decode_ends_the_stream_and_not_by_way_of_the_processor() {
        let header = super::super::clips::units("people-576-high.mp4")[0].0.clone();
        let mut frames = Vec::new();
        let mut on_processor = Stream::new(Decode::All);
        on_processor.push(&header, &FULL_CHROMA, &mut |frame| frames.push(frame)).unwrap();
        on_processor.drain(&mut |frame| frames.push(frame));
        assert_eq!(frames.len(), 1, "the stream itself is sound");

        let mut on_device = Stream::new(Decode::All).on(Some(without_driver(c"vaapi")));
        let mut none = |frame: Frame| panic!("a frame: {frame:?}");
        let mut refused = on_device.push(&header, &FULL_CHROMA, &mut none);
        if refused.is_ok() {
            // A decoder may take its time until the next unit.
            let next = UnitHeader { number: 1, presentation_ns: None, ..header };
            refused = on_device.push(&next, &FULL_CHROMA, &mut none);
        }
        let fault = refusal(refused.unwrap_err());
        assert_eq!(fault.kind, DeviceFaultKind::Codec);
        assert!(fault.to_string().ends_with("does not decode h264 of this kind"), "{fault}");
    }

    /// The driver's own answer, where no look at the node comes before it.
    #[test]
    #[allow(unsafe_code)]
    fn a_driver_that_opens_nothing_is_an_error_and_no_crash() {
        quiet();
        for (kind, name) in [(c"vaapi", c"/dev/null"), (c"cuda", c"0"), (c"nonsense", c"")] {
            if kind == c"cuda" && Path::new("/dev/nvidia0").exists() {
                continue;
            }
            let mut raw = std::ptr::null_mut();
            // SAFETY: both texts end with a zero, and `raw` is there to be written.
            let result = unsafe { ocelli_open_device(kind.as_ptr(), name.as_ptr(), &mut raw) };
            assert!(result < 0 && raw.is_null(), "{kind:?}: {result}");
        }
        // SAFETY: the texts end with a zero.
        let has = |kind: &std::ffi::CStr| unsafe { ocelli_has_device_kind(kind.as_ptr()) };
        assert_eq!(has(c"nonsense"), 0);
        assert_eq!(has(c""), 0);
    }
}
