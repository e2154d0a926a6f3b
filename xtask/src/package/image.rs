//! `ocelli-VERSION-image/`: an OCI image as a layout, which `podman pull oci:DIR` and
//! `skopeo copy oci:DIR` take. No engine is needed to make it.
//!
//! Three layers: Debian's libc, C++ library, zlib and certificates, without shell and package
//! manager; the product with its own FFmpeg, as in the archive; and the folders of the service's
//! user. It runs without root and with a read-only root: only those folders are written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::archive::Tree;
use super::ffmpeg::Ffmpeg;
use super::parts::Parts;

use super::{Product, archive, cleared, stage, told};
use crate::{onnxruntime, process};

/// The release of Debian whose glibc the programs are built against.
const RELEASE: &str = "bookworm";

/// What programs and ONNX Runtime load, and whom they trust.
const PACKAGES: &str = "base-files,ca-certificates,libc6,libgcc-s1,libstdc++6,netbase,zlib1g";

/// Of the base, what no program reads: only the licences of `/usr/share/doc` stay.
const UNREAD: [&str; 6] = [
    "usr/share/bug",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
];

/// The user and group: the number that images without root have settled on.
const USER: u32 = 65_532;

/// What that user may write to.
const STATE: [&str; 2] = ["var/lib/ocelli", "var/log/ocelli"];

const HOME: &str = "/opt/ocelli";
const CONFIG: &str = "/etc/ocelli/ocelli.toml";

pub(crate) fn make(product: &Product<'_>, parts: &Parts, ffmpeg: &Ffmpeg) -> Result<()> {
    let layout = product.out.join(format!("ocelli-{}-image", product.version));
    cleared(&layout)?;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let mut layers = Vec::new();
    let (base, own, state) = (base(product)?, own(product, parts, ffmpeg)?, state(product)?);
    let of_user = Tree { folder: &state, members: &STATE, owner: USER };
    for (name, tree) in [
        ("Debian's libraries", Tree::all(&base)),
        ("Ocelli", Tree::all(&own)),
        ("the folders of its user", of_user),
    ] {
        layers.push(Layer::packed(product, &blobs, name, &tree)?);
    }
    let config = blob(&blobs, &config(product, &layers)?)?;
    let layer = |layer: &Layer| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": format!("sha256:{}", layer.digest),
            "size": layer.size,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    let manifest = blob(&blobs, &manifest)?;
    let (digest, size) = manifest;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{digest}"),
            "size": size,
            "annotations": { "org.opencontainers.image.ref.name": product.version },
        }],
    });
    stage::write(&layout.join("index.json"), &index.to_string(), stage::FILE)?;
    let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
    stage::write(&layout.join("oci-layout"), &version, stage::FILE)?;
    for layer in &layers {
        eprintln!("    layer {:.1} MB: {}", layer.size as f64 / 1e6, layer.name);
    }
    told(&layout.join("index.json"))
}

struct Layer {
    name: &'static str,
    /// Of the compressed archive.
    digest: String,
    size: u64,
    /// Of the archive itself.
    diff: String,
}

impl Layer {
    fn packed(
        product: &Product<'_>,
        blobs: &Path,
        name: &'static str,
        tree: &Tree<'_>,
    ) -> Result<Self> {
        let tar = product.out.join("stage/layer.tar");
        archive::pack(product, tree, &tar, &["cat"])?;
        let diff = onnxruntime::sha256(&tar)?;
        process::run(product.command("gzip").args(["-6nf"]).arg(&tar))?;
        let packed = tar.with_extension("tar.gz");
        let digest = onnxruntime::sha256(&packed)?;
        let size = fs::metadata(&packed)?.len();
        fs::rename(&packed, blobs.join(&digest))?;
        Ok(Self { name, digest, size, diff })
    }
}

/// Debian's part of the root, which is only unpacked: nothing in it was run.
fn base(product: &Product<'_>) -> Result<PathBuf> {
    let root = product.stage("image-base")?;
    let mut tool = product.command("mmdebstrap");
    tool.args(["--quiet", "--variant=extract", &format!("--include={PACKAGES}")]);
    // The security updates as well.
    tool.args(["--components=main", RELEASE]).arg(&root);
    for suite in ["", "-updates"] {
        tool.arg(format!("deb http://deb.debian.org/debian {RELEASE}{suite} main"));
    }
    tool.arg(format!("deb http://deb.debian.org/debian-security {RELEASE}-security main"));
    process::output(&mut tool).context("the image's base takes a network")?;
    for unread in UNREAD {
        let path = root.join(unread);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    // What cannot be the same twice, or is this machine's.
    for file in ["etc/apt", "var/log", "etc/resolv.conf", "etc/hostname", "dev"] {
        let path = root.join(file);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
    }
    let certificates = certificates(&root.join("usr/share/ca-certificates/mozilla"))?;
    stage::write(&root.join("etc/ssl/certs/ca-certificates.crt"), &certificates, stage::FILE)?;
    let users = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         ocelli:x:{USER}:{USER}:Ocelli:/var/lib/ocelli:/usr/sbin/nologin\n"
    );
    stage::write(&root.join("etc/passwd"), &users, stage::FILE)?;
    let groups = format!("root:x:0:\nocelli:x:{USER}:\n");
    stage::write(&root.join("etc/group"), &groups, stage::FILE)?;
    Ok(root)
}

/// All authorities in one file, as Debian's script would write it.
fn certificates(folder: &Path) -> Result<String> {
    stage::files(folder)?.iter().map(|(_, path)| stage::read(path)).collect()
}

fn own(product: &Product<'_>, parts: &Parts, ffmpeg: &Ffmpeg) -> Result<PathBuf> {
    let root = product.stage("image")?;
    let home = root.join(HOME.trim_start_matches('/'));
    stage::installation(product, &home, Some(ffmpeg))?;
    stage::documents(product, parts, &home.join("doc"))?;
    ffmpeg.documents(&home.join("doc"))?;
    let config = stage::service_config(product, HOME, &format!("{HOME}/doc/ocelli.toml"))?;
    stage::write(&root.join(CONFIG.trim_start_matches('/')), &config, stage::FILE)?;
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink(format!("{HOME}/bin/ocelli"), bin.join("ocelli"))?;
    Ok(root)
}

fn state(product: &Product<'_>) -> Result<PathBuf> {
    let root = product.stage("image-state")?;
    for folder in STATE {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(root)
}

fn config(product: &Product<'_>, layers: &[Layer]) -> Result<Value> {
    let date = ["-u", "+%Y-%m-%dT%H:%M:%SZ", &format!("--date=@{}", product.epoch)];
    let created = process::output(Command::new("date").args(date))?.trim().to_owned();
    let diffs: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff)).collect();
    let history = |layer: &Layer| json!({ "created": created, "created_by": layer.name });
    let second = 1_000_000_000_u64;
    Ok(json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": { "8001/tcp": {} },
            "Env": ["PATH=/usr/bin:/bin", "HOME=/var/lib/ocelli"],
            "Entrypoint": ["/usr/bin/ocelli"],
            "Cmd": ["serve", "--config", CONFIG],
            "Volumes": { "/var/lib/ocelli": {}, "/var/log/ocelli": {} },
            "WorkingDir": "/var/lib/ocelli",
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "Ocelli",
                "org.opencontainers.image.description": "Live camera analytics",
                "org.opencontainers.image.version": product.version,
                "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
            },
            "Healthcheck": {
                "Test": ["CMD", "/usr/bin/ocelli", "sessions", "--json"],
                "Interval": 30 * second,
                "Timeout": 10 * second,
                "StartPeriod": 60 * second,
                "Retries": 3,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": diffs },
        "history": layers.iter().map(history).collect::<Vec<_>>(),
    }))
}

/// A blob's digest and size.
type Blob = (String, u64);

fn blob(blobs: &Path, content: &Value) -> Result<Blob> {
    let text = content.to_string();
    let draft = blobs.join("draft");
    stage::write(&draft, &text, stage::FILE)?;
    let digest = onnxruntime::sha256(&draft)?;
    fs::rename(&draft, blobs.join(&digest))?;
    Ok((digest, text.len() as u64))
}

fn descriptor(media_type: &str, (digest, size): &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}
