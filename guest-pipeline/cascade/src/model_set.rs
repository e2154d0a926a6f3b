//! Runs the tree's models: the one part of this pipeline that calls the host.

use ocelli_sdk::centerface::{self, Face};
use ocelli_sdk::faceres::{self, Embedder};
use ocelli_sdk::labels::COCO_80;
use ocelli_sdk::nms::{self, Candidate};
use ocelli_sdk::nn::Model;
use ocelli_sdk::{Attribute, Detection, Frame, Rect, classifier, detect, nanodet};

use crate::batch;
use crate::executor::{RoiCrop, StageResult};
use crate::objects::{FACE, Roi};
use crate::tree::{Classifier, Detect, Detector, Stage, StageModel, Tree, join};

/// The loaded models of a tree.
pub(crate) struct ModelSet {
    detector: LoadedModel,
    /// By the numbers of their stages.
    stages: Vec<LoadedModel>,
}

enum LoadedModel {
    Nanodet(nanodet::Detector),
    Centerface(centerface::Detector),
    Described(detect::Detector),
    Faceres(Embedder),
    Classifier(Model),
}

impl ModelSet {
    /// Loads every model of the tree.
    pub(crate) fn load(tree: &Tree) -> Result<Self, String> {
        let detector = match &tree.detect.detector {
            Detector::Nanodet { variant, .. } => {
                LoadedModel::Nanodet(nanodet::Detector::load(*variant)?)
            }
            Detector::Centerface { model, size } => {
                LoadedModel::Centerface(centerface::Detector::load(model, *size)?)
            }
            Detector::Described { detector, .. } => {
                LoadedModel::Described(detect::Detector::open((**detector).clone())?)
            }
        };
        let stage = |stage: &&Stage| match &stage.work {
            StageModel::Centerface { model, size, .. } => {
                centerface::Detector::load(model, *size).map(LoadedModel::Centerface)
            }
            StageModel::Faceres { model, .. } => Embedder::load(model).map(LoadedModel::Faceres),
            StageModel::Classifier(Classifier { model, .. }) => {
                Model::load(model).map(LoadedModel::Classifier)
            }
        };
        Ok(Self { detector, stages: tree.stages().iter().map(stage).collect::<Result<_, _>>()? })
    }

    /// The frame's detections, best first.
    pub(crate) fn detect(&self, frame: &Frame, detect: &Detect) -> Result<Vec<Detection>, String> {
        let Detect { score, iou, detector } = detect;
        match (&self.detector, detector) {
            (LoadedModel::Nanodet(model), Detector::Nanodet { wanted, .. }) => {
                let wants = |class: u32| wanted.get(class as usize).copied().unwrap_or(false);
                let standing = nms::suppress(model.candidates(frame, *score, wants)?, *iou);
                let label = |class: u32| COCO_80.get(class as usize).copied().unwrap_or("unknown");
                let one =
                    |Candidate { bbox, class, score }| Detection::new(label(class), score, bbox);
                Ok(standing.into_iter().map(one).collect())
            }
            (LoadedModel::Centerface(model), Detector::Centerface { .. }) => {
                let faces = model.faces(frame, None, *score, *iou)?;
                let one = |Face { bbox, score, .. }| Detection::new(FACE, score, bbox);
                Ok(faces.into_iter().map(one).collect())
            }
            (LoadedModel::Described(model), Detector::Described { wanted, .. }) => {
                let wants = |class: u32| wanted.wants(class);
                let found = model.candidates(frame, None, *score, wants)?;
                let one = |Candidate { bbox, class, score }| {
                    Detection::new(model.label(class), score, bbox)
                };
                Ok(nms::suppress(found, *iou).into_iter().map(one).collect())
            }
            _ => Err("the detector's model is of another kind".into()),
        }
    }

    /// Runs a stage on crops; gives a result for each.
    pub(crate) fn run_stage(
        &self,
        frame: &Frame,
        stage: &Stage,
        crops: &[RoiCrop],
    ) -> Result<Vec<StageResult>, String> {
        match (self.stages.get(stage.number), &stage.work) {
            (Some(LoadedModel::Centerface(model)), StageModel::Centerface { score, iou, .. }) => {
                crops.iter().map(|crop| face(model, frame, stage, crop, *score, *iou)).collect()
            }
            (Some(LoadedModel::Faceres(model)), StageModel::Faceres { embedding, .. }) => {
                crops.iter().map(|crop| reading(model, frame, stage, crop, *embedding)).collect()
            }
            (Some(LoadedModel::Classifier(model)), StageModel::Classifier(classifier)) => {
                classes(model, frame, stage, classifier, crops)
            }
            _ => Err(format!("the model of stage {:?} is of another kind", stage.name)),
        }
    }
}

/// The best face of a crop.
fn face(
    model: &centerface::Detector,
    frame: &Frame,
    stage: &Stage,
    crop: &RoiCrop,
    score: f32,
    iou: f32,
) -> Result<StageResult, String> {
    let faces = model.faces(frame, Some(crop.region.into()), score, iou)?;
    let Some(&Face { bbox, score, .. }) = faces.first() else { return Ok(StageResult::default()) };
    let Rect { x, y, width, height } = bbox.into();
    let value = format!("[{x:.2},{y:.2},{width:.2},{height:.2}]");
    Ok(StageResult {
        attributes: vec![Attribute { name: stage.name.clone(), value, score }],
        embedding: None,
        roi: Some(Roi { label: FACE.into(), score, bbox }),
    })
}

/// Gender, age and, where asked for, the embedding.
fn reading(
    model: &Embedder,
    frame: &Frame,
    stage: &Stage,
    crop: &RoiCrop,
    embedding: bool,
) -> Result<StageResult, String> {
    let tensor = frame.tensor(Some(crop.region.into()), faceres::input());
    let (tensor, _) = tensor.map_err(|e| e.to_string())?;
    let faceres::FaceReading { embedding: vector, gender, age } = model.read(tensor)?;
    let attribute = |name: &str, value: String, score| Attribute {
        name: join(&stage.name, name),
        value,
        score,
    };
    let mut attributes = vec![
        attribute("gender", gender.label.into(), gender.score),
        attribute("age", age.years.round().to_string(), age.score),
    ];
    if embedding {
        attributes.push(attribute("dimension", vector.len().to_string(), 1.0));
    }
    Ok(StageResult { attributes, embedding: embedding.then_some(vector), roi: None })
}

/// The best classes of each crop, as many crops in a run as the model takes and the memory holds.
fn classes(
    model: &Model,
    frame: &Frame,
    stage: &Stage,
    classifier: &Classifier,
    crops: &[RoiCrop],
) -> Result<Vec<StageResult>, String> {
    let regions: Vec<Rect> = crops.iter().map(|crop| crop.region.into()).collect();
    let mut found = Vec::new();
    while let Some(rest) = regions.get(found.len()..).filter(|rest| !rest.is_empty()) {
        let made =
            batch::make(rest, classifier.batch, |regions| frame.tensors(regions, classifier.input));
        let ((tensor, _), count) = made.map_err(|e| e.to_string())?;
        let outputs = model.run([(classifier.input_name.as_str(), tensor)])?;
        let numbers = outputs.floats(&classifier.output)?;
        let (dimensions, numbers) = (numbers.dimensions(), numbers.values());
        let wide = classifier.labels.len();
        if numbers.len() != count * wide {
            return Err(format!(
                "output {} of model {} is {dimensions:?}, {count} crops and {wide} labels expect \
                    [{count}, {wide}]",
                classifier.output, classifier.model
            ));
        }
        let done = crops.iter().skip(found.len());
        let rows: Result<Vec<_>, String> = numbers
            .chunks_exact(wide)
            .zip(done)
            .map(|(row, crop)| ranked(stage, classifier, row, crop))
            .collect();
        found.extend(rows?);
    }
    Ok(found)
}

fn ranked(
    stage: &Stage,
    classifier: &Classifier,
    row: &[f32],
    crop: &RoiCrop,
) -> Result<StageResult, String> {
    let best = classifier::best(row, classifier.activation, classifier.top)?;
    let label = |class: usize| classifier.labels.get(class).cloned().unwrap_or_default();
    let attribute = |(rank, &(class, score)): (usize, &(usize, f32))| {
        let name =
            if rank == 0 { stage.name.clone() } else { join(&stage.name, &(rank + 1).to_string()) };
        Attribute { name, value: label(class), score }
    };
    let attributes = best.iter().enumerate().map(attribute).collect();
    let roi =
        best.first().map(|&(class, score)| Roi { label: label(class), score, bbox: crop.roi.bbox });
    Ok(StageResult { attributes, embedding: None, roi })
}
