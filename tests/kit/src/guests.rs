//! The components of `tests/guests`, and stores that have them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::host::built;
use crate::root;

/// The component of a test's pipeline.
pub fn guest(name: &str) -> PathBuf {
    let path = built("test-pipelines").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: `./x test` builds it", path.display());
    path
}

/// A store for hosts, one after the other: it holds the tests' pipelines under their names. Goes
/// when dropped.
#[derive(Debug)]
pub struct PipelineFolder {
    folder: TempDir,
}

impl PipelineFolder {
    /// A store with these of the tests' pipelines. One that is written in WebAssembly's own text is
    /// made a component here.
    pub fn with(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pipelines")).unwrap();
        let store = Self { folder };
        for name in names {
            let text = root().join(format!("tests/guests/{name}.wat"));
            if text.is_file() {
                std::fs::write(store.pipeline(name), component(&text)).unwrap();
            } else {
                std::fs::copy(guest(name), store.pipeline(name)).unwrap();
            }
        }
        store
    }

    /// Puts a component into the store under this name.
    pub fn put(&self, name: &str, component: &[u8]) {
        std::fs::write(self.pipeline(name), component).unwrap();
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The section of a host's config.
    pub fn section(&self) -> String {
        format!("[store]\ndirectory = \"{}\"\n", self.folder.path().display())
    }

    /// The file of a pipeline.
    pub fn pipeline(&self, name: &str) -> PathBuf {
        self.folder.path().join("pipelines").join(format!("{name}.wasm"))
    }
}

/// Makes a component of a core module in text, which exports what the world of `wit/0.1` asks for.
fn component(text: &Path) -> Vec<u8> {
    let mut module = wat::parse_file(text).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit/0.1")).unwrap();
    let world = resolve.select_world(&[package], Some("camera-pipeline")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_text_becomes_a_component() {
        let store = PipelineFolder::with(&["table-bomb"]);
        let component = std::fs::read(store.pipeline("table-bomb")).unwrap();
        // The preamble's second half tells a component from a core module.
        assert_eq!(component.get(..8), Some(b"\0asm\x0d\0\x01\0".as_slice()));
    }
}
