//! Traces of frames and of deployments, for a collector of OpenTelemetry: OTLP over HTTP with
//! protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! The host makes spans where it has their times anyway and puts them into a bounded queue; one task
//! ([`exporter`]) sends them. Whoever makes a span never waits: what has no room is dropped and
//! counted. There is one tracer in a process, as there is one log; before [`start`], and without
//! `[otlp]`, a frame costs one load of a number.

mod deployment;
mod exporter;
mod wire;

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ocelli_protocol::clock::{monotonic_ns, wall_ns};
use ocelli_protocol::worker::Timestamps;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use wire::{KeyValue, Span, SpanStatus};

pub(crate) use deployment::{DeploymentNote, deployment};
pub(crate) use exporter::start;

/// Traces that wait for the exporter: about a megabyte. With every hundredth frame of a thousand a
/// second, they hold the spans of a minute and a half.
const MAX_WAITING: usize = 1024;

/// What a share of one frame in one is, as [`Tracer::frames`] has it.
const EVERY: u64 = 1 << 32;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: i32 = 1;

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// See the module's documentation.
struct Tracer {
    /// The share of frames that are traced, of [`EVERY`].
    frames: AtomicU64,
    deployments: AtomicBool,
    queue: mpsc::Sender<Vec<Span>>,
    sent: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    /// Why the collector takes nothing.
    fault: Mutex<Option<String>>,
}

/// How the exporter stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TraceMetrics {
    /// Spans that the collector has taken.
    pub(crate) sent: u64,
    /// Spans for which there was no room, or that the collector did not take.
    pub(crate) dropped: u64,
    /// Times that the collector did not take what it was sent.
    pub(crate) errors: u64,
    /// Why it takes nothing, while it does not.
    pub(crate) fault: Option<String>,
}

/// How the exporter stands; none without `[otlp]`.
pub(crate) fn metrics() -> Option<TraceMetrics> {
    let tracer = TRACER.get().filter(|tracer| tracer.is_on())?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Some(TraceMetrics {
        sent: count(&tracer.sent),
        dropped: count(&tracer.dropped),
        errors: count(&tracer.errors),
        fault: tracer.fault.lock().clone(),
    })
}

impl Tracer {
    fn is_on(&self) -> bool {
        self.frames.load(Ordering::Relaxed) > 0 || self.deployments.load(Ordering::Relaxed)
    }

    fn frame(&self, frame: &TracedFrame<'_>) {
        let share = self.frames.load(Ordering::Relaxed);
        if share > 0 && u64::from(rand::random::<u32>()) < share {
            self.send(spans(frame, monotonic_ns(), wall_ns()));
        }
    }

    fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// A frame whose result the host has taken.
#[derive(Debug)]
pub(crate) struct TracedFrame<'a> {
    pub(crate) session: &'a str,
    pub(crate) deployment: &'a str,
    pub(crate) frame: u64,
    pub(crate) times: &'a Timestamps,
}

/// Traces a frame, if it is drawn: a span from the access unit to the published result, and in it
/// one for each stage.
pub(crate) fn frame(frame: &TracedFrame<'_>) {
    if let Some(tracer) = TRACER.get() {
        tracer.frame(frame);
    }
}

/// The spans of a frame. `now` and `wall` are the same moment on both clocks.
fn spans(frame: &TracedFrame<'_>, now: u64, wall: u64) -> Vec<Span> {
    let Timestamps { received, decoded, submitted, inferred, emitted } = *frame.times;
    let at = |monotonic: u64| wall.saturating_sub(now.saturating_sub(monotonic));
    let root = Context::root();
    let attributes = vec![
        KeyValue::text("ocelli.session", frame.session),
        KeyValue::text("ocelli.deployment", frame.deployment),
        KeyValue::number("ocelli.frame", frame.frame),
    ];
    let mut spans = vec![root.span("frame", at(received), wall, attributes)];
    let stages = [
        ("decode", received, decoded),
        ("wait", decoded, submitted),
        ("inference", submitted, inferred),
        ("pipeline", inferred, emitted),
        ("publish", emitted, now),
    ];
    // A frame without inference has none of it.
    let stages = stages.into_iter().filter(|(name, from, to)| *name != "inference" || to > from);
    spans.extend(
        stages.map(|(name, from, to)| root.child().span(name, at(from), at(to), Vec::new())),
    );
    spans
}

/// Where a span belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: [u8; 16],
    parent: Option<[u8; 8]>,
    span: [u8; 8],
}

impl Context {
    /// Of a trace of its own.
    fn root() -> Self {
        // Zeros alone are no id.
        Self { trace: (rand::random::<u128>() | 1).to_be_bytes(), parent: None, span: span_id() }
    }

    /// Within what somebody else traces.
    fn within(parent: TraceParent) -> Self {
        Self { trace: parent.trace, parent: Some(parent.span), span: span_id() }
    }

    fn child(&self) -> Self {
        Self { trace: self.trace, parent: Some(self.span), span: span_id() }
    }

    fn span(&self, name: &str, start: u64, end: u64, attributes: Vec<KeyValue>) -> Span {
        Span {
            trace_id: self.trace.to_vec(),
            span_id: self.span.to_vec(),
            parent_span_id: self.parent.map(Vec::from).unwrap_or_default(),
            name: name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: start,
            end_time_unix_nano: end.max(start),
            attributes,
            status: None,
        }
    }
}

fn span_id() -> [u8; 8] {
    (rand::random::<u64>() | 1).to_be_bytes()
}

fn failure(reason: &str) -> SpanStatus {
    SpanStatus { message: reason.to_owned(), code: ERROR }
}

/// The header `traceparent` (W3C Trace Context, level 1): within which span something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
}

/// A header that is none. It is left out, as the standard wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent")]
pub struct TraceParentError;

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
            let small = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if digits.len() != 2 * N || !digits.bytes().all(small) {
                return None;
            }
            let mut bytes = [0; N];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
            }
            Some(bytes)
        }
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(TraceParentError);
        let (version, trace, span, flags) = (part()?, part()?, part()?, part()?);
        let version: [u8; 1] = bytes(version).ok_or(TraceParentError)?;
        let trace: [u8; 16] = bytes(trace).ok_or(TraceParentError)?;
        let span: [u8; 8] = bytes(span).ok_or(TraceParentError)?;
        let _: [u8; 1] = bytes(flags).ok_or(TraceParentError)?;
        // Later versions may say more behind it.
        let is_whole = version != [0xff] && (version != [0] || parts.next().is_none());
        let is_named = trace != [0; 16] && span != [0; 8];
        (is_whole && is_named).then_some(Self { trace, span }).ok_or(TraceParentError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spans_of_a_frame_are_its_stages_on_the_wall_clock() {
        let times =
            Timestamps { received: 100, decoded: 110, submitted: 115, inferred: 165, emitted: 170 };
        let frame =
            TracedFrame { session: "gate", deployment: "0a1b2c3d4e5f", frame: 7, times: &times };
        let told = spans(&frame, 172, 1_000_172);
        let root = &told[0];
        assert_eq!((root.start_time_unix_nano, root.end_time_unix_nano), (1_000_100, 1_000_172));
        assert!(root.parent_span_id.is_empty() && root.attributes.len() == 3);
        let stages: Vec<(&str, u64)> = told[1..]
            .iter()
            .map(|span| {
                assert_eq!((&span.trace_id, &span.parent_span_id), (&root.trace_id, &root.span_id));
                (span.name.as_str(), span.end_time_unix_nano - span.start_time_unix_nano)
            })
            .collect();
        assert_eq!(
            stages,
            [("decode", 10), ("wait", 5), ("inference", 50), ("pipeline", 5), ("publish", 2)]
        );
        let without = Timestamps { inferred: 115, ..times };
        assert_eq!(spans(&TracedFrame { times: &without, ..frame }, 172, 0).len(), 5);
        // What a worker says may be anything.
        let odd = Timestamps { received: u64::MAX, decoded: 0, ..times };
        for span in spans(&TracedFrame { times: &odd, ..frame }, 172, 1_000_172) {
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        }
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted_and_only_drawn_frames_are_traced() {
        let (queue, mut waiting) = mpsc::channel(2);
        let tracer = Tracer {
            frames: 0.into(),
            deployments: false.into(),
            queue,
            sent: 0.into(),
            dropped: 0.into(),
            errors: 0.into(),
            fault: Mutex::default(),
        };
        let times = Timestamps::default();
        let frame = TracedFrame { session: "gate", deployment: "0a", frame: 7, times: &times };
        tracer.frame(&frame);
        assert!(waiting.try_recv().is_err(), "nothing is traced");
        tracer.frames.store(EVERY, Ordering::Relaxed);
        (0..5).for_each(|_| tracer.frame(&frame));
        assert_eq!((waiting.len(), tracer.dropped.load(Ordering::Relaxed)), (2, 3 * 5));
        for (name, share) in [("0", 0), ("1 %", EVERY / 100), ("all", EVERY)] {
            tracer.frames.store(share, Ordering::Relaxed);
            let begun = ocelli_protocol::clock::thread_cpu_ns();
            for _ in 0..10_000 {
                tracer.frame(&frame);
                while waiting.try_recv().is_ok() {}
            }
            let spent = (ocelli_protocol::clock::thread_cpu_ns() - begun) / 10_000;
            eprintln!("of the frames {name}: {spent} ns of CPU time each");
        }
    }

    #[test]
    fn a_traceparent_is_read_as_its_standard_has_it() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!((parent.trace[0], parent.trace[15], parent.span[7]), (0x0a, 0x9c, 0x31));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert_eq!(later.parse(), Ok(parent));
        for odd in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
            "00-éaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(odd.parse::<TraceParent>(), Err(TraceParentError), "{odd}");
        }
        let context = Context::within(parent);
        assert_eq!((context.trace, context.parent), (parent.trace, Some(parent.span)));
        assert_ne!(context.child().span, context.span);
    }
}
