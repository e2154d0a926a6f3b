//! The one engine configuration that compiler and workers share: a component compiled under another is refused.

use wasmtime::{Config, Engine};

/// Stack that a component may use, in bytes: Wasmtime's own default, named here because an error tells it. Calls run on
/// stacks of 2 MiB, so the host's functions have the rest for themselves.
pub const MAX_STACK: usize = 512 << 10;

/// The configuration of every engine in Ocelli.
pub fn config() -> Config {
    let mut config = Config::new();
    // Calls into a component are bounded by the CPU time that they use; see `guest::deadline`.
    config.epoch_interruption(true);
    config.max_wasm_stack(MAX_STACK);
    config
}

/// An engine.
pub fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// Identifies what compiled code is compatible with: Wasmtime's version, the configuration and the CPU's features.
/// Part of the name under which compiled components are cached. 16 hexadecimal digits.
#[cfg(feature = "compile")]
pub fn compatibility(engine: &Engine) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
