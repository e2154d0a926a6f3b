//! What stands behind a component's imports.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ocelli_protocol::clock::{monotonic_ns, thread_cpu_ns};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{LogLevel, WorkerLimits};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::deadline::CallDeadline;
use super::limits::Limiter;
use super::log::GuestLog;
use super::output::MAX_RESULT_BYTES;
use super::support::Console;
use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::host_link::HostLink;
use crate::inference::InferenceClient;
use crate::kv_store::SharedKvStore;
use crate::redis_bridge::RedisBucket;
use crate::video::Resampler;

/// Most handles that a component may hold at a time: tensors, frames, contexts, streams. A pipeline
/// holds a few dozen; one that never drops its handles is told so instead of filling the process's
/// memory.
pub const MAX_HANDLES: usize = 10_000;

/// Bytes that a component may hand to the host in one call besides a tensor: names, a log line.
const ARGUMENT_OVERHEAD: usize = 1 << 20;

/// Random bytes that a component may ask for at a time. Seeds and keys take a few dozen.
const MAX_RANDOM: u64 = 1 << 20;

/// Most bytes of encoded pictures that a component may hold: they lie in the worker's memory, not
/// in its own. Twenty of a 4K camera.
const MAX_IMAGE_BYTES: usize = 64 << 20;

/// What one instance after another of a worker uses. Cheap to clone.
#[derive(Clone)]
pub struct HostServices {
    /// Where components' lines go.
    pub log: GuestLog,
    /// Where tensors lie.
    pub arena: Arc<Arena>,
    /// The way to the models.
    pub inference: Arc<Mutex<InferenceClient>>,
    /// What the session keeps.
    pub kv_store: SharedKvStore,
    /// What it was granted of Redis.
    pub redis: RedisBucket,
    /// What a component may use.
    pub limits: WorkerLimits,
    /// Where what it ran into is counted.
    pub tally: Arc<SharedCounters>,
}

impl HostServices {
    /// With the inherited `socket` to the inference process.
    pub fn new(
        host: HostLink,
        arena: Arc<Arena>,
        socket: OwnedFd,
        granted: RedisBucket,
        limits: WorkerLimits,
        tally: Arc<SharedCounters>,
    ) -> Self {
        let log = GuestLog::new(host, Arc::clone(&tally), limits.log_lines_per_second);
        let timeout = Duration::from_millis(u64::from(limits.inference_timeout_ms));
        let inference =
            InferenceClient::new(socket, timeout, Arc::clone(&arena), Arc::clone(&tally));
        Self {
            log,
            arena,
            inference: Arc::new(Mutex::new(inference)),
            kv_store: SharedKvStore::new(&limits),
            redis: granted,
            limits,
            tally,
        }
    }
}

/// The host's side of one instance.
pub struct InstanceState {
    /// Everything that the component holds a handle to.
    pub table: ResourceTable,
    /// WASI without files, sockets, arguments or environment.
    pub wasi: WasiCtx,
    /// Bounds on memories and tables.
    pub limiter: Limiter,
    /// Where tensors lie.
    pub arena: Arc<Arena>,
    /// The way to the models.
    inference: Arc<Mutex<InferenceClient>>,
    /// Makes tensors of pictures.
    pub resampler: Resampler,
    /// What the session keeps.
    pub kv_store: SharedKvStore,
    /// What it was granted of Redis.
    pub redis: RedisBucket,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// The component's standard error: a panic's message goes there.
    pub stderr: Console,
    /// Where its lines go.
    pub log: GuestLog,
    /// What it may use.
    pub limits: WorkerLimits,
    /// Where what it ran into is counted.
    pub tally: Arc<SharedCounters>,
    /// Room for its encoded pictures.
    pub pictures: ImageBudget,
    /// When the last inference of the current call had answered, on the monotonic clock; 0 if there
    /// was none.
    pub inferred_ns: u64,
    /// What the current call may still use.
    pub deadline: CallDeadline,
    /// Calls from the component to the host so far.
    pub host_calls: Arc<AtomicU64>,
    /// Bytes that it may hand to the host in one call.
    pub max_argument_bytes: usize,
    /// Bytes that the current call may return.
    pub max_result_bytes: usize,
}

impl InstanceState {
    /// The state of a new instance with these settings.
    pub fn new(surroundings: HostServices, settings: Map<String, Value>) -> Self {
        let HostServices { log, arena, inference, kv_store: kept, redis: granted, limits, tally } =
            surroundings;
        let stderr = Console::new(log.clone(), LogLevel::Warn, "stderr");
        let wasi = WasiCtx::builder()
            .stdout(Console::new(log.clone(), LogLevel::Info, "stdout"))
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            table,
            wasi,
            limiter: Limiter::new(limits.guest_memory, Arc::clone(&tally)),
            // The largest thing that it can hand over is a tensor that fills the shared memory.
            max_argument_bytes: arena.capacity().saturating_add(ARGUMENT_OVERHEAD),
            arena,
            inference,
            resampler: Resampler::new(),
            kv_store: kept,
            redis: granted,
            settings,
            stderr,
            log,
            limits,
            tally,
            pictures: ImageBudget::default(),
            inferred_ns: 0,
            deadline: CallDeadline::after(thread_cpu_ns(), monotonic_ns(), &limits),
            host_calls: Arc::default(),
            max_result_bytes: MAX_RESULT_BYTES,
        }
    }

    /// Asks the inference process, with the time that the current call has left.
    pub fn with_inference<T>(
        &mut self,
        question: impl FnOnce(&mut InferenceClient, Duration) -> T,
    ) -> T {
        // One thread calls components: the lock is never waited for.
        let mut client = self.inference.lock();
        question(&mut client, self.deadline.clock_left(monotonic_ns()))
    }

    /// Counts and remembers a refusal that the component may survive.
    pub fn refuse(&mut self, limit: Limit, message: &str) {
        self.limiter.refuse(limit, message.to_owned());
    }
}

/// Bytes of encoded pictures that a component holds.
#[derive(Debug, Clone, Default)]
pub struct ImageBudget(Arc<AtomicUsize>);

impl ImageBudget {
    /// Room for `bytes` until what is returned is dropped, or none where too many are held.
    pub fn reserve(&self, bytes: usize) -> Option<ImageLease> {
        let held = self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let taken = ImageLease { room: self.clone(), bytes };
        if held > MAX_IMAGE_BYTES { None } else { Some(taken) }
    }

    /// Most bytes that are held at a time.
    pub fn capacity(&self) -> usize {
        MAX_IMAGE_BYTES
    }
}

/// Room that is taken. Dropping it gives it back.
#[derive(Debug)]
pub struct ImageLease {
    room: ImageBudget,
    bytes: usize,
}

impl Drop for ImageLease {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Limits that no test runs into by accident.
    pub(crate) fn limits() -> WorkerLimits {
        WorkerLimits {
            memory: 1 << 30,
            open_files: 64,
            guest_memory: 16 << 20,
            call_cpu_ms: 60_000,
            call_timeout_ms: 120_000,
            host_call_ms: 120_000,
            inference_timeout_ms: 60_000,
            events_per_frame: 100,
            event_bytes: 256 << 10,
            attachments_per_frame: 16,
            log_lines_per_second: 1000,
            image_pixels: 1 << 20,
            store_bytes: 1 << 20,
            store_keys: 1000,
        }
    }

    #[test]
    fn pictures_have_room_up_to_the_limit_and_give_it_back() {
        let room = ImageBudget::default();
        let most = room.reserve(MAX_IMAGE_BYTES).unwrap();
        assert!(room.reserve(1).is_none());
        assert!(room.reserve(1).is_none(), "what was refused takes no room");
        drop(most);
        assert!(room.reserve(MAX_IMAGE_BYTES).is_some());
    }
}
