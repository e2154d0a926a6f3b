//! One component instance in its store. After a trap the store is dropped, never entered again:
//! [`Instance`]'s calls take `&mut self` and a caller that got [`CallError::Trap`] has to drop the
//! instance.

use std::sync::Arc;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::{Description, FrameResult, LogLevel, Timestamps};
use serde_json::{Map, Value};
use wasmtime::component::{Component, Resource};
use wasmtime::{Engine, Store};

use super::deadline::{Ticker, install, run_bounded, start_call};
use super::frames::FrameHandle;
use super::limits::LimitExceeded;
use super::output::{self, MAX_RESULT_BYTES, MAX_SNAPSHOT};
use super::state::{HostServices, InstanceState, MAX_HANDLES};
use super::versions::{LinkedComponent, PipelineInstance};
use crate::host_link::truncate;
use crate::kv_store::SharedKvStore;
use crate::redis_bridge::RedisBucket;
use crate::video::Frame;

/// Why a call into the component brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The component's own answer: it may be called again.
    #[error("{0}")]
    Refused(String),
    /// The instance is lost.
    #[error("{message}")]
    Trap {
        /// The limit that it ran into, where it was one.
        limit: Option<Limit>,
        /// The cause, what the component said last, and the wasm backtrace.
        message: String,
    },
}

/// A component whose imports are found, from which instances are made.
pub struct InstanceFactory {
    engine: Engine,
    driver: Arc<CallDriver>,
    component: LinkedComponent,
    surroundings: HostServices,
}

impl InstanceFactory {
    /// Links a component. A version of the contract that this host does not serve is an error, and
    /// so is an import that it does not offer.
    pub fn new(
        engine: &Engine,
        component: &Component,
        surroundings: HostServices,
    ) -> Result<Self, CallError> {
        let linked =
            || Ok((LinkedComponent::new(engine, component)?, Arc::new(CallDriver::new(engine)?)));
        let (component, driver) = linked().map_err(|error| trap(&error))?;
        Ok(Self { engine: engine.clone(), driver, component, surroundings })
    }

    /// What the session keeps, for whoever answers for it to the host.
    pub fn kv_store(&self) -> &SharedKvStore {
        &self.surroundings.kv_store
    }

    /// What the session was granted of Redis.
    pub fn redis(&self) -> &RedisBucket {
        &self.surroundings.redis
    }

    /// A new instance, with nothing of those before it: what they put into the session's store and
    /// the host was not told is undone. A memory over its limit is an error. `settings` is what it
    /// finds in `wasi:config/store`.
    pub fn instance(&self, settings: Map<String, Value>) -> Result<Instance, CallError> {
        self.surroundings.log.forget_frame();
        self.surroundings.kv_store.lock().reset();
        let mut store =
            Store::new(&self.engine, InstanceState::new(self.surroundings.clone(), settings));
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(MAX_HANDLES);
        install(&mut store);
        let driver = Arc::clone(&self.driver);
        let component = driver.run(&mut store, MAX_RESULT_BYTES, async |store| {
            self.component.instantiate(store).await
        })?;
        Ok(Instance { driver, store, component, last: None })
    }
}

/// A component, ready to be called.
pub struct Instance {
    driver: Arc<CallDriver>,
    store: Store<InstanceState>,
    component: PipelineInstance,
    /// The number of the frame that it got last.
    last: Option<u64>,
}

impl Instance {
    /// What the component says of itself.
    pub fn describe(&mut self) -> Result<Description, CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| component.describe(store).await)
    }

    /// Gives the component its settings, a JSON object.
    pub fn init(&mut self, settings: &str) -> Result<(), CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| component.init(store, settings).await)?
            .map_err(refused)
    }

    /// Asks the component a question, JSON.
    pub fn command(&mut self, request: &str) -> Result<String, CallError> {
        self.call(MAX_RESULT_BYTES, async |component, store| {
            component.command(store, request).await
        })?
        .map_err(refused)
    }

    /// The component's state.
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
        let skipped = skipped(self.last.replace(frame.number), frame.number);
        let state = self.store.data_mut();
        state.log.set_frame(frame.number);
        state.inferred_ns = 0;
        let handle = state.table.push(FrameHandle { frame: Arc::clone(&frame), skipped });
        let handle = handle.map_err(|error| lost(state, &error.into()))?;
        let borrowed = Resource::new_borrow(handle.rep());
        let returned = self.call(MAX_RESULT_BYTES, async |component, store| {
            component.process(store, borrowed).await
        })?;
        let state = self.store.data_mut();
        state.table.delete(handle).map_err(|error| lost(state, &error.into()))?;
        let output = output::output(&mut state.table, returned.map_err(refused)?, &state.limits);
        let output = output.map_err(|error| lost(state, &error))?;
        let inferred = if state.inferred_ns == 0 { submitted } else { state.inferred_ns };
        Ok(FrameResult {
            frame: frame.number,
            capture_ns: frame.capture_ns,
            width: frame.picture.width(),
            height: frame.picture.height(),
            detections: output.detections,
            events: output.events,
            timestamps: Timestamps {
                received: frame.received_ns,
                decoded: frame.decoded_ns,
                submitted,
                inferred,
                emitted: monotonic_ns(),
            },
        })
    }

    /// Makes one call that may return up to `max_returned` bytes.
    fn call<T>(
        &mut self,
        max_returned: usize,
        call: impl AsyncFnOnce(&PipelineInstance, &mut Store<InstanceState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let component = &self.component;
        self.driver.run(&mut self.store, max_returned, async |store| call(component, store).await)
    }
}

/// Runs calls, each within its limits.
struct CallDriver {
    runtime: tokio::runtime::Runtime,
    ticker: Ticker,
}

impl CallDriver {
    fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { runtime, ticker: Ticker::start(engine)? })
    }

    fn run<T>(
        &self,
        store: &mut Store<InstanceState>,
        max_returned: usize,
        call: impl AsyncFnOnce(&mut Store<InstanceState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        start_call(store, max_returned);
        let (host_calls, limits) = (Arc::clone(&store.data().host_calls), store.data().limits);
        let ticking = self.ticker.during_call();
        let called =
            self.runtime.block_on(async { run_bounded(call(store), &host_calls, &limits).await });
        drop(ticking);
        match called {
            Ok(Ok(value)) => {
                store.data().log.report_dropped_if_due();
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

/// The component's own words, which may be long.
fn refused(message: String) -> CallError {
    CallError::Refused(truncate(&message).to_owned())
}

/// Says what led to the loss of the instance: wasm itself tells a panic, denied memory and a bug
/// all as `unreachable`.
fn lost(state: &mut InstanceState, error: &wasmtime::Error) -> CallError {
    let (limit, mut text) = cause(state, error);
    let said = state.stderr.take_tail();
    if !said.is_empty() {
        text += &format!("it said: {said}; ");
    }
    text += &format!("{error:?}");
    state.log.report_dropped();
    state.log.own_line(LogLevel::Error, &text);
    CallError::Trap { limit, message: text }
}

/// The limit behind an error, which is counted, and a text that names it.
fn cause(state: &mut InstanceState, error: &wasmtime::Error) -> (Option<Limit>, String) {
    let exceeded = LimitExceeded::from_error(error);
    if let Some(exceeded) = &exceeded {
        state.tally.count_limit(exceeded.limit);
    }
    // What was refused in this call has been counted already.
    match exceeded.or_else(|| state.limiter.take_refusal()) {
        Some(exceeded) => (Some(exceeded.limit), format!("{exceeded}; ")),
        // First, because some who tell it tell the first line alone: the whole error begins with
        // the backtrace.
        None => (None, format!("{}; ", error.root_cause())),
    }
}

fn trap(error: &wasmtime::Error) -> CallError {
    CallError::Trap { limit: None, message: format!("{error:?}") }
}
