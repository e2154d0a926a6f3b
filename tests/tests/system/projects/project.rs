//! A project, and the commands that its author types in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ocelli_testkit::Ocelli;
use tempfile::TempDir;

use super::{ocelli, told, well};

/// The project of a new pipeline in a folder that had nothing in it; goes when dropped.
pub(super) struct Project {
    pub(super) language: &'static str,
    site: TempDir,
    /// The commands that went well, with the seconds of each.
    seconds: Vec<(&'static str, f64)>,
}

/// Its name.
pub(super) const NAME: &str = "bright-spot";

/// Its component.
pub(super) const COMPONENT: &str = "build/bright-spot.wasm";

impl Project {
    pub(super) fn new(language: &'static str) -> Self {
        let site = tempfile::tempdir().unwrap();
        let mut project = Self { language, site, seconds: vec![] };
        let mut new = ocelli(project.site.path(), &["pipeline", "new", NAME, "--lang", language]);
        project.timed("new", &mut new);
        project
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.site.path().join(NAME)
    }

    /// `ocelli` in the project, with a folder of compiled components that has none yet.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ocelli(&self.folder(), arguments);
        command.env("OCELLI_CACHE", self.site.path().join("cache"));
        command
    }

    fn timed(&mut self, name: &'static str, command: &mut Command) -> String {
        let begun = Instant::now();
        let out = well(command);
        self.seconds.push((name, begun.elapsed().as_secs_f64()));
        out
    }

    /// Builds the component; `ocelli` says so.
    pub(super) fn build(&mut self) {
        let mut build = self.command(&["pipeline", "build"]);
        let built = self.timed("build", &mut build);
        assert!(built.contains("good, for ocelli:pipeline 0.3"), "{built}");
        assert!(built.contains(" KB") || built.contains(" MB"), "{built}");
        well(&mut self.command(&["pipeline", "check", COMPONENT]));
    }

    /// Plays its clip to the component.
    pub(super) fn play(&mut self) {
        let footage = ["--video", "clips/spot.mp4", "--annotate", "build/spot.mp4"];
        let mut run = self.command(&[&["pipeline", "run", COMPONENT], &footage[..]].concat());
        let report = self.timed("run", &mut run);
        for figure in [
            "40 processed, 0 of them not looked at; 0 failed; 0 not decoded",
            "detections   40",
            "events       appeared 1",
            "; 0.0 MiB held at the end",
            "wrote        build/spot.mp4",
        ] {
            assert!(report.contains(figure), "{figure}: {report}");
        }
    }

    /// Holds the component to the golden file that came with the project, and to one of its own.
    pub(super) fn test(&mut self) {
        let test = ["pipeline", "test", COMPONENT, "tests/spot.toml"];
        let mut first = self.command(&test);
        let report = self.timed("test", &mut first);
        for part in [
            "good   golden   40 frames as in tests/spot.golden.jsonl, made by version 0.1.0",
            "good   events   1 as expected",
            "good   repeat   the same to the last digit",
            "good   restore  the same with a state of ",
        ] {
            assert!(report.contains(part), "{part}: {report}");
        }
        well(&mut self.command(&[&test[..], &["--bless"]].concat()));
        well(&mut self.command(&test));
    }

    /// Deploys the component to a session of another pipeline, and waits for the end of its
    /// probation.
    pub(super) fn deploy(&mut self, host: &Ocelli, session: &str) {
        let url = format!("http://{}", host.address());
        let deploy = ["deploy", session, COMPONENT, "--wait", "healthy"];
        let mut deploy = self.command(&[&deploy[..], &["--url", &url]].concat());
        let line = self.timed("deploy", &mut deploy);
        assert!(line.contains("bright-spot 0.1.0, compiled in "), "{line}");
        assert!(line.trim_end().ends_with(", healthy"), "{line}");
    }

    /// `dev --once`: status, standard output and standard error.
    pub(super) fn dev(&self, host: &Ocelli, more: &[&str]) -> (i32, String, String) {
        let url = format!("http://{}", host.address());
        let dev = ["pipeline", "dev", "--session", "gate", "--once", "--url", &url];
        told(&mut self.command(&[&dev[..], more].concat()))
    }

    /// Bytes of the component.
    pub(super) fn size(&self) -> u64 {
        std::fs::metadata(self.path(COMPONENT)).unwrap().len()
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder().join(name)
    }

    /// The seconds of the commands. Most of a build is others' tools.
    pub(super) fn times(&self) -> String {
        let build = |&&(name, _): &&(&str, f64)| name == "build";
        let text = |(name, seconds): &(&str, f64)| format!("{name} {seconds:.1} s");
        let rest: Vec<_> = self.seconds.iter().filter(|one| !build(one)).collect();
        let sum: f64 = rest.iter().map(|(_, seconds)| seconds).sum();
        let rest: Vec<_> = rest.into_iter().map(text).collect();
        let builds: Vec<_> = self.seconds.iter().filter(build).map(text).collect();
        format!("{}; {}: {sum:.1} s", builds.join(", "), rest.join(", "))
    }
}
