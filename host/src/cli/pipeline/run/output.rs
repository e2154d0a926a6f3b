//! The files that a run writes. They get their names at its end: where it fails before, there are
//! none.

use std::path::{Path, PathBuf};

use super::super::draft::DraftFile;
use super::annotated::Annotated;
use crate::playback::FrameOutcome;

/// See the module's documentation.
pub(super) struct Outputs {
    json: Option<DraftFile>,
    annotated: Option<Annotated>,
}

impl Outputs {
    /// Fails where one of them could not be written.
    pub(super) fn new(json: Option<&Path>, annotate: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            json: json.map(DraftFile::new).transpose()?,
            annotated: annotate.map(Annotated::new).transpose()?,
        })
    }

    /// Writes what a frame brought.
    pub(super) fn take(&mut self, outcome: FrameOutcome) -> anyhow::Result<()> {
        let FrameOutcome { line, picture } = outcome;
        if let Some(json) = &mut self.json {
            json.write(format!("{}\n", serde_json::to_string(&line)?).as_bytes())?;
        }
        match (&mut self.annotated, picture) {
            (Some(annotated), Some(picture)) => annotated.take(&picture),
            _ => Ok(()),
        }
    }

    /// Gives the files their names: which.
    pub(super) fn finish(self) -> anyhow::Result<Vec<PathBuf>> {
        let annotated = self.annotated.map(Annotated::finish).transpose()?;
        let json = self.json.map(DraftFile::finish).transpose()?;
        Ok(json.into_iter().chain(annotated).collect())
    }
}
