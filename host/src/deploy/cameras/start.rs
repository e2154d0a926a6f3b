//! Decides what a configured camera runs when it is brought up, from the config and the history.
//!
//! | the config's entry | the history | runs |
//! | --- | --- | --- |
//! | is what was applied last, or its file cannot be found | has a healthy version | that version, which need not be the config's: it may have come over the API |
//! | is what the healthy version is | | that version |
//! | has changed | has a healthy version | the entry, on trial: when it does not last, the healthy version |
//! | was being applied when the host ended | has a healthy version | that version; then the entry is deployed beside it. Not when the host has ended twice over it |
//! | any | has none | the entry |

use crate::deploy::history::CameraEntry;
use crate::deploy::record::{Cause, Outcome, Record};

/// The decision; numbers are those of deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartDecision {
    /// Run a version that has been healthy.
    Resume {
        number: u64,
        /// Whether the config's entry is to be deployed beside it.
        then_entry: bool,
    },
    /// Run the config's entry, as a deployment.
    Entry {
        /// The deployment to go back to.
        fallback: Option<u64>,
    },
    /// Neither has a component.
    Nothing,
}

/// Times that the host may end while it applies an entry, before it leaves the entry alone.
const TRIES: usize = 2;

/// Decides. `wanted` is the config's entry, `None` if its file cannot be found; `applied` is the
/// entry that the camera was given last; `records` is the history, newest first; `stored` says
/// whether a component is in the store.
pub(super) fn resolve(
    wanted: Option<&CameraEntry>,
    applied: Option<&CameraEntry>,
    records: &[Record],
    stored: impl Fn(&str) -> bool,
) -> StartDecision {
    let there = |record: &&Record| {
        stored(&record.digest) || wanted.is_some_and(|wanted| wanted.digest == record.digest)
    };
    // An older healthy version does if the component of the last one is lost.
    let healthy = records.iter().filter(|record| record.healthy()).find(there);
    let (wanted, healthy) = match (wanted, healthy) {
        (Some(wanted), Some(healthy)) => (wanted, healthy),
        (Some(_), None) => return StartDecision::Entry { fallback: None },
        (None, Some(healthy)) => {
            return StartDecision::Resume { number: healthy.number, then_entry: false };
        }
        (None, None) => return StartDecision::Nothing,
    };
    let resume = |then_entry| StartDecision::Resume { number: healthy.number, then_entry };
    if healthy.same_as(&wanted.digest, &wanted.settings) || applied == Some(wanted) {
        return resume(false);
    }
    let ours = records.iter().filter(|record| matches!(record.cause, Cause::Config | Cause::File));
    let interrupted = ours
        .take_while(|record| {
            record.outcome() == Some(Outcome::Interrupted)
                && record.same_as(&wanted.digest, &wanted.settings)
        })
        .count();
    match interrupted {
        0 => StartDecision::Entry { fallback: Some(healthy.number) },
        times => resume(times < TRIES),
    }
}

#[cfg(test)]
mod tests {
    use crate::deploy::record::DeploymentState;
    use crate::deploy::record::tests::record;

    use super::*;

    use Cause::{Config, File, Request};
    use Outcome::{Aborted, Healthy, Interrupted, RolledBack, Superseded, Unverified};

    fn entry(digest: char) -> CameraEntry {
        CameraEntry {
            pipeline: "eye".into(),
            settings: Default::default(),
            digest: digest.to_string().repeat(64),
        }
    }

    /// Oldest first, as given.
    fn decide(
        wanted: Option<char>,
        applied: Option<char>,
        rows: &[(char, Cause, Outcome)],
    ) -> StartDecision {
        decide_with(wanted, applied, rows, |_| true)
    }

    fn decide_with(
        wanted: Option<char>,
        applied: Option<char>,
        rows: &[(char, Cause, Outcome)],
        kept: impl Fn(&str) -> bool,
    ) -> StartDecision {
        let numbered = rows.iter().zip(1..);
        let mut records: Vec<Record> = numbered
            .map(|((digest, cause, outcome), number)| {
                record(number, *digest, *cause, DeploymentState::Ended(*outcome))
            })
            .collect();
        records.reverse();
        let (wanted, applied) = (wanted.map(entry), applied.map(entry));
        resolve(wanted.as_ref(), applied.as_ref(), &records, kept)
    }

    const fn resume(number: u64) -> StartDecision {
        StartDecision::Resume { number, then_entry: false }
    }

    const FRESH: StartDecision = StartDecision::Entry { fallback: None };

    #[test]
    fn what_runs_follows_from_entry_and_history() {
        let a = Some('a');
        for (wanted, applied, rows, expected) in [
            // The first start ever, and one whose first deployment never proved itself.
            (a, None, vec![], FRESH),
            (a, None, vec![('a', Config, Interrupted)], FRESH),
            (a, a, vec![('a', Config, Unverified)], FRESH),
            (a, a, vec![('a', Config, Superseded), ('b', Request, Aborted)], FRESH),
            // As it was left.
            (a, a, vec![('a', Config, Healthy)], resume(1)),
            (a, a, vec![('a', Config, Healthy), ('b', Request, Healthy)], resume(2)),
            (a, a, vec![('a', Config, Healthy), ('b', Request, Aborted)], resume(1)),
            (a, a, vec![('a', Config, Healthy), ('b', Request, RolledBack)], resume(1)),
            // Killed during a deployment over the API, in its probation or before.
            (a, a, vec![('a', Config, Healthy), ('b', Request, Interrupted)], resume(1)),
            // Served, but was not healthy yet.
            (
                a,
                a,
                vec![
                    ('a', Config, Healthy),
                    ('b', Request, Superseded),
                    ('c', Request, Interrupted),
                ],
                resume(1),
            ),
            // The config was edited, or its file, while the host was down.
            (
                Some('b'),
                a,
                vec![('a', Config, Healthy)],
                StartDecision::Entry { fallback: Some(1) },
            ),
            (
                Some('c'),
                a,
                vec![('a', Config, Healthy), ('b', Request, Healthy)],
                StartDecision::Entry { fallback: Some(2) },
            ),
            // It was edited to what runs already.
            (Some('b'), a, vec![('a', Config, Healthy), ('b', Request, Healthy)], resume(2)),
            // It was tried and did not last: not again before it is edited.
            (
                Some('b'),
                Some('b'),
                vec![('a', Config, Healthy), ('b', Config, RolledBack)],
                resume(1),
            ),
            (Some('b'), Some('b'), vec![('a', Config, Healthy), ('b', File, Aborted)], resume(1)),
            // The host was killed while it applied it: beside what has proven itself, and not for
            // ever.
            (
                Some('b'),
                a,
                vec![('a', Config, Healthy), ('b', Config, Interrupted)],
                StartDecision::Resume { number: 1, then_entry: true },
            ),
            (
                Some('b'),
                a,
                vec![('a', Config, Healthy), ('b', File, Interrupted), ('c', Request, Aborted)],
                StartDecision::Resume { number: 1, then_entry: true },
            ),
            (
                Some('b'),
                a,
                vec![
                    ('a', Config, Healthy),
                    ('b', Config, Interrupted),
                    ('b', Config, Interrupted),
                ],
                resume(1),
            ),
            (
                Some('c'),
                a,
                vec![
                    ('a', Config, Healthy),
                    ('b', Config, Interrupted),
                    ('b', Config, Interrupted),
                ],
                StartDecision::Entry { fallback: Some(1) },
            ),
            // Its file is gone.
            (None, a, vec![('a', Config, Healthy)], resume(1)),
            (None, None, vec![], StartDecision::Nothing),
            (None, a, vec![('a', Config, Unverified)], StartDecision::Nothing),
        ] {
            assert_eq!(
                decide(wanted, applied, &rows),
                expected,
                "{wanted:?} after {applied:?}: {rows:?}"
            );
        }
    }

    #[test]
    fn a_version_whose_component_is_lost_is_not_started() {
        let rows = [('a', Config, Healthy), ('b', Request, Healthy)];
        let without_b = |digest: &str| !digest.starts_with('b');
        assert_eq!(decide_with(Some('a'), Some('a'), &rows, without_b), resume(1));
        assert_eq!(decide_with(None, Some('a'), &rows, |_| false), StartDecision::Nothing);
        assert_eq!(decide_with(Some('c'), Some('c'), &rows, |_| false), FRESH);
        assert_eq!(
            decide_with(Some('a'), Some('a'), &rows, |_| false),
            resume(1),
            "the config's file is the same"
        );
    }

    #[test]
    fn other_settings_are_another_entry() {
        let records = [record(1, 'a', Config, DeploymentState::Ended(Healthy))];
        let mut wanted = entry('a');
        assert_eq!(resolve(Some(&wanted), Some(&entry('a')), &records, |_| true), resume(1));
        wanted.settings.insert("score".into(), 0.5.into());
        let changed = StartDecision::Entry { fallback: Some(1) };
        assert_eq!(resolve(Some(&wanted), Some(&entry('a')), &records, |_| true), changed);
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_never_was_healthy_never_runs_unasked_where_something_was(
            wanted in proptest::option::of(0..3u8),
            applied in proptest::option::of(0..3u8),
            rows in proptest::collection::vec((0..3u8, 0..3usize, 0..7usize), 0..8),
        ) {
            let letter = |digest: u8| char::from(b'a' + digest);
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(digest, cause, outcome)| {
                    (letter(digest), [Config, File, Request][cause], Outcome::ALL[outcome])
                })
                .collect();
            let (wanted, applied) = (wanted.map(letter), applied.map(letter));
            let healthy = rows.iter().any(|row| row.2 == Healthy);
            match decide(wanted, applied, &rows) {
                StartDecision::Resume { number, .. } => prop_assert_eq!(rows[number as usize - 1].2, Healthy),
                StartDecision::Entry { fallback } => {
                    prop_assert!(wanted.is_some());
                    prop_assert_eq!(fallback.is_some(), healthy);
                    prop_assert!(!healthy || applied != wanted);
                }
                StartDecision::Nothing => prop_assert!(!healthy && wanted.is_none()),
            }
        }
    }
}
