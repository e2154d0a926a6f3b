//! The tree that every package holds: what `host/src/util/installed.rs` looks for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Product;
use super::ffmpeg::Ffmpeg;
use super::parts::Parts;
use crate::{process, programs};

/// What everybody may read.
pub(crate) const FILE: u32 = 0o644;
/// What everybody may run or enter.
pub(crate) const PROGRAM: u32 = 0o755;

/// The clip of `ocelli demo`: of the clips it is the one whose licence is clear.
const CLIP: &str = "tests/clips/bikes.mp4";

/// Programs that load FFmpeg.
const WITH_FFMPEG: [&str; 2] = ["ocelli-worker", "ocelli-ingest"];

/// Where a program of `bin/` finds the libraries of `lib/`, and where these find each other.
const FROM_PROGRAMS: &str = "$ORIGIN/../lib";
const FROM_LIBRARIES: &str = "$ORIGIN";

/// Puts programs, pipelines, models, the clip and ONNX Runtime below `root`; with `ffmpeg` its
/// libraries, too, which the programs then load instead of the system's.
pub(crate) fn installation(
    product: &Product<'_>,
    root: &Path,
    ffmpeg: Option<&Ffmpeg>,
) -> Result<()> {
    for name in programs::names() {
        let program = root.join("bin").join(name);
        copy(&product.built.join("release").join(name), &program, PROGRAM)?;
        strip(&program)?;
    }
    for (name, path) in files(&product.built.join("pipelines"))? {
        if name.ends_with(".wasm") {
            copy(&path, &root.join("pipelines").join(name), FILE)?;
        }
    }
    models(&product.workspace.root().join("models"), &root.join("models"))?;
    copy(&product.workspace.root().join(CLIP), &root.join("demo/bikes.mp4"), FILE)?;
    let library = product.onnxruntime.file_name().context("a library has a name")?;
    let folder = product.onnxruntime.parent().and_then(Path::file_name).context("in a folder")?;
    copy(&product.onnxruntime, &root.join("lib").join(folder).join(library), FILE)?;
    match ffmpeg {
        Some(ffmpeg) => with_ffmpeg(root, ffmpeg),
        None => stand_ins(&product.built.join("release"), root),
    }
}

/// Takes away the names of functions, which only a debugger reads.
fn strip(file: &Path) -> Result<()> {
    process::run(Command::new("strip").arg("--strip-unneeded").arg(file))
}

/// The stand-ins for libraries that the system's FFmpeg would load; an older build has none.
fn stand_ins(programs: &Path, root: &Path) -> Result<()> {
    let folder = programs.join("stand-ins");
    if !folder.is_dir() {
        return Ok(());
    }
    files(&folder)?.into_iter().try_for_each(|(name, library)| {
        let copied = root.join("bin/stand-ins").join(name);
        copy(&library, &copied, FILE)?;
        strip(&copied)
    })
}

fn with_ffmpeg(root: &Path, ffmpeg: &Ffmpeg) -> Result<()> {
    let set = |file: &Path, path: &str| {
        process::run(Command::new("patchelf").args(["--set-rpath", path]).arg(file))
    };
    for (name, library) in files(&ffmpeg.libraries())? {
        let copied = root.join("lib").join(name);
        copy(&library, &copied, FILE)?;
        set(&copied, FROM_LIBRARIES)?;
    }
    WITH_FFMPEG.iter().try_for_each(|name| set(&root.join("bin").join(name), FROM_PROGRAMS))
}

fn models(from: &Path, to: &Path) -> Result<()> {
    for (name, folder) in files(from)? {
        if folder.is_dir() {
            for file in ["model.onnx", "model.toml"] {
                copy(&folder.join(file), &to.join(&name).join(file), FILE)?;
            }
        }
    }
    Ok(())
}

/// Puts what there is to read into a folder: licences, parts, and the config's commented defaults.
pub(crate) fn documents(product: &Product<'_>, parts: &Parts, folder: &Path) -> Result<()> {
    let root = product.workspace.root();
    copy(&parts.licences, &folder.join("THIRD-PARTY-LICENCES.txt"), FILE)?;
    copy(&parts.sbom, &folder.join("sbom.cdx.json"), FILE)?;
    for (from, to) in [
        ("config/ocelli.toml", "ocelli.toml"),
        ("config/ocelli.schema.json", "ocelli.schema.json"),
        ("models/README.md", "models.md"),
    ] {
        copy(&root.join(from), &folder.join(to), FILE)?;
    }
    Ok(())
}

/// Writes the pages of the manual and the completions of shells, as the staged program makes them.
pub(crate) fn for_shells(program: &Path, man: &Path, completions: &Path) -> Result<()> {
    fs::create_dir_all(man)?;
    process::run(Command::new(program).arg("man").arg(man))?;
    for (shell, file) in COMPLETIONS {
        let script = process::output(Command::new(program).args(["completions", shell]))?;
        write(&completions.join(file), &script, FILE)?;
    }
    for (_, page) in files(man)? {
        fs::set_permissions(&page, Permissions::from_mode(FILE))?;
    }
    Ok(())
}

/// Each shell, and where its script goes below `share`.
pub(crate) const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/ocelli"),
    ("zsh", "zsh/vendor-completions/_ocelli"),
    ("fish", "fish/vendor_completions.d/ocelli.fish"),
];

/// The systemd unit for programs and config in their places on this kind of system.
pub(crate) fn unit(product: &Product<'_>, program: &str) -> Result<String> {
    let text = read(&product.workspace.root().join("config/ocelli.service"))?;
    let body = text.split_once("[Unit]").context("a unit has a section [Unit]")?.1;
    Ok(format!("[Unit]{body}").replace("/opt/ocelli/bin/ocelli", program))
}

/// The config of the service, with the models below `root`. `every_key` is the config with all
/// defaults, as it was installed.
pub(crate) fn service_config(product: &Product<'_>, root: &str, every_key: &str) -> Result<String> {
    let text = read(&product.workspace.root().join("config/service.toml"))?;
    // Its own comment speaks of the repository.
    let body = text.split_once("\n\n").context("a config with a comment above it")?.1;
    let comment =
        format!("# The config of the service. Every key and its default:\n# {every_key}\n\n");
    Ok(comment + &body.replace("/opt/ocelli", root))
}

/// The files and folders of a folder, sorted by name.
pub(crate) fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in list {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    files.sort();
    Ok(files)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Copies a file, with the folders above it.
pub(crate) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    folder_of(to)?;
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

/// Writes a file, with the folders above it.
pub(crate) fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    folder_of(to)?;
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(mode))?)
}

/// Makes the folders above a file, open to all whatever the umask is.
fn folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().context("a file is in a folder")?;
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(PROGRAM))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::package::{archive, wheel};
    use crate::workspace::Workspace;

    /// A build of programs that do nothing, and a library that is none.
    fn product<'a>(workspace: &'a Workspace, folder: &Path) -> Product<'a> {
        let built = folder.join("target");
        for name in programs::names() {
            copy(Path::new("/bin/true"), &built.join("release").join(name), PROGRAM).unwrap();
        }
        write(&built.join("pipelines/object-detect.wasm"), "component", FILE).unwrap();
        write(&built.join("pipelines/notes.txt"), "", FILE).unwrap();
        let library = folder.join("cache/onnxruntime-1.28.0/libonnxruntime.so.1.28.0");
        write(&library, "library", FILE).unwrap();
        let out = folder.join("out");
        fs::create_dir_all(out.join("stage")).unwrap();
        let version = workspace.version().to_owned();
        Product { workspace, built, out, version, epoch: 1_700_000_000, onnxruntime: library }
    }

    #[test]
    fn a_staged_tree_has_what_the_program_looks_for() {
        let (workspace, folder) = (Workspace::find().unwrap(), tempfile::tempdir().unwrap());
        let product = product(&workspace, folder.path());
        let root = folder.path().join("root");
        installation(&product, &root, None).unwrap();
        for (file, mode) in [
            ("bin/ocelli", PROGRAM),
            ("bin/ocelli-compile", PROGRAM),
            ("pipelines/object-detect.wasm", FILE),
            ("models/nanodet-g-320-int8/model.toml", FILE),
            ("demo/bikes.mp4", FILE),
            ("lib/onnxruntime-1.28.0/libonnxruntime.so.1.28.0", FILE),
            ("lib", PROGRAM),
        ] {
            let found = fs::metadata(root.join(file)).unwrap_or_else(|_| panic!("{file}"));
            assert_eq!(found.mode() & 0o777, mode, "{file}");
        }
        assert!(!root.join("pipelines/notes.txt").exists());
        assert!(!root.join("models/quantise.py").exists());
    }

    #[test]
    fn the_same_tree_gives_the_same_archive_and_wheel_whenever_it_was_written() {
        let (workspace, folder) = (Workspace::find().unwrap(), tempfile::tempdir().unwrap());
        let product = product(&workspace, folder.path());
        let digests = ["first", "second"].map(|name| {
            let tree = folder.path().join(name);
            // In another order.
            let mut files =
                [("a/program", "x", PROGRAM), ("b", "y", FILE), ("z.dist-info/WHEEL", "", FILE)];
            if name == "second" {
                files.reverse();
            }
            for (file, text, mode) in files {
                write(&tree.join(file), text, mode).unwrap();
                let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mode.into());
                let written = fs::File::open(tree.join(file)).unwrap();
                written
                    .set_modified(if name == "first" { then } else { std::time::SystemTime::now() })
                    .unwrap();
            }
            let (tar, whl) = (tree.with_extension("tar"), tree.with_extension("whl"));
            archive::pack(&product, &archive::Tree::all(&tree), &tar, &["cat"]).unwrap();
            wheel::pack(&product, &tree, &whl).unwrap();
            [tar, whl].map(|file| crate::onnxruntime::sha256(&file).unwrap())
        });
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn unit_and_config_have_the_paths_of_their_package() {
        let (workspace, folder) = (Workspace::find().unwrap(), tempfile::tempdir().unwrap());
        let product = product(&workspace, folder.path());
        let unit = unit(&product, "/usr/bin/ocelli").unwrap();
        assert!(unit.starts_with("[Unit]\n"), "{unit}");
        assert!(
            unit.contains("ExecStart=/usr/bin/ocelli serve --config /etc/ocelli/ocelli.toml\n")
        );
        let config = service_config(&product, "/usr/lib/ocelli", "/usr/share/ocelli.toml").unwrap();
        assert!(config.contains("directory = \"/usr/lib/ocelli/models\""), "{config}");
        assert!(!(unit + &config).contains("/opt/"), "{config}");
    }
}
