//! The inference process, as the product runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocelli_inference::process::main(None)
}
