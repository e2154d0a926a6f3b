//! What the compiler and the workers have to set alike in Wasmtime: a component compiled under
//! another configuration is refused when it is loaded. Whatever is not here is Wasmtime's default
//! on both sides.

/// Calls into a component are bounded by the CPU time that they use, which takes interruption
/// points in its code.
pub const EPOCH_INTERRUPTION: bool = true;

/// Stack that a component may use, in bytes: Wasmtime's own default, named here because an error
/// tells it. Calls run on stacks of 2 MiB, so the worker's own functions have the rest for
/// themselves.
pub const MAX_WASM_STACK: usize = 512 << 10;

/// A component's debug information, where it has some, is kept beside its code, so that a backtrace
/// has files and lines. It lies in a part of the compiled file that is read after a trap alone: a
/// component without it costs nothing more, one with it no memory while it runs.
pub const BACKTRACE_DETAILS: bool = true;
