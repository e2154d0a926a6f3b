//! The thread that keeps the time: it ends runs whose deadline has passed, answers requests that
//! have waited too long while every runner is busy, and shows the host that the process is alive.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::in_flight::InFlightTable;
use ort::session::RunOptions;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// How often the process shows that it is alive. Half of the 500 ms that the host waits beyond a
/// deadline before it kills the process, so that one late sign of life is not taken for none; four
/// times a second costs nothing.
const BEAT_NS: u64 = 250_000_000;

/// The runs under way, and the ledger that tells the host of them.
pub(crate) struct DeadlineTimer {
    ledger: InFlightTable,
    state: Mutex<TimerState>,
    changed: Condvar,
}

struct TimerState {
    /// One for each runner.
    runs: Vec<TimedRun>,
    /// When the thread looks next.
    wake_ns: u64,
    /// The earliest time that it was asked to look at since it looked last.
    asked_ns: u64,
    stopped: bool,
}

struct TimedRun {
    options: Arc<RunOptions>,
    /// None while nothing runs, and once the run was told to end.
    deadline_ns: Option<u64>,
    terminated: bool,
}

impl DeadlineTimer {
    /// For as many runners as options.
    pub(crate) fn new(
        ledger: InFlightTable,
        options: impl IntoIterator<Item = Arc<RunOptions>>,
    ) -> Self {
        let run = |options| TimedRun { options, deadline_ns: None, terminated: false };
        let runs = options.into_iter().map(run).collect();
        ledger.record_heartbeat(monotonic_ns());
        Self {
            ledger,
            state: Mutex::new(TimerState { runs, wake_ns: 0, asked_ns: u64::MAX, stopped: false }),
            changed: Condvar::new(),
        }
    }

    /// The ledger, where runners note what they run.
    pub(crate) fn ledger(&self) -> &InFlightTable {
        &self.ledger
    }

    /// A run begins. It is told to end at its deadline.
    pub(crate) fn begin(&self, runner: usize, deadline_ns: u64) {
        let mut state = self.state.lock();
        if let Some(run) = state.runs.get_mut(runner) {
            run.deadline_ns = Some(deadline_ns);
        }
        self.look_by(state, deadline_ns);
    }

    /// A run is over: whether it was told to end.
    pub(crate) fn end(&self, runner: usize) -> bool {
        let mut state = self.state.lock();
        let Some(run) = state.runs.get_mut(runner) else { return false };
        run.deadline_ns = None;
        if !run.terminated {
            return false;
        }
        run.terminated = false;
        if let Err(error) = run.options.unterminate() {
            tracing::error!(%error, "the next run of this thread will be refused");
        }
        true
    }

    /// Has the thread look at this time, if it would not look sooner.
    pub(crate) fn wake_by(&self, time_ns: u64) {
        self.look_by(self.state.lock(), time_ns);
    }

    fn look_by(&self, mut state: MutexGuard<'_, TimerState>, time_ns: u64) {
        state.asked_ns = state.asked_ns.min(time_ns);
        if time_ns < state.wake_ns {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Keeps the time until [stopped](Self::stop). `answer_late` answers what has waited too long
    /// at a time and tells when there will be more.
    pub(crate) fn run(&self, answer_late: impl Fn(u64) -> Option<u64>) {
        loop {
            let now = monotonic_ns();
            self.ledger.record_heartbeat(now);
            self.state.lock().asked_ns = u64::MAX;
            let late = answer_late(now);
            let mut state = self.state.lock();
            if state.stopped {
                return;
            }
            let times = [state.terminate_overdue(now), late, Some(state.asked_ns)];
            let wake_ns = times.into_iter().flatten().fold(now.saturating_add(BEAT_NS), u64::min);
            state.wake_ns = wake_ns;
            let left = Duration::from_nanos(wake_ns.saturating_sub(monotonic_ns()));
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Tells all runs to end, for good: those that begin later end at once.
    pub(crate) fn terminate_all(&self) {
        for run in &self.state.lock().runs {
            if let Err(error) = run.options.terminate() {
                tracing::debug!(%error, "cannot end a run");
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }
}

impl TimerState {
    /// Tells the runs whose deadline has passed to end, and when the next deadline is.
    fn terminate_overdue(&mut self, now_ns: u64) -> Option<u64> {
        for run in &mut self.runs {
            if run.deadline_ns.is_some_and(|deadline| deadline <= now_ns) {
                run.deadline_ns = None;
                match run.options.terminate() {
                    Ok(()) => run.terminated = true,
                    Err(error) => tracing::error!(%error, "cannot end a run that takes too long"),
                }
            }
        }
        self.runs.iter().filter_map(|run| run.deadline_ns).min()
    }
}
