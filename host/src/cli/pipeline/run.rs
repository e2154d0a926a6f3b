//! `ocelli pipeline run`: a pipeline on a video or on pictures, without a host. Every frame is
//! processed, in the worker's program, confined, and within the limits that a host sets.

mod annotated;
mod mp4;
mod output;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;

use super::super::table::printable;
use super::stage::{PlayStage, StageArgs, pictures, run_to_end, settings, video};
use crate::deploy::PreparedComponent;
use crate::playback::{Figures, Playback, PlaybackEnd, Played, Spread};
use output::Outputs;

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineRunCommand {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    #[command(flatten)]
    footage: FootageArgs,
    /// The pipeline's settings: a JSON object, or a file that holds one.
    #[arg(long, value_name = "JSON|FILE")]
    settings: Option<String>,
    /// Write what each frame brought to this file, a line of JSON for each.
    #[arg(long, value_name = "FILE.jsonl")]
    json: Option<PathBuf>,
    /// Write the frames with boxes, tracks, zones and events drawn in: as a video (Motion JPEG)
    /// where the name ends in .mp4, else as JPEG files in this folder.
    #[arg(long, value_name = "FILE.mp4|DIR")]
    annotate: Option<PathBuf>,
    #[command(flatten)]
    stage: StageArgs,
}

/// The frames that a pipeline gets.
#[derive(Args)]
#[group(skip)]
struct FootageArgs {
    /// A video file: H.264, H.265 or Motion JPEG.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "images",
        conflicts_with = "images"
    )]
    video: Option<PathBuf>,
    /// A folder of JPEG and PNG files, which are frames in the order of their names.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// How many images make a second.
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = rate)]
    rate: f64,
}

/// A rate of pictures: from one in an hour to a thousand in a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1.0 / 3600.0..=1000.0).contains(rate));
    rate.ok_or_else(|| "a rate is a number from 1/3600 to 1000".to_owned())
}

impl PipelineRunCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        run_to_end(self.play())
    }

    async fn play(self) -> anyhow::Result<()> {
        let settings = settings(self.settings.as_deref())?;
        let footage = match (&self.footage.video, &self.footage.images) {
            (Some(path), _) => video(path)?,
            (None, Some(folder)) => pictures(folder, self.footage.rate)?,
            (None, None) => bail!("--video or --images says which frames"),
        };
        let shown = self.footage.video.as_ref().or(self.footage.images.as_ref());
        let shown = shown.map(|path| path.display().to_string()).unwrap_or_default();
        let mut outputs = Outputs::new(self.json.as_deref(), self.annotate.as_deref())?;
        let stage = self.stage.stage().await?;
        let component = stage.player.prepare(self.component.clone()).await?;
        let playback = Playback {
            component: &component,
            settings: &settings,
            footage: &footage,
            annotate: self.annotate.is_some(),
            resume: None,
            until: None,
        };
        let begun = std::time::Instant::now();
        let played = stage.player.play(playback, &mut |outcome| outputs.take(outcome)).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let written = outputs.finish()?;
        let mut text = report(&shown, &component, &played, &stage, seconds);
        for path in written {
            text += &line("wrote", &path.display().to_string());
        }
        std::io::stdout().write_all(text.as_bytes())?;
        judge(&shown, &played)
    }
}

/// Fails where a frame has no result.
fn judge(shown: &str, played: &Played) -> anyhow::Result<()> {
    let figures = &played.figures;
    match &played.end {
        PlaybackEnd::Complete => {}
        PlaybackEnd::Lost(reason) => {
            let after = figures
                .last_frame
                .map_or("in the first frame".to_owned(), |frame| format!("after frame {frame}"));
            bail!("{shown}: the pipeline was lost {after}: {}", printable_lines(reason))
        }
        PlaybackEnd::StateRefused(words) => bail!("it refuses its state: {}", printable(words)),
        PlaybackEnd::Suspended(_) => bail!("{shown}: the run ended before its end"),
    }
    if let Some((frame, error)) = &figures.first_failure {
        let failed = figures.failed;
        let error = printable_lines(error);
        bail!("{shown}: frames failed: {failed}; the first is {frame}: {error}");
    }
    let why = figures.damaged.as_ref().map(|why| format!(": {}", printable(why)));
    ensure!(
        figures.undecoded == 0,
        "{shown}: pictures that cannot be decoded: {}{}",
        figures.undecoded,
        why.unwrap_or_default()
    );
    Ok(())
}

/// The figures for a person.
fn report(
    shown: &str,
    component: &PreparedComponent,
    played: &Played,
    stage: &PlayStage,
    seconds: f64,
) -> String {
    let Figures { processed, not_looked_at, failed, undecoded, detections, events, used, .. } =
        &played.figures;
    let described = &played.description;
    let digest = component.digest.get(..12).unwrap_or_default();
    let frames = processed + failed;
    let rate = if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
    let mut text =
        line("footage", &format!("{shown}: {frames} frames in {seconds:.1} s, {rate:.1} a second"));
    text += &line("pipeline", &format!("{} {} ({digest})", described.name, described.version));
    text += &line(
        "frames",
        &format!(
            "{processed} processed, {not_looked_at} of them not looked at; {failed} failed; \
             {undecoded} not decoded"
        ),
    );
    text += &line("detections", &detections.to_string());
    let events: Vec<_> = events.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    text += &line("events", &if events.is_empty() { "0".to_owned() } else { events.join(", ") });
    if let Some(spread) = played.figures.guest() {
        text += &line("in the guest", &times(spread));
    }
    if let Some(spread) = played.figures.inference() {
        text += &line("inference", &times(spread));
    }
    if let Some(used) = used {
        let most = stage.player.limits().guest_memory;
        text += &line("memory", &format!("{} of {} at most", mib(used.memory), mib(most)));
        // A trap gives them all back before they are counted.
        let held = match played.end {
            PlaybackEnd::Lost(_) => String::new(),
            _ => format!("; {} held at the end", mib(used.tensors)),
        };
        let (peak, most) = (mib(used.tensors_peak), mib(stage.tensor_memory));
        text += &line("tensors", &format!("{peak} of {most} at most{held}"));
    }
    if let Some(missing) = &played.unconfined {
        text += &line("sandbox", &format!("this machine lacks {missing}"));
    }
    text
}

/// A line of the report.
fn line(name: &str, value: &str) -> String {
    format!("{name:<12} {}\n", printable(value))
}

fn times(Spread { p50, p99, max }: Spread) -> String {
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms a frame")
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Lines of others, each as it may be printed.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_held_within_what_makes_sense() {
        assert_eq!(rate("25"), Ok(25.0));
        for senseless in ["0", "-1", "1e9", "NaN", "fast"] {
            assert!(rate(senseless).is_err(), "{senseless}");
        }
    }
}
