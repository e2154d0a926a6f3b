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
