//! The worker of one camera session. Started by `ocelli`, with its descriptors; of no use by hand,
//! except that `ocelli-worker --sandbox-check` tries what a worker must not be able to do here, and
//! says so in JSON. `ocelli probe` starts `ocelli-worker --still`, a host `--still jpeg`.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::process::ExitCode;

use anyhow::Context;
use ocelli_protocol::confinement::SandboxCheck;
use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::process::{GrantedDirectory, MAX_DIRECTORIES, worker as descriptor};
use ocelli_sandbox::attempt::{self, EXECUTED, EXECUTED_STATUS, Limits, Targets};
use ocelli_sandbox::{Profile, confine, enter, limit, seal, seal_threads};
use ocelli_worker::session::{inherit, run, write_still};
use ocelli_worker::video::Device;

/// Private memory of a process that decodes one picture, in bytes: the largest that is decoded
/// takes 53 MB in the decoder, its pixels 106 MB, and a stream may refer to 16 pictures.
const STILL_MEMORY: u64 = 1 << 30;

/// Addresses of such a process, in bytes: that memory, the program and its libraries.
const STILL_ADDRESSES: u64 = STILL_MEMORY + (4 << 30);

/// The largest of the descriptors that every process has.
const STANDARD_ERROR: RawFd = 2;

fn main() -> ExitCode {
    let done = if was_given_descriptors() { serve() } else { by_hand() };
    done.unwrap_or_else(|error| {
        eprintln!("ocelli-worker: {error:#}");
        ExitCode::FAILURE
    })
}

/// Whether the host started this process, whatever the session's name: that is the first argument.
#[allow(unsafe_code)]
fn was_given_descriptors() -> bool {
    (descriptor::HOST..=descriptor::REDIS).all(|number| {
        // SAFETY: the descriptor is only asked for its flags; one that is not open is an error.
        rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
    })
}

#[allow(unsafe_code)]
fn serve() -> anyhow::Result<ExitCode> {
    let (device, folders) = granted()?;
    let last = descriptor::REDIS + RawFd::try_from(folders.len())?;
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them
    // yet.
    let mut inherited = unsafe {
        enter(last)?;
        inherit(folders)
    };
    inherited.device = Device::open(&device);
    let profile = Profile::worker(Some(inherited.component.as_fd()))
        .with_directories(inherited.directories.profile());
    let profile = match (&inherited.device, &device) {
        (Ok(Some(_)), DecodeDevice::Vaapi(_)) => profile.with_render_node(),
        (Ok(Some(_)), DecodeDevice::Cuda(_)) => profile.with_devices(),
        _ => profile,
    };
    let confinement = confine(&profile);
    run(inherited, confinement)?;
    Ok(ExitCode::SUCCESS)
}

/// What the session was granted, by the arguments behind its name: what decodes, and folders.
fn granted() -> anyhow::Result<(DecodeDevice, Vec<GrantedDirectory>)> {
    let mut arguments = std::env::args().skip(2).peekable();
    let device = arguments.peek().and_then(|argument| DecodeDevice::of_argument(argument));
    let arguments = arguments.skip(usize::from(device.is_some()));
    let folders = arguments.map(|argument| {
        GrantedDirectory::of_argument(&argument).with_context(|| format!("{argument:?}: no folder"))
    });
    let folders: Vec<_> = folders.collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(folders.len() <= MAX_DIRECTORIES, "{} folders are too many", folders.len());
    Ok((device.unwrap_or_default(), folders))
}

fn by_hand() -> anyhow::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("--sandbox-check") => check(),
        Some("--still") => still(),
        Some(EXECUTED) => Ok(EXECUTED_STATUS.into()),
        _ => {
            anyhow::bail!(
                "this program is started by `ocelli serve`; by hand it takes --sandbox-check alone"
            )
        }
    }
}

/// Confines this process as a worker and decodes one picture, from standard input to standard
/// output. A confinement that lacks a measure is told in the log of the host that runs workers.
#[allow(unsafe_code)]
fn still() -> anyhow::Result<ExitCode> {
    // SAFETY: nothing has been opened yet.
    unsafe { enter(STANDARD_ERROR) }?;
    let confinement = confine(&Profile::worker(None));
    limit::memory(STILL_MEMORY).context("limiting memory")?;
    limit::address_space(STILL_ADDRESSES).context("limiting addresses")?;
    seal(&confinement, false).context("closing the last door")?;
    seal_threads(&confinement).context("ending the start of threads")?;
    let as_jpeg = std::env::args().nth(2).is_some_and(|format| format == "jpeg");
    write_still(
        std::io::stdin().lock(),
        std::io::BufWriter::new(std::io::stdout().lock()),
        as_jpeg,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Confines this process as a worker and makes every attempt. The status is 0 where all were
/// refused.
#[allow(unsafe_code)]
fn check() -> anyhow::Result<ExitCode> {
    // SAFETY: nothing has been opened yet.
    unsafe { enter(STANDARD_ERROR) }?;
    let targets = Targets::new(Limits::CHECK).context("preparing the attempts")?;
    let confinement = confine(&Profile::worker(None));
    Limits::CHECK.set().context("setting the limits")?;
    seal(&confinement, false).context("closing the last door")?;
    seal_threads(&confinement).context("ending the start of threads")?;
    let check = SandboxCheck { confinement, attempts: attempt::make_all(&targets, false) };
    println!("{}", serde_json::to_string(&check)?);
    let held = check.attempts.iter().all(|attempt| attempt.refused);
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
