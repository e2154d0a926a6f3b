//! `wasi:nn` over the inference process. Tensors lie in shared memory from the start, so a compute copies nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{
    Element, ErrorCode, MAX_RANK, MAX_TENSORS, PlacedTensor, TensorDeclaration,
};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::shm::ALIGNMENT;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use super::bindings::wasi::nn::{errors, graph, inference, tensor};
use super::state::State;
use crate::arena::Block;
use crate::host_link::cut;
use crate::inference::{InferenceError, Signature};

/// The name under which `tensor` is imported.
const TENSOR_INTERFACE: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";

type Fallible<T> = wasmtime::Result<Result<T, Resource<InferenceError>>>;

/// A tensor in the session's shared memory.
#[derive(Debug, Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<u32>,
    /// Several outputs of a run share one block.
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

    fn placed(&self, name: String) -> PlacedTensor {
        let offset = (self.block.offset() + self.range.start) as u64;
        PlacedTensor { name, element: self.element, shape: self.shape.clone(), offset }
    }

    fn data(&self) -> Bytes {
        Bytes::from_owner(TensorBytes(self.clone()))
    }
}

struct TensorBytes(Tensor);

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.block.bytes().get(self.0.range.clone()).unwrap_or_default()
    }
}

/// A model that a component has loaded.
#[derive(Debug, Clone)]
pub struct Graph {
    name: String,
    signature: Arc<Signature>,
}

/// A model ready to compute.
#[derive(Debug, Clone)]
pub struct ExecutionContext(Graph);

fn invalid(message: impl Into<String>) -> InferenceError {
    InferenceError::new(ErrorCode::InvalidArgument, message)
}

fn no_room(bytes: usize, state: &mut State) -> InferenceError {
    let (largest, capacity) = (state.arena.largest_free(), state.arena.capacity());
    let message =
        format!("a block of {bytes} bytes does not fit: {largest} of {capacity} bytes are free in one piece");
    state.refuse(Limit::Tensor, &message);
    InferenceError::new(ErrorCode::TooLarge, message)
}

/// Bytes of a run's outputs laid out one after the other, or none where a shape is known at run time alone.
fn output_room(outputs: &[TensorDeclaration]) -> Option<usize> {
    outputs.iter().try_fold(0usize, |room, output| {
        let bytes = output.element.bytes(&output.fixed_shape()?)?;
        room.checked_next_multiple_of(ALIGNMENT)?.checked_add(bytes)
    })
}

fn compute(
    state: &mut State,
    graph: &Graph,
    inputs: &[(String, Tensor)],
) -> Result<Vec<(String, Tensor)>, InferenceError> {
    if inputs.len() > MAX_TENSORS {
        return Err(invalid(format!("{} inputs: at most {MAX_TENSORS} are taken", inputs.len())));
    }
    for declared in &graph.signature.inputs {
        let name = &declared.name;
        let given = inputs.iter().find(|(given, _)| given == name);
        let (_, given) =
            given.ok_or_else(|| invalid(format!("model {}: input {name:?} is missing", graph.name)))?;
        if given.element != declared.element || !declared.admits(&given.shape) {
            return Err(invalid(format!(
                "model {}: input {name:?} is {:?} {:?}, the model takes {:?} {:?}",
                graph.name, given.element, given.shape, declared.element, declared.shape
            )));
        }
    }
    // A model that tells its outputs' sizes at run time alone gets the largest piece that is left.
    let room = output_room(&graph.signature.outputs).unwrap_or_else(|| state.arena.largest_free());
    let output = state.arena.allocate(room).map(Arc::new).ok_or_else(|| no_room(room, state))?;
    let placed = inputs.iter().map(|(name, tensor)| tensor.placed(name.clone())).collect();
    let blocks = inputs.iter().map(|(_, tensor)| Arc::clone(&tensor.block)).collect();
    let outputs = state.inference.run(&graph.name, placed, blocks, &output)?;
    state.inferences += 1;
    state.inferred_ns = monotonic_ns();
    outputs
        .into_iter()
        .map(|placed| {
            let range = placed.range().ok_or_else(|| invalid("an output of impossible size"))?;
            let range = range.start - output.offset()..range.end - output.offset();
            let PlacedTensor { name, element, shape, .. } = placed;
            Ok((name, Tensor { element, shape, block: Arc::clone(&output), range }))
        })
        .collect()
}

impl State {
    fn nn_error<T>(&mut self, mut error: InferenceError) -> Fallible<T> {
        // Kept as long as the component keeps its handle, and it may have a part in the words.
        error.message = cut(&error.message).to_owned();
        Ok(Err(self.table.push(error)?))
    }

    fn new_tensor(
        &mut self,
        shape: Vec<u32>,
        element: Element,
        data: &[u8],
    ) -> Result<Tensor, InferenceError> {
        if shape.len() > MAX_RANK {
            return Err(invalid(format!(
                "a tensor of {} dimensions: at most {MAX_RANK} are taken",
                shape.len()
            )));
        }
        let capacity = self.arena.capacity();
        let Some(bytes) = element.bytes(&shape).filter(|&bytes| bytes <= capacity) else {
            let message =
                format!("a tensor {element:?} {shape:?}: the session's shared memory has {capacity} bytes");
            self.refuse(Limit::Tensor, &message);
            return Err(InferenceError::new(ErrorCode::TooLarge, message));
        };
        if bytes != data.len() {
            return Err(invalid(format!("{} bytes given for a tensor {element:?} {shape:?}", data.len())));
        }
        let mut block = self.arena.allocate(data.len()).ok_or_else(|| no_room(data.len(), self))?;
        block.bytes_mut().get_mut(..data.len()).unwrap_or_default().copy_from_slice(data);
        Ok(Tensor::in_block(element, shape, block))
    }
}

impl tensor::Host for State {}

impl tensor::HostTensor for State {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: tensor::TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        // The constructor has no error in WIT, so what cannot be built traps.
        let tensor = self.new_tensor(dimensions, element(ty), &data)?;
        Ok(self.table.push(tensor)?)
    }

    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.shape.clone())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<tensor::TensorType> {
        Ok(tensor_type(self.table.get(&tensor)?.element))
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data().to_vec())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

/// Replaces the generated `tensor.data`, which must build a vector first, by one that copies from shared memory straight
/// into the guest.
pub fn shadow_tensor_data(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TENSOR_INTERFACE)?.func_wrap(
        "[method]tensor.data",
        |store: StoreContextMut<'_, State>, (tensor,): (Resource<Tensor>,)| {
            Ok((store.data().table.get(&tensor)?.data(),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn element(ty: tensor::TensorType) -> Element {
    match ty {
        tensor::TensorType::Fp16 => Element::F16,
        tensor::TensorType::Fp32 => Element::F32,
        tensor::TensorType::Fp64 => Element::F64,
        tensor::TensorType::Bf16 => Element::Bf16,
        tensor::TensorType::U8 => Element::U8,
        tensor::TensorType::I32 => Element::I32,
        tensor::TensorType::I64 => Element::I64,
    }
}

fn tensor_type(element: Element) -> tensor::TensorType {
    match element {
        Element::F16 => tensor::TensorType::Fp16,
        Element::F32 => tensor::TensorType::Fp32,
        Element::F64 => tensor::TensorType::Fp64,
        Element::Bf16 => tensor::TensorType::Bf16,
        // wasi:nn has no signed bytes and no truth values.
        Element::U8 | Element::I8 | Element::Bool => tensor::TensorType::U8,
        Element::I32 => tensor::TensorType::I32,
        Element::I64 => tensor::TensorType::I64,
    }
}

impl graph::Host for State {
    fn load(
        &mut self,
        _builder: Vec<graph::GraphBuilder>,
        _encoding: graph::GraphEncoding,
        _target: graph::ExecutionTarget,
    ) -> Fallible<Resource<Graph>> {
        let message = "models come from the host's catalogue: load them by name";
        self.nn_error(InferenceError::new(ErrorCode::UnsupportedOperation, message))
    }

    fn load_by_name(&mut self, name: String) -> Fallible<Resource<Graph>> {
        match self.inference.open(&name) {
            Ok((name, signature)) => {
                Ok(Ok(self.table.push(Graph { name, signature: Arc::new(signature) })?))
            }
            Err(error) => self.nn_error(error),
        }
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(&mut self, graph: Resource<Graph>) -> Fallible<Resource<ExecutionContext>> {
        let graph = self.table.get(&graph)?.clone();
        Ok(Ok(self.table.push(ExecutionContext(graph))?))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for State {}

impl inference::HostGraphExecutionContext for State {
    fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> Fallible<Vec<(String, Resource<Tensor>)>> {
        let graph = self.table.get(&context)?.0.clone();
        let inputs: Vec<(String, Tensor)> = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.table.delete(tensor)?)))
            .collect::<wasmtime::Result<_>>()?;
        match compute(self, &graph, &inputs) {
            Ok(outputs) => {
                let outputs = outputs.into_iter().map(|(name, tensor)| Ok((name, self.table.push(tensor)?)));
                Ok(Ok(outputs.collect::<wasmtime::Result<_>>()?))
            }
            Err(error) => self.nn_error(error),
        }
    }

    fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<errors::ErrorCode> {
        Ok(match self.table.get(&error)?.code {
            ErrorCode::InvalidArgument => errors::ErrorCode::InvalidArgument,
            ErrorCode::InvalidEncoding => errors::ErrorCode::InvalidEncoding,
            ErrorCode::Timeout => errors::ErrorCode::Timeout,
            ErrorCode::RuntimeError => errors::ErrorCode::RuntimeError,
            ErrorCode::UnsupportedOperation => errors::ErrorCode::UnsupportedOperation,
            ErrorCode::TooLarge => errors::ErrorCode::TooLarge,
            ErrorCode::NotFound => errors::ErrorCode::NotFound,
            ErrorCode::Security => errors::ErrorCode::Security,
            ErrorCode::Unknown => errors::ErrorCode::Unknown,
        })
    }

    fn data(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.message.clone())
    }

    fn drop(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}
