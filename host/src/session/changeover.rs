//! What a session does while a new version of its pipeline gets ready beside the running one, up to the moment when the two
//! have changed places. The order of things is [`swap`](super::swap)'s; here is what each means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ocelli_protocol::worker::{FromWorker, ToWorker};

use super::Spec;
use super::bounds;
use super::change::{Report, Step, Swap, Swapped};
use super::feed::Whom;
use super::green::{Green, Happened, Stage, tell};
use super::kept::Mirror;
use super::member::{Member, NoStart};
use super::run::{Ended, OnTrial, Task};
use super::serve::Serving;
use super::swap::{Act, Input, View};
use super::watched::{Unfit, failed, log, out_of_turn};

impl Task {
    /// Starts a new version beside the running one.
    pub(super) fn change_beside(&mut self, swap: Swap, serving: &mut Serving) {
        if serving.green.is_some() {
            let reason = "another change is under way".to_owned();
            return tell(&swap.reports, Report::Kept { step: Step::Start, reason });
        }
        if let Err(reason) = &swap.spec.deployment.compiled {
            let reason = reason.clone();
            return tell(&swap.reports, Report::Kept { step: Step::Start, reason });
        }
        let Swap { spec, shadow, refused_state, reports } = swap;
        let Spec { deployment, settings, .. } = spec;
        let spec = Spec { deployment, settings, ..(*self.spec).clone() };
        let mut limits = self.environment.limits();
        self.mirror.iter().for_each(|mirror| mirror.fits(&mut limits.worker));
        let kept = self.mirror.as_ref().map(Mirror::encoded).unwrap_or_default();
        let swap = Swap { spec, shadow, refused_state, reports };
        serving.green = Some(Green::start(&self.environment, limits, swap, kept));
    }

    /// Something has happened to the new version. Some where the session's own worker is over with it.
    pub(super) async fn beside(&mut self, happened: Happened, serving: &mut Serving) -> Option<Ended> {
        match happened {
            Happened::Launched(member) => {
                if let Some(green) = &mut serving.green {
                    green.worker = Stage::Running(member);
                }
            }
            Happened::Well => {}
            Happened::Late => self.hear(Input::Tick, serving).await,
            Happened::Lost(reason) => self.lose(reason, serving).await,
            Happened::Said(message) => return self.said(*message, serving).await,
        }
        None
    }

    async fn said(&mut self, message: FromWorker, serving: &mut Serving) -> Option<Ended> {
        let promoted = serving.is_promoted();
        let Some(green) = &mut serving.green else { return None };
        if green.progress.step() == Step::Start {
            match self.starts(message, serving) {
                Ok(false) => {}
                Ok(true) => self.hear(Input::Ready, serving).await,
                Err(reason) => self.give_up(reason, serving).await,
            }
            return None;
        }
        let member = green.member()?;
        match message {
            FromWorker::Alive { counters, guest_memory } => {
                member.health.counted(counters);
                member.guest_memory = guest_memory;
            }
            FromWorker::Log { level, context, message, frame } => {
                log(&member.spec.id, &member.spec.deployment.id, level, &context, &message, frame);
            }
            FromWorker::Decoded { first, .. } => self.hear(Input::Decoded { first }, serving).await,
            FromWorker::Rehearsed { frame, outcome } => {
                let outcome = outcome.map(|outcome| outcome.map_err(bounds::cause));
                if let Some(Ok(result)) = &outcome
                    && let Err((_, message)) = bounds::result(result, &member.limits)
                {
                    self.give_up(message, serving).await;
                    return None;
                }
                self.hear(Input::Rehearsed { frame, outcome: outcome.as_ref() }, serving).await;
            }
            FromWorker::Renewed => self.hear(Input::Renewed, serving).await,
            FromWorker::Restored(restored) => {
                let restored = restored.map_err(bounds::cause);
                self.hear(Input::Restored(&restored), serving).await;
            }
            // Kept with the call that it belongs to, once the new version is the session's.
            FromWorker::Stored(changes) if member.held.is_empty() => member.held = changes,
            FromWorker::Speaking if promoted => {}
            FromWorker::CommandAnswer { id, answer } if promoted => {
                if !serving.questions.answer(id, answer) {
                    self.give_up(format!("an answer to a question {id} that nobody asked"), serving).await;
                }
            }
            message @ (FromWorker::Result { .. }
            | FromWorker::FrameFailed { .. }
            | FromWorker::Finished { .. })
                if promoted =>
            {
                let frame = match &message {
                    FromWorker::Result { result, .. } => Some(result.frame),
                    FromWorker::FrameFailed { frame, .. } => Some(*frame),
                    _ => None,
                };
                self.settle(serving, frame).await;
                return self.handle(message, Vec::new(), serving).await;
            }
            FromWorker::Failed { stage, message, .. } => {
                let (Unfit::Lost(reason) | Unfit::Broken(reason)) = failed(stage, message);
                self.give_up(reason, serving).await;
            }
            other => {
                let (Unfit::Lost(reason) | Unfit::Broken(reason)) = out_of_turn(&other);
                self.give_up(reason, serving).await;
            }
        }
        None
    }

    /// Handles a message of a new version that is not initialised yet. Whether it is now; or why it never will be.
    fn starts(&self, message: FromWorker, serving: &mut Serving) -> Result<bool, String> {
        let Some(green) = &mut serving.green else { return Ok(false) };
        let Some(member) = green.member() else { return Ok(false) };
        let described = member.description.is_some();
        let ready = member.starting(message, &self.environment);
        if let Some(description) = member.description.as_ref().filter(|_| !described) {
            let (name, version) = (description.name.clone(), description.version.clone());
            green.report(Report::Described { name, version });
        }
        ready.map_err(|error| match error {
            NoStart::Unfit(Unfit::Lost(reason) | Unfit::Broken(reason)) | NoStart::Lasting(reason) => reason,
        })
    }

    /// Tells the change what has happened, and does what follows.
    pub(super) async fn hear(&mut self, input: Input<'_>, serving: &mut Serving) {
        let view = View {
            done: serving.done,
            source_down: self.life.source_fault().is_some(),
            sent_since: serving.sent_to_new(),
        };
        let Some(green) = &mut serving.green else { return };
        for act in green.progress.on(input, view, Instant::now()) {
            self.act(act, serving).await;
        }
    }

    async fn act(&mut self, act: Act, serving: &mut Serving) {
        let Serving { feed, green: Some(green), member: running, questions, states_asked, .. } = serving
        else {
            return;
        };
        match act {
            Act::Begin(step) => green.report(Report::Began(step)),
            Act::Compared(comparison) => green.report(Report::Shadowed(comparison)),
            Act::Tell(message) => feed.tell(Whom::Ready, message, Vec::new()).await,
            Act::Join => {
                if let Some(member) = green.member()
                    && let Some(outbox) = member.outbox.take()
                {
                    member.sent = feed.join(outbox, Vec::new()).await;
                }
            }
            Act::TakeState => {
                feed.pause().await;
                feed.tell(Whom::Speaking, ToWorker::Snapshot, Vec::new()).await;
                *states_asked += 1;
                green.last_result = running.last_result;
            }
            Act::Restore { state } => {
                let kept = self.mirror.as_ref().map(Mirror::encoded).unwrap_or_default();
                feed.tell(Whom::Ready, ToWorker::Adopt, kept).await;
                if let Some((version, bytes)) = green.state.as_ref().filter(|_| state) {
                    let restore = ToWorker::Restore { version: version.clone() };
                    feed.tell(Whom::Ready, restore, bytes.clone()).await;
                }
            }
            Act::Promote { after } => {
                feed.tell(Whom::Ready, ToWorker::Speak { after }, Vec::new()).await;
                feed.promote().await;
                questions.next_worker();
            }
            Act::Settle => self.settle(serving, None).await,
            Act::Fail(reason) => self.give_up(reason, serving).await,
        }
    }

    /// The running version has given its state.
    pub(super) async fn take_state(&mut self, through: Option<u64>, state: Vec<u8>, serving: &mut Serving) {
        let Serving { green: Some(green), member, .. } = serving else { return };
        let version = member.description.as_ref().map(|description| description.version.clone());
        let bytes = state.len();
        green.last_result = member.last_result;
        green.state = Some((version.unwrap_or_default(), state));
        self.hear(Input::State { through, bytes }, serving).await;
    }

    /// The new version is the session's: its first frame is done, or there is none to wait for.
    pub(super) async fn settle(&mut self, serving: &mut Serving, first_frame: Option<u64>) {
        let Some(mut green) = serving.green.take() else { return };
        let Some(mut member) = green.take() else { return };
        serving.feed.settle().await;
        serving.questions.forget_others();
        member.since = Instant::now();
        member.dropped_before = serving.feed.dropped();
        let passed = std::mem::replace(&mut serving.member, *member);
        serving.states_asked = 0;
        let state = green.state.take().filter(|(_, bytes)| !bytes.is_empty());
        let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
        let swapped = Swapped {
            total_ms: milliseconds(green.begun),
            gap_ms: green.last_result.filter(|_| first_frame.is_some()).map(milliseconds),
            state_bytes: state.as_ref().map(|(_, bytes)| bytes.len() as u64),
            fresh: green.progress.is_fresh(),
            last_frame: green.progress.through(),
            first_frame,
            cold: false,
        };
        self.supersede();
        let probation = self.environment.limits().swap.probation;
        self.trial = Some(OnTrial {
            reports: green.reports.clone(),
            fallback: Some((Arc::clone(&self.spec), state)),
            until: Some(Instant::now() + probation),
            cold: None,
        });
        self.worked = first_frame.is_some();
        self.shared.update(|shown| shown.end_worker());
        self.set_spec(Arc::clone(&green.spec));
        self.show_worker(&serving.member);
        green.report(Report::Began(Step::Probation));
        green.report(Report::Swapped(swapped));
        self.end_in_background(passed).await;
    }

    /// The running version stays, and the new one goes.
    pub(super) async fn give_up(&mut self, reason: String, serving: &mut Serving) {
        let Some(mut green) = take_back(serving).await else { return };
        self.tell_given_up(&green, reason);
        if let Some(mut member) = green.take() {
            member.worker.kill();
            self.end_in_background(*member).await;
        }
    }

    /// As [`give_up`](Self::give_up), of a new version whose worker has ended: how it did is a part of the reason.
    async fn lose(&mut self, mut reason: String, serving: &mut Serving) {
        let Some(mut green) = take_back(serving).await else { return };
        if let Some(member) = green.take() {
            let cleanup = self.environment.limits().cleanup;
            reason += &format!(" ({})", member.end(true, cleanup).await.0);
        }
        self.tell_given_up(&green, reason);
    }

    pub(super) fn tell_given_up(&self, green: &Green, reason: String) {
        let step = green.progress.step();
        let deployment = &green.spec.deployment.id;
        tracing::warn!(
            target: "ocelli::session",
            session = self.id(), deployment,
            "the new version is given up at step {step}, the running one stays: {reason}"
        );
        green.report(Report::Kept { step, reason });
    }

    /// Waits for a worker's end while the session goes on. Of two the first has ended long ago.
    async fn end_in_background(&mut self, member: Member) {
        if let Some(before) = self.ending.take() {
            let _ = before.await;
        }
        let cleanup = self.environment.limits().cleanup;
        self.ending = Some(tokio::spawn(async move {
            let _ = member.end(true, cleanup).await;
        }));
    }
}

/// Takes the new version out and lets the running one have everything.
pub(super) async fn take_back(serving: &mut Serving) -> Option<Green> {
    let promoted = serving.is_promoted();
    let green = serving.green.take()?;
    if promoted {
        serving.feed.recall().await;
        // Whoever asked it gets no answer.
        serving.questions.next_worker();
        serving.questions.forget_others();
    } else {
        serving.feed.dismiss().await;
    }
    Some(green)
}

impl Serving {
    /// Access units that the new version was sent since it speaks.
    fn sent_to_new(&mut self) -> u64 {
        let member = self.green.as_mut().and_then(Green::member);
        member.map_or(0, |member| member.sent.units.load(Ordering::Relaxed))
    }
}
