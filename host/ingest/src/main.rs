//! The reader process of one source. Started by `ocelli`, with its descriptors; of no use by hand,
//! except that `ocelli-ingest --sandbox-check` tries what a reader must not be able to do here, and
//! says so in JSON.

mod interpose;

use std::os::fd::{BorrowedFd, RawFd};
use std::process::ExitCode;

use anyhow::Context;
use ocelli_ingest::session::{inherit, run};
use ocelli_protocol::confinement::SandboxCheck;
use ocelli_protocol::process::ingest as descriptor;
use ocelli_sandbox::attempt::{self, EXECUTED, EXECUTED_STATUS, Targets};
use ocelli_sandbox::{Profile, confine, enter, limit};

/// Limits of the check. A reader's own are the host's; that the kernel keeps to them does not
/// depend on the figure.
const CHECK_MEMORY: u64 = 256 << 20;
const CHECK_OPEN_FILES: u64 = 64;

/// The largest of the descriptors that every process has.
const STANDARD_ERROR: RawFd = 2;

fn main() -> ExitCode {
    let done = if was_given_descriptors() { serve() } else { by_hand() };
    done.unwrap_or_else(|error| {
        eprintln!("ocelli-ingest: {error:#}");
        ExitCode::FAILURE
    })
}

/// Whether the host started this process.
#[allow(unsafe_code)]
fn was_given_descriptors() -> bool {
    (descriptor::HOST..=descriptor::FILE).all(|number| {
        // SAFETY: the descriptor is only asked for its flags; one that is not open is an error.
        rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
    })
}

#[allow(unsafe_code)]
fn serve() -> anyhow::Result<ExitCode> {
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them
    // yet.
    let inherited = unsafe {
        enter(descriptor::FILE)?;
        inherit()
    };
    let confinement = confine(&Profile::ingest());
    run(inherited, confinement)?;
    Ok(ExitCode::SUCCESS)
}

fn by_hand() -> anyhow::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("--sandbox-check") => check(),
        Some(EXECUTED) => Ok(EXECUTED_STATUS.into()),
        _ => {
            anyhow::bail!(
                "this program is started by `ocelli serve`; by hand it takes --sandbox-check alone"
            )
        }
    }
}

/// Confines this process as a reader and makes every attempt. The status is 0 where all were
/// refused.
#[allow(unsafe_code)]
fn check() -> anyhow::Result<ExitCode> {
    // SAFETY: nothing has been opened yet.
    unsafe { enter(STANDARD_ERROR) }?;
    let targets = Targets::new(CHECK_MEMORY, CHECK_OPEN_FILES).context("preparing the attempts")?;
    let confinement = confine(&Profile::ingest());
    limit::memory(CHECK_MEMORY).context("limiting memory")?;
    limit::open_files(CHECK_OPEN_FILES).context("limiting descriptors")?;
    let check = SandboxCheck { confinement, attempts: attempt::make_all(&targets) };
    println!("{}", serde_json::to_string(&check)?);
    let held = check.attempts.iter().all(|attempt| attempt.refused);
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
