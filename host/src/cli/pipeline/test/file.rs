//! The file of a test.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::stage::{pictures, video};
use super::beside;
use super::expected::ExpectedEvents;
use super::golden::Tolerance;
use crate::playback::Footage;

/// Images of a second where the test does not say.
const RATE: f64 = 10.0;

/// A test as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    video: Option<PathBuf>,
    images: Option<PathBuf>,
    rate: Option<f64>,
    #[serde(default)]
    settings: Map<String, Value>,
    golden: Option<PathBuf>,
    #[serde(default)]
    tolerance: Tolerance,
    #[serde(default = "yes")]
    repeat: bool,
    #[serde(default = "yes")]
    restore: bool,
    #[serde(default)]
    events: Vec<ExpectedEvents>,
}

fn yes() -> bool {
    true
}

/// A test whose footage is there.
pub(super) struct TestFile {
    pub(super) footage: Footage,
    pub(super) settings: Map<String, Value>,
    /// Where the golden file is, or is to be.
    pub(super) golden: PathBuf,
    pub(super) tolerance: Tolerance,
    /// Whether a second run has to bring the same.
    pub(super) repeat: bool,
    /// Whether the state is handed over in the middle.
    pub(super) restore: bool,
    pub(super) events: Vec<ExpectedEvents>,
}

impl TestFile {
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| shown.to_string())?;
        let raw: RawTest = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            anyhow::anyhow!("{shown}: line {line}: {}", error.message())
        })?;
        let footage = match (&raw.video, &raw.images) {
            (Some(file), None) => video(&beside(path, file)),
            (None, Some(folder)) => {
                let rate = raw.rate.unwrap_or(RATE);
                // As `ocelli pipeline run --rate`.
                ensure!(
                    (1.0 / 3600.0..=1000.0).contains(&rate),
                    "{shown}: rate is a number from 1/3600 to 1000"
                );
                pictures(&beside(path, folder), rate)
            }
            _ => bail!("{shown}: one of `video` and `images` says which frames"),
        };
        for number in [raw.tolerance.score, raw.tolerance.pixels] {
            ensure!(number >= 0.0, "{shown}: a tolerance is not below 0");
        }
        let golden = match &raw.golden {
            Some(golden) => beside(path, golden),
            None => path.with_extension("golden.jsonl"),
        };
        Ok(Self {
            footage: footage.with_context(|| shown.to_string())?,
            settings: raw.settings,
            golden,
            tolerance: raw.tolerance,
            repeat: raw.repeat,
            restore: raw.restore,
            events: raw.events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_on_one_line_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spot.toml");
        std::fs::write(folder.path().join("spot.mp4"), "").unwrap();
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            TestFile::load(&path)
        };
        let good =
            load("video = \"spot.mp4\"\n[settings]\nscore = 0.5\n[[events]]\nkind = \"seen\"");
        let good = good.unwrap();
        assert_eq!(good.golden, folder.path().join("spot.golden.jsonl"));
        assert_eq!((good.repeat, good.events.len()), (true, 1));
        assert_eq!(good.settings["score"], 0.5);
        for (text, said) in [
            ("", "one of `video` and `images`"),
            ("video = \"spot.mp4\"\nclip = 1", "line 2: unknown field `clip`"),
            ("video = \"none.mp4\"", "none.mp4"),
            ("images = \".\"", "no JPEG or PNG file"),
            ("images = \".\"\nrate = 0", "from 1/3600"),
            ("video = \"spot.mp4\"\ntolerance = { score = -1 }", "not below 0"),
            ("video = ", "line 1"),
        ] {
            let error = format!("{:#}", load(text).err().unwrap());
            assert!(error.contains(said) && error.contains("spot.toml"), "{error} for {text}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
