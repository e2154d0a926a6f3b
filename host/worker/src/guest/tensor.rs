//! Tensors that a component holds: ranges of the session's shared memory.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ocelli_protocol::inference::{Element, PlacedTensor, TensorDeclaration};

use crate::arena::Block;

/// A tensor in the session's shared memory.
#[derive(Debug, Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<u32>,
    /// Outputs of one run share a block.
    block: Arc<Block>,
    /// The tensor's bytes within its block.
    range: Range<usize>,
}

impl Tensor {
    /// A tensor at the beginning of a block.
    pub fn in_block(element: Element, shape: Vec<u32>, block: Block) -> Self {
        let length = element.bytes(&shape).unwrap_or(0).min(block.len());
        Self { element, shape, block: Arc::new(block), range: 0..length }
    }

    /// A tensor at `range` of the shared memory, which lies within `block`.
    pub(super) fn at(
        element: Element,
        shape: Vec<u32>,
        range: Range<usize>,
        block: &Arc<Block>,
    ) -> Self {
        let range = range.start - block.offset()..range.end - block.offset();
        Self { element, shape, block: Arc::clone(block), range }
    }

    /// The input of a run, under the name and element type that the model declares.
    pub(super) fn placed_as(&self, declared: &TensorDeclaration) -> PlacedTensor {
        let offset = (self.block.offset() + self.range.start) as u64;
        let TensorDeclaration { name, element, .. } = declared;
        PlacedTensor { name: name.clone(), element: *element, shape: self.shape.clone(), offset }
    }

    /// The block that holds the tensor.
    pub(super) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The type of its elements.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// The elements, little-endian, in row-major order.
    pub fn bytes(&self) -> &[u8] {
        self.block.bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// The bytes without a copy: they keep the block.
    pub(super) fn data(&self) -> Bytes {
        Bytes::from_owner(TensorBytes(self.clone()))
    }
}

struct TensorBytes(Tensor);

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}
