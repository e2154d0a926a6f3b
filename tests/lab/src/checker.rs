//! Whether a history is one that a site may have.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::history::{Acked, Camera, Heard, History, Host, Nanos, Stored, TAKEOVER, Voice, since};

#[cfg(test)]
mod tests;

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A camera's events are no chain: a number is missing, comes twice or goes back.
    Broken { camera: Camera, before: u64, found: u64 },
    /// An event of a lower epoch after one of a higher.
    EpochBack { camera: Camera, seq: u64, before: u64, found: u64 },
    /// The first event of an epoch is no takeover, or a later one is.
    Takeover { camera: Camera, seq: u64, epoch: u64 },
    /// Two hosts wrote under one epoch.
    Shared { camera: Camera, epoch: u64, hosts: (Host, Host) },
    /// One event has two numbers.
    Twice { camera: Camera, seqs: (u64, u64) },
    /// An acknowledged event is not there.
    Lost { camera: Camera, seq: u64, host: Host },
    /// Under an acknowledged event's number there is another.
    Replaced { camera: Camera, seq: u64, host: Host },
    /// A host spoke for a camera after another that came later had begun to.
    TwoVoices { camera: Camera, host: Host, epoch: u64, later: u64, by: Duration },
    /// A follower at another host missed an event, or got it twice.
    Followed { camera: Camera, before: u64, found: u64 },
}

impl Breach {
    /// The kind, as figures count it.
    pub(crate) fn kind(&self) -> BreachKind {
        match self {
            Self::Broken { .. }
            | Self::EpochBack { .. }
            | Self::Takeover { .. }
            | Self::Shared { .. }
            | Self::Twice { .. } => BreachKind::Chain,
            Self::Lost { .. } | Self::Replaced { .. } => BreachKind::Lost,
            Self::TwoVoices { .. } => BreachKind::Voice,
            Self::Followed { .. } => BreachKind::Follower,
        }
    }

    /// The host that is to blame, where one is.
    pub(crate) fn host(&self) -> Option<Host> {
        match self {
            Self::Lost { host, .. }
            | Self::Replaced { host, .. }
            | Self::TwoVoices { host, .. } => Some(*host),
            _ => None,
        }
    }
}

/// What a breach is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BreachKind {
    Chain,
    Lost,
    Voice,
    Follower,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { camera, before, found } => {
                write!(f, "camera {camera}: event {found} follows event {before}")
            }
            Self::EpochBack { camera, seq, before, found } => {
                write!(f, "camera {camera}: event {seq} of epoch {found} follows one of {before}")
            }
            Self::Takeover { camera, seq, epoch } => {
                write!(f, "camera {camera}: epoch {epoch} does not begin with its takeover: {seq}")
            }
            Self::Shared { camera, epoch, hosts: (one, other) } => {
                write!(f, "camera {camera}: hosts {one} and {other} wrote under epoch {epoch}")
            }
            Self::Twice { camera, seqs: (first, second) } => {
                write!(f, "camera {camera}: one event is number {first} and {second}")
            }
            Self::Lost { camera, seq, host } => {
                write!(f, "camera {camera}: event {seq}, acknowledged to host {host}, is lost")
            }
            Self::Replaced { camera, seq, host } => {
                write!(f, "camera {camera}: event {seq} is not the one acknowledged to host {host}")
            }
            Self::TwoVoices { camera, host, epoch, later, by } => write!(
                f,
                "camera {camera}: host {host} (epoch {epoch}) spoke {by:?} after epoch {later} had \
                 begun to"
            ),
            Self::Followed { camera, before, found } => {
                write!(f, "camera {camera}: a follower got event {found} after event {before}")
            }
        }
    }
}

/// Where each camera's chain was when a history began: its last number and that one's epoch.
pub(crate) type Heads = BTreeMap<Camera, (u64, u64)>;

/// All breaches of a history that goes on from `heads`.
pub(crate) fn check(history: &History, heads: &Heads) -> Vec<Breach> {
    let mut breaches = chains(&history.stored, heads);
    breaches.extend(acknowledged(&history.acked, &history.stored, heads));
    breaches.extend(voices(&history.voices, &history.heard));
    breaches.extend(followed(history));
    breaches
}

/// The heads after these events.
pub(crate) fn advanced(heads: &Heads, stored: &[Stored]) -> Heads {
    let mut heads = heads.clone();
    for event in stored {
        heads.insert(event.camera, (event.seq, event.epoch));
    }
    heads
}

/// Numbers without a gap, epochs that never go back and each begin with a takeover.
fn chains(stored: &[Stored], heads: &Heads) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut heads = heads.clone();
    let mut writers = BTreeMap::<(Camera, u64), Host>::new();
    let mut ids = HashMap::<(Camera, &str), u64>::new();
    for event in stored {
        let Stored { camera, seq, epoch, host, ref id } = *event;
        let (before, last_epoch) = heads.get(&camera).copied().unwrap_or_default();
        if seq != before + 1 {
            breaches.push(Breach::Broken { camera, before, found: seq });
        }
        if epoch < last_epoch {
            let (before, found) = (last_epoch, epoch);
            breaches.push(Breach::EpochBack { camera, seq, before, found });
        }
        let takes_over = &**id == TAKEOVER;
        if (epoch > last_epoch) != takes_over {
            breaches.push(Breach::Takeover { camera, seq, epoch });
        }
        let writer = *writers.entry((camera, epoch)).or_insert(host);
        if writer != host {
            breaches.push(Breach::Shared { camera, epoch, hosts: (writer, host) });
        }
        if !takes_over && let Some(first) = ids.insert((camera, &**id), seq) {
            breaches.push(Breach::Twice { camera, seqs: (first, seq) });
        }
        heads.insert(camera, (seq.max(before), epoch.max(last_epoch)));
    }
    breaches
}

/// Every acknowledged event is there, as it was.
fn acknowledged(acked: &[Acked], stored: &[Stored], heads: &Heads) -> Vec<Breach> {
    let there: HashMap<(Camera, u64), &Stored> =
        stored.iter().map(|event| ((event.camera, event.seq), event)).collect();
    let mut breaches = Vec::new();
    for Acked { camera, epoch, host, seq, id, .. } in acked {
        let (camera, seq, host) = (*camera, *seq, *host);
        // What was there when the history began has been seen before.
        if heads.get(&camera).is_some_and(|(before, _)| seq <= *before) {
            continue;
        }
        match there.get(&(camera, seq)) {
            None => breaches.push(Breach::Lost { camera, seq, host }),
            Some(event) if event.id != *id || event.epoch != *epoch => {
                breaches.push(Breach::Replaced { camera, seq, host });
            }
            Some(_) => {}
        }
    }
    breaches
}

/// When each epoch of a camera spoke, and who.
type Spans = BTreeMap<u64, (Host, Nanos, Nanos)>;

/// When each epoch of each camera spoke first and last, by what hosts say and by what was heard.
fn spans(voices: &[Voice], heard: &[Heard]) -> BTreeMap<Camera, Spans> {
    let mut cameras = BTreeMap::<Camera, Spans>::new();
    let spoken = voices.iter().map(|v| (v.camera, v.epoch, v.host, v.first, v.last));
    let heard = heard.iter().map(|h| (h.camera, h.epoch, h.host, h.sent, h.sent));
    for (camera, epoch, host, first, last) in spoken.chain(heard) {
        let spans = cameras.entry(camera).or_default();
        let span = spans.entry(epoch).or_insert((host, first, last));
        span.1 = span.1.min(first);
        span.2 = span.2.max(last);
    }
    cameras
}

/// Nobody speaks once a later epoch has begun to. Times are those of sending.
fn voices(voices: &[Voice], heard: &[Heard]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (camera, spans) in spans(voices, heard) {
        // From the highest epoch down: when any of those above has begun.
        let mut begun: Option<(u64, Nanos)> = None;
        for (epoch, (host, first, last)) in spans.into_iter().rev() {
            if let Some((later, start)) = begun.filter(|(_, start)| last > *start) {
                let by = since(start, last);
                breaches.push(Breach::TwoVoices { camera, host, epoch, later, by });
            }
            if begun.is_none_or(|(_, start)| first < start) {
                begun = Some((epoch, first));
            }
        }
    }
    breaches
}

/// A follower gets what it gets in order, each once. It may be behind, and begin anywhere.
fn followed(history: &History) -> Vec<Breach> {
    let mut last = BTreeMap::<(usize, Camera), u64>::new();
    let mut breaches = Vec::new();
    for event in &history.followed {
        let (camera, found) = (event.camera, event.seq);
        if let Some(before) = last.insert((event.life, camera), found)
            && found != before + 1
        {
            breaches.push(Breach::Followed { camera, before, found });
        }
    }
    breaches
}

/// Live messages that came after one of a later epoch: what every hub has to drop.
pub(crate) fn stale(heard: &[Heard]) -> usize {
    let mut highest = BTreeMap::<Camera, u64>::new();
    let mut stale = 0;
    for message in heard {
        let highest = highest.entry(message.camera).or_default();
        stale += usize::from(message.epoch < *highest);
        *highest = message.epoch.max(*highest);
    }
    stale
}
