//! One codec's decoder: access units in, pictures out.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Once;

use ocelli_protocol::decode_device::DeviceFault;
use ocelli_protocol::worker::Codec;

use super::device::Device;
use super::picture::{Picture, RawPicture, Unreadable};

/// Pixels of the largest picture that a session decodes: 8192 x 4320, the largest frame of H.264
/// and H.265 levels in use. It bounds what a hostile parameter set can make the decoder allocate.
pub const MAX_PIXELS: u64 = 8192 * 4320;

/// `OCELLI_NOTHING` and `OCELLI_PICTURE` of shim.c.
const NOTHING: c_int = 0;
const PICTURE: c_int = 1;

/// `OCELLI_CODEC_NOT_ON_DEVICE` of shim.c.
const CODEC_NOT_ON_DEVICE: c_int = 1;

/// Pictures that one access unit can bring out: a drain gives what the reorder buffer holds, 16
/// frames at most by the standards. More than this means that the decoder does not get forward.
const MAX_OUTPUTS: usize = 64;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn ocelli_quiet();
    fn ocelli_error_text(error: c_int, text: *mut c_char, size: usize);
    fn ocelli_open(
        name: *const c_char,
        max_pixels: i64,
        device: *mut c_void,
        opened: *mut *mut c_void,
    ) -> c_int;
    fn ocelli_refused(decoder: *const c_void) -> c_int;
    fn ocelli_send(decoder: *mut c_void, data: *const u8, size: usize, unit: i64) -> c_int;
    fn ocelli_receive(decoder: *mut c_void, picture: *mut RawPicture) -> c_int;
    fn ocelli_flush(decoder: *mut c_void);
    fn ocelli_close(decoder: *mut c_void);
}

/// What libavcodec said to an access unit, or to being opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// The decoder cannot be opened.
    #[error("libavcodec opens no decoder for {codec:?}: {reason}")]
    Open {
        /// The codec asked for.
        codec: Codec,
        reason: String,
    },
    /// The access unit's data are not what they should be, or a bound does not allow them.
    #[error("the {codec:?} decoder refuses it ({reason}); pictures may have {max_pixels} pixels")]
    Refused {
        codec: Codec,
        reason: String,
        /// The bound it was opened with.
        max_pixels: u64,
    },
    /// The device that was asked for does not decode the stream.
    #[error(transparent)]
    Device(#[from] DeviceFault),
}

/// A picture that came out.
#[derive(Debug)]
pub struct Decoded {
    /// The number of its access unit.
    pub unit: u64,
    /// The decoder says that it does not show what the camera sent: parts are missing or made up.
    pub damaged: bool,
    /// The picture, or why it cannot be read.
    pub picture: Result<Picture, Unreadable>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Decoder {
    raw: NonNull<c_void>,
    codec: Codec,
    max_pixels: u64,
    device: Option<Device>,
}

// SAFETY: a decoder with one thread has no tie to the thread that opened it; `&mut self` keeps
// calls apart.
#[allow(unsafe_code)]
unsafe impl Send for Decoder {}

impl Decoder {
    /// Opens a decoder, single-threaded, that refuses pictures of more than `max_pixels`. `device`
    /// decodes, or else the processor.
    #[allow(unsafe_code)]
    pub fn new(
        codec: Codec,
        max_pixels: u64,
        device: Option<&Device>,
    ) -> Result<Self, DecoderError> {
        quiet();
        let name = match codec {
            Codec::H264 => c"h264",
            Codec::H265 => c"hevc",
            Codec::Mjpeg => c"mjpeg",
        };
        let mut raw = std::ptr::null_mut();
        let bound = i64::try_from(max_pixels).unwrap_or(i64::MAX);
        let on = device.map_or(std::ptr::null_mut(), Device::as_ptr);
        // SAFETY: `name` ends with a zero, `on` is null or an open device, and `raw` is there to be
        // written.
        let result = unsafe { ocelli_open(name.as_ptr(), bound, on, &mut raw) };
        match (NonNull::new(raw), device) {
            (Some(raw), device) if result == 0 => {
                Ok(Self { raw, codec, max_pixels, device: device.cloned() })
            }
            (_, Some(device)) if result == CODEC_NOT_ON_DEVICE => {
                let reason = format!("FFmpeg decodes no {} on such devices", codec.name());
                Err(device.refuses(reason).into())
            }
            _ => Err(DecoderError::Open { codec, reason: text(result) }),
        }
    }

    /// The codec it was opened for.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Why the device does not decode this stream, once it has said so.
    #[allow(unsafe_code)]
    pub fn refusal(&self) -> Option<DecoderError> {
        let device = self.device.as_ref()?;
        // SAFETY: the decoder is open.
        let is_refused = unsafe { ocelli_refused(self.raw.as_ptr()) } != 0;
        let reason = || format!("its driver does not decode {} of this kind", self.codec.name());
        is_refused.then(|| device.refuses(reason()).into())
    }

    /// Decodes one access unit; `unit` comes back with its picture, now or with a later unit. An
    /// error means that this unit brings no picture, or a damaged one; decoding goes on.
    pub fn decode(
        &mut self,
        unit: u64,
        data: &[u8],
        out: &mut dyn FnMut(Decoded),
    ) -> Result<(), DecoderError> {
        let sent = self.send(Some((unit, data)));
        self.receive(out).and(sent)
    }

    /// Gives out all that the decoder still holds, then leaves it ready for a key access unit.
    #[allow(unsafe_code)]
    pub fn drain(&mut self, out: &mut dyn FnMut(Decoded)) -> Result<(), DecoderError> {
        let sent = self.send(None);
        let received = self.receive(out);
        // SAFETY: the decoder is open.
        unsafe { ocelli_flush(self.raw.as_ptr()) };
        received.and(sent)
    }

    #[allow(unsafe_code)]
    fn send(&mut self, unit: Option<(u64, &[u8])>) -> Result<(), DecoderError> {
        let (data, size, number) = match unit {
            // A dangling pointer of an empty slice is not null, so it does not begin a drain.
            Some((number, data)) => (data.as_ptr(), data.len(), number.cast_signed()),
            None => (std::ptr::null(), 0, 0),
        };
        // SAFETY: the decoder is open; `data` holds `size` bytes, which the shim copies.
        self.check(unsafe { ocelli_send(self.raw.as_ptr(), data, size, number) })
    }

    #[allow(unsafe_code)]
    fn receive(&mut self, out: &mut dyn FnMut(Decoded)) -> Result<(), DecoderError> {
        let mut first = Ok(());
        for _ in 0..MAX_OUTPUTS {
            let mut raw = RawPicture::empty();
            // SAFETY: the decoder is open, and `raw` is laid out as the shim writes it.
            match unsafe { ocelli_receive(self.raw.as_ptr(), &mut raw) } {
                NOTHING => return first,
                PICTURE => {
                    let (unit, damaged) = (raw.unit().cast_unsigned(), raw.damaged());
                    // SAFETY: `ocelli_receive` has just written a picture to it.
                    let picture = unsafe { raw.into_picture() };
                    out(Decoded { unit, damaged, picture });
                }
                // One bad picture does not keep the others from coming out.
                error => first = first.and(self.check(error)),
            }
        }
        first
    }

    fn check(&self, result: c_int) -> Result<(), DecoderError> {
        let Self { codec, max_pixels, .. } = *self;
        if result >= 0 {
            Ok(())
        } else {
            Err(DecoderError::Refused { codec, reason: text(result), max_pixels })
        }
    }
}

impl Drop for Decoder {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the decoder is open and nobody uses it afterwards; pictures own their memory.
        unsafe { ocelli_close(self.raw.as_ptr()) }
    }
}

/// Turns off libavcodec's own log, once.
#[allow(unsafe_code)]
pub(super) fn quiet() {
    static QUIET: Once = Once::new();
    // SAFETY: sets a global of libavutil that is made to be set from anywhere.
    QUIET.call_once(|| unsafe { ocelli_quiet() });
}

/// What an error of libavutil means.
#[allow(unsafe_code)]
pub(super) fn text(error: c_int) -> String {
    // As long as libavutil's own buffers for this, AV_ERROR_MAX_STRING_SIZE.
    let mut text = [0; 64];
    // SAFETY: the shim writes at most `text.len()` characters, with a zero at the end.
    unsafe { ocelli_error_text(error, text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map(CStr::to_string_lossy).unwrap_or_default().into_owned()
}
