//! The engine of a worker: it runs what `ocelli-compile` compiled, and has no compiler.

use ocelli_protocol::engine::{EPOCH_INTERRUPTION, MAX_WASM_STACK};
use wasmtime::{Config, Engine};

/// An engine that takes what `ocelli-compile` makes.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(EPOCH_INTERRUPTION);
    config.max_wasm_stack(MAX_WASM_STACK);
    Engine::new(&config)
}
