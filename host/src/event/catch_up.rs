//! Where a subscriber stands with a session's events: live, or behind and reading them from the
//! journal.
//!
//! Every event is in the journal before it is published. So a subscriber that is behind needs
//! nothing but the number of the last event that it has: it reads page after page, and is live
//! again once a page has ended at or beyond the newest that was published meanwhile. Both are
//! decided under the lock of its queue, so nothing falls between page and publication, and what is
//! in both is told once.

use std::sync::Arc;

use crate::journal::events::JournalPage;

/// A session's events as one subscriber gets them.
#[derive(Debug)]
pub(super) struct EventLane {
    /// The last event that was queued. None: live, and nothing was published since.
    last_queued: Option<u64>,
    /// The newest that was published since the subscription began.
    newest: u64,
    /// What follows `through` has to be read from the journal.
    behind: bool,
    /// Events that are queued.
    queued: usize,
}

/// A page of the journal that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) session: Arc<str>,
    /// The events that follow.
    pub(super) after: u64,
}

impl EventLane {
    /// Live from now on, or behind from a number on.
    pub(super) fn new(after: Option<u64>) -> Self {
        Self { last_queued: after, newest: 0, behind: after.is_some(), queued: 0 }
    }

    pub(super) fn is_live(&self) -> bool {
        !self.behind
    }

    /// Whether the subscriber has read everything that was published.
    pub(super) fn is_drained(&self) -> bool {
        !self.behind && self.queued == 0
    }

    /// Hears of an event, in order. True: it is to be queued. `full`: there is no room.
    pub(super) fn publish(&mut self, seq: u64, full: bool) -> bool {
        self.newest = seq;
        let through = *self.last_queued.get_or_insert(seq.saturating_sub(1));
        if self.behind || seq <= through {
            return false;
        }
        if full {
            self.behind = true;
            return false;
        }
        self.last_queued = Some(seq);
        self.queued += 1;
        true
    }

    /// One that was queued has been read.
    pub(super) fn read(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    /// What to read from the journal, if it is time to.
    pub(super) fn load(&self, session: &Arc<str>) -> Option<PageRequest> {
        let wanted = self.behind && self.queued == 0;
        wanted.then(|| PageRequest {
            session: Arc::clone(session),
            after: self.last_queued.unwrap_or_default(),
        })
    }

    /// Takes a page in; none where it is not the one that is wanted now. Gives how many events at
    /// its beginning are not told, and a number where some that followed it are deleted.
    pub(super) fn take(
        &mut self,
        load: &PageRequest,
        page: &JournalPage,
    ) -> Option<(usize, Option<u64>)> {
        let after = self.last_queued.unwrap_or_default();
        if !self.behind || after != load.after {
            return None;
        }
        let span = page.span;
        let gone = (span.newest > after && span.oldest > after + 1).then_some(after);
        let skip = page.events.iter().take_while(|entry| entry.seq <= after).count();
        self.queued += page.events.len().saturating_sub(skip);
        // Without a next page this one covers everything that the journal had when it was read.
        let through = page.next.unwrap_or(span.newest).max(after);
        self.last_queued = Some(through);
        self.behind = page.next.is_some() || self.newest > through;
        Some((skip, gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::events::{SequenceRange, StoredEvent};
    use proptest::prelude::*;

    fn page(oldest: u64, newest: u64, after: u64, limit: u64) -> JournalPage {
        let first = oldest.max(after + 1);
        let last = newest.min(first + limit - 1);
        let entry = |seq| StoredEvent { seq, kind: "k".into(), body: "{}".into() };
        JournalPage {
            events: (first..=last).map(entry).collect(),
            span: SequenceRange { oldest, newest },
            next: (last < newest).then_some(last),
        }
    }

    #[test]
    fn a_new_lane_is_live_from_its_first_event_on() {
        let mut lane = EventLane::new(None);
        assert!(lane.load(&"cam".into()).is_none());
        assert!(lane.publish(41, false));
        assert!(!lane.publish(41, false), "told once");
        assert!(!lane.publish(42, true));
        assert!(lane.load(&"cam".into()).is_none(), "41 still waits");
        lane.read();
        assert_eq!(lane.load(&"cam".into()).unwrap().after, 41);
    }

    #[test]
    fn a_lane_that_is_full_at_its_first_event_does_not_begin_with_the_journal() {
        let mut lane = EventLane::new(None);
        assert!(!lane.publish(500, true));
        assert_eq!(lane.load(&"cam".into()).unwrap().after, 499);
    }

    #[test]
    fn what_retention_has_deleted_is_told_and_it_goes_on_with_the_oldest() {
        let mut lane = EventLane::new(Some(5));
        let load = lane.load(&"cam".into()).unwrap();
        assert_eq!(lane.take(&load, &page(20, 30, 5, 100)).unwrap(), (0, Some(5)));
        assert!(lane.is_live());
        // Everything is gone.
        let mut lane = EventLane::new(Some(5));
        let load = lane.load(&"cam".into()).unwrap();
        assert_eq!(lane.take(&load, &page(31, 30, 5, 100)).unwrap().1, Some(5));
        assert!(lane.publish(31, false));
        // Nothing has happened since.
        let mut lane = EventLane::new(Some(5));
        let load = lane.load(&"cam".into()).unwrap();
        assert_eq!(lane.take(&load, &page(6, 5, 5, 100)).unwrap().1, None);
    }

    #[test]
    fn a_page_for_a_subscription_that_began_anew_is_not_taken() {
        let stale = EventLane::new(Some(5)).load(&"cam".into()).unwrap();
        let mut lane = EventLane::new(Some(2));
        assert_eq!(lane.take(&stale, &page(1, 9, 5, 100)), None);
        assert_eq!(lane.load(&"cam".into()).unwrap().after, 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// An event is committed, published later.
        Commit,
        Publish,
        Read,
        /// A page is asked for.
        Ask,
        Come,
        Full(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Commit),
            4 => Just(Step::Publish),
            4 => Just(Step::Read),
            3 => Just(Step::Ask),
            3 => Just(Step::Come),
            1 => any::<bool>().prop_map(Step::Full),
        ]
    }

    proptest! {
        #[test]
        fn every_event_is_told_once_and_in_order_whatever_meets(
            steps in proptest::collection::vec(step(), 0..400),
            after in proptest::option::of(0u64..6),
        ) {
            let session: Arc<str> = "cam".into();
            let (mut committed, mut published) = (6u64, 6u64);
            let mut lane = EventLane::new(after);
            let (mut told, mut waiting): (Vec<u64>, std::collections::VecDeque<u64>) = Default::default();
            let mut asked: Option<(PageRequest, JournalPage)> = None;
            let mut full = false;
            let run = steps.into_iter().chain((0..2000).flat_map(|_| {
                [Step::Full(false), Step::Publish, Step::Read, Step::Ask, Step::Come]
            }));
            for step in run {
                match step {
                    Step::Commit => committed += 1,
                    Step::Publish if published < committed => {
                        published += 1;
                        if lane.publish(published, full) {
                            waiting.push_back(published);
                        }
                    }
                    Step::Read => if let Some(seq) = waiting.pop_front() {
                        lane.read();
                        told.push(seq);
                    },
                    Step::Ask if asked.is_none() => asked = lane.load(&session).map(|load| {
                        let page = page(1, committed, load.after, 3);
                        (load, page)
                    }),
                    Step::Come => if let Some((load, page)) = asked.take() {
                        let (skip, gone) = lane.take(&load, &page).unwrap();
                        prop_assert_eq!(gone, None);
                        waiting.extend(page.events[skip..].iter().map(|entry| entry.seq));
                    },
                    Step::Full(now) => full = now,
                    _ => {}
                }
            }
            let first = after.unwrap_or(6) + 1;
            prop_assert_eq!(told, (first..=committed).collect::<Vec<_>>());
        }
    }
}
