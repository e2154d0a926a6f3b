//! Violations, as many as are worth naming, each by its path.

use std::fmt;

use crate::value::{shorten, shown};

/// Violations that are named; there is no end to those of a long list.
const MAX_REPORTED: usize = 20;

/// Longest violation, and longest path in one, in characters.
const MAX_VIOLATION: usize = 800;
const MAX_PATH: usize = 300;

/// Longest name that is written in a path as it is, in bytes.
const MAX_NAME: usize = 60;

/// Takes violations until it has enough.
pub(crate) struct Report {
    found: Vec<String>,
    /// That it still takes. One that is named already counts too, so that whoever looks for further
    /// ones comes to an end.
    left: usize,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { found: Vec::new(), left: MAX_REPORTED + 1 }
    }

    /// Takes one violation.
    pub(crate) fn one() -> Self {
        Self { found: Vec::new(), left: 1 }
    }

    /// Takes none: for a question of yes and no.
    pub(crate) fn none() -> Self {
        Self { found: Vec::new(), left: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn add(&mut self, at: &Path<'_>, violation: impl FnOnce() -> String) {
        if self.left > 0 {
            self.left -= 1;
            let text = shorten(&format!("{at}: {}", violation()), MAX_VIOLATION);
            if !self.found.contains(&text) {
                self.found.push(text);
            }
        }
    }

    pub(crate) fn found(self) -> Vec<String> {
        self.found
    }

    /// All that was found, in one line.
    pub(crate) fn text(mut self) -> String {
        let more = self.found.len() > MAX_REPORTED;
        self.found.truncate(MAX_REPORTED);
        let text = self.found.join("; ");
        if more { text + "; and more" } else { text }
    }
}

/// Where a value stands in the settings.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) parent: Option<&'a Path<'a>>,
    pub(crate) step: Step<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The settings themselves.
    Root,
    Field(&'a str),
    Item(usize),
    /// The name of a field, in place of its value.
    Name(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Self = Self { parent: None, step: Step::Root };

    pub(crate) fn to<'b>(&'b self, step: Step<'b>) -> Path<'b> {
        Path { parent: Some(self), step }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps: Vec<Step<'_>> =
            std::iter::successors(Some(self), |path| path.parent).map(|path| path.step).collect();
        steps.reverse();
        let text: String = steps.into_iter().map(|step| step.text()).collect();
        f.write_str(&shorten(&text, MAX_PATH))
    }
}

impl Step<'_> {
    fn text(self) -> String {
        match self {
            Self::Root => "settings".into(),
            Self::Field(name) => field(name),
            Self::Item(index) => format!("[{index}]"),
            Self::Name(name) => format!("{}'s name", field(name)),
        }
    }
}

fn field(name: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) {
        format!(".{name}")
    } else {
        format!("[{}]", shown(&name.into()))
    }
}
