//! A tensor as ONNX Runtime holds it, over memory of ours or its own.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use ocelli_protocol::inference::{Element, ErrorCode, MAX_RANK};
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort_sys::{ONNXTensorElementDataType as DataType, OrtValue};

use crate::error::RequestError;

/// An owned value of ONNX Runtime. Transparent: arrays of values are arrays of pointers.
#[repr(transparent)]
pub(crate) struct Value(NonNull<OrtValue>);

// SAFETY: a value is not bound to a thread, and it is used by its owner alone.
#[allow(unsafe_code)]
unsafe impl Send for Value {}

impl Value {
    /// A tensor over the bytes at an address.
    ///
    /// # Safety
    ///
    /// They are there, and writable where the tensor is an output, as long as the value lives.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn over(
        address: *mut u8,
        length: usize,
        element: Element,
        shape: &[u32],
    ) -> Result<Self, RequestError> {
        let info = MemoryInfo::default();
        let shape: Vec<i64> = shape.iter().copied().map(i64::from).collect();
        let mut value = ptr::null_mut();
        // SAFETY: the caller keeps the bytes; the call fails where they are fewer than the shape
        // needs. The shape is copied. The status is taken over.
        let made = unsafe {
            let status = (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                address.cast::<c_void>(),
                length,
                shape.as_ptr(),
                shape.len(),
                data_type(element),
                &mut value,
            );
            ort::Error::result_from_status(status)
        };
        made.map_err(|error| runtime_error(&error))?;
        let value = NonNull::new(value);
        Ok(Self(
            value
                .ok_or_else(|| RequestError::new(ErrorCode::RuntimeError, "no tensor was made"))?,
        ))
    }

    /// The tensor's shape. `None` for another element, or a shape that no message holds.
    #[allow(unsafe_code)]
    pub(crate) fn shape(&self, element: Element) -> ort::Result<Option<Vec<u32>>> {
        let mut is_tensor = 0;
        let mut found = DataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut sides, mut rank) = (ptr::null(), 0);
        // SAFETY: the value is alive; the second call is made for tensors alone. The statuses are
        // taken over.
        unsafe {
            ort::Error::result_from_status((ort::api().IsTensor)(self.0.as_ptr(), &mut is_tensor))?;
            if is_tensor == 0 {
                return Ok(None);
            }
            ort::Error::result_from_status(
                (ort::api().GetTensorElementTypeAndShapeDataReference)(
                    self.0.as_ptr(),
                    &mut found,
                    &mut sides,
                    &mut rank,
                ),
            )?;
        }
        if found != data_type(element) || rank > MAX_RANK {
            return Ok(None);
        }
        if rank == 0 {
            return Ok(Some(Vec::new()));
        }
        // SAFETY: `rank` numbers that belong to the value, which is alive and not changed
        // meanwhile.
        let sides = unsafe { std::slice::from_raw_parts(sides, rank) };
        Ok(sides.iter().map(|&side| u32::try_from(side).ok()).collect())
    }

    /// The tensor's bytes. `length` is the size of its element times its shape.
    #[allow(unsafe_code)]
    pub(crate) fn bytes(&self, length: usize) -> ort::Result<&[u8]> {
        let mut source = ptr::null_mut();
        // SAFETY: the value is a tensor and alive. The status is taken over.
        unsafe {
            let status = (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut source);
            ort::Error::result_from_status(status)?;
        }
        if length == 0 || source.is_null() {
            return Ok(&[]);
        }
        // SAFETY: so many bytes belong to the value, says the caller; nothing writes to them while
        // it is borrowed.
        Ok(unsafe { std::slice::from_raw_parts(source.cast::<u8>().cast_const(), length) })
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

/// An error of ONNX Runtime for the worker.
pub(crate) fn runtime_error(error: &ort::Error) -> RequestError {
    let code = match error.code() {
        ort::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
        ort::ErrorCode::NotImplemented => ErrorCode::UnsupportedOperation,
        _ => ErrorCode::RuntimeError,
    };
    RequestError::new(code, format!("ONNX Runtime: {error}"))
}
