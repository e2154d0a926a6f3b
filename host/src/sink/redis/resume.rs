//! Where to go on writing a stream, from how far it was written, what Redis has of it, and what the
//! journal has.

use std::collections::HashMap;

use ::redis::{RedisError, RedisResult, Value, from_redis_value};

use crate::journal::events::SequenceRange;

/// What Redis has of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamTail {
    /// First part of the greatest id that the stream ever had: Redis takes no smaller one.
    id: u64,
    /// Number of the event in its newest entry.
    seq: Option<u64>,
}

impl StreamTail {
    /// What Redis says of the stream; none where there is no such key. The inner error concerns this
    /// stream alone.
    pub(super) fn read(
        answer: RedisResult<Value>,
    ) -> RedisResult<Result<Option<Self>, RedisError>> {
        let value = match answer {
            Ok(value) => value,
            Err(error) if error.detail().is_some_and(|words| words.contains("no such key")) => {
                return Ok(Ok(None));
            }
            Err(error) if is_other_type(&error) => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        let mut told: HashMap<String, Value> = from_redis_value(value)?;
        let id: String =
            told.remove("last-generated-id").map(from_redis_value).transpose()?.unwrap_or_default();
        let id = id.split('-').next().and_then(|id| id.parse().ok()).unwrap_or(0);
        let newest = match told.remove("last-entry") {
            None | Some(Value::Nil) => None,
            Some(entry) => {
                Some(from_redis_value::<(String, HashMap<String, ::redis::Value>)>(entry)?.1)
            }
        };
        let number = |field: &str| {
            let value = newest.as_ref()?.get(field)?.clone();
            from_redis_value::<u64>(value).ok()
        };
        Ok(Ok(Some(StreamTail { id, seq: number("seq").or_else(|| number("to")) })))
    }
}

/// Whether the key is not a stream.
pub(super) fn is_other_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// How entries are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryIds {
    /// By the events' numbers.
    Numbers,
    /// By Redis, which has greater ids in the stream than the session has numbers: those of a
    /// journal that is gone.
    Own,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// With the event after this one.
    pub(super) after: u64,
    /// See [`EntryIds`].
    pub(super) ids: EntryIds,
}

/// Where to go on. `cursor` is the last event that was ever written, if any was; `length` is how
/// many a stream keeps.
///
/// Nothing after the cursor is left out. Of what is before it, Redis gets again what it has lost,
/// as far back as its stream reaches and the journal still has it. A stream that was never written
/// begins with what it would keep of it.
pub(super) fn resume(
    top: Option<StreamTail>,
    cursor: Option<u64>,
    span: SequenceRange,
    length: u64,
) -> ResumePoint {
    let ids =
        if top.is_some_and(|top| top.id > span.newest) { EntryIds::Own } else { EntryIds::Numbers };
    let has = match (top, ids) {
        (None, _) => 0,
        (Some(top), EntryIds::Numbers) => top.id,
        // An entry that is named by its own number is of the journal that is gone.
        (Some(top), EntryIds::Own) => {
            top.seq.filter(|seq| *seq <= span.newest && *seq != top.id).or(cursor).unwrap_or(0)
        }
    };
    // What Redis has was written, whether or not the host came to noting it.
    let cursor = cursor.or(top.map(|_| has));
    let kept = span.newest.saturating_sub(length);
    let lost = span.oldest.saturating_sub(1);
    let after = match cursor {
        None => has.max(kept).max(lost),
        Some(cursor) => has.max(cursor.min(kept)).max(cursor.min(lost)),
    };
    ResumePoint { after, ids }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 100;

    fn top(id: u64) -> Option<StreamTail> {
        Some(StreamTail { id, seq: Some(id) })
    }

    fn after(top: Option<StreamTail>, cursor: Option<u64>, oldest: u64, newest: u64) -> u64 {
        let resume = resume(top, cursor, SequenceRange { oldest, newest }, LENGTH);
        assert_eq!(resume.ids, EntryIds::Numbers);
        resume.after
    }

    #[test]
    fn a_redis_that_has_what_was_written_gets_what_follows() {
        assert_eq!(after(top(500), Some(500), 1, 700), 500);
    }

    #[test]
    fn what_redis_has_beyond_the_cursor_is_not_written_again() {
        assert_eq!(after(top(520), Some(500), 1, 700), 520);
        assert_eq!(
            after(top(520), None, 1, 700),
            520,
            "the host was killed before it noted how far it had come"
        );
    }

    #[test]
    fn a_redis_that_lost_events_gets_them_again_as_far_as_a_stream_reaches() {
        assert_eq!(after(top(480), Some(500), 1, 500), 480, "a replica that lagged");
        assert_eq!(after(None, Some(500), 1, 500), 400, "restarted empty");
        assert_eq!(after(None, Some(50), 1, 50), 0);
        assert_eq!(after(None, Some(500), 450, 500), 449, "the journal has no more");
    }

    #[test]
    fn what_was_never_written_is_not_left_out_however_much_it_is() {
        assert_eq!(after(top(500), Some(500), 1, 5000), 500);
        assert_eq!(after(None, Some(500), 1, 5000), 500);
        assert_eq!(after(None, Some(500), 800, 5000), 500, "the gap shows, and is told");
    }

    #[test]
    fn a_new_stream_begins_with_what_it_would_keep() {
        assert_eq!(after(None, None, 1, 50), 0);
        assert_eq!(after(None, None, 1, 500), 400);
        assert_eq!(after(None, None, 450, 500), 449, "no gap: none of it was owed");
    }

    #[test]
    fn a_stream_that_is_ahead_of_the_journal_is_gone_on_with_under_ids_of_redis() {
        let span = SequenceRange { oldest: 1, newest: 20 };
        let old = Some(StreamTail { id: 900, seq: Some(900) });
        assert_eq!(resume(old, None, span, LENGTH), ResumePoint { after: 0, ids: EntryIds::Own });
        let small = Some(StreamTail { id: 30, seq: Some(30) });
        assert_eq!(
            resume(small, Some(12), span, LENGTH),
            ResumePoint { after: 12, ids: EntryIds::Own }
        );
        let own = |seq| Some(StreamTail { id: 1_790_000_000_000, seq: Some(seq) });
        assert_eq!(
            resume(own(15), Some(12), span, LENGTH),
            ResumePoint { after: 15, ids: EntryIds::Own }
        );
        assert_eq!(
            resume(own(8), Some(12), span, LENGTH),
            ResumePoint { after: 8, ids: EntryIds::Own }
        );
    }

    proptest! {
        #[test]
        fn nothing_beyond_the_cursor_is_left_out_unless_redis_has_it(
            id in prop::option::of(0..300_u64),
            cursor in 0..200_u64,
            oldest in 1..250_u64,
            more in 0..100_u64,
        ) {
            let span = SequenceRange { oldest, newest: cursor.max(oldest - 1) + more };
            let resume = resume(id.and_then(top), Some(cursor), span, LENGTH);
            let has = id.filter(|id| *id <= span.newest).unwrap_or(0);
            prop_assert!(resume.after <= cursor.max(has));
            prop_assert!(resume.after <= span.newest);
            // Redis refuses ids up to its top.
            prop_assert!(resume.ids == EntryIds::Own || resume.after >= has);
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn said(id: &str, entry: Value) -> Value {
        let length = Value::Int(1);
        Value::Array(vec![
            text("length"),
            length,
            text("last-generated-id"),
            text(id),
            text("last-entry"),
            entry,
        ])
    }

    #[test]
    fn what_redis_says_of_a_stream_is_understood() {
        let fields = Value::Array(vec![text("seq"), text("41"), text("event"), text("{}")]);
        let entry = Value::Array(vec![text("41-0"), fields]);
        assert_eq!(
            StreamTail::read(Ok(said("41-0", entry))).unwrap().unwrap(),
            Some(StreamTail { id: 41, seq: Some(41) })
        );
        let fields = Value::Array(vec![
            text("kind"),
            text("events_gone"),
            text("from"),
            text("3"),
            text("to"),
            text("9"),
        ]);
        let entry = Value::Array(vec![text("9-1"), fields]);
        assert_eq!(
            StreamTail::read(Ok(said("9-1", entry))).unwrap().unwrap(),
            Some(StreamTail { id: 9, seq: Some(9) })
        );
        assert_eq!(
            StreamTail::read(Ok(said("7-0", Value::Nil))).unwrap().unwrap(),
            Some(StreamTail { id: 7, seq: None })
        );
    }
}
