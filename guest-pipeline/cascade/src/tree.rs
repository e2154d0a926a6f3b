//! The tree of models, checked: what each stage looks at, with what, and what its results are
//! called.

use std::collections::HashSet;

use ocelli_sdk::classifier::Activation;
use ocelli_sdk::detect::{self, Decoder, DescribedDetector};
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::{self, COCO_80, Classes};
use ocelli_sdk::models::ModelDescription;
use ocelli_sdk::nanodet::{self, Variant};
use ocelli_sdk::settings::{parse, read};
use ocelli_sdk::{Channels, Fit, TensorSpec, centerface, faceres};

use crate::objects::{FACE, MAX_DEPTH, MAX_STAGES, Roi};
use crate::settings::{self, DetectorKind, StageKind};

/// Settings that are sound.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Looks at the whole frame.
    pub detect: Detect,
    /// Look at what was detected.
    pub stages: Vec<Stage>,
    /// Most crops of a frame that stages look at together.
    pub max_crops: usize,
    /// Above 0. None: every frame that comes is looked at.
    pub max_results_per_second: Option<f64>,
}

#[derive(Debug, Clone)]
pub struct Detect {
    /// Detections of this score and more are reported.
    pub score: f32,
    /// Of two boxes of a label that overlap by more the better stands.
    pub iou: f32,
    /// The model and its own settings.
    pub detector: Detector,
}

/// The kinds of detectors.
#[derive(Debug, Clone)]
pub enum Detector {
    /// Objects of COCO's classes.
    Nanodet {
        variant: Variant,
        /// For each class of COCO, whether it is reported.
        wanted: Vec<bool>,
    },
    Centerface {
        model: String,
        /// Width and height of its input.
        size: [u32; 2],
    },
    /// Any detector whose model describes itself.
    Described {
        detector: Box<DescribedDetector>,
        /// The classes that are reported.
        wanted: Classes,
    },
}

/// Asks the host for a model's description.
pub type Describe<'a> = dyn Fn(&str) -> Result<ModelDescription, String> + 'a;

/// A model that looks at crops.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Counts the stages from 0, each before those below it.
    pub number: usize,
    /// What its attributes are called, or what their names begin with. Empty: they have their own
    /// names.
    pub name: String,
    /// About what it looks at.
    pub crop: CropRule,
    /// The model and its own settings.
    pub work: StageModel,
    /// Look at what it found.
    pub stages: Vec<Stage>,
    takes: Vec<String>,
    min_score: f32,
}

/// How the crop about a box is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropRule {
    expand: f32,
    square: bool,
}

impl CropRule {
    /// The crop about a box, in the box's pixels.
    #[must_use]
    pub fn about(&self, bbox: &BBox) -> BBox {
        if self.square { bbox.square() } else { *bbox }.expanded(self.expand)
    }
}

/// The kinds of stages.
#[derive(Debug, Clone)]
pub enum StageModel {
    /// Finds the best face; stages below look at it.
    Centerface {
        model: String,
        /// Width and height of its input.
        size: [u32; 2],
        /// Least score of a face.
        score: f32,
        /// Of two boxes that overlap by more the better stands.
        iou: f32,
    },
    /// Says gender and age of a face.
    Faceres {
        model: String,
        /// Whether the detection gets the face's embedding.
        embedding: bool,
    },
    /// Says which class a crop is of; stages below look at the same box, by the class.
    Classifier(Classifier),
}

/// A model whose output is [n, classes].
#[derive(Debug, Clone)]
pub struct Classifier {
    pub model: String,
    /// The tensor that it takes.
    pub input: TensorSpec,
    pub input_name: String,
    pub output: String,
    /// The classes' names. At least one.
    pub labels: Vec<String>,
    /// How many of the best classes are reported. At least one.
    pub top: usize,
    /// The function from the output to scores.
    pub activation: Activation,
    /// Most crops of a run. At least one.
    pub batch: usize,
}

impl Stage {
    /// Whether it looks at that.
    #[must_use]
    pub fn takes(&self, roi: &Roi) -> bool {
        roi.score >= self.min_score && (self.takes.is_empty() || self.takes.contains(&roi.label))
    }
}

impl Tree {
    /// Reads and checks the settings. What they leave out of a model is as it is described.
    ///
    /// # Errors
    /// Names the key by its path and what would be right:
    /// `settings.stages[0].stages[1].for[0]: no label "fase", did you mean "face"?`
    pub fn read(json: &str, describe: &Describe<'_>) -> Result<Self, String> {
        let mut written: settings::Settings = read(json)?;
        if written.detect.is_none() && written.stages.is_none() {
            let default: settings::Settings = parse(&settings::default_tree().to_string())?;
            (written.detect, written.stages) = (default.detect, default.stages);
        }
        let detect =
            written.detect.ok_or("settings.detect: is missing: `stages` look at what it finds")?;
        let (detect, known) = detector(detect, describe)?;
        let mut check = TreeCheck::new(describe);
        let above = ParentStage { name: String::new(), labels: known };
        let stages =
            check.stages(written.stages.unwrap_or_default(), "settings.stages", &above, 1)?;
        let settings::Settings { max_crops, max_results_per_second, .. } = written;
        Ok(Self { detect, stages, max_crops, max_results_per_second })
    }

    /// All stages in the order of their numbers.
    #[must_use]
    pub fn stages(&self) -> Vec<&Stage> {
        fn add<'a>(stages: &'a [Stage], all: &mut Vec<&'a Stage>) {
            for stage in stages {
                all.push(stage);
                add(&stage.stages, all);
            }
        }
        let mut all = Vec::new();
        add(&self.stages, &mut all);
        all
    }
}

/// A name below another.
#[must_use]
pub fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.into() } else { format!("{above}.{name}") }
}

/// A key that belongs to another kind is an error, so that no setting is without effect.
fn foreign(given: bool, key: &str, of: &str, kind: &str, path: &str) -> Result<(), String> {
    if given {
        Err(format!("{path}.{key}: belongs to the kind {of:?}, this one is {kind:?}"))
    } else {
        Ok(())
    }
}

/// The detector and the labels that it gives.
fn detector(
    written: settings::DetectSettings,
    describe: &Describe<'_>,
) -> Result<(Detect, Vec<String>), String> {
    let path = "settings.detect";
    let settings::DetectSettings { kind, model, score, iou, labels, size } = written;
    let (usual, detector, known) = match kind {
        DetectorKind::Nanodet => {
            foreign(size.is_some(), "size", "centerface", "nanodet", path)?;
            let name = model.unwrap_or_else(|| nanodet::DEFAULT.name.into());
            let variant = nanodet::find(&name, "settings.detect.model")?;
            let asked = labels.unwrap_or_default();
            labels::check(&asked, &COCO_80, "settings.detect.labels")?;
            let wants = |label: &str| asked.is_empty() || asked.iter().any(|asked| asked == label);
            let wanted = COCO_80.iter().map(|label| wants(label)).collect();
            let known = COCO_80
                .iter()
                .filter(|label| wants(label))
                .map(|&label| label.to_owned())
                .collect();
            ((0.4, 0.5), Detector::Nanodet { variant, wanted }, known)
        }
        DetectorKind::Centerface => {
            foreign(labels.is_some(), "labels", "nanodet", "centerface", path)?;
            let size = size.unwrap_or([416, 416]);
            let model = model.unwrap_or_else(|| centerface::MODEL.into());
            ((0.5, 0.3), Detector::Centerface { model, size }, vec![FACE.to_owned()])
        }
        DetectorKind::Detector => {
            foreign(size.is_some(), "size", "centerface", "detector", path)?;
            let name = model.ok_or("settings.detect.model: is missing")?;
            let described = describe(&name).and_then(|described| detect::known(&name, described));
            let detector = described.map_err(|error| format!("settings.detect.model: {error}"))?;
            let detector = Box::new(detector);
            let asked = labels.unwrap_or_default();
            labels::check(&asked, &detector.labels, "settings.detect.labels")?;
            let wanted = Classes::named(&asked, &detector.labels);
            let known = if asked.is_empty() { detector.labels.clone() } else { asked };
            ((0.4, 0.5), Detector::Described { detector, wanted }, known)
        }
    };
    let (score, iou) = (score.unwrap_or(usual.0), iou.unwrap_or(usual.1));
    Ok((Detect { score, iou, detector }, known))
}

/// The stage above others.
struct ParentStage {
    name: String,
    /// All labels that its results may have.
    labels: Vec<String>,
}

/// The state of a check over all stages of a tree.
struct TreeCheck<'a> {
    describe: &'a Describe<'a>,
    count: usize,
    names: HashSet<String>,
    embeds: bool,
}

impl<'a> TreeCheck<'a> {
    fn new(describe: &'a Describe<'a>) -> Self {
        Self { describe, count: 0, names: HashSet::new(), embeds: false }
    }

    fn stages(
        &mut self,
        settings::Stages(written): settings::Stages,
        path: &str,
        above: &ParentStage,
        depth: usize,
    ) -> Result<Vec<Stage>, String> {
        if depth > MAX_DEPTH && !written.is_empty() {
            return Err(format!("{path}: at most {MAX_DEPTH} stages stand below each other"));
        }
        let stages = written.into_iter().enumerate();
        stages.map(|(n, stage)| self.stage(stage, &format!("{path}[{n}]"), above, depth)).collect()
    }

    fn stage(
        &mut self,
        written: settings::StageSettings,
        path: &str,
        above: &ParentStage,
        depth: usize,
    ) -> Result<Stage, String> {
        let number = self.count;
        self.count += 1;
        if self.count > MAX_STAGES {
            return Err(format!("{path}: at most {MAX_STAGES} stages make a tree"));
        }
        labels::check(&written.labels_of, &above.labels, &format!("{path}.for"))?;
        let settings::CropSettings { expand, square } = written.crop;
        kind_has_keys(&written, path)?;
        let name = self.name(&written, path, above)?;
        let (work, labels) = match written.kind {
            StageKind::Centerface => centerface_stage(&written),
            StageKind::Faceres => self.faceres_stage(&written, path)?,
            StageKind::Classifier => classifier_stage(&written, path, self.describe)?,
        };
        let below = ParentStage { name: name.clone(), labels };
        let stages = written.stages.unwrap_or_default();
        let stages = self.stages(stages, &format!("{path}.stages"), &below, depth + 1)?;
        let (takes, min_score) = (written.labels_of, written.min_score);
        let crop = CropRule { expand, square };
        Ok(Stage { number, name, crop, work, stages, takes, min_score })
    }

    fn faceres_stage(
        &mut self,
        written: &settings::StageSettings,
        path: &str,
    ) -> Result<(StageModel, Vec<String>), String> {
        let embedding = written.embedding.unwrap_or(false);
        if embedding && std::mem::replace(&mut self.embeds, true) {
            return Err(format!(
                "{path}.embedding: a detection has one, and another stage gives it"
            ));
        }
        let model = written.model.clone().unwrap_or_else(|| faceres::MODEL.into());
        Ok((StageModel::Faceres { model, embedding }, Vec::new()))
    }

    /// What the stage's attributes are called. Two stages with the same names would hide each
    /// other's results.
    fn name(
        &mut self,
        written: &settings::StageSettings,
        path: &str,
        above: &ParentStage,
    ) -> Result<String, String> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        let usual = match written.kind {
            StageKind::Centerface => Some(FACE),
            StageKind::Faceres => None,
            StageKind::Classifier if written.name.is_none() => {
                return Err(format!("{path}.as: is missing: what is it that the classes say?"));
            }
            StageKind::Classifier => None,
        };
        let name = match written.name.as_deref().or(usual) {
            Some(name) if is_name(name) => join(&above.name, name),
            Some(name) => {
                return Err(format!(
                    "{path}.as: {name:?} is not a letter and then letters, digits, _ and -"
                ));
            }
            None => above.name.clone(),
        };
        let taken = match written.kind {
            StageKind::Faceres => join(&name, "gender"),
            StageKind::Centerface | StageKind::Classifier => name.clone(),
        };
        if self.names.insert(taken.clone()) {
            return Ok(name);
        }
        Err(format!(
            "{path}.as: another stage gives the attribute {taken:?} already: give this one \
                another name"
        ))
    }
}

/// The model of a stage, and the labels of its results.
fn centerface_stage(written: &settings::StageSettings) -> (StageModel, Vec<String>) {
    let size = written.size.unwrap_or([256, 256]);
    let score = written.score.unwrap_or(0.5);
    let model = written.model.clone().unwrap_or_else(|| centerface::MODEL.into());
    (StageModel::Centerface { model, size, score, iou: 0.3 }, vec![FACE.to_owned()])
}

/// A classifier. What the settings leave out is as its model is described, and otherwise as it is
/// with most classifiers.
fn classifier_stage(
    written: &settings::StageSettings,
    path: &str,
    describe: &Describe<'_>,
) -> Result<(StageModel, Vec<String>), String> {
    let model = written.model.clone().ok_or_else(|| format!("{path}.model: is missing"))?;
    let described = Described::of(describe(&model).ok());
    let labels = written.labels.clone().unwrap_or(described.labels);
    if labels.is_empty() {
        return Err(format!(
            "{path}.labels: is missing, and the model is not described with any: the model's \
                classes, in order"
        ));
    }
    let top = written.top.unwrap_or(1);
    if !(1..=labels.len()).contains(&top) {
        let count = labels.len();
        return Err(format!("{path}.top: {top} is not 1 to {count}, the number of labels"));
    }
    let batch = written.batch.unwrap_or(1);
    let (input_name, input) = match (&written.input, described.input) {
        (None, Some((name, spec))) => (name, spec),
        (input, _) => {
            let input = input.clone().unwrap_or_default();
            (input.name.clone(), tensor(&input))
        }
    };
    let output = written.output.clone().or(described.output).unwrap_or_else(|| "output".into());
    let activation = written.activation.or(described.activation).unwrap_or_default();
    let known = labels.clone();
    let work = Classifier { model, input, input_name, output, labels, top, activation, batch };
    Ok((StageModel::Classifier(work), known))
}

/// What is known of a classifier by its model's description.
#[derive(Default)]
struct Described {
    labels: Vec<String>,
    input: Option<(String, TensorSpec)>,
    output: Option<String>,
    activation: Option<Activation>,
}

impl Described {
    /// Nothing, where the host does not have the model: loading it says so.
    fn of(model: Option<ModelDescription>) -> Self {
        let Some(ModelDescription { picture, decoder, labels, .. }) = model else {
            return Self::default();
        };
        let read = decoder.and_then(|table| Decoder::read(&table.family, &table.parameters).ok());
        let (output, activation) = match read {
            Some(Decoder::Classifier(scores)) => (Some(scores.output), Some(scores.activation)),
            _ => (None, None),
        };
        let input = picture.map(|picture| (picture.name, picture.spec));
        Self { labels, input, output, activation }
    }
}

/// Refuses keys of other kinds.
fn kind_has_keys(stage: &settings::StageSettings, path: &str) -> Result<(), String> {
    use StageKind::{Centerface, Classifier, Faceres};
    let keys = [
        ("score", stage.score.is_some(), Centerface),
        ("size", stage.size.is_some(), Centerface),
        ("embedding", stage.embedding.is_some(), Faceres),
        ("labels", stage.labels.is_some(), Classifier),
        ("top", stage.top.is_some(), Classifier),
        ("activation", stage.activation.is_some(), Classifier),
        ("batch", stage.batch.is_some(), Classifier),
        ("input", stage.input.is_some(), Classifier),
        ("output", stage.output.is_some(), Classifier),
    ];
    for (key, given, kind) in keys {
        foreign(given && kind != stage.kind, key, kind.name(), stage.kind.name(), path)?;
    }
    if stage.kind == Faceres && stage.stages.as_ref().is_some_and(|stages| !stages.0.is_empty()) {
        return Err(format!(
            "{path}.stages: a stage of the kind \"faceres\" finds nothing to look at further"
        ));
    }
    Ok(())
}

fn tensor(input: &settings::InputSettings) -> TensorSpec {
    let three = |[a, b, c]: [f32; 3]| (a, b, c);
    TensorSpec {
        fit: match input.fit {
            settings::Fit::Letterbox => Fit::Letterbox,
            settings::Fit::Stretch => Fit::Stretch,
        },
        channels: match input.channels {
            settings::Channels::Rgb => Channels::Rgb,
            settings::Channels::Bgr => Channels::Bgr,
        },
        fill: three(input.fill),
        mean: three(input.mean),
        std: three(input.std),
        ..TensorSpec::letterbox(input.width, input.height)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
