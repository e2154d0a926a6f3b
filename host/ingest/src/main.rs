//! The reader process of one source. Started by `ocelli`, with its descriptors; of no use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("ocelli-ingest: this program is started by `ocelli serve`");
    ExitCode::FAILURE
}
