//! What a package installs for shells and readers: completions and pages of the manual, both made
//! from the declarations of the commands.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

#[derive(Args)]
pub(super) struct CompletionsCommand {
    #[arg(value_name = "SHELL", value_parser = shell)]
    shell: Shell,
}

/// The shells that the completions are tried in.
fn shell(name: &str) -> Result<Shell, &'static str> {
    match name {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("bash, zsh or fish"),
    }
}

impl CompletionsCommand {
    /// Prints the shell's script.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ocelli", &mut script);
        io::stdout().write_all(&script).context("cannot print")
    }
}

#[derive(Args)]
pub(super) struct ManCommand {
    /// The folder that gets the pages; it is made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl ManCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        write_pages(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// Writes `ocelli.1` and a page for each command below it.
fn write_pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // "help" has nothing that the pages do not say.
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_declarations_of_all_commands_agree() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_that_is_listed_has_a_page_and_the_same_one_each_time() {
        fn pages(command: &clap::Command, name: &str, all: &mut Vec<String>) {
            all.push(format!("{name}.1"));
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                pages(below, &format!("{name}-{}", below.get_name()), all);
            }
        }
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = first.path().join("man/man1");
        write_pages(&folder).unwrap();
        write_pages(second.path()).unwrap();
        let mut expected = Vec::new();
        pages(&Cli::command(), "ocelli", &mut expected);
        expected.sort();
        let mut found: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, expected);
        for page in found {
            let text = std::fs::read_to_string(folder.join(&page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
            assert_eq!(text, std::fs::read_to_string(second.path().join(&page)).unwrap());
        }
    }

    #[test]
    fn bash_completes_a_command_by_its_script() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "ocelli", &mut script);
        let mut script = String::from_utf8(script).unwrap();
        script += "COMP_WORDS=(ocelli dep); COMP_CWORD=1; _ocelli ocelli dep ocelli; \
            echo \"${COMPREPLY[@]}\"\n";
        let said = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), "deploy deployments");
    }

    #[test]
    fn a_shell_that_is_none_of_these_is_refused_with_those_that_are() {
        assert_eq!(shell("tcsh"), Err("bash, zsh or fish"));
    }
}
