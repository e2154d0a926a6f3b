//! `wasi:nn` over the inference process. Tensors lie in shared memory from the start, so a compute
//! copies nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{Element, ErrorCode, MAX_RANK, PlacedTensor, TensorDeclaration};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::shm::ALIGNMENT;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use super::state::InstanceState;
use super::versions::newest::wasi::nn::{errors, graph, inference, tensor};
use crate::arena::Block;
use crate::host_link::truncate;
use crate::inference::{InferenceError, OpenedModel};

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

    /// As an input of this name and element type.
    fn placed_as(&self, declared: &TensorDeclaration) -> PlacedTensor {
        let offset = (self.block.offset() + self.range.start) as u64;
        let TensorDeclaration { name, element, .. } = declared;
        PlacedTensor { name: name.clone(), element: *element, shape: self.shape.clone(), offset }
    }

    /// The type of its elements.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// Its elements, little-endian, in row-major order.
    pub fn bytes(&self) -> &[u8] {
        self.block.bytes().get(self.range.clone()).unwrap_or_default()
    }

    fn data(&self) -> Bytes {
        Bytes::from_owner(TensorBytes(self.clone()))
    }
}

struct TensorBytes(Tensor);

impl AsRef<[u8]> for TensorBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A model that a component has loaded.
#[derive(Debug, Clone)]
pub struct Graph(OpenedModel);

/// A model ready to compute.
#[derive(Debug, Clone)]
pub struct ExecutionContext(Graph);

fn invalid(message: impl Into<String>) -> InferenceError {
    InferenceError::new(ErrorCode::InvalidArgument, message)
}

fn no_room(bytes: usize, state: &mut InstanceState) -> InferenceError {
    let (largest, capacity) = (state.arena.largest_free(), state.arena.capacity());
    let message = format!(
        "a block of {bytes} bytes does not fit: {largest} of {capacity} bytes are free in one piece"
    );
    state.refuse(Limit::Tensor, &message);
    InferenceError::new(ErrorCode::TooLarge, message)
}

/// Bytes of a run's outputs laid out one after the other, or none where a shape is known at run
/// time alone.
fn output_room(outputs: &[TensorDeclaration]) -> Option<usize> {
    outputs.iter().try_fold(0usize, |room, output| {
        let bytes = output.element.bytes(&output.fixed_shape()?)?;
        room.checked_next_multiple_of(ALIGNMENT)?.checked_add(bytes)
    })
}

/// Puts what was given for a model's inputs into the model's order. Names are checked, and types
/// and shapes.
fn bind<'a>(
    model: &'a OpenedModel,
    given: &'a [(String, Tensor)],
) -> Result<Vec<Bound<'a>>, InferenceError> {
    let wrong = |what: String| invalid(format!("model {}: {what}", model.name));
    let declared = &model.signature.inputs;
    for (index, (name, _)) in given.iter().enumerate() {
        if given.iter().take(index).any(|(other, _)| other == name) {
            return Err(wrong(format!("input {name:?} is given twice")));
        }
        if !declared.iter().any(|declared| declared.name == *name) {
            let takes: Vec<_> =
                declared.iter().map(|declared| format!("{:?}", declared.name)).collect();
            return Err(wrong(format!(
                "there is no input {name:?}, the model takes {}",
                takes.join(", ")
            )));
        }
    }
    let bound = declared.iter().map(|declared| {
        let name = &declared.name;
        let found = given.iter().find(|(given, _)| given == name);
        let (_, tensor) = found.ok_or_else(|| wrong(format!("input {name:?} is missing")))?;
        if tensor_type(tensor.element) != tensor_type(declared.element)
            || !declared.admits(&tensor.shape)
        {
            return Err(wrong(format!(
                "input {name:?} is {:?} {:?}, the model takes {:?} {:?}",
                tensor.element, tensor.shape, declared.element, declared.shape
            )));
        }
        // What else a byte holds is no truth value, and native code may take it for anything.
        if declared.element == Element::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
            return Err(wrong(format!("input {name:?} holds truth values, each 0 or 1")));
        }
        Ok(Bound { declared, tensor })
    });
    bound.collect()
}

/// An input of a model, and the tensor given for it.
struct Bound<'a> {
    declared: &'a TensorDeclaration,
    tensor: &'a Tensor,
}

fn compute(
    state: &mut InstanceState,
    model: &OpenedModel,
    inputs: &[(String, Tensor)],
) -> Result<Vec<(String, Tensor)>, InferenceError> {
    let inputs = bind(model, inputs)?;
    // A model that tells its outputs' sizes at run time alone gets the largest piece that is left.
    let room = output_room(&model.signature.outputs).unwrap_or_else(|| state.arena.largest_free());
    let output = state.arena.allocate(room).map(Arc::new).ok_or_else(|| no_room(room, state))?;
    let placed = inputs.iter().map(|input| input.tensor.placed_as(input.declared)).collect();
    let blocks = inputs.iter().map(|input| Arc::clone(&input.tensor.block)).collect();
    let outputs = state.with_inference(|client, patience| {
        client.run(&model.name, placed, blocks, &output, patience)
    })?;
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

impl InstanceState {
    fn nn_error<T>(&mut self, mut error: InferenceError) -> Fallible<T> {
        // Kept as long as the component keeps its handle, and it may have a part in the words.
        error.message = truncate(&error.message).to_owned();
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
            let message = format!(
                "a tensor {element:?} {shape:?}: the session's shared memory has {capacity} bytes"
            );
            self.refuse(Limit::Tensor, &message);
            return Err(InferenceError::new(ErrorCode::TooLarge, message));
        };
        if bytes != data.len() {
            return Err(invalid(format!(
                "{} bytes given for a tensor {element:?} {shape:?}",
                data.len()
            )));
        }
        let mut block = self.arena.allocate(data.len()).ok_or_else(|| no_room(data.len(), self))?;
        block.bytes_mut().get_mut(..data.len()).unwrap_or_default().copy_from_slice(data);
        Ok(Tensor::in_block(element, shape, block))
    }
}

impl tensor::Host for InstanceState {}

impl tensor::HostTensor for InstanceState {
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

/// Replaces the generated `tensor.data`, which must build a vector first, by one that copies from
/// shared memory straight into the guest.
pub fn shadow_tensor_data(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TENSOR_INTERFACE)?.func_wrap(
        "[method]tensor.data",
        |store: StoreContextMut<'_, InstanceState>, (tensor,): (Resource<Tensor>,)| {
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

/// Whether a graph may be loaded so. What a model runs on is the operator's to say: `cpu` is what a
/// component asks for that leaves it to the host, and a `gpu` or a `tpu` is not to be had by
/// asking.
fn loadable(
    mut builders: Vec<graph::GraphBuilder>,
    encoding: graph::GraphEncoding,
    target: graph::ExecutionTarget,
) -> Result<graph::GraphBuilder, InferenceError> {
    use graph::{ExecutionTarget, GraphEncoding};
    match encoding {
        GraphEncoding::Onnx | GraphEncoding::Autodetect => {}
        other => {
            let message = format!("encoding {other:?}: this host runs models in ONNX alone");
            return Err(InferenceError::new(ErrorCode::InvalidEncoding, message));
        }
    }
    if target != ExecutionTarget::Cpu {
        let message =
            format!("target {target:?}: what models run on is the host's setting; ask for the cpu");
        return Err(InferenceError::new(ErrorCode::UnsupportedOperation, message));
    }
    match (builders.pop(), builders.len()) {
        (Some(bytes), 0) if !bytes.is_empty() => Ok(bytes),
        (last, before) => {
            let count = before + usize::from(last.is_some());
            Err(invalid(format!(
                "a graph in {count} parts: an ONNX file is one part, and not empty"
            )))
        }
    }
}

impl InstanceState {
    fn push_graph(
        &mut self,
        opened: Result<OpenedModel, InferenceError>,
    ) -> Fallible<Resource<Graph>> {
        match opened {
            Ok(opened) => Ok(Ok(self.table.push(Graph(opened))?)),
            Err(error) => self.nn_error(error),
        }
    }
}

impl graph::Host for InstanceState {
    fn load(
        &mut self,
        builders: Vec<graph::GraphBuilder>,
        encoding: graph::GraphEncoding,
        target: graph::ExecutionTarget,
    ) -> Fallible<Resource<Graph>> {
        let loaded = loadable(builders, encoding, target)
            .and_then(|bytes| self.with_inference(|client, patience| client.load(bytes, patience)));
        if let Err(InferenceError { code: ErrorCode::TooLarge, message }) = &loaded {
            self.refuse(Limit::Tensor, message);
        }
        self.push_graph(loaded)
    }

    fn load_by_name(&mut self, name: String) -> Fallible<Resource<Graph>> {
        let opened = self.with_inference(|client, patience| client.open(&name, patience));
        self.push_graph(opened)
    }
}

impl graph::HostGraph for InstanceState {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> Fallible<Resource<ExecutionContext>> {
        let graph = self.table.get(&graph)?.clone();
        Ok(Ok(self.table.push(ExecutionContext(graph))?))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for InstanceState {}

impl inference::HostGraphExecutionContext for InstanceState {
    fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> Fallible<Vec<(String, Resource<Tensor>)>> {
        let model = self.table.get(&context)?.0.0.clone();
        let inputs: Vec<(String, Tensor)> = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.table.delete(tensor)?)))
            .collect::<wasmtime::Result<_>>()?;
        match compute(self, &model, &inputs) {
            Ok(outputs) => {
                let outputs =
                    outputs.into_iter().map(|(name, tensor)| Ok((name, self.table.push(tensor)?)));
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

impl errors::Host for InstanceState {}

impl errors::HostError for InstanceState {
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
