//! `ocelli pipeline new`: the project of a new pipeline.

use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;

use super::draft::parent;
use super::project::{Language, checked_name};
use super::template::{self, TemplateFile};

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineNewCommand {
    /// Its name, and the folder that is made: lowercase letters, digits and hyphens.
    name: String,
    /// The language.
    #[arg(long, value_name = "LANGUAGE")]
    lang: String,
}

impl PipelineNewCommand {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let language = language(&self.lang)?;
        let name = checked_name(&self.name)?;
        make(Path::new(name), language, name)?;
        println!("{name}: a pipeline in {language}; its README.md says what is where");
        println!("  cd {name}");
        println!("  ocelli pipeline build");
        Ok(())
    }
}

/// A language by the name of `--lang`. Another one is no wrong usage: it is an answer that somebody
/// who tries wants to read in one line.
fn language(name: &str) -> anyhow::Result<Language> {
    use clap::ValueEnum;
    Language::from_str(name, false).map_err(|_| {
        anyhow::anyhow!("--lang {name:?}: pipelines are made in rust, python, js or ts")
    })
}

/// Makes a project. It gets its name when it is whole.
fn make(folder: &Path, language: Language, name: &str) -> anyhow::Result<()> {
    let files = template::files(language, name);
    if files.is_empty() {
        bail!("this program has no template in {language}");
    }
    if folder.symlink_metadata().is_ok() {
        bail!("{} is there already: choose another name, or remove it", folder.display());
    }
    let parent = parent(folder);
    let draft = tempfile::Builder::new().prefix(".draft-").tempdir_in(parent);
    let draft = draft.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    // Within the draft's folder, which is for this user alone: a project is as open as others are.
    let project = draft.path().join(name);
    let made = files.iter().try_for_each(|file| write(&project, file));
    made.and_then(|()| std::fs::rename(&project, folder))
        .with_context(|| format!("cannot make {}", folder.display()))
}

fn write(project: &Path, file: &TemplateFile) -> io::Result<()> {
    let path = project.join(&file.path);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, &file.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_made_as_a_whole_or_not_at_all() {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("gate");
        make(&folder, Language::Rust, "gate").unwrap();
        assert!(folder.join("vendor/ocelli-sdk/wit/frames.wit").is_file());
        let error = make(&folder, Language::Rust, "gate").unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        let nowhere = site.path().join("no/such/gate");
        assert!(make(&nowhere, Language::Rust, "gate").is_err());
        let names = std::fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["gate"], "no draft is left");
    }

    #[test]
    fn another_language_is_answered_with_those_that_there_are() {
        let error = language("cobol").unwrap_err().to_string();
        assert!(error.contains("rust, python, js or ts"), "{error}");
        assert_eq!(language("ts").unwrap(), Language::Ts);
    }
}
