//! `ocelli pipeline build`: a project becomes a component.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use ocelli_protocol::digest::Digest;
use serde::Deserialize;

use super::check;
use super::project::{Language, Project, ProjectError};
use super::tool::{
    self, CARGO, COMPONENTIZE_PY, NODE, NPM, PROJECT_PYTHON, PYTHON, RUST_TARGET, ToolError,
};

/// The world that a component targets, in the folder `wit` of a project in Python.
const WORLD: &str = "camera-pipeline";

/// Lets the SDK's loops over model outputs use vector instructions.
const SIMD: &str = r#"target.wasm32-wasip2.rustflags=["-C","target-feature=+simd128"]"#;

/// What was installed by the list of packages of which this file has the digest: written last, so
/// that an installation that broke off is made anew.
const STAMP: &str = ".ocelli-installed";

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineBuildCommand {
    /// The project's folder.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

impl PipelineBuildCommand {
    /// Builds, checks what was built, and says how large it is.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let project = Project::open(&self.folder)?;
        let component = build(&project)?;
        check::check_and_tell(&component)?;
        let size = std::fs::metadata(&component).map_or(0, |about| about.len());
        println!("{}: {}", component.display(), in_units(size));
        Ok(())
    }
}

/// A size for a person: `412 KB`, `18.5 MB`.
pub(in crate::cli) fn in_units(bytes: u64) -> String {
    if bytes < 1_000_000 {
        format!("{} KB", bytes.div_ceil(1000))
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}

/// Builds a project. Returns where the component lies, which is replaced in one step: the one
/// before stays where the build fails.
pub(super) fn build(project: &Project) -> Result<PathBuf, BuildError> {
    match project.language {
        Language::Rust => rust(project),
        Language::Python => python(project),
        Language::Js | Language::Ts => javascript(project),
    }
}

/// Why a project was not built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error("the build of {folder} has made no component: {reason}")]
    NoComponent { folder: String, reason: &'static str },
}

fn rust(project: &Project) -> Result<PathBuf, BuildError> {
    // Cargo is asked for first: without it there is no rustc either.
    let mut version = CARGO.command(&project.folder);
    CARGO.output(version.arg("--version"), "cargo")?;
    tool::has_rust_target(&project.folder)?;
    let mut command = CARGO.command(&project.folder);
    command.args(["build", "--release", "--lib", "--target", RUST_TARGET, "--config", SIMD]);
    command.arg("--message-format=json-render-diagnostics");
    let messages = CARGO.output(&mut command, "cargo build")?;
    let manifest = project.folder.join("Cargo.toml");
    let built = messages.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let artifact: Artifact = serde_json::from_slice(line).ok()?;
        let mut files = artifact.filenames.into_iter();
        let component = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "wasm");
        if artifact.manifest_path == manifest { files.find(component) } else { None }
    });
    let built = built.ok_or_else(|| BuildError::NoComponent {
        folder: project.folder.display().to_string(),
        reason: "Cargo.toml needs [lib] with crate-type = [\"cdylib\", \"rlib\"]",
    })?;
    let component = project.component();
    place(&built, &component).map_err(|error| ProjectError::io(&component, error))?;
    Ok(component)
}

/// Cargo's message on what it built, or had built before.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    filenames: Vec<PathBuf>,
}

fn python(project: &Project) -> Result<PathBuf, BuildError> {
    let folder = &project.folder;
    once(&folder.join(".venv"), &[folder.join("requirements.txt")], || {
        // Debian's Python brings no `venv`.
        let mut modules = PYTHON.command(folder);
        modules.args(["-c", "import ensurepip, venv"]).stderr(std::process::Stdio::null());
        if !modules.status().is_ok_and(|status| status.success()) {
            return Err(PYTHON.missing().into());
        }
        let mut make = PYTHON.command(folder);
        let make = make.args(["-m", "venv", "--clear", ".venv"]);
        PYTHON.run(make, "python3 -m venv")?;
        let mut install = PROJECT_PYTHON.installed(folder);
        let install = install.args(["-m", "pip", "install", "--quiet"]);
        let install = install.args(["--disable-pip-version-check", "-r", "requirements.txt"]);
        Ok(PROJECT_PYTHON.run(install, "pip install -r requirements.txt")?)
    })?;
    let component = project.component();
    let draft = draft(&component).map_err(|error| ProjectError::io(&component, error))?;
    let mut command = COMPONENTIZE_PY.installed(folder);
    command.args(["-q", "-d", "wit", "-w", WORLD, "componentize", "app"]);
    command.args(["-p", "src", "-p", "vendor/ocelli-sdk", "-o"]).arg(draft.path());
    COMPONENTIZE_PY.run(&mut command, "componentize-py")?;
    persist(draft, &component).map_err(|error| ProjectError::io(&component, error))?;
    Ok(component)
}

fn javascript(project: &Project) -> Result<PathBuf, BuildError> {
    let folder = &project.folder;
    let mut version = NODE.command(folder);
    NODE.output(version.arg("--version"), "node")?;
    let lists = [folder.join("package.json"), folder.join("package-lock.json")];
    once(&folder.join("node_modules"), &lists, || {
        let mut install = NPM.command(folder);
        let install = install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
        Ok(NPM.run(install, "npm install")?)
    })?;
    let component = project.component();
    let before = std::fs::metadata(&component).and_then(|about| about.modified()).ok();
    let mut command = NPM.command(folder);
    NPM.run(command.args(["run", "--silent", "build"]), "npm run build")?;
    let after = std::fs::metadata(&component).and_then(|about| about.modified()).ok();
    if after.is_none() || after == before {
        return Err(BuildError::NoComponent {
            folder: folder.display().to_string(),
            reason: "the script `build` of package.json is to write build/NAME.wasm",
        });
    }
    Ok(component)
}

/// Installs packages into a folder unless those of these lists are in it.
fn once(
    folder: &Path,
    lists: &[PathBuf],
    install: impl FnOnce() -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let stamp = folder.join(STAMP);
    let digest = || {
        // A list that is not there is the installer's to refuse. The place counts too: a Python
        // environment has it inside, and works nowhere else.
        let place = folder.as_os_str().as_encoded_bytes().to_vec();
        let lists = lists.iter().map(|list| std::fs::read(list).unwrap_or_default());
        Digest::of(lists.chain([place]).collect::<Vec<_>>().join(&0)).to_string()
    };
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == digest()) {
        return Ok(());
    }
    // An installation that breaks off leaves no stamp, not even that of the list before.
    match std::fs::remove_file(&stamp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ProjectError::io(&stamp, error).into());
        }
        _ => {}
    }
    install()?;
    // The installer may have written its list.
    std::fs::write(&stamp, digest()).map_err(|error| ProjectError::io(&stamp, error).into())
}

/// Puts a copy of a file in the place of another in one step.
fn place(built: &Path, component: &Path) -> io::Result<()> {
    let draft = draft(component)?;
    std::fs::copy(built, draft.path())?;
    persist(draft, component)
}

/// A file beside a component, whose folder is made.
fn draft(component: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = component.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    tempfile::Builder::new().prefix(".draft-").suffix(".wasm").tempfile_in(folder)
}

/// Gives a draft its name, and the mode that a compiler's output has.
fn persist(draft: tempfile::NamedTempFile, component: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(draft.path(), PermissionsExt::from_mode(0o644))?;
    draft.persist(component)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_installed_again_when_their_list_has_changed_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let (list, packages) = (folder.path().join("list"), folder.path().join("packages"));
        let installs = |text: &str, succeeds: bool| {
            std::fs::write(&list, text).unwrap();
            let mut installed = false;
            let done = once(&packages, std::slice::from_ref(&list), || {
                installed = true;
                std::fs::create_dir_all(&packages).unwrap();
                if succeeds { Ok(()) } else { Err(PYTHON.missing().into()) }
            });
            assert_eq!(done.is_ok(), succeeds || !installed);
            installed
        };
        assert!(installs("a", false), "it broke off");
        assert!(installs("a", true));
        assert!(!installs("a", true));
        assert!(installs("b", true));
    }

    #[test]
    fn a_build_that_makes_no_component_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("build/x.wasm");
        let built = folder.path().join("built");
        std::fs::write(&built, "one").unwrap();
        place(&built, &component).unwrap();
        assert!(place(&folder.path().join("missing"), &component).is_err());
        assert_eq!(std::fs::read_to_string(&component).unwrap(), "one");
        assert_eq!(std::fs::read_dir(component.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_size_is_in_units() {
        assert_eq!(in_units(411_001), "412 KB");
        assert_eq!(in_units(18_520_000), "18.5 MB");
    }
}
