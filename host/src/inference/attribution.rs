//! Attributes the crash of a process to a request: which is suspected, which is refused from now
//! on, and which session is quarantined.
//!
//! A request that was running when a process died is a *suspect*. The next process runs suspects
//! alone, so when that one dies, too, the request that ran alone is the cause: it is *poison* and
//! never runs again. A request that was in flight in two crashes, but not alone, is not refused:
//! another one may have been the cause. So an innocent request is never refused, however many
//! crashes it was in flight in.

use std::collections::{BTreeMap, BTreeSet};

use ocelli_protocol::in_flight::RunningRequest;

/// Strikes of one attachment until it is quarantined. One may be a damaged frame, and a second one
/// the frame after it; the third shows that the pipeline sends such requests regularly, and each
/// has cost every other session two handovers.
pub(super) const MAX_STRIKES: u32 = 3;

/// A request: the attachment's number and its own.
pub(super) type RequestKey = (u64, u64);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeathCause {
    /// By itself, or killed from outside.
    Crash,
    /// The host killed it, since it showed no sign of life.
    Silence,
    /// The host killed it: these requests were past their time and did not end.
    Overdue(Vec<RequestKey>),
    /// The host killed it for a reason that has to do with no request.
    Unrelated,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalReason {
    /// It ended two processes.
    Poison,
    /// It could be ended with its process alone.
    TimedOut,
}

/// A request that is not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestRefusal {
    pub(super) attachment: u64,
    pub(super) request: u64,
    pub(super) reason: RefusalReason,
    /// Whether all further requests of the attachment are refused.
    pub(super) quarantined: bool,
}

/// The strikes and the suspect of each attachment.
#[derive(Debug, Default)]
pub(super) struct CrashAttribution {
    records: BTreeMap<u64, AttachmentRecord>,
}

#[derive(Debug, Default)]
struct AttachmentRecord {
    /// A request that was running when a process died. An attachment has one request at a time, so
    /// a later one that is running says that this one was answered.
    suspect: Option<u64>,
    strikes: u32,
}

impl CrashAttribution {
    /// The request of an attachment that the next process has to run alone.
    pub(super) fn suspect(&self, attachment: u64) -> Option<u64> {
        self.records.get(&attachment)?.suspect
    }

    /// Drops the record of an attachment that has ended.
    pub(super) fn forget(&mut self, attachment: u64) {
        self.records.remove(&attachment);
    }

    /// Records the death of a process with the requests in flight. Returns the requests to refuse.
    pub(super) fn on_death(
        &mut self,
        running: &[RunningRequest],
        cause: &DeathCause,
    ) -> Vec<RequestRefusal> {
        // Slots of one batch hold different requests; one request in two slots counts once.
        let running: BTreeSet<RequestKey> =
            running.iter().map(|running| (running.attachment, running.request)).collect();
        match cause {
            DeathCause::Unrelated => Vec::new(),
            DeathCause::Overdue(overdue) => {
                // Of a batch that takes too long it is not known whose request it is: its members
                // lose this one, and nothing is held against them.
                let alone = overdue.len() == 1;
                let refuse = |&key| self.refuse(key, RefusalReason::TimedOut, alone);
                overdue.iter().map(refuse).collect()
            }
            DeathCause::Crash | DeathCause::Silence => {
                let alone = running.len() == 1;
                let mut refused = Vec::new();
                for key @ (attachment, request) in running {
                    let record = self.records.entry(attachment).or_default();
                    let again = record.suspect.replace(request) == Some(request);
                    if again && alone {
                        refused.push(self.refuse(key, RefusalReason::Poison, true));
                    }
                }
                refused
            }
        }
    }

    fn refuse(
        &mut self,
        (attachment, request): RequestKey,
        why: RefusalReason,
        strike: bool,
    ) -> RequestRefusal {
        let record = self.records.entry(attachment).or_default();
        record.suspect = None;
        record.strikes += u32::from(strike);
        RequestRefusal {
            attachment,
            request,
            reason: why,
            quarantined: record.strikes >= MAX_STRIKES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl CrashAttribution {
        /// Whether an attachment is refused everything.
        fn is_quarantined(&self, attachment: u64) -> bool {
            self.records.get(&attachment).is_some_and(|record| record.strikes >= MAX_STRIKES)
        }
    }

    fn running(keys: &[RequestKey]) -> Vec<RunningRequest> {
        keys.iter()
            .map(|&(attachment, request)| RunningRequest { attachment, request, deadline_ns: 0 })
            .collect()
    }

    fn poison(attachment: u64, request: u64) -> RequestRefusal {
        RequestRefusal { attachment, request, reason: RefusalReason::Poison, quarantined: false }
    }

    #[test]
    fn a_request_that_was_running_alone_in_its_second_death_is_poison() {
        let mut blame = CrashAttribution::default();
        assert_eq!(blame.on_death(&running(&[(1, 7), (2, 3)]), &DeathCause::Crash), []);
        assert_eq!((blame.suspect(1), blame.suspect(2)), (Some(7), Some(3)));
        assert_eq!(blame.on_death(&running(&[(1, 7)]), &DeathCause::Crash), [poison(1, 7)]);
        assert_eq!((blame.suspect(1), blame.suspect(2)), (None, Some(3)));
    }

    #[test]
    fn a_request_that_was_in_company_in_every_death_is_not_refused() {
        let mut blame = CrashAttribution::default();
        for _ in 0..10 {
            assert_eq!(blame.on_death(&running(&[(1, 7), (2, 3)]), &DeathCause::Crash), []);
        }
    }

    #[test]
    fn another_request_of_the_same_attachment_is_a_new_suspect() {
        let mut blame = CrashAttribution::default();
        assert_eq!(blame.on_death(&running(&[(1, 7)]), &DeathCause::Crash), []);
        assert_eq!(blame.on_death(&running(&[(1, 8)]), &DeathCause::Silence), []);
        assert_eq!(blame.suspect(1), Some(8));
        assert_eq!(blame.on_death(&running(&[(1, 8)]), &DeathCause::Silence), [poison(1, 8)]);
    }

    #[test]
    fn a_request_past_its_time_is_refused_at_once_and_the_others_are_not_suspected() {
        let mut blame = CrashAttribution::default();
        let refused =
            blame.on_death(&running(&[(1, 7), (2, 3)]), &DeathCause::Overdue(vec![(1, 7)]));
        assert_eq!(
            refused,
            [RequestRefusal {
                attachment: 1,
                request: 7,
                reason: RefusalReason::TimedOut,
                quarantined: false
            }]
        );
        assert_eq!((blame.suspect(1), blame.suspect(2)), (None, None));
    }

    #[test]
    fn what_the_host_ended_for_another_reason_is_nobodys_fault() {
        let mut blame = CrashAttribution::default();
        for _ in 0..3 {
            assert_eq!(blame.on_death(&running(&[(1, 7)]), &DeathCause::Unrelated), []);
        }
        assert_eq!(blame.suspect(1), None);
    }

    #[test]
    fn the_third_offence_bans_and_the_end_of_the_attachment_lifts_it() {
        let mut blame = CrashAttribution::default();
        let mut strikes = Vec::new();
        for request in 1..=3 {
            blame.on_death(&running(&[(1, request)]), &DeathCause::Crash);
            strikes.extend(blame.on_death(&running(&[(1, request)]), &DeathCause::Crash));
        }
        assert_eq!(
            strikes.iter().map(|refusal| refusal.quarantined).collect::<Vec<_>>(),
            [false, false, true]
        );
        assert!(blame.is_quarantined(1));
        blame.forget(1);
        assert!(!blame.is_quarantined(1));
    }

    #[test]
    fn members_of_a_batch_that_took_too_long_are_not_banned_for_it() {
        let mut blame = CrashAttribution::default();
        for request in 0..10 {
            let batch = [(1, request), (2, request)];
            let refused = blame.on_death(&running(&batch), &DeathCause::Overdue(batch.to_vec()));
            assert!(
                refused.iter().all(|refusal| !refusal.quarantined) && refused.len() == 2,
                "{refused:?}"
            );
        }
    }

    /// A process that has what the sessions ask for: it runs what is waiting, on so many runners,
    /// in an order of chance, suspects alone.
    struct World {
        blame: CrashAttribution,
        /// Each attachment's next request, and whether each of its requests kills.
        sessions: Vec<(u64, Vec<bool>)>,
        refused: Vec<RequestKey>,
        deaths: u32,
    }

    impl World {
        fn kills(&self, (attachment, request): RequestKey) -> bool {
            self.sessions[attachment as usize - 1].1[request as usize]
        }

        /// The life of one process: until it dies, or everything is answered.
        fn live(&mut self, runners: usize, choice: &mut impl FnMut(usize) -> usize) -> bool {
            loop {
                let waiting: Vec<RequestKey> = (1..=self.sessions.len() as u64)
                    .filter(|&attachment| !self.blame.is_quarantined(attachment))
                    .map(|attachment| (attachment, self.sessions[attachment as usize - 1].0))
                    .filter(|&(attachment, request)| {
                        (request as usize) < self.sessions[attachment as usize - 1].1.len()
                    })
                    .collect();
                if waiting.is_empty() {
                    return false;
                }
                let first = waiting[choice(waiting.len())];
                let suspected = |key: &RequestKey| self.blame.suspect(key.0) == Some(key.1);
                let mut lanes = vec![first];
                if !suspected(&first) {
                    let others = waiting.iter().filter(|key| **key != first && !suspected(key));
                    lanes.extend(others.take(runners - 1));
                }
                if lanes.iter().any(|&key| self.kills(key)) {
                    self.deaths += 1;
                    for refusal in self.blame.on_death(&running(&lanes), &DeathCause::Crash) {
                        self.refused.push((refusal.attachment, refusal.request));
                        self.sessions[refusal.attachment as usize - 1].0 += 1;
                    }
                    return true;
                }
                for (attachment, _) in lanes {
                    self.sessions[attachment as usize - 1].0 += 1;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_guilty_are_refused_after_two_deaths_and_the_innocent_never(
            sessions in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 0..6), 1..6),
            runners in 1usize..5,
            order in proptest::collection::vec(any::<usize>(), 64),
        ) {
            let sessions: Vec<(u64, Vec<bool>)> = sessions.into_iter().map(|requests| (0, requests)).collect();
            let mut world = World { blame: CrashAttribution::default(), sessions, refused: Vec::new(), deaths: 0 };
            let mut turn = 0;
            let mut choice = |bound: usize| { turn += 1; order[turn % order.len()] % bound };
            let guilty: u32 = world.sessions.iter()
                .map(|(_, requests)| (requests.iter().filter(|kills| **kills).count() as u32).min(MAX_STRIKES))
                .sum();
            while world.live(runners, &mut choice) {
                prop_assert!(world.deaths <= 2 * guilty, "{} deaths of {guilty} \
                    requests", world.deaths);
            }
            for key in &world.refused {
                prop_assert!(world.kills(*key), "an innocent request was refused: {key:?}");
            }
            for (index, (next, requests)) in world.sessions.iter().enumerate() {
                let kills = requests.iter().filter(|kills| **kills).count() as u32;
                let banned = world.blame.is_quarantined(index as u64 + 1);
                prop_assert_eq!(banned, kills >= MAX_STRIKES);
                prop_assert!(banned || *next as usize == requests.len(), "session {index} was not \
                    served to its end");
            }
        }
    }
}
