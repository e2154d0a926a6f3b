//! Checks a component and compiles it for the workers. Started by `ocelli`, with the component and
//! the output file open; [`ocelli_protocol::component`] says with which arguments, and what it
//! answers. Prints the engine's compatibility when asked with `--compatibility`.
//!
//! A component decides what the compiler does with the processor, so it confines
//! itself first. With `--require-sandbox` it does nothing where a part of that cannot be had;
//! without, it says so and goes on.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use ocelli_compile::{Requirements, check, not_compiled};
use ocelli_protocol::component::CheckReport;
use ocelli_protocol::engine::{BACKTRACE_DETAILS, EPOCH_INTERRUPTION, MAX_WASM_STACK};
use ocelli_protocol::key::TrustedKey;
use ocelli_protocol::process::{compile as descriptor, inherited};
use ocelli_sandbox::{Profile, confine, enter, limit};
use wasmtime::{Config, Engine, WasmBacktraceDetails};

/// Largest component that is taken where the host does not say, in bytes. A component made of
/// CPython is 40 MB.
const MAX_COMPONENT: u64 = 128 << 20;

/// Addresses, in bytes: that memory, the program, and 128 MiB that the allocator reserves for each
/// thread, of which there is one for each processor.
const ADDRESSES: u64 = descriptor::MEMORY + (32 << 30);

/// CPU time of all threads together, in seconds: for any component, and for each MiB of it. A
/// component made of CPython, 40 MB, takes 63 s, one of Rust 0.2 s; a slow machine may take six
/// times as long. The host gives up after `deploy.compile_timeout_s` by the clock.
const CPU_TIME: u64 = 30;
const CPU_TIME_PER_MIB: u64 = 10;

/// The niceness of a compiler: cameras go first, and it has a quarter of what a worker has beside
/// it.
const NICE: i32 = 5;

/// Descriptors: the standard ones, the component and the output, and a few to spare.
const OPEN_FILES: u64 = 16;

/// Exit status where a report with problems was printed.
const PROBLEMS: u8 = 1;

/// Exit status where no report could be made.
const FAULT: u8 = 2;

fn main() -> ExitCode {
    let done = match Arguments::read(std::env::args().skip(1)) {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => print_compatibility(),
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(FAULT)
    })
}

#[derive(Debug)]
struct Arguments {
    check_only: bool,
    require_sandbox: bool,
    requirements: Requirements,
}

impl Arguments {
    /// None for `--compatibility`.
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<Self>> {
        let mut read = Self {
            check_only: false,
            require_sandbox: false,
            requirements: Requirements { max_bytes: MAX_COMPONENT, trusted: None },
        };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} lacks its value"));
            let trusted = &mut read.requirements.trusted;
            match argument.as_str() {
                "--compatibility" => return Ok(None),
                "--check" => read.check_only = true,
                "--require-sandbox" => read.require_sandbox = true,
                "--max-bytes" => {
                    read.requirements.max_bytes =
                        value()?.parse().context("--max-bytes is not a number")?;
                }
                "--require-signature" => {
                    trusted.get_or_insert_default();
                }
                "--trusted-key" => {
                    let key = TrustedKey::parse(&value()?).context("--trusted-key")?;
                    trusted.get_or_insert_default().push(key);
                }
                other => bail!("unknown argument {other:?}"),
            }
        }
        Ok(Some(read))
    }
}

fn print_compatibility() -> anyhow::Result<ExitCode> {
    println!("{}", compatibility(&engine()?)?);
    Ok(ExitCode::SUCCESS)
}

/// An engine whose code a worker takes.
fn engine() -> anyhow::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(EPOCH_INTERRUPTION);
    config.max_wasm_stack(MAX_WASM_STACK);
    config.wasm_backtrace_details(match BACKTRACE_DETAILS {
        true => WasmBacktraceDetails::Enable,
        false => WasmBacktraceDetails::Disable,
    });
    Engine::new(&config).map_err(|error| anyhow::anyhow!("making the engine: {error:#}"))
}

/// A component without anything in it: the header alone.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

/// Identifies what compiled code is compatible with: Wasmtime's version, the configuration and the
/// CPU's features, all of which Wasmtime writes into whatever it compiles. Part of the name under
/// which compiled components are cached. 16 hexadecimal digits.
fn compatibility(engine: &Engine) -> anyhow::Result<String> {
    let compiled = engine.precompile_component(EMPTY);
    let compiled =
        compiled.map_err(|error| anyhow::anyhow!("compiling an empty component: {error:#}"))?;
    let mut hasher = DefaultHasher::new();
    compiled.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[allow(unsafe_code)]
fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let promised = if arguments.check_only { descriptor::COMPONENT } else { descriptor::OUTPUT };
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them
    // yet.
    let (component, output) = unsafe {
        enter(promised)?;
        let output = (!arguments.check_only).then(|| File::from(inherited(descriptor::OUTPUT)));
        (File::from(inherited(descriptor::COMPONENT)), output)
    };
    limit::priority(NICE).context("lowering the priority")?;
    limit::memory(descriptor::MEMORY).context("limiting memory")?;
    limit::address_space(ADDRESSES).context("limiting addresses")?;
    let size = component.metadata().context("asking for the component's size")?.len();
    limit::cpu_time(cpu_time(size)).context("limiting CPU time")?;
    limit::open_files(OPEN_FILES).context("limiting descriptors")?;
    let confinement = confine(&Profile::compile());
    if !confinement.is_complete() {
        let lacks = confinement.missing_text();
        if arguments.require_sandbox {
            bail!("the compiler cannot be confined, and `sandbox` is \"required\": {lacks}");
        }
        eprintln!("the compiler is not fully confined: {lacks}");
    }
    let mut bytes = Vec::new();
    let most = arguments.requirements.max_bytes.saturating_add(1);
    component.take(most).read_to_end(&mut bytes).context("reading the component")?;
    let mut report = check(&bytes, &arguments.requirements)?;
    if let (Some(output), true) = (output, report.problems.is_empty()) {
        report = compile(&bytes, output, report)?;
    }
    println!("{}", serde_json::to_string(&report).context("writing the report")?);
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS) })
}

/// The CPU time that a component of so many bytes may take, in seconds.
fn cpu_time(size: u64) -> u64 {
    CPU_TIME + size.div_ceil(1 << 20).saturating_mul(CPU_TIME_PER_MIB)
}

/// Compiles what has passed the check.
fn compile(bytes: &[u8], mut output: File, report: CheckReport) -> anyhow::Result<CheckReport> {
    let begun = Instant::now();
    match engine()?.precompile_component(bytes) {
        Ok(compiled) => {
            output.write_all(&compiled).context("writing the compiled component")?;
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok(CheckReport { compile_ms: Some(took), ..report })
        }
        Err(error) => Ok(not_compiled(report, &error)),
    }
}
