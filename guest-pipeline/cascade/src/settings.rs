//! The form in which a tree is written down. What it means is checked in [`crate::tree`].

use ocelli_sdk::classifier::Activation;
use ocelli_sdk::settings::Setting;
use ocelli_sdk::settings::limits::{Limits, any};
use ocelli_sdk::{centerface, faceres, nanodet, settings};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::objects::{MAX_BATCH, MAX_CROPS, MAX_SIDE};

/// Crops of a frame where the settings say nothing: at the time of a face's reading, half a second
/// of a core.
const USUAL_CROPS: usize = 32;

settings! {
    /// Settings of cascade.
    pub(crate) struct Settings {
        // Without these two both are the default tree.
        pub(crate) detect?: DetectSettings;
        pub(crate) stages?: Stages;
        /// Most crops of a frame that the stages look at together; the best detections come first.
        pub(crate) max_crops: usize = USUAL_CROPS, at_least(1).up_to(MAX_CROPS);
        /// Look at no more frames than this a second of the stream. Null: at every frame that
        /// comes.
        pub(crate) max_results_per_second: Option<f64> = None, above(0);
    }
}

settings! {
    pub(crate) enum DetectorKind {
        Nanodet = "nanodet",
        Centerface = "centerface",
        /// Any model that describes itself.
        Detector = "detector",
    }
}

settings! {
    /// Looks at the whole frame.
    pub(crate) struct DetectSettings {
        /// detector: any model that describes itself, by its name.
        pub(crate) kind: DetectorKind;
        /// The model's name. Left out: the kind's usual one.
        pub(crate) model?: String;
        /// Detections of this score and more are reported. Left out: 0.5 for centerface,
        /// 0.4 for others.
        pub(crate) score?: f32, above(0).up_to(1);
        /// Of two boxes of one label that overlap by more, the better stands. Left out: 0.3 for
        /// centerface, 0.5 for others.
        pub(crate) iou?: f32, above(0).up_to(1);
        /// nanodet, detector: the labels to look for. None: all.
        pub(crate) labels?: Vec<String>;
        /// centerface: width and height of its input.
        pub(crate) size?: [u32; 2], each(multiples_of(centerface::SIDE_STEP))
            => checked_size;
    }
}

settings! {
    pub(crate) enum StageKind {
        Centerface = "centerface",
        Faceres = "faceres",
        Classifier = "classifier",
    }
}

settings! {
    /// Looks at crops of what is above it.
    pub(crate) struct StageSettings {
        pub(crate) kind: StageKind;
        /// The model's name. Left out: the kind's usual one.
        pub(crate) model?: String;
        /// Labels that it looks at. None: all.
        pub(crate) labels_of as "for": Vec<String> = Vec::new();
        /// Least score of what it looks at.
        pub(crate) min_score: f32 = 0.0, at_least(0).up_to(1);
        /// The crop about the box: made square by its longer side, then enlarged.
        pub(crate) crop: CropSettings = CropSettings::default();
        /// What its attributes are called; stages below it add theirs after a dot.
        pub(crate) name? as "as": String;
        pub(crate) stages?: Stages;
        /// centerface: least score of a face. Left out: 0.5.
        pub(crate) score?: f32, above(0).up_to(1);
        /// centerface: width and height of its input.
        pub(crate) size?: [u32; 2], each(multiples_of(centerface::SIDE_STEP))
            => checked_size;
        /// faceres: whether the detection gets the embedding.
        pub(crate) embedding?: bool = false;
        /// classifier: its classes, in the output's order. Left out: those of its model.toml.
        pub(crate) labels?: Vec<String>, not_empty();
        /// classifier: how many of the best classes are reported.
        pub(crate) top?: usize = 1, at_least(1);
        /// classifier: what makes scores of its output.
        pub(crate) activation?: Activation = Activation::Softmax;
        /// classifier: crops in a run. More than 1 needs a model whose first dimension is open.
        pub(crate) batch?: usize = 1, at_least(1).up_to(MAX_BATCH);
        /// classifier: its input, f32 [n, 3, height, width]. Left out: as its model.toml has it.
        pub(crate) input?: InputSettings;
        /// classifier: its output's name, [n, labels].
        pub(crate) output?: String = "output".into();
    }
}

settings! {
    /// The crop about a box.
    pub(crate) struct CropSettings {
        pub(crate) expand: f32 = 1.0, at_least(0.1).up_to(10);
        pub(crate) square: bool = false;
    }
}

settings! {
    pub(crate) enum Channels {
        Rgb = "rgb",
        Bgr = "bgr",
    }
}

settings! {
    pub(crate) enum Fit {
        Letterbox = "letterbox",
        Stretch = "stretch",
    }
}

settings! {
    /// A classifier's input: f32, [n, 3, height, width].
    pub(crate) struct InputSettings {
        pub(crate) name: String = "input".into();
        pub(crate) width: u32 = 224, at_least(1).up_to(MAX_SIDE);
        pub(crate) height: u32 = 224, at_least(1).up_to(MAX_SIDE);
        pub(crate) channels: Channels = Channels::Rgb;
        pub(crate) fit: Fit = Fit::Letterbox;
        /// Pixel value of what a letterbox leaves empty.
        pub(crate) fill: [f32; 3] = [0.0; 3];
        // ImageNet's, on pixel values 0 to 255: what most classifiers were trained with.
        /// Subtracted from pixels of 0 to 255, in the order of the channels.
        pub(crate) mean: [f32; 3] = [123.675, 116.28, 103.53];
        /// Then divided by.
        pub(crate) std: [f32; 3] = [58.395, 57.12, 57.375]
            => |std, path| if std.contains(&0.0) {
                Err(format!("{path}: {std:?} has a 0, by which nothing can be divided"))
            } else {
                Ok(())
            };
    }
}

/// Stages, at any depth: in the schema a reference to the one description of a stage.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Stages(pub(crate) Vec<StageSettings>);

impl Setting for Stages {
    fn describe(_: &Limits) -> Map<String, Value> {
        let schema = [("type", json!("array")), ("items", json!({ "$ref": "#/$defs/stage" }))];
        schema.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
    }

    fn to_json(&self) -> Value {
        self.0.to_json()
    }

    fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
        self.0.check(limits, path)
    }
}

fn checked_size(size: &Option<[u32; 2]>, path: &str) -> Result<(), String> {
    size.map_or(Ok(()), |size| centerface::check_size(size, path))
}

/// Person, face, age and gender.
#[must_use]
pub fn default_tree() -> Value {
    json!({
        "detect": {
            "kind": DetectorKind::Nanodet.name(), "model": nanodet::DEFAULT.name, "score": 0.4,
            "labels": ["person"]
        },
        "stages": [{
            "for": ["person"],
            "min_score": 0.5,
            "kind": StageKind::Centerface.name(),
            "model": centerface::MODEL,
            "size": [256, 256],
            "as": "face",
            "stages": [{
                "for": ["face"],
                "crop": { "expand": 1.2, "square": true },
                "kind": StageKind::Faceres.name(),
                "model": faceres::MODEL
            }]
        }]
    })
}

/// The JSON Schema of the settings.
#[must_use]
pub fn schema() -> Value {
    let mut schema = settings::schema::<Settings>();
    if let Value::Object(schema) = &mut schema {
        schema.insert("default".into(), default_tree());
        schema.insert("$defs".into(), json!({ "stage": StageSettings::describe(&any()) }));
    }
    schema
}
