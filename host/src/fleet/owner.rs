//! What a host does for rollouts of its site: its own cameras' deployments and, on the host that
//! plans, the next wave, the stop, and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocelli_cluster::documents::{DocumentMap, Expect};
use ocelli_cluster::member::{CoordError, MemberStatus, Ownership};
use ocelli_cluster::streams::Digest;
use ocelli_cluster::{Epoch, Member};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::record::{
    self, CameraResult, CameraStep, FORMAT, FleetRollout, RolloutSource, RolloutState, Rollouts,
};
use super::step::{self, OwnerDuty, RolloutStep, duty};
use crate::cluster::Cluster;
use crate::config::OciReference;
use crate::deploy::{
    Component, DeployError, DeployRequest, Deployer, DeploymentState, Outcome, Record,
};
use crate::journal::Journal;
use crate::session::rollout::Shadow;

/// Between two looks at a camera on probation, and after something that will be tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Deployments of rollouts that one host has on their way at once, until their versions are active:
/// each has a second worker beside the running one.
const AT_ONCE: usize = 2;

/// Looks that a camera's session is waited for: a camera that has just come is being started.
const SESSION_LOOKS: u32 = 60;

/// Times that a deployment is tried again which the session's restart or end interrupted.
const TRIES: u32 = 3;

/// Bytes of a component that a host takes from the site: the most that `deploy.max_component_mb` may
/// be.
const MAX_COMPONENT: usize = 128 << 20;

/// Looks back into a camera's history.
const HISTORY: usize = 50;

/// Jobs whose ends are not taken yet: as many as a host has cameras.
const ENDINGS: usize = 1024;

/// Alerts that stop a rollout.
const ALERTS: [&str; 3] = ["memory", "restarts", "no_results"];

/// By camera, the alerts of [`ALERTS`] that are raised.
type Alerts = BTreeMap<Arc<str>, BTreeSet<String>>;

/// What every task here needs.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) cluster: Cluster,
    pub(super) deployer: Deployer,
    pub(super) journal: Journal,
    pub(super) rollouts: watch::Receiver<Arc<Rollouts>>,
    alerts: watch::Receiver<Arc<Alerts>>,
    turns: Arc<Semaphore>,
}

/// See the module's documentation.
pub(super) struct OwnerTask {
    tools: Tools,
    documents: watch::Receiver<Option<Arc<DocumentMap>>>,
    rollouts: watch::Sender<Arc<Rollouts>>,
    alerts: watch::Sender<Arc<Alerts>>,
    jobs: BTreeMap<String, Job>,
    /// What was said last of each camera's rollout: the watched copy may be behind.
    told: BTreeMap<(u64, String), CameraResult>,
}

/// A camera for which something is done.
struct Job {
    epoch: Epoch,
    _task: AbortOnDropHandle<()>,
}

/// A job has ended.
struct Ended {
    camera: String,
    epoch: Epoch,
    id: u64,
    result: Option<CameraResult>,
}

impl OwnerTask {
    pub(super) fn new(
        cluster: Cluster,
        deployer: Deployer,
        journal: Journal,
        documents: watch::Receiver<Option<Arc<DocumentMap>>>,
    ) -> (Self, watch::Receiver<Arc<Rollouts>>) {
        let (rollouts, copy) = watch::channel(Arc::default());
        let (alerts, raised) = watch::channel(Arc::default());
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let tools =
            Tools { cluster, deployer, journal, rollouts: copy.clone(), alerts: raised, turns };
        let (jobs, told) = Default::default();
        (Self { tools, documents, rollouts, alerts, jobs, told }, copy)
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        let member = self.tools.cluster.member().clone();
        let (mut owned, mut site) = (member.owned(), member.site());
        let (ended, mut endings) = mpsc::channel(ENDINGS);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cameras = Arc::clone(&owned.borrow_and_update());
            site.mark_unchanged();
            self.jobs.retain(|camera, job| {
                cameras.get(camera).is_some_and(|one| one.epoch == job.epoch)
            });
            self.begin(&cameras, &ended);
            self.plan().await;
            tokio::select! {
                Ok(()) = self.documents.changed() => self.read(),
                Ok(()) = owned.changed() => {}
                Ok(()) = site.changed() => {}
                Some(one) = endings.recv() => self.end(one),
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    fn read(&mut self) {
        let Some(documents) = self.documents.borrow_and_update().clone() else { return };
        let rollouts = Rollouts::read(&documents);
        self.told.retain(|(id, _), _| rollouts.by_id.contains_key(id));
        self.rollouts.send_replace(Arc::new(rollouts));
    }

    fn end(&mut self, ended: Ended) {
        let Ended { camera, epoch, id, result } = ended;
        if self.jobs.get(&camera).is_some_and(|job| job.epoch == epoch) {
            self.jobs.remove(&camera);
        }
        if let Some(result) = result {
            self.told.insert((id, camera), result);
        }
    }

    /// Begins what is to be done for this host's cameras.
    fn begin(&mut self, cameras: &BTreeMap<String, Ownership>, ended: &mpsc::Sender<Ended>) {
        let rollouts = Arc::clone(&self.rollouts.borrow());
        // The newest first: it decides what a camera runs.
        let mut decided = BTreeSet::new();
        for (rollout, _) in rollouts.by_id.values().rev() {
            for camera in &rollout.cameras {
                let Some(Ownership { epoch, .. }) = cameras.get(camera) else { continue };
                if decided.contains(camera) || self.jobs.contains_key(camera) {
                    continue;
                }
                let told = self.told.get(&(rollout.id, camera.clone()));
                let told = told.filter(|told| told.epoch == *epoch);
                let result = told.or_else(|| rollouts.result(rollout.id, camera));
                if rollout.state != RolloutState::Returned {
                    decided.insert(camera.clone());
                }
                let duty = duty(rollout, camera, result, *epoch);
                if duty == OwnerDuty::Nothing {
                    continue;
                }
                let work = Work {
                    tools: self.tools.clone(),
                    rollout: rollout.clone(),
                    camera: camera.clone(),
                    epoch: *epoch,
                };
                let (ended, id, epoch) = (ended.clone(), rollout.id, *epoch);
                let task = tokio::spawn(async move {
                    let camera = work.camera.clone();
                    let result = work.run(duty).await;
                    // The host stops.
                    let _ = ended.send(Ended { camera, epoch, id, result }).await;
                });
                let job = Job { epoch, _task: AbortOnDropHandle::new(task) };
                self.jobs.insert(camera.clone(), job);
            }
        }
    }

    /// Reads the alerts of cameras for which something is done.
    async fn look(&self) {
        if self.jobs.is_empty() {
            self.alerts.send_replace(Arc::default());
            return;
        }
        match self.tools.journal.events().raised_alerts().await {
            Ok(raised) => {
                let mut alerts = Alerts::new();
                for (session, alert) in raised {
                    if ALERTS.contains(&alert.as_str()) {
                        alerts.entry(session).or_default().insert(alert);
                    }
                }
                self.alerts.send_replace(Arc::new(alerts));
            }
            Err(error) => {
                tracing::debug!(target: "ocelli::fleet", "alerts cannot be read: {error}");
            }
        }
    }

    /// Where this host plans for its site, takes the next step of each rollout.
    async fn plan(&self) {
        let member = self.tools.cluster.member();
        let site = Arc::clone(&member.site().borrow());
        let is_member = matches!(*member.status().borrow(), MemberStatus::Member { .. });
        if !is_member || site.planner() != Some(self.tools.cluster.host()) {
            return;
        }
        let rollouts = Arc::clone(&self.rollouts.borrow());
        let none = BTreeMap::new();
        for (rollout, revision) in rollouts.by_id.values() {
            let results = rollouts.results.get(&rollout.id).unwrap_or(&none);
            let next = step::step(rollout, results, |camera| site.cameras.contains_key(camera));
            let Some(next) = after(rollout, next) else { continue };
            let written = put(member, &next, Expect::Revision(*revision)).await;
            match written {
                Ok(()) => log(&next),
                // Another planner, or who stopped it, was first: the copy follows.
                Err(CoordError::Changed { .. }) => {}
                Err(error) => {
                    tracing::warn!(
                        target: "ocelli::fleet", rollout = next.id, "waits for the site: {error}"
                    );
                }
            }
        }
    }
}

/// The rollout behind a step; `None` where it stays as it is.
fn after(rollout: &FleetRollout, step: RolloutStep) -> Option<FleetRollout> {
    if step == RolloutStep::Wait {
        return None;
    }
    let mut next = rollout.clone();
    match step {
        RolloutStep::Wait => {}
        RolloutStep::Open(wave) => next.wave = wave,
        RolloutStep::Finish => {
            (next.state, next.ended) = (RolloutState::Done, Some(super::now()));
        }
        RolloutStep::Return { code, reason } => {
            (next.state, next.code) = (RolloutState::Returning, Some(code.to_owned()));
            next.reason = Some(reason);
        }
        RolloutStep::Finished => {
            (next.state, next.ended) = (RolloutState::Returned, Some(super::now()));
        }
    }
    Some(next)
}

fn log(rollout: &FleetRollout) {
    let state: &str = rollout.state.into();
    let (id, wave) = (rollout.id, rollout.wave + 1);
    match &rollout.reason {
        None => tracing::info!(target: "ocelli::fleet", rollout = id, wave, state, "goes on"),
        Some(reason) => {
            tracing::warn!(target: "ocelli::fleet", rollout = id, wave, state, "goes back: {reason}");
        }
    }
}

/// Writes a rollout.
pub(super) async fn put(
    member: &Member,
    rollout: &FleetRollout,
    expect: Expect,
) -> Result<(), CoordError> {
    let value = serde_json::to_vec(rollout).unwrap_or_default();
    member.documents().put(&record::key(rollout.id), &value, expect).await.map(drop)
}

/// One camera's part of a rollout.
struct Work {
    tools: Tools,
    rollout: FleetRollout,
    camera: String,
    epoch: Epoch,
}

/// Why a camera did not get the version.
struct Failure {
    code: String,
    reason: String,
    number: Option<u64>,
}

/// What became of a deployment.
enum Tried {
    Healthy(Box<Record>),
    Failed(Failure),
    /// The camera is no longer this host's, or the rollout goes back: somebody else says more.
    Left,
}

impl Work {
    /// The result that was written last; `None` where there is nothing to say.
    async fn run(self, duty: OwnerDuty) -> Option<CameraResult> {
        match duty {
            OwnerDuty::Nothing => None,
            OwnerDuty::Deploy => self.deploy().await,
            OwnerDuty::Return => self.give_back().await,
        }
    }

    async fn deploy(&self) -> Option<CameraResult> {
        if let Some(record) = self.running().await
            && record.healthy()
        {
            // The host was started again and runs it.
            return self.tell(self.result(CameraStep::Healthy, Some(&record))).await;
        }
        let alerts = self.alerts_before().await;
        let began = self.result(CameraStep::Deploying, None);
        self.tell(began).await?;
        let failure = match self.tried(&alerts).await {
            Tried::Left => {
                tokio::time::sleep(LOOK).await;
                return None;
            }
            Tried::Healthy(record) => {
                let healthy = self.result(CameraStep::Healthy, Some(&record));
                let healthy = self.tell(healthy).await?;
                match self.raised(&alerts).await {
                    None => return Some(healthy),
                    Some(failure) => failure,
                }
            }
            Tried::Failed(failure) => failure,
        };
        if !self.is_ours() {
            return None;
        }
        let Failure { code, mut reason, number } = failure;
        if self.running().await.is_some()
            && let Err(error) = self.rolled_back().await
        {
            reason = format!("{reason}; it still runs the new version: {error}");
        }
        let mut failed = self.result(CameraStep::Failed, None);
        (failed.code, failed.reason, failed.number) = (Some(code), Some(reason), number);
        self.tell(failed).await
    }

    /// Gives the camera what it ran before.
    async fn give_back(&self) -> Option<CameraResult> {
        let mut returned = self.result(CameraStep::Returned, None);
        if self.running().await.is_some()
            && let Err(error) = self.rolled_back().await
        {
            if matches!(error, DeployError::Stopping) || !self.is_ours() {
                return None;
            }
            returned.state = CameraStep::Failed;
            returned.code = Some("not_returned".to_owned());
            returned.reason = Some(format!("it still runs the new version: {error}"));
        }
        self.tell(returned).await
    }

    async fn rolled_back(&self) -> Result<(), DeployError> {
        let by = format!("{} goes back", self.rollout.deployer());
        let record = self.tools.deployer.rollback(&self.camera, &by).await?;
        match record.outcome() {
            Some(Outcome::Refused | Outcome::Aborted | Outcome::RolledBack) => {
                Err(DeployError::Internal(record.reason.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    /// The deployment that the camera runs, if this rollout made it.
    async fn running(&self) -> Option<Record> {
        let records = self.tools.deployer.deployments(&self.camera, HISTORY).await.ok()?;
        let mut active = records
            .into_iter()
            .filter(|record| record.served() || record.outcome() == Some(Outcome::Unverified));
        active.next().filter(|record| record.by == self.rollout.deployer())
    }

    async fn tried(&self, alerts: &BTreeSet<String>) -> Tried {
        let component = match self.component().await {
            Ok(component) => component,
            Err(failure) => return Tried::Failed(failure),
        };
        let mut tries = 0;
        let mut looks = 0;
        loop {
            if !self.goes_on() {
                return Tried::Left;
            }
            // It closes never.
            let Ok(turn) = self.tools.turns.acquire().await else { return Tried::Left };
            let deployed = self.tools.deployer.deploy(self.request(component.clone())).await;
            drop(turn);
            let error = match deployed {
                Ok(record) => match self.outcome(record, alerts).await {
                    Ok(Outcome::Interrupted) if tries < TRIES => {
                        tries += 1;
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    Ok(_) => return Tried::Left,
                    Err(tried) => return tried,
                },
                Err(error) => error,
            };
            let waits = matches!(error, DeployError::Session(_) | DeployError::UnderWay { .. });
            if matches!(error, DeployError::Stopping) || !self.is_ours() {
                return Tried::Left;
            }
            if !waits || looks >= SESSION_LOOKS {
                let (code, reason) = (error.code().to_owned(), error.to_string());
                return Tried::Failed(Failure { code, reason, number: None });
            }
            looks += 1;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Follows a deployment to the end of its probation.
    async fn outcome(
        &self,
        mut record: Record,
        alerts: &BTreeSet<String>,
    ) -> Result<Outcome, Tried> {
        loop {
            let number = Some(record.number);
            match record.state {
                DeploymentState::Ended(Outcome::Healthy) => {
                    return Err(Tried::Healthy(Box::new(record)));
                }
                DeploymentState::Ended(Outcome::Interrupted) => return Ok(Outcome::Interrupted),
                DeploymentState::Ended(outcome) => {
                    // The session's end is the host's doing, not the version's.
                    if !self.is_ours() {
                        return Err(Tried::Left);
                    }
                    let reason = record.reason.unwrap_or_else(|| match outcome {
                        Outcome::Superseded => "another deployment took its place".to_owned(),
                        outcome => outcome.name().to_owned(),
                    });
                    let code = outcome.name().to_owned();
                    return Err(Tried::Failed(Failure { code, reason, number }));
                }
                DeploymentState::Pending | DeploymentState::Probation => {}
            }
            if !self.goes_on() {
                return Err(Tried::Left);
            }
            if let Some(failure) = self.new_alert(alerts, number) {
                return Err(Tried::Failed(failure));
            }
            tokio::time::sleep(LOOK).await;
            let newest = self.tools.deployer.deployments(&self.camera, HISTORY).await;
            let mut newest = newest.unwrap_or_default().into_iter();
            record = newest.find(|one| Some(one.number) == number).unwrap_or(record);
        }
    }

    /// Waits while the rollout runs. Why the camera has failed after all, if it has.
    async fn raised(&self, alerts: &BTreeSet<String>) -> Option<Failure> {
        while self.is_ours() && self.state() == Some(RolloutState::Running) {
            if let Some(failure) = self.new_alert(alerts, None) {
                return Some(failure);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    fn alerts(&self) -> BTreeSet<String> {
        self.tools.alerts.borrow().get(self.camera.as_str()).cloned().unwrap_or_default()
    }

    /// Those that were there before the deployment.
    async fn alerts_before(&self) -> BTreeSet<String> {
        let raised = self.tools.journal.events().raised_alerts().await.unwrap_or_default();
        let own = raised.into_iter().filter(|(session, _)| **session == *self.camera);
        own.map(|(_, alert)| alert).collect()
    }

    fn new_alert(&self, before: &BTreeSet<String>, number: Option<u64>) -> Option<Failure> {
        let raised = self.alerts();
        let new = raised.difference(before).next()?;
        let (code, reason) = ("alert".to_owned(), format!("the alert {new} was raised"));
        Some(Failure { code, reason, number })
    }

    fn request(&self, component: Component) -> DeployRequest {
        let FleetRollout { settings, shadow, threshold, .. } = &self.rollout;
        DeployRequest {
            session: self.camera.clone(),
            component,
            settings: settings.clone(),
            shadow: Shadow { frames: *shadow, only: false, threshold: *threshold },
            handover: None,
            by: self.rollout.deployer(),
            trace: None,
        }
    }

    async fn component(&self) -> Result<Component, Failure> {
        let failed =
            |code: &str, reason: String| Failure { code: code.to_owned(), reason, number: None };
        match &self.rollout.source {
            RolloutSource::Name(name) => Ok(Component::Pipeline(name.clone())),
            RolloutSource::Reference(reference) => match reference.parse::<OciReference>() {
                Ok(reference) => Ok(Component::Reference(reference)),
                Err(error) => Err(failed("unknown_pipeline", error.to_string())),
            },
            RolloutSource::Object(digest) => {
                let bytes = self.object(digest).await;
                let bytes = bytes.map_err(|reason| failed("component_unavailable", reason.0))?;
                Ok(Component::Bytes { name: self.rollout.pipeline.clone(), bytes })
            }
        }
    }

    async fn object(&self, digest: &str) -> Result<Bytes, NoObject> {
        let digest: Digest = digest.parse().map_err(NoObject::of)?;
        let mut looks = 0;
        loop {
            match self.tools.cluster.streams().get_object(digest, MAX_COMPONENT).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if looks >= SESSION_LOOKS || !self.goes_on() => {
                    return Err(NoObject::of(error));
                }
                Err(_) => looks += 1,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn result(&self, state: CameraStep, record: Option<&Record>) -> CameraResult {
        CameraResult {
            format: FORMAT,
            state,
            epoch: self.epoch,
            host: self.tools.cluster.host().to_owned(),
            number: record.map(|record| record.number),
            deployment: record.map(|record| record.deployment.clone()),
            code: None,
            reason: None,
        }
    }

    /// Writes a result, as long as this host owns the camera.
    async fn tell(&self, result: CameraResult) -> Option<CameraResult> {
        let key = record::camera_key(self.rollout.id, &self.camera);
        let value = serde_json::to_vec(&result).unwrap_or_default();
        let member = self.tools.cluster.member();
        loop {
            match member.put_owned(&self.camera, self.epoch, &key, &value).await {
                Ok(()) => return Some(result),
                Err(CoordError::NotOwner { .. }) => return None,
                Err(error) => tracing::debug!(
                    target: "ocelli::fleet", session = self.camera, "not told yet: {error}"
                ),
            }
            if !self.is_ours() {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn state(&self) -> Option<RolloutState> {
        self.tools.rollouts.borrow().rollout(self.rollout.id).map(|rollout| rollout.state)
    }

    /// Whether the camera is this host's, and stays so.
    fn is_ours(&self) -> bool {
        let member = self.tools.cluster.member();
        member.may_speak(&self.camera, self.epoch)
            && !member.leaving().borrow().contains_key(&self.camera)
    }

    fn goes_on(&self) -> bool {
        self.is_ours() && matches!(self.state(), Some(RolloutState::Running | RolloutState::Done))
    }
}

/// Why the site does not give a component.
struct NoObject(String);

impl NoObject {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}
