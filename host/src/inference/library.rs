//! Where ONNX Runtime lies.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ocelli_inference::PINNED_VERSION as VERSION;

use crate::util::installed::Installation;

/// The digest of [`VERSION`]'s library for x86-64 Linux.
const SHA256: &str = "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083";

/// A library to load.
#[derive(Debug)]
pub struct Library {
    /// The absolute path of the shared library.
    pub path: String,
    /// Its digest, where it has to be the pinned one: a library that the operator chose may be any.
    pub sha256: Option<String>,
}

/// Whether the library has to be the pinned one: it is where a package or `./x setup` puts it,
/// wherever the package or the cache folder is.
pub fn is_pinned(chosen: Option<&Path>) -> bool {
    chosen.is_none_or(|path| path.ends_with(in_cache(Path::new(""))))
}

/// The operator's library, or the one that came with the programs, or the one that `./x setup` puts
/// into the cache folder.
pub fn find(chosen: Option<&Path>) -> anyhow::Result<Library> {
    let chosen = chosen.map(Path::to_owned);
    let path = match chosen.or_else(|| Installation::find().as_ref().and_then(installed)) {
        Some(path) => path,
        None => in_cache(&cache(|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })?),
    };
    let sha256 = is_pinned(Some(&path)).then(|| SHA256.to_owned());
    let path = path.canonicalize().with_context(|| {
        let shown = path.display();
        format!(
            "ONNX Runtime {VERSION} is not at {shown}: run `./x setup`, or set `inference.library`"
        )
    })?;
    let path = path.to_str().context("the path of ONNX Runtime is not UTF-8")?.to_owned();
    Ok(Library { path, sha256 })
}

/// The library of a package, where there is one.
fn installed(installation: &Installation) -> Option<PathBuf> {
    Some(in_cache(&installation.libraries())).filter(|path| path.is_file())
}

/// `$OCELLI_CACHE`, or `ocelli` in the user's cache folder.
fn cache(variable: impl Fn(&str) -> Option<PathBuf>) -> anyhow::Result<PathBuf> {
    variable("OCELLI_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("ocelli")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/ocelli")))
        .context(
            "ONNX Runtime is looked for in $OCELLI_CACHE or $HOME/.cache/ocelli, and neither \
             variable is set",
        )
}

fn in_cache(cache: &Path) -> PathBuf {
    cache.join(format!("onnxruntime-{VERSION}")).join(format!("libonnxruntime.so.{VERSION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_brings_its_own_and_its_digest_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let installation = Installation::at(root.path());
        assert_eq!(installed(&installation), None);
        let library = in_cache(&root.path().join("lib"));
        std::fs::create_dir_all(library.parent().unwrap()).unwrap();
        std::fs::write(&library, "").unwrap();
        assert_eq!(installed(&installation), Some(library.clone()));
        assert!(is_pinned(Some(&library)));
    }

    #[test]
    fn the_cache_is_where_the_setup_puts_it() {
        let set = |names: &'static [&str]| {
            move |name: &str| names.contains(&name).then(|| PathBuf::from(name))
        };
        assert_eq!(cache(set(&["OCELLI_CACHE", "HOME"])).unwrap(), Path::new("OCELLI_CACHE"));
        assert_eq!(
            cache(set(&["XDG_CACHE_HOME", "HOME"])).unwrap(),
            Path::new("XDG_CACHE_HOME/ocelli")
        );
        assert_eq!(cache(set(&["HOME"])).unwrap(), Path::new("HOME/.cache/ocelli"));
        assert!(cache(set(&[])).is_err());
    }

    #[test]
    fn a_library_as_the_setup_puts_it_is_checked_wherever_it_lies() {
        let cache = tempfile::tempdir().unwrap();
        let path = in_cache(cache.path());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        for file in [path, cache.path().join("libonnxruntime.so")] {
            std::fs::write(&file, "").unwrap();
            let is_checked = find(Some(&file)).unwrap().sha256.is_some();
            assert_eq!(is_checked, file.parent() != Some(cache.path()), "{file:?}");
            assert_eq!(is_pinned(Some(&file)), is_checked, "{file:?}");
        }
    }

    #[test]
    fn a_missing_library_says_what_to_do() {
        let error = find(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/libonnxruntime.so") && error.contains("./x setup"),
            "{error}"
        );
    }
}
