//! What exporters write into an ONNX file beside the graph, above all Ultralytics: `names`, a
//! dictionary in Python's notation, `imgsz`, `task`.

use std::collections::BTreeMap;

use super::manifest::MAX_LABELS;

/// Metadata that exporters write, by its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExportNotes<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> ExportNotes<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(|text| text.trim())
    }

    /// Whether Ultralytics' exporter has written them, of YOLOv5 or later.
    pub(super) fn is_ultralytics(&self) -> bool {
        self.0.contains_key("names") && self.0.contains_key("stride")
    }

    /// Names of the classes by their index. `None` without any, or if they cannot be read.
    pub(super) fn labels(&self) -> Option<Vec<String>> {
        labels(self.text("names")?)
    }

    /// Height and width of the input.
    pub(super) fn size(&self) -> Option<[i64; 2]> {
        let text = self.text("imgsz")?;
        let inner = text.trim_matches(['[', ']', '(', ')']);
        let sides: Option<Vec<i64>> = inner
            .split(',')
            .map(|side| side.trim().parse().ok().filter(|side| *side > 0))
            .collect();
        match *sides? {
            [side] => Some([side, side]),
            [height, width] => Some([height, width]),
            _ => None,
        }
    }

    /// "detect", "classify", "segment", "pose" or "obb".
    pub(super) fn task(&self) -> Option<&'a str> {
        self.text("task")
    }

    /// What the exporter calls the model: "Ultralytics YOLO11n model trained on coco.yaml".
    pub(super) fn description(&self) -> &'a str {
        self.text("description").unwrap_or_default()
    }
}

/// The names of a dictionary from indexes to names, or of a list, in Python's notation or JSON:
/// `{0: 'person', 1: "driver's seat"}`, `["person"]`. `None` where an index is missing.
fn labels(text: &str) -> Option<Vec<String>> {
    let mut rest = Literal(text);
    let keyed = match rest.next()? {
        '{' => true,
        '[' => false,
        _ => return None,
    };
    let end = if keyed { '}' } else { ']' };
    let mut found = BTreeMap::new();
    while rest.peek()? != end {
        let index = if keyed {
            let key = match rest.peek()? {
                '\'' | '"' => rest.string()?,
                _ => rest.digits(),
            };
            rest.expect(':')?;
            key.parse().ok()?
        } else {
            found.len()
        };
        rest.peek()?;
        let name = rest.string()?;
        if found.len() >= MAX_LABELS || found.insert(index, name).is_some() {
            return None;
        }
        if rest.peek()? == ',' {
            rest.next();
        }
    }
    rest.next();
    let whole = rest.0.trim().is_empty() && found.keys().copied().eq(0..found.len());
    (whole && !found.is_empty()).then(|| found.into_values().collect())
}

/// What is still to be read of a literal.
struct Literal<'a>(&'a str);

impl Literal<'_> {
    /// The next character that is no space, which stays.
    fn peek(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.0.chars();
        let next = characters.next();
        self.0 = characters.as_str();
        next
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.peek().filter(|next| *next == wanted)?;
        self.next().map(drop)
    }

    fn digits(&mut self) -> String {
        let end = self.0.find(|character: char| !character.is_ascii_digit());
        let (digits, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        digits.to_owned()
    }

    /// A text in quotes of either kind.
    fn string(&mut self) -> Option<String> {
        let quote = self.next().filter(|quote| ['\'', '"'].contains(quote))?;
        let mut text = String::new();
        loop {
            text.push(match self.next()? {
                end if end == quote => return Some(text),
                '\\' => match self.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'x' => self.code(2)?,
                    'u' => self.code(4)?,
                    'U' => self.code(8)?,
                    other => other,
                },
                other => other,
            });
        }
    }

    /// A character by its number, in so many hexadecimal digits.
    fn code(&mut self, digits: usize) -> Option<char> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        char::from_u32(u32::from_str_radix(number, 16).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_pythons_notation_and_in_json() {
        for (text, expected) in [
            ("{0: 'person', 1: 'traffic light'}", Some(vec!["person", "traffic light"])),
            (r#"{0: "driver's seat", 1: 'a\'b\\c', 2: '\xe9\u00e9'}"#, {
                Some(vec!["driver's seat", r"a'b\c", "éé"])
            }),
            (r#"{"1": "b", "0": "a"}"#, Some(vec!["a", "b"])),
            ("['a', 'b',]", Some(vec!["a", "b"])),
            ("{0: 'a', 2: 'c'}", None),
            ("{0: 'a', 0: 'b'}", None),
            ("{0: 'a'", None),
            ("{0: 'a'} more", None),
            ("{0: a}", None),
            ("{'a': 0}", None),
            ("{}", None),
            ("", None),
            ("[['a']]", None),
            (r"{0: '\u12'}", None),
        ] {
            let expected = expected.map(|names| names.into_iter().map(String::from).collect());
            assert_eq!(labels(text), expected, "{text}");
        }
    }

    #[test]
    fn a_size_is_height_and_width() {
        for (text, expected) in [
            ("[640, 480]", Some([640, 480])),
            ("(320,)", None),
            ("640", Some([640, 640])),
            ("[0, 640]", None),
            ("[1, 2, 3]", None),
            ("large", None),
        ] {
            let notes = BTreeMap::from([("imgsz".to_owned(), text.to_owned())]);
            assert_eq!(ExportNotes(&notes).size(), expected, "{text}");
        }
    }
}
