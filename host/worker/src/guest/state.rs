//! The state of one component instance, and one view of it for each capability that the component
//! may import.
//!
//! A capability keeps its own part (`FramesState`, `NnState`, `KeyValueState`) with private
//! fields. The linker calls a host function with the view that a getter here makes: the
//! capability's part, the handle table, and the limits. No capability reaches another one's part.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::limit::Limit;
use ocelli_protocol::model::ModelDescriptions;
use ocelli_protocol::worker::{LogLevel, WorkerLimits};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::boxes::BoxesView;
use super::config::GuestSettings;
use super::console::Console;
use super::deadline::{CallBudget, install_limits};
use super::frames::{FramesState, FramesView};
use super::keyvalue::{KeyValueState, KeyValueView};
use super::limits::{Limiter, MAX_HANDLES};
use super::log::GuestLog;
use super::models::DescribedModels;
use super::newest::results;
use super::nn::{NnState, NnView};
use super::output::{self, Output};
use super::resources::FrameHandle;
use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::directories::Directories;
use crate::host_link::HostLink;
use crate::inference::InferenceClient;
use crate::kv_store::SharedKvStore;
use crate::redis_bridge::RedisBucket;

/// Bytes that a component may pass to the host in one call besides a tensor: names, a log line.
const ARGUMENT_OVERHEAD: usize = 1 << 20;

/// Random bytes that a component may ask for at a time. Seeds and keys take a few dozen.
const MAX_RANDOM: u64 = 1 << 20;

/// The services that all instances of a worker share. Cheap to clone.
#[derive(Clone)]
pub struct HostServices {
    log: GuestLog,
    arena: Arc<Arena>,
    inference: Arc<Mutex<InferenceClient>>,
    kv_store: SharedKvStore,
    redis: RedisBucket,
    directories: Directories,
    models: Arc<ModelDescriptions>,
    limits: WorkerLimits,
    counters: Arc<SharedCounters>,
}

impl HostServices {
    /// With the inherited `socket` to the inference process.
    pub fn new(
        host: HostLink,
        arena: Arc<Arena>,
        socket: OwnedFd,
        redis: RedisBucket,
        limits: WorkerLimits,
        counters: Arc<SharedCounters>,
    ) -> Self {
        counters.set_tensors(&arena);
        let log = GuestLog::new(host, Arc::clone(&counters), limits.log_lines_per_second);
        let timeout = Duration::from_millis(u64::from(limits.inference_timeout_ms));
        let inference =
            InferenceClient::new(socket, timeout, Arc::clone(&arena), Arc::clone(&counters));
        Self {
            log,
            arena,
            inference: Arc::new(Mutex::new(inference)),
            kv_store: SharedKvStore::new(&limits),
            redis,
            directories: Directories::default(),
            models: Arc::default(),
            limits,
            counters,
        }
    }

    /// The same with the folders that the session was granted.
    #[must_use]
    pub fn with_directories(self, directories: Directories) -> Self {
        Self { directories, ..self }
    }

    /// The same with what the host tells of its models.
    #[must_use]
    pub fn with_models(self, models: ModelDescriptions) -> Self {
        Self { models: Arc::new(models), ..self }
    }

    /// The folders that the session was granted.
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    pub fn log(&self) -> &GuestLog {
        &self.log
    }

    /// The session's key-value store.
    pub fn kv_store(&self) -> &SharedKvStore {
        &self.kv_store
    }

    /// The session's bucket in Redis.
    pub fn redis(&self) -> &RedisBucket {
        &self.redis
    }
}

/// The host's side of one instance: the content of its store.
pub struct InstanceState {
    table: ResourceTable,
    /// WASI without sockets, arguments or environment, and without files but those of the folders
    /// that the session was granted.
    wasi: WasiCtx,
    limiter: Limiter,
    call: CallBudget,
    frames: FramesState,
    nn: NnState,
    keyvalue: KeyValueState,
    models: DescribedModels,
    settings: GuestSettings,
    log: GuestLog,
    /// A panic's message goes there.
    stderr: Console,
}

impl InstanceState {
    /// The state of a new instance. `settings` is the content of `wasi:config/store`.
    ///
    /// # Errors
    /// A folder that the session was granted cannot be opened.
    pub fn new(services: HostServices, settings: Map<String, Value>) -> wasmtime::Result<Self> {
        let HostServices { log, arena, inference, kv_store, redis, directories, .. } = services;
        let HostServices { models, limits, counters, .. } = services;
        let stderr = Console::new(log.clone(), LogLevel::Warn, "stderr");
        let mut wasi = WasiCtx::builder();
        directories.preopen(&mut wasi)?;
        let wasi = wasi
            .stdout(Console::new(log.clone(), LogLevel::Info, "stdout"))
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            // A worker starts no threads once it is sealed.
            .allow_blocking_current_thread(true)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        // The largest argument is a tensor that fills the shared memory.
        let max_argument_bytes = arena.capacity().saturating_add(ARGUMENT_OVERHEAD);
        Ok(Self {
            table,
            wasi,
            limiter: Limiter::new(limits.guest_memory, counters),
            call: CallBudget::new(limits, max_argument_bytes),
            frames: FramesState::new(Arc::clone(&arena)),
            nn: NnState::new(arena, inference),
            keyvalue: KeyValueState::new(kv_store, redis),
            models: DescribedModels(models),
            settings: GuestSettings(settings),
            log,
            stderr,
        })
    }

    /// Puts the state into a store in which every limit is in force.
    pub(super) fn into_store(self, engine: &Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(MAX_HANDLES);
        install_limits(&mut store, |state| &state.call);
        store
    }

    /// `frames`, of every version of the contract.
    pub(super) fn frames(&mut self) -> FramesView<'_> {
        self.frames.view(&mut self.table, &mut self.limiter)
    }

    /// `boxes`.
    pub(super) fn boxes(&mut self) -> BoxesView<'_> {
        BoxesView::new(&self.table)
    }

    /// `wasi:nn`.
    pub(super) fn nn(&mut self) -> NnView<'_> {
        self.nn.view(&mut self.table, &mut self.limiter, &self.call)
    }

    /// `wasi:keyvalue`.
    pub(super) fn keyvalue(&mut self) -> KeyValueView<'_> {
        self.keyvalue.view(&mut self.table, &self.call)
    }

    /// Whether nothing that outlives the call may be written from now on: a query is under way.
    pub(super) fn set_read_only(&mut self, read_only: bool) {
        self.keyvalue.set_read_only(read_only);
    }

    /// Whether the next frame is that of a dry run.
    pub(super) fn set_dry_run(&mut self, dry_run: bool) {
        self.nn.set_dry_run(dry_run);
    }

    /// `models`.
    pub(super) fn models(&mut self) -> &mut DescribedModels {
        &mut self.models
    }

    /// `wasi:config`.
    pub(super) fn settings(&mut self) -> &mut GuestSettings {
        &mut self.settings
    }

    /// `wasi:logging`.
    pub(super) fn log(&mut self) -> &mut GuestLog {
        &mut self.log
    }

    /// The handles, for a function that the linker defines by itself.
    pub(super) fn table(&self) -> &ResourceTable {
        &self.table
    }

    /// The budget of the call under way.
    pub(super) fn call(&self) -> &CallBudget {
        &self.call
    }

    /// Starts the budget of a call that may return up to `max_result_bytes`.
    pub(super) fn start_call(&mut self, max_result_bytes: usize) {
        self.call.start(max_result_bytes);
        // A refusal that an earlier call survived explains nothing in this one.
        self.limiter.take_refusal();
    }

    /// Gives the component a handle to a frame. The following log lines are about that frame.
    pub(super) fn begin_frame(
        &mut self,
        frame: FrameHandle,
    ) -> wasmtime::Result<Resource<FrameHandle>> {
        self.log.set_frame(frame.frame.number);
        self.nn.forget_answers();
        self.frames.begin_frame();
        Ok(self.table.push(frame)?)
    }

    /// Takes the handle back. Gives when the frame's last inference had answered, on the monotonic
    /// clock in nanoseconds.
    pub(super) fn end_frame(
        &mut self,
        frame: Resource<FrameHandle>,
    ) -> wasmtime::Result<Option<u64>> {
        self.table.delete(frame)?;
        Ok(self.nn.last_answer_ns())
    }

    /// Converts the output of `process`. An output over a limit is an error.
    pub(super) fn convert(&mut self, output: results::Output) -> wasmtime::Result<Output> {
        output::output(&mut self.table, output, self.call.limits())
    }

    /// Logs why the instance is lost, and gives the limit behind it, which is counted: wasm itself
    /// reports a panic, denied memory and a bug alike as `unreachable`.
    pub(super) fn explain(&mut self, error: &wasmtime::Error) -> (Option<Limit>, String) {
        let exceeded = self.limiter.explain(error);
        // The cause and the last words are the first line, since some readers show no more; the
        // whole error begins with the backtrace.
        let mut text = match &exceeded {
            Some(exceeded) => exceeded.to_string(),
            None => error.root_cause().to_string(),
        };
        let tail = self.stderr.take_tail();
        if !tail.is_empty() {
            text += "; it said:";
            tail.split_whitespace().for_each(|word| text.extend([" ", word]));
        }
        text += &format!("\n{error:?}");
        self.log.report_dropped();
        self.log.own_line(LogLevel::Error, &text);
        (exceeded.map(|exceeded| exceeded.limit), text)
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(test)]
pub(crate) mod tests;
