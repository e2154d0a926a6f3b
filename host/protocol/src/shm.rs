//! Memory that a worker and the inference process share: the tensors of one session.
//!
//! A memfd of fixed size, allocated when it is made and sealed against any change of size, so that
//! neither side can make the other fault by shrinking it or by running out of memory later. Both
//! sides check the seals before they map it.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// Tensors begin at multiples of this many bytes: a cache line, and what vector instructions like.
pub const ALIGNMENT: usize = 64;

/// Largest region that is accepted, in bytes.
pub const MAX_LENGTH: usize = 1 << 30;

/// Seals without which a region is refused.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

#[derive(Debug)]
pub struct SharedMemory {
    map: MmapRaw,
    file: OwnedFd,
}

impl SharedMemory {
    /// A new region of `length` bytes, all zero, all allocated.
    pub fn create(length: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(
            "ocelli-tensors",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        Self::map(file)
    }

    /// Maps a region that another process passed. Refused where it is not sealed, or larger than
    /// [`MAX_LENGTH`].
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SEALS) {
            return Err(io::Error::other(format!(
                "the shared memory lacks seals: it has {seals:?}"
            )));
        }
        let length = rustix::fs::fstat(&file)?.st_size;
        let length =
            usize::try_from(length).ok().filter(|length| (1..=MAX_LENGTH).contains(length));
        let length =
            length.ok_or_else(|| io::Error::other("the shared memory's size is out of bounds"))?;
        Ok(Self { map: MmapOptions::new().len(length).map_raw(&file)?, file })
    }

    /// Length of the region in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The descriptor, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The address of `range`. `None` if it does not lie in the region.
    pub fn address(&self, range: Range<usize>) -> Option<*mut u8> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        Some(self.map.as_mut_ptr().wrapping_add(range.start))
    }

    /// The bytes of `range`.
    ///
    /// # Safety
    ///
    /// Nobody may write to the range while the slice lives: within this process by ownership of the
    /// range, in the other process by the order of requests and answers.
    #[allow(unsafe_code)]
    pub unsafe fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        let length = range.len();
        let address = self.address(range)?;
        // SAFETY: the range lies in the mapping, which lives as long as `self`, cannot shrink, and
        // holds plain bytes; the caller keeps writers away.
        Some(unsafe { std::slice::from_raw_parts(address, length) })
    }

    /// The bytes of `range`, to write.
    ///
    /// # Safety
    ///
    /// As for [`Self::bytes`], and no one may read the range while the slice lives.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self, range: Range<usize>) -> Option<&mut [u8]> {
        let length = range.len();
        let address = self.address(range)?;
        // SAFETY: as in `bytes`; the caller keeps readers away too.
        Some(unsafe { std::slice::from_raw_parts_mut(address, length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let ours = SharedMemory::create(4096).unwrap();
        let theirs = SharedMemory::map(ours.fd().try_clone_to_owned().unwrap()).unwrap();
        // SAFETY: this test alone knows the region and drops the slice before it reads.
        #[allow(unsafe_code)]
        unsafe {
            ours.bytes_mut(64..68).unwrap().copy_from_slice(b"eyes");
            assert_eq!(theirs.bytes(64..68).unwrap(), b"eyes");
        }
    }

    #[test]
    fn a_range_outside_the_region_has_no_address() {
        let memory = SharedMemory::create(4096).unwrap();
        assert!(memory.address(0..4096).is_some());
        assert!(memory.address(1..4097).is_none());
        assert!(memory.address(usize::MAX..usize::MAX).is_none());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = memory.address(8..4);
        assert!(backwards.is_none());
    }

    #[test]
    fn a_region_that_could_shrink_is_refused() {
        let file =
            rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        let error = SharedMemory::map(file).unwrap_err();
        assert!(error.to_string().contains("seals"), "{error}");
    }

    #[test]
    fn a_sealed_region_cannot_be_resized() {
        let memory = SharedMemory::create(4096).unwrap();
        assert!(rustix::fs::ftruncate(memory.fd(), 0).is_err());
        assert!(rustix::fs::ftruncate(memory.fd(), 8192).is_err());
    }
}
