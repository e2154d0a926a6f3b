//! The engine of a worker: it runs what `ocelli-compile` compiled, and has no compiler.

use ocelli_protocol::engine::{BACKTRACE_DETAILS, EPOCH_INTERRUPTION, MAX_WASM_STACK};
use wasmtime::{Config, Engine, WasmBacktraceDetails};

/// An engine that takes what `ocelli-compile` makes.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(EPOCH_INTERRUPTION);
    config.max_wasm_stack(MAX_WASM_STACK);
    config.wasm_backtrace_details(match BACKTRACE_DETAILS {
        true => WasmBacktraceDetails::Enable,
        false => WasmBacktraceDetails::Disable,
    });
    Engine::new(&config)
}
