//! Tests that did not run because this machine lacks something: what they said, and which of them
//! may stay out in CI.
//!
//! A test says so by `ocelli_testkit::skip::skip`, which adds a line to the file that
//! [`FILE_VARIABLE`] names. `tests/skips.toml` lists the tests that CI may go without.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Names the file of the skips: a line for each, the test, a tab, the reason. The kit of the tests
/// knows it by the same name.
pub(crate) const FILE_VARIABLE: &str = "OCELLI_SKIPPED_TESTS";

/// Where the list of allowed skips lies in the checkout.
pub(crate) const LIST: &str = "tests/skips.toml";

/// The list of skips that CI may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    allowed: Vec<Allowed>,
}

/// A test that CI may go without.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    /// `program::test`, as the kit writes it; a `*` at its end stands for whatever follows.
    test: String,
    /// Why CI may go without it.
    reason: String,
}

impl Allowed {
    fn is_for(&self, test: &str) -> bool {
        match self.test.strip_suffix('*') {
            Some(beginning) => test.starts_with(beginning),
            None => test == self.test,
        }
    }
}

/// A test that did not run, and what the machine lacks.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Skip {
    test: String,
    reason: String,
}

/// The skips of one run, each once, by name.
#[derive(Debug)]
pub(crate) struct Report {
    /// With the reason for which CI may go without them.
    allowed: Vec<(Skip, String)>,
    refused: Vec<Skip>,
}

impl Report {
    /// Reads the list of the checkout at `root` and what a run wrote to `file`. No file: no skips.
    ///
    /// # Errors
    ///
    /// If the list is wrong, or a line of the file is none of the kit's.
    pub(crate) fn read(root: &Path, file: &Path) -> Result<Self> {
        let list = root.join(LIST);
        let text = std::fs::read_to_string(&list)
            .with_context(|| format!("cannot read {}", list.display()))?;
        let skipped = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", file.display()))?,
        };
        Self::of(&text, &skipped)
            .with_context(|| format!("{} or {}", list.display(), file.display()))
    }

    fn of(list: &str, skipped: &str) -> Result<Self> {
        let list: List = toml::from_str(list)?;
        // A test may say the same of several things that it lacks, and is tried again where it
        // failed.
        let skips: BTreeSet<Skip> = skipped
            .lines()
            .map(|line| {
                let (test, reason) =
                    line.split_once('\t').with_context(|| format!("no skip: {line:?}"))?;
                Ok(Skip { test: test.to_owned(), reason: reason.to_owned() })
            })
            .collect::<Result<_>>()?;
        let mut report = Self { allowed: Vec::new(), refused: Vec::new() };
        for skip in skips {
            match list.allowed.iter().find(|allowed| allowed.is_for(&skip.test)) {
                Some(allowed) => report.allowed.push((skip, allowed.reason.clone())),
                None => report.refused.push(skip),
            }
        }
        Ok(report)
    }

    /// Whether every skip is on the list.
    pub(crate) fn is_allowed(&self) -> bool {
        self.refused.is_empty()
    }
}

/// A line for each skip, those that the list does not have last; nothing where all tests ran.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.allowed.len() + self.refused.len();
        if count > 0 {
            writeln!(f, "==> tests that did not run, in whole or in part: {count}")?;
        }
        for (Skip { test, reason }, allowed) in &self.allowed {
            writeln!(f, "    {test}: {reason} (allowed: {allowed})")?;
        }
        for Skip { test, reason } in &self.refused {
            writeln!(f, "    {test}: {reason} (not in {LIST}: CI fails)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str = r#"
        [[allowed]]
        test = "ocelli::disk::fills_up"
        reason = "no right to mount"

        [[allowed]]
        test = "confined::landlock_*"
        reason = "an old kernel"
    "#;

    #[test]
    fn what_the_list_has_is_allowed_and_all_else_is_refused_each_once() {
        let skipped = "ocelli::gpu\tno device\nconfined::landlock_files\tno landlock\n\
                       ocelli::disk::fills_up\tmount: refused\nocelli::gpu\tno device\n\
                       ocelli::disk::fills_up_more\tmount: refused\n";
        let report = Report::of(ALLOWED, skipped).unwrap();
        let allowed: Vec<_> =
            report.allowed.iter().map(|(skip, why)| (skip.test.as_str(), why.as_str())).collect();
        assert_eq!(
            allowed,
            [
                ("confined::landlock_files", "an old kernel"),
                ("ocelli::disk::fills_up", "no right to mount")
            ]
        );
        let refused: Vec<_> = report.refused.iter().map(|skip| skip.test.as_str()).collect();
        assert_eq!(refused, ["ocelli::disk::fills_up_more", "ocelli::gpu"]);
        assert!(!report.is_allowed());
        let told = report.to_string();
        assert_eq!(told.lines().count(), 5, "{told}");
        for line in [
            "did not run, in whole or in part: 4",
            "ocelli::gpu: no device (not in tests/skips.toml: CI fails)",
            "confined::landlock_files: no landlock (allowed: an old kernel)",
        ] {
            assert!(told.contains(line), "{told:?} lacks {line:?}");
        }
    }

    #[test]
    fn a_run_without_skips_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        std::fs::write(folder.path().join(LIST), "").unwrap();
        let report = Report::read(folder.path(), &folder.path().join("skipped")).unwrap();
        assert!(report.is_allowed());
        assert_eq!(report.to_string(), "");
    }

    #[test]
    fn a_list_or_a_line_that_is_wrong_is_an_error() {
        assert!(Report::of("[[allowed]]\ntest = \"a\"\n", "").is_err(), "no reason");
        assert!(Report::of("[[alowed]]\ntest = \"a\"\nreason = \"b\"\n", "").is_err());
        assert!(Report::of(ALLOWED, "a line without a reason\n").is_err());
        assert!(Report::of(ALLOWED, "").unwrap().is_allowed());
    }

    #[test]
    fn the_list_of_this_checkout_gives_a_reason_for_each() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let list: List =
            toml::from_str(&std::fs::read_to_string(root.join(LIST)).unwrap()).unwrap();
        assert!(!list.allowed.is_empty());
        assert!(
            list.allowed
                .iter()
                .all(|allowed| allowed.reason.len() > 10 && allowed.test.contains("::"))
        );
    }
}
