//! `budget`: whether models may run for a frame.

use super::newest::budget as wit;
use super::nn::NnView;

impl wit::Host for NnView<'_> {
    fn ask(&mut self, want: f32) -> wasmtime::Result<bool> {
        Ok(self.may_run(want))
    }
}
