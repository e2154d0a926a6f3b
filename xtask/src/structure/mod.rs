//! Rules about the source that neither the compiler nor clippy holds. `./x lint` and the tests
//! check them.
//!
//! - The top-level modules of the host are layers: each uses only those below it ([`LAYERS`]).
//! - A type name means one thing in a crate, unless [`SHARED_NAMES`] gives a reason.
//! - The host's modules open no file by path ([`BY_PATH`] has those that may): they go through
//!   `util::folder`.
//! - Between modules of the host's crates an error is a type, not a `String`, unless
//!   [`TEXT_ERRORS`] gives a reason.

mod source;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use source::{Mention, Source};

/// The crate whose top-level modules are layers.
const LAYERED: &str = "ocelli";

/// Its top-level modules from the bottom up.
const LAYERS: &[&str] = &[
    "util",
    "shape",
    "discover",
    "config",
    "import",
    "telemetry",
    "journal",
    "event",
    "cluster",
    "source",
    "inference",
    "registry",
    "redis",
    "worker",
    "probe",
    "session",
    "deploy",
    "playback",
    "analyze",
    "sink",
    "monitor",
    "fleet",
    "api",
    "preflight",
    "reload",
    "serve",
    "cli",
    "fuzzing",
];

/// A crate, a name in it, and why the rule does not hold there.
type Exception = (&'static str, &'static str, &'static str);

/// Names that several types of one crate have.
const SHARED_NAMES: &[Exception] = &[
    ("ocelli-sdk", "Detector", "one in the module of each model, which a pipeline names it by"),
    ("ocelli-sdk", "Handle", "two bodies of one type: in a component and in a test"),
    ("ocelli-sdk", "Native", "two bodies of one type: with SIMD and without"),
    ("ocelli-sdk", "Runner", "two bodies of one type: in a component and in a test"),
];

/// Functions that give other modules a `String` as an error.
const TEXT_ERRORS: &[Exception] = &[
    ("ocelli-worker", "best", TO_PIPELINE),
    ("ocelli-worker", "command", BY_PIPELINE),
    ("ocelli-worker", "init", BY_PIPELINE),
    ("ocelli-worker", "of", TO_PIPELINE),
    ("ocelli-worker", "process", BY_PIPELINE),
    ("ocelli-worker", "query", BY_PIPELINE),
    ("ocelli-worker", "request", TO_PIPELINE),
    ("ocelli-worker", "restore", BY_PIPELINE),
    ("ocelli-worker", "rows", TO_PIPELINE),
    ("ocelli-worker", "suppress", TO_PIPELINE),
];

/// Modules of the host that open files by path, and why. All others reach them by name through an
/// open folder, out of which no name leads.
const BY_PATH: &[Exception] = &[
    (LAYERED, "cli", OPERATORS),
    (LAYERED, "config", OPERATORS),
    (LAYERED, "deploy::admission", KERNELS),
    (LAYERED, "discover", KERNELS),
    (LAYERED, "inference::catalog::model_catalog", STAMPS),
    (LAYERED, "journal::events::age_clock", KERNELS),
    (LAYERED, "source::ingest::process", KERNELS),
    (LAYERED, "util::folder", "the one place where folders are opened"),
    (LAYERED, "util::watch", STAMPS),
    (LAYERED, "worker::cgroup", KERNELS),
];

const OPERATORS: &str = "the operator names the file, on the command line or as the config";
const KERNELS: &str = "files of the kernel: /proc, /dev/null, control groups";
const STAMPS: &str = "asks for times and sizes, through links that an operator may exchange";

const TO_PIPELINE: &str = "a pipeline gets the error as the contract has it: `result<_, string>`";
const BY_PIPELINE: &str = "the error is the pipeline's own, `result<_, string>` in the contract";

/// An error that lists every breach with its file and line.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut breaches = Vec::new();
    let mut shared_names = Found::new();
    let mut text_errors = Found::new();
    let mut by_path = Found::new();
    let host = workspace.root().join("host");
    for (package, root) in workspace.roots() {
        let source = Source::of_crate(root)?;
        if package == LAYERED && root.ends_with("lib.rs") {
            breaches.extend(against_layers(&source, LAYERS));
            let by_module = source.by_path.into_iter().map(in_excepted_module).collect();
            collect(&mut by_path, package, by_module, 1);
        }
        if root.starts_with(&host) {
            collect(&mut text_errors, package, source.text_errors, 1);
        }
        collect(&mut shared_names, package, source.types, 2);
    }
    breaches.extend(against_exceptions(
        &shared_names,
        SHARED_NAMES,
        "another type of this crate has this name",
    ));
    breaches.extend(against_exceptions(
        &text_errors,
        TEXT_ERRORS,
        "callers elsewhere get a `String` as an error",
    ));
    breaches.extend(against_exceptions(
        &by_path,
        BY_PATH,
        "opens files by path; go through `util::folder`",
    ));
    let root = format!("{}/", workspace.root().display());
    let list: String =
        breaches.iter().map(|breach| format!("\n  {}", breach.replace(&root, ""))).collect();
    ensure!(breaches.is_empty(), "rules of xtask/src/structure are broken:{list}");
    Ok(())
}

/// The same under the name of the exception that covers its module, if one does.
fn in_excepted_module(mention: Mention) -> Mention {
    let covers = |module: &str| {
        let rest = mention.name.strip_prefix(module);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    match BY_PATH.iter().find(|(_, module, _)| covers(module)) {
        Some((_, module, _)) => Mention { name: (*module).to_owned(), ..mention },
        None => mention,
    }
}

/// Places by crate and name.
type Found = BTreeMap<(String, String), Vec<Mention>>;

/// Adds the names that are mentioned at least so often in one crate.
fn collect(found: &mut Found, package: &str, mentions: Vec<Mention>, at_least: usize) {
    let mut names = BTreeMap::<String, Vec<Mention>>::new();
    for mention in mentions {
        names.entry(mention.name.clone()).or_default().push(mention);
    }
    for (name, mut mentions) in names {
        if mentions.len() >= at_least {
            found.entry((package.to_owned(), name)).or_default().append(&mut mentions);
        }
    }
}

/// What is found and not excepted, and exceptions that nothing needs any more.
fn against_exceptions(found: &Found, exceptions: &[Exception], rule: &str) -> Vec<String> {
    let excepts = |package: &str, name: &str| {
        exceptions.iter().any(|(of, excepted, _)| (*of, *excepted) == (package, name))
    };
    let broken = found.iter().filter(|((package, name), _)| !excepts(package, name));
    let broken = broken
        .flat_map(|(_, mentions)| mentions)
        .map(|Mention { name, file, line }| format!("{}:{line}: `{name}`: {rule}", file.display()));
    let needed =
        |(package, name, _): &&Exception| found.contains_key(&((*package).into(), (*name).into()));
    let stale = exceptions.iter().filter(|exception| !needed(exception));
    let stale = stale
        .map(|(package, name, _)| format!("the exception for `{name}` in {package} is not needed"));
    broken.chain(stale).collect()
}

/// Imports that do not point down, and modules that the table lacks.
fn against_layers(source: &Source, layers: &[&str]) -> Vec<String> {
    let level = |module: &str| layers.iter().position(|layer| *layer == module);
    let missing = source.modules.iter().filter(|module| level(&module.name).is_none());
    let missing = missing.map(|Mention { name, file, line }| {
        format!("{}:{line}: module `{name}` has no place among the layers", file.display())
    });
    let up = source.imports.iter().filter(|import| level(&import.to.name) >= level(&import.from));
    let up = up.map(|import| {
        let Mention { name, file, line } = &import.to;
        format!(
            "{}:{line}: `{}` uses `{name}`, which is a layer above it",
            file.display(),
            import.from
        )
    });
    missing.chain(up).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn source(modules: &[&str], text: &str) -> Source {
        let mut source = Source::default();
        let modules: Vec<String> = modules.iter().map(|name| (*name).to_owned()).collect();
        source.read(text, Path::new("a.rs"), &modules).unwrap();
        source
    }

    #[test]
    fn an_import_of_a_layer_above_is_found_wherever_it_stands() {
        let text = "use crate::{low::A, high::B};
            use super::super::high;
            use super::inner::high::C;
            mod deeper { fn f() { super::super::super::high::g(); } }
            fn f(_: crate::low::A) { log!(\"{}\", [crate::high::LIMIT]); }
            #[cfg(test)]
            use crate::high::ForTests;
            #[cfg(test)]
            mod tests { use crate::high::ForTests; }";
        let found = against_layers(&source(&["middle", "inner"], text), &["low", "middle", "high"]);
        let lines: Vec<&str> = found.iter().filter_map(|breach| breach.split(':').nth(1)).collect();
        assert_eq!(lines, ["1", "2", "4", "5"], "{found:?}");
        assert_eq!(found[0], "a.rs:1: `middle` uses `high`, which is a layer above it");
    }

    #[test]
    fn a_module_without_a_layer_is_named() {
        let found = against_layers(&source(&[], "mod low; mod new;"), &["low"]);
        assert_eq!(found, ["a.rs:1: module `new` has no place among the layers"]);
    }

    #[test]
    fn a_name_of_two_types_is_found_unless_it_has_a_reason() {
        let text =
            "struct Entry; mod inner { enum Entry {} } struct Other; fn f() { struct Other; }
            impl Iterator for Other { type Item = Other; }
            #[cfg(all(test, unix))] struct Other;";
        let mut found = Found::new();
        collect(&mut found, "crate", source(&[], text).types, 2);
        assert_eq!(against_exceptions(&found, &[], "twice").len(), 2);
        assert!(against_exceptions(&found, &[("crate", "Entry", "a reason")], "twice").is_empty());
        let stale = against_exceptions(&Found::new(), &[("crate", "Entry", "a reason")], "twice");
        assert_eq!(stale, ["the exception for `Entry` in crate is not needed"]);
    }

    #[test]
    fn texts_as_errors_are_found_where_other_modules_meet_them() {
        let text = "pub(crate) fn a() -> Result<(), String> {}
            fn private() -> Result<(), String> {}
            trait T { async fn b() -> Option<Result<u8, String>>; }
            impl FromStr for S { type Err = String; }
            impl S { pub fn c() -> Result<String, Error> {} pub fn d() -> anyhow::Result<String> \
            {} }";
        let names: Vec<String> =
            source(&[], text).text_errors.into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a", "b", "Err"]);
    }

    #[test]
    fn a_file_that_is_opened_by_path_is_found_however_it_is_written() {
        let text = "use std::fs::File;
            use std::fs;
            fn a() { std::fs::read(p); fs::write(p, b); tokio::fs::remove_file(p); }
            fn b() { File::open(p); File::options(); OpenOptions::new(); log!(std::fs::read(p)); }
            fn c(file: &File, folder: &Folder) { file.sync_all(); folder.read(name); }
            use rustix::fs::openat; fn d() { rustix::fs::fstat(f); cap_std::fs::Dir::x(); }
            #[cfg(test)] mod tests { fn e() { std::fs::read(p); } }";
        let lines: Vec<usize> =
            source(&["a", "b"], text).by_path.into_iter().map(|found| found.line).collect();
        assert_eq!(lines, [2, 3, 3, 3, 4, 4, 4, 4]);
        let mention = Mention { name: "cli::models".into(), file: "a".into(), line: 1 };
        assert_eq!(in_excepted_module(mention.clone()).name, "cli");
        let mention = Mention { name: "client".into(), ..mention };
        assert_eq!(in_excepted_module(mention).name, "client");
    }

    #[test]
    fn this_checkout_keeps_the_rules() {
        check(&Workspace::find().unwrap()).unwrap();
    }
}
