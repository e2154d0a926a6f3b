//! `ocelli pipeline test`: a pipeline on recorded frames, held to what is expected of it.
//!
//! Each test is a TOML file, which [`TestFile`] describes. Its pipeline runs three times:
//!
//! 1. What it finds is held to the golden file, and its events to those that the test expects.
//! 2. Once more: what it finds has to be the same to the last digit.
//! 3. Up to the middle of the footage, where its state goes to a fresh instance that goes on: the
//!    same again.

mod expected;
mod file;
mod golden;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::super::table::printable;
use super::stage::{PlayStage, StageArgs, run_to_end};
use crate::deploy::PreparedComponent;
use crate::playback::{Figures, Footage, FrameLine, Handover, Playback, PlaybackEnd, Played};
use file::TestFile;
use golden::{Golden, GoldenHeader};

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineTestCommand {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// The tests, which the page for pipeline authors describes.
    #[arg(value_name = "TEST.toml", required = true)]
    tests: Vec<PathBuf>,
    /// Write the golden files anew, with what the pipeline finds now.
    #[arg(long)]
    bless: bool,
    #[command(flatten)]
    stage: StageArgs,
}

/// What came of a part of a test, in words.
#[derive(Debug, PartialEq)]
enum TestVerdict {
    Good(String),
    Bad(String),
}

impl PipelineTestCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        run_to_end(self.test())
    }

    async fn test(self) -> anyhow::Result<()> {
        // What is wrong with one of them shows before anything runs.
        let tests = self.tests.iter().map(|path| TestFile::load(path).map(|test| (path, test)));
        let tests = tests.collect::<anyhow::Result<Vec<_>>>()?;
        let stage = self.stage.stage().await?;
        let component = stage.player.prepare(self.component.clone()).await?;
        let mut failed = 0;
        for (path, test) in &tests {
            let shown = path.display().to_string();
            let run = TestRun { stage: &stage, component: &component, test };
            let verdicts = run.verdicts(self.bless).await.with_context(|| shown.clone())?;
            println!("{}:", printable(&shown));
            for (part, verdict) in &verdicts {
                let (mark, words) = match verdict {
                    TestVerdict::Good(words) => ("good  ", words),
                    TestVerdict::Bad(words) => ("FAILED", words),
                };
                for (line, number) in words.lines().zip(0..) {
                    let head =
                        if number == 0 { format!("{mark} {part:<8}") } else { " ".repeat(15) };
                    println!("  {head} {}", printable(line));
                }
            }
            failed += usize::from(
                verdicts.iter().any(|(_, verdict)| matches!(verdict, TestVerdict::Bad(_))),
            );
        }
        ensure!(failed == 0, "tests failed: {failed} of {}", tests.len());
        Ok(())
    }
}

/// A test of a component.
struct TestRun<'a> {
    stage: &'a PlayStage,
    component: &'a PreparedComponent,
    test: &'a TestFile,
}

/// What one run brought.
struct Taken {
    lines: Vec<FrameLine>,
    played: Played,
}

impl TestRun<'_> {
    /// The verdict on each part. Fails where the test cannot be run.
    async fn verdicts(&self, bless: bool) -> anyhow::Result<Vec<(&'static str, TestVerdict)>> {
        let footage = &self.test.footage;
        let golden = match bless {
            true => None,
            false => Some(Golden::load(&self.test.golden)?),
        };
        let taken = self.play(footage, None, None).await?;
        if let PlaybackEnd::Lost(reason) = &taken.played.end {
            let after = taken.played.figures.last_frame;
            let after =
                after.map_or("in the first frame".to_owned(), |n| format!("after frame {n}"));
            return Ok(vec![(
                "frames",
                TestVerdict::Bad(format!("the pipeline was lost {after}: {reason}")),
            )]);
        }
        let Figures { processed, failed, undecoded, .. } = &taken.played.figures;
        let frames = format!("{processed} processed, {failed} failed, {undecoded} not decoded");
        let mut verdicts = vec![(
            "frames",
            if *undecoded == 0 { TestVerdict::Good(frames) } else { TestVerdict::Bad(frames) },
        )];
        let header = self.header(&taken.played)?;
        verdicts.push((
            "golden",
            match golden {
                Some(golden) => golden.judge(&header, &taken.lines, &self.test.tolerance)?,
                None => {
                    golden::write(&self.test.golden, &header, &taken.lines)?;
                    TestVerdict::Good(format!("{} written", self.test.golden.display()))
                }
            },
        ));
        if !self.test.events.is_empty() {
            verdicts.push(("events", expected::judge(&self.test.events, &taken.lines)));
        }
        if self.test.repeat {
            verdicts.push(("repeat", self.repeat(&taken).await?));
        }
        if self.test.restore {
            verdicts.push(("restore", self.restore(&taken).await?));
        }
        Ok(verdicts)
    }

    fn header(&self, played: &Played) -> anyhow::Result<GoldenHeader> {
        let description = &played.description;
        Ok(GoldenHeader::new(
            &description.name,
            &description.version,
            self.test.footage.digest()?,
            self.test.settings.clone(),
        ))
    }

    /// Runs the pipeline once more.
    async fn repeat(&self, first: &Taken) -> anyhow::Result<TestVerdict> {
        let second = self.play(&self.test.footage, None, None).await?;
        if let PlaybackEnd::Lost(reason) = second.played.end {
            return Ok(TestVerdict::Bad(format!("the pipeline was lost: {reason}")));
        }
        Ok(match golden::first_difference(&first.lines, &second.lines)? {
            None => TestVerdict::Good("the same to the last digit".to_owned()),
            Some(difference) => {
                TestVerdict::Bad(format!("another result of the same frames: {difference}"))
            }
        })
    }

    /// Runs the pipeline up to the middle, and another instance of it with its state from there.
    async fn restore(&self, first: &Taken) -> anyhow::Result<TestVerdict> {
        let middle = first.played.figures.units / 2;
        if middle == 0 {
            return Ok(TestVerdict::Good("left out: there is one frame".to_owned()));
        }
        let mut begun = self.play(&self.test.footage, None, Some(middle)).await?;
        let handover = match begun.played.end {
            PlaybackEnd::Suspended(handover) => handover,
            PlaybackEnd::Lost(reason) => {
                return Ok(TestVerdict::Bad(format!(
                    "the pipeline was lost with its snapshot: {reason}"
                )));
            }
            _ => bail!("the run did not end in the middle"),
        };
        let rest = self.play(&self.test.footage, Some(&handover), None).await?;
        match rest.played.end {
            PlaybackEnd::StateRefused(words) => {
                return Ok(TestVerdict::Bad(format!("it refuses its own state: {words}")));
            }
            PlaybackEnd::Lost(reason) => {
                return Ok(TestVerdict::Bad(format!(
                    "the pipeline was lost with its state: {reason}"
                )));
            }
            _ => {}
        }
        begun.lines.extend(rest.lines);
        let size = handover.state.len();
        let state =
            if size == 0 { "no state".to_owned() } else { format!("a state of {size} bytes") };
        let place = handover.last_frame.map_or("the start".to_owned(), |n| format!("frame {n}"));
        Ok(match golden::first_difference(&first.lines, &begun.lines)? {
            None => TestVerdict::Good(format!("the same with {state} handed over after {place}")),
            Some(difference) => TestVerdict::Bad(format!(
                "with {state} handed over after {place}, another result: {difference}"
            )),
        })
    }

    async fn play(
        &self,
        footage: &Footage,
        resume: Option<&Handover>,
        until: Option<u64>,
    ) -> anyhow::Result<Taken> {
        let mut lines = Vec::new();
        let playback = Playback {
            component: self.component,
            settings: &self.test.settings,
            footage,
            annotate: false,
            resume,
            until,
        };
        let mut take = |outcome: crate::playback::FrameOutcome| {
            lines.push(outcome.line.untimed());
            Ok(())
        };
        let played = self.stage.player.play(playback, &mut take).await?;
        Ok(Taken { lines, played })
    }
}

/// A path of a test, which is relative to its file.
fn beside(test: &Path, path: &Path) -> PathBuf {
    test.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}
