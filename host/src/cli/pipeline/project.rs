//! The project of a pipeline: its folder, its language, its name.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

/// Bytes of a manifest at most: a hundred times those of a long one.
const MAX_MANIFEST: u64 = 1 << 20;

/// Characters of a pipeline's name at most: it stands in file names and in tables.
const MAX_NAME: usize = 64;

/// Names that a language or its packages take for something else: keywords of Rust and of Python,
/// crates that every crate has or that the template depends on, and what npm refuses.
const TAKEN: &str = "abstract alloc and as assert async await become box break class const \
    continue core crate def del do dyn elif else enum except extern false final finally fn for \
    from gen global if impl import in is lambda let loop macro match mod move mut node-modules \
    none nonlocal not ocelli-sdk ocelli-settings or override package pass priv proc-macro pub \
    raise ref return self serde serde-json static std struct super test trait true try type typeof \
    unsafe unsized use virtual where while with yield";

/// A language that pipelines are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Language {
    Rust,
    Python,
    /// JavaScript.
    Js,
    /// TypeScript.
    Ts,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Js => "JavaScript",
            Self::Ts => "TypeScript",
        })
    }
}

/// Why a folder is no project, or a name is none.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ProjectError {
    #[error(
        "{0:?} is no name of a pipeline: lowercase letters, digits and single hyphens, a letter \
         first, at most {max}",
        max = MAX_NAME
    )]
    Name(String),
    #[error("{0:?} is taken by a language or a package: choose another name")]
    Taken(String),
    #[error(
        "{folder} is no project of a pipeline: it has neither Cargo.toml, pyproject.toml nor \
         package.json; `ocelli pipeline new` makes one"
    )]
    None { folder: String },
    #[error("{manifest}: {reason}")]
    Manifest { manifest: String, reason: String },
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
}

impl ProjectError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), error }
    }
}

/// A name for a new pipeline, which every language takes.
pub(super) fn checked_name(name: &str) -> Result<&str, ProjectError> {
    let words = name.split('-').all(|word| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    if !words
        || name.len() > MAX_NAME
        || !name.starts_with(|first: char| first.is_ascii_lowercase())
    {
        return Err(ProjectError::Name(name.to_owned()));
    }
    if TAKEN.split(' ').any(|taken| taken == name) {
        return Err(ProjectError::Taken(name.to_owned()));
    }
    Ok(name)
}

/// A project as its manifest tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) language: Language,
    pub(super) name: String,
}

/// What the manifests have in common.
#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct CargoManifest {
    package: Named,
}

#[derive(Deserialize)]
struct PythonManifest {
    project: Named,
}

impl Project {
    /// The project in a folder. Of several manifests the first of `Cargo.toml`, `pyproject.toml`
    /// and `package.json` counts.
    pub(super) fn open(folder: &Path) -> Result<Self, ProjectError> {
        let folder = folder.canonicalize().map_err(|error| ProjectError::io(folder, error))?;
        for manifest in ["Cargo.toml", "pyproject.toml", "package.json"] {
            let path = folder.join(manifest);
            let text = match read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|error| ProjectError::io(&path, error))?,
            };
            let refused = |reason: String| {
                let reason = reason.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                ProjectError::Manifest { manifest: path.display().to_string(), reason }
            };
            let (language, name) = match manifest {
                "Cargo.toml" => {
                    let CargoManifest { package } =
                        toml::from_str(&text).map_err(|error| refused(error.message().into()))?;
                    (Language::Rust, package.name)
                }
                "pyproject.toml" => {
                    let PythonManifest { project } =
                        toml::from_str(&text).map_err(|error| refused(error.message().into()))?;
                    (Language::Python, project.name)
                }
                _ => {
                    let Named { name } =
                        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
                    let typed = folder.join("tsconfig.json").exists();
                    (if typed { Language::Ts } else { Language::Js }, name)
                }
            };
            // npm's names may begin with a scope.
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
                return Err(refused(format!("{name:?} cannot be the name of a pipeline")));
            }
            return Ok(Self { folder, language, name });
        }
        Err(ProjectError::None { folder: folder.display().to_string() })
    }

    /// Where the component lies once it is built.
    pub(super) fn component(&self) -> PathBuf {
        self.folder.join("build").join(format!("{}.wasm", self.name))
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_MANIFEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_suits_every_language() {
        for good in ["loiter", "gate-2", "a", "x1-y2-z3"] {
            assert!(checked_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "2gate",
            "Gate",
            "g_te",
            "../x",
            "a/b",
            "ü",
            "a b",
            &"x".repeat(65),
        ] {
            assert!(matches!(checked_name(bad), Err(ProjectError::Name(_))), "{bad}");
        }
        for taken in ["fn", "test", "ocelli-sdk", "import"] {
            assert!(matches!(checked_name(taken), Err(ProjectError::Taken(_))), "{taken}");
        }
    }

    /// The project of a folder with these files.
    fn project(files: &[(&str, &str)]) -> Result<Project, ProjectError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Project::open(folder.path())
    }

    #[test]
    fn the_language_is_that_of_the_manifest() {
        let cargo = ("Cargo.toml", "[package]\nname = \"loiter\"\n");
        let python = ("pyproject.toml", "[project]\nname = \"loiter\"\nversion = \"1\"\n");
        let js = ("package.json", r#"{"name": "@team/loiter"}"#);
        for (files, language) in [
            (vec![cargo, js], Language::Rust),
            (vec![python], Language::Python),
            (vec![js], Language::Js),
            (vec![js, ("tsconfig.json", "{}")], Language::Ts),
        ] {
            let project = project(&files).unwrap();
            assert_eq!((project.language, project.name.as_str()), (language, "loiter"));
            assert!(project.component().ends_with("build/loiter.wasm"));
        }
    }

    #[test]
    fn what_is_no_project_is_one_line() {
        for files in [
            vec![],
            vec![("Cargo.toml", "[workspace]\n")],
            vec![("Cargo.toml", "[package\nname")],
            vec![("pyproject.toml", "[tool.black]\n")],
            vec![("package.json", "{\n")],
            vec![("package.json", r#"{"name": "../x\u001b"}"#), ("tsconfig.json", "")],
        ] {
            let error = project(&files).unwrap_err().to_string();
            assert!(!error.contains(['\n', '\u{1b}']), "{error}");
        }
    }
}
