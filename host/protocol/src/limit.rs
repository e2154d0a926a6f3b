//! The limits on a component by name, as errors, counters and metrics call them, and bounds that
//! the host and a worker share.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::VariantArray;

/// Most detections of a frame, or of one event. More come from a faulty pipeline, not from a
/// camera.
pub const MAX_DETECTIONS: usize = 1000;

/// Most bytes of the texts, embeddings and attachments of one frame's output: with the rest of it,
/// a result stays below [`MAX_MESSAGE`](crate::wire::MAX_MESSAGE).
pub const MAX_OUTPUT_BYTES: usize = 2 << 20;

/// Bytes that an attribute counts for besides its texts: its size in memory. Without it two million
/// attributes with empty texts would count for nothing.
pub const ATTRIBUTE_BYTES: usize = 64;

/// Longest key of a session's `wasi:keyvalue` store, in bytes.
pub const MAX_STORE_KEY: usize = 256;

/// Longest name of a bucket of that store, in bytes.
pub const MAX_STORE_BUCKET: usize = 64;

/// Most buckets of that store: they are the few kinds of things that a pipeline stores, its keys
/// are the many of each.
pub const MAX_STORE_BUCKETS: usize = 16;

/// Longest log line in bytes; the worker cuts off the rest. A wasm backtrace of 50 frames stays
/// below it.
pub const MAX_LINE: usize = 8 << 10;

/// Longest text of an error that a worker reports, in bytes: a wasm backtrace and the last words
/// before it.
pub const MAX_CAUSE: usize = 16 << 10;

/// Longest description of a pipeline, in bytes: twice the longest schema of settings that is read.
pub const MAX_DESCRIPTION: usize = 512 << 10;

/// At most [`MAX_LINE`] bytes of a text, up to a character boundary. For texts that a component has
/// a part in.
pub fn truncate_line(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_LINE)).unwrap_or(text)
}

/// A limit that a component can run into.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    /// Linear memories of the component together, or private memory of its process.
    Memory,
    /// Elements of its tables together.
    Tables,
    /// Handles that it holds at a time.
    Handles,
    /// A tensor larger than the session's shared memory, or of a size that is none.
    Tensor,
    /// CPU time of one call.
    CpuTime,
    /// Time of one call by the clock.
    CallTime,
    /// Time of one host import by the clock.
    HostCall,
    /// Native or wasm stack.
    Stack,
    /// Detections of one frame.
    Detections,
    /// Events of one frame.
    Events,
    /// Bytes of one event.
    EventBytes,
    /// Attachments of one frame.
    Attachments,
    /// Bytes of all that is returned for one frame.
    OutputBytes,
    /// Log lines in a second.
    LogLines,
}

impl Limit {
    /// All of them, in the order of their counters.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in errors, in `GET /v1/sessions` and in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// JSON has a limit's name; the messages between processes have its number.
impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.iter().map(|limit| limit.name()).collect::<Vec<_>>()})
    }
}

/// How often each limit was run into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCounts([u64; Limit::ALL.len()]);

impl LimitCounts {
    /// Adds to a limit's count.
    pub fn add(&mut self, limit: Limit, count: u64) {
        if let Some(counter) = self.0.get_mut(limit as usize) {
            *counter = counter.saturating_add(count);
        }
    }

    /// How often the component ran into this limit.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0.get(limit as usize).copied().unwrap_or(0)
    }

    /// The limits that were run into, with their counts.
    pub fn hit(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.iter().copied().zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// The sum of both counts, limit by limit.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        other.hit().for_each(|(limit, count)| self.add(limit, count));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let line = "é".repeat(MAX_LINE);
        assert_eq!(truncate_line(&line).len(), MAX_LINE);
        assert_eq!(truncate_line("short"), "short");
    }

    #[test]
    fn each_limit_has_a_counter_and_a_name_of_its_own() {
        let mut counts = LimitCounts::default();
        for (index, limit) in Limit::ALL.iter().copied().enumerate() {
            assert_eq!(limit as usize, index);
            counts.add(limit, index as u64);
        }
        let hit: Vec<_> = counts.plus(counts).hit().collect();
        assert_eq!(hit.len(), Limit::ALL.len() - 1, "the first was counted 0 times");
        assert!(hit.iter().all(|(limit, count)| *count == 2 * *limit as u64));
        let names = [
            "memory",
            "tables",
            "handles",
            "tensor",
            "cpu_time",
            "call_time",
            "host_call",
            "stack",
            "detections",
            "events",
            "event_bytes",
            "attachments",
            "output_bytes",
            "log_lines",
        ];
        assert!(Limit::ALL.iter().map(|limit| limit.name()).eq(names));
        assert_eq!(Limit::CpuTime.to_string(), "cpu_time");
    }
}
