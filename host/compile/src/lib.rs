//! The check of a component before it is compiled: whether it is one, which version of the contract
//! it is for, who signed it, and everything in which it differs from that contract. The program
//! `ocelli-compile` runs it and then compiles; the worker has none of it.
//!
//! A component that passes is linked by the worker: `contract` holds what the worker's linker
//! has, and `compare` has its rules.

mod compare;
mod component;
mod contract;
mod notation;
mod signature;
#[cfg(test)]
mod tests;
mod types;

use std::time::Instant;

use anyhow::Context;
use ocelli_protocol::component::{CheckReport, MAX_PROBLEMS, Problem, ProblemKind};
use ocelli_protocol::contract::{PACKAGE, SERVED};
use ocelli_protocol::key::TrustedKey;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use component::Names;
use contract::{CONTRACTS, Contract};
use notation::truncate;
use types::TypePool;

/// What a component has to fulfil besides the contract.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// Largest size of the component in bytes.
    pub max_bytes: u64,
    /// Keys of which one has to have signed it; `None`: it may be unsigned.
    pub trusted: Option<Vec<TrustedKey>>,
}

/// Checks a component. `bytes` may end one byte behind the largest size. An error is a fault of
/// this program.
pub fn check(bytes: &[u8], requirements: &Requirements) -> anyhow::Result<CheckReport> {
    let begun = Instant::now();
    let mut report = CheckReport {
        version: None,
        supported: SERVED.map(str::to_owned).into(),
        signed_by: None,
        problems: Vec::new(),
        check_ms: 0,
        compile_ms: None,
    };
    match form(bytes, requirements.max_bytes) {
        Some(problem) => report.problems.push(problem),
        None => {
            if let Some(trusted) = &requirements.trusted {
                match signature::signer(bytes, trusted) {
                    Ok(signer) => report.signed_by = Some(signer),
                    Err(problem) => report.problems.push(problem),
                }
            }
            content(bytes, &mut report)?;
        }
    }
    bound(&mut report.problems);
    report.check_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The report of a component that passed the check and that the compiler refused.
pub fn not_compiled(report: CheckReport, error: &wasmtime::Error) -> CheckReport {
    let message = format!("it cannot be compiled: {error:#}");
    CheckReport { problems: vec![problem(ProblemKind::NotCompiled, one_line(&message))], ..report }
}

/// Checks the form of a file before it is read as a component.
fn form(bytes: &[u8], most: u64) -> Option<Problem> {
    if bytes.len() as u64 > most {
        let most = most >> 20;
        return Some(problem(ProblemKind::TooLarge, format!("it is larger than {most} MiB")));
    }
    let Some(header) = bytes.strip_prefix(b"\0asm") else {
        let seen = match bytes {
            [] => "the file is empty",
            [0x7f, b'E', b'L', b'F', ..] => {
                "it is compiled code: send the component that it was compiled from"
            }
            _ if bytes.trim_ascii_start().starts_with(b"(") => {
                "it is WebAssembly's text form: `wasm-tools parse` makes the binary one of it"
            }
            _ => "it does not begin with \\0asm",
        };
        return Some(problem(ProblemKind::NotWasm, format!("it is not WebAssembly: {seen}")));
    };
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => None,
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Some(problem(
            ProblemKind::CoreModule,
            "it is a core module, not a component: build it for wasm32-wasip2, or make it a \
                component with \
             `wasm-tools component new`"
                .to_owned(),
        )),
        _ => {
            let version = header
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
                .join(" ");
            let text = format!(
                "it is of a form of WebAssembly that this host does not know (version \
                    {version})"
            );
            Some(problem(ProblemKind::Malformed, text))
        }
    }
}

/// What is wrong with a component's content. Which version it is for is looked at first: of a
/// version that is not served nothing else can be said.
fn content(bytes: &[u8], report: &mut CheckReport) -> anyhow::Result<()> {
    let names = component::names(bytes);
    let contract = version(&names, report);
    let mut validator = Validator::new_with_features(features());
    let types = match validator.validate_all(bytes) {
        Ok(types) => types,
        // A component for a newer version may be made of parts of WebAssembly that came with it.
        Err(_)
            if report
                .problems
                .iter()
                .any(|problem| problem.kind == ProblemKind::UnsupportedVersion) =>
        {
            return Ok(());
        }
        Err(error) => {
            report.problems.retain(|problem| problem.kind != ProblemKind::OtherWorld);
            let text = format!("it is malformed: {} (at byte {})", error.message(), error.offset());
            report.problems.push(problem(ProblemKind::Malformed, one_line(&text)));
            return Ok(());
        }
    };
    let Some(contract) = contract else { return Ok(()) };
    let mut pool = TypePool::default();
    let expected =
        contract.world(&mut pool).context("the contract that this program holds is broken")?;
    let found = component::world(types.as_ref(), &names, &mut pool);
    report.problems.extend(compare::compare(&pool, &found, &expected));
    Ok(())
}

/// The contract that a component's imports and exports name.
fn version(names: &Names, report: &mut CheckReport) -> Option<&'static Contract> {
    let all = names.imports.iter().chain(&names.exports);
    let mut versions: Vec<&str> = all.filter_map(|name| named_version(name)).collect();
    versions.sort_unstable();
    versions.dedup();
    let supported = listed(&report.supported);
    let (kind, message) = match versions.as_slice() {
        [] => {
            let exports = match names.exports.as_slice() {
                [] => "nothing".to_owned(),
                exports => exports.join(", "),
            };
            (
                ProblemKind::OtherWorld,
                format!("it is no pipeline: it exports {exports}, and no {PACKAGE}/pipeline"),
            )
        }
        [version] => {
            report.version = Some(truncate((*version).to_owned()));
            if let Some(contract) = CONTRACTS.iter().find(|contract| contract.version == *version) {
                return Some(contract);
            }
            let version = if version.is_empty() { "without a version" } else { version };
            (
                ProblemKind::UnsupportedVersion,
                format!(
                    "it is for {PACKAGE} {version}, and this host serves {supported}{}",
                    advice(version)
                ),
            )
        }
        several => {
            let several = several.join(" and ");
            (
                ProblemKind::UnsupportedVersion,
                format!(
                    "it names several versions of {PACKAGE}: {several}; this host serves \
                        {supported}, one at a time"
                ),
            )
        }
    };
    report.problems.push(problem(kind, one_line(&message)));
    None
}

/// Words in a row: "a, b and c".
fn listed(words: &[String]) -> String {
    match words.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => words.concat(),
    }
}

/// The version in the name of an interface of the contract; empty where it has none.
fn named_version(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').map_or("", |(_, version)| version))
}

/// Advice about a version that is not served.
fn advice(version: &str) -> &'static str {
    let parsed = |version: &str| semver::Version::parse(version).ok();
    let served = || CONTRACTS.iter().filter_map(|contract| parsed(contract.version));
    match parsed(version) {
        Some(version) if served().all(|served| version > served) => ": it needs a newer host",
        Some(version) if served().all(|served| version < served) => {
            ": build it against a newer contract"
        }
        _ => "",
    }
}

/// What of WebAssembly the engine takes: what Wasmtime has by default, without what its crate is
/// built without here (garbage collection and the exceptions that rest on it, threads, and
/// asynchronous components).
fn features() -> WasmFeatures {
    let lacking = WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS | WasmFeatures::THREADS;
    (WasmFeatures::WASM3 | WasmFeatures::COMPONENT_MODEL).difference(lacking)
}

fn problem(kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem { kind, item: None, found: None, expected: None, message: message.into() }
}

/// Without line breaks and the like, and bounded.
fn one_line(text: &str) -> String {
    truncate(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Leaves the first problems, the last of which says how many there are.
fn bound(problems: &mut Vec<Problem>) {
    let found = problems.len();
    if found > MAX_PROBLEMS {
        problems.truncate(MAX_PROBLEMS);
        if let Some(last) = problems.last_mut() {
            last.message.push_str(&format!(" (the report ends here; {found} problems were found)"));
        }
    }
}
