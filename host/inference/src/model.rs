//! The models that may be asked for: their files, checked against the catalog, and the sessions
//! made from them.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Weak};

use ocelli_protocol::digest::Digest;
use ocelli_protocol::graph::{GraphTensor, difference};
use ocelli_protocol::inference::{
    Element, ErrorCode, LoadedModel, MAX_RANK, MAX_TENSORS, Model, TensorDeclaration,
};
use ocelli_protocol::shm::{ALIGNMENT, SharedMemory};
use ort::session::{RunOptions, Session};
use ort::value::{Outlet, TensorElementType, ValueType};
use parking_lot::Mutex;

use crate::error::{EngineError, RequestError};
use crate::request::Layout;
use crate::run::RunPlan;
use crate::runtime::{NewSession, Runtime};

/// A tensor of a model, with its name as the C interface takes it.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// As in the catalog.
    pub(crate) declaration: TensorDeclaration,
    /// The same name, ending in 0.
    pub(crate) name: CString,
}

/// The inputs and outputs of a model, as the catalog declares them and its graph has been found
/// to have them.
#[derive(Debug)]
pub(crate) struct Signature {
    /// In the catalog's order.
    pub(crate) inputs: Vec<Tensor>,
    /// In the catalog's order, which is the order in which they are laid out.
    pub(crate) outputs: Vec<Tensor>,
}

/// A session of a model, ready to run.
pub(crate) struct ModelSession {
    pub(crate) session: Session,
    pub(crate) signature: Arc<Signature>,
    /// The nodes of its graph by execution provider, for the host.
    pub(crate) runs: LoadedModel,
}

/// All models by name.
pub(crate) struct Catalog {
    entries: HashMap<String, Arc<ModelVersion>>,
}

/// A version of a model.
pub(crate) struct ModelVersion {
    pub(crate) model: Model,
    signature: Arc<Signature>,
    /// The file's bytes, while any runner makes a session from them. Runners that load the same
    /// model at the same time read and check it once.
    bytes: Mutex<Weak<[u8]>>,
}

impl Catalog {
    /// Checks the declarations, not the files. A known version is shared.
    pub(crate) fn new(
        models: Vec<Model>,
        known: &[Arc<ModelVersion>],
    ) -> Result<Self, EngineError> {
        let mut entries = HashMap::<String, Arc<ModelVersion>>::new();
        for model in models {
            let name = model.name.clone();
            let entry = match known.iter().find(|entry| entry.is(&model)) {
                Some(entry) => Arc::clone(entry),
                None => Arc::new(ModelVersion::new(model).map_err(EngineError::Configuration)?),
            };
            if entries.insert(name.clone(), entry).is_some() {
                return Err(EngineError::Configuration(format!("there are two models \"{name}\"")));
            }
        }
        Ok(Self { entries })
    }

    /// All versions, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        self.entries.values()
    }

    /// The version of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Arc<ModelVersion>, RequestError> {
        self.entries.get(name).ok_or_else(|| {
            let mut known: Vec<_> = self.entries.keys().map(String::as_str).collect();
            known.sort_unstable();
            let message = format!("there is no model \"{name}\"; there are: {}", known.join(", "));
            RequestError::new(ErrorCode::NotFound, message)
        })
    }
}

impl ModelVersion {
    pub(crate) fn new(model: Model) -> Result<Self, String> {
        let signature = Arc::new(Signature::new(&model)?);
        Ok(Self { model, signature, bytes: Mutex::new(Weak::<[u8; 0]>::new() as Weak<[u8]>) })
    }

    /// Whether it is this version of a model; the path of its file does not count. The name does:
    /// errors and reports to the host carry it.
    fn is(&self, model: &Model) -> bool {
        let Model { name, path: _, sha256, inputs, outputs, device, fallback, batching } = model;
        let own = &self.model;
        (&own.name, &own.sha256) == (name, sha256)
            && (own.device, own.fallback, own.batching) == (*device, *fallback, *batching)
            && (&own.inputs, &own.outputs) == (inputs, outputs)
    }

    /// Makes a session of the model: reads the file, checks its digest and its graph, and runs it
    /// once, since the first run costs twice as much as any other.
    pub(crate) fn load(&self, runtime: &Runtime) -> Result<ModelSession, RequestError> {
        let (entry, name) = (self, &self.model.name);
        let NewSession { session, runs } = {
            let bytes = entry.bytes()?;
            runtime.session(&bytes, &entry.model)?
        };
        entry.signature.check(&session).map_err(|difference| {
            let message = format!(
                "model \"{name}\": model.toml and {} differ: {difference}",
                entry.model.path
            );
            RequestError::new(ErrorCode::InvalidEncoding, message)
        })?;
        let mut loaded = ModelSession { session, signature: Arc::clone(&entry.signature), runs };
        loaded.warm(None).map_err(|error| {
            let message =
                format!("model \"{name}\" fails when it is run on zeros: {}", error.message);
            RequestError::new(error.code, message)
        })?;
        Ok(loaded)
    }

    /// The bytes of the file, whose digest is the declared one.
    fn bytes(&self) -> Result<Arc<[u8]>, RequestError> {
        let mut kept = self.bytes.lock();
        if let Some(bytes) = kept.upgrade() {
            return Ok(bytes);
        }
        let Model { name, path, sha256: expected, .. } = &self.model;
        let bytes: Arc<[u8]> = std::fs::read(path)
            .map_err(|error| {
                let message = format!("model \"{name}\": cannot read {path}: {error}");
                RequestError::new(ErrorCode::NotFound, message)
            })?
            .into();
        let found = Digest::of(&bytes).to_string();
        if found != *expected {
            let message = format!(
                "model \"{name}\": {path} has sha256 {found}, model.toml says {expected}; restore \
                    the file, or correct \
                 model.toml if the change is wanted"
            );
            return Err(RequestError::new(ErrorCode::Security, message));
        }
        *kept = Arc::downgrade(&bytes);
        Ok(bytes)
    }
}

impl Signature {
    pub(crate) fn new(model: &Model) -> Result<Self, String> {
        let tensors = |kind: &str, declared: &[TensorDeclaration]| {
            if declared.is_empty() || declared.len() > MAX_TENSORS {
                return Err(format!(
                    "model \"{}\" has {} {kind}s; 1 to {MAX_TENSORS} are possible",
                    model.name,
                    declared.len()
                ));
            }
            declared.iter().map(|declaration| tensor(&model.name, kind, declaration)).collect()
        };
        Ok(Self {
            inputs: tensors("input", &model.inputs)?,
            outputs: tensors("output", &model.outputs)?,
        })
    }

    /// Whether a session's graph has these inputs and outputs; the error is how it differs.
    fn check(&self, session: &Session) -> Result<(), String> {
        let sides = [
            ("input", &self.inputs, session.inputs()),
            ("output", &self.outputs, session.outputs()),
        ];
        for (kind, declared, graph) in sides {
            let graph: Vec<_> = graph.iter().map(graph_tensor).collect();
            let declared = declared.iter().map(|tensor| &tensor.declaration);
            if let Some(difference) = difference(kind, declared, &graph) {
                return Err(difference);
            }
        }
        Ok(())
    }

    /// Bytes that the tensors of fixed shape take when they are laid out one after the other.
    fn fixed_bytes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Option<usize> {
        tensors.filter_map(|tensor| Some((tensor, tensor.declaration.fixed_shape()?))).try_fold(
            0_usize,
            |sum, (tensor, shape)| {
                let bytes = tensor.declaration.element.bytes(&shape)?;
                sum.checked_add(bytes.checked_next_multiple_of(ALIGNMENT)?)
            },
        )
    }
}

fn tensor(model: &str, kind: &str, declaration: &TensorDeclaration) -> Result<Tensor, String> {
    let name = &declaration.name;
    if declaration.shape.len() > MAX_RANK
        || declaration.shape.iter().any(|&side| side == 0 || side < -1)
    {
        return Err(format!(
            "model \"{model}\": {kind} \"{name}\" has shape {:?}; at most {MAX_RANK} sides are \
                possible, each -1 or \
             more than 0",
            declaration.shape
        ));
    }
    let name = CString::new(name.as_str())
        .map_err(|_| format!("model \"{model}\": the name of {kind} {name:?} holds a 0 byte"))?;
    Ok(Tensor { declaration: declaration.clone(), name })
}

impl ModelSession {
    /// One run on zeros. A model without fixed input shapes is not run: a valid shape is unknown.
    pub(crate) fn warm(&mut self, options: Option<&RunOptions>) -> Result<(), RequestError> {
        let signature = &self.signature;
        let shapes: Option<Vec<_>> =
            signature.inputs.iter().map(|input| input.declaration.fixed_shape()).collect();
        let Some(shapes) = shapes else { return Ok(()) };
        let too_large =
            || RequestError::new(ErrorCode::TooLarge, "its tensors exceed the address space");
        let inputs = Signature::fixed_bytes(signature.inputs.iter()).ok_or_else(too_large)?;
        let outputs = Signature::fixed_bytes(signature.outputs.iter()).ok_or_else(too_large)?;
        let length = inputs.checked_add(outputs).ok_or_else(too_large)?.max(ALIGNMENT);
        let memory = SharedMemory::create(length).map_err(|error| {
            RequestError::new(ErrorCode::TooLarge, format!("{length} bytes of tensors: {error}"))
        })?;
        let layout = Layout::consecutive(signature, shapes, inputs..length);
        let mut plan = RunPlan::new(Arc::new(memory), Arc::clone(signature), layout)?;
        plan.execute(&mut self.session, options)
    }
}

/// An input or output of a session's graph.
pub(crate) fn graph_tensor(outlet: &Outlet) -> GraphTensor {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (element_of(*ty), shape.to_vec()),
        _ => (None, Vec::new()),
    };
    let kind = match outlet.dtype() {
        ValueType::Tensor { ty, .. } => ty.to_string(),
        other => other.to_string(),
    };
    GraphTensor { name: outlet.name().to_owned(), element, kind, shape }
}

fn element_of(ty: TensorElementType) -> Option<Element> {
    Some(match ty {
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Bfloat16 => Element::Bf16,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Int64 => Element::I64,
        _ => return None,
    })
}
