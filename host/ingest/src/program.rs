//! What both reader programs do at their start.

use std::os::fd::{BorrowedFd, RawFd};
use std::process::ExitCode;

use anyhow::Context;
use ocelli_protocol::confinement::{Confinement, SandboxCheck};
use ocelli_protocol::process::ingest as descriptor;
use ocelli_sandbox::attempt::{self, EXECUTED, EXECUTED_STATUS, Limits, Targets};
use ocelli_sandbox::{Profile, confine, enter};

use crate::session::{Inherited, inherit};

/// The largest of the descriptors that every process has.
const STANDARD_ERROR: RawFd = 2;

/// A reader program: how it is confined, and what it does once it is.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, for its own messages.
    pub name: &'static str,
    /// The permissions that it retains.
    pub profile: fn() -> Profile<'static>,
    /// Confines this process by the function that it gets, and reads what the host asks for.
    pub run: fn(Inherited, &dyn Fn() -> Confinement) -> anyhow::Result<()>,
}

impl Program {
    /// Serves the host that started it, or says by hand what it is for.
    pub fn main(self) -> ExitCode {
        let done = if was_given_descriptors() { self.serve() } else { self.by_hand() };
        done.unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", self.name);
            ExitCode::FAILURE
        })
    }

    #[allow(unsafe_code)]
    fn serve(self) -> anyhow::Result<ExitCode> {
        // SAFETY: the host starts this program with these descriptors, and nothing has touched
        // them yet.
        let inherited = unsafe {
            enter(descriptor::FILE)?;
            inherit()
        };
        (self.run)(inherited, &|| confine(&(self.profile)()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn by_hand(self) -> anyhow::Result<ExitCode> {
        match std::env::args().nth(1).as_deref() {
            Some("--sandbox-check") => self.check(),
            Some(EXECUTED) => Ok(EXECUTED_STATUS.into()),
            _ => {
                anyhow::bail!(
                    "this program is started by `ocelli serve`; by hand it takes --sandbox-check \
                     alone"
                )
            }
        }
    }

    /// Confines this process as a reader and makes every attempt. The status is 0 where all were
    /// refused.
    #[allow(unsafe_code)]
    fn check(self) -> anyhow::Result<ExitCode> {
        // SAFETY: nothing has been opened yet.
        unsafe { enter(STANDARD_ERROR) }?;
        let targets = Targets::new(Limits::CHECK).context("preparing the attempts")?;
        let profile = (self.profile)();
        let confinement = confine(&profile);
        Limits::CHECK.set().context("setting the limits")?;
        let attempts = attempt::make_all(&targets, profile.has_threads());
        let check = SandboxCheck { confinement, attempts };
        println!("{}", serde_json::to_string(&check)?);
        let held = check.attempts.iter().all(|attempt| attempt.refused);
        Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether the host started this process.
#[allow(unsafe_code)]
fn was_given_descriptors() -> bool {
    (descriptor::HOST..=descriptor::FILE).all(|number| {
        // SAFETY: the descriptor is only asked for its flags; one that is not open is an error.
        rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
    })
}
