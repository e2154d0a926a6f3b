//! Compiles the shim over libavcodec and links the system's FFmpeg libraries; makes the stand-in for
//! librsvg.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

/// The shim's source, relative to the package.
const SHIM: &str = "src/video/shim.c";

/// What the loader takes in the place of librsvg, and the name by which libavcodec asks for that.
const STAND_IN: &str = "src/video/librsvg.c";
const LIBRSVG: &str = "librsvg-2.so.2";

/// The folder of stand-ins, beside the programs.
const STAND_INS: &str = "stand-ins";

/// What tests need beside it; an object of its own, which only they are linked with.
const SHIM_OF_TESTS: &str = "src/video/shim_tests.c";

/// FFmpeg 5.1, the oldest that the shim is tried with.
const LIBAVCODEC: &str = "59.37";
const LIBAVUTIL: &str = "57.28";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed={STAND_IN}");
    println!("cargo:rerun-if-changed={SHIM_OF_TESTS}");
    println!("cargo:rerun-if-changed=build.rs");
    match build().and_then(|()| stand_in()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let libraries = [probe("libavcodec", LIBAVCODEC)?, probe("libavutil", LIBAVUTIL)?];
    // The linker resolves from left to right: the shim, then libavcodec, then libavutil.
    cc::Build::new()
        .files([SHIM, SHIM_OF_TESTS])
        .includes(libraries.iter().flat_map(|library| &library.include_paths))
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .try_compile("ocelli_video")
        .map_err(|error| format!("{SHIM} does not compile: {error}"))?;
    for library in &libraries {
        library
            .link_paths
            .iter()
            .for_each(|path| println!("cargo:rustc-link-search=native={}", path.display()));
        library.libs.iter().for_each(|name| println!("cargo:rustc-link-lib={name}"));
    }
    Ok(())
}

/// Makes the stand-in in the folder of the programs, where the worker's loader looks for it. Not in
/// RUNPATH but in RPATH: the one holds for what the program asks for, the other for what libavcodec
/// does, too.
fn stand_in() -> Result<(), String> {
    let built = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    // PROGRAMS/build/PACKAGE/out
    let programs = built.ancestors().nth(3).ok_or("OUT_DIR lies nowhere")?;
    let folder = programs.join(STAND_INS);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let library = built.join(LIBRSVG);
    let mut compiler = cc::Build::new().get_compiler().to_command();
    compiler.args(["-shared", "-nostdlib", STAND_IN, "-o"]).arg(&library);
    compiler.arg(format!("-Wl,-soname,{LIBRSVG}"));
    let status = compiler.status().map_err(failed)?;
    if !status.success() {
        return Err(format!("{STAND_IN} does not compile: {status}"));
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    // A worker that runs has the old one mapped: the new one takes its name.
    fs::rename(&library, folder.join(LIBRSVG)).map_err(failed)?;
    println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags,-rpath,$ORIGIN/{STAND_INS}");
    Ok(())
}

fn probe(name: &str, version: &str) -> Result<pkg_config::Library, String> {
    pkg_config::Config::new().atleast_version(version).cargo_metadata(false).probe(name).map_err(
        |error| {
            format!(
                "{name} {version} or newer (FFmpeg 5.1 or newer) was not found by pkg-config.\n\
             On Debian and Ubuntu: apt-get install gcc pkg-config libavcodec-dev \
             libavutil-dev\n\n{error}"
            )
        },
    )
}
