//! One component instance in its store. After a trap the store is never entered again: a caller
//! that got [`CallError::Trap`] has to drop the [`Instance`].

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::limit::{Limit, truncate_line};
use ocelli_protocol::worker::{Description, FrameResult, Timestamps};
use serde_json::{Map, Value};
use wasmtime::component::{Component, Resource};
use wasmtime::{Engine, Store};

use super::deadline::{Ticker, run_bounded};
use super::output::{MAX_RESULT_BYTES, MAX_SNAPSHOT, Output};
use super::resources::FrameHandle;
use super::state::{HostServices, InstanceState};
use super::versions::{LinkedComponent, PipelineInstance};
use crate::kv_store::SharedKvStore;
use crate::redis_bridge::RedisBucket;
use crate::video::Frame;

/// Why a call into the component failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The component returned an error and may be called again.
    #[error("{0}")]
    Refused(String),
    /// The instance is lost.
    #[error("{message}")]
    Trap {
        /// The limit that it ran into, if any.
        limit: Option<Limit>,
        /// The cause, the component's last output, and the wasm backtrace.
        message: String,
    },
}

/// Makes instances of a linked component.
pub struct InstanceFactory {
    engine: Engine,
    driver: Arc<CallDriver>,
    component: LinkedComponent,
    services: HostServices,
}

impl InstanceFactory {
    /// Links a component. A version of the contract that this host does not serve is an error, and
    /// so is an import that it does not offer.
    pub fn new(
        engine: &Engine,
        component: &Component,
        services: HostServices,
    ) -> Result<Self, CallError> {
        let linked = || {
            let driver = CallDriver::new(engine, !services.directories().is_empty())?;
            Ok((LinkedComponent::new(engine, component)?, Arc::new(driver)))
        };
        let trap =
            |error: wasmtime::Error| CallError::Trap { limit: None, message: format!("{error:?}") };
        let (component, driver) = linked().map_err(trap)?;
        Ok(Self { engine: engine.clone(), driver, component, services })
    }

    /// The session's key-value store.
    pub fn kv_store(&self) -> &SharedKvStore {
        self.services.kv_store()
    }

    /// The session's bucket in Redis.
    pub fn redis(&self) -> &RedisBucket {
        self.services.redis()
    }

    /// A new instance that knows nothing of those before it: their changes of the session's store
    /// that the host has not been sent are undone. A memory over its limit is an error. `settings`
    /// is the content of `wasi:config/store`.
    pub fn instance(&self, settings: Map<String, Value>) -> Result<Instance, CallError> {
        self.services.log().forget_frame();
        self.services.kv_store().lock().reset();
        let state = InstanceState::new(self.services.clone(), settings).map_err(|error| {
            CallError::Trap { limit: None, message: format!("its folders: {error:?}") }
        })?;
        let mut store = state.into_store(&self.engine);
        let driver = Arc::clone(&self.driver);
        let component = driver.run(&mut store, MAX_RESULT_BYTES, async |store| {
            self.component.instantiate(store).await
        })?;
        Ok(Instance { driver, store, component, last_frame: None })
    }
}

/// A component, ready to be called.
pub struct Instance {
    driver: Arc<CallDriver>,
    store: Store<InstanceState>,
    component: PipelineInstance,
    /// The number of the last frame that it got.
    last_frame: Option<u64>,
}

impl Instance {
    /// The component's description of its pipeline.
    pub fn describe(&mut self) -> Result<Description, CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| component.describe(store).await)
    }

    /// Gives the component its settings, a JSON object.
    pub fn init(&mut self, settings: &str) -> Result<(), CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| component.init(store, settings).await)?
            .map_err(refused)
    }

    /// Asks the component a question, JSON. It can write nothing meanwhile. `None`: its version of
    /// the contract has no queries.
    pub fn query(&mut self, request: &str) -> Result<Option<String>, CallError> {
        self.store.data_mut().set_read_only(true);
        let answer = self
            .call(MAX_RESULT_BYTES, async |component, store| component.query(store, request).await);
        self.store.data_mut().set_read_only(false);
        answer?.transpose().map_err(refused)
    }

    /// Gives the component a command, JSON.
    pub fn command(&mut self, request: &str) -> Result<String, CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| {
            component.command(store, request).await
        })?
        .map_err(refused)
    }

    pub fn snapshot(&mut self) -> Result<Vec<u8>, CallError> {
        self.call(MAX_SNAPSHOT, async |component, store| component.snapshot(store).await)
    }

    /// Gives the component the state of another instance.
    pub fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| {
            component.restore(store, version, state).await
        })?
        .map_err(refused)
    }

    /// Lets the component process a frame.
    pub fn process(&mut self, frame: Arc<Frame>) -> Result<FrameResult, CallError> {
        let submitted = monotonic_ns();
        let skipped = skipped(self.last_frame.replace(frame.number), frame.number);
        let handle = FrameHandle { frame: Arc::clone(&frame), skipped };
        let handle = self.with_state(|state| state.begin_frame(handle))?;
        let borrowed = Resource::new_borrow(handle.rep());
        let returned = self.call(MAX_RESULT_BYTES, async |component, store| {
            component.process(store, borrowed).await
        })?;
        let answered = self.with_state(|state| state.end_frame(handle))?;
        let output = returned.map_err(refused)?;
        let Output { detections, events, basis } =
            self.with_state(|state| state.convert(output))?;
        Ok(FrameResult {
            frame: frame.number,
            presentation_ns: frame.shown_ns,
            capture_ns: frame.capture_ns,
            capture_clock: frame.capture_clock,
            width: frame.picture.width(),
            height: frame.picture.height(),
            detections,
            events,
            basis,
            timestamps: Timestamps {
                received: frame.received_ns,
                decoded: frame.decoded_ns,
                submitted,
                inferred: answered.unwrap_or(submitted),
                emitted: monotonic_ns(),
            },
        })
    }

    /// As [`process`](Self::process), where the result is to show what the component does: its
    /// models may run whatever else waits for them.
    pub fn dry_run(&mut self, frame: Arc<Frame>) -> Result<FrameResult, CallError> {
        self.store.data_mut().set_dry_run(true);
        let result = self.process(frame);
        self.store.data_mut().set_dry_run(false);
        result
    }

    /// Does something on the host's side of the instance. An error loses the instance.
    fn with_state<T>(
        &mut self,
        change: impl FnOnce(&mut InstanceState) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let state = self.store.data_mut();
        change(state).map_err(|error| lost(state, &error))
    }

    /// Makes one call that may return up to `max_result_bytes` bytes.
    fn call<T>(
        &mut self,
        max_result_bytes: usize,
        call: impl AsyncFnOnce(&PipelineInstance, &mut Store<InstanceState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let component = &self.component;
        self.driver
            .run(&mut self.store, max_result_bytes, async |store| call(component, store).await)
    }
}

/// Longer than any worker lives: its thread for files is never idle for too long.
const AGE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Runs calls, each within its limits.
struct CallDriver {
    runtime: tokio::runtime::Runtime,
    ticker: Ticker,
}

impl CallDriver {
    /// `reads_files`: the component was granted folders. WASI reads and writes their streams on the
    /// runtime's thread for what blocks, of which there is one: it is started here, since none is
    /// once the worker is sealed, and stays.
    fn new(engine: &Engine, reads_files: bool) -> wasmtime::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .thread_keep_alive(AGE)
            .build()?;
        if reads_files {
            runtime.block_on(runtime.spawn_blocking(|| ()))?;
        }
        Ok(Self { runtime, ticker: Ticker::start(engine)? })
    }

    fn run<T>(
        &self,
        store: &mut Store<InstanceState>,
        max_result_bytes: usize,
        call: impl AsyncFnOnce(&mut Store<InstanceState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        store.set_epoch_deadline(1);
        store.data_mut().start_call(max_result_bytes);
        let budget = store.data().call();
        let (host_calls, limits) = (budget.host_calls(), *budget.limits());
        let ticking = self.ticker.during_call();
        let called =
            self.runtime.block_on(async { run_bounded(call(store), &host_calls, &limits).await });
        drop(ticking);
        match called {
            Ok(Ok(value)) => {
                store.data_mut().log().report_dropped_if_due();
                Ok(value)
            }
            Ok(Err(error)) => Err(lost(store.data_mut(), &error)),
            Err(exceeded) => Err(lost(store.data_mut(), &exceeded.into())),
        }
    }
}

/// Frames between the one that an instance got before and this one. A source that begins again
/// counts from 0 again.
fn skipped(before: Option<u64>, number: u64) -> u64 {
    before.map_or(0, |before| number.saturating_sub(before).saturating_sub(1))
}

/// The component's error text, which may be long.
fn refused(message: String) -> CallError {
    CallError::Refused(truncate_line(&message).to_owned())
}

/// The instance is lost by this error, which is logged with its cause.
fn lost(state: &mut InstanceState, error: &wasmtime::Error) -> CallError {
    let (limit, message) = state.explain(error);
    CallError::Trap { limit, message }
}
