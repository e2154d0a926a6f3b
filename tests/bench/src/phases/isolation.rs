//! What it costs a run that the model lives in another process.
//!
//! This program plays the worker: the worker's own client, over the socket and the shared memory
//! that the host gives out. Once the models run in a child process, once in this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ocelli::config::{Config, Isolation};
use ocelli::inference::catalog::Catalog;
use ocelli::inference::{InferenceAttachment, InferenceHandle, ServiceTerms, Share};
use ocelli_protocol::inference::{Element, PlacedTensor};
use ocelli_protocol::shm::SharedMemory;
use ocelli_worker::arena::Arena;
use ocelli_worker::inference::InferenceClient;
use serde::Serialize;

use super::Environment;
use super::live::Percentiles;
use crate::statistics::{median, percentile};

/// Runs of one measurement: a run costs some hundredths of a millisecond.
const RUNS: usize = 2000;

/// A model that costs nothing: what is measured is the way to it and back.
const MODEL: &str = "echo";

/// No run takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct IsolationCost {
    /// The model.
    pub model: &'static str,
    /// Side by side, one after the other.
    pub rounds: Vec<IsolationRound>,
    /// Median of the rounds' `process.p50 - in_process.p50`, in milliseconds.
    pub added_ms: f64,
}

/// Milliseconds from asking to having the outputs.
#[derive(Debug, Serialize)]
pub struct IsolationRound {
    /// The model runs in this program.
    pub in_process: Percentiles,
    /// The model runs in a child process.
    pub process: Percentiles,
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<IsolationCost> {
    let here =
        Asker::start(environment, Isolation::InProcess, MODEL).await.context("in-process")?;
    let there = Asker::start(environment, Isolation::Process, MODEL).await.context("process")?;
    let rounds = environment.rounds;
    // The worker's client blocks, and the host's side of the sessions has to go on meanwhile.
    let rounds = tokio::task::spawn_blocking(move || side_by_side(here, there, rounds)).await??;
    let added: Vec<f64> =
        rounds.iter().map(|round| round.process.p50 - round.in_process.p50).collect();
    Ok(IsolationCost { model: MODEL, rounds, added_ms: median(&added) })
}

fn side_by_side(mut here: Asker, mut there: Asker, rounds: usize) -> Result<Vec<IsolationRound>> {
    here.open().context("in-process")?;
    there.open().context("process")?;
    let mut measured = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        // Turn by turn: what the machine does meanwhile meets both alike.
        let (mut in_process, mut process) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            in_process.push(here.run()?);
            process.push(there.run()?);
        }
        let of = |times: &[f64]| Percentiles {
            p50: percentile(times, 0.5),
            p99: percentile(times, 0.99),
        };
        measured.push(IsolationRound { in_process: of(&in_process), process: of(&process) });
    }
    Ok(measured)
}

/// A worker's place at the inference process, and what it asks.
struct Asker {
    client: InferenceClient,
    arena: Arc<Arena>,
    model: &'static str,
    shape: Vec<u32>,
    input: String,
    output_bytes: usize,
    // Dropping either would end the service.
    _attachment: InferenceAttachment,
    _inference: InferenceHandle,
}

impl Asker {
    async fn start(
        environment: &Environment,
        isolation: Isolation,
        model: &'static str,
    ) -> Result<Self> {
        let paths = &environment.paths;
        let mut config = Config::default();
        config.inference.isolation = isolation;
        config.inference.library = Some(paths.library.clone());
        config.inference.preload = vec![model.to_owned()];
        config.inference.spare = false;
        config.models.directory = paths.test_models.clone();
        config.store.directory = environment.workplace.folder().join("isolation");
        let catalog = Catalog::load(&paths.test_models, &config.inference)?;
        let program = paths.host.with_file_name("ocelli-inference");
        let inference = InferenceHandle::start(program, &catalog, &config).await?;
        let timeout_ms = u32::try_from(PATIENCE.as_millis())?;
        let terms = ServiceTerms {
            share: Share::Own,
            priority: Default::default(),
            timeout_ms,
            stale_ms: None,
            may_load: false,
            budgeted: false,
            tensor_memory: 8 << 20,
        };
        let attachment = inference.attach("bench", terms).await?;
        let memory = SharedMemory::map(attachment.memory.try_clone()?)?;
        let arena = Arena::new(memory);
        let socket = attachment.socket.try_clone()?;
        Ok(Self {
            client: InferenceClient::new(socket, PATIENCE, Arc::clone(&arena), Arc::default()),
            arena,
            model,
            shape: Vec::new(),
            input: String::new(),
            output_bytes: 0,
            _attachment: attachment,
            _inference: inference,
        })
    }

    fn open(&mut self) -> Result<()> {
        let opened = self.client.open(self.model, PATIENCE)?;
        let signature = &opened.signature;
        let input = signature.inputs.first().context("the model has no input")?;
        let bytes = signature
            .outputs
            .iter()
            .map(|output| Some(output.element.bytes(&output.fixed_shape()?)?.next_multiple_of(64)));
        self.output_bytes =
            bytes.sum::<Option<usize>>().context("the model's outputs have open sides")?;
        self.shape = input.fixed_shape().context("the model's input has open sides")?;
        self.input = input.name.clone();
        Ok(())
    }

    /// Milliseconds of one run.
    fn run(&mut self) -> Result<f64> {
        let bytes = Element::F32.bytes(&self.shape).context("no size")?;
        let input = Arc::new(self.arena.allocate(bytes).context("no room for the input")?);
        let output = Arc::new(self.arena.allocate(self.output_bytes).context("no room")?);
        let placed = PlacedTensor {
            name: self.input.clone(),
            element: Element::F32,
            shape: self.shape.clone(),
            offset: input.offset() as u64,
        };
        let begun = Instant::now();
        self.client.run(self.model, vec![placed], vec![input], &output, PATIENCE)?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
