//! The private memory that the process may still allocate under its own limit.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Private memory that what is asked for on a component's or a picture's behalf leaves to the rest
/// of the process, in bytes: what a component hands over and returns, messages, the next pictures.
/// A Rust program that finds none ends itself without a word on the cause.
pub(crate) const RESERVED: usize = 16 << 20;

/// Whether the process could have so much more private memory now, by its own limit.
#[allow(unsafe_code)]
pub(crate) fn can_allocate(bytes: usize) -> bool {
    let (protection, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a new mapping, at an address of the kernel's choice, that nothing uses before it is
    // gone again.
    unsafe {
        let Ok(mapping) = mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) else {
            return false;
        };
        munmap(mapping, bytes).is_ok()
    }
}
