//! What breaks without meaning harm.

/// What the pipeline says that fails on each frame.
pub(crate) const ERROR: &str = "this pipeline has an error for every frame";

/// A bug with a message.
#[allow(clippy::panic, reason = "it is what the test is about")]
pub(crate) fn panic(frame: u64) {
    panic!("a bug of the author's on frame {frame}");
}

/// A bug without one.
pub(crate) fn trap() {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    std::process::abort();
}
