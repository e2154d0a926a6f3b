//! Runs a model on tensors that lie in shared memory, without copying them: ONNX Runtime reads its
//! inputs and writes its outputs where the worker put them.
//!
//! A worker that writes to an input during a run changes numbers, not bounds. Inputs that may hold
//! indexes, which ONNX Runtime checks before use, are copied to private memory.
//!
//! This goes through the C interface, since `ort` has no safe call that does it.

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

/// A repeatable run: its tensors over the shared memory are made once.
pub(crate) struct RunPlan {
    inputs: Vec<Value>,
    /// Copies of the inputs that must not change during a run, by their number.
    copies: Vec<(usize, Buffer)>,
    /// One for each output. `None`: ONNX Runtime allocates it.
    outputs: Vec<Option<Value>>,
    /// Where the outputs lie after a run.
    places: Vec<TensorPlace>,
    /// How many of `places` are known before a run.
    fixed: usize,
    layout: Layout,
    names: TensorNames,
    /// The tensors' owner, last: dropped after the values that point into it.
    memory: Arc<SharedMemory>,
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

    /// Runs a model. `session` is one of this signature, and so many are the values; an output that
    /// is none is allocated by ONNX Runtime.
    #[allow(unsafe_code)]
    pub(crate) fn run(
        &self,
        session: &mut Session,
        options: Option<&RunOptions>,
        inputs: &[Value],
        outputs: &mut [Option<Value>],
    ) -> Result<(), RequestError> {
        if (inputs.len(), outputs.len()) != (self.inputs.len(), self.outputs.len()) {
            return Err(RequestError::argument(
                "the model has another number of inputs and outputs",
            ));
        }
        // SAFETY: names and values are as many as said and live through the call. An
        // `Option<Value>` has the layout of a nullable pointer: null lets ONNX Runtime allocate,
        // and what it puts there is ours to release. `&mut` keeps other runs off this session. The
        // memory behind the values is there as long as they are; that a worker may write to it
        // meanwhile changes numbers, not bounds.
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
        done.map_err(|error| runtime_error(&error))
    }
}

impl RunPlan {
    /// A plan over `layout`, whose places have been checked against the memory and the signature.
    #[allow(unsafe_code)]
    pub(crate) fn new(
        memory: Arc<SharedMemory>,
        signature: Arc<Signature>,
        layout: Layout,
    ) -> Result<Self, RequestError> {
        let mut copies = Vec::new();
        let mut inputs = Vec::with_capacity(signature.inputs.len());
        for (index, (input, place)) in signature.inputs.iter().zip(&layout.inputs).enumerate() {
            let element = input.declaration.element;
            inputs.push(if may_be_index(element) {
                let mut buffer = Buffer::zeroed(place.bytes.len());
                // SAFETY: the buffer is as long as the place, and the plan keeps it in `copies`;
                // its address stays.
                let value = unsafe {
                    Value::over(buffer.address(), place.bytes.len(), element, &place.shape)
                };
                copies.push((index, buffer));
                value?
            } else {
                over(&memory, element, place)?
            });
        }
        let outputs = signature.outputs.iter().zip(&layout.outputs);
        let outputs = outputs
            .map(|(output, place)| over(&memory, output.declaration.element, place).map(Some));
        let mut outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
        outputs.resize_with(signature.outputs.len(), || None);
        let (places, fixed) = (layout.outputs.clone(), layout.outputs.len());
        Ok(Self {
            inputs,
            copies,
            outputs,
            places,
            fixed,
            layout,
            names: TensorNames::new(signature),
            memory,
        })
    }

    /// Whether this plan is for that layout of that model.
    pub(crate) fn is_for(&self, signature: &Arc<Signature>, layout: &Layout) -> bool {
        Arc::ptr_eq(&self.names.signature, signature) && self.layout == *layout
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Copies and checks the inputs that must not change during a run. Before, they are zeros.
    pub(crate) fn take_inputs(&mut self) -> Result<(), RequestError> {
        for (index, buffer) in &mut self.copies {
            let input = self.names.signature.inputs.get(*index);
            let place = self.layout.inputs.get(*index);
            if let (Some(input), Some(place)) = (input, place) {
                buffer.copy_from(0, &self.memory, place.bytes.clone());
                check_input(&input.declaration, buffer.bytes())?;
            }
        }
        Ok(())
    }

    /// Runs the model into the shared memory. `session` is one of the plan's model.
    pub(crate) fn execute(
        &mut self,
        session: &mut Session,
        options: Option<&RunOptions>,
    ) -> Result<(), RequestError> {
        self.places.truncate(self.fixed);
        self.outputs.iter_mut().skip(self.fixed).for_each(|output| *output = None);
        self.names.run(session, options, &self.inputs, &mut self.outputs)?;
        self.place_allocated()
    }

    /// Checks the outputs of a run for NaN and infinity.
    #[allow(unsafe_code)]
    pub(crate) fn check_outputs(&self) -> Result<(), RequestError> {
        for (output, place) in self.names.signature.outputs.iter().zip(&self.places) {
            // SAFETY: the bytes are in the mapping. A worker that writes to them now, against the
            // protocol, changes what is found in its own output, nothing else: each number is read
            // and compared, never used as an index.
            if let Some(bytes) = unsafe { self.memory.bytes(place.bytes.clone()) } {
                check_output(&output.declaration, bytes)?;
            }
        }
        Ok(())
    }

    /// Where the outputs lie, in the model's order.
    pub(crate) fn results(&self) -> Vec<PlacedTensor> {
        let outputs = self.names.signature.outputs.iter().zip(&self.places);
        outputs.map(|(output, place)| placed(&output.declaration, place)).collect()
    }

    /// Copies the outputs that ONNX Runtime allocated to their places, one after the other.
    fn place_allocated(&mut self) -> Result<(), RequestError> {
        let outputs = self.names.signature.outputs.iter().zip(&mut self.outputs);
        for (output, value) in outputs.skip(self.fixed) {
            let (shape, bytes) = allocated(&output.declaration, value.as_ref())?;
            let from = self.places.last().map(|place| place.bytes.end);
            let place = place_output(&output.declaration, &self.layout, from, shape)?;
            write(&self.memory, &place, bytes);
            self.places.push(place);
            *value = None;
        }
        Ok(())
    }
}

/// Whether a tensor may hold indexes or conditions, which ONNX Runtime checks before use.
fn may_be_index(element: Element) -> bool {
    match element {
        Element::Bool | Element::I32 | Element::I64 => true,
        Element::F16 | Element::F32 | Element::F64 | Element::Bf16 | Element::U8 | Element::I8 => {
            false
        }
    }
}

/// A tensor over a place in shared memory, which must outlive it.
#[allow(unsafe_code)]
fn over(
    memory: &SharedMemory,
    element: Element,
    place: &TensorPlace,
) -> Result<Value, RequestError> {
    let address = memory
        .address(place.bytes.clone())
        .ok_or_else(|| RequestError::argument("a tensor lies outside the shared memory"))?;
    // SAFETY: the place lies in the mapping, which the caller keeps.
    unsafe { Value::over(address, place.bytes.len(), element, &place.shape) }
}

/// Checks what a worker gave, in memory that it cannot write to: a truth value is 0 or 1, since
/// code that is compiled for truth values may do anything with others.
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
