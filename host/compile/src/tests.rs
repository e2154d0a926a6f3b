//! Components that are right, and every way in which one is wrong. The components are made here,
//! from the contract's own text with changes in it.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use ed25519_compact::{KeyPair, Seed};
use ocelli_protocol::component::{CheckReport, Problem, ProblemKind};
use ocelli_protocol::contract::SERVED;
use ocelli_protocol::digest::Digest;
use ocelli_protocol::key::TrustedKey;
use ocelli_protocol::process::compile as descriptor;
use ocelli_testkit::depth::rounds;
use ocelli_testkit::{Random, program};
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

use crate::contract::{CONTRACTS, Contract, WASI_PACKAGES, push};
use crate::{Requirements, check};
use ocelli_worker::engine;
use ocelli_worker::guest::versions::LinkedComponent;

/// The world `tested` of a text, in a resolve that has a contract whose files an edit has gone
/// over.
fn component(contract: &Contract, edit: impl Fn(&str) -> String, world: &str) -> Vec<u8> {
    let mut resolve = contract.resolve_edited(&edit).unwrap().0;
    let text = format!("package ocelli:tests;\nworld tested {{\n{world}\n}}\n");
    let package = push(&mut resolve, &[("tests.wit", &text)]).unwrap();
    let world = resolve.select_world(&[package], Some("tested")).unwrap();
    encode(&resolve, world)
}

fn encode(resolve: &Resolve, world: wit_parser::WorldId) -> Vec<u8> {
    let mut module =
        dummy_module(resolve, world, ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync));
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

fn unchanged(text: &str) -> String {
    text.to_owned()
}

fn include(version: &str) -> String {
    format!("include ocelli:pipeline/camera-pipeline@{version};")
}

/// A component for a version's world, without more.
fn good(contract: &Contract) -> Vec<u8> {
    component(contract, unchanged, &include(contract.version))
}

/// One that imports everything that there is besides.
fn greedy(contract: &Contract) -> Vec<u8> {
    let (resolve, _) = contract.resolve().unwrap();
    let mut world = include(contract.version);
    for (id, interface) in resolve.interfaces.iter() {
        let package = &resolve.packages[interface.package.unwrap()].name;
        if package.namespace == "wasi" && WASI_PACKAGES.contains(&&*package.name) {
            world += &format!("\nimport {};", resolve.id_of(id).unwrap());
        }
    }
    component(contract, unchanged, &world)
}

const ANY: Requirements = Requirements { max_bytes: 128 << 20, trusted: None };

fn problems(bytes: &[u8]) -> Vec<Problem> {
    check(bytes, &ANY).unwrap().problems
}

/// The one problem of a component.
fn only(bytes: &[u8]) -> Problem {
    let mut problems = problems(bytes);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn the_contracts_that_are_checked_are_those_that_the_worker_serves_and_all_of_their_files() {
    let versions: Vec<_> = CONTRACTS.iter().map(|contract| contract.version).collect();
    assert_eq!(versions, SERVED);
    for contract in &CONTRACTS {
        let folder = contract.version.strip_suffix(".0").unwrap();
        let embedded: Vec<&str> = contract.paths().collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut open = vec![root.join(folder)];
        while let Some(place) = open.pop() {
            for entry in std::fs::read_dir(place).unwrap().map(Result::unwrap) {
                let path = entry.path();
                match path.is_dir() {
                    true => open.push(path),
                    false => {
                        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                        assert!(embedded.contains(&name), "{name} is not embedded");
                    }
                }
            }
        }
    }
}

#[test]
fn a_component_that_uses_all_that_a_version_offers_passes_and_is_linked_by_the_worker() {
    for contract in &CONTRACTS {
        for bytes in [good(contract), greedy(contract)] {
            let report = check(&bytes, &ANY).unwrap();
            assert_eq!(
                (report.problems, report.version.as_deref()),
                (vec![], Some(contract.version))
            );
            link(&bytes);
        }
    }
}

#[test]
fn wasi_of_an_older_patch_version_passes_and_is_linked_and_what_a_newer_one_adds_is_named() {
    let world = "import wasi:io/poll@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;";
    let older = |text: &str| text.replace("0.2.12", "0.2.0");
    let bytes = component(&CONTRACTS[0], older, &format!("{} {world}", include("0.1.0")));
    assert_eq!(problems(&bytes), []);
    link(&bytes);

    let newer = |text: &str| {
        text.replace("now: func()", "later: func() -> u64; now: func()").replace("0.2.12", "0.2.99")
    };
    let world = format!("{} import wasi:clocks/monotonic-clock@0.2.99;", include("0.1.0"));
    let problem = only(&component(&CONTRACTS[0], newer, &world));
    assert_eq!(problem.kind, ProblemKind::UnknownImport);
    assert_eq!(problem.item.as_deref(), Some("wasi:clocks/monotonic-clock@0.2.99#later"));
    assert_eq!(problem.found.as_deref(), Some("func() -> u64"));
}

#[test]
fn everything_that_is_missing_or_differs_is_told_at_once_with_both_types() {
    let edit = |text: &str| {
        text.replace("luma: func(width: u32", "blur: func(radius: f32);\n luma: func(width: u64")
            .replace("box: rect,", "box: rect, age: u32,")
            .replace("command: func(request: string) -> result<string, string>;", "")
            .replace("snapshot: func() -> list<u8>;", "snapshot: func() -> string;")
    };
    let world = format!("{} import other:thing/tools;", include("0.1.0"));
    let mut resolve = CONTRACTS[0].resolve_edited(&edit).unwrap().0;
    push(
        &mut resolve,
        &[("other.wit", "package other:thing; interface tools { cut: func(at: s8) -> bool; }")],
    )
    .unwrap();
    let text = format!("package ocelli:tests;\nworld tested {{\n{world}\n}}\n");
    let package = push(&mut resolve, &[("tests.wit", &text)]).unwrap();
    let world = resolve.select_world(&[package], Some("tested")).unwrap();
    let found = problems(&encode(&resolve, world));
    let found: Vec<_> = found
        .iter()
        .map(|problem| {
            let Problem { kind, item, found, expected, .. } = problem;
            (*kind, item.as_deref().unwrap(), found.as_deref(), expected.as_deref())
        })
        .collect();
    let frames = "ocelli:pipeline/frames@0.1.0";
    let pipeline = "ocelli:pipeline/pipeline@0.1.0";
    let process = |detection: &str| {
        format!(
            "func(frame: borrow<frame>) -> result<record output \
                {{ detections: option<list<{detection}>>, \
             events: list<record event {{ kind: string, detections: list<{detection}>, data: \
             string, \
             attachments: list<image> }}> }}, string>"
        )
    };
    let detection = |more: &str| {
        format!(
            "record detection {{ label: string, score: f32, box: rect, {more}track: option<u64>, \
                attributes: \
             list<attribute>, embedding: option<list<f32>> }}"
        )
    };
    let (theirs, ours) = (process(&detection("age: u32, ")), process(&detection("")));
    let expected: Vec<(_, String, Option<&str>, Option<&str>)> = vec![
        (
            ProblemKind::UnknownImport,
            format!("{frames}#[method]frame.blur"),
            Some("func(self: borrow<frame>, radius: f32)"),
            None,
        ),
        (
            ProblemKind::MismatchedImport,
            format!("{frames}#[method]frame.luma"),
            Some(
                "func(self: borrow<frame>, width: u64, height: u32) -> result<list<u8>, \
                    frame-error>",
            ),
            Some(
                "func(self: borrow<frame>, width: u32, height: u32) -> result<list<u8>, \
                    frame-error>",
            ),
        ),
        (
            ProblemKind::UnknownImport,
            "other:thing/tools".into(),
            Some("interface { cut: func(at: s8) -> bool; }"),
            None,
        ),
        (
            ProblemKind::MissingExport,
            format!("{pipeline}#command"),
            None,
            Some("func(request: string) -> result<string, string>"),
        ),
        (
            ProblemKind::MismatchedExport,
            format!("{pipeline}#process"),
            Some(theirs.as_str()),
            Some(ours.as_str()),
        ),
        (
            ProblemKind::MismatchedExport,
            format!("{pipeline}#snapshot"),
            Some("func() -> string"),
            Some("func() -> list<u8>"),
        ),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, item, found, expected)| (*kind, &**item, *found, *expected))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_resource_of_another_interface_is_not_taken_for_the_contracts_own() {
    // `frames` brings a tensor of its own, where the contract's is that of wasi:nn.
    let edit = |text: &str| {
        text.replace(
            "use wasi:nn/tensor@0.2.0-rc-2024-10-28.{tensor};",
            "resource tensor { shape: func() -> list<u32>; }",
        )
    };
    let bytes = component(&CONTRACTS[0], edit, &include("0.1.0"));
    let found = problems(&bytes);
    let resource = "ocelli:pipeline/frames@0.1.0#tensor";
    let named = found.iter().find(|problem| problem.item.as_deref() == Some(resource)).unwrap();
    assert_eq!(named.kind, ProblemKind::MismatchedImport);
    assert_eq!(named.found.as_deref(), Some("resource of ocelli:pipeline/frames@0.1#tensor"));
    assert_eq!(
        named.expected.as_deref(),
        Some("resource of wasi:nn/tensor@0.2.0-rc-2024-10-28#tensor")
    );
    assert!(found.iter().any(|problem| problem.item.as_deref()
        == Some("ocelli:pipeline/frames@0.1.0#[method]tensor.shape")));
}

#[test]
fn an_interface_of_types_alone_needs_nothing_to_be_there() {
    let text = r#"(component
        (import "ocelli:pipeline/frames@0.1.0" (instance))
        (import "other:thing/kinds" (instance (type $kind (enum "one")) (export "kind" (type (eq $kind)))))
        (import "other:thing/tools" (instance (export "cut" (func)))))"#;
    let found = problems(&wat::parse_str(text).unwrap());
    let imports = found.iter().filter(|problem| problem.kind == ProblemKind::UnknownImport);
    let imports: Vec<_> = imports.map(|problem| problem.item.as_deref().unwrap()).collect();
    assert_eq!(imports, ["other:thing/tools"]);
    assert_eq!(
        found.iter().filter(|problem| problem.kind == ProblemKind::MissingExport).count(),
        6
    );
}

#[test]
fn a_version_that_is_not_served_is_told_with_those_that_are() {
    for (version, advice) in [
        ("0.0.9", ": build it against a newer contract"),
        ("0.1.7", ""),
        ("9.0.0", ": it needs a newer host"),
        ("0.4.0", ": it needs a newer host"),
    ] {
        let edit = |text: &str| {
            text.replace("ocelli:pipeline@0.1.0", &format!("ocelli:pipeline@{version}"))
        };
        let bytes = component(&CONTRACTS[0], edit, &include(version));
        let report = check(&bytes, &ANY).unwrap();
        assert_eq!(report.version.as_deref(), Some(version));
        assert_eq!(report.supported, SERVED);
        let message = format!(
            "it is for ocelli:pipeline {version}, and this host serves {}{advice}",
            "0.1.0, 0.2.0 and 0.3.0"
        );
        assert_eq!(only(&bytes), problem(ProblemKind::UnsupportedVersion, &message));
        // What is not served may be made of what is not known.
        assert_eq!(only(&bytes[..bytes.len() - 1]).kind, ProblemKind::UnsupportedVersion);
    }
}

#[test]
fn a_component_of_several_versions_or_of_none_is_told_so() {
    let both = wat::parse_str(
        r#"(component
            (import "ocelli:pipeline/frames@0.1.0" (instance))
            (import "ocelli:pipeline/frames@0.2.0" (instance)))"#,
    );
    let found = only(&both.unwrap());
    assert_eq!(found.kind, ProblemKind::UnsupportedVersion);
    assert!(found.message.contains("0.1.0 and 0.2.0"), "{}", found.message);

    let command = r#"(component (component $c) (instance $i (instantiate $c)) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
    let found = only(&wat::parse_str(command).unwrap());
    assert_eq!(found.kind, ProblemKind::OtherWorld);
    assert!(found.message.contains("it exports wasi:cli/run@0.2.0"), "{}", found.message);
}

#[test]
fn what_is_no_component_is_told_by_what_it_is() {
    let good = good(&CONTRACTS[0]);
    let module = wat::parse_str("(module)").unwrap();
    let layer = b"\0asm\x0d\0\x07\0";
    for (bytes, kind, words) in [
        (&b""[..], ProblemKind::NotWasm, "empty"),
        (&b"GIF89a"[..], ProblemKind::NotWasm, "\\0asm"),
        (&b"\x7fELF\x02"[..], ProblemKind::NotWasm, "compiled code"),
        (&b" (component)"[..], ProblemKind::NotWasm, "wasm-tools parse"),
        (&module[..], ProblemKind::CoreModule, "wasm-tools component new"),
        (&layer[..], ProblemKind::Malformed, "0d 00 07 00"),
        (&b"\0asm"[..], ProblemKind::Malformed, "form of WebAssembly"),
        (&good[..good.len() - 1], ProblemKind::Malformed, "at byte"),
    ] {
        let found = only(bytes);
        assert_eq!(found.kind, kind, "{}", found.message);
        assert!(found.message.contains(words), "{}", found.message);
    }
    let small = Requirements { max_bytes: good.len() as u64 - 1, trusted: None };
    let found = check(&good, &small).unwrap().problems;
    assert_eq!(
        found.iter().map(|problem| problem.kind).collect::<Vec<_>>(),
        [ProblemKind::TooLarge]
    );
}

#[test]
fn what_the_engine_does_not_serve_is_malformed() {
    for module in ["(module (memory 1 1 shared))", "(module (type (struct)))", "(module (tag))"] {
        let text = format!(
            "(component (import \"ocelli:pipeline/frames@0.1.0\" (instance)) (core {})",
            &module[1..]
        );
        let found = only(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")));
        assert_eq!(found.kind, ProblemKind::Malformed, "{module}: {}", found.message);
    }
}

fn problem(kind: ProblemKind, message: &str) -> Problem {
    Problem { kind, item: None, found: None, expected: None, message: message.to_owned() }
}

/// Signing as the format has it: each list of hashes signed by each pair.
fn signed(bytes: &[u8], hashes: &[[u8; 32]], pairs: &[&KeyPair]) -> Vec<u8> {
    let mut claim = vec![u8::try_from(hashes.len()).unwrap()];
    claim.extend(hashes.as_flattened());
    claim.push(u8::try_from(pairs.len()).unwrap());
    for pair in pairs {
        let message = [b"wasmsig\x01\x01\x01", hashes.as_flattened()].concat();
        claim.extend([67, 0, 1, 64]);
        claim.extend(pair.sk.sign(message, None).as_ref());
    }
    let mut section = b"\x09signature\x01\x01\x01\x01".to_vec();
    leb(&mut section, claim.len());
    section.extend(claim);
    let mut file = bytes[..8].to_vec();
    file.push(0);
    leb(&mut file, section.len());
    file.extend(section);
    file.extend(&bytes[8..]);
    file
}

fn leb(to: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        to.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).unwrap());
}

fn pair(seed: u8) -> (KeyPair, TrustedKey) {
    let pair = KeyPair::from_seed(Seed::new([seed; 32]));
    let key = TrustedKey::new(*pair.pk);
    (pair, key)
}

fn with_keys(bytes: &[u8], trusted: &[TrustedKey]) -> CheckReport {
    check(bytes, &Requirements { trusted: Some(trusted.to_vec()), ..ANY }).unwrap()
}

#[test]
fn a_signature_by_a_trusted_key_of_the_whole_component_is_taken_and_no_other() {
    let bytes = good(&CONTRACTS[0]);
    let digest = |bytes: &[u8]| -> [u8; 32] { *Digest::of(bytes).bytes() };
    let whole = digest(&bytes[8..]);
    let ((author, key), (stranger, other)) = (pair(1), pair(2));

    let good = signed(&bytes, &[whole], &[&stranger, &author]);
    let report = with_keys(&good, &[other, key]);
    assert_eq!((report.problems, report.signed_by.is_some()), (vec![], true));
    assert_eq!(with_keys(&good, &[key]).signed_by, Some(key.fingerprint()));
    // Signatures are nobody's business where they are not asked for.
    assert_eq!(problems(&good), []);

    let refused = |bytes: &[u8], trusted: &[TrustedKey]| {
        let report = with_keys(bytes, trusted);
        assert_eq!(report.signed_by, None);
        let found: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
        (found, report.problems[0].message.clone())
    };
    let wrong = vec![ProblemKind::WrongSignature];
    assert_eq!(refused(&bytes, &[key]).0, [ProblemKind::Unsigned]);
    assert_eq!(refused(&signed(&bytes, &[whole], &[&stranger]), &[key]).0, wrong);
    assert_eq!(refused(&good, &[]).0, wrong);

    // One byte of a name that nothing depends on.
    let mut changed = good.clone();
    let named = changed.windows(12).rposition(|text| text == b"processed-by").unwrap();
    changed[named] = b'P';
    let (kinds, message) = refused(&changed, &[key]);
    assert_eq!(kinds, wrong);
    assert!(message.contains("changed"), "{message}");

    // Signed up to a section before the end: cut off there it would be whole, and longer it is not.
    let begins = bytes[8..bytes.len() - 20].to_vec();
    assert_eq!(refused(&signed(&bytes, &[digest(&begins)], &[&author]), &[key]).0, wrong);
    let parts = [digest(&begins), whole];
    assert_eq!(with_keys(&signed(&bytes, &parts, &[&author]), &[key]).problems, []);
    let cut = [&bytes[..8], &begins].concat();
    assert!(
        refused(&signed(&cut, &parts, &[&author]), &[key]).0.contains(&ProblemKind::WrongSignature)
    );
}

/// What `wasmsign2` 0.2.8 made of a component that is a custom section, with the key of a seed of
/// sevens.
const SIGNED_BY_THE_TOOL: [&str; 2] = [
    "0061736d0d0001000075097369676e617475726501010101660140f1cf7c14b43e073a4a11a52e6a2819b480bf564a67e3eaa11661f7752575480143000140422d2e4313edddc17afa7e23853e7785ddd55dde3d6b70bd5f211649d2848b9545f4bc7fb20c6bbe511466b88b532fd219bfe425db4431d6fd29a9f5f2fb5609000401610102",
    "0061736d0d0001000078097369676e617475726501010101690164310e997efccd4b68fd593a2cbc7d54404891fa538dcbad9528915bd5994e690146030102030140b55bfec338f9ad251069ecad7cecb92b35171a4bf3df606a51ecb16292f578654f581f6bda4cdb1aa5b947b51e624e9210f377722a945519799884f7e97549000004016101020004016201020024137369676e61747572655f64656c696d69746572d6548200f2b4bd8b125524c6dade9e10",
];

#[test]
fn what_authors_tool_signs_is_taken() {
    let (_, key) = pair(7);
    for hex in SIGNED_BY_THE_TOOL {
        let bytes = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let file: Vec<u8> = (0..hex.len()).step_by(2).map(bytes).collect();
        assert_eq!(with_keys(&file, &[key]).signed_by, Some(key.fingerprint()));
    }
}

#[test]
fn a_broken_signature_is_an_answer_whatever_it_holds() {
    let (author, key) = pair(1);
    let bytes = good(&CONTRACTS[0]);
    let whole = *Digest::of(&bytes[8..]).bytes();
    let good = signed(&bytes, &[whole], &[&author]);
    let mut random = Random::with_seed(3);
    for at in 8..140 {
        let mut broken = good.clone();
        broken[at] = broken[at].wrapping_add(1 + random.u8(..255));
        let report = with_keys(&broken, &[key]);
        assert!(report.signed_by.is_none() && !report.problems.is_empty(), "byte {at}");
    }
    // More claims than anybody makes.
    let mut section = b"\x09signature\x01\x01\x01".to_vec();
    leb(&mut section, 1000);
    section.extend([2, 0, 0].repeat(1000));
    let mut many = bytes[..8].to_vec();
    many.push(0);
    leb(&mut many, section.len());
    many.extend(section);
    many.extend(&bytes[8..]);
    assert!(with_keys(&many, &[key]).problems[0].message.contains("more than 64"));
}

/// A run of the child on a component, compiled into a file.
fn compile(program: &Path, bytes: &[u8]) -> (std::process::Output, File) {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(bytes).unwrap();
    input.rewind().unwrap();
    let output = tempfile::tempfile().unwrap();
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .fd_mappings(vec![
            FdMapping { parent_fd: input.into(), child_fd: descriptor::COMPONENT },
            FdMapping {
                parent_fd: output.try_clone().unwrap().into(),
                child_fd: descriptor::OUTPUT,
            },
        ])
        .unwrap();
    (command.output().unwrap(), output)
}

/// Compiles a component and links it as a worker does.
#[allow(unsafe_code)]
fn link(bytes: &[u8]) {
    let program = program("ocelli-compile");
    let (ended, compiled) = compile(&program, bytes);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let engine = engine::engine().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&compiled));
    // SAFETY: `ocelli-compile` has just written the file, and nothing else knows of it.
    let component = unsafe { Component::deserialize_file(&engine, path) }.unwrap();
    LinkedComponent::new(&engine, &component).map(drop).unwrap();
}

#[test]
fn damaged_components_each_get_a_report() {
    let program = program("ocelli-compile");
    let originals = [good(&CONTRACTS[0]), greedy(&CONTRACTS[1])];
    let mut random = Random::with_seed(0x0ce1_1155);
    let (rounds, mut refused) = (rounds(300), 0);
    for round in 0..rounds {
        let mut bytes = originals[round % 2].clone();
        match random.usize(..4) {
            0 => bytes.truncate(random.usize(..bytes.len())),
            1 => {
                let (from, to) = (random.usize(..bytes.len()), random.usize(..bytes.len()));
                let part = bytes[from..].iter().take(64).copied().collect::<Vec<_>>();
                bytes.splice(to..to, part);
            }
            _ => {
                for _ in 0..=random.usize(..8) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
            }
        }
        let (ended, _) = compile(&program, &bytes);
        let complaint = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), None, "round {round}: {complaint}");
        let report: CheckReport = serde_json::from_slice(&ended.stdout)
            .unwrap_or_else(|error| panic!("round {round}: {error}; {complaint}"));
        let expected = i32::from(!report.problems.is_empty());
        assert_eq!(ended.status.code(), Some(expected), "round {round}: {complaint}");
        refused += expected;
    }
    assert!(refused as usize > rounds / 3, "{refused}");
}
