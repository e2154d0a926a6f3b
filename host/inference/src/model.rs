//! The models of the catalog: their files, checked, and the sessions made from them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use ocelli_protocol::digest::Digest;
use ocelli_protocol::inference::{ErrorCode, LoadedModel, Model};
use ocelli_protocol::shm::MAX_LENGTH;
use ort::session::{RunOptions, Session};
use parking_lot::Mutex;

use crate::error::{EngineError, RequestError};
use crate::request::Layout;
use crate::run::RunTensors;
use crate::runtime::Runtime;
use crate::tensor::{Signature, SignatureError};

/// A session of a model, ready to run.
pub(crate) struct ModelSession {
    pub(crate) session: Session,
    pub(crate) signature: Arc<Signature>,
    /// Those of the latest run: the next has the same shapes, as a rule.
    tensors: Option<RunTensors>,
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
                None => Arc::new(ModelVersion::new(model)?),
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
    pub(crate) fn new(model: Model) -> Result<Self, SignatureError> {
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
        let Model { name, path, .. } = &self.model;
        let (session, runs) = runtime.session(&self.bytes()?, &self.model)?;
        if let Some(difference) = self.signature.difference(&session) {
            let message = format!("model \"{name}\": model.toml and {path} differ: {difference}");
            return Err(RequestError::new(ErrorCode::InvalidEncoding, message));
        }
        let mut loaded = ModelSession::new(session, Arc::clone(&self.signature), runs);
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
                 the file, or correct model.toml if the change is wanted"
            );
            return Err(RequestError::new(ErrorCode::Security, message));
        }
        *kept = Arc::downgrade(&bytes);
        Ok(bytes)
    }
}

impl ModelSession {
    pub(crate) fn new(session: Session, signature: Arc<Signature>, runs: LoadedModel) -> Self {
        Self { session, signature, tensors: None, runs }
    }

    /// Uses the session, with tensors for a run of this layout.
    pub(crate) fn for_run<T>(
        &mut self,
        layout: &Layout,
        used: impl FnOnce(&mut Session, &mut RunTensors) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        // Those of another shape go before new ones come.
        let mut tensors = match self.tensors.take().filter(|tensors| tensors.are_for(layout)) {
            Some(tensors) => tensors,
            None => {
                let shapes = layout.inputs.iter().map(|place| place.shape.clone()).collect();
                RunTensors::zeroed(&self.signature, shapes)?
            }
        };
        let done = used(&mut self.session, &mut tensors);
        self.tensors = Some(tensors).filter(RunTensors::may_stay);
        done
    }

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
        // No session's shared memory holds more, so that no request could run it.
        let length = inputs.checked_add(outputs).ok_or_else(too_large)?;
        if length > MAX_LENGTH {
            let message = format!("{length} bytes of tensors: {MAX_LENGTH} are possible");
            return Err(RequestError::new(ErrorCode::TooLarge, message));
        }
        RunTensors::zeroed(signature, shapes)?.execute(&mut self.session, options).map(drop)
    }
}
