//! What was installed or built together with this program, found from where the program lies.
//!
//! ```text
//! ROOT/bin/ocelli            of a package, beside the other programs
//! ROOT/lib/                  ONNX Runtime
//! ROOT/pipelines/            the built-in pipelines
//! ROOT/models/, ROOT/demo/   the models, the clip of the demo
//! ```
//!
//! In a checkout `ROOT` is `target`, with `release` in the place of `bin`; models and clips lie in
//! the checkout itself.

use std::path::{Path, PathBuf};

/// The folder of a package or a build.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    root: PathBuf,
}

impl Installation {
    /// That of the running program. None where the system does not say where it lies.
    pub(crate) fn find() -> Option<Self> {
        let program = std::env::current_exe().ok()?;
        Some(Self { root: program.parent()?.parent()?.to_owned() })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of the built-in pipelines, which need not be there.
    pub(crate) fn pipelines(&self) -> PathBuf {
        self.root.join("pipelines")
    }

    /// The folder of the shared libraries that came with the programs.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.root.join("lib")
    }

    /// The folder of the models, where there is one.
    pub(crate) fn models(&self) -> Option<PathBuf> {
        self.first_of(["models", "../models"], Path::is_dir)
    }

    /// The clip of the demo, where there is one.
    pub(crate) fn clip(&self) -> Option<PathBuf> {
        self.first_of(["demo/bikes.mp4", "../tests/clips/bikes.mp4"], Path::is_file)
    }

    /// The first that is there, without `..` in it: people read it.
    fn first_of(&self, places: [&str; 2], is_there: fn(&Path) -> bool) -> Option<PathBuf> {
        let mut found = places.iter().filter_map(|place| self.root.join(place).canonicalize().ok());
        found.find(|path| is_there(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_its_own_and_a_build_that_of_its_checkout() {
        let checkout = tempfile::tempdir().unwrap();
        let checkout = checkout.path().canonicalize().unwrap();
        let target = checkout.join("target");
        for folder in ["target/release", "models", "tests/clips"] {
            std::fs::create_dir_all(checkout.join(folder)).unwrap();
        }
        let built = Installation::at(&target);
        assert_eq!(built.models(), Some(checkout.join("models")));
        assert_eq!(built.clip(), None);
        std::fs::write(checkout.join("tests/clips/bikes.mp4"), "").unwrap();
        assert_eq!(built.clip(), Some(checkout.join("tests/clips/bikes.mp4")));
        for folder in ["models", "demo"] {
            std::fs::create_dir(target.join(folder)).unwrap();
        }
        std::fs::write(target.join("demo/bikes.mp4"), "").unwrap();
        assert_eq!(built.models(), Some(target.join("models")));
        assert_eq!(built.clip(), Some(target.join("demo/bikes.mp4")));
    }
}
