//! Runs a model on tensors that lie in shared memory, without copying them: ONNX Runtime reads its inputs and writes
//! its outputs where the worker put them.
//!
//! This goes through the C interface, since `ort` has no safe call that does it. All unsafe code around runs is here.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ocelli_protocol::inference::{Element, ErrorCode, MAX_RANK, PlacedTensor};
use ocelli_protocol::shm::SharedMemory;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session};
use ort_sys::{ONNXTensorElementDataType as DataType, OrtValue};

use crate::error::RequestError;
use crate::model::Signature;
use crate::request::{Layout, Place, no_room, place_in};

/// A run that can be repeated: the tensors over the shared memory are made once, and a run allocates none.
pub(crate) struct Plan {
    input_names: Vec<*const c_char>,
    inputs: Vec<Value>,
    output_names: Vec<*const c_char>,
    /// One for each output; none where ONNX Runtime is to allocate it.
    outputs: Vec<Option<Value>>,
    /// Where the outputs lie after a run.
    places: Vec<Place>,
    /// How many of `places` are known before a run.
    fixed: usize,
    layout: Layout,
    /// The names' owner.
    signature: Arc<Signature>,
    /// The tensors' owner, last: dropped after the values that point into it.
    memory: Arc<SharedMemory>,
}

// SAFETY: the pointers to names point into `signature`, which is immutable, shared by all threads, and lives as long
// as the plan. The values are owned (see `Value`).
#[allow(unsafe_code)]
unsafe impl Send for Plan {}

impl Plan {
    /// A plan over `layout`, whose places have been checked against the memory and the signature.
    pub(crate) fn new(
        memory: Arc<SharedMemory>,
        signature: Arc<Signature>,
        layout: Layout,
    ) -> Result<Self, RequestError> {
        let info = MemoryInfo::default();
        let value = |element, place: &Place| Value::over(&info, &memory, element, place);
        let inputs = signature.inputs.iter().zip(&layout.inputs);
        let inputs = inputs.map(|(input, place)| value(input.declaration.element, place));
        let inputs: Vec<_> = inputs.collect::<Result<_, _>>()?;
        let outputs = signature.outputs.iter().zip(&layout.outputs);
        let outputs = outputs.map(|(output, place)| value(output.declaration.element, place).map(Some));
        let mut outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
        outputs.resize_with(signature.outputs.len(), || None);
        Ok(Self {
            input_names: signature.inputs.iter().map(|input| input.name.as_ptr()).collect(),
            inputs,
            output_names: signature.outputs.iter().map(|output| output.name.as_ptr()).collect(),
            outputs,
            places: layout.outputs.clone(),
            fixed: layout.outputs.len(),
            layout,
            signature,
            memory,
        })
    }

    /// Whether this plan is for that layout of that model.
    pub(crate) fn is_for(&self, signature: &Arc<Signature>, layout: &Layout) -> bool {
        Arc::ptr_eq(&self.signature, signature) && self.layout == *layout
    }

    /// Runs the model. Afterwards the outputs lie in the shared memory. `session` is one of the plan's model.
    #[allow(unsafe_code)]
    pub(crate) fn execute(
        &mut self,
        session: &mut Session,
        options: Option<&RunOptions>,
    ) -> Result<(), RequestError> {
        self.places.truncate(self.fixed);
        self.outputs.iter_mut().skip(self.fixed).for_each(|output| *output = None);
        // SAFETY: names and values are as many as said and live through the call. An `Option<Value>` has the layout of
        // a nullable pointer: null lets ONNX Runtime allocate, and what it puts there is ours to release. `&mut` keeps
        // other runs off this session. The memory behind the values is mapped as long as `self.memory` lives; that a
        // worker may write to it meanwhile changes numbers, not bounds.
        let done = unsafe {
            let status = (ort::api().Run)(
                session.ptr_mut(),
                options.map_or(ptr::null(), AsPointer::ptr),
                self.input_names.as_ptr(),
                self.inputs.as_ptr().cast::<*const OrtValue>(),
                self.inputs.len(),
                self.output_names.as_ptr(),
                self.output_names.len(),
                self.outputs.as_mut_ptr().cast::<*mut OrtValue>(),
            );
            ort::Error::result_from_status(status)
        };
        done.map_err(|error| runtime_error(&error))?;
        self.place_allocated()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where the outputs lie, in the model's order.
    pub(crate) fn results(&self) -> Vec<PlacedTensor> {
        let outputs = self.signature.outputs.iter().zip(&self.places);
        let placed = outputs.map(|(output, place)| PlacedTensor {
            name: output.declaration.name.clone(),
            element: output.declaration.element,
            shape: place.shape.clone(),
            offset: place.bytes.start as u64,
        });
        placed.collect()
    }

    /// Copies the outputs that ONNX Runtime allocated to their places, one after the other.
    fn place_allocated(&mut self) -> Result<(), RequestError> {
        let room = &self.layout.room;
        let outputs = self.signature.outputs.iter().zip(&mut self.outputs);
        for (output, value) in outputs.skip(self.fixed) {
            let declaration = &output.declaration;
            let Some(value) = value.take() else {
                let message = format!("the run brought no output \"{}\"", declaration.name);
                return Err(RequestError::new(ErrorCode::RuntimeError, message));
            };
            let shape = value.shape(declaration.element).map_err(|error| runtime_error(&error))?;
            let shape = shape.filter(|shape| declaration.admits(shape)).ok_or_else(|| {
                let message =
                    format!("the output \"{}\" has another shape or type than declared", declaration.name);
                RequestError::new(ErrorCode::RuntimeError, message)
            })?;
            let from = self.places.last().map_or(room.start, |place| place.bytes.end);
            let bytes = declaration.element.bytes(&shape);
            let place = place_in(room, from, shape, bytes).ok_or_else(|| no_room(&declaration.name, room))?;
            value.copy_to(&self.memory, &place).map_err(|error| runtime_error(&error))?;
            self.places.push(place);
        }
        Ok(())
    }
}

/// An owned value of ONNX Runtime. Transparent: arrays of values are arrays of pointers.
#[repr(transparent)]
struct Value(NonNull<OrtValue>);

// SAFETY: a value is not bound to a thread, and it is used by its owner alone.
#[allow(unsafe_code)]
unsafe impl Send for Value {}

impl Value {
    /// A tensor over a place in shared memory. The memory must outlive it.
    #[allow(unsafe_code)]
    fn over(
        info: &MemoryInfo<'_>,
        memory: &SharedMemory,
        element: Element,
        place: &Place,
    ) -> Result<Self, RequestError> {
        let address = memory
            .address(place.bytes.clone())
            .ok_or_else(|| RequestError::argument("a tensor lies outside the shared memory"))?;
        let shape: Vec<i64> = place.shape.iter().copied().map(i64::from).collect();
        let mut value = ptr::null_mut();
        // SAFETY: the place lies in the mapping, which `Plan` keeps; the call fails where the bytes are fewer than the
        // shape needs. The shape is copied. The status is taken over.
        let made = unsafe {
            let status = (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                address.cast::<c_void>(),
                place.bytes.len(),
                shape.as_ptr(),
                shape.len(),
                data_type(element),
                &mut value,
            );
            ort::Error::result_from_status(status)
        };
        made.map_err(|error| runtime_error(&error))?;
        let value = NonNull::new(value);
        Ok(Self(value.ok_or_else(|| RequestError::new(ErrorCode::RuntimeError, "no tensor was made"))?))
    }

    /// The tensor's shape, where it is a tensor of this element and its shape can be told to a worker.
    #[allow(unsafe_code)]
    fn shape(&self, element: Element) -> ort::Result<Option<Vec<u32>>> {
        let mut is_tensor = 0;
        let mut found = DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut sides, mut rank) = (ptr::null(), 0);
        // SAFETY: the value is alive; the second call is made for tensors alone. The statuses are taken over.
        unsafe {
            ort::Error::result_from_status((ort::api().IsTensor)(self.0.as_ptr(), &mut is_tensor))?;
            if is_tensor == 0 {
                return Ok(None);
            }
            ort::Error::result_from_status((ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.0.as_ptr(),
                &mut found,
                &mut sides,
                &mut rank,
            ))?;
        }
        if found != data_type(element) || rank > MAX_RANK {
            return Ok(None);
        }
        if rank == 0 {
            return Ok(Some(Vec::new()));
        }
        // SAFETY: `rank` numbers that belong to the value, which is alive and not changed meanwhile.
        let sides = unsafe { std::slice::from_raw_parts(sides, rank) };
        Ok(sides.iter().map(|&side| u32::try_from(side).ok()).collect())
    }

    /// Copies the tensor's bytes, which are as many as the place holds.
    #[allow(unsafe_code)]
    fn copy_to(&self, memory: &SharedMemory, place: &Place) -> ort::Result<()> {
        let Some(target) = memory.address(place.bytes.clone()).filter(|_| !place.bytes.is_empty()) else {
            return Ok(());
        };
        let mut source = ptr::null_mut();
        // SAFETY: the value is a tensor and alive; the place was made from its element and shape, so both sides have
        // `place.bytes.len()` bytes; ONNX Runtime's memory and ours do not overlap.
        unsafe {
            let status = (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut source);
            ort::Error::result_from_status(status)?;
            ptr::copy_nonoverlapping(source.cast::<u8>().cast_const(), target, place.bytes.len());
        }
        Ok(())
    }
}

impl Drop for Value {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: owned, and released once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

fn data_type(element: Element) -> DataType {
    match element {
        Element::F16 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Element::F32 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Element::F64 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Element::Bf16 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Element::U8 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Element::I8 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Element::Bool => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Element::I32 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Element::I64 => DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    }
}

fn runtime_error(error: &ort::Error) -> RequestError {
    let code = match error.code() {
        ort::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
        ort::ErrorCode::NotImplemented => ErrorCode::UnsupportedOperation,
        _ => ErrorCode::RuntimeError,
    };
    RequestError::new(code, format!("ONNX Runtime: {error}"))
}
