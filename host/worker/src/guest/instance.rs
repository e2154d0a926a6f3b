//! One component instance in its store. After a trap the store is dropped, never entered again: [`Instance`]'s calls take
//! `&mut self` and a caller that got [`CallError::Trap`] has to drop the instance.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::worker::{Description, FrameResult, Level, Stations};
use wasmtime::component::{Component, Linker, Resource};
use wasmtime::{Engine, Store, Trap};

use super::bindings::CameraPipeline;
use super::frames::FrameHandle;
use super::limits::{Ticker, install_cpu_limit, start_call};
use super::state::State;
use super::{nn, output};
use crate::video::Frame;

/// How long a call may take by the clock. CPU time is bounded far lower; this ends a component that sleeps.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call into the component brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The component's own answer: it may be called again.
    #[error("{0}")]
    Refused(String),
    /// The instance is lost. The text names the cause, and has the wasm backtrace.
    #[error("{0}")]
    Trap(String),
}

/// A component, ready to be called.
pub struct Instance {
    runtime: tokio::runtime::Runtime,
    store: Store<State>,
    component: CameraPipeline,
    ticker: Ticker,
    cpu_limit: Duration,
}

impl Instance {
    /// Instantiates a component. An import that this host does not offer, or a memory over its limit, is an error.
    pub fn new(
        engine: &Engine,
        component: &Component,
        state: State,
        cpu_limit: Duration,
    ) -> wasmtime::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        CameraPipeline::add_to_linker::<State, wasmtime::component::HasSelf<State>>(&mut linker, |state| {
            state
        })?;
        nn::shadow_tensor_data(&mut linker)?;

        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        install_cpu_limit(&mut store);
        let ticker = Ticker::start(engine)?;
        start_call(&mut store, cpu_limit);
        let ticking = ticker.during_call();
        let instantiated =
            runtime.block_on(CameraPipeline::instantiate_async(&mut store, component, &linker));
        drop(ticking);
        let component = instantiated.map_err(|error| match store.data_mut().limiter.take_refused() {
            Some(refused) => error.context(format!("the component was refused {refused}")),
            None => error,
        })?;
        Ok(Self { runtime, store, component, ticker, cpu_limit })
    }

    /// What the component says of itself.
    pub fn describe(&mut self) -> Result<Description, CallError> {
        self.call(async |component, store| component.ocelli_pipeline_pipeline().call_describe(store).await)
            .map(output::description)
    }

    /// Gives the component its settings, a JSON object.
    pub fn init(&mut self, settings: &str) -> Result<(), CallError> {
        self.call(async |component, store| {
            component.ocelli_pipeline_pipeline().call_init(store, settings).await
        })?
        .map_err(CallError::Refused)
    }

    /// Asks the component a question, JSON.
    pub fn command(&mut self, request: &str) -> Result<String, CallError> {
        self.call(async |component, store| {
            component.ocelli_pipeline_pipeline().call_command(store, request).await
        })?
        .map_err(CallError::Refused)
    }

    /// The component's state.
    pub fn snapshot(&mut self) -> Result<Vec<u8>, CallError> {
        self.call(async |component, store| component.ocelli_pipeline_pipeline().call_snapshot(store).await)
    }

    /// Gives the component the state of another instance.
    pub fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), CallError> {
        self.call(async |component, store| {
            component.ocelli_pipeline_pipeline().call_restore(store, version, state).await
        })?
        .map_err(CallError::Refused)
    }

    /// Lets the component process a frame.
    pub fn process(&mut self, frame: Frame) -> Result<FrameResult, CallError> {
        let submitted = monotonic_ns();
        let frame = Arc::new(frame);
        let state = self.store.data_mut();
        state.frame = Some(frame.number);
        state.inferred_ns = 0;
        let handle =
            state.table.push(FrameHandle(Arc::clone(&frame))).map_err(|error| trap(&error.into()))?;
        let borrowed = Resource::new_borrow(handle.rep());
        let returned = self.call(async |component, store| {
            component.ocelli_pipeline_pipeline().call_process(store, borrowed).await
        })?;
        let state = self.store.data_mut();
        let removed = state.table.delete(handle).map_err(|error| trap(&error.into()));
        removed?;
        let output = output::output(&mut state.table, returned.map_err(CallError::Refused)?);
        let output = output.map_err(|error| trap(&error))?;
        let inferred = if state.inferred_ns == 0 { submitted } else { state.inferred_ns };
        Ok(FrameResult {
            frame: frame.number,
            capture_ns: frame.capture_ns,
            width: frame.picture.width(),
            height: frame.picture.height(),
            detections: output.detections,
            events: output.events,
            stations: Stations {
                received: frame.received_ns,
                decoded: frame.decoded_ns,
                submitted,
                inferred,
                emitted: monotonic_ns(),
            },
        })
    }

    /// Inferences that the component has asked for so far.
    pub fn inferences(&self) -> u64 {
        self.store.data().inferences
    }

    /// Makes one call within its share of CPU time and its time limit.
    fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&CameraPipeline, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        start_call(&mut self.store, self.cpu_limit);
        let ticking = self.ticker.during_call();
        let (component, store) = (&self.component, &mut self.store);
        let called =
            self.runtime.block_on(async { tokio::time::timeout(CALL_TIMEOUT, call(component, store)).await });
        drop(ticking);
        match called {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(CallError::Trap(format!("the call took longer than {} s", CALL_TIMEOUT.as_secs()))),
        }
    }

    /// Says what led to a trap: wasm itself tells a panic, denied memory and a bug all as `unreachable`.
    fn explain(&mut self, error: &wasmtime::Error) -> CallError {
        let cpu_limit = self.cpu_limit;
        let state = self.store.data_mut();
        let mut text = String::new();
        if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
            text += &format!("the call used more than {} ms of CPU time; ", cpu_limit.as_millis());
        }
        if let Some(refused) = state.limiter.take_refused() {
            text += &format!("the component was refused {refused}; ");
        }
        let said = state.stderr.take_tail();
        if !said.is_empty() {
            text += &format!("it said: {said}; ");
        }
        text += &format!("{error:?}");
        state.log(Level::Error, "worker", &text);
        CallError::Trap(text)
    }
}

fn trap(error: &wasmtime::Error) -> CallError {
    CallError::Trap(format!("{error:?}"))
}
