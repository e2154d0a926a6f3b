//! The reader process of a file, or of a camera that the strict reader cannot read. Started by
//! `ocelli`, with its descriptors; of no use by hand, except that `ocelli-ingest --sandbox-check`
//! tries what a reader must not be able to do here, and says so in JSON.

mod interpose;

use std::process::ExitCode;

use ocelli_ingest::program::Program;
use ocelli_ingest::session;
use ocelli_protocol::confinement::Confinement;
use ocelli_sandbox::Profile;

fn main() -> ExitCode {
    let run = |inherited, confine: &dyn Fn() -> Confinement| session::run(inherited, confine());
    Program { name: "ocelli-ingest", profile: Profile::ingest, run }.main()
}
