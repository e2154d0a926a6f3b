//! Lines in the camera's log: what an operator wants to know, not every frame.

pub use crate::bindings::wasi::logging::logging::Level;

/// Writes one line; `context` names the part of the pipeline that writes it. Natively, in tests, it
/// goes to standard error.
pub fn log(level: Level, context: &str, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::wasi::logging::logging::log(level, context, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?} {context}: {message}");
}

/// Writes a line worth knowing.
pub fn info(context: &str, message: &str) {
    log(Level::Info, context, message);
}

/// Writes a line about something that an operator should look at.
pub fn warn(context: &str, message: &str) {
    log(Level::Warn, context, message);
}
