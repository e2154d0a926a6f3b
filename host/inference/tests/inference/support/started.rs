//! An engine in this process, with what the host would see of it and a look at each run before it
//! begins.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Once};

use ocelli_inference::{AttachError, Engine, RunInfo};
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Attach, Configure, Element, InferenceRequest, LoadedModel, Model, PlacedTensor,
    TensorDeclaration,
};
use parking_lot::Mutex;

use super::onnx;
use super::{Worker, model_of};

/// An engine with its ledger as the host sees it, and what it told the host.
pub(crate) struct Started {
    pub(crate) engine: Engine,
    pub(crate) ledger: InFlightTable,
    pub(crate) loaded: Receiver<LoadedModel>,
}

type Seen = Box<dyn Fn(&RunInfo<'_>) + Send>;

/// What is done before runs of a session of this name.
static BEFORE_RUN: LazyLock<Mutex<HashMap<String, Arc<Mutex<Seen>>>>> =
    LazyLock::new(Mutex::default);

fn before_run(run: &RunInfo<'_>) {
    let seen = BEFORE_RUN.lock().get(run.session).cloned();
    if let Some(seen) = seen {
        seen.lock()(run);
    }
}

/// Has something done before each run of a worker's session.
pub(crate) fn on_run(worker: &Worker, seen: impl Fn(&RunInfo<'_>) + Send + 'static) {
    BEFORE_RUN.lock().insert(worker.name.clone(), Arc::new(Mutex::new(Box::new(seen))));
}

#[allow(unsafe_code)]
pub(crate) fn start(configure: Configure) -> Started {
    static TELEMETRY: Once = Once::new();
    // SAFETY: before the library is loaded, and nothing else in this program reads or writes the
    // environment but through std, which locks it.
    TELEMETRY.call_once(|| unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") });
    let ledger = InFlightTable::create(configure.threads as usize).unwrap();
    let theirs = InFlightTable::map(ledger.fd().try_clone_to_owned().unwrap()).unwrap();
    let (told, loaded) = channel();
    let prepared = Engine::prepare(configure, theirs).unwrap();
    // The receiver may be gone with the test.
    let engine = prepared.start(move |model| drop(told.send(model)), Some(before_run)).unwrap();
    Started { engine, ledger, loaded }
}

impl Started {
    pub(crate) fn attach(
        &self,
        worker: &Worker,
        change: impl Fn(&mut Attach),
    ) -> Result<(), AttachError> {
        let mut attach = worker.attach(0);
        change(&mut attach);
        let socket = worker.theirs.try_clone().unwrap();
        self.engine.attach(attach, socket, worker.memory.fd().try_clone_to_owned().unwrap())
    }

    /// A session that is announced and greeted.
    pub(crate) fn session(&self, change: impl Fn(&mut Attach)) -> Worker {
        let worker = Worker::new();
        self.attach(&worker, change).unwrap();
        worker.greeted()
    }

    /// The same ledger once more, for another thread.
    pub(crate) fn ledger_again(&self) -> InFlightTable {
        InFlightTable::map(self.ledger.fd().try_clone_to_owned().unwrap()).unwrap()
    }
}

/// A request to run a model of `y = f(x)` with four numbers.
pub(crate) fn run_small(id: u64, model: &str) -> InferenceRequest {
    let x = PlacedTensor { name: "x".into(), element: Element::F32, shape: vec![4], offset: 0 };
    let model = model.to_owned();
    InferenceRequest::Run { id, model, inputs: vec![x], output_offset: 64, output_length: 64 }
}

/// `y = operator(x)` of four numbers.
pub(crate) fn small(name: &str, operator: &str) -> (Model, tempfile::NamedTempFile) {
    let value = |name| onnx::value(name, onnx::F32, &[Some(4)]);
    let node = onnx::node(operator, &["x"], "y", &[]);
    model_of(name, &onnx::model(&[node], &[], &[value("x")], &[value("y")]), &[4])
}

/// The model of a file, with one input and one output of these elements and this shape.
pub(crate) fn model_between(
    name: &str,
    bytes: &[u8],
    [x, y]: [Element; 2],
    shape: &[i64],
) -> (Model, tempfile::NamedTempFile) {
    let (model, file) = model_of(name, bytes, shape);
    let tensor = |name: &str, element| {
        vec![TensorDeclaration { name: name.into(), element, shape: shape.to_vec() }]
    };
    (Model { inputs: tensor("x", x), outputs: tensor("y", y), ..model }, file)
}
