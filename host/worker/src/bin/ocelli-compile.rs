//! Compiles a component for the workers. Started by `ocelli`, with the component and the output file open; prints the
//! engine's compatibility when asked with `--compatibility`. Exits 1 and says why on standard error where the component
//! cannot be compiled.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use ocelli_protocol::process::{compile as descriptor, die_with_parent, inherited};
use ocelli_worker::engine;
use wasmtime::error::Context;

/// Largest component that is compiled, in bytes. A component made of CPython is 40 MB.
const MAX_COMPONENT: u64 = 128 << 20;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("--compatibility") => print_compatibility(),
        _ => compile(),
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
fn compile() -> wasmtime::Result<()> {
    die_with_parent()?;
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them yet.
    let (component, mut output) =
        unsafe { (File::from(inherited(descriptor::COMPONENT)), File::from(inherited(descriptor::OUTPUT))) };
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
