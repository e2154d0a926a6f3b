//! The seam by which a program for tests sees each run before it begins, to misbehave as native
//! code could. The fault itself is in that program: the product's programs pass no hook.

use ocelli_protocol::shm::SharedMemory;

use crate::buffer::Buffer;
use crate::tensor::TensorPlace;

/// Called on the runner's thread right before ONNX Runtime is: the in-flight table says already
/// that the request is running, and its time limit counts. Once for each request of a batch.
///
/// The signature is `Option<fn(&RunInfo<'_>)>`; a program of its own passes it to
/// [`crate::process::main`].
pub type Hook = Option<fn(&RunInfo<'_>)>;

/// A request that is about to run.
pub struct RunInfo<'a> {
    /// The session's name, as the host announced it.
    pub session: &'a str,
    /// The number that the worker gave the request.
    pub request: u64,
    /// The name of the model in the catalog.
    pub model: &'a str,
    pub(crate) inputs: &'a [TensorPlace],
    pub(crate) memory: &'a SharedMemory,
}

impl RunInfo<'_> {
    /// A copy of an input's bytes, counted from 0 in the model's order, if there is one.
    pub fn input(&self, index: usize) -> Option<Vec<u8>> {
        let place = self.inputs.get(index)?;
        Some(Buffer::copied(self.memory, place.bytes.clone())?.bytes().to_vec())
    }
}
