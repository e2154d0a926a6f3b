//! Each limit, run into by a component: what is refused, what the error says, what is counted, and
//! that what is just within the limit passes.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::inference::packet_pair;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::Reader;
use ocelli_protocol::worker::{Decode, FrameResult, FromWorker, WorkerLimits};

use super::instance::{CallError, Instance, InstanceFactory};
use super::state::HostServices;
use super::state::tests::limits;
use super::tests::components::{Guest, IDLE, RESULT, SLEEP, test_engine};
use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::heartbeat::Heartbeat;
use crate::host_link::HostLink;
use crate::own_process::run_in_own_process;
use crate::redis_bridge::RedisBucket;
use crate::video::{Frame, Stream, clips};

/// Pages of the memory that [`limits`] allow.
const PAGES: u32 = 256;

/// An instance, with what it counts and what it has sent.
pub(super) struct Running {
    pub(super) instance: Instance,
    counters: Arc<SharedCounters>,
    host: UnixStream,
}

/// Why a component could not be instantiated, and how often each limit was run into.
pub(super) type Unborn = (Option<Limit>, String, Vec<(Limit, u64)>);

/// Instantiates a guest.
pub(super) fn instantiate(guest: &Guest<'_>, limits: WorkerLimits) -> Result<Running, Unborn> {
    instantiate_after(guest, limits, || ())
}

fn instantiate_after(
    guest: &Guest<'_>,
    limits: WorkerLimits,
    before: impl FnOnce(),
) -> Result<Running, Unborn> {
    let engine = test_engine();
    let component = guest.compiled(&engine);
    before();
    let (ours, host) = UnixStream::pair().unwrap();
    let (socket, _) = packet_pair().unwrap();
    let arena = Arena::new(SharedMemory::create(64 << 10).unwrap());
    let counters = Arc::new(SharedCounters::default());
    let surroundings = HostServices::new(
        HostLink::from_stream(ours),
        arena,
        socket,
        RedisBucket::default(),
        limits,
        Arc::clone(&counters),
    );
    let factory = InstanceFactory::new(&engine, &component, surroundings);
    match factory.and_then(|factory| factory.instance(serde_json::Map::new())) {
        Ok(instance) => Ok(Running { instance, counters, host }),
        Err(error) => {
            let (limit, message) = trap(error);
            Err((limit, message, counters.snapshot().limits.hit().collect()))
        }
    }
}

fn trap(error: CallError) -> (Option<Limit>, String) {
    match error {
        CallError::Trap { limit, message } => (limit, message),
        CallError::Refused(message) => panic!("refused: {message}"),
    }
}

impl Running {
    fn counted(&self) -> Vec<(Limit, u64)> {
        self.counters.snapshot().limits.hit().collect()
    }

    fn process(&mut self) -> Result<FrameResult, CallError> {
        self.instance.process(Arc::new(frame()))
    }
}

pub(super) fn frame() -> Frame {
    let mut frames = Vec::new();
    let (header, data) = clips::units("people-576-mjpeg.avi").swap_remove(0);
    Stream::new(Decode::All).push(&header, &data, &mut |frame| frames.push(frame)).unwrap();
    frames.swap_remove(0)
}

/// Runs a guest's `init`, which is to end its instance, and returns the limit and the message.
fn init_ends(guest: &Guest<'_>, limits: WorkerLimits) -> (Option<Limit>, String, Running) {
    let mut running = instantiate(guest, limits).unwrap_or_else(|(_, error, _)| panic!("{error}"));
    let (limit, message) = trap(running.instance.init("{}").unwrap_err());
    (limit, message, running)
}

/// Like [`init_ends`], where exactly one limit is to be run into, once, and named first.
fn init_runs_into(limit: Limit, guest: &Guest<'_>, limits: WorkerLimits) -> String {
    let (found, message, running) = init_ends(guest, limits);
    assert_eq!(found, Some(limit), "{message}");
    assert!(message.starts_with(&format!("limit {limit}: ")), "{message}");
    assert_eq!(running.counted(), [(limit, 1)], "{message}");
    message
}

#[test]
fn memory_is_refused_beyond_the_limit_and_a_trap_for_want_of_it_says_so() {
    let grow = format!(
        "(if (i32.eq (memory.grow (i32.const {PAGES})) (i32.const -1)) (then unreachable))"
    );
    let message = init_runs_into(Limit::Memory, &Guest { init: &grow, ..IDLE }, limits());
    let expected =
        "limit memory: the component was refused linear memory of 16 MiB, the limit is 16 MiB\n";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("wasm backtrace") && message.contains("unreachable"), "{message}");
}

#[test]
fn memory_up_to_the_limit_is_given_and_a_refusal_can_be_survived() {
    let grow = format!(
        "(if (i32.ne (memory.grow (i32.const {rest})) (i32.const 1)) (then unreachable))
         (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))",
        rest = PAGES - 1
    );
    let guest = Guest { init: &grow, process: "unreachable", ..IDLE };
    let running = instantiate(&guest, limits());
    let mut running = running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    running.instance.init("{}").unwrap();
    assert_eq!(running.counters.guest_memory(), 16 << 20);
    assert_eq!(running.counted(), [(Limit::Memory, 1)]);
    // A trap of a later call has nothing to do with it.
    let (limit, message) = trap(running.process().unwrap_err());
    assert_eq!(limit, None, "{message}");
    assert_eq!(running.counted(), [(Limit::Memory, 1)]);
}

#[test]
fn a_first_size_over_the_limit_is_an_error_and_one_at_the_limit_is_not() {
    let fits = instantiate(&Guest { pages: PAGES, ..IDLE }, limits());
    assert_eq!(fits.map_err(|(_, error, _)| error).unwrap().counters.guest_memory(), 16 << 20);
    let over = instantiate(&Guest { pages: PAGES + 1, ..IDLE }, limits());
    let Err((limit, message, counted)) = over else { panic!("instantiated") };
    assert_eq!(
        (limit, &counted[..]),
        (Some(Limit::Memory), &[(Limit::Memory, 1)][..]),
        "{message}"
    );
    assert!(
        message.starts_with("limit memory: the component was refused linear memory of 16 MiB"),
        "{message}"
    );
}

#[test]
fn memories_of_all_core_instances_count_together() {
    let items = format!("(memory $second {PAGES})");
    let second = instantiate(&Guest { items: &items, ..IDLE }, limits());
    let Err((limit, message, _)) = second else { panic!("instantiated") };
    assert_eq!(limit, Some(Limit::Memory), "{message}");
}

#[test]
fn tables_are_refused_beyond_the_limit() {
    let items = "(table $table 0 funcref)";
    let grow = "(if (i32.eq (table.grow $table (ref.null func) (i32.const 100000)) (i32.const \
        -1)) (then unreachable))
         (if (i32.eq (table.grow $table (ref.null func) (i32.const 1)) (i32.const -1)) (then \
         unreachable))";
    let guest = Guest { items, init: grow, ..IDLE };
    let message = init_runs_into(Limit::Tables, &guest, limits());
    assert!(message.contains("tables of 100001 elements, the limit is 100000"), "{message}");
}

#[test]
fn a_recursion_without_end_runs_into_the_stack() {
    let guest = Guest { items: "(func $deeper (call $deeper))", init: "(call $deeper)", ..IDLE };
    let message = init_runs_into(Limit::Stack, &guest, limits());
    assert!(
        message.contains("more than 512 KiB of stack") && message.contains("wasm backtrace"),
        "{message}"
    );
}

#[test]
fn a_loop_without_end_runs_into_its_cpu_time() {
    let guest = Guest { init: "(loop (br 0))", ..IDLE };
    let short = WorkerLimits { call_cpu_ms: 20, ..limits() };
    let message = init_runs_into(Limit::CpuTime, &guest, short);
    assert!(
        message.contains("more than 20 ms of CPU time") && message.contains("wasm backtrace"),
        "{message}"
    );
}

#[test]
fn a_loop_without_end_runs_into_the_clock_too() {
    let guest = Guest { init: "(loop (br 0))", ..IDLE };
    let short = WorkerLimits { call_timeout_ms: 20, ..limits() };
    let message = init_runs_into(Limit::CallTime, &guest, short);
    assert!(message.contains("longer than 20 ms"), "{message}");
}

#[test]
fn a_sleep_for_ever_ends_with_the_time_of_one_host_call() {
    let guest =
        Guest { imports: SLEEP, init: "(call $block (call $timer (i64.const -1)))", ..IDLE };
    let short = WorkerLimits { host_call_ms: 20, ..limits() };
    let message = init_runs_into(Limit::HostCall, &guest, short);
    assert!(message.contains("waited longer than 20 ms for the host"), "{message}");
}

#[test]
fn many_short_sleeps_end_with_the_time_of_the_whole_call() {
    let nap = "(local $timer i32)
         (loop
            (local.set $timer (call $timer (i64.const 1000000)))
            (call $block (local.get $timer))
            (call $drop_timer (local.get $timer))
            (br 0))";
    let guest = Guest { imports: SLEEP, init: nap, ..IDLE };
    let short = WorkerLimits { call_timeout_ms: 100, ..limits() };
    let message = init_runs_into(Limit::CallTime, &guest, short);
    assert!(message.contains("longer than 100 ms"), "{message}");
}

#[test]
fn a_component_that_starts_with_a_sleep_is_ended_before_it_is_instantiated() {
    let items = "(func $start (call $block (call $timer (i64.const -1)))) (start $start)";
    let guest = Guest { imports: SLEEP, items, ..IDLE };
    let short = WorkerLimits { host_call_ms: 20, ..limits() };
    let Err((limit, message, _)) = instantiate(&guest, short) else { panic!("instantiated") };
    assert_eq!(limit, Some(Limit::HostCall), "{message}");
}

#[test]
fn a_worker_says_that_it_is_alive_while_its_component_sleeps() {
    let guest =
        Guest { imports: SLEEP, init: "(call $block (call $timer (i64.const -1)))", ..IDLE };
    let running = instantiate(&guest, limits());
    let Running { mut instance, counters, host } =
        running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _heartbeat =
        Heartbeat::start(HostLink::from_stream(ours), counters, Duration::from_millis(2)).unwrap();
    // It sleeps on when the test is over, and ends with the process.
    let call = std::thread::spawn(move || (instance.init("{}").is_ok(), host));
    let mut reader = Reader::new(theirs);
    for _ in 0..20 {
        let (message, _) = reader.read::<FromWorker>().unwrap();
        assert!(
            matches!(message, FromWorker::Heartbeat { guest_memory: 65536, .. }),
            "{message:?}"
        );
    }
    assert!(!call.is_finished());
}

#[test]
fn handles_are_given_out_up_to_the_limit() {
    let guest =
        Guest { imports: SLEEP, init: "(loop (drop (call $timer (i64.const 1))) (br 0))", ..IDLE };
    let message = init_runs_into(Limit::Handles, &guest, limits());
    assert!(
        message.contains("more than 10000 handles") && message.contains("wasm backtrace"),
        "{message}"
    );
}

#[test]
fn a_handle_that_was_never_given_is_a_trap_and_no_limit() {
    let guest = Guest { imports: SLEEP, init: "(call $block (i32.const 12345))", ..IDLE };
    let (limit, message, running) = init_ends(&guest, limits());
    assert_eq!((limit, running.counted()), (None, Vec::new()), "{message}");
    assert!(message.contains("unknown handle index 12345"), "{message}");
}

#[test]
fn a_tensor_larger_than_the_shared_memory_is_refused() {
    // Two sides of 2^20, and no data.
    let imports = r#"(import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor"
        (func $tensor (param i32 i32 i32 i32 i32) (result i32)))"#;
    let make = "(i32.store (i32.const 16) (i32.const 1048576))
         (i32.store (i32.const 20) (i32.const 1048576))
         (drop (call $tensor (i32.const 16) (i32.const 2) (i32.const 4) (i32.const 0) (i32.const \
         0)))";
    let guest = Guest { imports, init: make, ..IDLE };
    let message = init_runs_into(Limit::Tensor, &guest, limits());
    assert!(message.contains("[1048576, 1048576]") && message.contains("65536 bytes"), "{message}");
}

#[test]
fn a_flood_of_log_lines_is_cut_down_and_the_call_goes_on() {
    let imports = r#"(import "wasi:logging/logging@0.1.0-draft" "log"
        (func $log (param i32 i32 i32 i32 i32)))"#;
    let flood = r#"(local $left i32)
         (local.set $left (i32.const 20000))
         (loop
            (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 4))
            (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"#;
    let guest = Guest { imports, items: r#"(data (i32.const 16) "line")"#, init: flood, ..IDLE };
    let few = WorkerLimits { log_lines_per_second: 5, ..limits() };
    let running = instantiate(&guest, few);
    let Running { mut instance, counters, host } =
        running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    let reading = std::thread::spawn(move || {
        let mut reader = Reader::new(host);
        let mut lines = 0;
        while let Ok((FromWorker::Log { message, .. }, _)) = reader.read() {
            lines += u64::from(message == "line");
        }
        lines
    });
    instance.init("{}").unwrap();
    drop(instance);
    let lines = reading.join().unwrap();
    assert!(lines >= 5, "{lines}");
    assert_eq!(
        counters.snapshot().limits.hit().collect::<Vec<_>>(),
        [(Limit::LogLines, 20000 - lines)]
    );
}

/// `process` returns so many events, each with so many bytes of data, all of them the same bytes.
fn events(count: u32, bytes: u32) -> String {
    format!(
        "(local $at i32)
         (i32.store (i32.const {list}) (i32.const 65536))
         (i32.store (i32.const {length}) (i32.const {count}))
         (local.set $at (i32.const {end}))
         (loop
            (local.set $at (i32.sub (local.get $at) (i32.const 32)))
            (i32.store (i32.add (local.get $at) (i32.const 16)) (i32.const 8192))
            (i32.store (i32.add (local.get $at) (i32.const 20)) (i32.const {bytes}))
            (br_if 0 (i32.gt_u (local.get $at) (i32.const 65536))))",
        list = RESULT + 16,
        length = RESULT + 20,
        end = 65536 + 32 * count,
    )
}

/// A result, or the limit that was in its way and the message.
type Processed = Result<FrameResult, (Limit, String)>;

/// What becomes of a frame whose `process` returns such events.
fn processed(count: u32, bytes: u32, limits: WorkerLimits) -> (Processed, Running) {
    let guest = Guest { pages: 64, process: &events(count, bytes), ..IDLE };
    let mut running = instantiate(&guest, limits).unwrap_or_else(|(_, error, _)| panic!("{error}"));
    let result = running.process().map_err(|error| {
        let (limit, message) = trap(error);
        let limit = limit.unwrap_or_else(|| panic!("{message}"));
        assert!(message.starts_with(&format!("limit {limit}: ")), "{message}");
        assert_eq!(running.counted(), [(limit, 1)]);
        (limit, message)
    });
    (result, running)
}

#[test]
fn events_are_taken_up_to_the_limit() {
    let few = WorkerLimits { events_per_frame: 10, ..limits() };
    let (result, running) = processed(10, 3, few);
    let events = result.unwrap().events;
    assert_eq!((events.len(), events[9].data.len(), running.counted()), (10, 3, Vec::new()));
    let (limit, message) = processed(11, 3, few).0.unwrap_err();
    assert_eq!(limit, Limit::Events);
    assert!(message.contains("11 events of one frame: at most 10 are taken"), "{message}");
}

#[test]
fn an_event_is_taken_up_to_its_size() {
    let (result, _) = processed(1, 256 << 10, limits());
    assert_eq!(result.unwrap().events[0].data.len(), 256 << 10);
    let (limit, message) = processed(1, (256 << 10) + 1, limits()).0.unwrap_err();
    assert_eq!(limit, Limit::EventBytes);
    assert!(message.contains("an event of 262145 bytes"), "{message}");
}

#[test]
fn what_a_frame_returns_is_bounded_before_it_is_taken_over() {
    // A hundred events that all show the same 3 MiB would be 300 MiB on the host's side.
    let (result, _) = processed(100, 3 << 20, limits());
    let (limit, message) = result.unwrap_err();
    assert_eq!(limit, Limit::OutputBytes, "{message}");
}

#[test]
fn what_is_handed_to_the_host_is_bounded_too() {
    let imports = r#"(import "wasi:logging/logging@0.1.0-draft" "log"
        (func $log (param i32 i32 i32 i32 i32)))"#;
    let long =
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2000000))";
    let guest = Guest { imports, pages: 64, init: long, ..IDLE };
    init_runs_into(Limit::OutputBytes, &guest, limits());
    let line = long.replace("2000000", "1000000");
    let running = instantiate(&Guest { init: &line, ..guest }, limits());
    let mut running = running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    running.instance.init("{}").unwrap();
}

#[test]
fn a_snapshot_has_room_of_its_own() {
    let snapshot = |bytes: usize| {
        format!(
            "(i32.store (i32.const {RESULT}) (i32.const 0)) (i32.store (i32.const {}) (i32.const \
                {bytes}))",
            RESULT + 4
        )
    };
    let larger = WorkerLimits { guest_memory: 64 << 20, ..limits() };
    let taken = |bytes: usize| {
        let guest = Guest { pages: 512, snapshot: &snapshot(bytes), ..IDLE };
        let running = instantiate(&guest, larger);
        running.unwrap_or_else(|(_, error, _)| panic!("{error}")).instance.snapshot()
    };
    assert_eq!(taken(16 << 20).unwrap().len(), 16 << 20);
    assert_eq!(trap(taken((16 << 20) + 1).unwrap_err()).0, Some(Limit::OutputBytes));
}

/// Private memory of the process in which memory is short.
const SHORT: u64 = 64 << 20;

fn memory_is_short() {
    ocelli_sandbox::limit::memory(SHORT).unwrap();
}

#[test]
fn memory_that_the_process_has_not_is_refused_while_the_host_has_enough() {
    run_in_own_process("guest::limit_tests::short_of_memory_to_grow");
    run_in_own_process("guest::limit_tests::short_of_memory_to_start");
    run_in_own_process("guest::limit_tests::short_of_memory_for_results");
}

#[test]
#[ignore = "limits the whole process; run by \
    memory_that_the_process_has_not_is_refused_while_the_host_has_enough"]
fn short_of_memory_to_grow() {
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    let much = WorkerLimits { guest_memory: 1 << 30, ..limits() };
    let guest = Guest { init: grow, process: "unreachable", ..IDLE };
    // Before memory is short: the clip is read whole for its first picture.
    let frame = Arc::new(frame());
    let running = instantiate_after(&guest, much, memory_is_short);
    let mut running = running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    running.instance.init("{}").unwrap();
    assert_eq!(running.counted(), [(Limit::Memory, 1)]);
    let given = running.counters.guest_memory();
    assert!((1 << 20..SHORT).contains(&given), "{given}");
    let host = vec![1_u8; 12 << 20];
    let (limit, message) = trap(running.instance.process(frame).unwrap_err());
    assert_eq!((limit, host.len()), (None, 12 << 20), "{message}");
}

#[test]
#[ignore = "limits the whole process; run by \
    memory_that_the_process_has_not_is_refused_while_the_host_has_enough"]
fn short_of_memory_to_start() {
    let much = WorkerLimits { guest_memory: 1 << 30, ..limits() };
    let born = instantiate_after(&Guest { pages: 4096, ..IDLE }, much, memory_is_short);
    let Err((limit, message, counted)) = born else { panic!("instantiated") };
    assert_eq!(
        (limit, &counted[..]),
        (Some(Limit::Memory), &[(Limit::Memory, 1)][..]),
        "{message}"
    );
}

#[test]
#[ignore = "limits the whole process; run by \
    memory_that_the_process_has_not_is_refused_while_the_host_has_enough"]
fn short_of_memory_for_results() {
    let guest = Guest { pages: 64, process: &events(1000, 3 << 20), ..IDLE };
    let running = instantiate_after(&guest, limits(), memory_is_short);
    let mut running = running.unwrap_or_else(|(_, error, _)| panic!("{error}"));
    assert_eq!(trap(running.process().unwrap_err()).0, Some(Limit::OutputBytes));
}
