//! The FFmpeg that archive, wheel and image bring: built from the source package of the version that
//! the programs were built against, with what Ocelli reads and nothing else.
//!
//! Debian's own libraries cannot be copied: they are built with GPL parts, need a hundred other
//! libraries, and their licence would extend to the whole package. This build is under the
//! LGPL-2.1-or-later, 5 MB large, and needs zlib and libc alone. It is linked dynamically, and what
//! the LGPL asks for goes with it: the licence, how it was built, and its source beside the
//! packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{Product, cleared, stage};
use crate::{onnxruntime, process};

/// The package whose headers and libraries the programs were built against.
const BUILT_AGAINST: &str = "libavformat-dev";

const LIBRARIES: [&str; 3] =
    ["libavcodec/libavcodec.so.59", "libavformat/libavformat.so.59", "libavutil/libavutil.so.57"];

const LICENCE: &str = "COPYING.LGPLv2.1";

/// The file that says how the libraries were built.
const RECIPE: &str = "FFMPEG.txt";

/// The decoders of the worker, the containers of `host/ingest/src/shim.c` with the parsers that find
/// out what is in them, and RTSP.
const CONFIGURE: &[&str] = &[
    "--prefix=/usr",
    "--disable-everything",
    "--disable-autodetect",
    "--disable-programs",
    "--disable-doc",
    "--disable-debug",
    "--disable-static",
    "--enable-shared",
    "--enable-pic",
    "--disable-avdevice",
    "--disable-avfilter",
    "--disable-swscale",
    "--disable-swresample",
    "--disable-postproc",
    "--enable-network",
    "--enable-zlib",
    "--enable-decoder=h264,hevc,mjpeg",
    "--enable-parser=h264,hevc,mjpeg,aac,ac3,mpegaudio,mpeg4video,mpegvideo",
    "--enable-demuxer=mov,matroska,mpegts,avi,mpegps,dhav,flv,live_flv,h264,hevc,mjpeg",
    "--enable-demuxer=rtsp,rtp,sdp",
    "--enable-protocol=rtp,tcp,udp",
    "--enable-bsf=h264_mp4toannexb,hevc_mp4toannexb,extract_extradata",
];

/// The libraries and what goes with them, in the user's cache folder.
pub(crate) struct Ffmpeg {
    folder: PathBuf,
    /// Debian's version, without the epoch.
    pub(crate) version: String,
}

impl Ffmpeg {
    /// The folder of the libraries.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.folder.join("lib")
    }

    /// Puts its licence, and how it was built, into a folder.
    pub(crate) fn documents(&self, folder: &Path) -> Result<()> {
        stage::copy(&self.folder.join(LICENCE), &folder.join("FFMPEG-LGPL-2.1.txt"), stage::FILE)?;
        stage::copy(&self.folder.join(RECIPE), &folder.join(RECIPE), stage::FILE)
    }
}

/// The source package's version that the programs were built against, with its epoch.
pub(crate) fn source_version() -> Result<String> {
    let query = ["-W", "-f=${source:Version}", BUILT_AGAINST];
    process::output(Command::new("dpkg-query").args(query))
        .with_context(|| format!("FFmpeg is built from Debian's source of {BUILT_AGAINST}"))
}

/// A version as files have it in their names: without the epoch.
pub(crate) fn without_epoch(version: &str) -> &str {
    version.split_once(':').map_or(version, |(_, version)| version)
}

/// The libraries, built unless the cache has them; their source goes beside the packages.
pub(crate) fn libraries(product: &Product<'_>) -> Result<Ffmpeg> {
    let source = source_version()?;
    let version = without_epoch(&source).to_owned();
    let recipe: String = CONFIGURE.iter().flat_map(|option| [option, " "]).collect();
    let digest: String =
        Sha256::digest(&recipe).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let folder = onnxruntime::cache()?.join(format!("ffmpeg-{version}-{digest}"));
    let ffmpeg = Ffmpeg { folder, version };
    if !ffmpeg.folder.join(RECIPE).is_file() {
        process::step(&format!("building FFmpeg {} (once; two minutes)", ffmpeg.version), || {
            build(&ffmpeg, &source)
        })?;
    }
    for (name, file) in stage::files(&ffmpeg.folder.join("source"))? {
        stage::copy(&file, &product.out.join("ffmpeg-source").join(name), stage::FILE)?;
    }
    Ok(ffmpeg)
}

fn build(ffmpeg: &Ffmpeg, source: &str) -> Result<()> {
    let cache = onnxruntime::cache()?;
    fs::create_dir_all(&cache)?;
    let work = tempfile::tempdir_in(&cache).context("cannot write in the cache folder")?;
    let source = fetch_source(work.path(), source)?;
    let tree = work.path().join("tree");
    let mut unpack = Command::new("dpkg-source");
    process::run(unpack.current_dir(work.path()).arg("-x").arg(&source).arg(&tree))?;
    let run = |command: &mut Command| process::output(command.current_dir(&tree));
    run(Command::new("./configure").args(CONFIGURE))?;
    let header = stage::read(&tree.join("config.h"))?;
    let licence = "FFMPEG_LICENSE \"LGPL version 2.1 or later\"";
    ensure!(header.contains(licence), "FFmpeg's configure chose another licence");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    run(Command::new("make").arg(format!("-j{cores}")))?;
    cleared(&ffmpeg.folder)?;
    for library in LIBRARIES {
        let name = library.rsplit('/').next().context("a library has a name")?;
        let copied = ffmpeg.libraries().join(name);
        stage::copy(&tree.join(library), &copied, stage::FILE)?;
        process::run(Command::new("strip").arg("--strip-unneeded").arg(&copied))?;
    }
    stage::copy(&tree.join(LICENCE), &ffmpeg.folder.join(LICENCE), stage::FILE)?;
    let mut files = String::new();
    for (name, file) in stage::files(work.path())? {
        if file.is_file() && name.starts_with("ffmpeg_") {
            files += &format!("    {}  {name}\n", onnxruntime::sha256(&file)?);
            stage::copy(&file, &ffmpeg.folder.join("source").join(name), stage::FILE)?;
        }
    }
    let recipe = format!(
        "The libraries libavcodec, libavformat and libavutil are FFmpeg's, under the\n\
         LGPL-2.1-or-later. You may replace them with others of the same major versions. They were\n\
         built from Debian's source package ffmpeg {}, which lies in ffmpeg-source/ beside this\n\
         package and at https://snapshot.debian.org/package/ffmpeg/:\n\n{files}\n\
         dpkg-source -x ffmpeg_{}.dsc ffmpeg && cd ffmpeg\n./configure {}\nmake\n\n\
         Then they were stripped, and patchelf told them where they lie.\n",
        ffmpeg.version,
        ffmpeg.version,
        CONFIGURE.join(" \\\n    "),
    );
    stage::write(&ffmpeg.folder.join(RECIPE), &recipe, stage::FILE)
}

/// Downloads the source package with apt, whose lists of sources the machine need not have, and
/// returns its description.
fn fetch_source(work: &Path, version: &str) -> Result<PathBuf> {
    let release = stage::read(Path::new("/etc/os-release"))?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .filter(|_| release.lines().any(|line| line == "ID=debian"))
        .context("FFmpeg's source is Debian's: this needs a Debian")?;
    let keys = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    let list = format!(
        "deb-src [{keys}] http://deb.debian.org/debian {codename} main\n\
         deb-src [{keys}] http://deb.debian.org/debian-security {codename}-security main\n"
    );
    let sources = work.join("sources.list");
    stage::write(&sources, &list, stage::FILE)?;
    let lists = work.join("lists");
    fs::create_dir_all(lists.join("partial"))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work).arg("-q");
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", sources.display()));
        command.args(["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User=root"]);
        command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        process::output(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", &format!("ffmpeg={version}")])?;
    let found = stage::files(work)?.into_iter().find(|(name, _)| name.ends_with(".dsc"));
    Ok(found.context("apt brought no source package")?.1)
}
