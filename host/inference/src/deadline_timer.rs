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

/// The runs under way, and the table that shows them to the host.
pub(crate) struct DeadlineTimer {
    in_flight: InFlightTable,
    state: Mutex<TimerState>,
    changed: Condvar,
}

struct TimerState {
    /// One for each runner.
    runs: Vec<TimedRun>,
    /// When the thread wakes next.
    wake_ns: u64,
    /// The earliest wake-up requested since the last one.
    asked_ns: u64,
    stopped: bool,
}

struct TimedRun {
    options: Arc<RunOptions>,
    /// `None` while nothing runs, and after the run was terminated.
    deadline_ns: Option<u64>,
    terminated: bool,
}

impl DeadlineTimer {
    /// For as many runners as options.
    pub(crate) fn new(
        in_flight: InFlightTable,
        options: impl IntoIterator<Item = Arc<RunOptions>>,
    ) -> Self {
        let run = |options| TimedRun { options, deadline_ns: None, terminated: false };
        let runs = options.into_iter().map(run).collect();
        in_flight.record_heartbeat(monotonic_ns());
        Self {
            in_flight,
            state: Mutex::new(TimerState { runs, wake_ns: 0, asked_ns: u64::MAX, stopped: false }),
            changed: Condvar::new(),
        }
    }

    /// The table in which runners note their requests.
    pub(crate) fn in_flight(&self) -> &InFlightTable {
        &self.in_flight
    }

    /// Starts the timer of a run, which is terminated at its deadline.
    pub(crate) fn begin(&self, runner: usize, deadline_ns: u64) {
        let mut state = self.state.lock();
        if let Some(run) = state.runs.get_mut(runner) {
            run.deadline_ns = Some(deadline_ns);
        }
        self.look_by(state, deadline_ns);
    }

    /// Stops the timer of a run. Whether the run was terminated.
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

    /// Wakes the thread at this time at the latest.
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

    /// Keeps the time until [stopped](Self::stop). `answer_late` answers requests that have waited
    /// too long, and returns the time of the next.
    pub(crate) fn run(&self, answer_late: impl Fn(u64) -> Option<u64>) {
        loop {
            let now = monotonic_ns();
            self.in_flight.record_heartbeat(now);
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

    /// Terminates all runs for good: later ones end at once.
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
    /// Terminates the runs whose deadline has passed. Returns the next deadline.
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
