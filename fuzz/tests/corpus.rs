//! Every target over every input of its corpus: what was found once stays mended.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::path::Path;

/// A corpus's folder, and the target that takes its inputs.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("access-units", ocelli_fuzz::access_units),
    ("client-frames", ocelli_fuzz::client_frames),
    ("component-check", ocelli_fuzz::component_check),
    ("config", ocelli_fuzz::config),
    ("manifests", ocelli_fuzz::manifests),
    ("worker-messages", ocelli_fuzz::worker_messages),
];

#[test]
fn every_input_of_the_corpora_is_taken() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(Result::unwrap).collect();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for input in inputs {
            println!("{}", input.path().display());
            target(&std::fs::read(input.path()).unwrap());
        }
    }
}
