//! `ocelli_VERSION_amd64.deb`, with dpkg's own tools on a tree of ours: cargo-deb would lay out
//! the same tree a second time, and knows neither the other packages' nor ONNX Runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::parts::Parts;
use super::{Product, stage, told};
use crate::process;

/// Where the product lies. Its programs look for the rest beside them.
const HOME: &str = "/usr/lib/ocelli";

/// The config: it is to hold cameras' passwords. Its group becomes the service's when it is
/// installed.
const CONFIG: &str = "etc/ocelli/ocelli.toml";
const CONFIG_MODE: u32 = 0o640;

/// The config with all defaults.
const EVERY_KEY: &str = "/usr/share/doc/ocelli/examples/ocelli.toml";

const CONTROL: &str = include_str!("debian/control");
const COPYRIGHT: &str = include_str!("debian/copyright");
const OVERRIDES: &str = include_str!("debian/lintian-overrides");
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("debian/postinst")),
    ("prerm", include_str!("debian/prerm")),
    ("postrm", include_str!("debian/postrm")),
];

pub(crate) fn make(product: &Product<'_>, parts: &Parts) -> Result<()> {
    let root = product.stage("deb")?;
    let home = root.join(HOME.trim_start_matches('/'));
    stage::installation(product, &home, None)?;
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink("../lib/ocelli/bin/ocelli", bin.join("ocelli"))?;
    let config = stage::service_config(product, HOME, EVERY_KEY)?;
    stage::write(&root.join(CONFIG), &config, CONFIG_MODE)?;
    let unit = stage::unit(product, "/usr/bin/ocelli")?;
    stage::write(&root.join("lib/systemd/system/ocelli.service"), &unit, stage::FILE)?;
    documents(product, parts, &root)?;
    let control = root.join("DEBIAN");
    stage::write(&control.join("conffiles"), &format!("/{CONFIG}\n"), stage::FILE)?;
    for (name, script) in SCRIPTS {
        stage::write(&control.join(name), script, stage::PROGRAM)?;
    }
    let depends = depends(product, &home)?;
    let text = control_file(&product.version, &depends, installed_kib(&root)?);
    stage::write(&control.join("control"), &text, stage::FILE)?;
    stage::write(&control.join("md5sums"), &md5sums(&root)?, stage::FILE)?;
    open_folders(&root)?;
    let package = product.out.join(format!("ocelli_{}_amd64.deb", product.version));
    let mut build = product.command("dpkg-deb");
    // One thread: with several the result depends on how many.
    build.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
    process::output(build.arg(&root).arg(&package))?;
    told(&package)
}

/// What stands below `/usr/share`.
fn documents(product: &Product<'_>, parts: &Parts, root: &Path) -> Result<()> {
    let share = root.join("usr/share");
    let doc = share.join("doc/ocelli");
    stage::documents(product, parts, &doc.join("examples"))?;
    for name in ["THIRD-PARTY-LICENCES.txt", "sbom.cdx.json", "models.md"] {
        fs::rename(doc.join("examples").join(name), doc.join(name))?;
    }
    stage::write(&doc.join("copyright"), COPYRIGHT, stage::FILE)?;
    let changes = changelog(product)?;
    stage::write(&doc.join("changelog"), &changes, stage::FILE)?;
    let news = stage::read(&product.workspace.root().join("CHANGELOG.md"))?;
    stage::write(&doc.join("CHANGELOG.md"), &news, stage::FILE)?;
    stage::write(&share.join("lintian/overrides/ocelli"), OVERRIDES, stage::FILE)?;
    let program = root.join("usr/lib/ocelli/bin/ocelli");
    stage::for_shells(&program, &share.join("man/man1"), &share)?;
    let mut packed: Vec<PathBuf> =
        stage::files(&share.join("man/man1"))?.into_iter().map(|(_, path)| path).collect();
    packed.extend(
        ["changelog", "CHANGELOG.md", "THIRD-PARTY-LICENCES.txt"].map(|name| doc.join(name)),
    );
    // Without the time and the name in it.
    process::run(Command::new("gzip").args(["-9n"]).args(packed))
}

/// The package's own changelog, in Debian's form: one entry for the version that it is.
fn changelog(product: &Product<'_>) -> Result<String> {
    let date = process::output(product.command("date").args([
        "-u",
        "-R",
        &format!("--date=@{}", product.epoch),
    ]))?;
    Ok(format!(
        "ocelli ({}) unstable; urgency=medium\n\n  * What is new stands in CHANGELOG.md.gz.\n\n \
         -- The Ocelli developers <ocelli@localhost>  {}\n",
        product.version,
        date.trim()
    ))
}

fn control_file(version: &str, depends: &str, kib: u64) -> String {
    CONTROL
        .replace("@VERSION@", version)
        .replace("@DEPENDS@", depends)
        .replace("@SIZE@", &kib.to_string())
}

/// The packages of the shared libraries that the programs load.
fn depends(product: &Product<'_>, home: &Path) -> Result<String> {
    let work = product.stage("shlibdeps")?;
    // The tool asks for a source package around it.
    let control = "Source: ocelli\n\nPackage: ocelli\nArchitecture: amd64\n";
    stage::write(&work.join("debian/control"), control, stage::FILE)?;
    let mut tool = product.command("dpkg-shlibdeps");
    tool.current_dir(&work).arg("-O").arg(format!("-l{}", home.join("lib").display()));
    let programs = stage::files(&home.join("bin"))?.into_iter();
    for (_, program) in programs.filter(|(_, path)| path.is_file()) {
        tool.arg(format!("-e{}", program.display()));
    }
    for (_, folder) in stage::files(&home.join("lib"))? {
        for (_, library) in stage::files(&folder)? {
            tool.arg(format!("-e{}", library.display()));
        }
    }
    let found = process::output(&mut tool)?;
    let list = found.trim().strip_prefix("shlibs:Depends=");
    Ok(list.context("dpkg-shlibdeps said something else")?.to_owned())
}

/// The sum that dpkg verifies files by, of all but configs.
fn md5sums(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    walk(root, &mut |path, is_file| {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if is_file && !name.starts_with("DEBIAN/") && !name.starts_with("etc/") {
            files.push(name);
        }
        Ok(())
    })?;
    files.sort();
    process::output(Command::new("md5sum").current_dir(root).args(files))
}

fn installed_kib(root: &Path) -> Result<u64> {
    let mut kib = 0;
    walk(root, &mut |path, is_file| {
        // As Debian counts: whole KiB for a file, one for anything else.
        kib += if is_file { fs::metadata(path)?.len().div_ceil(1024) } else { 1 };
        Ok(())
    })?;
    Ok(kib)
}

fn open_folders(root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    walk(root, &mut |path, _| {
        if path.is_dir() && !path.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(stage::PROGRAM))?;
        }
        Ok(())
    })?;
    Ok(fs::set_permissions(root, fs::Permissions::from_mode(stage::PROGRAM))?)
}

/// Calls `visit` with all below a folder, and whether it is a file.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    for (_, path) in stage::files(folder)? {
        let is_folder = path.is_dir() && !path.is_symlink();
        visit(&path, path.is_file() && !path.is_symlink())?;
        if is_folder {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_every_field_filled() {
        let text = control_file("1.2.3", "libc6 (>= 2.34)", 4096);
        for line in ["Version: 1.2.3", "Installed-Size: 4096"] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert!(text.contains("Depends: libc6 (>= 2.34), adduser"), "{text}");
        assert!(["@VERSION", "@DEPENDS", "@SIZE"].iter().all(|hole| !text.contains(hole)));
    }

    #[test]
    fn the_scripts_are_ones_that_a_shell_reads() {
        for (name, script) in SCRIPTS {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(name);
            fs::write(&file, script).unwrap();
            process::run(Command::new("sh").arg("-n").arg(&file)).unwrap();
            assert!(script.starts_with("#!/bin/sh\nset -e\n"), "{name}");
        }
    }
}
