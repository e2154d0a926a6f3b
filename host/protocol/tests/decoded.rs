//! What a message of a process that is not trusted takes once it is decoded, counted where it is
//! allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ocelli_protocol::inference::{InferenceRequest, ToHost};
use ocelli_protocol::ingest::{FromIngest, NetworkRequest};
use ocelli_protocol::redis_bridge::RedisRequest;
use ocelli_protocol::wire::{MAX_MESSAGE, WireError, decode_within, to_bytes};
use ocelli_protocol::worker::{
    CaptureClock, Counters, Event, FrameResult, FromWorker, RequestFault, StoreChange, Timestamps,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a list may take beyond the counted bytes: room that it is given before its first element,
/// and the room of one that grows to twice its size.
const GROWTH: usize = 2 << 20;

thread_local! {
    /// Bytes that this thread has, and the most that it has had.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator with a count of each thread's bytes.
struct Counting;

fn count(bytes: isize) {
    // A thread that ends frees without being counted.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: each call goes to the system's allocator as it is; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How decoding within `most` bytes ended, and the most bytes that it had at a time.
fn decoded<M: DeserializeOwned>(message: &[u8], most: usize) -> (Result<M, WireError>, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let decoded = decode_within::<M>(message, most);
    (decoded, (HELD.get().1 - before) as usize)
}

/// Decodes what a peer may have sent, and whatever came of it, holds it to the bytes.
fn hold<M: DeserializeOwned>(message: &[u8], most: usize) -> Result<(), TestCaseError> {
    let (_, taken) = decoded::<M>(message, most);
    prop_assert!(taken <= 2 * most + GROWTH, "{taken} bytes for {most}");
    Ok(())
}

fn result(events: Vec<Event>) -> FromWorker {
    let result = FrameResult {
        frame: 1,
        presentation_ns: 0,
        capture_ns: 2,
        capture_clock: CaptureClock::Camera,
        width: 3,
        height: 4,
        detections: Some(Vec::new()),
        events,
        basis: None,
        timestamps: Timestamps::default(),
    };
    FromWorker::Result { result, counters: Counters::default() }
}

fn event() -> Event {
    Event {
        kind: String::new(),
        detections: Vec::new(),
        data: String::new(),
        attachments: Vec::new(),
    }
}

#[test]
fn a_list_of_nothings_is_refused_before_it_takes_its_memory() {
    // 24 bytes of memory for each byte of the message.
    let events = to_bytes(&result(vec![event(); MAX_MESSAGE / 4 - 100])).unwrap();
    let changes = StoreChange { bucket: String::new(), key: String::new(), value: None };
    let changes = to_bytes(&FromWorker::StoreCommit(vec![changes; MAX_MESSAGE / 3 - 100])).unwrap();
    for message in [events, changes] {
        assert!(message.len() <= MAX_MESSAGE);
        let (refused, taken) = decoded::<FromWorker>(&message, 2 * MAX_MESSAGE);
        assert!(matches!(refused, Err(WireError::TooLarge { .. })), "{refused:?}");
        assert!(taken <= GROWTH, "{taken}");
    }
}

#[test]
fn what_stays_within_its_bytes_is_decoded_as_it_was_encoded() {
    fn both<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &M) {
        let bytes = to_bytes(message).unwrap();
        assert_eq!(&decode_within::<M>(&bytes, 1 << 20).unwrap(), message);
        let cut = decode_within::<M>(bytes.split_last().unwrap().1, 1 << 20);
        assert!(matches!(cut, Err(WireError::Malformed(_))), "{cut:?}");
        let longer = decode_within::<M>(&[bytes.as_slice(), &[0]].concat(), 1 << 20);
        assert!(matches!(longer, Err(WireError::Malformed(_))), "{longer:?}");
    }
    both(&result(vec![Event { attachments: vec![vec![7; 9]], ..event() }; 3]));
    both(&FromWorker::Answer { id: u64::MAX, answer: Err(RequestFault::Refused("é".into())) });
    both(&FromWorker::Ready);
    both(&NetworkRequest::Connect { address: "[::1]:554".parse().unwrap() });
    both(&FromIngest::Alive);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_within_their_bound(
        tag in 0u8..32,
        rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..4096),
        most in 0usize..100_000,
    ) {
        let message = [&[tag], rest.as_slice()].concat();
        hold::<FromWorker>(&message, most)?;
        hold::<FromIngest>(&message, most)?;
        hold::<NetworkRequest>(&message, most)?;
        hold::<RedisRequest>(&message, most)?;
        hold::<InferenceRequest>(&message, most)?;
        hold::<ToHost>(&message, most)?;
    }

    #[test]
    fn lists_of_any_length_are_decoded_within_their_bound(
        events in 0usize..4000,
        most in 0usize..(400 << 10),
    ) {
        hold::<FromWorker>(&to_bytes(&result(vec![event(); events])).unwrap(), most)?;
    }
}
