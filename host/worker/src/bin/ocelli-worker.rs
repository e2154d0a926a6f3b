//! The worker of one camera session. Started by `ocelli`, with its descriptors; of no use by hand.

use std::process::ExitCode;

use ocelli_protocol::process::die_with_parent;
use ocelli_worker::session::{inherit, run};

#[allow(unsafe_code)]
fn main() -> ExitCode {
    if let Err(error) = die_with_parent() {
        eprintln!("ocelli-worker: cannot be tied to its parent: {error}");
        return ExitCode::FAILURE;
    }
    // SAFETY: the host starts this program with these descriptors, and nothing has touched them yet.
    let inherited = unsafe { inherit() };
    match run(inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ocelli-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
