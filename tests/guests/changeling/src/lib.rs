//! A cheap pipeline whose state shows whether a change of version was seamless: it counts the
//! frames that it was given and those that it was not, and follows two objects that never rest. A
//! test makes versions of it, good ones and bad ones, by writing into the file: see `manifest`.

mod manifest;

use std::time::{SystemTime, UNIX_EPOCH};

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::nn::Model;
use ocelli_sdk::store::Bucket;
use ocelli_sdk::{
    Attribute, Description, Detection, Event, Frame, Image, ModelNeed, Output, Pipeline, Rect,
    export_pipeline, settings,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use manifest::{FaultSite, Manifest};

/// Frames for which the first and the second object stay in view; then another takes its place.
const STAYS: [u64; 2] = [150, 230];

/// Edge of an object, in pixels.
const EDGE: f32 = 64.0;

/// Of the JPEG of an object: some 2 KB.
const QUALITY: u8 = 80;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Frames from one `counted` event to the next.
    every: u64,
    /// Whether each of these events is counted in the session's store, too.
    keep: bool,
    /// Whether each of these events has a picture of the first object.
    attach: bool,
    /// Whether results and events have the time when they were made: `stamp`, in microseconds since
    /// 1970 by the machine's clock.
    stamp: bool,
    /// Whether each of these events is counted in Redis, too: its data says what came of it.
    redis: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: 25, keep: false, attach: false, stamp: false, redis: false }
    }
}

/// The pipeline of one camera.
pub struct Changeling {
    manifest: Manifest,
    settings: Settings,
    /// Presentation time of the first frame of this instance.
    began: Option<u64>,
    /// Whether the fault on a frame has happened.
    done: bool,
    /// Whether the state is another instance's, and no frame has come since.
    restored: bool,
    state: ChangelingState,
}

/// What the versions hand over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ChangelingState {
    /// Version that has written it.
    version: String,
    /// Frames processed by all versions together.
    frames: u64,
    /// The last of them.
    last: Option<u64>,
    /// Frame numbers that were left out between them.
    missing: u64,
    /// Frames that were not newer than the one before.
    repeated: u64,
    /// How often the state was taken over.
    changes: u64,
    /// The objects' numbers.
    tracks: [u64; 2],
    /// The number of the next one.
    next_track: u64,
}

impl Pipeline for Changeling {
    fn describe() -> Description {
        let manifest = Manifest::read();
        // There is no error to return here.
        let _ = manifest.meet(FaultSite::Describe);
        let models = manifest
            .model
            .map(|name| ModelNeed { name, inputs: vec![("input".into(), vec![1, -1])] });
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: manifest.version,
            models: models.into_iter().collect(),
            settings_schema: json!({
                "type": "object",
                "properties": {"every": {"type": "integer", "minimum": 1}, "keep": {"type": "boolean"},
                    "attach": {"type": "boolean"}, "stamp": {"type": "boolean"}, "redis": {"type": "boolean"}},
                "additionalProperties": false,
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let (manifest, settings) = (Manifest::read(), settings::parse(json)?);
        manifest.meet(FaultSite::Init)?;
        if let Some(name) = &manifest.model {
            Model::load(name)?;
        }
        let state = ChangelingState {
            version: manifest.version.clone(),
            frames: 0,
            last: None,
            missing: 0,
            repeated: 0,
            changes: 0,
            tracks: [1, 2],
            next_track: 3,
        };
        Ok(Self { manifest, settings, began: None, done: false, restored: false, state })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let now = frame.presentation_time();
        let began = *self.began.get_or_insert(now);
        if std::mem::take(&mut self.restored) {
            self.manifest.meet(FaultSite::RestoredFrame)?;
        }
        if let Some(fault) = self.manifest.fault
            && !self.done
            && now.saturating_sub(began) as f64 >= fault.after_s * 1e9
        {
            self.done = true;
            self.manifest.meet(FaultSite::Frame)?;
        }
        self.state.advance(frame.index());
        let size = (frame.width() as f32, frame.height() as f32);
        let mut detections = self.state.detections(frame.index(), size);
        let (mut events, mut redis) = (Vec::new(), None);
        if self.state.frames.is_multiple_of(self.settings.every) {
            if self.settings.keep {
                Bucket::open("changeling")?.increment("counted", 1)?;
            }
            let attachments = self.pictures(frame, &detections)?;
            events.push(Event { attachments, ..Event::new("counted") });
            if self.settings.redis {
                let counted =
                    Bucket::open("redis").and_then(|bucket| bucket.increment("counted", 1));
                redis = Some(
                    counted.map_or_else(|error| json!(error.to_string()), |counted| json!(counted)),
                );
            }
        }
        // As late as can be: what comes after it is the host's.
        let stamp = self.settings.stamp.then(now_us);
        for event in &mut events {
            let mut data = self.state.report(stamp);
            data.as_object_mut()
                .zip(redis.clone())
                .map(|(data, redis)| data.insert("redis".into(), redis));
            event.data = data.to_string();
        }
        if let Some(stamp) = stamp {
            let stamp = Attribute { name: "stamp".into(), value: stamp.to_string(), score: 1.0 };
            detections.iter_mut().for_each(|detection| detection.attributes.push(stamp.clone()));
        }
        Ok(Output::found(detections).with_events(events))
    }

    fn query(&self, _: &str) -> Result<String, String> {
        let mut answer = self.state.report(None);
        if self.settings.keep {
            let kept = Bucket::open("changeling")?.get_json("counted")?.unwrap_or(0u64);
            answer
                .as_object_mut()
                .into_iter()
                .for_each(|answer| drop(answer.insert("kept".into(), kept.into())));
        }
        Ok(answer.to_string())
    }

    fn snapshot(&mut self) -> Vec<u8> {
        // There is no error to return here.
        let _ = self.manifest.meet(FaultSite::Snapshot);
        // Numbers and texts always serialise.
        serde_json::to_vec(&self.state).unwrap_or_default()
    }

    fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), String> {
        self.manifest.meet(FaultSite::Restore)?;
        let state: ChangelingState = serde_json::from_slice(state)
            .map_err(|error| format!("no state of this pipeline: {error}"))?;
        if state.version != version {
            return Err(format!(
                "the state of version {} is said to be that of {version}",
                state.version
            ));
        }
        self.state = ChangelingState {
            version: self.manifest.version.clone(),
            changes: state.changes + 1,
            ..state
        };
        self.restored = true;
        Ok(())
    }
}

impl Changeling {
    /// The pictures of an event, where it is to have one: no two frames have the same.
    fn pictures(&self, frame: &Frame, detections: &[Detection]) -> Result<Vec<Image>, String> {
        let object = detections.first().filter(|_| self.settings.attach);
        // A frame smaller than an object has it at a negative place.
        let area = object.map(|object| Rect {
            x: object.box_.x.max(0.0),
            y: object.box_.y.max(0.0),
            ..object.box_
        });
        let picture = area.map(|area| frame.image(Some(area), QUALITY));
        picture.transpose().map(Vec::from_iter).map_err(|error| error.to_string())
    }
}

/// Microseconds since 1970.
fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros().try_into().unwrap_or(u64::MAX)
}

impl ChangelingState {
    /// Takes a frame in.
    fn advance(&mut self, frame: u64) {
        match self.last {
            Some(last) if frame <= last => self.repeated += 1,
            Some(last) => self.missing += frame - last - 1,
            None => {}
        }
        self.last = Some(frame);
        self.frames += 1;
        for (track, stays) in self.tracks.iter_mut().zip(STAYS) {
            if self.frames.is_multiple_of(stays) {
                *track = self.next_track;
                self.next_track += 1;
            }
        }
    }

    /// The objects in a frame of this size: where they are is up to the frame alone. How many
    /// frames were processed so far is told with each.
    fn detections(&self, frame: u64, (width, height): (f32, f32)) -> Vec<Detection> {
        let object = |(place, (track, stays)): (usize, (&u64, u64))| {
            let way = (frame % stays) as f32 / stays as f32;
            let (x, y) = (way * (width - EDGE), (height - EDGE) * (1 + place) as f32 / 3.0);
            let frames =
                Attribute { name: "frames".into(), value: self.frames.to_string(), score: 1.0 };
            Detection {
                track: Some(*track),
                attributes: vec![frames],
                ..Detection::new("object", 0.9, BBox::from_xywh(x, y, EDGE, EDGE))
            }
        };
        self.tracks.iter().zip(STAYS).enumerate().map(object).collect()
    }

    fn report(&self, stamp: Option<u64>) -> serde_json::Value {
        let Self { version, frames, last, missing, repeated, changes, tracks, .. } = self;
        let mut report = json!({"version": version, "frames": frames, "last": last, "missing": missing,
            "repeated": repeated, "changes": changes, "tracks": tracks});
        report
            .as_object_mut()
            .zip(stamp)
            .map(|(report, stamp)| report.insert("stamp".into(), stamp.into()));
        report
    }
}

export_pipeline!(Changeling);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_goes_on_where_another_version_ended() {
        let mut one = Changeling::new("{}").unwrap();
        (0..160).for_each(|frame| one.state.advance(frame));
        let mut other = Changeling::new("{}").unwrap();
        other.restore("1.0.0", &one.snapshot()).unwrap();
        other.state.advance(160);
        one.state.advance(160);
        assert_eq!(other.state, ChangelingState { changes: 1, ..one.state.clone() });
        assert_eq!((one.state.tracks, one.state.missing, one.state.repeated), ([3, 2], 0, 0));
        assert!(
            other.restore("2.0.0", &one.snapshot()).is_err_and(|error| error.contains("2.0.0"))
        );
    }

    #[test]
    fn frames_that_are_missing_or_come_again_are_counted() {
        let mut one = Changeling::new("{}").unwrap();
        [3, 4, 7, 7, 8].into_iter().for_each(|frame| one.state.advance(frame));
        assert_eq!((one.state.frames, one.state.missing, one.state.repeated), (5, 2, 1));
    }
}
