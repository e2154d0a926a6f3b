//! The events that a test expects.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::TestVerdict;
use crate::playback::{EventLine, FrameLine};

/// Events of one kind, and how many there are to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedEvents {
    kind: String,
    /// Members that their data has, with these values; it may have others.
    #[serde(default)]
    data: Map<String, Value>,
    /// The first and the last frame that count. Left out: all.
    frames: Option<[u64; 2]>,
    /// How many: exactly. Left out, with the other two: one or more.
    count: Option<u64>,
    at_least: Option<u64>,
    at_most: Option<u64>,
}

impl ExpectedEvents {
    /// Whether an event of a frame counts.
    fn counts(&self, frame: u64, event: &EventLine) -> bool {
        let within = self.frames.is_none_or(|[first, last]| (first..=last).contains(&frame));
        let data = event.data();
        within
            && event.kind == self.kind
            && self.data.iter().all(|(key, value)| data.get(key) == Some(value))
    }

    /// The least and the most of them.
    fn bounds(&self) -> (u64, u64) {
        match (self.count, self.at_least, self.at_most) {
            (Some(count), _, _) => (count, count),
            (None, None, None) => (1, u64::MAX),
            (None, least, most) => (least.unwrap_or(0), most.unwrap_or(u64::MAX)),
        }
    }

    /// What is wrong with what was found.
    fn fault(&self, lines: &[FrameLine]) -> Option<String> {
        let of_line = |line: &FrameLine| {
            line.events.iter().filter(|event| self.counts(line.frame, event)).count() as u64
        };
        let found: u64 = lines.iter().map(of_line).sum();
        let (least, most) = self.bounds();
        let wanted = match (least, most) {
            _ if (least..=most).contains(&found) => return None,
            (least, most) if least == most => least.to_string(),
            (least, u64::MAX) => format!("{least} or more"),
            (least, most) => format!("{least} to {most}"),
        };
        let data = match self.data.is_empty() {
            true => String::new(),
            false => format!(" with {}", Value::Object(self.data.clone())),
        };
        let frames = self.frames.map(|[first, last]| format!(" in the frames {first} to {last}"));
        let frames = frames.unwrap_or_default();
        Some(format!("{}{data}{frames}: {wanted} expected, {found} found", self.kind))
    }
}

/// Whether the events are as expected.
pub(super) fn judge(expected: &[ExpectedEvents], lines: &[FrameLine]) -> TestVerdict {
    let faults: Vec<String> = expected.iter().filter_map(|one| one.fault(lines)).collect();
    match faults.is_empty() {
        true => TestVerdict::Good(format!("{} as expected", expected.len())),
        false => TestVerdict::Bad(faults.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<FrameLine> {
        let event =
            |gate: &str| EventLine::example("entered", &format!(r#"{{"zone":"{gate}","n":1}}"#));
        (0..4)
            .map(|frame| FrameLine {
                events: if frame == 3 { vec![] } else { vec![event("a"), event("b")] },
                ..FrameLine::example(frame)
            })
            .collect()
    }

    fn expects(text: &str) -> TestVerdict {
        judge(&[toml::from_str(text).unwrap()], &lines())
    }

    #[test]
    fn events_count_by_kind_data_and_frames() {
        for good in [
            "kind = \"entered\"",
            "kind = \"entered\"\ncount = 6",
            "kind = \"entered\"\ncount = 3\ndata = { zone = \"a\" }",
            "kind = \"entered\"\ncount = 4\nframes = [1, 3]",
            "kind = \"left\"\ncount = 0",
            "kind = \"entered\"\nat_least = 5\nat_most = 6",
        ] {
            assert!(matches!(expects(good), TestVerdict::Good(_)), "{good}");
        }
        for (bad, said) in [
            ("kind = \"left\"", "left: 1 or more expected, 0 found"),
            ("kind = \"entered\"\ncount = 5", "entered: 5 expected, 6 found"),
            ("kind = \"entered\"\nat_most = 5", "entered: 0 to 5 expected, 6 found"),
            (
                "kind = \"entered\"\ncount = 1\nframes = [3, 9]\ndata = { n = 2 }",
                "entered with {\"n\":2} in the frames 3 to 9: 1 expected, 0 found",
            ),
        ] {
            assert_eq!(expects(bad), TestVerdict::Bad(said.to_owned()));
        }
        assert!(toml::from_str::<ExpectedEvents>("kind = \"a\"\ncoutn = 1").is_err());
    }
}
