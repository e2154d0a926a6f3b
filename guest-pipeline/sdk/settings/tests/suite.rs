//! The official test suite of JSON Schema, draft 2020-12 (tests/suite/README.md).
//!
//! Where the answer is not the suite's, a line of the table has the reason; the counts are exact,
//! so a line that is no longer needed fails too.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::Path;

use ocelli_settings::{Schema, SettingsFault};
use serde_json::Value;

/// Documents within the schema, or beside it: a schema of settings is one document, and what
/// `$dynamicRef` is for needs several.
const ONE_DOCUMENT: &str = "a document of its own is not supported here";
const ELSEWHERE: &str = "not a place in this schema";
/// A schema of schemas that is none of the drafts' own would have to be fetched.
const OTHER_DRAFT: &str = "not draft 2020-12, 2019-09, 7 or 6";
/// Classes of Unicode need large tables, which every worker would have.
const CLASSES: &str = "Unicode character classes are not supported";
/// For the same reason `\s` is white space of ASCII alone: the answer is the wrong one.
const WHITE_SPACE: &str = "";

/// A file, what is said there, and of how many of its tests.
const DIFFERENT: &[(&str, &str, usize)] = &[
    ("anchor", ONE_DOCUMENT, 6),
    ("defs", ELSEWHERE, 2),
    ("dynamicRef", ELSEWHERE, 13),
    ("dynamicRef", ONE_DOCUMENT, 21),
    ("optional/dynamicRef", ONE_DOCUMENT, 2),
    ("optional/ecmascript-regex", CLASSES, 14),
    ("optional/ecmascript-regex", WHITE_SPACE, 8),
    ("optional/id", ONE_DOCUMENT, 3),
    ("optional/unknownKeyword", ONE_DOCUMENT, 3),
    ("ref", ELSEWHERE, 2),
    ("ref", ONE_DOCUMENT, 24),
    ("refRemote", ELSEWHERE, 25),
    ("refRemote", ONE_DOCUMENT, 6),
    ("unevaluatedItems", ONE_DOCUMENT, 2),
    ("unevaluatedProperties", ONE_DOCUMENT, 2),
    ("vocabulary", OTHER_DRAFT, 5),
];

/// All tests of the files that are here.
const TESTS: usize = 1410;

#[test]
fn the_official_tests_of_draft_2020_12_hold_but_for_what_is_refused_by_design() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let (mut tests, mut different) = (0, BTreeMap::<(String, &str), usize>::new());
    for prefix in ["", "optional/"] {
        for file in std::fs::read_dir(folder.join(prefix)).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let name = format!("{prefix}{}", file.file_stem().unwrap().display());
            let groups: Vec<Value> =
                serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            for group in &groups {
                for test in group["tests"].as_array().unwrap() {
                    tests += 1;
                    let (group_name, test_name) = (&group["description"], &test["description"]);
                    let valid = test["valid"].as_bool().unwrap();
                    let answer = answer(&group["schema"], &test["data"]);
                    if let Some(reason) = difference(&name, valid, &answer) {
                        let reason = reason.unwrap_or_else(|| {
                            panic!("{name}: {group_name}, {test_name}: {answer:?}, not {valid}")
                        });
                        *different.entry((name.clone(), reason)).or_default() += 1;
                    }
                }
            }
        }
    }
    let table = DIFFERENT.iter().map(|(name, reason, count)| (((*name).into(), *reason), *count));
    assert_eq!(different, table.collect());
    assert_eq!(tests, TESTS);
}

fn answer(schema: &Value, value: &Value) -> Result<(), SettingsFault> {
    Schema::read(&schema.to_string())?.check_value(value)
}

/// Whether the answer is another than the suite's, and if so, the reason that the table has.
fn difference(
    name: &str,
    valid: bool,
    answer: &Result<(), SettingsFault>,
) -> Option<Option<&'static str>> {
    let said = match answer {
        Err(SettingsFault::Schema(said)) => said.as_str(),
        Err(SettingsFault::Settings(_)) if !valid => return None,
        Ok(()) if valid => return None,
        // A wrong verdict, not a refusal of the schema.
        _ => "",
    };
    let lines = DIFFERENT.iter().filter(|(file, ..)| *file == name).map(|(_, reason, _)| *reason);
    let mut lines = lines.filter(|reason| reason.is_empty() == said.is_empty());
    Some(lines.find(|reason| said.contains(reason)))
}
