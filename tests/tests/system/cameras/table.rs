//! Makes the tables of `docs/cameras.md`:
//!
//! ```text
//! cargo nextest run --release -p ocelli-tests --run-ignored only --no-capture table_of_cameras
//! ```

use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ocelli_testkit::camera::Camera;
use tokio::process::Command;

use super::{Case, Fate, Outcome, all, watch};

/// What ffmpeg gets to play ten pictures of the slowest camera.
const FFMPEG: Duration = Duration::from_secs(90);

/// Cameras that ffmpeg plays at the same time.
const AT_ONCE: usize = 8;

/// The readers, as configured.
const READERS: [&str; 3] = ["strict", "compatible", "auto"];

/// How one player fared with a camera.
fn word(outcome: &Outcome) -> String {
    match (outcome.has_played(), outcome.fate) {
        (true, _) if outcome.plays <= 1 => "yes".to_owned(),
        (true, _) => format!("yes ({})", outcome.plays),
        (false, Fate::Says(_)) if outcome.is_decided() => "told".to_owned(),
        (false, _) => "no".to_owned(),
    }
}

/// Plays ten pictures of a camera with ffmpeg; none where there is no ffmpeg.
async fn ffmpeg(case: Case) -> Option<&'static str> {
    let udp = case.keys.contains("udp");
    let camera = Camera::start(case.script).await;
    let url = case.credentials.map_or_else(|| camera.url(), |words| camera.url_with(words));
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-rtsp_transport", if udp { "udp" } else { "tcp" }, "-i", &url])
        .args(["-frames:v", "10", "-fps_mode", "passthrough"])
        .args(["-f", "null", "-progress", "pipe:1", "-"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(FFMPEG, command.output()).await;
    let Ok(output) = output else { return Some("no") };
    let text = String::from_utf8_lossy(&output.ok()?.stdout).into_owned();
    let frames = text.lines().filter_map(|line| line.strip_prefix("frame=")?.parse::<u64>().ok());
    Some(if frames.max() >= Some(4) { "yes" } else { "no" })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the tables of docs/cameras.md: five minutes"]
async fn table_of_cameras() {
    let only = std::env::var("OCELLI_CASES").unwrap_or_default();
    let readers = std::env::var("OCELLI_READERS").unwrap_or_else(|_| READERS.join(","));
    let readers: Vec<&str> = readers.split(',').filter(|reader| !reader.is_empty()).collect();
    for (place, (title, cases)) in all().into_iter().enumerate() {
        if !title.contains(&only) {
            continue;
        }
        let mut columns = Vec::new();
        for reader in &readers {
            // Over TLS there is one reader, and nothing to say.
            let mut watched = all().swap_remove(place).1;
            for case in watched.iter_mut().filter(|case| case.script.is_plain()) {
                writeln!(case.keys, "reader = {reader:?}").unwrap();
            }
            let outcomes = watch(watched).await;
            for outcome in outcomes.iter().filter(|outcome| outcome.complaint().is_some()) {
                eprintln!("{reader}: {}", outcome.complaint().unwrap());
            }
            // The strict reader has no TLS.
            let has_reader = |case: &Case| *reader != "strict" || case.script.is_plain();
            let words = outcomes.iter().zip(&cases);
            let words = words.map(
                |(outcome, case)| {
                    if has_reader(case) { word(outcome) } else { "-".to_owned() }
                },
            );
            columns.push(words.collect::<Vec<_>>());
        }
        println!("\n### {title}\n\n| case | {} | ffmpeg |", readers.join(" | "));
        println!("| --- |{} --- |", " --- |".repeat(readers.len()));
        let titles: Vec<_> = cases.iter().map(|case| case.odd).collect();
        let there: Vec<_> =
            stream::iter(cases.into_iter().map(ffmpeg)).buffered(AT_ONCE).collect().await;
        for (row, (odd, there)) in titles.into_iter().zip(there).enumerate() {
            let words = columns.iter().map(|column| column[row].as_str()).chain(there);
            println!("| {odd} | {} |", words.collect::<Vec<_>>().join(" | "));
        }
    }
}
