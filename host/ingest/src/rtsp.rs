//! The strict reader's process of one camera. Started by `ocelli`, with its descriptors; of no use
//! by hand, except that `ocelli-rtsp --sandbox-check` tries what a reader must not be able to do
//! here, and says so in JSON.

mod interpose;

use std::process::ExitCode;

use ocelli_ingest::program::Program;
use ocelli_ingest::strict;
use ocelli_sandbox::Profile;

fn main() -> ExitCode {
    Program { name: "ocelli-rtsp", profile: Profile::rtsp, run: strict::run }.main()
}
