//! Where the picture changes from one frame to the next: a grid of cells, each compared with
//! itself. What it counts goes on over all frames, so that a frame of another camera among them
//! would show to the end.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{
    Description, Detection, Event, Frame, Output, Pipeline, export_pipeline, settings,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Edge of a cell in the small grey picture, in pixels.
const CELL: usize = 8;

/// Most columns and rows: the host gives grey pictures of at most 640 pixels.
const MAX_GRID: usize = 80;

/// Frames from one `counted` event to the next.
const COUNTED_EVERY: u64 = 20;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Mean difference of a cell's pixels, 0 to 255, from which on it moves.
    threshold: u8,
    /// Columns and rows of cells.
    grid: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { threshold: 8, grid: 12 }
    }
}

/// The `data` of an event.
#[derive(Debug, Clone, Default, Serialize)]
struct Counts {
    frames: u64,
    moving_frames: u64,
    moving_cells: u64,
    /// Differences of all cells of all frames.
    change: u64,
}

/// The pipeline of one camera.
pub struct Motion {
    settings: Settings,
    before: Option<Vec<u8>>,
    moving: bool,
    counts: Counts,
}

impl Pipeline for Motion {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "threshold": {"type": "integer", "minimum": 0, "maximum": u8::MAX},
                    "grid": {"type": "integer", "minimum": 1, "maximum": MAX_GRID},
                },
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings: Settings = settings::parse(json)?;
        if !(1..=MAX_GRID).contains(&settings.grid) {
            return Err(format!(
                "settings.grid: {} is not between 1 and {MAX_GRID}",
                settings.grid
            ));
        }
        Ok(Self { settings, before: None, moving: false, counts: Counts::default() })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let edge = u32::try_from(self.settings.grid * CELL).map_err(|error| error.to_string())?;
        let picture = frame.luma(edge, edge).map_err(|error| error.to_string())?;
        Ok(self.compare(picture, frame.width() as f32, frame.height() as f32))
    }
}

impl Motion {
    /// Compares the small grey picture of a frame of `width` x `height` pixels with the one before.
    fn compare(&mut self, picture: Vec<u8>, width: f32, height: f32) -> Output {
        let grid = self.settings.grid;
        let differences = match &self.before {
            Some(before) => differences(before, &picture, grid),
            None => vec![0; grid * grid],
        };
        self.before = Some(picture);
        let (cell_width, cell_height) = (width / grid as f32, height / grid as f32);
        let moving =
            differences.iter().enumerate().filter(|(_, mean)| **mean > self.settings.threshold);
        let detections: Vec<_> = moving
            .map(|(cell, mean)| {
                let (x, y) =
                    ((cell % grid) as f32 * cell_width, (cell / grid) as f32 * cell_height);
                Detection::new(
                    "motion",
                    f32::from(*mean) / 255.0,
                    BBox::from_xywh(x, y, cell_width, cell_height),
                )
            })
            .collect();

        let moves = !detections.is_empty();
        self.counts.frames += 1;
        self.counts.moving_frames += u64::from(moves);
        self.counts.moving_cells += detections.len() as u64;
        self.counts.change += differences.iter().map(|mean| u64::from(*mean)).sum::<u64>();
        let mut events = Vec::new();
        if moves != std::mem::replace(&mut self.moving, moves) {
            events.push(self.event(if moves { "began" } else { "ended" }));
        }
        if self.counts.frames.is_multiple_of(COUNTED_EVERY) {
            events.push(self.event("counted"));
        }
        Output::found(detections).with_events(events)
    }

    fn event(&self, kind: &str) -> Event {
        // Numbers always serialise.
        Event { data: serde_json::to_string(&self.counts).unwrap_or_default(), ..Event::new(kind) }
    }
}

/// The mean difference of the pixels of each cell, row by row, cut off to whole numbers.
fn differences(before: &[u8], after: &[u8], grid: usize) -> Vec<u8> {
    let mut sums = vec![0usize; grid * grid];
    let edge = grid * CELL;
    for (pixel, (before, after)) in before.iter().zip(after).enumerate() {
        let cell = pixel / edge / CELL * grid + pixel % edge / CELL;
        if let Some(sum) = sums.get_mut(cell) {
            *sum += usize::from(before.abs_diff(*after));
        }
    }
    sums.iter().map(|sum| u8::try_from(sum / (CELL * CELL)).unwrap_or(u8::MAX)).collect()
}

export_pipeline!(Motion);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn a_cell_that_changes_is_a_detection_and_the_first_of_them_an_event() {
        let mut motion = Motion::new(r#"{"grid":2,"threshold":4}"#).unwrap();
        let still = vec![10; 4 * CELL * CELL];
        let mut changed = still.clone();
        // The lower left cell, brighter by 8.
        for row in CELL..2 * CELL {
            changed[row * 2 * CELL..][..CELL].fill(18);
        }
        let first = motion.compare(still.clone(), 200.0, 100.0);
        assert_eq!((first.detections.unwrap().len(), first.events.len()), (0, 0));
        let second = motion.compare(changed, 200.0, 100.0);
        let found = second.detections.unwrap();
        assert_eq!(found.len(), 1);
        let area = found[0].box_;
        assert_eq!((area.x, area.y, area.width, area.height), (0.0, 50.0, 100.0, 50.0));
        let data: Vec<_> =
            second.events.iter().map(|event| (event.kind.as_str(), event.data.as_str())).collect();
        assert_eq!(
            data,
            [("began", r#"{"frames":2,"moving_frames":1,"moving_cells":1,"change":8}"#)]
        );
        let third = motion.compare(motion.before.clone().unwrap(), 200.0, 100.0);
        assert_eq!(third.events[0].kind, "ended");
    }

    #[test]
    fn the_schema_takes_what_the_pipeline_takes() {
        let schema = Schema::read(&Motion::describe().settings_schema).unwrap();
        for settings in ["{}", r#"{"threshold":12,"grid":10}"#] {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(Motion::new(settings).is_ok());
        }
        for settings in [r#"{"grid":81}"#, r#"{"threshold":256}"#, r#"{"cells":4}"#] {
            assert!(
                schema.check(settings).is_err() && Motion::new(settings).is_err(),
                "{settings}"
            );
        }
    }

    #[test]
    fn a_grid_without_cells_is_refused() {
        assert!(Motion::new(r#"{"grid":0}"#).is_err_and(|error| error.contains("settings.grid")));
    }
}
