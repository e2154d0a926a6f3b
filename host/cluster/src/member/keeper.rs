//! The task that has a member's state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::records::{CoordError, HostRecord, LeaseId, MemberStatus, SiteRefusal};
use super::site::{Change, Site, Touched, watch};
use super::transactions::{Granted, Joining, Me, NotJoined};
use super::voice::Life;
use super::{Command, Shared, renewal};
use crate::etcd::{Etcd, Fault};
use crate::lease::Lease;
use crate::site::Epoch;

/// From a failed attempt to join to the next. Two hosts of one name ask that often, too.
const REJOIN: Duration = Duration::from_millis(500);

/// How often those who route by the site's view get a new one: each is looked through by them.
const PUBLISH: Duration = Duration::from_millis(100);

/// Batches of changes that wait for the keeper; then etcd waits.
const CHANGES: usize = 64;

/// A departure that takes longer has been forgotten.
const LONGEST_DEPARTURE: Duration = Duration::from_secs(24 * 3600);

/// When nothing else is to be done, the keeper looks again.
const IDLE: Duration = Duration::from_secs(5);

/// A life of this host, with its lease.
pub(super) struct Alive {
    pub(super) me: Me,
    pub(super) life: Arc<Life>,
    /// Ends with the reason when the lease has lapsed; ends itself with this.
    renewal: JoinSet<String>,
}

/// What one camera has to do with this host, in this life.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// A claim is in flight.
    pub(super) claiming: bool,
    /// A claim was not as etcd has it: look again then.
    pub(super) retry: Option<Instant>,
    /// The greatest epoch that was given up: a view that shows it as held is late.
    pub(super) given_up: Epoch,
    /// Those who wait for a release that is in flight.
    pub(super) releasing: Option<Vec<oneshot::Sender<Result<(), CoordError>>>>,
    /// The host has prepared it.
    pub(super) prepared: bool,
    /// Whether that is being written or taken back, until the view has it.
    pub(super) writing: Option<bool>,
    /// The host that it is planned for, and since when this is known.
    pub(super) elsewhere: Option<(String, Instant)>,
}

/// What a job, a transaction in flight, brought.
#[derive(Debug)]
pub(super) enum Done {
    Joined(Option<Granted>, Result<(), NotJoined>),
    Described(Result<bool, Fault>),
    Claimed(String, Result<Option<Epoch>, Fault>),
    Released(String, Epoch, bool),
    /// Whether it could be written that a camera is prepared, or is no more.
    Prepared(String, bool),
    Planned(Result<Option<u64>, Fault>),
    /// Nobody waits for it.
    Cleaned,
    Left,
}

/// The host is about to leave.
struct Departure {
    deadline: Instant,
    waiting: Vec<oneshot::Sender<()>>,
    /// The lease is being given back.
    last: bool,
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    etcd: Etcd,
    record: HostRecord,
    /// The record is not in etcd as it is here.
    undescribed: bool,
    describing: bool,
    pub(super) site: Site,
    /// The site's keys have been read.
    known: bool,
    pub(super) alive: Option<Alive>,
    /// Leases of lives that are over.
    formers: BTreeSet<LeaseId>,
    joining: bool,
    join_at: Instant,
    /// Why it is not in, and whether it was in before.
    out: (String, bool),
    /// Why the site does not take it.
    refused: Option<SiteRefusal>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) cameras: BTreeMap<String, Local>,
    departure: Option<Departure>,
    pub(super) planning: super::planning::Planning,
    /// The view is not what was last published.
    unpublished: bool,
    published: Instant,
}

/// Keeps the member until all who hold it are gone, or it has left.
pub(super) async fn keep(
    shared: Arc<Shared>,
    etcd: Etcd,
    record: HostRecord,
    mut inbox: mpsc::Receiver<Command>,
) {
    let (sender, mut changes) = mpsc::channel(CHANGES);
    let mut watcher = JoinSet::new();
    watcher.spawn(watch(etcd.clone(), sender));
    let mut keeper = Keeper::new(shared, etcd, record);
    loop {
        let wake = keeper.turn();
        tokio::select! {
            reason = lapsed(&mut keeper.alive) => keeper.lapse(reason),
            Some(change) = changes.recv() => keeper.change(change),
            command = inbox.recv() => match command {
                Some(command) => keeper.command(command),
                None => break,
            },
            Some(done) = keeper.jobs.join_next(), if !keeper.jobs.is_empty() => {
                if let Ok(done) = done && keeper.done(done) {
                    break;
                }
            }
            () = sleep_until(wake) => {}
        }
        // What came meanwhile is looked at together.
        while let Ok(change) = changes.try_recv() {
            keeper.change(change);
        }
    }
    keeper.end();
}

/// Why the lease has lapsed, when it has.
async fn lapsed(alive: &mut Option<Alive>) -> String {
    let ended = match alive {
        Some(alive) => alive.renewal.join_next().await,
        None => std::future::pending().await,
    };
    ended.and_then(Result::ok).unwrap_or_else(|| "its renewal has ended".into())
}

impl Keeper {
    fn new(shared: Arc<Shared>, etcd: Etcd, record: HostRecord) -> Self {
        let now = Instant::now();
        Self {
            shared,
            etcd,
            record,
            undescribed: false,
            describing: false,
            site: Site::default(),
            known: false,
            alive: None,
            formers: BTreeSet::new(),
            joining: false,
            join_at: now,
            out: ("etcd has not answered yet".into(), false),
            refused: None,
            jobs: JoinSet::new(),
            cameras: BTreeMap::new(),
            departure: None,
            planning: super::planning::Planning::default(),
            unpublished: false,
            published: now.checked_sub(PUBLISH).unwrap_or(now),
        }
    }

    /// Does all that can be done now, and says when to look again.
    fn turn(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + IDLE;
        if self.known && self.alive.is_none() && !self.joining && self.departure.is_none() {
            if self.site.refusal().is_some() {
                self.join_at = now + REJOIN;
            } else if now >= self.join_at {
                self.join();
            } else {
                wake = wake.min(self.join_at);
            }
        }
        self.describe();
        wake = wake.min(self.reconcile(now)).min(self.plan(now)).min(self.depart(now));
        self.tell_status();
        wake.min(self.publish(now))
    }

    fn join(&mut self) {
        self.joining = true;
        self.undescribed = false;
        let joining = Joining {
            etcd: self.etcd.clone(),
            host: self.shared.options.host.clone(),
            record: self.record.clone(),
            formers: self.formers.clone(),
        };
        self.jobs.spawn(async move {
            let (granted, result) = joining.run().await;
            Done::Joined(granted, result)
        });
    }

    fn joined(&mut self, granted: Option<Granted>, result: Result<(), NotJoined>) {
        self.joining = false;
        self.join_at = Instant::now() + REJOIN;
        self.refused = None;
        match (granted, result) {
            (Some(granted), Ok(())) => {
                let me = Me {
                    etcd: self.etcd.clone(),
                    host: self.shared.options.host.clone(),
                    lease: granted.lease,
                };
                let until = Lease::granted(granted.sent).until();
                let life = Life::new(granted.lease, until);
                self.shared.voice.begin(&life);
                let mut renewal = JoinSet::new();
                let shared = Arc::clone(&self.shared);
                renewal.spawn(renewal::renew(shared, me.clone(), Arc::clone(&life), granted));
                tracing::info!(host = me.host, lease = %me.lease, "member of the site");
                self.alive = Some(Alive { me, life, renewal });
                self.planning.ask(Touched::Soon);
            }
            (granted, Err(error)) => {
                self.formers.extend(granted.map(|granted| granted.lease));
                match error {
                    NotJoined::Refused(refusal) => self.refused = Some(refusal),
                    NotJoined::Fault(fault) => self.away(fault),
                }
            }
            (None, Ok(())) => {}
        }
    }

    /// The lease is over, and what was in flight is of a life that is over.
    fn lapse(&mut self, reason: String) {
        if let Some(alive) = self.alive.take() {
            self.shared.voice.end(&alive.life);
            tracing::warn!(lease = %alive.me.lease, "the lease has lapsed: {reason}");
            self.formers.insert(alive.me.lease);
        }
        self.out = (reason, true);
        self.join_at = Instant::now();
        self.describing = false;
        self.jobs = JoinSet::new();
        self.cameras.clear();
        self.planning = super::planning::Planning::default();
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Read(entries, revision) => {
                self.site.load(entries, revision);
                if !self.known {
                    self.refused = None;
                }
                self.known = true;
                self.unpublished = true;
                self.planning.ask(Touched::Soon);
            }
            Change::Events(events) => {
                for event in events {
                    let touched = self.site.apply(event);
                    self.planning.ask(touched);
                }
                self.unpublished = true;
            }
            Change::Away(fault) => {
                if self.alive.is_none() {
                    self.away(fault);
                }
            }
        }
    }

    /// Notes why it is not in.
    fn away(&mut self, fault: Fault) {
        if let Fault::Denied(said) = fault {
            self.refused = Some(SiteRefusal::no_right(&self.shared.options, said));
            return;
        }
        self.out.0 = fault.reason();
        if !self.known {
            self.refused = None;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Prepared { camera } => {
                self.cameras.entry(camera).or_default().prepared = true;
            }
            Command::Release { camera, epoch, done } => self.release(camera, epoch, Some(done)),
            Command::Describe { record } => {
                let draining = self.departure.is_some();
                self.undescribed = true;
                self.record = record;
                self.record.draining |= draining;
            }
            Command::Leave { within, done } => {
                let deadline = Instant::now() + within.min(LONGEST_DEPARTURE);
                match &mut self.departure {
                    Some(departure) => {
                        departure.deadline = departure.deadline.min(deadline);
                        departure.waiting.push(done);
                    }
                    None => {
                        let waiting = vec![done];
                        self.departure = Some(Departure { deadline, waiting, last: false });
                        self.record.draining = true;
                        self.undescribed = true;
                    }
                }
            }
        }
    }

    /// True when the keeper's work is over.
    fn done(&mut self, done: Done) -> bool {
        match done {
            Done::Joined(granted, result) => self.joined(granted, result),
            Done::Described(result) => {
                self.describing = false;
                self.undescribed |= result.is_err();
            }
            Done::Claimed(camera, result) => self.claimed(&camera, result),
            Done::Released(camera, epoch, mine) => self.released(&camera, epoch, mine),
            Done::Prepared(camera, written) => {
                if let Some(local) = self.cameras.get_mut(&camera)
                    && !written
                {
                    local.writing = None;
                }
            }
            Done::Planned(result) => self.planning.written(result),
            Done::Cleaned => {}
            Done::Left => return true,
        }
        false
    }

    fn describe(&mut self) {
        let Some(alive) = &self.alive else { return };
        if self.undescribed && !self.describing {
            (self.undescribed, self.describing) = (false, true);
            let (me, record) = (alive.me.clone(), self.record.clone());
            self.jobs.spawn(async move {
                let result = me.describe(record).await;
                if result.is_err() {
                    tokio::time::sleep(REJOIN).await;
                }
                Done::Described(result)
            });
        }
    }

    /// Nothing more is claimed.
    pub(super) fn departs(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.last)
    }

    /// Gives the lease back when all that can be handed over is.
    fn depart(&mut self, now: Instant) -> Instant {
        let never = now + IDLE;
        let stuck = self.nothing_to_hand_over();
        let Some(departure) = &mut self.departure else { return never };
        if departure.last || self.joining {
            return never;
        }
        if self.alive.is_some() && !stuck && now < departure.deadline {
            return departure.deadline;
        }
        departure.last = true;
        let alive = self.alive.take();
        // Silent from here on: the others may have the cameras as soon as the lease is gone.
        self.jobs = JoinSet::new();
        if let Some(alive) = &alive {
            self.shared.voice.end(&alive.life);
        }
        let me = alive.map(|alive| alive.me);
        self.jobs.spawn(async move {
            if let Some(me) = me
                && let Err(fault) = me.etcd.revoke(me.lease.0).await
            {
                tracing::debug!("the lease ends by itself: {}", fault.reason());
            }
            Done::Left
        });
        never
    }

    /// This host has no camera, or only such as nobody else can take.
    fn nothing_to_hand_over(&self) -> bool {
        let Some(alive) = &self.alive else { return true };
        let view = &self.site.view;
        let draining = |host: &super::HostView| host.draining;
        let told = view.hosts.get(&alive.me.host).is_some_and(draining);
        let stays = |camera: &String| told && view.plan.unplaced.contains_key(camera);
        let claiming = self.cameras.values().any(|local| local.claiming);
        let releasing = self.cameras.values().any(|local| local.releasing.is_some());
        !claiming && !releasing && self.shared.voice.owned().keys().all(stays)
    }

    fn tell_status(&self) {
        let status = if let Some(refusal) = self.site.refusal() {
            MemberStatus::Refused(refusal.clone())
        } else if let Some(alive) = &self.alive {
            MemberStatus::Member { lease: alive.me.lease }
        } else if let Some(refusal) = &self.refused {
            MemberStatus::Refused(refusal.clone())
        } else if self.out.1 {
            MemberStatus::Lapsed(self.out.0.clone())
        } else {
            MemberStatus::Joining(self.out.0.clone())
        };
        self.shared.tell(status);
    }

    fn publish(&mut self, now: Instant) -> Instant {
        let due = self.published + PUBLISH;
        if self.unpublished && now >= due {
            self.unpublished = false;
            self.published = now;
            self.shared.site.send_replace(Arc::new(self.site.view.clone()));
        }
        if self.unpublished { due } else { now + IDLE }
    }

    fn end(mut self) {
        if let Some(alive) = self.alive.take() {
            self.shared.voice.end(&alive.life);
        }
        self.shared.tell(MemberStatus::Left);
        self.shared.coming.send_replace(Arc::default());
        self.shared.leaving.send_replace(Arc::default());
        for done in self.departure.into_iter().flat_map(|departure| departure.waiting) {
            // Who does not wait any more needs no answer.
            let _ = done.send(());
        }
    }
}
