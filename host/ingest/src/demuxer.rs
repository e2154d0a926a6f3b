//! libavformat, held in a safe type: an open input, and the units of its video stream.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use ocelli_protocol::worker::Codec;

use crate::log;

/// `OCELLI_...` of shim.c.
const CODECS: [(i32, Codec); 3] = [(0, Codec::H264), (1, Codec::H265), (2, Codec::Mjpeg)];
const KEY: i32 = 1;
const CORRUPT: i32 = 2;
const HIDDEN: i32 = 4;

/// How the shim says that a time is not known.
const UNKNOWN: i64 = i64::MIN;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn ocelli_ingest_error(error: c_int, text: *mut c_char, size: usize);
    fn ocelli_ingest_open_file(
        fd: RawFd,
        raw: *const c_char,
        stop: extern "C" fn(*mut c_void) -> c_int,
        watch: *mut c_void,
        opened: *mut *mut c_void,
    ) -> c_int;
    fn ocelli_ingest_open_camera(
        url: *const c_char,
        udp: c_int,
        agent: *const c_char,
        stop: extern "C" fn(*mut c_void) -> c_int,
        watch: *mut c_void,
        opened: *mut *mut c_void,
    ) -> c_int;
    fn ocelli_ingest_find_video(input: *mut c_void) -> c_int;
    fn ocelli_ingest_describe(input: *mut c_void, described: *mut RawStream);
    fn ocelli_ingest_left_out(
        input: *mut c_void,
        index: c_uint,
        text: *mut c_char,
        size: usize,
    ) -> c_int;
    fn ocelli_ingest_read(input: *mut c_void, unit: *mut RawUnit) -> c_int;
    fn ocelli_ingest_close(input: *mut c_void);
}

/// `struct ocelli_stream` of shim.c.
#[repr(C)]
struct RawStream {
    format: *const c_char,
    codec_name: *const c_char,
    extradata: *const u8,
    extradata_size: usize,
    pictures: i64,
    duration_ns: i64,
    frame_rate: f64,
    codec: i32,
    width: i32,
    height: i32,
    matrix: [i32; 9],
    untimed: i32,
    delayed: i32,
    encrypted: i32,
}

/// `struct ocelli_unit` of shim.c.
#[repr(C)]
struct RawUnit {
    data: *const u8,
    extradata: *const u8,
    size: usize,
    extradata_size: usize,
    pts_ns: i64,
    dts_ns: i64,
    clock_us: i64,
    flags: i32,
    encrypted: i32,
}

/// An error of libavformat, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvError(pub(crate) c_int);

/// The number of an error that libav names by four characters.
const fn tagged(tag: [u8; 4]) -> AvError {
    AvError(-i32::from_le_bytes(tag))
}

impl AvError {
    /// The end of the input.
    pub(crate) const END: Self = tagged(*b"EOF ");
    /// The watch has stopped it.
    pub(crate) const STOPPED: Self = tagged(*b"EXIT");
    /// The content is not what its container promises.
    pub(crate) const INVALID: Self = tagged(*b"INDA");
    /// The file is in none of the containers.
    pub(crate) const NO_CONTAINER: Self = tagged([0xf8, b'D', b'E', b'M']);
    /// No such stream.
    pub(crate) const NO_STREAM: Self = tagged([0xf8, b'S', b'T', b'R']);
    /// The camera's answers by their status: 400, 401, 403, 404, another one of 400 to 499, 500 and
    /// above.
    pub(crate) const BAD_REQUEST: Self = tagged([0xf8, b'4', b'0', b'0']);
    pub(crate) const UNAUTHORIZED: Self = tagged([0xf8, b'4', b'0', b'1']);
    pub(crate) const FORBIDDEN: Self = tagged([0xf8, b'4', b'0', b'3']);
    pub(crate) const NOT_FOUND: Self = tagged([0xf8, b'4', b'0', b'4']);
    pub(crate) const OTHER_4XX: Self = tagged([0xf8, b'4', b'X', b'X']);
    pub(crate) const SERVER_ERROR: Self = tagged([0xf8, b'5', b'X', b'X']);

    /// The error of the system that it is. `None` for libav's own.
    pub(crate) fn errno(self) -> Option<rustix::io::Errno> {
        let number = self.0.checked_neg()?;
        (1..4096).contains(&number).then(|| rustix::io::Errno::from_raw_os_error(number))
    }
}

impl fmt::Display for AvError {
    #[allow(unsafe_code)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As long as libavutil's own buffers for this, AV_ERROR_MAX_STRING_SIZE.
        let mut text = [0; 64];
        // SAFETY: the shim writes at most `text.len()` characters, with a zero at the end.
        unsafe { ocelli_ingest_error(self.0, text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        write!(f, "{}", text.to_string_lossy())
    }
}

impl fmt::Debug for AvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AvError({}: {self})", self.0)
    }
}

/// Asked by libavformat again and again while it works: whether it has to stop. It must not call
/// the demuxer.
pub type Watch = Box<dyn FnMut() -> bool>;

/// An open file or camera.
pub(crate) struct Demuxer {
    raw: NonNull<c_void>,
    /// Read by libavformat: it stays open, and where it is.
    _file: Option<OwnedFd>,
    /// From a box, and freed after `raw`, which keeps the address.
    watch: NonNull<Watch>,
}

/// The video stream of an input.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) format: String,
    /// The codec, or libavcodec's name for one that is not decoded.
    pub(crate) codec: Result<Codec, String>,
    pub(crate) extradata: Vec<u8>,
    /// Pictures that will be read, by an index that lists them all.
    pub(crate) pictures: Option<u64>,
    pub(crate) duration_ns: Option<u64>,
    pub(crate) frame_rate: Option<f64>,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) matrix: [i32; 9],
    /// The container has no times.
    pub(crate) untimed: bool,
    /// A unit brings the clock time of the one after it.
    pub(crate) delayed: bool,
    pub(crate) encrypted: bool,
    pub(crate) left_out: Vec<String>,
}

/// A unit as libavformat has it.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) data: &'a [u8],
    /// New parameters of the codec, from this unit on.
    pub(crate) extradata: Option<&'a [u8]>,
    pub(crate) presentation_ns: Option<i64>,
    pub(crate) decoding_ns: Option<i64>,
    /// Wall-clock time in microseconds since 1970.
    pub(crate) clock_us: Option<i64>,
    pub(crate) key: bool,
    pub(crate) corrupt: bool,
    pub(crate) hidden: bool,
    pub(crate) encrypted: bool,
}

/// Longest parameters of a codec that are looked at, in bytes: a few parameter sets.
const MAX_EXTRADATA: usize = 64 << 10;

impl Demuxer {
    /// Opens a file. `raw`: the format of a stream without container that it is taken for if its
    /// content says nothing else.
    #[allow(unsafe_code)]
    pub(crate) fn open_file(
        file: OwnedFd,
        raw: Option<&CStr>,
        watch: Watch,
    ) -> Result<Self, AvError> {
        let number = file.as_raw_fd();
        let raw = raw.map_or(std::ptr::null(), CStr::as_ptr);
        Self::open(Some(file), watch, |watch, opened| {
            // SAFETY: the descriptor and what `watch` points to outlive the input, which owns them
            // both; `raw` is null or ends with a zero.
            unsafe { ocelli_ingest_open_file(number, raw, stop, watch, opened) }
        })
    }

    /// Opens an `rtsp://` URL, for packets in datagrams or within the connection.
    #[allow(unsafe_code)]
    pub(crate) fn open_camera(url: &str, udp: bool, watch: Watch) -> Result<Self, AvError> {
        let url = CString::new(url).map_err(|_| AvError::INVALID)?;
        let agent = concat!("ocelli/", env!("CARGO_PKG_VERSION"), "\0");
        Self::open(None, watch, |watch, opened| {
            let (url, agent) = (url.as_ptr(), agent.as_ptr().cast());
            // SAFETY: both texts end with a zero; what `watch` points to outlives the input.
            unsafe { ocelli_ingest_open_camera(url, udp.into(), agent, stop, watch, opened) }
        })
    }

    #[allow(unsafe_code)]
    fn open(
        file: Option<OwnedFd>,
        watch: Watch,
        open: impl FnOnce(*mut c_void, *mut *mut c_void) -> c_int,
    ) -> Result<Self, AvError> {
        log::gather();
        let watch = NonNull::from(Box::leak(Box::new(watch)));
        let mut raw = std::ptr::null_mut();
        let result = open(watch.as_ptr().cast(), &mut raw);
        match NonNull::new(raw) {
            Some(raw) if result >= 0 => Ok(Self { raw, _file: file, watch }),
            _ => {
                // SAFETY: from the box above; an input that could not be opened is no more.
                drop(unsafe { Box::from_raw(watch.as_ptr()) });
                Err(AvError(result))
            }
        }
    }

    /// Finds the video stream, for which packets are read where the container has no list.
    #[allow(unsafe_code)]
    pub(crate) fn find_video(&mut self) -> Result<(), AvError> {
        // SAFETY: the input is open.
        match unsafe { ocelli_ingest_find_video(self.raw.as_ptr()) } {
            0.. => Ok(()),
            error => Err(AvError(error)),
        }
    }

    /// The video stream. To be called once [`Self::find_video`] has found it.
    #[allow(unsafe_code)]
    pub(crate) fn describe(&mut self) -> Described {
        let mut raw = RawStream {
            format: std::ptr::null(),
            codec_name: std::ptr::null(),
            extradata: std::ptr::null(),
            extradata_size: 0,
            pictures: -1,
            duration_ns: -1,
            frame_rate: 0.0,
            codec: -1,
            width: 0,
            height: 0,
            matrix: [0; 9],
            untimed: 0,
            delayed: 0,
            encrypted: 0,
        };
        // SAFETY: the input is open, and `raw` is laid out as the shim writes it.
        unsafe { ocelli_ingest_describe(self.raw.as_ptr(), &mut raw) };
        let codec = CODECS.iter().find(|(number, _)| *number == raw.codec).map(|(_, codec)| *codec);
        // SAFETY: texts and extradata live as long as the input, and until its next read; it is
        // borrowed as long as they are looked at.
        let (format, name, extradata) = unsafe {
            (text(raw.format), text(raw.codec_name), bytes(raw.extradata, raw.extradata_size))
        };
        Described {
            format,
            codec: codec.ok_or(name),
            extradata: extradata
                .get(..extradata.len().min(MAX_EXTRADATA))
                .unwrap_or_default()
                .to_vec(),
            pictures: u64::try_from(raw.pictures).ok(),
            duration_ns: u64::try_from(raw.duration_ns).ok(),
            frame_rate: (raw.frame_rate.is_finite() && raw.frame_rate > 0.0)
                .then_some(raw.frame_rate),
            width: u32::try_from(raw.width).unwrap_or_default(),
            height: u32::try_from(raw.height).unwrap_or_default(),
            matrix: raw.matrix,
            untimed: raw.untimed != 0,
            delayed: raw.delayed != 0,
            encrypted: raw.encrypted != 0,
            left_out: self.left_out(),
        }
    }

    /// The streams that are not read, each in two words. The shim bounds their number.
    #[allow(unsafe_code)]
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut names = Vec::new();
        for index in 0.. {
            let mut name = [0; 64];
            let (buffer, size) = (name.as_mut_ptr().cast(), name.len());
            // SAFETY: the input is open; the shim writes at most `size` characters, with a zero.
            match unsafe { ocelli_ingest_left_out(self.raw.as_ptr(), index, buffer, size) } {
                ..0 => break,
                0 => {}
                _ => {
                    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
                    names.push(name.to_string_lossy().into_owned());
                }
            }
        }
        names
    }

    /// The next unit of the video stream. Reading may go on after an error.
    #[allow(unsafe_code)]
    pub(crate) fn read(&mut self) -> Result<Packet<'_>, AvError> {
        let mut raw = RawUnit {
            data: std::ptr::null(),
            extradata: std::ptr::null(),
            size: 0,
            extradata_size: 0,
            pts_ns: UNKNOWN,
            dts_ns: UNKNOWN,
            clock_us: UNKNOWN,
            flags: 0,
            encrypted: 0,
        };
        // SAFETY: the input is open, and `raw` is laid out as the shim writes it.
        let result = unsafe { ocelli_ingest_read(self.raw.as_ptr(), &mut raw) };
        if result < 0 {
            return Err(AvError(result));
        }
        let time = |time: i64| (time != UNKNOWN).then_some(time);
        // SAFETY: both live until the next read, which borrows the input anew.
        let (data, extradata) =
            unsafe { (bytes(raw.data, raw.size), bytes(raw.extradata, raw.extradata_size)) };
        Ok(Packet {
            data,
            extradata: (1..=MAX_EXTRADATA).contains(&extradata.len()).then_some(extradata),
            presentation_ns: time(raw.pts_ns),
            decoding_ns: time(raw.dts_ns),
            clock_us: time(raw.clock_us),
            key: raw.flags & KEY != 0,
            corrupt: raw.flags & CORRUPT != 0,
            hidden: raw.flags & HIDDEN != 0,
            encrypted: raw.encrypted != 0,
        })
    }
}

impl Drop for Demuxer {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the input is open and used no further; the watch is from a box, which only the
        // input knew. The file is closed after this.
        unsafe {
            ocelli_ingest_close(self.raw.as_ptr());
            drop(Box::from_raw(self.watch.as_ptr()));
        }
    }
}

/// Called by libavformat with the address of a [`Watch`].
#[allow(unsafe_code)]
extern "C" fn stop(watch: *mut c_void) -> c_int {
    // SAFETY: the address of the demuxer's watch, which nothing else borrows.
    let watch = unsafe { &mut *watch.cast::<Watch>() };
    watch().into()
}

/// # Safety
///
/// Null, or `length` bytes that live as long as the caller makes `'a`.
#[allow(unsafe_code)]
unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(data, length) }
}

/// # Safety
///
/// Null, or a text that ends with a zero.
#[allow(unsafe_code)]
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
