//! What a host does for a camera that it owns: a voice that speaks at once, and events once the
//! camera is taken over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocelli_cluster::Epoch;
use ocelli_cluster::streams::{Chain, EventRecord, StreamError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{Common, camera_number, name};
use crate::history::{Acked, Camera, Nanos, OFTEN, TAKEOVER, now, speaks_often};
use crate::wire;

/// Events that wait for their acknowledgement, at most: minutes of a camera.
const OUTBOX: usize = 1000;

/// Events of one append.
const BATCH: usize = 64;

/// Between two tries of what an engine refuses for the moment.
const RETRY: Duration = Duration::from_millis(200);

/// How long a camera that is to be given up waits for its events to be acknowledged.
const FLUSH: Duration = Duration::from_secs(5);

/// A camera under one epoch. Its tasks end when this is dropped.
pub(super) struct Task {
    pub(super) epoch: Epoch,
    leaving: watch::Sender<bool>,
    tasks: [AbortHandle; 2],
}

/// An event that waits.
struct Waiting {
    id: String,
    made: Nanos,
    /// The event is the same each time that it is tried.
    time_ms: i64,
}

/// What voice and events share.
struct Speaker {
    common: Common,
    id: String,
    camera: Camera,
    epoch: Epoch,
    outbox: Mutex<VecDeque<Waiting>>,
    more: Notify,
}

impl Task {
    /// None where the camera is none of the lab's.
    pub(super) fn begin(common: &Common, id: &str, epoch: Epoch) -> Option<Self> {
        let speaker = Arc::new(Speaker {
            common: common.clone(),
            id: id.to_owned(),
            camera: camera_number(id)?,
            epoch,
            outbox: Mutex::default(),
            more: Notify::new(),
        });
        let (leaving, left) = watch::channel(false);
        let voice = tokio::spawn(voice(Arc::clone(&speaker)));
        let events = tokio::spawn(events(speaker, left));
        Some(Self { epoch, leaving, tasks: [voice.abort_handle(), events.abort_handle()] })
    }

    /// The camera is to be given up: its events first.
    pub(super) fn leave(&self) {
        self.leaving.send_if_modified(|left| !std::mem::replace(left, true));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Speaker {
    fn may_speak(&self) -> bool {
        self.common.settings.disobeys || self.common.member.may_speak(&self.id, self.epoch)
    }

    /// Gives the camera up. A task of its own: this one ends as soon as the camera is not owned.
    fn give_up(self: &Arc<Self>, refused: bool) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let member = &own.common.member;
            if refused {
                member.relinquish(&own.id, own.epoch).await;
            } else if let Err(error) = member.release(&own.id, own.epoch).await {
                tracing::warn!(camera = own.id, %error, "release");
            }
        });
    }

    fn record(&self, waiting: &Waiting, seq: u64) -> EventRecord {
        EventRecord {
            seq,
            epoch: self.epoch,
            host: name(self.common.settings.number),
            kind: "counted".into(),
            time_ms: waiting.time_ms,
            body: wire::event(&waiting.id).into(),
            attachments: Vec::new(),
            clip: None,
        }
    }

    fn acked(&self, id: &str, seq: u64, made: Nanos) -> Acked {
        Acked {
            camera: self.camera,
            epoch: self.epoch.0,
            host: self.common.settings.number,
            seq,
            id: id.into(),
            made,
            at: now(),
        }
    }
}

/// Speaks live, and makes events.
async fn voice(speaker: Arc<Speaker>) {
    let settings = &speaker.common.settings;
    let mut live = Duration::from_millis(settings.live_ms);
    if speaks_often(speaker.camera) {
        live /= OFTEN;
    }
    let event = Duration::from_millis(settings.event_ms);
    // The cameras of a host do not all speak at once; the first message of each is at once.
    let mut due = Instant::now() + event.mul_f64(fastrand::f64());
    let mut ticks = interval_at(Instant::now() + live.mul_f64(fastrand::f64()), live);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut span, mut count) = (None, 0u64);
    loop {
        if speaker.may_speak() {
            let (camera, epoch, at) = (speaker.camera, speaker.epoch, now());
            let message = wire::live(camera, epoch.0, settings.number, at);
            speaker.common.streams.publish_live(&speaker.id, epoch, message.into());
            let diary = &speaker.common.diary;
            match span {
                None => span = Some(diary.speaks(camera, epoch.0, at)),
                Some(span) => diary.speaks_on(span, at),
            }
            if Instant::now() >= due {
                due += event;
                count += 1;
                let id = format!("{}-{}-{count}", settings.number, epoch);
                let mut outbox = speaker.outbox.lock();
                if outbox.len() < OUTBOX {
                    outbox.push_back(Waiting { id, made: at, time_ms: time_ms() });
                }
                drop(outbox);
                speaker.more.notify_one();
            }
        }
        ticks.tick().await;
    }
}

/// Takes the camera over, and appends what the voice makes.
async fn events(speaker: Arc<Speaker>, mut leaving: watch::Receiver<bool>) {
    let Some(mut chain) = take_over(&speaker).await else { return };
    let mut leave_by = None;
    loop {
        if leave_by.is_none() && *leaving.borrow_and_update() {
            leave_by = Some(Instant::now() + FLUSH);
        }
        let empty = speaker.outbox.lock().is_empty();
        if leave_by.is_some_and(|by| empty || Instant::now() > by) {
            return speaker.give_up(false);
        }
        if empty {
            tokio::select! {
                () = speaker.more.notified() => {}
                _ = leaving.changed() => {}
            }
        } else if !append(&speaker, &mut chain).await {
            return;
        }
    }
}

/// None where another host has it.
async fn take_over(speaker: &Arc<Speaker>) -> Option<Chain> {
    let made = now();
    loop {
        let streams = &speaker.common.streams;
        match streams.take_over(&speaker.id, speaker.epoch, 0, time_ms()).await {
            Ok(chain) => {
                let acked = speaker.acked(TAKEOVER, chain.seq(), made);
                speaker.common.diary.acked([&acked].into_iter());
                return Some(chain);
            }
            Err(StreamError::Fenced { .. }) => {
                speaker.common.diary.refused(speaker.camera, speaker.epoch.0);
                speaker.give_up(true);
                return None;
            }
            Err(error) => {
                tracing::info!(camera = speaker.id, %error, "take-over");
                sleep(RETRY).await;
            }
        }
    }
}

/// Appends a batch. False where this host is not to go on.
async fn append(speaker: &Arc<Speaker>, chain: &mut Chain) -> bool {
    let before = chain.seq();
    let records: Vec<EventRecord> = {
        let outbox = speaker.outbox.lock();
        let numbered = outbox.iter().take(BATCH).zip(before + 1..);
        numbered.map(|(waiting, seq)| speaker.record(waiting, seq)).collect()
    };
    let result = speaker.common.streams.append(chain, &records).await;
    let stored = usize::try_from(chain.seq() - before).unwrap();
    let acked: Vec<Acked> = {
        let mut outbox = speaker.outbox.lock();
        let stored = outbox.drain(..stored).zip(before + 1..);
        stored.map(|(waiting, seq)| speaker.acked(&waiting.id, seq, waiting.made)).collect()
    };
    speaker.common.diary.acked(acked.iter());
    match result {
        Ok(()) => true,
        Err(StreamError::Fenced { .. }) => {
            speaker.common.diary.refused(speaker.camera, speaker.epoch.0);
            if speaker.common.settings.disobeys {
                // It tries the next one, and for ever.
                speaker.outbox.lock().pop_front();
                return true;
            }
            speaker.give_up(true);
            false
        }
        Err(error) => {
            tracing::info!(camera = speaker.id, %error, "append");
            sleep(RETRY).await;
            true
        }
    }
}

fn time_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
