use proptest::prelude::*;

use super::*;
use crate::event::{Hub, SubscribeOptions};
use crate::journal::Journal;

const SESSION: &str = "display-001;cam-001";

/// A session that runs and gives results, and the alerts that watch it.
struct Bench {
    begun: Instant,
    now: u64,
    thresholds: Thresholds,
    alerts: AlertTracker,
    state: SessionState,
    source_down: Option<u64>,
    results: u64,
    restarts: u64,
    load: FrameLoad,
    memory: Option<(u64, u64)>,
    room: f64,
    clock: Option<ClockJump>,
}

impl Bench {
    fn new() -> Self {
        let thresholds = Thresholds {
            memory_percent: 90,
            no_results_s: 30,
            restarts_per_hour: 5,
            source_down_s: 10,
            disk_free_percent: 5,
            overload_percent: 50,
        };
        Self {
            begun: Instant::now(),
            now: 0,
            thresholds,
            alerts: AlertTracker::default(),
            state: SessionState::Running,
            source_down: None,
            results: 0,
            restarts: 0,
            load: FrameLoad::default(),
            memory: Some((100, 1000)),
            room: 50.0,
            clock: None,
        }
    }

    /// Lets a second pass, or more, and tells what has changed: `+source_down`, `-source_down`.
    fn after(&mut self, seconds: u64) -> Vec<String> {
        // A session's part in a change of the host's is told with that.
        self.changes(seconds).iter().filter(|change| !change.is_part()).map(name).collect()
    }

    fn changes(&mut self, seconds: u64) -> Vec<AlertChange> {
        self.now += seconds;
        let at = |second: u64| self.begun + Duration::from_secs(second);
        let memory = |(used, limit)| MemoryUse { whose: "the worker's memory", used, limit };
        let reading = SessionReading {
            session: SESSION,
            state: self.state,
            reason: Some("connection refused"),
            source_down: self.source_down.map(at),
            results: self.results,
            restarts: self.restarts,
            load: self.load,
            memories: self.memory.map(memory).into_iter().collect(),
        };
        let room =
            DiskSpace { folder: "logs", free: (self.room * 10_000.0) as u64, size: 1_000_000 };
        let now = at(self.now);
        self.alerts.evaluate(now, &self.thresholds, &[reading], &[room], self.clock.as_ref())
    }

    /// The same, second by second, with a result in each.
    fn with_results(&mut self, seconds: u64) -> Vec<String> {
        let second = |bench: &mut Self| {
            bench.results += 1;
            bench.after(1)
        };
        (0..seconds).flat_map(|_| second(self)).collect()
    }

    fn active(&self) -> Vec<&'static str> {
        self.alerts.active(SESSION).map(Alert::name).collect()
    }
}

fn name(change: &AlertChange) -> String {
    format!("{}{}", if change.raised { '+' } else { '-' }, change.alert.name())
}

#[test]
fn a_healthy_session_raises_nothing() {
    assert!(Bench::new().with_results(7200).is_empty());
}

#[test]
fn a_source_that_stays_away_is_told_once_and_its_return_too() {
    let mut bench = Bench::new();
    bench.with_results(60);
    (bench.state, bench.source_down) = (SessionState::Degraded, Some(bench.now));
    assert!((0..9).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty(), "9 s are not 10 s");
    let raised = bench.changes(1);
    let [raised] = raised.as_slice() else { panic!("{raised:?}") };
    assert_eq!(
        (raised.session.as_deref(), raised.alert, raised.raised),
        (Some(SESSION), Alert::SourceDown, true)
    );
    assert_eq!((raised.value, raised.threshold), (10.0, 10));
    assert_eq!(raised.message, "no pictures for 10 s: connection refused");
    assert!((0..300).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty());
    assert_eq!(bench.active(), ["source_down"]);
    (bench.state, bench.source_down) = (SessionState::Running, None);
    assert_eq!(bench.after(1), ["-source_down"]);
    assert!(bench.active().is_empty());
    assert!(bench.with_results(60).is_empty());
}

#[test]
fn a_pipeline_that_falls_silent_is_told_and_its_next_result_clears_it() {
    let mut bench = Bench::new();
    bench.with_results(5);
    assert!((0..29).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty());
    assert_eq!(bench.after(1), ["+no_results"]);
    assert!((0..100).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty());
    assert_eq!(bench.with_results(1), ["-no_results"]);
}

#[test]
fn time_without_a_source_is_not_time_without_results() {
    let mut bench = Bench::new();
    bench.thresholds.source_down_s = 0;
    bench.with_results(5);
    (bench.state, bench.source_down) = (SessionState::Degraded, Some(bench.now));
    assert!(bench.after(600).is_empty());
    (bench.state, bench.source_down) = (SessionState::Running, None);
    assert!(bench.after(1).is_empty(), "the source has only just come back");
    assert!(bench.after(29).is_empty());
    assert_eq!(bench.after(1), ["+no_results"]);
}

#[test]
fn a_worker_that_is_replaced_again_and_again_without_a_result_is_told() {
    let mut bench = Bench::new();
    bench.thresholds.restarts_per_hour = 0;
    bench.with_results(5);
    let mut told = Vec::new();
    for second in 0..40 {
        bench.state =
            if second % 10 == 9 { SessionState::Restarting } else { SessionState::Running };
        bench.restarts += u64::from(second % 10 == 9);
        told.extend(bench.after(1));
    }
    assert_eq!(told, ["+no_results"]);
}

#[test]
fn a_session_that_starts_stops_or_has_failed_owes_no_results() {
    for state in [SessionState::Starting, SessionState::Stopped, SessionState::Failed] {
        let mut bench = Bench::new();
        bench.state = state;
        assert!((0..300).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty(), "{state}");
    }
    let mut bench = Bench::new();
    bench.after(1);
    assert_eq!(bench.after(31), ["+no_results"]);
    bench.state = SessionState::Failed;
    assert_eq!(bench.after(1), ["-no_results"], "the state says more");
}

#[test]
fn a_session_that_ends_clears_its_alerts() {
    for gone in [false, true] {
        let mut bench = Bench::new();
        (bench.state, bench.source_down) = (SessionState::Degraded, Some(0));
        assert_eq!(bench.after(11), ["+source_down"]);
        if gone {
            let later = bench.begun + Duration::from_secs(12);
            bench.alerts.set_complete();
            let changes = bench.alerts.evaluate(later, &bench.thresholds, &[], &[], None);
            assert_eq!(changes.iter().map(name).collect::<Vec<_>>(), ["-source_down"]);
            assert_eq!(changes[0].message, "the session is gone");
        } else {
            bench.state = SessionState::Stopped;
            assert_eq!(bench.after(1), ["-source_down"]);
            assert!(bench.after(1).is_empty());
        }
        assert!(bench.active().is_empty());
        // Started again by a person, with the source still away.
        bench.state = SessionState::Degraded;
        assert_eq!(bench.after(1), ["+source_down"]);
    }
}

#[test]
fn memory_that_wavers_around_the_threshold_is_told_once() {
    let mut bench = Bench::new();
    bench.after(1);
    let mut told = Vec::new();
    for used in [899, 900, 899, 901, 860, 900, 856, 950] {
        bench.memory = Some((used, 1000));
        bench.results += 1;
        told.extend(bench.after(1));
    }
    assert_eq!(told, ["+memory"]);
    // Between two workers nothing is known.
    (bench.state, bench.memory) = (SessionState::Restarting, None);
    assert!(bench.after(1).is_empty());
    (bench.state, bench.memory) = (SessionState::Running, Some((855, 1000)));
    assert_eq!(bench.after(1), ["-memory"]);
}

#[test]
fn the_memory_that_is_nearest_to_its_limit_counts() {
    let begun = Instant::now();
    let memory = |whose, used, limit| MemoryUse { whose, used, limit };
    let reading = SessionReading {
        session: "cam",
        state: SessionState::Running,
        reason: None,
        source_down: None,
        results: 0,
        restarts: 0,
        load: FrameLoad::default(),
        memories: vec![
            memory("the worker's memory", 300 << 20, 2048 << 20),
            memory("the pipeline's linear memory", 250 << 20, 256 << 20),
            memory("something without a limit", 9 << 40, 0),
        ],
    };
    let mut alerts = AlertTracker::default();
    let changes = alerts.evaluate(begun, &Thresholds::default(), &[reading], &[], None);
    let [change] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((change.alert, change.value, change.threshold), (Alert::Memory, 97.7, 90));
    assert_eq!(change.message, "the pipeline's linear memory: 250 MiB of 256 MiB");
}

#[test]
fn restarts_count_for_an_hour_and_a_steady_rate_does_not_flap() {
    let mut bench = Bench::new();
    bench.with_results(10);
    bench.restarts += 4;
    assert!(bench.with_results(1).is_empty());
    bench.restarts += 1;
    assert_eq!(bench.with_results(1), ["+restarts"]);
    // One every twelve minutes stays at five an hour.
    let mut told = Vec::new();
    for _ in 0..15 {
        told.extend(bench.with_results(719));
        bench.restarts += 1;
        told.extend(bench.with_results(1));
    }
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(bench.with_results(3600), ["-restarts"]);
}

#[test]
fn frames_that_are_skipped_for_a_minute_are_an_overload_of_session_and_host() {
    let mut bench = Bench::new();
    let frames = |bench: &mut Bench, seconds: u64, processed: u64, skipped: u64| {
        let second = |bench: &mut Bench| {
            bench.load.processed += processed;
            bench.load.skipped += skipped;
            bench.with_results(1)
        };
        (0..seconds).flat_map(|_| second(bench)).collect::<Vec<_>>()
    };
    assert!(frames(&mut bench, 300, 6, 4).is_empty(), "40 % are below the threshold");
    assert!(frames(&mut bench, 20, 0, 10).len() == 2, "the minute has reached it");
    assert_eq!(bench.active(), ["overload", "host_overload"]);
    assert!(frames(&mut bench, 300, 55, 45).is_empty(), "45 % are above four fifths of it");
    assert_eq!(frames(&mut bench, 120, 10, 0), ["-overload", "-host_overload"]);
    assert!(frames(&mut bench, 3600, 9, 1).is_empty());
    let watched = bench.alerts.sessions.get(SESSION).unwrap();
    assert!(watched.window.len() <= 14, "{}", watched.window.len());

    let mut new = Bench::new();
    assert!(frames(&mut new, 59, 0, 10).is_empty(), "less than a minute says nothing");
    assert_eq!(frames(&mut new, 2, 0, 10), ["+overload", "+host_overload"]);
    new.thresholds.overload_percent = 0;
    assert_eq!(new.after(1), ["-overload", "-host_overload"]);
}

#[test]
fn restarts_are_remembered_in_a_bounded_room() {
    let mut bench = Bench::new();
    for _ in 0..100_000 {
        bench.restarts += 3;
        bench.after(1);
    }
    let watched = bench.alerts.sessions.get(SESSION).unwrap();
    assert!(watched.recent_restarts.len() <= 61, "{}", watched.recent_restarts.len());
}

#[test]
fn a_full_disk_is_the_hosts_alert_and_every_sessions() {
    let mut bench = Bench::new();
    let mut told = Vec::new();
    for room in [6.0, 5.0, 4.9, 5.1, 4.8, 6.9, 3.0] {
        bench.room = room;
        bench.results += 1;
        told.extend(bench.changes(1));
    }
    let [change, part] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((change.session.as_deref(), change.alert, change.value), (None, Alert::Disk, 4.9));
    assert_eq!(*part, AlertChange { session: Some(SESSION.to_owned()), ..change.clone() });
    assert_eq!(bench.active(), ["disk"]);
    assert!(bench.alerts.host(Alert::Disk));
    bench.room = 7.0;
    assert_eq!(bench.with_results(1), ["-disk"]);
}

#[test]
fn an_empty_disk_clears_whatever_the_threshold() {
    let mut bench = Bench::new();
    bench.thresholds.disk_free_percent = 100;
    bench.room = 99.9;
    assert_eq!(bench.with_results(1), ["+disk"]);
    bench.room = 100.0;
    assert_eq!(bench.with_results(1), ["-disk"]);
}

#[test]
fn a_threshold_of_0_turns_an_alert_off_and_clears_it() {
    let mut bench = Bench::new();
    bench.thresholds = Thresholds {
        memory_percent: 0,
        no_results_s: 0,
        restarts_per_hour: 0,
        source_down_s: 0,
        disk_free_percent: 0,
        overload_percent: 0,
    };
    (bench.source_down, bench.memory, bench.room, bench.restarts) =
        (Some(0), Some((10, 1)), 0.0, 100);
    assert!((0..300).flat_map(|_| bench.after(1)).collect::<Vec<_>>().is_empty());
    bench.thresholds.source_down_s = 10;
    assert_eq!(bench.after(1), ["+source_down"]);
    bench.thresholds.source_down_s = 0;
    let changes = bench.changes(1);
    assert_eq!(changes.iter().map(name).collect::<Vec<_>>(), ["-source_down"]);
    assert!(changes[0].message.contains("turned off"), "{changes:?}");
}

#[derive(Debug, Clone)]
struct Moment {
    seconds: u64,
    sessions: Vec<(usize, SessionState, bool, bool, u64, Option<u64>)>,
    room: u64,
    thresholds: [u32; 5],
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    use SessionState::{Degraded, Failed, Restarting, Running, Starting, Stopped};
    let state = prop_oneof![
        4 => Just(Running), 2 => Just(Degraded), 2 => Just(Restarting),
        1 => Just(Starting), 1 => Just(Failed), 1 => Just(Stopped),
    ];
    let session =
        (0..3usize, state, any::<bool>(), any::<bool>(), 0..3u64, proptest::option::of(0..120u64));
    let thresholds = [0..=100u32, 0..=20, 0..=4, 0..=20, 0..=100];
    let moment = (1..8u64, proptest::collection::vec(session, 0..4), 0..=100u64, thresholds);
    let moment = moment.prop_map(|(seconds, sessions, room, thresholds)| Moment {
        seconds,
        sessions,
        room,
        thresholds,
    });
    proptest::collection::vec(moment, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_alert_is_never_told_twice_without_the_contrary_between(moments in moments()) {
        let names = ["a", "b", "c"];
        let begun = Instant::now();
        let (mut alerts, mut now) = (AlertTracker::default(), begun);
        let mut down: [Option<Instant>; 3] = [None; 3];
        let (mut results, mut restarts) = ([0u64; 3], [0u64; 3]);
        // What a subscriber of everything believes to be raised.
        let mut raised: BTreeSet<(Option<String>, Alert)> = BTreeSet::new();
        for moment in moments {
            now += Duration::from_secs(moment.seconds);
            let mut readings: Vec<SessionReading<'_>> = Vec::new();
            for (at, state, is_down, result, restarted, memory) in moment.sessions {
                if readings.iter().any(|reading| reading.session == names[at]) {
                    continue;
                }
                down[at] = if is_down { down[at].or(Some(now)) } else { None };
                results[at] += u64::from(result);
                restarts[at] += restarted;
                let memory = memory.map(|used| MemoryUse { whose: "its memory", used, limit: 100 });
                readings.push(SessionReading {
                    session: names[at], state, reason: None, source_down: down[at], results: results[at],
                    restarts: restarts[at], load: FrameLoad::default(), memories: memory.into_iter().collect(),
                });
            }
            let [memory, quiet, restarts_per_hour, source_down, disk] = moment.thresholds;
            let thresholds = Thresholds {
                memory_percent: memory, no_results_s: quiet.into(), restarts_per_hour,
                source_down_s: source_down.into(), disk_free_percent: disk,
                overload_percent: 50,
            };
            let rooms = [DiskSpace { folder: "store", free: moment.room, size: 100 }];
            let changes = alerts.evaluate(now, &thresholds, &readings, &rooms, None);
            for change in changes {
                let key = (change.session.clone(), change.alert);
                let new = if change.raised { raised.insert(key) } else { raised.remove(&key) };
                prop_assert!(new, "told twice: {change:?}");
                prop_assert!(change.value.is_finite() && !change.message.is_empty());
            }
            for session in names {
                let told = |alert: &Alert| raised.contains(&(Some(session.to_owned()), *alert));
                let expected: Vec<Alert> = Alert::ALL.iter().copied().filter(told).collect();
                prop_assert_eq!(alerts.active(session).collect::<Vec<_>>(), expected);
            }
        }
    }
}

#[test]
fn a_sessions_status_is_documented_with_the_names_of_all_alerts() {
    let schema = schemars::schema_for!(crate::session::SessionStatus);
    let names = schema.pointer("/properties/alerts/items/enum").unwrap();
    assert_eq!(
        *names,
        serde_json::json!(Alert::ALL.iter().map(|alert| alert.name()).collect::<Vec<_>>())
    );
}

#[tokio::test]
async fn an_alert_is_an_event_without_a_frame() {
    let change = AlertChange {
        session: Some("display-001;cam-001".into()),
        alert: Alert::SourceDown,
        raised: true,
        value: 12.5,
        threshold: 10,
        message: "no pictures for 12 s".into(),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let hub = Hub::new(Journal::temporary().unwrap().events().clone());
    let subscriber = hub.subscriber();
    hub.publish_state("cam", SessionState::Degraded, None);
    subscriber.subscribe("cam", SubscribeOptions { detections: true, after: None });
    assert!(hub.publish_event_if_exists("cam", change.event("0a1b2c3d4e5f", now)));
    hub.events().flush().await.unwrap();
    let told: Vec<String> = std::iter::from_fn(|| subscriber.try_next())
        .map(|told| told.unwrap().text.to_string())
        .collect();
    assert_eq!(
        told[1],
        concat!(
            r#"{"type":"event","session":"cam","seq":1,"time":"2023-11-14T22:13:20.123Z","clock":"host","kind":"alert","#,
            r#""deployment":"0a1b2c3d4e5f","detections":[],"data":{"alert":"source_down","#,
            r#""message":"no pictures for 12 s","raised":true,"threshold":10,"value":12.5}}"#
        )
    );
}

/// What is told to a session, with the message.
fn told_to(changes: &[AlertChange], session: &str) -> Vec<(String, String)> {
    let own = changes.iter().filter(|change| change.session.as_deref() == Some(session));
    own.map(|change| (name(change), change.message.clone())).collect()
}

#[test]
fn an_alert_of_an_earlier_run_that_holds_no_more_is_cleared_once_the_session_shows_it() {
    let mut bench = Bench::new();
    bench.alerts.restore([(SESSION, "source_down"), (SESSION, "of another version")].into_iter());
    bench.state = SessionState::Starting;
    assert!(bench.after(1).is_empty(), "nothing is known yet");
    assert_eq!(bench.active(), ["source_down"]);
    bench.state = SessionState::Running;
    bench.results = 1;
    let told = told_to(&bench.changes(1), SESSION);
    let message = "the source delivers; it was raised before the host was restarted";
    assert_eq!(told, [("-source_down".to_owned(), message.to_owned())]);
    // From here on as ever.
    (bench.state, bench.source_down) = (SessionState::Degraded, Some(bench.now));
    assert_eq!(bench.after(10), ["+source_down"]);
    bench.source_down = None;
    let told = told_to(&bench.changes(1), SESSION);
    assert_eq!(told, [("-source_down".to_owned(), "the source delivers".to_owned())]);
}

#[test]
fn an_alert_of_an_earlier_run_that_still_holds_is_not_raised_twice() {
    let mut bench = Bench::new();
    bench.alerts.restore([(SESSION, "source_down"), (SESSION, "restarts")].into_iter());
    (bench.state, bench.source_down) = (SessionState::Degraded, Some(0));
    let told: Vec<String> = (0..300).flat_map(|_| bench.after(1)).collect();
    assert_eq!(told, ["-restarts"], "cleared when the session had its time, {told:?}");
    assert_eq!(bench.active(), ["source_down"]);
}

#[test]
fn alerts_of_sessions_that_did_not_come_back_are_cleared_when_all_have_been_started() {
    let mut bench = Bench::new();
    bench.alerts.restore([("removed", "source_down"), ("removed", "disk")].into_iter());
    assert!(told_to(&bench.changes(1), "removed").is_empty(), "it may still come");
    bench.alerts.set_complete();
    let told = told_to(&bench.changes(1), "removed");
    let why = "the session is gone; it was raised before the host was restarted";
    let expected = ["-source_down", "-disk"].map(|name| (name.to_owned(), why.to_owned()));
    assert_eq!(told, expected);
    assert!(told_to(&bench.changes(1), "removed").is_empty());
}

#[test]
fn an_alert_of_the_hosts_is_told_to_a_session_that_comes_while_it_is_raised() {
    let mut bench = Bench::new();
    bench.alerts.restore([("another", "disk")].into_iter());
    bench.room = 3.0;
    let changes = bench.changes(1);
    assert_eq!(changes.len(), 1, "the host's own was told before the restart: {changes:?}");
    assert_eq!(told_to(&changes, SESSION)[0].0, "+disk");
    bench.room = 50.0;
    assert_eq!(bench.with_results(1), ["-disk"]);
}

#[test]
fn a_clock_that_has_jumped_is_an_alert_until_it_holds() {
    let mut bench = Bench::new();
    bench.with_results(1);
    bench.clock = Some(ClockJump { seconds: -7200, message: "set back".into() });
    bench.results += 1;
    let changes = bench.changes(1);
    assert_eq!((changes[0].value, changes[0].threshold), (-7200.0, 60));
    assert_eq!(told_to(&changes, SESSION), [("+clock".to_owned(), "set back".to_owned())]);
    assert!(bench.with_results(5).is_empty());
    bench.clock = None;
    assert_eq!(bench.with_results(1), ["-clock"]);
}
