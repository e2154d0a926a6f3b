//! Compiles a component for the workers. Started by `ocelli`, with the component and the output file open; prints the
//! engine's compatibility when asked with `--compatibility`. Exits 1 and says why on standard error where the component
//! cannot be compiled.
//!
//! Whoever sends a component decides what the compiler does with the processor, so it confines itself first. With
//! `--require-sandbox` it compiles nothing where a part of that cannot be had; without, it says so and goes on.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use ocelli_protocol::process::{compile as descriptor, inherited};
use ocelli_sandbox::{Profile, confine, enter, limit};
use ocelli_worker::engine;
use wasmtime::error::Context;

/// Largest component that is compiled, in bytes. A component made of CPython is 40 MB.
const MAX_COMPONENT: u64 = 128 << 20;

/// Private memory, in bytes. A component made of CPython takes 342 MB.
const MEMORY: u64 = 2 << 30;

/// CPU time of all threads together, in seconds. A component made of CPython takes 63 s; the host gives up after 300 s by
/// the clock.
const CPU_TIME: u64 = 600;

/// Descriptors: the standard ones, the component and the output, and a few to spare.
const OPEN_FILES: u64 = 16;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("--compatibility") => print_compatibility(),
        None => compile(false),
        Some("--require-sandbox") => compile(true),
        Some(other) => Err(wasmtime::format_err!("unknown argument {other:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_compatibility() -> wasmtime::Result<()> {
    let engine = engine::engine()?;
    println!("{}", engine::compatibility(&engine));
    Ok(())
}

#[allow(unsafe_code)]
fn compile(require_sandbox: bool) -> wasmtime::Result<()> {
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them yet.
    let (component, mut output) = unsafe {
        enter(descriptor::OUTPUT)?;
        (File::from(inherited(descriptor::COMPONENT)), File::from(inherited(descriptor::OUTPUT)))
    };
    limit::memory(MEMORY).context("limiting memory")?;
    limit::cpu_time(CPU_TIME).context("limiting CPU time")?;
    limit::open_files(OPEN_FILES).context("limiting descriptors")?;
    let confinement = confine(&Profile::compile());
    if !confinement.is_complete() {
        let lacks = confinement.lacks();
        if require_sandbox {
            wasmtime::bail!("the compiler cannot be confined, and `sandbox` is \"required\": {lacks}");
        }
        eprintln!("the compiler is not fully confined: {lacks}");
    }
    let mut bytes = Vec::new();
    component.take(MAX_COMPONENT + 1).read_to_end(&mut bytes).context("reading the component")?;
    if bytes.len() as u64 > MAX_COMPONENT {
        wasmtime::bail!("the component is larger than {} MiB", MAX_COMPONENT >> 20);
    }
    if !bytes.starts_with(b"\0asm") {
        wasmtime::bail!("not a WebAssembly file: it does not begin with \\0asm");
    }
    let engine = engine::engine()?;
    let compiled = engine.precompile_component(&bytes)?;
    output.write_all(&compiled).context("writing the compiled component")?;
    output.sync_all().context("writing the compiled component")?;
    Ok(())
}
