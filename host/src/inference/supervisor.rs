//! The task that owns the inference processes and the list of sessions: it gives each session a
//! process, watches the processes by their in-flight tables, and replaces one that dies, hangs or
//! has grown too large.
//!
//! A session's place at a process outlives it: the host keeps duplicates of the session's inference
//! descriptors. When a process is gone, the order matters:
//!
//! 1. Packets that wait in the session's socket are discarded: the worker sends unanswered requests
//!    again when it is greeted, and a request that is answered now must not reach the next process.
//! 2. A request that is refused is answered by the host, on the session's socket.
//! 3. The session is given to the next process, which greets the worker. The worker reads the
//!    answer before the greeting, so it then sends another request. One sent in between is taken
//!    once, by its number.
//!
//! Isolation only selects one process for all sessions, or one for each. All else, the spare
//! process included, is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::in_flight::RunningRequest;
use ocelli_protocol::inference::{Attach, Device, ErrorCode, FromHost, LoadedModel, ServiceLevel};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::attribution::{
    CrashAttribution, DeathCause, MAX_STRIKES, RefusalReason, RequestRefusal,
};
use super::budget::{self, Budget, private_memory};
use super::process::{self, InferenceProcess, ProcessCommand, ProcessDeath, ProcessEvent};
use super::refuse::{Refuser, refuse};
use super::restart_backoff::RestartBackoff;
use super::status::{Duty, ProcessStatus, Restarts};
use super::watchdog::{self, HealthFinding, Watchdog};
use super::{
    CatalogVersion, InferenceProgram, Policy, PublishedState, SessionEndpoint, SupervisorRequest,
};
use crate::util::packet_socket::discard_pending;

/// Processes started at the same time: loading models slows those that serve.
const MAX_STARTING: usize = 2;

/// Time for a replaced process to answer its requests: twice the default limit of one inference.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long the models in use have to stay the same before the process that stands by is replaced
/// by one that has them loaded, too: sessions commonly begin together.
const SPARE_REFRESH_DELAY: Duration = Duration::from_secs(1);

/// Queue of events of processes. A process with more events waits.
const EVENT_QUEUE: usize = 32;

pub(super) struct Supervisor {
    program: Arc<InferenceProgram>,
    policy: Policy,
    inbox: mpsc::Receiver<SupervisorRequest>,
    events: mpsc::Receiver<(u64, ProcessEvent)>,
    /// Cloned for the tasks of processes. Held here so that the channel never closes.
    event_sender: mpsc::Sender<(u64, ProcessEvent)>,
    sessions: BTreeMap<u64, AttachedSession>,
    /// Ready processes by a number that counts up.
    processes: BTreeMap<u64, SupervisedProcess>,
    /// Starting processes, with the version of the catalog that they are configured with.
    starting: BTreeMap<u64, u32>,
    last_key: u64,
    restart_backoff: RestartBackoff,
    attribution: CrashAttribution,
    restarts: Restarts,
    poison: u64,
    newest: Arc<CatalogVersion>,
    /// Names of models that sessions have asked for. New processes preload them.
    used_models: BTreeSet<String>,
    /// When a model was used last, or a catalog version came.
    models_changed_at: Instant,
    checked_at: Instant,
    measured_at: Instant,
    published: Arc<Mutex<PublishedState>>,
}

/// A session that is attached.
struct AttachedSession {
    name: String,
    service: ServiceLevel,
    place: Arc<SessionEndpoint>,
    catalog_version: Arc<CatalogVersion>,
    /// The process that serves it.
    served_by: Option<u64>,
    /// Answers its requests with errors while it is quarantined.
    refuser: Option<Refuser>,
}

/// A process that is ready.
struct SupervisedProcess {
    handle: InferenceProcess,
    duty: Duty,
    since: Instant,
    watchdog: Watchdog,
    memory: u64,
    /// Which catalog versions it knows: it numbers them by their position.
    known_versions: Vec<u32>,
    /// The names of the models loaded before it was ready.
    preloaded: BTreeSet<String>,
    /// Why the host killed it, if it did.
    kill_cause: Option<DeathCause>,
    /// When it took the place of one that had grown too large.
    took_over_at: Option<Instant>,
    /// It has grown too large, and is replaced as soon as another is ready.
    over_budget: bool,
    /// Who takes over its sessions once it is drained, and when it has to be.
    successor: Option<(u64, Instant)>,
}

impl SupervisedProcess {
    fn kill(&mut self, cause: DeathCause) {
        self.kill_cause.get_or_insert(cause);
        self.handle.kill();
    }
}

impl Supervisor {
    /// Starts the first process and waits until it is ready.
    pub(super) async fn start(
        program: InferenceProgram,
        policy: Policy,
        newest: Arc<CatalogVersion>,
        inbox: mpsc::Receiver<SupervisorRequest>,
        published: Arc<Mutex<PublishedState>>,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
        let mut supervisor = Self {
            program: Arc::new(program),
            policy,
            inbox,
            events,
            event_sender,
            sessions: BTreeMap::new(),
            processes: BTreeMap::new(),
            starting: BTreeMap::new(),
            last_key: 0,
            restart_backoff: RestartBackoff::default(),
            attribution: CrashAttribution::default(),
            restarts: Restarts::default(),
            poison: 0,
            newest,
            used_models: BTreeSet::new(),
            models_changed_at: now,
            checked_at: now,
            measured_at: now,
            published,
        };
        supervisor.start_one();
        if let Some((key, ProcessEvent::Started(started))) = supervisor.events.recv().await {
            supervisor.add_process(key, started?);
        }
        supervisor.reconcile();
        supervisor.publish();
        Ok(supervisor)
    }

    /// Serves until the last [`InferenceHandle`](super::InferenceHandle) and
    /// [`InferenceAttachment`](super::InferenceAttachment) are gone; then the processes end.
    pub(super) async fn run(mut self) {
        let mut looks = tokio::time::interval(watchdog::INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                request = self.inbox.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                Some((key, event)) = self.events.recv() => self.on_event(key, event),
                _ = looks.tick() => self.check_processes(Instant::now()),
            };
            if self.reconcile() || changed {
                self.publish();
            }
        }
    }

    /// Handles a request. Here and below: true if the published state has changed.
    fn request(&mut self, request: SupervisorRequest) -> bool {
        match request {
            SupervisorRequest::Attach { number, name, service, place } => {
                let catalog_version = Arc::clone(&self.newest);
                let session = AttachedSession {
                    name,
                    service,
                    place,
                    catalog_version,
                    served_by: None,
                    refuser: None,
                };
                self.sessions.insert(number, session);
            }
            SupervisorRequest::Detach { number } => {
                self.attribution.forget(number);
                let session = self.sessions.remove(&number);
                // A process for all sees the end of the worker's socket by itself.
                if let Some(home) = session.and_then(|session| session.served_by)
                    && self.policy.per_session
                {
                    self.remove_process(home);
                }
            }
            SupervisorRequest::Offer(offered) => {
                if self.newest.offered == offered {
                    return false;
                }
                let number = self.newest.number.saturating_add(1);
                self.newest = Arc::new(CatalogVersion { number, offered });
                self.models_changed_at = Instant::now();
            }
        }
        true
    }

    /// Ends a process whose one session is gone.
    fn remove_process(&mut self, key: u64) {
        let process = self.processes.remove(&key);
        // The process that was to take over its session becomes a spare again.
        if let Some((successor, _)) = process.and_then(|process| process.successor)
            && let Some(successor) = self.processes.get_mut(&successor)
        {
            successor.duty = Duty::Spare;
        }
    }

    fn on_event(&mut self, key: u64, event: ProcessEvent) -> bool {
        match event {
            ProcessEvent::Started(Ok(child)) => self.add_process(key, child),
            ProcessEvent::Started(Err(error)) => {
                tracing::error!(
                    target: "ocelli::inference",
                    "the inference process does not start: {error:#}"
                );
                self.starting.remove(&key);
                self.restart_backoff.failed(Instant::now());
                // A model that cannot be loaded any more must not keep processes from starting.
                self.used_models.clear();
            }
            ProcessEvent::Loaded(model) => {
                let Some(process) = self.processes.get_mut(&key) else { return false };
                warn_of_fallback(&model);
                if self.newest.has(&model) && self.used_models.insert(model.name.clone()) {
                    self.models_changed_at = Instant::now();
                }
                process.handle.add_model(model);
            }
            ProcessEvent::Drained => {
                let drained = |process: &SupervisedProcess| {
                    process.successor.is_some() && process.kill_cause.is_none()
                };
                if self.processes.get(&key).is_some_and(drained) {
                    self.release_sessions(key, &DeathCause::Unrelated, None);
                }
            }
            ProcessEvent::Died(death) => self.died(key, &death),
        }
        true
    }

    /// Begins to start a process with the models of the newest catalog version.
    fn start_one(&mut self) {
        self.last_key += 1;
        let mut configure = self.policy.configure.clone();
        configure.models = self.newest.offered.models.to_vec();
        if self.restart_backoff.has_failed() {
            configure.preload.clear();
        } else {
            configure.preload.extend(self.used_models.iter().cloned());
            configure.preload.sort_unstable();
            configure.preload.dedup();
            configure.preload.retain(|name| self.newest.names(name));
        }
        // No bound for a GPU: its driver reserves far more address space than it uses.
        let on_processor =
            self.newest.offered.models.iter().all(|model| model.device == Device::Cpu);
        configure.memory = self.policy.budget.filter(|_| on_processor).map(Budget::hard_limit);
        self.starting.insert(self.last_key, self.newest.number);
        process::spawn(
            Arc::clone(&self.program),
            configure,
            self.last_key,
            self.event_sender.clone(),
        );
    }

    fn add_process(&mut self, key: u64, child: InferenceProcess) {
        self.restart_backoff.started();
        child.models.iter().for_each(warn_of_fallback);
        let memory = private_memory(child.pid).unwrap_or_default();
        if let Some(budget) = self.policy.budget.filter(|budget| memory > budget.bytes()) {
            tracing::error!(
                target: "ocelli::inference",
                "inference.memory_mb = {} is too small: a fresh inference process uses {} MiB \
                 before it has run anything",
                budget.bytes() >> 20,
                memory >> 20
            );
        }
        let process = SupervisedProcess {
            duty: Duty::Spare,
            since: Instant::now(),
            watchdog: Watchdog::default(),
            memory,
            known_versions: self.starting.remove(&key).into_iter().collect(),
            preloaded: child.models.iter().map(|model| model.name.clone()).collect(),
            kill_cause: None,
            took_over_at: None,
            over_budget: false,
            successor: None,
            handle: child,
        };
        self.processes.insert(key, process);
    }

    fn died(&mut self, key: u64, death: &ProcessDeath) {
        let Some(process) = self.processes.get(&key) else { return };
        let cause = process.kill_cause.clone().unwrap_or(DeathCause::Crash);
        let (pid, duty) = (process.handle.pid, process.duty.name());
        let why = match &cause {
            DeathCause::Crash => {
                self.restarts.crash += 1;
                "died".to_owned()
            }
            DeathCause::Silence => {
                self.restarts.hang += 1;
                let seconds = watchdog::SILENCE.as_secs();
                format!("showed no sign of life for {seconds} s and was killed")
            }
            DeathCause::Overdue(_) => {
                self.restarts.timeout += 1;
                "was killed, since a run went on after its time".to_owned()
            }
            DeathCause::Unrelated => {
                "was killed, since it did not answer in time what it had taken".to_owned()
            }
        };
        tracing::error!(
            target: "ocelli::inference",
            pid,
            duty,
            "the inference process {why}: {}",
            death.in_full()
        );
        self.restart_backoff.died(Instant::now(), process.since.elapsed());
        self.release_sessions(key, &cause, Some(death));
    }

    /// Takes the sessions from a dead or drained process, in the order of the module's docs.
    fn release_sessions(&mut self, key: u64, cause: &DeathCause, death: Option<&ProcessDeath>) {
        let Some(process) = self.processes.remove(&key) else { return };
        let mut served = Vec::new();
        for (number, session) in &mut self.sessions {
            if session.served_by.take_if(|home| *home == key).is_some() {
                discard_pending(&session.place.socket);
                served.push(*number);
            }
        }
        // Entries of sessions that the process does not serve count as company only.
        let mut running: Vec<RunningRequest> =
            death.map_or_else(Vec::new, |_| process.handle.in_flight.running());
        for stranger in running.iter_mut().filter(|entry| !served.contains(&entry.attachment)) {
            stranger.attachment = 0;
        }
        for refusal in self.attribution.on_death(&running, cause) {
            self.refuse(&refusal, death);
        }
        self.attribution.forget(0);
        let successor = process.successor.map(|(successor, _)| successor);
        let successor = successor.filter(|successor| self.processes.contains_key(successor));
        if let Some(successor) = successor {
            served.iter().for_each(|number| self.assign(*number, successor));
        }
        if !served.is_empty() && death.is_some() {
            tracing::info!(
                target: "ocelli::inference",
                sessions = served.len(),
                running = running.len(),
                "the sessions go to the next inference process"
            );
        }
    }

    /// Answers a request that no process may run again.
    fn refuse(&mut self, refusal: &RequestRefusal, death: Option<&ProcessDeath>) {
        let Some(session) = self.sessions.get_mut(&refusal.attachment) else { return };
        let ended = death.map_or_else(String::new, ProcessDeath::in_short);
        let (code, mut message) = match refusal.reason {
            RefusalReason::Poison => {
                self.poison += 1;
                let message = format!(
                    "poison request: the inference process died of it twice, then of {ended}"
                );
                (ErrorCode::RuntimeError, message)
            }
            RefusalReason::TimedOut => {
                let limit = session.service.timeout_ms;
                let message = format!(
                    "time limit: the request went on after its {limit} ms and was ended with the \
                     inference process ({ended})"
                );
                (ErrorCode::Timeout, message)
            }
        };
        if refusal.quarantined {
            message = format!(
                "{message}; {MAX_STRIKES} requests of this session have ended the inference \
                 process: it runs no more of them until the session's worker is replaced"
            );
            match Refuser::start(&session.place, format!("poison session: {message}")) {
                Ok(refuser) => session.refuser = Some(refuser),
                Err(error) => {
                    tracing::error!(
                        target: "ocelli::inference",
                        "requests cannot be refused: {error}"
                    );
                }
            }
        }
        let (name, request) = (&session.name, refusal.request);
        tracing::error!(target: "ocelli::inference", session = name, request, "{message}");
        refuse(&session.place, refusal.request, code, message);
    }

    /// Checks every process by its table, and once a second its memory.
    fn check_processes(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.checked_at, now));
        let measures = now.saturating_duration_since(self.measured_at) >= budget::INTERVAL;
        if measures {
            self.measured_at = now;
        }
        let now_ns = monotonic_ns();
        for process in self.processes.values_mut().filter(|process| process.kill_cause.is_none()) {
            let in_flight = &process.handle.in_flight;
            match process.watchdog.check(
                in_flight.last_heartbeat(),
                &in_flight.running(),
                now_ns,
                since,
            ) {
                HealthFinding::Healthy => {}
                HealthFinding::Silent => process.kill(DeathCause::Silence),
                HealthFinding::Overdue(requests) => process.kill(DeathCause::Overdue(requests)),
            }
            if process.successor.is_some_and(|(_, until)| now >= until) {
                process.kill(DeathCause::Unrelated);
            }
            if measures {
                process.memory = private_memory(process.handle.pid).unwrap_or(process.memory);
                let took_over = process.took_over_at.map(|at| now.saturating_duration_since(at));
                let exceeded = |budget: Budget| budget.is_exceeded(process.memory, took_over);
                if self.policy.budget.is_some_and(exceeded)
                    && process.duty == Duty::Serving
                    && !process.over_budget
                {
                    process.over_budget = true;
                    let (pid, used) = (process.handle.pid, process.memory >> 20);
                    tracing::warn!(
                        target: "ocelli::inference",
                        pid,
                        "the inference process uses {used} MiB, more than inference.memory_mb: \
                         another takes its place"
                    );
                }
            }
        }
        measures
    }

    /// Gives sessions their processes, and starts missing ones. True if something has changed.
    fn reconcile(&mut self) -> bool {
        let now = Instant::now();
        let mut changed = self.replace_over_budget(now);
        if !self.policy.per_session && self.serving().is_none() {
            changed |= self.promote().is_some();
        }
        let unserved: Vec<u64> = self.unserved().collect();
        for number in unserved {
            let home = if self.policy.per_session { self.promote() } else { self.serving() };
            let Some(home) = home else { break };
            self.assign(number, home);
            changed = true;
        }
        // The newest has the models that are in use now.
        let older: Vec<u64> = self.spares().rev().skip(1).collect();
        changed |= !older.is_empty();
        self.processes.retain(|key, _| !older.contains(key));
        self.start_missing(now);
        changed
    }

    /// Drains processes above the budget if others are ready to take over.
    fn replace_over_budget(&mut self, now: Instant) -> bool {
        let over_budget = |process: &SupervisedProcess| {
            process.over_budget && process.successor.is_none() && process.kill_cause.is_none()
        };
        let over_budget: Vec<u64> = self.keys(over_budget).collect();
        let mut changed = false;
        for key in over_budget {
            let Some(next) = self.promote() else { break };
            if let Some(next) = self.processes.get_mut(&next) {
                next.took_over_at = Some(now);
            }
            if let Some(process) = self.processes.get_mut(&key) {
                process.duty = Duty::Draining;
                process.successor = Some((next, now + DRAIN_LIMIT));
                if !process.handle.command(ProcessCommand::Send(FromHost::Drain)) {
                    process.kill(DeathCause::Unrelated);
                }
            }
            self.restarts.memory += 1;
            changed = true;
        }
        changed
    }

    /// Starts as many processes as are missing.
    fn start_missing(&mut self, now: Instant) {
        let unserved = match self.policy.per_session {
            true => self.unserved().count(),
            false => usize::from(self.serving().is_none()),
        };
        let over_budget =
            |process: &&SupervisedProcess| process.over_budget && process.successor.is_none();
        let needed = unserved + self.processes.values().filter(over_budget).count();
        let wanted = needed + usize::from(self.policy.spare);
        let mut missing = wanted.saturating_sub(self.spares().count() + self.starting.len());
        if needed == 0 && self.starting.is_empty() && self.spare_is_outdated(now) {
            missing = 1;
        }
        while missing > 0 && self.starting.len() < MAX_STARTING && self.restart_backoff.allows(now)
        {
            self.start_one();
            missing -= 1;
        }
    }

    /// Whether the process that stands by would have to load models first that are in use.
    fn spare_is_outdated(&self, now: Instant) -> bool {
        let Some(spare) = self.spares().last().and_then(|key| self.processes.get(&key)) else {
            return false;
        };
        let mut used_models = self.used_models.iter().filter(|name| self.newest.names(name));
        self.policy.spare
            && now.saturating_duration_since(self.models_changed_at) >= SPARE_REFRESH_DELAY
            && (spare.known_versions.first() != Some(&self.newest.number)
                || !used_models.all(|name| spare.preloaded.contains(name)))
    }

    /// Sessions that no process serves and that may have one, in the order of their numbers.
    fn unserved(&self) -> impl Iterator<Item = u64> {
        let unserved =
            |session: &AttachedSession| session.served_by.is_none() && session.refuser.is_none();
        self.sessions
            .iter()
            .filter(move |(_, session)| unserved(session))
            .map(|(number, _)| *number)
    }

    /// The process for all.
    fn serving(&self) -> Option<u64> {
        self.keys(|process| process.duty == Duty::Serving).next()
    }

    /// Processes that stand by, the oldest first.
    fn spares(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.keys(|process| process.duty == Duty::Spare && process.kill_cause.is_none())
    }

    /// The processes of which this is so, the oldest first.
    fn keys(
        &self,
        so: impl Fn(&SupervisedProcess) -> bool,
    ) -> impl DoubleEndedIterator<Item = u64> {
        self.processes.iter().filter(move |(_, process)| so(process)).map(|(key, _)| *key)
    }

    /// Has the newest process that stands by serve.
    fn promote(&mut self) -> Option<u64> {
        let key = self.spares().next_back()?;
        self.processes.get_mut(&key)?.duty = Duty::Serving;
        Some(key)
    }

    /// Gives a session to a process.
    fn assign(&mut self, number: u64, key: u64) {
        let (Some(session), Some(process)) =
            (self.sessions.get_mut(&number), self.processes.get_mut(&key))
        else {
            return;
        };
        if session.refuser.is_some() {
            return;
        }
        session.served_by = Some(key);
        let catalog_version = session.catalog_version.number;
        let mut told = true;
        let known = process.known_versions.iter().position(|known| *known == catalog_version);
        let position = known.unwrap_or(process.known_versions.len());
        let local = u32::try_from(position).unwrap_or(u32::MAX);
        if known.is_none() {
            let models = session.catalog_version.offered.models.to_vec();
            told &= process
                .handle
                .command(ProcessCommand::Send(FromHost::Catalog { version: local, models }));
            process.known_versions.push(catalog_version);
        }
        let attach = Attach {
            session: session.name.clone(),
            number,
            catalog_version: local,
            service: session.service,
            suspect: self.attribution.suspect(number),
        };
        told &= process.handle.command(ProcessCommand::Attach(attach, Arc::clone(&session.place)));
        if !told {
            // Its queue is full or closed. The session goes to the next process after its end.
            process.kill(DeathCause::Silence);
        }
    }

    /// Publishes the current state.
    fn publish(&self) {
        let mut sessions = BTreeMap::<u64, usize>::new();
        for home in self.sessions.values().filter_map(|session| session.served_by) {
            *sessions.entry(home).or_default() += 1;
        }
        let mut published = self.published.lock();
        let status = &mut published.status;
        if let Some(process) = self.processes.values().next_back() {
            status.version = Some(process.handle.version.clone());
        }
        status.processes = self
            .processes
            .iter()
            .map(|(key, process)| ProcessStatus {
                pid: process.handle.pid,
                duty: process.duty,
                sessions: sessions.get(key).copied().unwrap_or_default(),
                memory: process.memory,
            })
            .collect();
        status.serves = match self.policy.per_session {
            true => self.unserved().next().is_none(),
            false => self.serving().is_some(),
        };
        status.spare_ready = self.policy.spare.then(|| self.spares().next().is_some());
        status.restarts = self.restarts;
        status.poison = self.poison;
        let serving = self.processes.values().filter(|process| process.duty != Duty::Spare);
        let mut loaded: Vec<LoadedModel> =
            serving.flat_map(|process| process.handle.models.iter().cloned()).collect();
        // The same version may be loaded in several processes.
        loaded.sort_by(|one, other| (&one.name, &one.sha256).cmp(&(&other.name, &other.sha256)));
        loaded.dedup_by(|one, other| one.name == other.name && one.sha256 == other.sha256);
        published.loaded = loaded;
        published.offered = self.newest.offered.clone();
    }
}

fn warn_of_fallback(model: &LoadedModel) {
    if let Some(reason) = &model.fell_back {
        tracing::warn!(
            target: "ocelli::inference",
            "the model {} runs on the processor: {reason}",
            model.name
        );
    }
}
