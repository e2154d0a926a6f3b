//! The program `ocelli`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
