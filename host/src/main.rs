//! The program `ocelli`.
//!
//! Everything is in the library: what a program's own crate runs, async functions above all, is
//! compiled there a second time.

fn main() -> std::process::ExitCode {
    ocelli::cli::run()
}
