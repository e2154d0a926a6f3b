//! The time of a call into a component: CPU time, time by the clock, and time by the clock in one
//! call back to the host.
//!
//! The epoch's callback checks a component that computes, at every [`TICK`]. A component that waits
//! does so inside a host function that has handed the thread back to the driver ([`run_bounded`]).
//! A hook of the store counts the calls to the host, and the count tells the driver whether the
//! component still waits in the same one. Host functions that never hand the thread back do bounded
//! work, or have a timeout of their own, as inference does.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use ocelli_protocol::clock::{monotonic_ns, thread_cpu_ns};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::WorkerLimits;
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use wasmtime::{CallHook, Engine, Store, UpdateDeadline};

use super::limits::LimitExceeded;

/// How often a running call is looked at. A call may overrun its share by this much; each look
/// costs some 0.1 ms of CPU.
const TICK: Duration = Duration::from_millis(50);

/// Advances the engine's epoch while a call runs, so that the call can be looked at; rests between
/// calls.
pub(super) struct Ticker {
    shared: Arc<TickerState>,
}

struct TickerState {
    running: Mutex<bool>,
    changed: Condvar,
    over: AtomicBool,
}

impl Ticker {
    /// Starts the thread. It ends when the ticker is dropped.
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = TickerState {
            running: Mutex::new(false),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        };
        let shared = Arc::new(state);
        let (state, engine) = (Arc::clone(&shared), engine.clone());
        std::thread::Builder::new().name("epoch".into()).spawn(move || state.tick(&engine))?;
        Ok(Self { shared })
    }

    /// Ticks until the returned guard is dropped.
    pub(super) fn during_call(&self) -> Ticking {
        self.shared.set(true);
        Ticking { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.set(true);
    }
}

/// A call is running.
pub(super) struct Ticking {
    shared: Arc<TickerState>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.set(false);
    }
}

impl TickerState {
    fn set(&self, running: bool) {
        *self.running.lock() = running;
        // Starting wakes the thread from its rest; stopping need not: it looks after its tick.
        if running {
            self.changed.notify_one();
        }
    }

    fn tick(&self, engine: &Engine) {
        loop {
            let mut running = self.running.lock();
            self.changed.wait_while(&mut running, |running| !*running);
            // Woken early only by `over`, or by the start of a following call, which then is looked
            // at a little early.
            self.changed.wait_for(&mut running, TICK);
            drop(running);
            if self.over.load(Ordering::Acquire) {
                return;
            }
            engine.increment_epoch();
        }
    }
}

/// When the call under way has to be over.
#[derive(Debug, Clone, Copy)]
struct CallDeadline {
    /// CPU time of the thread, in nanoseconds.
    cpu_ns: u64,
    /// On the monotonic clock, in nanoseconds.
    clock_ns: u64,
    limits: (u32, u32),
}

impl CallDeadline {
    /// Of a call that starts when the thread has used `cpu_ns` and the clock shows `clock_ns`.
    fn after(cpu_ns: u64, clock_ns: u64, limits: &WorkerLimits) -> Self {
        let nanoseconds = |milliseconds: u32| u64::from(milliseconds).saturating_mul(1_000_000);
        Self {
            cpu_ns: cpu_ns.saturating_add(nanoseconds(limits.call_cpu_ms)),
            clock_ns: clock_ns.saturating_add(nanoseconds(limits.call_timeout_ms)),
            limits: (limits.call_cpu_ms, limits.call_timeout_ms),
        }
    }

    /// The time that the call has left by the clock.
    fn clock_left(&self, clock_ns: u64) -> Duration {
        Duration::from_nanos(self.clock_ns.saturating_sub(clock_ns))
    }

    /// Whether the call may go on. Waiting, for inference say, uses no CPU time.
    fn check(&self, cpu_ns: u64, clock_ns: u64) -> Result<(), LimitExceeded> {
        let (cpu, clock) = self.limits;
        if cpu_ns > self.cpu_ns {
            return Err(LimitExceeded::new(
                Limit::CpuTime,
                format!("the call used more than {cpu} ms of CPU time"),
            ));
        }
        if clock_ns > self.clock_ns {
            return Err(call_time(clock));
        }
        Ok(())
    }
}

fn call_time(milliseconds: u32) -> LimitExceeded {
    LimitExceeded::new(Limit::CallTime, format!("the call took longer than {milliseconds} ms"))
}

/// The budget of the call under way: its time, and the bytes that it may pass to the host and
/// return.
pub(super) struct CallBudget {
    limits: WorkerLimits,
    deadline: CallDeadline,
    /// Calls from the component to the host so far.
    host_calls: Arc<AtomicU64>,
    max_argument_bytes: usize,
    max_result_bytes: usize,
}

impl CallBudget {
    /// The budget before the first call. One call to the host may pass `max_argument_bytes`.
    pub(super) fn new(limits: WorkerLimits, max_argument_bytes: usize) -> Self {
        Self {
            deadline: CallDeadline::after(thread_cpu_ns(), monotonic_ns(), &limits),
            limits,
            host_calls: Arc::default(),
            max_argument_bytes,
            max_result_bytes: 0,
        }
    }

    /// Starts a call that may return up to `max_result_bytes`.
    pub(super) fn start(&mut self, max_result_bytes: usize) {
        self.deadline = CallDeadline::after(thread_cpu_ns(), monotonic_ns(), &self.limits);
        self.max_result_bytes = max_result_bytes;
    }

    /// The limits of the worker.
    pub(super) fn limits(&self) -> &WorkerLimits {
        &self.limits
    }

    /// The count of calls to the host, for [`run_bounded`].
    pub(super) fn host_calls(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.host_calls)
    }

    /// The time that the call has left by the clock.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.clock_left(monotonic_ns())
    }
}

/// Makes the store check its call at every tick, count its calls to the host, and bound the bytes
/// of each.
pub(super) fn install_limits<T>(store: &mut Store<T>, budget: fn(&T) -> &CallBudget) {
    store.epoch_deadline_callback(move |context| {
        budget(context.data()).deadline.check(thread_cpu_ns(), monotonic_ns())?;
        Ok(UpdateDeadline::Continue(1))
    });
    store.call_hook(move |mut context, transition| {
        // Wasmtime takes the fuel afresh for each set of values that it lifts: a host call's
        // arguments after the first of these, the results of a call into the component after the
        // second.
        let budget = budget(context.data());
        let fuel = match transition {
            CallHook::CallingHost => {
                budget.host_calls.fetch_add(1, Ordering::Relaxed);
                budget.max_argument_bytes
            }
            CallHook::ReturningFromWasm => budget.max_result_bytes,
            CallHook::CallingWasm | CallHook::ReturningFromHost => return Ok(()),
        };
        context.set_hostcall_fuel(fuel);
        Ok(())
    });
}

/// The time that one call to the host has left.
#[derive(Debug)]
struct HostCallTimer {
    limit: Duration,
    /// The call waited in: its number, and when it was first found to wait.
    current: Option<(u64, Instant)>,
}

impl HostCallTimer {
    /// When the wait is over that was found at `now` in the host call of this number.
    fn deadline(&mut self, number: u64, now: Instant) -> Instant {
        let since = match self.current {
            Some((current, since)) if current == number => since,
            _ => now,
        };
        self.current = Some((number, since));
        since + self.limit
    }
}

/// Drives a call until it has ended, or has waited too long: in one call to the host, or
/// altogether. `host_calls` is the number of calls to the host so far.
pub(super) async fn run_bounded<T>(
    call: impl Future<Output = T>,
    host_calls: &AtomicU64,
    limits: &WorkerLimits,
) -> Result<T, LimitExceeded> {
    let milliseconds = |limit: u32| Duration::from_millis(u64::from(limit));
    let end = Instant::now() + milliseconds(limits.call_timeout_ms);
    let mut host_call = HostCallTimer { limit: milliseconds(limits.host_call_ms), current: None };
    let mut timer = pin!(tokio::time::sleep_until(end));
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = call.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        let now = Instant::now();
        let host_end = host_call.deadline(host_calls.load(Ordering::Relaxed), now);
        if now >= host_end {
            let message =
                format!("the component waited longer than {} ms for the host", limits.host_call_ms);
            return Poll::Ready(Err(LimitExceeded::new(Limit::HostCall, message)));
        }
        if now >= end {
            return Poll::Ready(Err(call_time(limits.call_timeout_ms)));
        }
        let next = host_end.min(end);
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        if timer.as_mut().poll(context).is_ready() {
            // The time came just now: the next poll says which.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::limits;
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_call_is_ended_by_its_own_cpu_time_or_by_the_clock() {
        let deadline = CallDeadline::after(
            500,
            900,
            &WorkerLimits { call_cpu_ms: 10, call_timeout_ms: 70, ..limits() },
        );
        deadline.check(500 + 10 * MILLISECOND, 900 + 70 * MILLISECOND).unwrap();
        let used = deadline.check(501 + 10 * MILLISECOND, 900).unwrap_err();
        assert_eq!(used.to_string(), "limit cpu_time: the call used more than 10 ms of CPU time");
        let late = deadline.check(500, 901 + 70 * MILLISECOND).unwrap_err();
        assert_eq!(late.to_string(), "limit call_time: the call took longer than 70 ms");
    }

    #[test]
    fn each_host_call_has_its_own_time() {
        let mut host_call = HostCallTimer { limit: Duration::from_secs(10), current: None };
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(host_call.deadline(1, later(0)), later(10));
        assert_eq!(host_call.deadline(1, later(9)), later(10), "woken, and it waits on");
        assert_eq!(host_call.deadline(2, later(9)), later(19), "another call");
    }

    fn driven<T>(call: impl Future<Output = T>, limits: &WorkerLimits) -> Result<T, LimitExceeded> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { run_bounded(call, &AtomicU64::new(1), limits).await })
    }

    #[test]
    fn a_call_that_ends_in_time_brings_its_value() {
        let slept = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            7
        };
        assert_eq!(driven(slept, &limits()), Ok(7));
    }

    #[test]
    fn a_wait_for_ever_is_ended_by_the_shorter_of_its_limits() {
        let shorter = WorkerLimits { host_call_ms: 20, ..limits() };
        let ended = driven(std::future::pending::<()>(), &shorter).unwrap_err();
        assert_eq!(
            ended.to_string(),
            "limit host_call: the component waited longer than 20 ms for the host"
        );
        let shorter = WorkerLimits { call_timeout_ms: 20, ..limits() };
        assert_eq!(
            driven(std::future::pending::<()>(), &shorter).unwrap_err().limit,
            Limit::CallTime
        );
    }
}
