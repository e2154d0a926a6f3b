//! A decoded picture: planes of luma and chroma in the decoder's memory, and how to read them as
//! colours.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::OnceLock;

use ocelli_protocol::worker::Orientation;

use super::orientation::coded_place;

/// `struct ocelli_picture` of shim.c.
#[repr(C)]
pub(super) struct RawPicture {
    frame: *mut c_void,
    data: [*const u8; 3],
    unit: i64,
    format: *const c_char,
    stride: [i32; 3],
    width: i32,
    height: i32,
    planes: i32,
    depth: i32,
    chroma_shift_x: i32,
    chroma_shift_y: i32,
    chroma_place: i32,
    matrix: i32,
    full_range: i32,
    damaged: i32,
}

#[allow(unsafe_code)]
unsafe extern "C" {
    fn ocelli_free_frame(frame: *mut c_void);
}

/// Below this height a picture that does not say its matrix is taken as standard definition, which
/// is BT.601.
const HD_HEIGHT: u32 = 720;

/// How luma and chroma were made of red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: standard definition and JPEG.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
}

impl Matrix {
    /// From matrix coefficients as ITU-T H.273 numbers them; those that are unspecified or not
    /// handled, by height.
    fn from_h273(code: i32, height: u32) -> Self {
        match code {
            1 => Self::Bt709,
            // 4 is the FCC's, 5 and 6 are BT.601 for 625 and 525 lines; 7, SMPTE 240M, is nearest
            // to BT.709.
            4..=6 => Self::Bt601,
            7 => Self::Bt709,
            9 | 10 => Self::Bt2020,
            _ if height < HD_HEIGHT => Self::Bt601,
            _ => Self::Bt709,
        }
    }

    /// The weights of red and blue in luma, Kr and Kb of the matrix's recommendation.
    pub fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Why a picture cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsupported pixel format {0}: Y, U, V or grey of 8 to 12 bits is read, U and V in planes \
         or paired"
)]
pub struct Unreadable(pub String);

/// One plane of samples.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: u32,
    height: u32,
    depth: u32,
}

impl<'a> Plane<'a> {
    /// Samples in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bits of a sample, 8 to 12. Above 8 a sample takes two bytes, the lower first.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The bytes of row `y` without the padding at its end; empty for a row that is not there.
    pub fn row(&self, y: u32) -> &'a [u8] {
        let start = (y as usize).saturating_mul(self.stride);
        let length = self.row_bytes();
        self.bytes.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
    }

    /// All rows from `start` on, top to bottom.
    pub fn rows(&self, start: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let length = self.row_bytes();
        let from = (start as usize).saturating_mul(self.stride);
        // The last chunk is as long as a row or longer: see `Picture::plane`.
        let rows = self.bytes.get(from..).unwrap_or_default().chunks(self.stride.max(1));
        rows.map(move |row| row.get(..length).unwrap_or_default())
    }

    fn row_bytes(&self) -> usize {
        self.width as usize * self.sample_bytes()
    }

    fn sample_bytes(&self) -> usize {
        if self.depth > 8 { 2 } else { 1 }
    }
}

/// The memory of a picture's samples.
enum Memory {
    Frame(NonNull<c_void>),
    /// Buffers of the picture's own, which never change.
    Own(
        #[allow(dead_code, reason = "held for `Picture::data`, which points into it")] Vec<Vec<u8>>,
    ),
}

/// A decoded picture. It owns its memory and may outlive the decoder; dropping it gives the memory
/// back to the decoder.
///
/// Its planes are as they were coded, its size and all coordinates as it is shown: whatever reads
/// samples goes by way of [`Picture::coded`], so that a picture which stands upright, as nearly all
/// do, is never copied.
pub struct Picture {
    memory: Memory,
    data: [*const u8; 3],
    stride: [usize; 3],
    /// As coded.
    width: u32,
    height: u32,
    orientation: Orientation,
    /// Two: blue and red difference are paired in the second, sample by sample.
    planes: usize,
    /// Those two apart, once somebody has asked for colours: motion and flow look at luma alone.
    apart: OnceLock<[Vec<u8>; 2]>,
    depth: u32,
    chroma_shift: (u32, u32),
    chroma_cosited: (bool, bool),
    matrix: Matrix,
    full_range: bool,
    format: &'static str,
}

// SAFETY: nobody writes to a picture's samples any more once it is there, the buffers of an AVFrame
// count their references atomically, and freeing one on another thread is what libavutil's buffers
// are made for.
#[allow(unsafe_code)]
unsafe impl Send for Picture {}
// SAFETY: as above; a shared picture is only read.
#[allow(unsafe_code)]
unsafe impl Sync for Picture {}

impl RawPicture {
    /// Room for `ocelli_receive` to write to.
    pub(super) fn empty() -> Self {
        Self {
            frame: std::ptr::null_mut(),
            data: [std::ptr::null(); 3],
            unit: 0,
            format: std::ptr::null(),
            stride: [0; 3],
            width: 0,
            height: 0,
            planes: 0,
            depth: 0,
            chroma_shift_x: 0,
            chroma_shift_y: 0,
            chroma_place: 0,
            matrix: 0,
            full_range: 0,
            damaged: 0,
        }
    }

    /// The number that went with the access unit into the decoder.
    pub(super) fn unit(&self) -> i64 {
        self.unit
    }

    /// The decoder says that the picture is damaged.
    pub(super) fn damaged(&self) -> bool {
        self.damaged != 0
    }

    /// Takes the frame over.
    ///
    /// # Safety
    ///
    /// `self` was written by an `ocelli_receive` that returned a picture.
    #[allow(unsafe_code)]
    pub(super) unsafe fn into_picture(self) -> Result<Picture, Unreadable> {
        // SAFETY: libavutil's names of pixel formats are static strings.
        let format = unsafe { CStr::from_ptr(self.format) }.to_str().unwrap_or("unknown");
        let unreadable = || Unreadable(format.to_owned());
        let frame = NonNull::new(self.frame).ok_or_else(unreadable)?;
        let height = u32::try_from(self.height).unwrap_or(0);
        // Made before anything is refused, so that its drop frees the frame.
        let picture = Picture {
            memory: Memory::Frame(frame),
            data: self.data,
            stride: self.stride.map(|stride| usize::try_from(stride).unwrap_or(0)),
            width: u32::try_from(self.width).unwrap_or(0),
            height,
            orientation: Orientation::Upright,
            planes: usize::try_from(self.planes).unwrap_or(0),
            apart: OnceLock::new(),
            depth: u32::try_from(self.depth).unwrap_or(0),
            chroma_shift: (
                u32::try_from(self.chroma_shift_x).unwrap_or(0),
                u32::try_from(self.chroma_shift_y).unwrap_or(0),
            ),
            chroma_cosited: match self.chroma_place {
                1 => (false, false),
                2 => (true, true),
                _ => (true, false),
            },
            matrix: Matrix::from_h273(self.matrix, height),
            full_range: self.full_range != 0,
            format,
        };
        if picture.planes == 0 { Err(unreadable()) } else { Ok(picture) }
    }
}

impl Picture {
    /// A picture of 8-bit samples in full range by BT.601, as JPEG has them: luma, or luma, blue
    /// and red difference, each plane `width` x `height`, row by row. None for other counts and
    /// lengths.
    pub(super) fn of_planes(
        width: u32,
        height: u32,
        planes: Vec<Vec<u8>>,
        format: &'static str,
    ) -> Option<Self> {
        let stride = width as usize;
        let length = stride.checked_mul(height as usize)?;
        if !matches!(planes.len(), 1 | 3) || planes.iter().any(|plane| plane.len() != length) {
            return None;
        }
        let data = std::array::from_fn(|index| {
            planes.get(index).map_or(std::ptr::null(), |plane| plane.as_ptr())
        });
        Some(Self {
            data,
            stride: [stride; 3],
            width,
            height,
            orientation: Orientation::Upright,
            planes: planes.len(),
            apart: OnceLock::new(),
            memory: Memory::Own(planes),
            depth: 8,
            chroma_shift: (0, 0),
            chroma_cosited: (false, false),
            matrix: Matrix::Bt601,
            full_range: true,
            format,
        })
    }

    /// The same picture, shown like this.
    #[must_use]
    pub(super) fn oriented(mut self, orientation: Orientation) -> Self {
        self.orientation = orientation;
        self
    }

    /// How it is shown.
    pub(super) fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Width in pixels, as shown.
    pub fn width(&self) -> u32 {
        self.orientation.shown((self.width, self.height)).0
    }

    /// Height in pixels, as shown.
    pub fn height(&self) -> u32 {
        self.orientation.shown((self.width, self.height)).1
    }

    /// The place among the coded pixels of a place as shown.
    pub(super) fn coded(&self, place: (f64, f64)) -> (f64, f64) {
        coded_place(self.orientation, place, (self.width.into(), self.height.into()))
    }

    /// How luma and chroma make a colour.
    pub fn matrix(&self) -> Matrix {
        self.matrix
    }

    /// Samples of 8 bits span 0 to 255; otherwise luma spans 16 to 235 and chroma 16 to 240, deeper
    /// ones alike.
    pub fn full_range(&self) -> bool {
        self.full_range
    }

    /// The pixel format in libavutil's words.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Luma samples for each chroma sample along x and y, as powers of two.
    pub fn chroma_shift(&self) -> (u32, u32) {
        self.chroma_shift
    }

    /// How far chroma samples lie left of, and above, the middle of the luma samples they go with,
    /// in luma samples: video puts them on the leftmost one, JPEG in the middle. Zero along an axis
    /// that is not subsampled.
    pub fn chroma_offset(&self) -> (f64, f64) {
        let along = |cosited, shift: u32| {
            if cosited { f64::from((1_u32 << shift.min(31)) - 1) / 2.0 } else { 0.0 }
        };
        (
            along(self.chroma_cosited.0, self.chroma_shift.0),
            along(self.chroma_cosited.1, self.chroma_shift.1),
        )
    }

    /// As coded.
    pub fn luma(&self) -> Plane<'_> {
        self.plane(0)
    }

    /// Blue and red difference, as coded; none for a grey picture. Each is as large as luma shifted
    /// by [`Picture::chroma_shift`], rounded up.
    pub fn chroma(&self) -> Option<[Plane<'_>; 2]> {
        match self.planes {
            3 => Some([self.plane(1), self.plane(2)]),
            2 => {
                let paired = self.plane(1);
                let [blue, red] = self.apart.get_or_init(|| apart(&paired));
                let plane = |bytes| {
                    let width = paired.width / 2;
                    let stride = width as usize * paired.sample_bytes();
                    Plane { bytes, stride, width, ..paired }
                };
                Some([plane(blue), plane(red)])
            }
            _ => None,
        }
    }

    /// A plane as it lies in memory: paired samples are twice as many as wide.
    #[allow(unsafe_code)]
    fn plane(&self, index: usize) -> Plane<'_> {
        let shift = if index == 0 { (0, 0) } else { self.chroma_shift };
        let pairs = if self.planes == 2 && index == 1 { 2 } else { 1 };
        let (width, height) = (shifted(self.width, shift.0) * pairs, shifted(self.height, shift.1));
        let stride = self.stride.get(index).copied().unwrap_or(0);
        let data = self.data.get(index).copied().unwrap_or(std::ptr::null());
        let row = width as usize * if self.depth > 8 { 2 } else { 1 };
        let bytes = if data.is_null() || height == 0 || index >= self.planes {
            &[][..]
        } else {
            // SAFETY: the shim, or `of_planes`, has checked that each of the plane's rows holds
            // `row` bytes and that rows follow each other by `stride`, which is at least `row`. The
            // memory lives as long as `self`.
            unsafe { std::slice::from_raw_parts(data, stride * (height as usize - 1) + row) }
        };
        Plane { bytes, stride, width, height, depth: self.depth }
    }
}

/// The samples of a plane of pairs: the first ones, and the second ones.
fn apart(paired: &Plane<'_>) -> [Vec<u8>; 2] {
    let length = paired.row_bytes() / 2 * paired.height as usize;
    let mut parts = [Vec::with_capacity(length), Vec::with_capacity(length)];
    let [first, second] = &mut parts;
    for row in (0..paired.height).map(|y| paired.row(y)) {
        if paired.sample_bytes() == 1 {
            first.extend(row.as_chunks().0.iter().map(|[sample, _]| sample));
            second.extend(row.as_chunks().0.iter().map(|[_, sample]| sample));
        } else {
            first.extend(row.as_chunks().0.iter().flat_map(|[low, high, _, _]| [*low, *high]));
            second.extend(row.as_chunks().0.iter().flat_map(|[_, _, low, high]| [*low, *high]));
        }
    }
    parts
}

fn shifted(size: u32, shift: u32) -> u32 {
    size.div_ceil(1 << shift.min(31))
}

impl Drop for Picture {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        match &self.memory {
            // SAFETY: the frame is this picture's own, and no slice of it outlives the picture.
            Memory::Frame(frame) => unsafe { ocelli_free_frame(frame.as_ptr()) },
            Memory::Own(_) => {}
        }
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, orientation, format, matrix, full_range, .. } = self;
        write!(
            f,
            "Picture({width}x{height} {orientation:?} {format} {matrix:?}{})",
            if *full_range { " full" } else { "" }
        )
    }
}

#[cfg(test)]
impl Picture {
    /// A picture of a test's own samples, 8 bits deep, chroma left-sited. `sample` gets plane, x
    /// and y.
    pub(super) fn painted(
        (width, height): (u32, u32),
        chroma_shift: (u32, u32),
        matrix: Matrix,
        full_range: bool,
        sample: impl Fn(usize, u32, u32) -> u8,
    ) -> Self {
        // Padding with an odd colour: no code may read it.
        const PADDING: usize = 7;
        let mut stride = [0; 3];
        let planes: [Vec<u8>; 3] = std::array::from_fn(|plane| {
            let shift = if plane == 0 { (0, 0) } else { chroma_shift };
            let (width, height) = (shifted(width, shift.0), shifted(height, shift.1));
            stride[plane] = width as usize + PADDING;
            let row = |y| (0..width).map(move |x| (x, y));
            (0..height)
                .flat_map(|y| {
                    row(y)
                        .map(|(x, y)| sample(plane, x, y))
                        .chain([201; PADDING])
                        .collect::<Vec<_>>()
                })
                .collect()
        });
        let data = std::array::from_fn(|plane| planes[plane].as_ptr());
        Self {
            memory: Memory::Own(planes.into()),
            data,
            stride,
            width,
            height,
            orientation: Orientation::Upright,
            planes: 3,
            apart: OnceLock::new(),
            depth: 8,
            chroma_shift,
            chroma_cosited: (true, false),
            matrix,
            full_range,
            format: "painted",
        }
    }

    /// A decoded picture as a device gives it out, in the format with this name: luma, and paired
    /// chroma, as deep or deeper.
    #[allow(unsafe_code)]
    pub(super) fn paired(&self, format: &CStr) -> Self {
        unsafe extern "C" {
            fn ocelli_paired(
                planar: *const c_void,
                format: *const c_char,
                picture: *mut RawPicture,
            ) -> std::ffi::c_int;
        }
        let Memory::Frame(frame) = &self.memory else { panic!("only decoded pictures are paired") };
        let mut raw = RawPicture::empty();
        // SAFETY: the frame is this picture's own, the name ends with a zero, and `raw` is laid out
        // as it is written.
        let paired = unsafe { ocelli_paired(frame.as_ptr(), format.as_ptr(), &mut raw) };
        assert_eq!(paired, 1, "{format:?} of {self:?}");
        // SAFETY: it has just been written.
        unsafe { raw.into_picture() }.unwrap()
    }

    /// The same picture with `depth` bits, 9 to 12, for each sample.
    pub(super) fn deeper(mut self, depth: u32) -> Self {
        let Memory::Own(planes) = &mut self.memory else {
            unreachable!("a painted picture owns its planes")
        };
        for (index, plane) in planes.iter_mut().enumerate() {
            *plane = plane
                .iter()
                .flat_map(|&sample| (u16::from(sample) << (depth - 8)).to_le_bytes())
                .collect();
            self.data[index] = plane.as_ptr();
            self.stride[index] *= 2;
        }
        self.depth = depth;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_matrix_follows_the_height() {
        assert_eq!(Matrix::from_h273(2, 576), Matrix::Bt601);
        assert_eq!(Matrix::from_h273(2, 1080), Matrix::Bt709);
        assert_eq!(Matrix::from_h273(5, 1080), Matrix::Bt601);
        assert_eq!(Matrix::from_h273(1, 480), Matrix::Bt709);
        assert_eq!(Matrix::from_h273(9, 2160), Matrix::Bt2020);
    }

    #[test]
    fn planes_of_an_odd_size_are_rounded_up_and_end_before_the_padding() {
        let picture = Picture::painted((5, 3), (1, 1), Matrix::Bt601, false, |plane, x, y| {
            (plane as u8) * 100 + (y * 10 + x) as u8
        });
        assert_eq!(picture.luma().row(2), [20, 21, 22, 23, 24]);
        let [blue, red] = picture.chroma().unwrap();
        assert_eq!((blue.width(), blue.height()), (3, 2));
        assert_eq!(blue.row(1), [110, 111, 112]);
        assert_eq!(red.rows(0).count(), 2);
        assert!(red.rows(0).all(|row| row.len() == 3 && row[0] >= 200));
        assert!(red.row(2).is_empty());
    }
}
