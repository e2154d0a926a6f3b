//! Private memory for what ONNX Runtime reads.

use std::ops::Range;
use std::ptr::{self, NonNull};

use ocelli_protocol::inference::ErrorCode;
use ocelli_protocol::shm::{ALIGNMENT, SharedMemory};

use crate::error::RequestError;

/// Bytes at an address that is a multiple of [`ALIGNMENT`]. The address is stable: moving the
/// buffer does not change it.
pub(crate) struct Buffer {
    /// Owned. Not a `Box`, which asserts that no other pointer exists.
    lines: NonNull<[Line]>,
    length: usize,
}

// SAFETY: plain bytes that one owner has.
#[allow(unsafe_code)]
unsafe impl Send for Buffer {}

#[derive(Clone)]
#[repr(align(64))]
#[expect(dead_code, reason = "its bytes are read by their address")]
struct Line([u8; ALIGNMENT]);

const _: () = assert!(align_of::<Line>() == ALIGNMENT && size_of::<Line>() == ALIGNMENT);

impl Buffer {
    /// So many bytes, all zero. An error where the process may not have them: a request's size is
    /// a worker's choice, and must not end the process.
    pub(crate) fn zeroed(length: usize) -> Result<Self, RequestError> {
        let count = length.div_ceil(ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| {
            let message = format!("there is no memory for {length} bytes of tensors");
            RequestError::new(ErrorCode::TooLarge, message)
        })?;
        lines.resize(count, Line([0; ALIGNMENT]));
        let lines: Box<[Line]> = lines.into();
        Ok(Self { lines: NonNull::from(Box::leak(lines)), length })
    }

    /// Copies a range of shared memory. `None` if the range exceeds it, or the process's memory.
    pub(crate) fn copied(memory: &SharedMemory, range: Range<usize>) -> Option<Self> {
        let mut buffer = Self::zeroed(range.len()).ok()?;
        buffer.copy_from(0, memory, range).then_some(buffer)
    }

    /// Copies a range of shared memory to `offset`. False where either does not hold it.
    #[allow(unsafe_code)]
    pub(crate) fn copy_from(
        &mut self,
        offset: usize,
        memory: &SharedMemory,
        range: Range<usize>,
    ) -> bool {
        let length = range.len();
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        let Some(source) = memory.address(range).filter(|_| fits) else { return false };
        // SAFETY: `length` bytes lie in the mapping at `source`, and in the buffer at `offset`; the
        // two never overlap. A worker that writes meanwhile changes what is copied, nothing else:
        // the bytes are not looked at here.
        unsafe {
            ptr::copy_nonoverlapping(
                source.cast_const(),
                self.address().wrapping_add(offset),
                length,
            )
        };
        true
    }

    #[allow(unsafe_code)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: a line is plain bytes without padding, and the lines hold at least `length` of
        // them.
        unsafe {
            std::slice::from_raw_parts(self.lines.as_ptr().cast::<u8>().cast_const(), self.length)
        }
    }

    /// Where the bytes begin.
    pub(crate) fn address(&mut self) -> *mut u8 {
        self.lines.as_ptr().cast()
    }
}

impl Drop for Buffer {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: leaked in `zeroed`, and taken back once.
        drop(unsafe { Box::from_raw(self.lines.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_copied_where_both_sides_hold_it() {
        let memory = SharedMemory::create(4096).unwrap();
        // SAFETY: this test alone knows the region, and the slice ends here.
        #[allow(unsafe_code)]
        unsafe { memory.bytes_mut(100..104) }.unwrap().copy_from_slice(b"eyes");
        let mut buffer = Buffer::copied(&memory, 100..104).unwrap();
        assert_eq!(buffer.bytes(), b"eyes");
        assert_eq!(buffer.address().addr() % ALIGNMENT, 0);
        assert!(buffer.copy_from(1, &memory, 100..103));
        assert_eq!(buffer.bytes(), b"eeye");
        assert!(!buffer.copy_from(2, &memory, 100..103));
        assert!(!buffer.copy_from(0, &memory, 4095..4097));
        assert!(Buffer::copied(&memory, 4095..4097).is_none());
    }
}
