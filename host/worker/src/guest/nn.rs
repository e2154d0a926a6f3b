//! `wasi:nn` over the inference process. Tensors lie in shared memory from the start, so a compute
//! copies nothing.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{Element, ErrorCode, MAX_RANK, PlacedTensor, TensorDeclaration};
use ocelli_protocol::limit::{Limit, truncate_line};
use ocelli_protocol::shm::ALIGNMENT;
use parking_lot::Mutex;
use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::HostResult;
use super::deadline::CallBudget;
use super::limits::Limiter;
use super::newest::wasi::nn::{errors, graph, inference, tensor};
use super::resources::{ExecutionContext, Graph};
use super::tensor::Tensor;
use crate::arena::{Arena, Block};
use crate::inference::{InferenceClient, InferenceError, OpenedModel};

/// The name under which `tensor` is imported.
const TENSOR_INTERFACE: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";

/// The part of an instance's state behind `wasi:nn`.
pub(super) struct NnState {
    arena: Arc<Arena>,
    inference: Arc<Mutex<InferenceClient>>,
    answered_ns: Option<u64>,
    /// The frame at hand is that of a dry run.
    dry_run: bool,
}

impl NnState {
    pub(super) fn new(arena: Arc<Arena>, inference: Arc<Mutex<InferenceClient>>) -> Self {
        Self { arena, inference, answered_ns: None, dry_run: false }
    }

    /// A frame begins, for which no inference has answered.
    pub(super) fn forget_answers(&mut self) {
        self.answered_ns = None;
    }

    /// When the frame's last inference had answered, on the monotonic clock in nanoseconds.
    pub(super) fn last_answer_ns(&self) -> Option<u64> {
        self.answered_ns
    }

    /// Whether the next frame is that of a dry run, in which models run without being granted it:
    /// it is to show that they do.
    pub(super) fn set_dry_run(&mut self, dry_run: bool) {
        self.dry_run = dry_run;
    }

    pub(super) fn view<'a>(
        &'a mut self,
        table: &'a mut ResourceTable,
        limiter: &'a mut Limiter,
        call: &'a CallBudget,
    ) -> NnView<'a> {
        let Self { arena, inference, answered_ns, dry_run } = self;
        NnView { arena, inference, answered_ns, dry_run: *dry_run, table, limiter, call }
    }
}

/// The view of `wasi:nn`: the only state that its functions reach.
pub(super) struct NnView<'a> {
    arena: &'a Arc<Arena>,
    inference: &'a Mutex<InferenceClient>,
    answered_ns: &'a mut Option<u64>,
    dry_run: bool,
    table: &'a mut ResourceTable,
    limiter: &'a mut Limiter,
    call: &'a CallBudget,
}

/// Links the functions of `wasi:nn` to [`NnView`].
pub(super) struct Nn;

impl HasData for Nn {
    type Data<'a> = NnView<'a>;
}

fn invalid(message: impl Into<String>) -> InferenceError {
    InferenceError::new(ErrorCode::InvalidArgument, message)
}

/// Bytes of a run's outputs laid out one after the other. `None` if a shape is known at run time
/// alone.
fn output_bytes(outputs: &[TensorDeclaration]) -> Option<usize> {
    outputs.iter().try_fold(0usize, |total, output| {
        let bytes = output.element.bytes(&output.fixed_shape()?)?;
        total.checked_next_multiple_of(ALIGNMENT)?.checked_add(bytes)
    })
}

/// Puts what was given for a model's inputs into the model's order, each beside its declaration.
/// Names are checked, and types and shapes.
fn bind<'a>(
    model: &'a OpenedModel,
    given: &'a [(String, Tensor)],
) -> Result<Vec<(&'a TensorDeclaration, &'a Tensor)>, InferenceError> {
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
        if tensor_type(tensor.element()) != tensor_type(declared.element)
            || !declared.admits(tensor.shape())
        {
            return Err(wrong(format!(
                "input {name:?} is {:?} {:?}, the model takes {:?} {:?}",
                tensor.element(),
                tensor.shape(),
                declared.element,
                declared.shape
            )));
        }
        // Any other byte is no truth value, and native code may do anything with it.
        if declared.element == Element::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
            return Err(wrong(format!("input {name:?} holds truth values, each 0 or 1")));
        }
        Ok((declared, tensor))
    });
    bound.collect()
}

impl NnView<'_> {
    /// Asks the inference process, with the time that the current call has left.
    fn with_inference<T>(&mut self, ask: impl FnOnce(&mut InferenceClient, Duration) -> T) -> T {
        // One thread calls components: the lock is never waited for.
        let mut client = self.inference.lock();
        ask(&mut client, self.call.time_left())
    }

    /// Whether models may run for the frame at hand.
    pub(super) fn may_run(&mut self, want: f32) -> bool {
        self.dry_run || self.with_inference(|client, left| client.ask(want, left))
    }

    fn run(
        &mut self,
        model: &OpenedModel,
        inputs: &[(String, Tensor)],
    ) -> Result<Vec<(String, Tensor)>, InferenceError> {
        let inputs = bind(model, inputs)?;
        // A model whose output sizes are known at run time alone gets the largest free piece.
        let bytes =
            output_bytes(&model.signature.outputs).unwrap_or_else(|| self.arena.largest_free());
        let output = Arc::new(self.allocate(bytes)?);
        let placed = inputs.iter().map(|(declared, tensor)| tensor.placed_as(declared)).collect();
        let blocks = inputs.iter().map(|(_, tensor)| Arc::clone(tensor.block())).collect();
        let outputs = self.with_inference(|client, timeout| {
            client.run(&model.name, placed, blocks, &output, timeout)
        })?;
        *self.answered_ns = Some(monotonic_ns());
        let tensor = |placed: PlacedTensor| {
            let range = placed.range().ok_or_else(|| invalid("an output of impossible size"))?;
            let PlacedTensor { name, element, shape, .. } = placed;
            Ok((name, Tensor::at(element, shape, range, &output)))
        };
        outputs.into_iter().map(tensor).collect()
    }

    /// A block of the shared memory. One that does not fit counts as a refusal.
    fn allocate(&mut self, bytes: usize) -> Result<Block, InferenceError> {
        self.arena.allocate(bytes).ok_or_else(|| {
            let (largest, capacity) = (self.arena.largest_free(), self.arena.capacity());
            let message = format!(
                "a block of {bytes} bytes does not fit: {largest} of {capacity} bytes are free in \
                    one piece; {}",
                self.arena.advice(bytes)
            );
            self.limiter.refuse(Limit::Tensor, message.clone());
            InferenceError::new(ErrorCode::TooLarge, message)
        })
    }

    fn push_error<T>(
        &mut self,
        mut error: InferenceError,
    ) -> HostResult<T, Resource<InferenceError>> {
        // The component may have a part in the text, and keeps it as long as its handle.
        error.message = truncate_line(&error.message).to_owned();
        Ok(Err(self.table.push(error)?))
    }

    fn push_graph(
        &mut self,
        opened: Result<OpenedModel, InferenceError>,
    ) -> HostResult<Resource<Graph>, Resource<InferenceError>> {
        match opened {
            Ok(opened) => Ok(Ok(self.table.push(Graph(opened))?)),
            Err(error) => self.push_error(error),
        }
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
            self.limiter.refuse(Limit::Tensor, message.clone());
            return Err(InferenceError::new(ErrorCode::TooLarge, message));
        };
        if bytes != data.len() {
            return Err(invalid(format!(
                "{} bytes given for a tensor {element:?} {shape:?}",
                data.len()
            )));
        }
        let mut block = self.allocate(data.len())?;
        block.bytes_mut().get_mut(..data.len()).unwrap_or_default().copy_from_slice(data);
        Ok(Tensor::in_block(element, shape, block))
    }
}

impl tensor::Host for NnView<'_> {}

impl tensor::HostTensor for NnView<'_> {
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
        Ok(self.table.get(&tensor)?.shape().to_vec())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<tensor::TensorType> {
        Ok(tensor_type(self.table.get(&tensor)?.element()))
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.bytes().to_vec())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

/// Replaces the generated `tensor.data`, which must build a vector first, by one that copies from
/// shared memory straight into the guest. `table` gives the handles.
pub(super) fn shadow_tensor_data<T: 'static>(
    linker: &mut Linker<T>,
    table: fn(&T) -> &ResourceTable,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TENSOR_INTERFACE)?.func_wrap(
        "[method]tensor.data",
        move |store: StoreContextMut<'_, T>, (tensor,): (Resource<Tensor>,)| {
            Ok((table(store.data()).get(&tensor)?.data(),))
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

pub(super) fn tensor_type(element: Element) -> tensor::TensorType {
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

/// Checks the request to load a graph. The operator chooses the device: `cpu` leaves the choice to
/// the host, and a component cannot ask for a `gpu` or a `tpu`.
fn check_graph(
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

impl graph::Host for NnView<'_> {
    fn load(
        &mut self,
        builders: Vec<graph::GraphBuilder>,
        encoding: graph::GraphEncoding,
        target: graph::ExecutionTarget,
    ) -> HostResult<Resource<Graph>, Resource<InferenceError>> {
        let loaded = check_graph(builders, encoding, target)
            .and_then(|bytes| self.with_inference(|client, timeout| client.load(bytes, timeout)));
        if let Err(InferenceError { code: ErrorCode::TooLarge, message }) = &loaded {
            self.limiter.refuse(Limit::Tensor, message.clone());
        }
        self.push_graph(loaded)
    }

    fn load_by_name(
        &mut self,
        name: String,
    ) -> HostResult<Resource<Graph>, Resource<InferenceError>> {
        let opened = self.with_inference(|client, timeout| client.open(&name, timeout));
        self.push_graph(opened)
    }
}

impl graph::HostGraph for NnView<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> HostResult<Resource<ExecutionContext>, Resource<InferenceError>> {
        let graph = self.table.get(&graph)?.clone();
        Ok(Ok(self.table.push(ExecutionContext(graph))?))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for NnView<'_> {}

impl inference::HostGraphExecutionContext for NnView<'_> {
    fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> HostResult<Vec<(String, Resource<Tensor>)>, Resource<InferenceError>> {
        let model = self.table.get(&context)?.0.0.clone();
        let inputs: Vec<(String, Tensor)> = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.table.delete(tensor)?)))
            .collect::<wasmtime::Result<_>>()?;
        match self.run(&model, &inputs) {
            Ok(outputs) => {
                let outputs =
                    outputs.into_iter().map(|(name, tensor)| Ok((name, self.table.push(tensor)?)));
                Ok(Ok(outputs.collect::<wasmtime::Result<_>>()?))
            }
            Err(error) => self.push_error(error),
        }
    }

    fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for NnView<'_> {}

impl errors::HostError for NnView<'_> {
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
