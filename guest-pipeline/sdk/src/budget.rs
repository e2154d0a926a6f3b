//! Whether a model may run for a frame: the host shares its time for models between its cameras, and
//! gives it to those that need it most.
//!
//! A pipeline that can go on without a run asks once a frame, and says how much its results no
//! longer describe:
//!
//! ```
//! use ocelli_sdk::{Basis, Frame, Output, budget};
//! # struct Eye { looked: u64 }
//! # impl Eye {
//! #     fn detect(&mut self, frame: &Frame) -> Result<Vec<ocelli_sdk::Detection>, String> {
//! #         self.looked = frame.presentation_time();
//! #         Ok(vec![])
//! #     }
//! #     fn predict(&mut self) -> Vec<ocelli_sdk::Detection> { vec![] }
//! #     fn uncertainty(&self) -> f32 { 0.5 }
//!
//! fn process(&mut self, frame: &Frame) -> Result<Output, String> {
//!     if budget::ask(self.uncertainty()) {
//!         return Ok(Output::found(self.detect(frame)?).resting_on(Basis::model()));
//!     }
//!     let age = frame.presentation_time() - self.looked;
//!     Ok(Output::found(self.predict()).resting_on(Basis::predicted(age)))
//! }
//! # }
//! ```

/// Asks whether models may run for this frame. `want`, 0 to 1: how much of the picture the results
/// no longer describe. `false`: go on without, and ask again at the next frame.
///
/// Natively the answers are those that `testing::budget_says` was given, and then yes.
#[must_use]
pub fn ask(want: f32) -> bool {
    #[cfg(target_family = "wasm")]
    return crate::bindings::ocelli::pipeline::budget::ask(want);
    #[cfg(not(target_family = "wasm"))]
    crate::native::budget::ask(want)
}
