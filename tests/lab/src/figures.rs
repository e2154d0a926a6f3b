//! How long cameras were silent, out of a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Camera, Heard, History, Host, Nanos, since, speaks_often};

/// What a run did, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// When it began.
    pub(crate) begun: Nanos,
    /// From when on it is counted how long cameras take to speak again: the fault's beginning, or
    /// the end of one that silences everybody.
    pub(crate) from: Nanos,
    /// Hosts that the fault itself hit.
    pub(crate) touched: BTreeSet<Host>,
}

/// The figures of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Of each camera of a host that was hit, and that another host, or another life of the same,
    /// had then: until it was heard again.
    pub(crate) speaks: Vec<Duration>,
    /// Likewise: until its first event was acknowledged.
    pub(crate) first_event: Vec<Duration>,
    /// Of each other change of an owner, most of which the plan asked for: from the last message
    /// under the one epoch to the first under the next.
    pub(crate) planned: Vec<Duration>,
    /// The longest silence of each camera that stayed where it was, of those that speak often.
    pub(crate) others: Vec<Duration>,
    /// From an event to its acknowledgement, of cameras that stayed.
    pub(crate) late: Vec<Duration>,
}

/// Takes them.
pub(crate) fn of(history: &History, window: &Window) -> Figures {
    let mut figures = Figures::default();
    let (mut hit, mut stayed) = (BTreeMap::new(), BTreeSet::new());
    for (camera, heard) in by_camera(&history.heard) {
        let before = heard.iter().rfind(|message| message.received < window.begun);
        let Some(before) = before else { continue };
        let mut handovers = handovers(&heard, window.begun);
        if window.touched.contains(&before.host) {
            let again = heard
                .iter()
                .find(|message| message.epoch > before.epoch && message.received >= window.from);
            if let Some(again) = again {
                hit.insert(camera, before.epoch);
                figures.speaks.push(since(window.from, again.received));
                // The first was no plan's.
                handovers.drain(..1.min(handovers.len()));
            }
        } else if handovers.is_empty() {
            if speaks_often(camera) {
                figures.others.push(longest_silence(&heard, window.begun));
            }
            stayed.insert(camera);
        }
        figures.planned.append(&mut handovers);
    }
    figures.first_event = first_events(history, window, &hit);
    let late = history.acked.iter().filter(|event| {
        stayed.contains(&event.camera) && event.made >= window.begun && event.at >= event.made
    });
    figures.late = late.map(|event| since(event.made, event.at)).collect();
    figures
}

/// Messages of each camera in the order in which they came.
fn by_camera(heard: &[Heard]) -> BTreeMap<Camera, Vec<Heard>> {
    let mut cameras = BTreeMap::<Camera, Vec<Heard>>::new();
    for message in heard {
        cameras.entry(message.camera).or_default().push(*message);
    }
    cameras
}

fn handovers(heard: &[Heard], begun: Nanos) -> Vec<Duration> {
    let mut silences = Vec::new();
    let mut last: Option<Heard> = None;
    // What came late and under a lower epoch is nothing that anybody is given.
    for message in heard {
        if let Some(before) = last {
            if message.epoch < before.epoch {
                continue;
            }
            if message.epoch > before.epoch && message.received >= begun {
                silences.push(since(before.received, message.received));
            }
        }
        last = Some(*message);
    }
    silences
}

fn longest_silence(heard: &[Heard], begun: Nanos) -> Duration {
    let gaps = heard.windows(2).filter_map(|pair| match pair {
        [one, next] if next.received >= begun => Some(since(one.received, next.received)),
        _ => None,
    });
    gaps.max().unwrap_or_default()
}

/// For each of these cameras, with their epochs before the fault: when the first event of a later
/// one was acknowledged.
fn first_events(
    history: &History,
    window: &Window,
    before: &BTreeMap<Camera, u64>,
) -> Vec<Duration> {
    let mut first = BTreeMap::<Camera, Nanos>::new();
    for event in history.acked.iter().filter(|event| event.at >= window.from) {
        if before.get(&event.camera).is_some_and(|epoch| event.epoch > *epoch) {
            let at = first.entry(event.camera).or_insert(event.at);
            *at = event.at.min(*at);
        }
    }
    first.into_values().map(|at| since(window.from, at)).collect()
}

/// The middle one and the greatest; nothing of nothing.
pub(crate) fn middle_and_most(durations: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Acked, TAKEOVER};

    const SECOND: Nanos = 1_000_000_000;

    fn heard(camera: Camera, epoch: u64, host: Host, at: Nanos) -> Heard {
        Heard { camera, epoch, host, sent: at, received: at }
    }

    fn acked(camera: Camera, epoch: u64, made: Nanos, at: Nanos) -> Acked {
        Acked { camera, epoch, host: 1, seq: 1, id: TAKEOVER.into(), made, at }
    }

    #[test]
    fn who_moved_and_who_stayed_is_told_apart() {
        let history = History {
            heard: vec![
                // The first moves, the second stays, the third is frozen with its host and stays,
                // the fourth moves by plan.
                heard(1, 10, 1, 9 * SECOND),
                heard(20, 11, 2, 9 * SECOND),
                heard(3, 12, 1, 9 * SECOND),
                heard(20, 11, 2, 12 * SECOND),
                heard(1, 20, 2, 15 * SECOND),
                heard(1, 10, 1, 16 * SECOND),
                heard(1, 20, 2, 17 * SECOND),
                heard(20, 11, 2, 13 * SECOND),
                heard(3, 12, 1, 30 * SECOND),
                heard(4, 13, 3, 9 * SECOND),
                heard(4, 13, 3, 20 * SECOND),
                heard(4, 21, 2, 22 * SECOND),
            ],
            acked: vec![
                acked(1, 10, 8 * SECOND, 9 * SECOND),
                acked(20, 11, 11 * SECOND, 14 * SECOND),
                acked(1, 20, 15 * SECOND, 16 * SECOND),
            ],
            ..History::default()
        };
        let begun = 10 * SECOND;
        let window = Window { begun, from: begun, touched: BTreeSet::from([1]) };
        let figures = of(&history, &window);
        let seconds = |durations: &[Duration]| -> Vec<u64> {
            durations.iter().map(Duration::as_secs).collect()
        };
        assert_eq!(seconds(&figures.speaks), [5]);
        assert_eq!(seconds(&figures.first_event), [6]);
        assert_eq!(seconds(&figures.planned), [2]);
        assert_eq!(seconds(&figures.others), [3]);
        assert_eq!(seconds(&figures.late), [3]);
    }

    #[test]
    fn the_middle_and_the_most() {
        assert_eq!(middle_and_most(&[]), None);
        let seconds = [5, 1, 9].map(Duration::from_secs);
        assert_eq!(middle_and_most(&seconds), Some((seconds[0], seconds[2])));
    }
}
