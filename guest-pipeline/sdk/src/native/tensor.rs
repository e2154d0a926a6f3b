//! `wasi:nn/tensor`.

use std::fmt;
use std::rc::Rc;

pub use crate::bindings::records::wasi::nn::tensor::{TensorData, TensorDimensions, TensorType};

/// A tensor: dimensions, type, and bytes in row-major order, little endian.
#[derive(Clone)]
pub struct Tensor {
    dimensions: Vec<u32>,
    ty: TensorType,
    data: Rc<dyn Fn() -> Vec<u8>>,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tensor {:?} {:?}", self.ty, self.dimensions)
    }
}

impl Tensor {
    /// A tensor whose content is made when it is asked for: a scripted model seldom looks.
    pub(super) fn later(
        dimensions: &[u32],
        ty: TensorType,
        data: impl Fn() -> Vec<u8> + 'static,
    ) -> Self {
        Self { dimensions: dimensions.to_vec(), ty, data: Rc::new(data) }
    }

    /// A tensor of this content. As with the host, it is the caller's mistake if the data is of
    /// another size; a test learns it when the content is read.
    #[must_use]
    pub fn new(dimensions: &[u32], ty: TensorType, data: &[u8]) -> Self {
        let data = data.to_vec();
        Self::later(dimensions, ty, move || data.clone())
    }

    /// The size of each dimension.
    #[must_use]
    pub fn dimensions(&self) -> Vec<u32> {
        self.dimensions.clone()
    }

    /// The type of the elements.
    #[must_use]
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// The content.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        (self.data)()
    }

    #[doc(hidden)]
    #[must_use]
    pub fn handle(&self) -> u32 {
        unreachable!("{NO_HANDLE}")
    }

    #[doc(hidden)]
    #[must_use]
    pub fn take_handle(&self) -> u32 {
        unreachable!("{NO_HANDLE}")
    }

    #[doc(hidden)]
    #[must_use]
    #[allow(unsafe_code, reason = "generated code calls it so")]
    pub unsafe fn from_handle(_: u32) -> Self {
        unreachable!("{NO_HANDLE}")
    }
}

/// Natively there is no host that could have given a handle.
pub(super) const NO_HANDLE: &str = "resources have handles in a component alone";
