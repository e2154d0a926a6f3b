//! Histories that the checker must condemn, and one that it must not.

use super::*;
use crate::history::Followed;

/// A history of one camera that moves from host 1 to host 2 as it should.
fn honest() -> History {
    let stored = |seq, epoch, host, id: &str| Stored { camera: 7, seq, epoch, host, id: id.into() };
    let acked = |seq, epoch, host, id: &str| Acked {
        camera: 7,
        epoch,
        host,
        seq,
        id: id.into(),
        made: 0,
        at: 0,
    };
    let heard =
        |epoch, host, sent| Heard { camera: 7, epoch, host, sent, received: sent + 1_000_000 };
    History {
        stored: vec![
            stored(1, 10, 1, TAKEOVER),
            stored(2, 10, 1, "1-a"),
            stored(3, 10, 1, "1-b"),
            stored(4, 20, 2, TAKEOVER),
            stored(5, 20, 2, "2-a"),
        ],
        // The third was stored, and its host died before it knew.
        acked: vec![
            acked(1, 10, 1, TAKEOVER),
            acked(2, 10, 1, "1-a"),
            acked(4, 20, 2, TAKEOVER),
            acked(5, 20, 2, "2-a"),
        ],
        heard: vec![heard(10, 1, 100), heard(10, 1, 200), heard(20, 2, 500), heard(20, 2, 600)],
        voices: vec![
            Voice { camera: 7, epoch: 10, host: 1, first: 100, last: 300 },
            Voice { camera: 7, epoch: 20, host: 2, first: 500, last: 600 },
        ],
        followed: (2..=5).map(|seq| Followed { life: 0, camera: 7, seq }).collect(),
    }
}

/// What the checker says of the honest history with one change.
fn condemned(change: impl FnOnce(&mut History)) -> Vec<Breach> {
    let mut history = honest();
    change(&mut history);
    check(&history, &Heads::new())
}

#[test]
fn a_camera_that_moves_as_it_should_is_no_breach() {
    assert_eq!(condemned(|_| {}), []);
}

#[test]
fn a_history_goes_on_from_the_one_before() {
    let history = honest();
    let (before, after) = history.stored.split_at(3);
    let heads = advanced(&Heads::new(), before);
    let rest = History { stored: after.to_vec(), ..history.clone() };
    assert_eq!(check(&rest, &heads), [], "acknowledged events of before are not asked for");
    let gone = History { stored: after[1..].to_vec(), ..history };
    let breaches = check(&gone, &heads);
    assert!(breaches.contains(&Breach::Broken { camera: 7, before: 3, found: 5 }), "{breaches:?}");
    assert!(breaches.contains(&Breach::Lost { camera: 7, seq: 4, host: 2 }), "{breaches:?}");
}

#[test]
fn a_number_that_is_missing_is_a_broken_chain_and_an_acknowledged_one_is_lost() {
    let breaches = condemned(|history| {
        history.stored.remove(1);
    });
    assert_eq!(
        breaches,
        [
            Breach::Broken { camera: 7, before: 1, found: 3 },
            Breach::Lost { camera: 7, seq: 2, host: 1 }
        ]
    );
}

#[test]
fn an_acknowledged_event_at_the_end_of_a_chain_is_lost_though_the_chain_is_whole() {
    let breaches = condemned(|history| {
        history.stored.pop();
    });
    assert_eq!(breaches, [Breach::Lost { camera: 7, seq: 5, host: 2 }]);
}

#[test]
fn a_number_that_comes_twice_is_a_broken_chain() {
    let breaches = condemned(|history| {
        let again = Stored { id: "1-c".into(), ..history.stored[2].clone() };
        history.stored.insert(3, again);
    });
    assert_eq!(breaches, [Breach::Broken { camera: 7, before: 3, found: 3 }]);
}

#[test]
fn one_event_under_two_numbers_is_found() {
    let breaches = condemned(|history| history.stored[2].id = "1-a".into());
    assert_eq!(breaches, [Breach::Twice { camera: 7, seqs: (2, 3) }]);
}

#[test]
fn another_event_under_an_acknowledged_number_is_found() {
    let breaches = condemned(|history| history.stored[4].id = "2-b".into());
    assert_eq!(breaches, [Breach::Replaced { camera: 7, seq: 5, host: 2 }]);
}

#[test]
fn an_old_owner_that_still_writes_is_found() {
    let breaches = condemned(|history| {
        let late = Stored { camera: 7, seq: 6, epoch: 10, host: 1, id: "1-z".into() };
        history.stored.push(late);
    });
    assert_eq!(breaches, [Breach::EpochBack { camera: 7, seq: 6, before: 20, found: 10 }]);
}

#[test]
fn an_epoch_without_a_takeover_and_two_hosts_under_one_are_found() {
    let breaches = condemned(|history| {
        history.stored[3].id = "2-x".into();
        history.acked[2].id = "2-x".into();
    });
    assert_eq!(breaches, [Breach::Takeover { camera: 7, seq: 4, epoch: 20 }]);
    let breaches = condemned(|history| history.stored[4].host = 3);
    assert_eq!(breaches, [Breach::Shared { camera: 7, epoch: 20, hosts: (2, 3) }]);
}

#[test]
fn a_host_that_speaks_after_another_has_begun_is_found_by_its_own_account_alone() {
    let breaches = condemned(|history| history.voices[0].last = 501);
    let by = Duration::from_nanos(1);
    let two = Breach::TwoVoices { camera: 7, host: 1, epoch: 10, later: 20, by };
    assert_eq!(breaches, [two]);
    assert_eq!(breaches[0].host(), Some(1));
}

#[test]
fn a_host_that_speaks_after_another_has_begun_is_found_by_what_was_heard_alone() {
    let breaches = condemned(|history| {
        let late = Heard { sent: 550, received: 560, ..history.heard[0] };
        history.heard.push(late);
    });
    let by = Duration::from_nanos(50);
    assert_eq!(breaches, [Breach::TwoVoices { camera: 7, host: 1, epoch: 10, later: 20, by }]);
}

#[test]
fn the_earliest_of_all_later_epochs_counts() {
    let breaches = condemned(|history| {
        history.voices[0].last = 450;
        let third = Voice { camera: 7, epoch: 30, host: 3, first: 400, last: 410 };
        history.voices.push(third);
    });
    let kinds: Vec<(Option<Host>, u64)> = breaches
        .iter()
        .map(|breach| match breach {
            Breach::TwoVoices { later, .. } => (breach.host(), *later),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(Some(2), 30), (Some(1), 30)]);
}

#[test]
fn a_message_that_was_sent_in_time_and_comes_late_is_stale_and_no_second_voice() {
    let mut history = honest();
    let late = Heard { sent: 290, received: 9_000, ..history.heard[0] };
    history.heard.push(late);
    assert_eq!(check(&history, &Heads::new()), []);
    assert_eq!(stale(&history.heard), 1);
}

#[test]
fn a_follower_that_misses_an_event_or_gets_one_twice_is_found() {
    let breaches = condemned(|history| {
        history.followed.remove(1);
    });
    assert_eq!(breaches, [Breach::Followed { camera: 7, before: 2, found: 4 }]);
    let breaches = condemned(|history| history.followed.push(history.followed[3]));
    assert_eq!(breaches, [Breach::Followed { camera: 7, before: 5, found: 5 }]);
    let another = |history: &mut History| {
        history.followed.push(Followed { life: 1, ..history.followed[0] });
    };
    assert_eq!(condemned(another), [], "another follower begins for itself");
}
