//! The task that owns the inference processes and the list of sessions: it gives each session a
//! process, watches the processes by their ledgers, and puts another in the place of one that dies,
//! hangs or has grown too large.
//!
//! A session's place at a process outlives it: the host keeps a duplicate of the inference end of
//! the session's socket and of its memory. When a process is gone, this happens in an order that
//! matters:
//!
//! 1. What still waits in the session's socket is thrown away: the worker sends what has no answer
//!    again when it is greeted, and nothing of a request that is answered now may reach the next
//!    process.
//! 2. A request that is refused is answered by the host, on the session's socket.
//! 3. The session is given to the next process, which greets the worker. The worker reads the
//!    answer before the greeting, so what it sends then is another request. One that it has sent in
//!    between is taken once, by its number.
//!
//! Who serves whom differs by isolation alone: one process for all sessions, or one for each.
//! Everything else, the process that stands by included, is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::in_flight::RunningRequest;
use ocelli_protocol::inference::{
    Attach, Configure, Device, ErrorCode, FromHost, LoadedModel, MAX_PACKET, ServiceLevel,
};
use parking_lot::Mutex;
use rustix::net::RecvFlags;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::attribution::{
    CrashAttribution, DeathCause, MAX_STRIKES, RefusalReason, RequestRefusal,
};
use super::budget::{self, Budget, BudgetVerdict, private_memory};
use super::process::{
    self, InferenceProcess, InferenceProgram, ProcessCommand, ProcessDeath, ProcessEvent,
};
use super::refuse::{Refuser, refuse};
use super::restart_backoff::RestartBackoff;
use super::status::{Duty, ProcessStatus, PublishedState, Restarts};
use super::watchdog::{self, HealthFinding, Watchdog};
use super::{CatalogVersion, SessionEndpoint, SupervisorRequest};

/// Processes that are started at the same time: loading models takes the processor from those that
/// serve.
const MAX_STARTING: usize = 2;

/// How long a process that is to be replaced may take over the requests that it has: twice what one
/// inference of a stream may take by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long the models in use have to stay the same before the process that stands by is replaced
/// by one that has them loaded, too: sessions commonly begin together.
const SETTLED: Duration = Duration::from_secs(1);

/// Words of processes that wait to be heard. A process that says more waits itself.
const SAID: usize = 32;

/// How the supervisor works.
pub(super) struct Policy {
    /// Whether each session has a process of its own.
    pub(super) per_session: bool,
    /// Whether a process stands by.
    pub(super) spare: bool,
    pub(super) budget: Option<Budget>,
    /// What every process is told at its start, the names of the models to preload included; its
    /// models are those of the newest generation.
    pub(super) configure: Configure,
}

pub(super) struct Supervisor {
    program: Arc<InferenceProgram>,
    policy: Policy,
    inbox: mpsc::Receiver<SupervisorRequest>,
    said: mpsc::Receiver<(u64, ProcessEvent)>,
    /// For the tasks of processes; kept here, so that there is always an end to hear.
    say: mpsc::Sender<(u64, ProcessEvent)>,
    sessions: BTreeMap<u64, AttachedSession>,
    /// Those that are ready, by a number that counts up.
    processes: BTreeMap<u64, SupervisedProcess>,
    /// Those that are being started, with the generation that they are configured with.
    starting: BTreeMap<u64, u32>,
    last_key: u64,
    pace: RestartBackoff,
    blame: CrashAttribution,
    restarts: Restarts,
    poison: u64,
    newest: Arc<CatalogVersion>,
    /// The names of models that sessions have asked for. Processes that are started from now on
    /// preload them.
    learned: BTreeSet<String>,
    /// When a model was learned last, or a generation came.
    learned_at: Instant,
    looked_at: Instant,
    measured_at: Instant,
    shown: Arc<Mutex<PublishedState>>,
}

/// A session that is attached.
struct AttachedSession {
    name: String,
    service: ServiceLevel,
    place: Arc<SessionEndpoint>,
    generation: Arc<CatalogVersion>,
    /// The process that serves it.
    home: Option<u64>,
    /// Answers its requests where no process may see them any more.
    refuser: Option<Refuser>,
}

/// A process that is ready.
struct SupervisedProcess {
    child: InferenceProcess,
    duty: Duty,
    since: Instant,
    pulse: Watchdog,
    memory: u64,
    /// Which generations it knows: it numbers them by their position.
    offered: Vec<u32>,
    /// The names of what it loaded before it was ready.
    preloaded: BTreeSet<String>,
    /// Why the host has killed it.
    killed: Option<DeathCause>,
    /// When it took the place of one that had grown too large.
    relieved: Option<Instant>,
    /// It has grown too large, and is replaced as soon as another is ready.
    tired: bool,
    /// Who takes over its sessions once it is drained, and when it has to be.
    successor: Option<(u64, Instant)>,
}

impl SupervisedProcess {
    fn kill(&mut self, cause: DeathCause) {
        self.killed.get_or_insert(cause);
        self.child.kill();
    }
}

impl Supervisor {
    /// Starts the first process and waits until it is ready.
    pub(super) async fn start(
        program: InferenceProgram,
        policy: Policy,
        newest: Arc<CatalogVersion>,
        inbox: mpsc::Receiver<SupervisorRequest>,
        shown: Arc<Mutex<PublishedState>>,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let (say, said) = mpsc::channel(SAID);
        let mut supervisor = Self {
            program: Arc::new(program),
            policy,
            inbox,
            said,
            say,
            sessions: BTreeMap::new(),
            processes: BTreeMap::new(),
            starting: BTreeMap::new(),
            last_key: 0,
            pace: RestartBackoff::default(),
            blame: CrashAttribution::default(),
            restarts: Restarts::default(),
            poison: 0,
            newest,
            learned: BTreeSet::new(),
            learned_at: now,
            looked_at: now,
            measured_at: now,
            shown,
        };
        supervisor.start_one();
        if let Some((key, ProcessEvent::Started(started))) = supervisor.said.recv().await {
            supervisor.take_in(key, started?);
        }
        supervisor.settle();
        supervisor.show();
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
                Some((key, said)) = self.said.recv() => self.hear(key, said),
                _ = looks.tick() => self.look(Instant::now()),
            };
            if self.settle() || changed {
                self.show();
            }
        }
    }

    /// Handles a request. True where there is something new to show, here and below.
    fn request(&mut self, request: SupervisorRequest) -> bool {
        match request {
            SupervisorRequest::Attach { number, name, service, place } => {
                let generation = Arc::clone(&self.newest);
                let session =
                    AttachedSession { name, service, place, generation, home: None, refuser: None };
                self.sessions.insert(number, session);
            }
            SupervisorRequest::Detach { number } => {
                self.blame.forget(number);
                let session = self.sessions.remove(&number);
                // A process for all sees the end of the worker's socket by itself.
                if let Some(home) = session.and_then(|session| session.home)
                    && self.policy.per_session
                {
                    self.dismiss(home);
                }
            }
            SupervisorRequest::Offer(models) => {
                if *self.newest.models == *models {
                    return false;
                }
                let number = self.newest.number.saturating_add(1);
                self.newest = Arc::new(CatalogVersion { number, models });
                self.learned_at = Instant::now();
            }
        }
        true
    }

    /// Ends a process whose one session is gone.
    fn dismiss(&mut self, key: u64) {
        let process = self.processes.remove(&key);
        // Who was to take its session over has nobody to serve.
        if let Some((successor, _)) = process.and_then(|process| process.successor)
            && let Some(successor) = self.processes.get_mut(&successor)
        {
            successor.duty = Duty::Spare;
        }
    }

    fn hear(&mut self, key: u64, said: ProcessEvent) -> bool {
        match said {
            ProcessEvent::Started(Ok(child)) => self.take_in(key, child),
            ProcessEvent::Started(Err(error)) => {
                tracing::error!(target: "ocelli::inference", "the inference process does not \
                    start: {error:#}");
                self.starting.remove(&key);
                self.pace.failed(Instant::now());
                // A model that cannot be loaded any more must not keep processes from starting.
                self.learned.clear();
            }
            ProcessEvent::Loaded(model) => {
                let Some(process) = self.processes.get_mut(&key) else { return false };
                warn_of_fallback(&model);
                if self.newest.has(&model) && self.learned.insert(model.name.clone()) {
                    self.learned_at = Instant::now();
                }
                process.child.models.push(model);
            }
            ProcessEvent::Drained => {
                let drained = |process: &SupervisedProcess| {
                    process.successor.is_some() && process.killed.is_none()
                };
                if self.processes.get(&key).is_some_and(drained) {
                    self.gone(key, &DeathCause::Unrelated, None);
                }
            }
            ProcessEvent::Died(death) => self.died(key, &death),
        }
        true
    }

    /// Begins to start a process with the models of the newest generation.
    fn start_one(&mut self) {
        self.last_key += 1;
        let mut configure = self.policy.configure.clone();
        configure.models = self.newest.models.to_vec();
        if self.pace.has_failed() {
            configure.preload.clear();
        } else {
            configure.preload.extend(self.learned.iter().cloned());
            configure.preload.sort_unstable();
            configure.preload.dedup();
            configure.preload.retain(|name| self.newest.names(name));
        }
        // Where a model runs on a GPU there is no bound: its driver reserves address space far
        // beyond what it uses.
        let on_processor = self.newest.models.iter().all(|model| model.device == Device::Cpu);
        configure.memory = self.policy.budget.filter(|_| on_processor).map(Budget::hard_limit);
        self.starting.insert(self.last_key, self.newest.number);
        process::spawn(Arc::clone(&self.program), configure, self.last_key, self.say.clone());
    }

    fn take_in(&mut self, key: u64, child: InferenceProcess) {
        self.pace.started();
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
            pulse: Watchdog::default(),
            memory,
            offered: self.starting.remove(&key).into_iter().collect(),
            preloaded: child.models.iter().map(|model| model.name.clone()).collect(),
            killed: None,
            relieved: None,
            tired: false,
            successor: None,
            child,
        };
        self.processes.insert(key, process);
    }

    fn died(&mut self, key: u64, death: &ProcessDeath) {
        let Some(process) = self.processes.get(&key) else { return };
        let cause = process.killed.clone().unwrap_or(DeathCause::Crash);
        let (pid, duty) = (process.child.pid, process.duty.name());
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
        tracing::error!(target: "ocelli::inference", pid, duty, "the inference process {why}: \
            {}", death.in_full());
        self.pace.died(Instant::now(), process.since.elapsed());
        self.gone(key, &cause, Some(death));
    }

    /// Takes the sessions of a process that serves no more: it has died, or it is drained. The
    /// module's first lines tell what happens in which order.
    fn gone(&mut self, key: u64, cause: &DeathCause, death: Option<&ProcessDeath>) {
        let Some(process) = self.processes.remove(&key) else { return };
        let served: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.home == Some(key))
            .map(|(n, _)| *n)
            .collect();
        // What a process says of sessions that it does not serve is company for the others, and no
        // more.
        let running: Vec<RunningRequest> =
            death.map_or_else(Vec::new, |_| process.child.ledger.running());
        let stranger = |running: RunningRequest| match served.contains(&running.attachment) {
            true => running,
            false => RunningRequest { attachment: 0, ..running },
        };
        let running: Vec<RunningRequest> = running.into_iter().map(stranger).collect();
        for number in &served {
            if let Some(session) = self.sessions.get_mut(number) {
                session.home = None;
                discard_pending(&session.place.socket);
            }
        }
        for refusal in self.blame.on_death(&running, cause) {
            self.refuse(&refusal, death);
        }
        self.blame.forget(0);
        let successor = process.successor.map(|(successor, _)| successor);
        let successor = successor.filter(|successor| self.processes.contains_key(successor));
        if let Some(successor) = successor {
            served.iter().for_each(|number| self.give(*number, successor));
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

    /// Answers a request that no process is to see again.
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
                        inference process \
                     ({ended})"
                );
                (ErrorCode::Timeout, message)
            }
        };
        if refusal.quarantined {
            message = format!(
                "{message}; {MAX_STRIKES} requests of this session have ended the inference \
                    process: it runs no more of \
                 them until the session's worker is replaced"
            );
            match Refuser::start(&session.place, format!("poison session: {message}")) {
                Ok(refuser) => session.refuser = Some(refuser),
                Err(error) => {
                    tracing::error!(target: "ocelli::inference", "requests cannot be refused: \
                        {error}");
                }
            }
        }
        tracing::error!(target: "ocelli::inference", session = session.name, request = refusal.request, "{message}");
        refuse(&session.place, refusal.request, code, message);
    }

    /// Looks at every process by its ledger, and now and then at its memory.
    fn look(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        let measures = now.saturating_duration_since(self.measured_at) >= budget::INTERVAL;
        if measures {
            self.measured_at = now;
        }
        let now_ns = monotonic_ns();
        for process in self.processes.values_mut().filter(|process| process.killed.is_none()) {
            let ledger = &process.child.ledger;
            match process.pulse.check(ledger.last_heartbeat(), &ledger.running(), now_ns, since) {
                HealthFinding::Healthy => {}
                HealthFinding::Silent => process.kill(DeathCause::Silence),
                HealthFinding::Overdue(requests) => process.kill(DeathCause::Overdue(requests)),
            }
            if process.successor.is_some_and(|(_, until)| now >= until) {
                process.kill(DeathCause::Unrelated);
            }
            if measures {
                process.memory = private_memory(process.child.pid).unwrap_or(process.memory);
                let took_over = process.relieved.map(|at| now.saturating_duration_since(at));
                let step = self.policy.budget.map(|budget| budget.judge(process.memory, took_over));
                if step == Some(BudgetVerdict::Replace)
                    && process.duty == Duty::Serving
                    && !process.tired
                {
                    process.tired = true;
                    let (pid, used) = (process.child.pid, process.memory >> 20);
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

    /// Gives every session a process, as far as there are any, and has those started that are
    /// missing. True where something has changed.
    fn settle(&mut self) -> bool {
        let now = Instant::now();
        let mut changed = self.relieve(now);
        if !self.policy.per_session && self.serving().is_none() {
            changed |= self.promote().is_some();
        }
        let homeless: Vec<u64> = self.homeless().collect();
        for number in homeless {
            let home = if self.policy.per_session { self.promote() } else { self.serving() };
            let Some(home) = home else { break };
            self.give(number, home);
            changed = true;
        }
        // The newest has the models that are in use now.
        let older: Vec<u64> = self.spares().rev().skip(1).collect();
        changed |= !older.is_empty();
        self.processes.retain(|key, _| !older.contains(key));
        self.stock(now);
        changed
    }

    /// Has processes that have grown too large answer what they have taken, where others are ready
    /// to go on.
    fn relieve(&mut self, now: Instant) -> bool {
        let tired = |process: &SupervisedProcess| {
            process.tired && process.successor.is_none() && process.killed.is_none()
        };
        let tired: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, process)| tired(process))
            .map(|(key, _)| *key)
            .collect();
        let mut changed = false;
        for key in tired {
            let Some(next) = self.promote() else { break };
            if let Some(next) = self.processes.get_mut(&next) {
                next.relieved = Some(now);
            }
            if let Some(process) = self.processes.get_mut(&key) {
                process.duty = Duty::Draining;
                process.successor = Some((next, now + DRAIN_LIMIT));
                if !process.child.command(ProcessCommand::Send(FromHost::Drain)) {
                    process.kill(DeathCause::Unrelated);
                }
            }
            self.restarts.memory += 1;
            changed = true;
        }
        changed
    }

    /// Starts as many processes as are missing.
    fn stock(&mut self, now: Instant) {
        let homeless = match self.policy.per_session {
            true => self.homeless().count(),
            false => usize::from(self.serving().is_none()),
        };
        let tired = |process: &&SupervisedProcess| process.tired && process.successor.is_none();
        let needed = homeless + self.processes.values().filter(tired).count();
        let wanted = needed + usize::from(self.policy.spare);
        let mut missing = wanted.saturating_sub(self.spares().count() + self.starting.len());
        if needed == 0 && self.starting.is_empty() && self.spare_is_outdated(now) {
            missing = 1;
        }
        while missing > 0 && self.starting.len() < MAX_STARTING && self.pace.allows(now) {
            self.start_one();
            missing -= 1;
        }
    }

    /// Whether the process that stands by would have to load models first that are in use.
    fn spare_is_outdated(&self, now: Instant) -> bool {
        let Some(spare) = self.spares().last().and_then(|key| self.processes.get(&key)) else {
            return false;
        };
        let mut learned = self.learned.iter().filter(|name| self.newest.names(name));
        self.policy.spare
            && now.saturating_duration_since(self.learned_at) >= SETTLED
            && (spare.offered.first() != Some(&self.newest.number)
                || !learned.all(|name| spare.preloaded.contains(name)))
    }

    /// Sessions that no process serves and that may have one, in the order of their numbers.
    fn homeless(&self) -> impl Iterator<Item = u64> {
        let homeless =
            |session: &AttachedSession| session.home.is_none() && session.refuser.is_none();
        self.sessions
            .iter()
            .filter(move |(_, session)| homeless(session))
            .map(|(number, _)| *number)
    }

    /// The process for all.
    fn serving(&self) -> Option<u64> {
        self.processes
            .iter()
            .find(|(_, process)| process.duty == Duty::Serving)
            .map(|(key, _)| *key)
    }

    /// Processes that stand by, the oldest first.
    fn spares(&self) -> impl DoubleEndedIterator<Item = u64> {
        let spare =
            |process: &SupervisedProcess| process.duty == Duty::Spare && process.killed.is_none();
        self.processes.iter().filter(move |(_, process)| spare(process)).map(|(key, _)| *key)
    }

    /// Has the newest process that stands by serve.
    fn promote(&mut self) -> Option<u64> {
        let key = self.spares().next_back()?;
        self.processes.get_mut(&key)?.duty = Duty::Serving;
        Some(key)
    }

    /// Gives a session to a process.
    fn give(&mut self, number: u64, key: u64) {
        let (Some(session), Some(process)) =
            (self.sessions.get_mut(&number), self.processes.get_mut(&key))
        else {
            return;
        };
        if session.refuser.is_some() {
            return;
        }
        session.home = Some(key);
        let generation = session.generation.number;
        let mut told = true;
        let known = process.offered.iter().position(|offered| *offered == generation);
        let position = known.unwrap_or(process.offered.len());
        let local = u32::try_from(position).unwrap_or(u32::MAX);
        if known.is_none() {
            let models = session.generation.models.to_vec();
            told &= process
                .child
                .command(ProcessCommand::Send(FromHost::Catalog { version: local, models }));
            process.offered.push(generation);
        }
        let attach = Attach {
            session: session.name.clone(),
            number,
            catalog_version: local,
            service: session.service,
            suspect: self.blame.suspect(number),
        };
        told &= process.child.command(ProcessCommand::Attach(attach, Arc::clone(&session.place)));
        if !told {
            // It does not listen. The session goes to the next one when it has ended.
            process.kill(DeathCause::Silence);
        }
    }

    /// Shows what is so now to those who look.
    fn show(&self) {
        let mut sessions = BTreeMap::<u64, usize>::new();
        for home in self.sessions.values().filter_map(|session| session.home) {
            *sessions.entry(home).or_default() += 1;
        }
        let mut shown = self.shown.lock();
        let status = &mut shown.status;
        if let Some(process) = self.processes.values().next_back() {
            status.version = Some(process.child.version.clone());
        }
        status.processes = self
            .processes
            .iter()
            .map(|(key, process)| ProcessStatus {
                pid: process.child.pid,
                duty: process.duty,
                sessions: sessions.get(key).copied().unwrap_or_default(),
                memory: process.memory,
            })
            .collect();
        status.serves = match self.policy.per_session {
            true => self.homeless().next().is_none(),
            false => self.serving().is_some(),
        };
        status.spare_ready = self.policy.spare.then(|| self.spares().next().is_some());
        status.restarts = self.restarts;
        status.poison = self.poison;
        let serving = self.processes.values().filter(|process| process.duty != Duty::Spare);
        let mut loaded: Vec<LoadedModel> =
            serving.flat_map(|process| process.child.models.iter().cloned()).collect();
        // The same version may be loaded in several processes.
        loaded.sort_by(|one, other| (&one.name, &one.sha256).cmp(&(&other.name, &other.sha256)));
        loaded.dedup_by(|one, other| one.name == other.name && one.sha256 == other.sha256);
        shown.loaded = loaded;
        shown.models = Arc::clone(&self.newest.models);
    }
}

fn warn_of_fallback(model: &LoadedModel) {
    if let Some(reason) = &model.fell_back {
        tracing::warn!(target: "ocelli::inference", "the model {} runs on the processor: \
            {reason}", model.name);
    }
}

/// Empties a socket of what no process will answer: the worker sends its request again when it is
/// greeted.
fn discard_pending(socket: &OwnedFd) {
    let mut buffer = vec![0; MAX_PACKET];
    while let Ok((1.., _)) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
    }
}
