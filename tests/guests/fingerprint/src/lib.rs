//! A hash of the tensor that the host makes of each frame, and a chain over all of them: one byte
//! of one frame that is not its own changes all that follows.

use std::hash::Hasher;

use fnv::FnvHasher;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{
    Attribute, Channels, Description, Detection, Element, Event, Fit, Frame, Layout, Output,
    Pipeline, Rect, TensorSpec, export_pipeline, settings,
};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Left and upper edge, width and height of the region in parts of the frame. Left out: the
    /// whole frame.
    region: Option<[f32; 4]>,
    /// Pixels of the tensor.
    width: u32,
    /// Pixels of the tensor.
    height: u32,
    /// Keep the aspect ratio; else both axes are scaled on their own.
    letterbox: bool,
    /// f32 elements, normalised to -1 to 1; else u8.
    float: bool,
    /// Blue, green, red; else the other way round.
    bgr: bool,
    /// Frames from one `fingerprint` event to the next.
    every: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: None,
            width: 96,
            height: 96,
            letterbox: false,
            float: false,
            bgr: false,
            every: 10,
        }
    }
}

/// The pipeline of one camera.
pub struct Fingerprint {
    settings: Settings,
    spec: TensorSpec,
    frames: u64,
    /// Hash of all hashes so far.
    chain: u64,
}

impl Pipeline for Fingerprint {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "region": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                    "width": {"type": "integer", "minimum": 1, "maximum": 4096},
                    "height": {"type": "integer", "minimum": 1, "maximum": 4096},
                    "letterbox": {"type": "boolean"},
                    "float": {"type": "boolean"},
                    "bgr": {"type": "boolean"},
                    "every": {"type": "integer", "minimum": 1},
                },
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings: Settings = settings::parse(json)?;
        if settings.every == 0 {
            return Err("settings.every: 0 is not above 0".into());
        }
        let mut spec = TensorSpec::letterbox(settings.width, settings.height);
        spec.fit = if settings.letterbox { Fit::Letterbox } else { Fit::Stretch };
        spec.channels = if settings.bgr { Channels::Bgr } else { Channels::Rgb };
        if settings.float {
            (spec.mean, spec.std) = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5));
        } else {
            (spec.element, spec.layout) = (Element::U8, Layout::Nhwc);
        }
        Ok(Self { settings, spec, frames: 0, chain: 0 })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let (width, height) = (frame.width() as f32, frame.height() as f32);
        let area =
            |[x, y, w, h]: [f32; 4]| BBox::from_xywh(x * width, y * height, w * width, h * height);
        let region = area(self.settings.region.unwrap_or([0.0, 0.0, 1.0, 1.0]));
        let (tensor, _) = frame
            .tensor(self.settings.region.map(|_| Rect::from(region)), self.spec)
            .map_err(|e| e.to_string())?;
        Ok(self.add(&tensor.data(), region))
    }
}

impl Fingerprint {
    /// Takes the next frame's tensor into the chain.
    fn add(&mut self, tensor: &[u8], region: BBox) -> Output {
        let hash = hash(&[tensor]);
        self.chain = hash_pair(self.chain, hash);
        self.frames += 1;
        let attribute = |name: &str, value: u64| Attribute {
            name: name.into(),
            value: format!("{value:016x}"),
            score: 1.0,
        };
        let attributes = vec![attribute("tensor", hash), attribute("chain", self.chain)];
        let detection = Detection { attributes, ..Detection::new("region", 1.0, region) };
        let mut events = Vec::new();
        if self.frames.is_multiple_of(self.settings.every) {
            let data = json!({"frames": self.frames, "chain": format!("{:016x}", self.chain)});
            events.push(Event { data: data.to_string(), ..Event::new("fingerprint") });
        }
        Output::found(vec![detection]).with_events(events)
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FnvHasher::default();
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

fn hash_pair(one: u64, other: u64) -> u64 {
    hash(&[&one.to_le_bytes(), &other.to_le_bytes()])
}

export_pipeline!(Fingerprint);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    fn chain(tensors: &[&[u8]]) -> String {
        let mut fingerprint = Fingerprint::new(r#"{"every":1}"#).unwrap();
        let region = BBox::from_xywh(0.0, 0.0, 1.0, 1.0);
        tensors
            .iter()
            .map(|tensor| fingerprint.add(tensor, region).events[0].data.clone())
            .last()
            .unwrap()
    }

    #[test]
    fn the_schema_takes_what_the_pipeline_takes() {
        let schema = Schema::read(&Fingerprint::describe().settings_schema).unwrap();
        let whole = r#"{"region":[0.25,0,0.5,0.5],"width":96,"height":96,"letterbox":true,"float":true,"bgr":true,"every":7}"#;
        for settings in ["{}", whole] {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(Fingerprint::new(settings).is_ok());
        }
        for settings in [r#"{"every":0}"#, r#"{"region":[0,0,1]}"#, r#"{"rgb":true}"#] {
            assert!(
                schema.check(settings).is_err() && Fingerprint::new(settings).is_err(),
                "{settings}"
            );
        }
    }

    #[test]
    fn what_any_frame_held_and_their_order_show_to_the_end() {
        let straight = chain(&[b"one", b"two", b"three"]);
        assert_eq!(straight, chain(&[b"one", b"two", b"three"]));
        assert_ne!(straight, chain(&[b"onf", b"two", b"three"]));
        assert_ne!(straight, chain(&[b"two", b"one", b"three"]));
    }
}
