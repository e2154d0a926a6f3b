//! What the versions of the contract promise: frozen folders, and components of each version beside
//! those of the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::worker::{Basis, Source};
use wit_component::dummy_module;
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use super::{ContractVersion, LinkedComponent, SERVED};
use crate::guest::limit_tests::{Running, frame, instantiate};
use crate::guest::state::tests::limits;
use crate::guest::tests::components::{Guest, IDLE, WIT, compiled, test_engine};
use crate::video::Frame;

/// The files of the versions that do not change any more.
const FROZEN: &[(&str, &[(&str, &str)])] = &[
    (
        "0.1",
        &[
            (
                "deps/wasi-config/store.wit",
                "ec9fa62c0329d9d47b062226c3628c18c82a092510a8edc30669e078de3237d1",
            ),
            (
                "deps/wasi-logging/logging.wit",
                "8ee5037a67734f0a51743def0a10c5ed5664f24246e07b445565c07fe53cb5e2",
            ),
            (
                "deps/wasi-nn/wasi-nn.wit",
                "362c214e8192a7b4754575c6c22813409323690d089742504e661f3e5f5d2fe2",
            ),
            ("frames.wit", "5015bd04037f046191414c662980ba3f7553daf91bc407cccde2968aafc0ae4b"),
            ("pipeline.wit", "2a0cc120786824473d98367367a5223b0f91d45c0603c50654d28c8eb21c1139"),
        ],
    ),
    (
        "0.2",
        &[
            ("boxes.wit", "8808216ba92d296cc98e9f24feeb4c19333b04b4420309b9df5cd279c9bf0484"),
            (
                "deps/wasi-config/store.wit",
                "ec9fa62c0329d9d47b062226c3628c18c82a092510a8edc30669e078de3237d1",
            ),
            (
                "deps/wasi-keyvalue/keyvalue.wit",
                "762e4008c575c75ae84d81f4a2ac068a832ad377710c8b47c030578ca7dd4960",
            ),
            (
                "deps/wasi-logging/logging.wit",
                "8ee5037a67734f0a51743def0a10c5ed5664f24246e07b445565c07fe53cb5e2",
            ),
            (
                "deps/wasi-nn/wasi-nn.wit",
                "362c214e8192a7b4754575c6c22813409323690d089742504e661f3e5f5d2fe2",
            ),
            ("frames.wit", "b7fe145c050cc6ccc01e168f51ab6136ee46820b593e921548d97784633da8bb"),
            ("pipeline.wit", "9b9d650f26c8890befbc3faa981372069c2fc91f940c9daa02128ce19a99eeee"),
        ],
    ),
    (
        "0.3",
        &[
            ("boxes.wit", "8808216ba92d296cc98e9f24feeb4c19333b04b4420309b9df5cd279c9bf0484"),
            ("budget.wit", "330e5f4db078f9c5fd3255b4e1cd0ed1553432a878136f65e873ef4b79bb0834"),
            (
                "deps/wasi-config/store.wit",
                "ec9fa62c0329d9d47b062226c3628c18c82a092510a8edc30669e078de3237d1",
            ),
            (
                "deps/wasi-keyvalue/keyvalue.wit",
                "762e4008c575c75ae84d81f4a2ac068a832ad377710c8b47c030578ca7dd4960",
            ),
            (
                "deps/wasi-logging/logging.wit",
                "8ee5037a67734f0a51743def0a10c5ed5664f24246e07b445565c07fe53cb5e2",
            ),
            (
                "deps/wasi-nn/wasi-nn.wit",
                "362c214e8192a7b4754575c6c22813409323690d089742504e661f3e5f5d2fe2",
            ),
            ("frames.wit", "2df02ee4307f1fc6c6fa84672067a54e2eba660754962ddfb75ba976ffc4692d"),
            ("models.wit", "57ce873ab587d2402c9faa81bde7c4dc9aa1d01dafef4c98e7345cca85e71023"),
            ("pipeline.wit", "42542e4b91a04aa202839092b4bf04b8424b54f50029789f1b62e9cd7af5bdf9"),
        ],
    ),
];

/// The files beneath a folder, by their names in it, with their SHA-256.
fn digests(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let name = name.into_string().unwrap();
        if path.is_dir() {
            found.extend(
                digests(&path).into_iter().map(|(file, digest)| (format!("{name}/{file}"), digest)),
            );
        } else {
            found.insert(name, Digest::of(fs::read(&path).unwrap()).to_string());
        }
    }
    found
}

#[test]
fn a_frozen_version_does_not_change() {
    for (version, files) in FROZEN {
        let frozen = files.iter().map(|&(file, digest)| (file.to_owned(), digest.to_owned()));
        assert_eq!(
            digests(&Path::new(WIT).join(version)),
            frozen.collect(),
            "wit/{version} is frozen: what is to be different is a new version"
        );
    }
}

#[test]
fn the_versions_served_are_those_that_have_a_folder() {
    let mut folders: Vec<String> = Vec::new();
    for entry in
        fs::read_dir(WIT).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir())
    {
        let version = format!("{}.0", entry.file_name().to_str().unwrap());
        let package = format!("package ocelli:pipeline@{version};");
        let frames = fs::read_to_string(entry.path().join("frames.wit")).unwrap();
        assert!(frames.contains(&package), "{} is not of {package}", entry.path().display());
        folders.push(version);
    }
    folders.sort_by_key(|version| {
        version.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>()
    });
    assert_eq!(folders, SERVED);
}

#[test]
fn the_newest_version_that_is_served_is_taken() {
    let among = |exports: &[&str]| ContractVersion::among(exports.iter().copied());
    for (name, version) in SERVED.iter().zip(ContractVersion::ALL) {
        assert_eq!(
            among(&[&format!("ocelli:pipeline/pipeline@{name}"), "other:thing/else@9.9.9"]),
            Ok(version)
        );
    }
    let [old, new, newer] =
        ["0.1.0", "0.2.0", "0.9.0"].map(|name| format!("ocelli:pipeline/pipeline@{name}"));
    assert_eq!(among(&[&old, &new]), Ok(ContractVersion::V0_2));
    assert_eq!(among(&[&new, &old]), Ok(ContractVersion::V0_2));
    assert_eq!(among(&[&newer, &old]), Ok(ContractVersion::V0_1));
}

#[test]
fn a_version_that_is_not_served_is_named_with_those_that_are() {
    let among = |exports: &[&str]| ContractVersion::among(exports.iter().copied()).unwrap_err();
    assert_eq!(
        among(&["ocelli:pipeline/pipeline@0.9.0"]),
        "the component is made for ocelli:pipeline@0.9.0, this host serves 0.1.0, 0.2.0, 0.3.0"
    );
    // A version is what its folder says, and no other of the same line.
    assert_eq!(
        among(&["ocelli:pipeline/pipeline@0.2.1"]),
        "the component is made for ocelli:pipeline@0.2.1, this host serves 0.1.0, 0.2.0, 0.3.0"
    );
    assert_eq!(
        among(&["wasi:cli/run@0.2.0"]),
        "not a pipeline: the component does not export ocelli:pipeline/pipeline@(one of 0.1.0, \
            0.2.0, 0.3.0)"
    );
}

#[test]
fn a_component_of_each_version_finds_every_function_that_its_version_has() {
    let engine = test_engine();
    for version in SERVED {
        let mut resolve = Resolve::default();
        let folder = Path::new(WIT).join(version.strip_suffix(".0").unwrap());
        let (package, _) = resolve.push_dir(folder).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        let abi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
        let module = dummy_module(&resolve, world, abi);
        let component = compiled(&engine, module, &resolve, world);
        if let Err(error) = LinkedComponent::new(&engine, &component) {
            panic!("{version}: {error:?}");
        }
    }
}

fn running(guest: &Guest<'_>) -> Running {
    instantiate(guest, limits()).unwrap_or_else(|(_, error, _)| panic!("{error}"))
}

/// The frame of this number.
fn numbered(number: u64) -> Arc<Frame> {
    Arc::new(Frame { number, ..frame() })
}

#[test]
fn components_of_each_version_are_called() {
    for (contracts, query) in
        [(&["0.1.0"][..], None), (&["0.2.0"], None), (&["0.3.0"], Some(String::new()))]
    {
        let Running { mut instance, .. } = running(&Guest { contracts, ..IDLE });
        assert_eq!(instance.describe().unwrap().name, "");
        instance.init("{}").unwrap();
        let result = instance.process(numbered(3)).unwrap();
        assert_eq!(
            (result.frame, result.detections, result.events.len()),
            (3, None, 0),
            "{contracts:?}"
        );
        assert_eq!(instance.query("{}").unwrap(), query, "{contracts:?}");
        assert_eq!(instance.command("{}").unwrap(), "");
        assert_eq!(instance.snapshot().unwrap(), b"");
        instance.restore("1.0.0", b"state").unwrap();
    }
}

#[test]
fn an_output_of_each_version_is_taken_as_it_has_it() {
    // One detection of zeros. 0.3 aligns the output to 8 bytes, since it has an age in it.
    let older =
        "(i32.store8 (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 2048))
        (i32.store (i32.const 1036) (i32.const 1))";
    let newest = "(i32.store8 (i32.const 1032) (i32.const 1)) (i32.store (i32.const 1036) (i32.const 2048))
        (i32.store (i32.const 1040) (i32.const 1)) (i32.store8 (i32.const 1056) (i32.const 1))
        (i32.store8 (i32.const 1064) (i32.const 2)) (i64.store (i32.const 1072) (i64.const 7000000))";
    let predicted = Basis { source: Source::Predicted, model_age_ns: 7_000_000 };
    for (version, process, basis) in
        [("0.1.0", older, None), ("0.2.0", older, None), ("0.3.0", newest, Some(predicted))]
    {
        let guest = Guest { contracts: &[version], process, ..IDLE };
        let result = running(&guest).instance.process(numbered(3)).unwrap();
        assert_eq!(result.basis, basis, "{version}");
        assert_eq!(result.detections.map(|found| found.len()), Some(1), "{version}");
    }
}

const SKIPPED: &str = r#"
    (import "ocelli:pipeline/frames@0.2.0" "[method]frame.skipped" (func $skipped (param i32) (result i64)))
"#;

/// `$keep` puts a number behind those before it, from 16 on.
const KEEPS: &str = "
    (global $end (mut i32) (i32.const 16))
    (func $keep (param i64)
        (i64.store (global.get $end) (local.get 0))
        (global.set $end (i32.add (global.get $end) (i32.const 8))))
";

/// Gives what lies between 16 and `$end`. Nothing else can be asked of the component afterwards.
const GIVES: &str = "
    (i32.store (i32.const 1024) (i32.const 16))
    (i32.store (i32.const 1028) (i32.sub (global.get $end) (i32.const 16)))
";

#[test]
fn a_frame_says_how_many_its_instance_did_not_get_before_it() {
    let guest = Guest {
        contracts: &["0.2.0"],
        imports: SKIPPED,
        items: KEEPS,
        process: "(call $keep (call $skipped (local.get 0)))",
        snapshot: GIVES,
        ..IDLE
    };
    let Running { mut instance, .. } = running(&guest);
    // The last begins again, as a file that is played once more.
    for number in [7, 8, 10, 100, 100, 0] {
        instance.process(numbered(number)).unwrap();
    }
    assert_eq!(instance.snapshot().unwrap(), [0u64, 0, 1, 89, 0, 0].map(u64::to_le_bytes).concat());
}

/// A component that asks for the best of a tensor's rows, for a row, and for the boxes that stand,
/// and gives what lies in its memory then.
#[test]
fn a_component_finds_boxes_without_reading_a_tensor() {
    let imports = r#"
        (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor"
            (func $tensor (param i32 i32 i32 i32 i32) (result i32)))
        (import "ocelli:pipeline/boxes@0.2.0" "best"
            (func $best (param i32 i32 i32 i32 i32 f32 i32 i32)))
        (import "ocelli:pipeline/boxes@0.2.0" "rows"
            (func $rows (param i32 i32 i32 i32 i32)))
        (import "ocelli:pipeline/boxes@0.2.0" "suppress"
            (func $suppress (param i32 i32 f32 i32)))
    "#;
    // Dimensions 3 x 2 at 32, numbers at 64, the row that is asked for at 128, boxes at 256, each
    // answer's place at 512; the answers are kept one behind the other from 2048 on.
    let items = r#"
        (data (i32.const 32) "\03\00\00\00\02\00\00\00")
        (global $end (mut i32) (i32.const 2048))
        (func $floats (param $to i32) (param f32 f32)
            (f32.store (local.get $to) (local.get 1))
            (f32.store offset=4 (local.get $to) (local.get 2)))
        (func $box (param $to i32) (param $x f32) (param $score f32)
            (call $floats (local.get $to) (local.get $x) (f32.const 0))
            (call $floats (i32.add (local.get $to) (i32.const 8)) (f32.const 10) (f32.const 10))
            (f32.store offset=16 (local.get $to) (local.get $score)))
        (func $keep (param $bytes i32)
            (if (i32.load8_u (i32.const 512)) (then unreachable))
            (memory.copy (global.get $end) (i32.load (i32.const 516))
                (i32.mul (local.get $bytes) (i32.load (i32.const 520))))
            (global.set $end
                (i32.add (global.get $end) (i32.mul (local.get $bytes) (i32.load (i32.const 520))))))
    "#;
    let process = "(local $table i32)
        (call $floats (i32.const 64) (f32.const 0.5) (f32.const 0.25))
        (call $floats (i32.const 72) (f32.const 0.125) (f32.const nan))
        (call $floats (i32.const 80) (f32.const 0.5) (f32.const 0.75))
        (local.set $table
            (call $tensor (i32.const 32) (i32.const 2) (i32.const 1) (i32.const 64) (i32.const 24)))
        (call $best (local.get $table) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (f32.const 0.5) (i32.const 10) (i32.const 512))
        (call $keep (i32.const 12))
        (i32.store (i32.const 128) (i32.const 2))
        (call $rows (local.get $table) (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 512))
        (call $keep (i32.const 4))
        (call $box (i32.const 256) (f32.const 0) (f32.const 0.5))
        (call $box (i32.const 280) (f32.const 1) (f32.const 0.75))
        (call $box (i32.const 304) (f32.const 50) (f32.const 0.25))
        (call $suppress (i32.const 256) (i32.const 3) (f32.const 0.5) (i32.const 512))
        (call $keep (i32.const 4))";
    let snapshot = "
        (i32.store (i32.const 1024) (i32.const 2048))
        (i32.store (i32.const 1028) (i32.sub (global.get $end) (i32.const 2048)))";
    let guest = Guest { contracts: &["0.2.0"], imports, items, process, snapshot, ..IDLE };
    let Running { mut instance, .. } = running(&guest);
    instance.process(numbered(0)).unwrap();
    let best = [[2u32, 1, 0.75f32.to_bits()], [0, 0, 0.5f32.to_bits()]].concat();
    let row = [0.5f32, 0.75].map(f32::to_bits);
    let expected: Vec<u8> =
        best.iter().chain(&row).chain(&[1, 2]).flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(instance.snapshot().unwrap(), expected);
}
