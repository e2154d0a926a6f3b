//! Planning, where this host is the one that does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::keeper::{Done, Keeper};
use super::site::Touched;
use crate::etcd::Fault;
use crate::plan::plan;

/// From a change that somebody waits for to the plan: what happens together is planned together.
const SOON: Duration = Duration::from_millis(50);

/// From any other change: hosts that start together, moves that end together.
const LATER: Duration = Duration::from_millis(500);

/// From one plan to the next at least: each is sent to all hosts, and a site may get a thousand cameras
/// one by one.
const PACE: Duration = Duration::from_millis(200);

/// From a plan that could not be written to the next.
const RETRY: Duration = Duration::from_millis(200);

/// Owners of removed cameras that are forgotten at a time.
const FORGET: usize = 32;

/// When to plan next.
#[derive(Debug, Default)]
pub(super) struct Planning {
    due: Option<Instant>,
    /// When the last one was written.
    last: Option<Instant>,
    writing: bool,
    /// The revision of the plan that was written, until the view has it.
    awaited: Option<u64>,
}

impl Planning {
    /// The site has changed. Later changes do not put off what is due.
    pub(super) fn ask(&mut self, touched: Touched) {
        let delay = match touched {
            Touched::Nothing => return,
            Touched::Later => LATER,
            Touched::Soon => SOON,
        };
        self.due_within(delay);
    }

    fn due_within(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(super) fn written(&mut self, result: Result<Option<u64>, Fault>) {
        self.writing = false;
        match result {
            Ok(Some(revision)) => self.awaited = Some(revision),
            Ok(None) => self.due_within(SOON),
            Err(_) => self.due_within(RETRY),
        }
    }
}

impl Keeper {
    /// Plans if this host is to and something has changed; says when to look again.
    pub(super) fn plan(&mut self, now: Instant) -> Instant {
        let never = now + LATER * 10;
        let Some(alive) = &self.alive else { return never };
        let Some(due) = self.planning.due else { return never };
        let due = self.planning.last.map_or(due, |last| due.max(last + PACE));
        let view = &self.site.view;
        let is_planner = view.planner() == Some(alive.me.host.as_str());
        if !is_planner || self.site.refusal().is_some() || self.planning.writing {
            return never;
        }
        if self.planning.awaited.is_some_and(|revision| revision > self.site.view.revision) {
            return never;
        }
        if now < due {
            return due;
        }
        self.planning.awaited = None;
        self.planning.due = None;
        let hosts = view.hosts.iter().map(|(id, host)| (id.clone(), host.place())).collect();
        let cameras: BTreeMap<_, _> =
            view.cameras.iter().map(|(id, record)| (id.clone(), record.needs())).collect();
        let living = view.owners.iter().filter(|(_, owner)| view.lives(owner));
        let owners = living.map(|(id, owner)| (id.clone(), owner.host.clone())).collect();
        let planned = plan(&hosts, &cameras, &owners, &view.plan, &view.pins);
        if planned != *view.plan {
            self.planning.writing = true;
            self.planning.last = Some(now);
            let (me, as_read) = (alive.me.clone(), self.site.plan_revision);
            self.jobs.spawn(async move { Done::Planned(me.write_plan(&planned, as_read).await) });
        }
        let gone = view
            .owners
            .iter()
            .filter(|(id, owner)| !view.cameras.contains_key(*id) && !view.lives(owner));
        for (camera, owner) in gone.take(FORGET) {
            let (me, camera, epoch) = (alive.me.clone(), camera.clone(), owner.epoch);
            self.jobs.spawn(async move {
                // Where it fails, the next plan tries again.
                let _ = me.forget(&camera, epoch).await;
                Done::Cleaned
            });
        }
        never
    }
}
