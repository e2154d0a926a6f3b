//! The trace of a deployment: a span for all of it, and one for each step.

use std::collections::BTreeMap;

use ocelli_protocol::clock::wall_ns;
use parking_lot::Mutex;

use super::wire::{KeyValue, Span};
use super::{Context, TRACER, TraceParent, failure};

/// Deployments under way that are traced: one for each session, and more than a host has.
const MAX_OPEN: usize = 1024;

/// The step before compiling, which often holds it.
const CHECK: &str = "check";

const COMPILE: &str = "compile";

/// Those under way, by session and number.
static OPEN: Mutex<BTreeMap<(String, u64), OpenDeployment>> = Mutex::new(BTreeMap::new());

/// How a deployment stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeploymentNote<'a> {
    pub(crate) session: &'a str,
    /// Counts the session's deployments.
    pub(crate) number: u64,
    /// The component's digest, shortened.
    pub(crate) deployment: &'a str,
    pub(crate) pipeline: &'a str,
    pub(crate) cause: &'a str,
    /// The step under way.
    pub(crate) step: &'a str,
    /// Milliseconds that compiling took, once it is known: often it is no step of its own.
    pub(crate) compile_ms: Option<u64>,
    /// Where it belongs, if whoever asked for it has said so.
    pub(crate) parent: Option<TraceParent>,
    /// What became of it, and whether that is a failure; none while it is under way.
    pub(crate) outcome: Option<(&'a str, bool)>,
    pub(crate) reason: Option<&'a str>,
}

struct OpenDeployment {
    context: Context,
    begun: u64,
    step: String,
    step_begun: u64,
    spans: Vec<Span>,
}

impl OpenDeployment {
    fn new(note: &DeploymentNote<'_>, now: u64) -> Self {
        Self {
            context: note.parent.map_or_else(Context::root, Context::within),
            begun: now,
            step: note.step.to_owned(),
            step_begun: now,
            spans: Vec::new(),
        }
    }

    /// Ends the step under way where another one follows, or nothing.
    fn take_in(&mut self, note: &DeploymentNote<'_>, now: u64) {
        if self.step == note.step && note.outcome.is_none() {
            return;
        }
        let mut begun = self.step_begun;
        if self.step == CHECK
            && note.step != COMPILE
            && let Some(ms) = note.compile_ms
        {
            let until = now.saturating_sub(ms.saturating_mul(1_000_000)).max(begun);
            self.spans.push(self.context.child().span(CHECK, begun, until, Vec::new()));
            (self.step, begun) = (COMPILE.to_owned(), until);
        }
        self.spans.push(self.context.child().span(&self.step, begun, now, Vec::new()));
        (self.step, self.step_begun) = (note.step.to_owned(), now);
    }

    /// All spans, with that of the whole.
    fn ended(mut self, note: &DeploymentNote<'_>, outcome: (&str, bool), now: u64) -> Vec<Span> {
        let attributes = vec![
            KeyValue::text("ocelli.session", note.session),
            KeyValue::number("ocelli.deployment.number", note.number),
            KeyValue::text("ocelli.deployment", note.deployment),
            KeyValue::text("ocelli.pipeline", note.pipeline),
            KeyValue::text("ocelli.cause", note.cause),
            KeyValue::text("ocelli.outcome", outcome.0),
        ];
        let mut whole = self.context.span("deployment", self.begun, now, attributes);
        whole.status = outcome.1.then(|| failure(note.reason.unwrap_or_default()));
        self.spans.insert(0, whole);
        self.spans
    }
}

/// Notes how a deployment stands: called before each step, and at its end.
pub(crate) fn deployment(note: &DeploymentNote<'_>) {
    let Some(tracer) = TRACER.get() else { return };
    let key = (note.session.to_owned(), note.number);
    let mut open = OPEN.lock();
    if !tracer.deployments.load(std::sync::atomic::Ordering::Relaxed) {
        open.clear();
        return;
    }
    let now = wall_ns();
    // One that began before this was turned on is traced from here.
    let mut traced = match open.remove(&key) {
        Some(traced) => traced,
        // A host before this one has begun it.
        None if note.outcome.is_some() || open.len() >= MAX_OPEN => return,
        None => OpenDeployment::new(note, now),
    };
    traced.take_in(note, now);
    match note.outcome {
        Some(outcome) => {
            drop(open);
            tracer.send(traced.ended(note, outcome, now));
        }
        None => drop(open.insert(key, traced)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_has_a_span_for_each_step_and_says_why_it_failed() {
        let note = DeploymentNote {
            session: "gate",
            number: 3,
            deployment: "0a1b2c3d4e5f",
            pipeline: "eye",
            cause: "request",
            step: "check",
            compile_ms: None,
            parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok(),
            outcome: None,
            reason: None,
        };
        let mut open = OpenDeployment::new(&note, 10);
        open.take_in(&note, 11);
        let compiled = DeploymentNote { step: "start", compile_ms: Some(3), ..note };
        open.take_in(&compiled, 5_000_000);
        let last = DeploymentNote {
            step: "start",
            outcome: Some(("aborted", true)),
            reason: Some("no memory"),
            ..note
        };
        open.take_in(&last, 9_000_000);
        let spans = open.ended(&last, ("aborted", true), 9_000_000);
        let told: Vec<_> = spans
            .iter()
            .map(|span| (span.name.as_str(), span.start_time_unix_nano, span.end_time_unix_nano))
            .collect();
        assert_eq!(
            told,
            [
                ("deployment", 10, 9_000_000),
                ("check", 10, 2_000_000),
                ("compile", 2_000_000, 5_000_000),
                ("start", 5_000_000, 9_000_000),
            ]
        );
        let whole = &spans[0];
        assert_eq!(whole.parent_span_id.last(), Some(&0x31));
        assert_eq!(whole.status.as_ref().unwrap().message, "no memory");
        assert!(spans[1..].iter().all(|span| span.parent_span_id == whole.span_id));
        assert!(spans.iter().all(|span| span.trace_id[0] == 0x0a));
    }
}
