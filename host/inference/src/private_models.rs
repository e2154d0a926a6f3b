//! A pipeline's own models: loaded from the client's shared memory, for that client alone.

use std::ops::Range;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::inference::{Device, ErrorCode, MAX_OWN_MODELS, Model, TensorDeclaration};
use ocelli_protocol::shm::SharedMemory;
use ort::value::Outlet;

use crate::buffer::Buffer;
use crate::error::RequestError;
use crate::model::ModelSession;
use crate::runtime::Runtime;
use crate::tensor::{Signature, graph_tensor};

/// The models of a session's own, in the order in which they were loaded. They have one ONNX
/// Runtime session each, since the session has one request at a time.
#[derive(Default)]
pub(crate) struct PrivateModels {
    loaded: Vec<ModelSession>,
}

impl PrivateModels {
    /// The model of this name, as [`Self::add`] gave it.
    pub(crate) fn find(&mut self, name: &str) -> Option<&mut ModelSession> {
        let number: usize = name.strip_prefix('#')?.parse().ok()?;
        self.loaded.get_mut(number.checked_sub(1)?)
    }

    /// The name of the next model, where there may be one more.
    pub(crate) fn next_name(&self) -> Result<String, RequestError> {
        if self.loaded.len() >= MAX_OWN_MODELS {
            let message = format!(
                "the session has loaded {MAX_OWN_MODELS} models of its own; there may be no more"
            );
            return Err(RequestError::new(ErrorCode::TooLarge, message));
        }
        Ok(format!("#{}", self.loaded.len() + 1))
    }

    /// Keeps a model under its name.
    pub(crate) fn add(&mut self, loaded: ModelSession) -> &ModelSession {
        self.loaded.push_mut(loaded)
    }
}

/// Makes a session of a file that lies in shared memory, on the processor. It is not warm yet.
pub(crate) fn load(
    name: &str,
    memory: &SharedMemory,
    range: Range<usize>,
    runtime: &Runtime,
) -> Result<ModelSession, RequestError> {
    // A copy: a worker could change the file between its check and its use.
    let file = Buffer::copied(memory, range)
        .ok_or_else(|| RequestError::argument("the model does not lie in the shared memory"))?;
    let mut model = Model {
        name: name.to_owned(),
        path: "the file that the pipeline brings".to_owned(),
        sha256: Digest::of(file.bytes()).to_string(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        device: Device::Cpu,
        fallback: false,
        batching: None,
    };
    let (session, runs) = runtime.session(file.bytes(), &model)?;
    model.inputs = declared("input", session.inputs())?;
    model.outputs = declared("output", session.outputs())?;
    let signature = Signature::new(&model);
    let signature = signature
        .map_err(|error| RequestError::new(ErrorCode::UnsupportedOperation, error.to_string()))?;
    Ok(ModelSession::new(session, signature.into(), runs))
}

/// Declares the tensors as the graph has them: there is no `model.toml`.
fn declared(kind: &str, outlets: &[Outlet]) -> Result<Vec<TensorDeclaration>, RequestError> {
    let declarations = outlets.iter().map(graph_tensor).map(|tensor| match tensor.element {
        Some(element) => Ok(TensorDeclaration { name: tensor.name, element, shape: tensor.shape }),
        None => {
            let message = format!(
                "the {kind} \"{}\" is {}, which no pipeline can have",
                tensor.name, tensor.kind
            );
            Err(RequestError::new(ErrorCode::UnsupportedOperation, message))
        }
    });
    declarations.collect()
}
