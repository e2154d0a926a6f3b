//! Runs a model on copies: inputs are copied from the memory that a worker shares before they are
//! checked, and outputs are copied there after the run.
//!
//! ONNX Runtime reads a tensor more than once. It checks an index and then uses it, plans by a
//! shape's content and then writes, and reads an output that other nodes of the graph take as
//! theirs. A worker may write to its memory at any time, so one that changes a number between two
//! such reads would choose where this process reads and writes. Any tensor may become an index:
//! `Cast` makes one of a float. So ONNX Runtime sees no byte that a worker can reach, whatever a
//! model is made of. Each byte of an input is read once, each of an output is written once.
//!
//! The copies of `nanodet-g-320-int8`, 1.2 MB in and 1.0 MB out, take 0.3 ms of a run's 9.8 ms.
//!
//! This goes through the C interface, since `ort` has no safe call that takes tensors over memory
//! of one's own.

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;

use ocelli_protocol::inference::{Element, ErrorCode, PlacedTensor, TensorDeclaration};
use ocelli_protocol::shm::SharedMemory;
use ort::AsPointer;
use ort::session::{RunOptions, Session};
use ort_sys::OrtValue;

use crate::buffer::Buffer;
use crate::error::RequestError;
use crate::finite::first_not_finite;
use crate::request::{Layout, output_too_large, place_in};
use crate::tensor::{Signature, Tensor, TensorPlace};
use crate::value::{Value, runtime_error};

/// Most bytes of inputs that are kept for the next run: a picture of 1080 x 1080 floats, and twice
/// what all tensors of a session take by default. A larger run allocates its own, so that the
/// memory for one large request of a worker is not taken for good.
const MAX_KEPT: usize = 16 << 20;

/// The tensors of runs with inputs of the same shapes, in memory of this process alone.
pub(crate) struct RunTensors {
    shapes: Vec<Vec<u32>>,
    /// Dropped before the buffers that they point into.
    inputs: Vec<Value>,
    buffers: Vec<Buffer>,
    names: TensorNames,
}

/// The names of a model's inputs and outputs as the C interface takes them.
pub(crate) struct TensorNames {
    inputs: Vec<*const c_char>,
    outputs: Vec<*const c_char>,
    /// Owns the names that the pointers refer to.
    signature: Arc<Signature>,
}

// SAFETY: the pointers point into `signature`, which is immutable, shared by all threads, and lives
// as long as they do.
#[allow(unsafe_code)]
unsafe impl Send for TensorNames {}

impl TensorNames {
    pub(crate) fn new(signature: Arc<Signature>) -> Self {
        let pointers =
            |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.name.as_ptr()).collect();
        Self {
            inputs: pointers(&signature.inputs),
            outputs: pointers(&signature.outputs),
            signature,
        }
    }

    /// Runs a model. `session` is one of this signature, and so many are the inputs. Gives the
    /// outputs, which ONNX Runtime has allocated: an element for each.
    #[allow(unsafe_code)]
    pub(crate) fn run(
        &self,
        session: &mut Session,
        options: Option<&RunOptions>,
        inputs: &[Value],
    ) -> Result<Vec<Option<Value>>, RequestError> {
        if inputs.len() != self.inputs.len() {
            return Err(RequestError::argument("the model has another number of inputs"));
        }
        let mut outputs = Vec::new();
        outputs.resize_with(self.outputs.len(), || None);
        // SAFETY: names and values are as many as said and live through the call. An
        // `Option<Value>` has the layout of a nullable pointer: null lets ONNX Runtime allocate,
        // and what it puts there is ours to release. `&mut` keeps other runs off this session. The
        // memory behind the values is there as long as they are, and no other process has it.
        let done = unsafe {
            let status = (ort::api().Run)(
                session.ptr_mut(),
                options.map_or(ptr::null(), AsPointer::ptr),
                self.inputs.as_ptr(),
                inputs.as_ptr().cast::<*const OrtValue>(),
                inputs.len(),
                self.outputs.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr().cast::<*mut OrtValue>(),
            );
            ort::Error::result_from_status(status)
        };
        done.map_err(|error| runtime_error(&error))?;
        Ok(outputs)
    }
}

impl RunTensors {
    /// Inputs of these shapes, all zero. Each shape is one that the signature admits.
    #[allow(unsafe_code)]
    pub(crate) fn zeroed(
        signature: &Arc<Signature>,
        shapes: Vec<Vec<u32>>,
    ) -> Result<Self, RequestError> {
        let mut inputs = Vec::with_capacity(shapes.len());
        let mut buffers = Vec::with_capacity(shapes.len());
        for (input, shape) in signature.inputs.iter().zip(&shapes) {
            let element = input.declaration.element;
            let length = element.bytes(shape).unwrap_or(usize::MAX);
            let mut buffer = Buffer::zeroed(length)?;
            // SAFETY: the buffer is as long, and is dropped after the value; its address stays.
            inputs.push(unsafe { Value::over(buffer.address(), length, element, shape)? });
            buffers.push(buffer);
        }
        let names = TensorNames::new(Arc::clone(signature));
        Ok(Self { shapes, inputs, buffers, names })
    }

    /// Whether they are for runs of this layout.
    pub(crate) fn are_for(&self, layout: &Layout) -> bool {
        self.shapes.iter().eq(layout.inputs.iter().map(|place| &place.shape))
    }

    /// Whether they are small enough to be kept for the next run.
    pub(crate) fn may_stay(&self) -> bool {
        self.buffers.iter().map(|buffer| buffer.bytes().len()).sum::<usize>() <= MAX_KEPT
    }

    /// Copies the inputs of a layout that they are for, and checks the copies.
    pub(crate) fn take_inputs(
        &mut self,
        memory: &SharedMemory,
        layout: &Layout,
    ) -> Result<(), RequestError> {
        let inputs = self.names.signature.inputs.iter().zip(&layout.inputs);
        for ((input, place), buffer) in inputs.zip(&mut self.buffers) {
            if !buffer.copy_from(0, memory, place.bytes.clone()) {
                return Err(RequestError::argument("a tensor lies outside the shared memory"));
            }
            check_input(&input.declaration, buffer.bytes())?;
        }
        Ok(())
    }

    /// Runs the model. `session` is one of the signature's model. Gives the outputs, which ONNX
    /// Runtime has allocated.
    pub(crate) fn execute(
        &self,
        session: &mut Session,
        options: Option<&RunOptions>,
    ) -> Result<Vec<Option<Value>>, RequestError> {
        self.names.run(session, options, &self.inputs)
    }

    /// Checks the outputs of a run and copies them to their places, one after the other. Gives
    /// where they lie, in the model's order.
    pub(crate) fn give_outputs(
        &self,
        outputs: Vec<Option<Value>>,
        memory: &SharedMemory,
        layout: &Layout,
    ) -> Result<Vec<PlacedTensor>, RequestError> {
        let mut results = Vec::with_capacity(outputs.len());
        let mut end = None;
        for (output, value) in self.names.signature.outputs.iter().zip(outputs) {
            let (shape, bytes) = allocated(&output.declaration, value.as_ref())?;
            check_output(&output.declaration, bytes)?;
            let place = place_output(&output.declaration, layout, end, shape)?;
            write(memory, &place, bytes);
            end = Some(place.bytes.end);
            results.push(placed(&output.declaration, &place));
        }
        Ok(results)
    }
}

/// Checks the copy of what a worker gave: a truth value is 0 or 1, since code that is compiled for
/// truth values may do anything with others.
pub(crate) fn check_input(
    declaration: &TensorDeclaration,
    bytes: &[u8],
) -> Result<(), RequestError> {
    if declaration.element != Element::Bool {
        return Ok(());
    }
    match bytes.iter().enumerate().find(|(_, byte)| **byte > 1) {
        Some((index, byte)) => Err(RequestError::argument(format!(
            "the input \"{}\" holds {byte} at element {index}, which is no truth value: 0 or 1",
            declaration.name
        ))),
        None => Ok(()),
    }
}

/// Checks an output of a model for NaN and infinity.
pub(crate) fn check_output(
    declaration: &TensorDeclaration,
    bytes: &[u8],
) -> Result<(), RequestError> {
    match first_not_finite(declaration.element, bytes) {
        Some((index, what)) => {
            let message =
                format!("the output \"{}\" holds {what} at element {index}", declaration.name);
            Err(RequestError::new(ErrorCode::RuntimeError, message))
        }
        None => Ok(()),
    }
}

/// The shape and the bytes of an output that ONNX Runtime allocated.
pub(crate) fn allocated<'a>(
    declaration: &TensorDeclaration,
    value: Option<&'a Value>,
) -> Result<(Vec<u32>, &'a [u8]), RequestError> {
    let Some(value) = value else {
        let message = format!("the run brought no output \"{}\"", declaration.name);
        return Err(RequestError::new(ErrorCode::RuntimeError, message));
    };
    let shape = value.shape(declaration.element).map_err(|error| runtime_error(&error))?;
    let shape = shape.filter(|shape| declaration.admits(shape)).ok_or_else(|| {
        let message =
            format!("the output \"{}\" has another shape or type than declared", declaration.name);
        RequestError::new(ErrorCode::RuntimeError, message)
    })?;
    let length = declaration.element.bytes(&shape).unwrap_or(0);
    Ok((shape, value.bytes(length).map_err(|error| runtime_error(&error))?))
}

/// The place of an output of this shape, after the one that ends at `from`.
pub(crate) fn place_output(
    declaration: &TensorDeclaration,
    layout: &Layout,
    from: Option<usize>,
    shape: Vec<u32>,
) -> Result<TensorPlace, RequestError> {
    let bytes = declaration.element.bytes(&shape);
    let from = from.unwrap_or(layout.output_region.start);
    place_in(&layout.output_region, from, shape, bytes)
        .ok_or_else(|| output_too_large(&declaration.name, &layout.output_region))
}

/// The description of an output for the worker.
pub(crate) fn placed(declaration: &TensorDeclaration, place: &TensorPlace) -> PlacedTensor {
    PlacedTensor {
        name: declaration.name.clone(),
        element: declaration.element,
        shape: place.shape.clone(),
        offset: place.bytes.start as u64,
    }
}

/// Writes an output to its place, which is as long.
#[allow(unsafe_code)]
pub(crate) fn write(memory: &SharedMemory, place: &TensorPlace, bytes: &[u8]) {
    let Some(target) =
        memory.address(place.bytes.clone()).filter(|_| bytes.len() == place.bytes.len())
    else {
        return;
    };
    // SAFETY: the place lies in the mapping and is as long as the bytes, which lie elsewhere.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
}
