//! What `ocelli-compile` says of a component: one JSON object on its standard output, whatever
//! became of it.
//!
//! It is started with the component and, but for `--check`, the output file as descriptors.
//! Arguments:
//!
//! - `--check`: nothing is compiled, and there is no output file;
//! - `--require-sandbox`: nothing is done where the process cannot be confined;
//! - `--max-bytes N`: size of the component;
//! - `--require-signature`: the component has to be signed by a trusted key;
//! - `--trusted-key KEY`, once for each ([`crate::key::TrustedKey`]).
//!
//! Exit status: 0 where nothing is wrong, 1 where the report names problems. Where it cannot do its
//! work, it prints no report, says why on its standard error, and exits 2.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Problems that a report names. A component with more is built for something else.
pub const MAX_PROBLEMS: usize = 200;

/// Versions that a report names.
const MAX_VERSIONS: usize = 100;

/// Longest text in a report, in bytes: a person reads it, and a component may have a type of a
/// megabyte.
pub const MAX_TEXT: usize = 4 << 10;

/// Longest report, in bytes: each problem has at most four texts.
pub const MAX_REPORT: u64 = 4 << 20;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// The version of `ocelli:pipeline` that the component names, where it could be read: "0.1.0".
    pub version: Option<String>,
    /// The versions that this host serves, oldest first.
    #[serde(deserialize_with = "at_most::<MAX_VERSIONS, _, _>")]
    pub supported: Vec<String>,
    /// The trusted key that signed it, as its SHA-256 fingerprint (`SHA256:...`), where signatures
    /// were asked for.
    pub signed_by: Option<String>,
    /// Everything that is wrong; empty where nothing is.
    #[serde(deserialize_with = "at_most::<MAX_PROBLEMS, _, _>")]
    pub problems: Vec<Problem>,
    /// Milliseconds that the check took.
    pub check_ms: u64,
    /// Milliseconds that compiling took, where it was compiled.
    pub compile_ms: Option<u64>,
}

/// Something that is wrong with a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ComponentProblem")]
pub struct Problem {
    /// For programs.
    pub kind: ProblemKind,
    /// The import or export that it is about: "ocelli:pipeline/frames@0.1.0#[method]frame.luma".
    pub item: Option<String>,
    /// The item's type in the component, in WIT's notation; none where it lacks it.
    pub found: Option<String>,
    /// The item's type in the contract; none where the contract has no such item.
    pub expected: Option<String>,
    /// For a person, one line.
    pub message: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ProblemKind {
    /// Larger than is taken.
    TooLarge,
    /// No WebAssembly at all.
    NotWasm,
    /// A core module: it has to be made a component.
    CoreModule,
    /// Broken, or made of parts of WebAssembly that this host does not serve.
    Malformed,
    /// A component for something else.
    OtherWorld,
    /// A version of the contract that this host does not serve.
    UnsupportedVersion,
    /// An import that this host does not offer.
    UnknownImport,
    /// An import whose type differs from the contract's.
    MismatchedImport,
    /// An export that the contract asks for is not there.
    MissingExport,
    /// An export whose type differs from the contract's.
    MismatchedExport,
    /// Signatures are asked for, and it has none.
    Unsigned,
    /// Its signature is not by a trusted key, or not of these bytes.
    WrongSignature,
    /// The compiler refused it: it is too deep, too large for the memory, or the like.
    NotCompiled,
}

/// A list of at most `MOST` elements: the compiler reads what a stranger wrote, and its report may
/// be the stranger's.
fn at_most<'de, const MOST: usize, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List::<T, MOST>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_more_than_it_may_name_is_refused_where_it_exceeds() {
        let report = |problems: usize, versions: usize| {
            let problem = r#"{"kind":"too_large","message":""}"#;
            format!(
                r#"{{"supported":[{}],"problems":[{}],"check_ms":1}}"#,
                vec!["\"\""; versions].join(","),
                vec![problem; problems].join(",")
            )
        };
        let read = |report: String| serde_json::from_str::<CheckReport>(&report);
        read(report(MAX_PROBLEMS, MAX_VERSIONS)).unwrap();
        for over in [report(MAX_PROBLEMS + 1, 0), report(0, MAX_VERSIONS + 1)] {
            let error = read(over).unwrap_err().to_string();
            assert!(error.contains("at most"), "{error}");
        }
    }
}
