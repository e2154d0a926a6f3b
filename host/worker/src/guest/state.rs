//! What stands behind a component's imports.

use std::sync::Arc;

use ocelli_protocol::worker::Level;
use serde_json::{Map, Value};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::Limiter;
use super::support::Console;
use crate::arena::Arena;
use crate::host_link::HostLink;
use crate::inference::Client;
use crate::video::Resampler;

/// Most handles that a component may hold at a time: tensors, frames, contexts, streams. A pipeline holds a few dozen;
/// one that never drops its handles is told so instead of filling the process's memory.
const MAX_HANDLES: usize = 10_000;

/// The host's side of one instance.
pub struct State {
    /// Everything that the component holds a handle to.
    pub table: ResourceTable,
    /// WASI without files, sockets, arguments or environment.
    pub wasi: WasiCtx,
    /// Bounds on memories and tables.
    pub limiter: Limiter,
    /// Where tensors lie.
    pub arena: Arc<Arena>,
    /// The way to the models.
    pub inference: Client,
    /// Makes tensors of pictures.
    pub resampler: Resampler,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// The component's standard error: a panic's message goes there.
    pub stderr: Console,
    /// The number of the frame in work.
    pub frame: Option<u64>,
    /// Inferences so far.
    pub inferences: u64,
    /// When the last inference of the current call had answered, on the monotonic clock; 0 if there was none.
    pub inferred_ns: u64,
    /// CPU time of the thread at which the current call has used up its share, in nanoseconds.
    pub cpu_deadline_ns: u64,
    host: HostLink,
}

impl State {
    /// The state of a new instance.
    pub fn new(
        host: HostLink,
        arena: Arc<Arena>,
        inference: Client,
        settings: Map<String, Value>,
        guest_memory_limit: usize,
    ) -> Self {
        let stderr = Console::new(host.clone(), Level::Warn, "stderr");
        let wasi = WasiCtx::builder()
            .stdout(Console::new(host.clone(), Level::Info, "stdout"))
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            table,
            wasi,
            limiter: Limiter::new(guest_memory_limit),
            arena,
            inference,
            resampler: Resampler::new(),
            settings,
            stderr,
            frame: None,
            inferences: 0,
            inferred_ns: 0,
            cpu_deadline_ns: u64::MAX,
            host,
        }
    }

    /// Writes a line to the session's log, with the frame in work.
    pub fn log(&self, level: Level, context: &str, message: &str) {
        self.host.log(level, context, message, self.frame);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
