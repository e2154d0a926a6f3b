//! A stream's worker over a real socket: the handoff from an active worker to one that stands
//! by, and what standby promises.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::inference::packet_pair;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::{self, Reader};
use ocelli_protocol::worker::{
    Counters, Decode, FromWorker, Pacing, RequestFault, RequestKind, STANDBY_FRAMES, Start,
    StoreChange, StoreContents, ToWorker, UnitHeader, WorkerMode, WorkerStage,
};
use ocelli_testkit::depth::rounds;
use proptest::prelude::*;
use wasmtime::component::Component;

use super::described::DescribedPipeline;
use super::failure::WorkerFailure;
use super::stream::serve;
use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::guest::instance::InstanceFactory;
use crate::guest::state::HostServices;
use crate::guest::state::tests::limits;
use crate::guest::tests::components::{Guest, IDLE, RESULT, SLEEP, test_engine};
use crate::host_link::HostLink;
use crate::redis_bridge::RedisBucket;
use crate::video::Stream;
use crate::video::clips::{AccessUnit, units};

/// Counts its frames: in itself, which is its state, and as "frames" in the session's store; there
/// it counts as "starts" how often it was initialised, too. It refuses a state whose first byte is
/// 255.
const COUNTS: Guest<'static> = Guest {
    contracts: &["0.2.0"],
    imports: r#"
        (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
        (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $close (param i32)))
        (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment"
            (func $increment (param i32 i32 i32 i64 i32)))
    "#,
    items: r#"
        (global $frames (mut i32) (i32.const 0))
        (data (i32.const 3000) "frames")
        (data (i32.const 3010) "starts")
        (data (i32.const 3020) "\01\00\00\00\e0\0b\00\00\07\00\00\00")
        (data (i32.const 3040) "refused")
        (func $count (param $key i32)
            (call $open (i32.const 0) (i32.const 0) (i32.const 512))
            (call $increment
                (i32.load (i32.const 516)) (local.get $key) (i32.const 6) (i64.const 1) (i32.const 528))
            (call $close (i32.load (i32.const 516))))
    "#,
    init: "(call $count (i32.const 3010))",
    process: "
        (global.set $frames (i32.add (global.get $frames) (i32.const 1)))
        (call $count (i32.const 3000))",
    snapshot: "
        (i32.store (i32.const 600) (i32.const 640))
        (i32.store (i32.const 604) (i32.const 4))
        (i32.store (i32.const 640) (global.get $frames))
        (return (i32.const 600))",
    restore: "
        (if (i32.eq (i32.load8_u (local.get 2)) (i32.const 255)) (then (return (i32.const 3020))))
        (global.set $frames (i32.load (local.get 2)))",
    ..IDLE
};

/// How a worker is started.
#[derive(Clone)]
struct Setup {
    standby: bool,
    pacing: Pacing,
    decode: Decode,
    settings: &'static str,
    store: StoreContents,
    annotate: bool,
}

const RUNNING: Setup = Setup {
    standby: false,
    pacing: Pacing::EveryFrame,
    decode: Decode::All,
    settings: "{}",
    store: StoreContents::new(),
    annotate: false,
};
const STANDBY: Setup = Setup {
    standby: true,
    pacing: Pacing::EveryFrame,
    decode: Decode::All,
    settings: "{}",
    store: StoreContents::new(),
    annotate: false,
};

/// For a message of the worker.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker's host.
struct Host {
    to: UnixStream,
    from: Reader<UnixStream>,
    counters: Arc<SharedCounters>,
    worker: JoinHandle<Result<(), WorkerFailure>>,
    _inference: OwnedFd,
}

impl Host {
    fn start(component: &Component, setup: &Setup) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, inference) = packet_pair().unwrap();
        let counters = Arc::new(SharedCounters::default());
        let start = Start {
            session: "stream".into(),
            settings: setup.settings.into(),
            mode: WorkerMode::Stream(setup.pacing),
            decode: setup.decode,
            limits: limits(),
            heartbeat_ms: 1000,
            standby: setup.standby,
            redis_granted: false,
            annotate: setup.annotate,
        };
        let worker = std::thread::spawn({
            let (component, counters, pacing) =
                (component.clone(), Arc::clone(&counters), setup.pacing);
            move || {
                let host = HostLink::from_stream(theirs.try_clone().unwrap());
                let arena = Arena::new(SharedMemory::create(64 << 10).unwrap());
                let services = HostServices::new(
                    host.clone(),
                    arena,
                    socket,
                    RedisBucket::default(),
                    start.limits,
                    Arc::clone(&counters),
                );
                let factory =
                    InstanceFactory::new(component.engine(), &component, services).unwrap();
                let fields = serde_json::from_str(&start.settings).unwrap();
                let described = DescribedPipeline::new(factory, fields, &host)?;
                serve(
                    Reader::new(theirs),
                    described,
                    start,
                    pacing,
                    &host,
                    &counters,
                    (None, &Confinement::default()),
                )
            }
        });
        let from = Reader::new(ours.try_clone().unwrap());
        let mut host = Self { to: ours, from, counters, worker, _inference: inference };
        host.load_store(&setup.store);
        host
    }

    /// A worker that is ready.
    fn ready(component: &Component, setup: &Setup) -> Self {
        let mut host = Self::start(component, setup);
        while !matches!(host.next(), FromWorker::Ready) {}
        host
    }

    /// Sends a message. A worker that has ended does not read it.
    fn send(&mut self, message: &ToWorker, payload: &[u8]) {
        let _ = wire::write(&mut self.to, message, payload);
    }

    fn load_store(&mut self, contents: &StoreContents) {
        self.send(&ToWorker::LoadStore, &wire::to_bytes(contents).unwrap());
    }

    fn units(&mut self, units: &[AccessUnit]) {
        for (header, data) in units {
            self.send(&ToWorker::Unit(header.clone()), data);
        }
    }

    /// The next message that is no log line, with its payload.
    fn next_with(&mut self) -> (FromWorker, Vec<u8>) {
        loop {
            let (message, payload) = self.from.read::<FromWorker>().expect("a message");
            if !matches!(message, FromWorker::Log { .. } | FromWorker::Used(_)) {
                return (message, payload.to_vec());
            }
        }
    }

    fn next(&mut self) -> FromWorker {
        self.next_with().0
    }

    /// Collects messages until one of a kind comes.
    fn until(
        &mut self,
        last: impl Fn(&FromWorker) -> bool,
    ) -> (Vec<FromWorker>, FromWorker, Vec<u8>) {
        let mut before = Vec::new();
        loop {
            match self.next_with() {
                (message, payload) if last(&message) => return (before, message, payload),
                (message, _) => before.push(message),
            }
        }
    }

    /// How far it has decoded: the first frame and the newest.
    fn barrier(&mut self) -> (Option<u64>, Option<u64>) {
        self.send(&ToWorker::Barrier { id: 3 }, &[]);
        match self.next() {
            FromWorker::BarrierReached { id: 3, first, newest } => (first, newest),
            other => panic!("{other:?}"),
        }
    }

    fn dry_run(&mut self, frame: Option<u64>) -> (Option<u64>, Option<u64>) {
        self.send(&ToWorker::DryRun { frame }, &[]);
        match self.next() {
            FromWorker::DryRunResult { frame, outcome } => {
                (frame, outcome.map(|outcome| outcome.unwrap().frame))
            }
            other => panic!("{other:?}"),
        }
    }

    fn reinstantiate(&mut self) {
        self.send(&ToWorker::Reinstantiate, &[]);
        assert!(matches!(self.next(), FromWorker::Reinstantiated));
    }

    /// What it did until it gave its state, how far it has come, and the state.
    fn snapshot(&mut self) -> (Vec<FromWorker>, Option<u64>, Vec<u8>) {
        self.send(&ToWorker::Snapshot, &[]);
        match self.until(|message| matches!(message, FromWorker::Snapshot { .. })) {
            (before, FromWorker::Snapshot { last_frame, .. }, state) => (before, last_frame, state),
            other => panic!("{other:?}"),
        }
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.send(&ToWorker::Restore { version: "1.0.0".into() }, state);
        match self.next() {
            FromWorker::Restored(restored) => restored,
            other => panic!("{other:?}"),
        }
    }

    /// What it did until it answered a request, and the answer.
    fn ask(&mut self, kind: RequestKind) -> (Vec<FromWorker>, Result<String, RequestFault>) {
        self.send(&ToWorker::Ask { id: 5, kind, request: "{}".into() }, &[]);
        match self.until(|message| matches!(message, FromWorker::Answer { .. })) {
            (before, FromWorker::Answer { id: 5, answer }, _) => (before, answer),
            other => panic!("{other:?}"),
        }
    }

    fn activate(&mut self, after: Option<u64>) {
        self.send(&ToWorker::Activate { after }, &[]);
        assert!(matches!(self.next(), FromWorker::Active));
    }

    /// Ends the source, and gives what came until all frames were processed.
    fn finish(&mut self) -> (Vec<FromWorker>, Counters) {
        self.send(&ToWorker::EndOfStream, &[]);
        match self.until(|message| matches!(message, FromWorker::Finished { .. })) {
            (before, FromWorker::Finished { counters, .. }, _) => (before, counters),
            other => panic!("{other:?}"),
        }
    }

    /// What the worker says of itself when it ends.
    fn fails(&mut self) -> WorkerStage {
        match self.until(|message| matches!(message, FromWorker::Failed { .. })) {
            (_, FromWorker::Failed { stage, .. }, _) => stage,
            other => panic!("{other:?}"),
        }
    }

    /// Leaves the worker, which does no more than the frame in hand, and gives why it ended, where
    /// that was a fault.
    fn leave(mut self) -> Result<(), (WorkerStage, String)> {
        self.to.shutdown(Shutdown::Write).unwrap();
        // A socket that is closed before all is read tells the other side of an error.
        while self.from.read::<FromWorker>().is_ok() {}
        self.worker.join().unwrap().map_err(|failure| (failure.stage, failure.message))
    }
}

/// Numbers of the frames with a result.
fn results(messages: &[FromWorker]) -> Vec<u64> {
    let frame = |message: &FromWorker| match message {
        FromWorker::Result { result, .. } => Some(result.frame),
        _ => None,
    };
    messages.iter().filter_map(frame).collect()
}

fn stored(messages: &[FromWorker]) -> Vec<&[StoreChange]> {
    let changes = messages.iter().filter_map(|message| match message {
        FromWorker::StoreCommit(changes) => Some(changes.as_slice()),
        _ => None,
    });
    changes.collect()
}

/// A change of the one bucket that [`COUNTS`] has.
fn change(key: &str, value: &str) -> StoreChange {
    StoreChange { bucket: String::new(), key: key.into(), value: Some(value.as_bytes().to_vec()) }
}

fn contents(values: &[(&str, &str)]) -> StoreContents {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
    StoreContents::from([(String::new(), BTreeMap::from_iter(values))])
}

fn state(frames: u32) -> [u8; 4] {
    frames.to_le_bytes()
}

fn compiled(guest: &Guest<'_>) -> Component {
    guest.compiled(&test_engine())
}

const PLAIN: &str = "people-576-baseline.mp4";

/// What a source of these units is, decoded by one worker from the first to the last: its frames'
/// numbers.
fn all_frames(decode: Decode, units: &[AccessUnit]) -> Vec<u64> {
    let (mut stream, mut numbers) = (Stream::new(decode), Vec::new());
    for (header, data) in units {
        stream.push(header, data, &mut |frame| numbers.push(frame.number)).unwrap();
    }
    stream.drain(&mut |frame| numbers.push(frame.number));
    numbers
}

/// One change from a running worker to one on standby.
#[derive(Debug, Clone)]
struct Change {
    clip: &'static str,
    /// Where in the clip the source begins, and how many units it has.
    begin: prop::sample::Index,
    length: usize,
    /// The last unit of the running worker.
    last: prop::sample::Index,
    /// The key unit, of those up to the last, from which the other worker decodes.
    from: prop::sample::Index,
    decode: Decode,
    pacing: Pacing,
    rehearsals: usize,
    /// Units behind the last one of the running worker that it has before it is activated.
    early: usize,
}

fn change_of(pacing: Pacing) -> impl Strategy<Value = Change> {
    // Without B frames, with B frames that others refer to, and with an open GOP, whose key
    // pictures have leading ones.
    let clip = prop_oneof![
        Just("people-576-baseline.mp4"),
        Just("people-576-high-b3.mp4"),
        Just("people-576-hevc.mp4"),
        Just("bikes.mp4"),
    ];
    let decode =
        prop_oneof![3 => Just(Decode::All), 1 => Just(Decode::Reference), 1 => Just(Decode::Key)];
    (
        clip,
        any::<prop::sample::Index>(),
        1..60usize,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        decode,
        0..3usize,
        0..8usize,
    )
        .prop_map(move |(clip, begin, length, last, from, decode, rehearsals, early)| Change {
            clip,
            begin,
            length,
            last,
            from,
            decode,
            pacing,
            rehearsals,
            early,
        })
}

impl Change {
    /// The source's units, from a key unit on.
    fn source(&self) -> Vec<AccessUnit> {
        let all = units(self.clip);
        let keys: Vec<usize> = (0..all.len()).filter(|&at| all[at].0.key).collect();
        let begin = keys[self.begin.index(keys.len())];
        all[begin..all.len().min(begin + self.length)].to_vec()
    }

    /// The other worker, when it is activated next, and its last frame before.
    ///
    /// The host takes a change back whose new worker cannot have the frame after the last one, so
    /// an earlier key unit is tried here where that is so.
    fn caught_up(
        &self,
        component: &Component,
        units: &[AccessUnit],
        last_frame: Option<u64>,
    ) -> Host {
        let keys: Vec<usize> = (0..units.len()).filter(|&at| units[at].0.key).collect();
        let latest = self.from.index(keys.len());
        for at in keys[..=latest].iter().rev() {
            let mut green = Host::ready(
                component,
                &Setup { pacing: self.pacing, decode: self.decode, ..STANDBY },
            );
            green.units(&units[*at..]);
            let (first, newest) = green.barrier();
            let on_standby = green.counters.snapshot();
            assert_eq!(on_standby.received, (units.len() - at) as u64);
            assert_eq!(
                (on_standby.decoded, on_standby.processed),
                (0, 0),
                "nothing is owed on standby"
            );
            for _ in 0..self.rehearsals {
                assert_eq!(green.dry_run(None), (newest, newest));
            }
            green.reinstantiate();
            if *at == 0
                || first.zip(last_frame).is_some_and(|(first, last_frame)| first <= last_frame + 1)
            {
                return green;
            }
            green.leave().unwrap();
        }
        panic!("from the first unit on there is every frame")
    }

    /// Makes the change; gives the results of both, and checks what is counted.
    fn made(&self, component: &Component) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let units = self.source();
        let expected = all_frames(self.decode, &units);
        let (before, after) = units.split_at(self.last.index(units.len()) + 1);

        let mut blue =
            Host::ready(component, &Setup { pacing: self.pacing, decode: self.decode, ..RUNNING });
        blue.units(before);
        let (messages, last_frame, given) = blue.snapshot();
        let of_blue = results(&messages);
        assert_eq!(last_frame, of_blue.last().copied());
        assert_eq!(given, state(of_blue.len() as u32), "a frame has come after the state");
        let counted = blue.counters.snapshot();
        assert_eq!(counted.decoded, counted.processed + counted.skipped_newer);

        let mut green = self.caught_up(component, before, last_frame);
        assert_eq!(green.restore(&given), Ok(()));
        // It may be ahead of the other: its kept frames come first then.
        let (early, late) = after.split_at(after.len().min(self.early));
        green.units(early);
        green.barrier();
        green.activate(last_frame);
        green.units(late);
        let (messages, counters) = green.finish();
        let of_green = results(&messages);
        let (_, last, given) = green.snapshot();
        assert_eq!(last, of_green.last().copied().or(last_frame));
        assert_eq!(given, state((of_blue.len() + of_green.len()) as u32));

        assert_eq!(counted.received + counters.received, (units.len() - early.len()) as u64);
        assert_eq!(
            counters.decoded,
            counters.processed + counters.skipped_newer + counters.already_processed
        );
        let done = |counters: &Counters| counters.processed + counters.skipped_newer;
        assert_eq!(
            done(&counted) + done(&counters),
            expected.len() as u64,
            "{counted:?} {counters:?}"
        );
        assert_eq!(
            counted.decoded + counters.decoded - counters.already_processed,
            expected.len() as u64
        );
        blue.leave().unwrap();
        green.leave().unwrap();
        (of_blue, of_green, expected)
    }
}

#[test]
fn a_change_in_the_middle_of_a_source_loses_no_frame_and_gives_none_twice() {
    let component = compiled(&COUNTS);
    proptest!(ProptestConfig { cases: rounds(40) as u32, failure_persistence: None, ..ProptestConfig::default() }, |(change in change_of(Pacing::EveryFrame))| {
        let (mut frames, of_green, expected) = change.made(&component);
        frames.extend(of_green);
        prop_assert_eq!(frames, expected);
    });
}

#[test]
fn a_change_on_a_live_source_skips_frames_only_for_newer_ones_and_counts_them() {
    let component = compiled(&COUNTS);
    proptest!(ProptestConfig { cases: rounds(20) as u32, failure_persistence: None, ..ProptestConfig::default() }, |(change in change_of(Pacing::NewestWins))| {
        let (mut frames, of_green, expected) = change.made(&component);
        frames.extend(of_green);
        prop_assert!(frames.is_sorted_by(|one, next| one < next), "{:?}", frames);
        prop_assert!(frames.iter().all(|frame| expected.contains(frame)));
        // The last frame has none after it.
        prop_assert_eq!(frames.last(), expected.last());
    });
}

#[test]
fn many_changes_one_after_another_lose_no_frame() {
    let component = compiled(&COUNTS);
    let units = units("people-576-high-b3.mp4");
    let expected = all_frames(Decode::All, &units);
    let mut running = Host::ready(&component, &RUNNING);
    let (mut frames, mut begin) = (Vec::new(), 0);
    for last in (3..units.len()).step_by(9) {
        running.units(&units[begin..=last]);
        let (messages, last_frame, given) = running.snapshot();
        frames.extend(results(&messages));
        let key =
            (0..=last.saturating_sub(STANDBY_FRAMES)).rev().find(|&at| units[at].0.key).unwrap();
        let mut next = Host::ready(&component, &STANDBY);
        next.units(&units[key..=last]);
        assert_eq!(next.restore(&given), Ok(()));
        next.activate(last_frame);
        std::mem::replace(&mut running, next).leave().unwrap();
        begin = last + 1;
    }
    running.units(&units[begin..]);
    frames.extend(results(&running.finish().0));
    assert_eq!(frames, expected);
    assert_eq!(running.snapshot().2, state(expected.len() as u32));
}

#[test]
fn a_rehearsal_leaves_no_trace_in_the_store_and_none_in_the_state_once_renewed() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    let mut host =
        Host::ready(&component, &Setup { store: contents(&[("frames", "7")]), ..STANDBY });
    assert_eq!(host.dry_run(None), (None, None), "nothing is kept yet");
    host.units(&units[..20]);
    let (first, newest) = host.barrier();
    let newest = newest.unwrap();
    assert_eq!(first, Some(0));
    assert_eq!(host.dry_run(None), (Some(newest), Some(newest)));
    assert_eq!(host.dry_run(Some(newest - 1)), (Some(newest - 1), Some(newest - 1)));
    let oldest = newest + 1 - STANDBY_FRAMES as u64;
    assert_eq!(host.dry_run(Some(oldest)), (Some(oldest), Some(oldest)));
    assert_eq!(host.dry_run(Some(oldest - 1)), (Some(oldest - 1), None), "it has made room");
    assert_eq!(host.dry_run(Some(newest + 1)), (Some(newest + 1), None), "it is not decoded yet");
    assert_eq!(host.snapshot().2, state(3), "the instance has processed them");
    host.reinstantiate();
    let (messages, last_frame, given) = host.snapshot();
    assert_eq!((messages.len(), last_frame, given.as_slice()), (0, None, state(0).as_slice()));
    host.activate(Some(newest - 1));
    let (messages, _, _) = host.until(|message| matches!(message, FromWorker::Result { .. }));
    // One start counts, that of the active instance; and one frame, on top of what was there.
    assert_eq!(stored(&messages), [[change("frames", "8"), change("starts", "1")]]);
    host.leave().unwrap();
}

#[test]
fn changes_of_a_call_come_before_its_result() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    let mut host =
        Host::start(&component, &Setup { store: contents(&[("starts", "4")]), ..RUNNING });
    let (messages, ..) = host.until(|message| matches!(message, FromWorker::Ready));
    assert_eq!(stored(&messages), [[change("starts", "5")]]);
    host.units(&units[..3]);
    let (messages, counters) = host.finish();
    assert_eq!(counters.processed, 3);
    for (number, pair) in messages.chunks_exact(2).enumerate() {
        assert_eq!(stored(pair), [[change("frames", &(number + 1).to_string())]]);
        assert_eq!(results(&pair[1..]), [number as u64]);
    }
    assert_eq!(messages.len(), 6);
    host.leave().unwrap();
}

#[test]
fn a_worker_whose_host_hangs_up_leaves_what_lies_in_its_socket() {
    // So long for a frame that hanging up takes no two.
    let slow = Guest {
        imports: SLEEP,
        process: "(call $block (call $timer (i64.const 200000000)))",
        ..IDLE
    };
    let component = compiled(&slow);
    let units = units(PLAIN);
    let mut host = Host::ready(&component, &RUNNING);
    let counters = Arc::clone(&host.counters);
    host.units(&units[..12]);
    host.until(|message| matches!(message, FromWorker::Result { .. }));
    host.leave().unwrap();
    // The frame in hand, and those before it while this thread waited for the processor.
    let counters = counters.snapshot();
    assert!((1..12).contains(&counters.processed), "{counters:?}");
    // Decoding does not go on either.
    assert!(counters.decoded < 12, "{counters:?}");
}

#[test]
fn a_call_that_traps_changes_nothing() {
    let traps = Guest {
        process: "
            (call $count (i32.const 3000))
            (global.set $frames (i32.add (global.get $frames) (i32.const 1)))
            (if (i32.eq (global.get $frames) (i32.const 2)) (then unreachable))",
        ..COUNTS
    };
    let component = compiled(&traps);
    let mut host = Host::ready(&component, &RUNNING);
    host.units(&units(PLAIN)[..2]);
    let (messages, ..) = host.until(|message| matches!(message, FromWorker::Result { .. }));
    assert_eq!(stored(&messages), [[change("frames", "1")]]);
    // It ends by itself; only then is the connection closed, so that the frame that traps is taken.
    let Host { to, mut from, worker, .. } = host;
    assert_eq!(worker.join().unwrap().unwrap_err().stage, WorkerStage::Process);
    to.shutdown(Shutdown::Write).unwrap();
    let said: Vec<_> = std::iter::from_fn(|| Some(from.read::<FromWorker>().ok()?.0)).collect();
    assert!(said.iter().all(|message| matches!(message, FromWorker::Log { .. })), "{said:?}");
}

#[test]
fn an_instance_that_saw_another_store_is_made_anew_when_the_store_is_handed_over() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    for (now, starts) in [("3", "4"), ("9", "10")] {
        let mut host =
            Host::ready(&component, &Setup { store: contents(&[("starts", "3")]), ..STANDBY });
        host.units(&units[..4]);
        host.load_store(&contents(&[("starts", now)]));
        assert_eq!(host.restore(&state(40)), Ok(()));
        host.activate(Some(2));
        let (messages, result, _) =
            host.until(|message| matches!(message, FromWorker::Result { .. }));
        assert_eq!(results(&[result]), [3]);
        assert_eq!(stored(&messages), [[change("frames", "1"), change("starts", starts)]]);
        assert_eq!(host.snapshot().2, state(41));
        host.leave().unwrap();
    }
}

#[test]
fn a_refused_state_costs_nothing_but_itself() {
    let component = compiled(&COUNTS);
    let mut host = Host::ready(&component, &STANDBY);
    host.units(&units(PLAIN)[..4]);
    assert_eq!(host.restore(&[255; 4]), Err("refused".into()));
    host.reinstantiate();
    assert_eq!(host.snapshot().2, state(0));
    host.activate(Some(2));
    let (_, result, _) = host.until(|message| matches!(message, FromWorker::Result { .. }));
    assert_eq!(results(&[result]), [3]);
    host.leave().unwrap();
}

#[test]
fn without_a_worker_before_it_all_kept_frames_have_results() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    let mut host = Host::ready(&component, &STANDBY);
    host.units(&units[..10]);
    host.activate(None);
    host.units(&units[10..20]);
    let (messages, counters) = host.finish();
    assert_eq!(results(&messages), (0..20).collect::<Vec<_>>());
    assert_eq!((counters.received, counters.decoded, counters.already_processed), (10, 20, 0));

    let mut live = Host::ready(&component, &Setup { pacing: Pacing::NewestWins, ..STANDBY });
    live.units(&units[..10]);
    let (_, newest) = live.barrier();
    live.activate(None);
    let (_, result, _) = live.until(|message| matches!(message, FromWorker::Result { .. }));
    assert_eq!(results(&[result]), [newest.unwrap()], "the newest of them");
    assert_eq!(live.counters.snapshot().skipped_newer, newest.unwrap());
}

#[test]
fn frames_that_another_worker_has_processed_are_passed_over_and_counted() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    let mut host = Host::ready(&component, &STANDBY);
    // As after a loss: the units come again, all of them after the activation.
    host.activate(Some(11));
    host.units(&units[..20]);
    let (messages, counters) = host.finish();
    assert_eq!(results(&messages), (12..20).collect::<Vec<_>>());
    assert_eq!((counters.received, counters.decoded, counters.already_processed), (20, 20, 12));
    host.leave().unwrap();
}

#[test]
fn the_end_of_a_source_is_answered_when_its_frames_are_processed() {
    let component = compiled(&COUNTS);
    let mut host = Host::ready(&component, &STANDBY);
    host.units(&units(PLAIN)[..6]);
    host.send(&ToWorker::EndOfStream, &[]);
    assert_eq!(host.barrier().1, Some(5), "nothing was said of the end");
    host.activate(Some(3));
    let (messages, finished, _) =
        host.until(|message| matches!(message, FromWorker::Finished { .. }));
    assert_eq!(results(&messages), [4, 5]);
    assert!(matches!(finished, FromWorker::Finished { counters, .. } if counters.processed == 2));
    host.leave().unwrap();
}

#[test]
fn a_request_is_not_for_a_worker_on_standby() {
    let component = compiled(&COUNTS);
    let mut host = Host::ready(&component, &STANDBY);
    let (_, answer) = host.ask(RequestKind::Command);
    assert!(matches!(answer, Err(RequestFault::Refused(_))), "{answer:?}");
    host.activate(None);
    assert_eq!(host.ask(RequestKind::Command).1, Ok(String::new()));
    host.leave().unwrap();
}

#[test]
fn a_query_writes_nothing_and_a_command_does() {
    let count = "(call $count (i32.const 3000))";
    let component =
        compiled(&Guest { contracts: &["0.3.0"], query: count, command: count, ..COUNTS });
    let mut host = Host::ready(&component, &RUNNING);
    let (before, answer) = host.ask(RequestKind::Query);
    assert_eq!((stored(&before).len(), answer), (0, Ok(String::new())));
    let (before, answer) = host.ask(RequestKind::Command);
    assert_eq!(stored(&before), [&[change("frames", "1")][..]]);
    assert_eq!(answer, Ok(String::new()));
    host.leave().unwrap();
}

#[test]
fn a_component_of_a_version_without_queries_is_asked_none() {
    for contracts in [&["0.1.0"][..], &["0.2.0"]] {
        // All that it has may change its state.
        let component = compiled(&Guest { contracts, command: "unreachable", ..IDLE });
        let mut host = Host::ready(&component, &RUNNING);
        assert_eq!(host.ask(RequestKind::Query).1, Err(RequestFault::NoQueries));
        host.leave().unwrap();
    }
}

#[test]
fn a_file_on_standby_is_never_held_up() {
    let component = compiled(&COUNTS);
    let units = units(PLAIN);
    let mut host = Host::ready(&component, &STANDBY);
    // Far more frames than wait anywhere, and none of them is taken.
    host.units(&units);
    assert_eq!(host.barrier().0, Some(0));
    assert_eq!(
        host.counters.snapshot(),
        Counters { received: units.len() as u64, ..Counters::default() }
    );
    host.leave().unwrap();
}

#[test]
fn files_are_frames_and_each_is_drawn_before_its_outcome_where_that_was_asked_for() {
    let mut file = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.encode(&[200; 64 * 48 * 3], 64, 48, jpeg_encoder::ColorType::Rgb).unwrap();
    let component = compiled(&IDLE);
    for annotate in [false, true] {
        let mut host = Host::ready(&component, &Setup { annotate, ..RUNNING });
        let (header, _) = units(PLAIN).swap_remove(0);
        for (number, bytes) in [(0, &file[..]), (1, b"no picture"), (2, &file)] {
            let presentation_ns = Some(number as i64 * 100_000_000);
            let header = UnitHeader { number, key: true, presentation_ns, ..header.clone() };
            host.send(&ToWorker::Picture(header), bytes);
        }
        let (messages, counters) = host.finish();
        let kinds: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                FromWorker::Annotated { frame, presentation_ns, size: (64, 48) } => {
                    assert_eq!(*presentation_ns, *frame as i64 * 100_000_000);
                    Some(('d', *frame))
                }
                FromWorker::Result { result, .. } => Some(('r', result.frame)),
                _ => None,
            })
            .collect();
        let expected = [('d', 0), ('r', 0), ('d', 2), ('r', 2)];
        let expected = expected.into_iter().filter(|(kind, _)| annotate || *kind == 'r');
        assert!(kinds.iter().copied().eq(expected), "{kinds:?}");
        assert_eq!((counters.received, counters.decoded, counters.skipped_corrupt), (3, 2, 1));
        host.leave().unwrap();
    }
}

#[test]
fn messages_out_of_turn_end_the_worker() {
    let component = compiled(&IDLE);
    let turns: [(Setup, ToWorker); 6] = [
        (RUNNING, ToWorker::Activate { after: None }),
        (RUNNING, ToWorker::DryRun { frame: None }),
        (RUNNING, ToWorker::Reinstantiate),
        (RUNNING, ToWorker::LoadStore),
        (STANDBY, ToWorker::LoadStore),
        (STANDBY, ToWorker::Analyze { id: 1, settings: None }),
    ];
    for (setup, message) in turns {
        let mut host = Host::ready(&component, &setup);
        host.send(&message, &[]);
        assert_eq!(host.fails(), WorkerStage::Setup, "{message:?}");
        assert_eq!(host.leave().unwrap_err().0, WorkerStage::Setup, "{message:?}");
    }
    let mut host = Host::ready(&component, &STANDBY);
    host.activate(None);
    host.send(&ToWorker::Activate { after: None }, &[]);
    assert_eq!(host.fails(), WorkerStage::Setup);
    assert_eq!(host.leave().unwrap_err().0, WorkerStage::Setup);

    let large =
        StoreContents::from([("b".into(), BTreeMap::from([("k".into(), vec![0; 2 << 20])]))]);
    let host = Host::start(&component, &Setup { store: large, ..RUNNING });
    let (stage, words) = host.leave().unwrap_err();
    assert_eq!(stage, WorkerStage::Setup);
    assert!(words.contains("2097154 bytes, at most 1048576"), "{words}");
}

/// A guest that describes this schema.
fn with_schema(schema: &str, then: impl FnOnce(&Guest<'_>)) {
    let text: String = schema.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let items = format!("(data (i32.const 2048) \"{text}\")");
    let (place, length) = (RESULT + 24, RESULT + 28);
    let describe = format!(
        "(i32.store (i32.const {place}) (i32.const 2048)) (i32.store (i32.const {length}) \
            (i32.const {}))",
        schema.len()
    );
    then(&Guest { items: &items, describe: &describe, ..IDLE });
}

#[test]
fn settings_that_do_not_fit_the_schema_end_the_worker_before_the_pipeline_sees_them() {
    let schema = r#"{"properties":{"score":{"maximum":1}},"additionalProperties":false}"#;
    with_schema(schema, |guest| {
        let component = compiled(&Guest { init: "unreachable", ..*guest });
        let setup = Setup { settings: r#"{"score":2,"scope":1}"#, ..RUNNING };
        let (stage, words) = Host::start(&component, &setup).leave().unwrap_err();
        assert_eq!(stage, WorkerStage::Settings);
        assert!(
            words.contains("settings.score: 2") && words.contains("settings.scope: "),
            "{words}"
        );
        let setup = Setup { settings: r#"{"score":1}"#, ..RUNNING };
        assert_eq!(Host::start(&component, &setup).leave().unwrap_err().0, WorkerStage::Init);
    });
    with_schema(r#"{"type":"objekt"}"#, |guest| {
        let component = compiled(guest);
        let (stage, words) = Host::start(&component, &RUNNING).leave().unwrap_err();
        assert_eq!(stage, WorkerStage::Settings);
        assert!(words.contains("not usable") && words.contains("objekt"), "{words}");
    });
}

#[test]
fn a_pipeline_that_cannot_describe_itself_is_known_by_its_stage() {
    let component = compiled(&Guest { describe: "unreachable", ..IDLE });
    assert_eq!(Host::start(&component, &RUNNING).leave().unwrap_err().0, WorkerStage::Describe);
}
