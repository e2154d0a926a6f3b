//! Compiles the shim over libavformat and links the system's FFmpeg libraries.

use std::process::ExitCode;

/// The shim's source, relative to the package.
const SHIM: &str = "src/shim.c";

/// FFmpeg 5.1, the oldest that the shim is tried with.
const LIBAVFORMAT: &str = "59.27";
const LIBAVCODEC: &str = "59.37";
const LIBAVUTIL: &str = "57.28";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed=build.rs");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let libraries = [
        probe("libavformat", LIBAVFORMAT)?,
        probe("libavcodec", LIBAVCODEC)?,
        probe("libavutil", LIBAVUTIL)?,
    ];
    // The linker resolves from left to right: the shim, then the libraries, each before those that
    // it needs.
    cc::Build::new()
        .file(SHIM)
        .includes(libraries.iter().flat_map(|library| &library.include_paths))
        .std("gnu11")
        .warnings(true)
        .extra_warnings(true)
        .try_compile("ocelli_ingest")
        .map_err(|error| format!("{SHIM} does not compile: {error}"))?;
    for library in &libraries {
        library
            .link_paths
            .iter()
            .for_each(|path| println!("cargo:rustc-link-search=native={}", path.display()));
        library.libs.iter().for_each(|name| println!("cargo:rustc-link-lib={name}"));
    }
    // libavformat calls this program's own functions of these names: see interpose.rs.
    let network = ["connect", "getaddrinfo", "freeaddrinfo", "sendto", "recv", "recvfrom"];
    for symbol in network.into_iter().chain(["av_get_random_seed"]) {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
    // The worker's build makes what lies there: a stand-in for librsvg, which libavcodec would bring.
    println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags,-rpath,$ORIGIN/stand-ins");
    Ok(())
}

fn probe(name: &str, version: &str) -> Result<pkg_config::Library, String> {
    pkg_config::Config::new().atleast_version(version).cargo_metadata(false).probe(name).map_err(
        |error| {
            format!(
                "{name} {version} or newer (FFmpeg 5.1 or newer) was not found by pkg-config.\n\
             On Debian and Ubuntu: apt-get install gcc pkg-config libavformat-dev \
             libavcodec-dev libavutil-dev\n\n{error}"
            )
        },
    )
}
