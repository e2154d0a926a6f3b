//! Takes a frame's detections through the tree.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{Attribute, Detection};

use crate::objects::Roi;
use crate::tree::{Stage, Tree};

/// The result of a stage for one crop.
#[derive(Debug, Clone, Default)]
pub struct StageResult {
    /// Attributes of the detection, under the stage's name.
    pub attributes: Vec<Attribute>,
    /// Embedding of the detection.
    pub embedding: Option<Vec<f32>>,
    /// The region for the stages below this one.
    pub roi: Option<Roi>,
}

/// Runs one stage on some crops and gives a result for each, in their order.
pub type StageRunner<'a> = dyn FnMut(&Stage, &[RoiCrop]) -> Result<Vec<StageResult>, String> + 'a;

/// Takes detections, best first, through the tree; `run` runs its stages. Gives the number of crops
/// that were left out because of [`Tree::max_crops`].
///
/// # Errors
/// Those of `run`.
pub fn execute(
    tree: &Tree,
    detections: &mut [Detection],
    run: &mut StageRunner<'_>,
) -> Result<usize, String> {
    let roi =
        |d: &Detection| Roi { label: d.label.clone(), score: d.score, bbox: BBox::from(d.box_) };
    let rois: Vec<_> = detections.iter().map(roi).enumerate().collect();
    let mut executor = Executor { detections, run, crops_left: tree.max_crops, left_out: 0 };
    executor.stages(&tree.stages, &rois)?;
    Ok(executor.left_out)
}

/// The input of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct RoiCrop {
    /// The region of interest that the crop is made about.
    pub roi: Roi,
    /// In frame pixels; it may reach beyond the frame.
    pub region: BBox,
}

struct Executor<'a> {
    detections: &'a mut [Detection],
    run: &'a mut StageRunner<'a>,
    /// Crops that the frame may still have.
    crops_left: usize,
    left_out: usize,
}

impl Executor<'_> {
    /// Runs the stages of one level, each with those below it, on regions with the number of their
    /// detection.
    fn stages(&mut self, stages: &[Stage], rois: &[(usize, Roi)]) -> Result<(), String> {
        for stage in stages {
            let mut chosen: Vec<_> = rois.iter().filter(|(_, roi)| stage.takes(roi)).collect();
            self.left_out += chosen.len().saturating_sub(self.crops_left);
            chosen.truncate(self.crops_left);
            self.crops_left -= chosen.len();
            if chosen.is_empty() {
                continue;
            }
            let crop =
                |roi: &Roi| RoiCrop { roi: roi.clone(), region: stage.crop.about(&roi.bbox) };
            let crops: Vec<_> = chosen.iter().map(|(_, roi)| crop(roi)).collect();
            let mut next = Vec::new();
            for (&&(owner, _), found) in chosen.iter().zip((self.run)(stage, &crops)?) {
                if let Some(detection) = self.detections.get_mut(owner) {
                    detection.attributes.extend(found.attributes);
                    detection.embedding = found.embedding.or(detection.embedding.take());
                }
                next.extend(found.roi.map(|roi| (owner, roi)));
            }
            self.stages(&stage.stages, &next)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = r#"{
        "detect": {"kind": "nanodet"},
        "stages": [
            {"kind": "classifier", "model": "brand", "for": ["car", "truck"], "min_score": 0.5, "as": "brand",
             "labels": ["a", "b"],
             "stages": [{"kind": "classifier", "model": "body", "for": ["b"], "as": "body", "labels": ["van"]}]},
            {"kind": "centerface", "for": ["person"], "as": "face",
             "stages": [{"kind": "faceres", "crop": {"expand": 2.0, "square": true}, "embedding": true}]}
        ], "max_crops": 6}"#;

    fn read(settings: &str) -> Result<Tree, String> {
        Tree::read(settings, &|name| Err(format!("no model {name}")))
    }

    fn detection(label: &str, score: f32, x: f32) -> Detection {
        Detection::new(label, score, BBox::from_xywh(x, 0.0, 10.0, 20.0))
    }

    fn attribute(name: &str, value: &str) -> Attribute {
        Attribute { name: name.into(), value: value.into(), score: 0.75 }
    }

    /// Looks as the tree's stages would: every car at an even x is a "b", every person's face lies
    /// at its head.
    fn look(
        stage: &Stage,
        crops: &[RoiCrop],
        asked: &mut Vec<(String, Vec<f32>)>,
    ) -> Vec<StageResult> {
        asked.push((stage.name.clone(), crops.iter().map(|crop| crop.region.left).collect()));
        let one = |crop: &RoiCrop| {
            let Roi { bbox, .. } = crop.roi;
            match (stage.name.as_str(), stage.stages.is_empty()) {
                ("brand", _) => {
                    let label = if bbox.left % 2.0 == 0.0 { "b" } else { "a" };
                    let roi = Roi { label: label.into(), score: 0.75, bbox };
                    StageResult {
                        attributes: vec![attribute("brand", label)],
                        roi: Some(roi),
                        embedding: None,
                    }
                }
                ("face", false) => {
                    let bbox = BBox::from_xywh(bbox.left, bbox.top, 4.0, 5.0);
                    let roi = Roi { label: "face".into(), score: 0.75, bbox };
                    StageResult { roi: Some(roi), ..StageResult::default() }
                }
                ("face", true) => StageResult {
                    attributes: vec![attribute("face.age", "40")],
                    embedding: Some(vec![1.0]),
                    roi: None,
                },
                _ => StageResult {
                    attributes: vec![attribute(&stage.name, "van")],
                    ..StageResult::default()
                },
            }
        };
        crops.iter().map(one).collect()
    }

    fn run(detections: &mut [Detection]) -> (Vec<(String, Vec<f32>)>, usize) {
        let tree = read(TREE).unwrap();
        let mut asked = Vec::new();
        let left =
            execute(&tree, detections, &mut |stage, crops| Ok(look(stage, crops, &mut asked)));
        (asked, left.unwrap())
    }

    fn said(detection: &Detection) -> Vec<(&str, &str)> {
        detection.attributes.iter().map(|a| (a.name.as_str(), a.value.as_str())).collect()
    }

    #[test]
    fn each_stage_gets_the_crops_that_it_is_for_and_results_land_at_their_detection() {
        let mut detections = [
            detection("car", 0.9, 100.0),
            detection("person", 0.8, 50.0),
            detection("truck", 0.7, 31.0),
            detection("car", 0.4, 60.0),
            detection("dog", 0.9, 0.0),
        ];
        let (asked, left) = run(&mut detections);
        let asked: Vec<_> =
            asked.iter().map(|(name, lefts)| (name.as_str(), lefts.as_slice())).collect();
        // The face's crop: a square of 5 about (52, 2.5), grown to 10.
        let expected: [(&str, &[f32]); 4] = [
            ("brand", &[100.0, 31.0]),
            ("brand.body", &[100.0]),
            ("face", &[50.0]),
            ("face", &[47.0]),
        ];
        assert_eq!((asked.as_slice(), left), (&expected[..], 0));
        assert_eq!(said(&detections[0]), [("brand", "b"), ("brand.body", "van")]);
        assert_eq!(said(&detections[1]), [("face.age", "40")]);
        assert_eq!(detections[1].embedding, Some(vec![1.0]));
        assert_eq!(said(&detections[2]), [("brand", "a")]);
        assert!(said(&detections[3]).is_empty(), "below the stage's score");
        assert!(said(&detections[4]).is_empty());
    }

    #[test]
    fn crops_of_a_frame_are_bounded_and_those_left_out_are_counted() {
        let mut detections: Vec<_> =
            (0..10).map(|n| detection("car", 0.9, 2.0 * n as f32)).collect();
        let (asked, left) = run(&mut detections);
        assert_eq!(asked.len(), 1, "nothing left for the stage below");
        assert_eq!(asked[0].1.len(), 6);
        assert_eq!(left, 4 + 6);
        assert!(!said(&detections[5]).is_empty() && said(&detections[6]).is_empty());
    }

    #[test]
    fn a_stage_that_fails_fails_the_frame() {
        let tree = read(TREE).unwrap();
        let mut detections = [detection("car", 0.9, 0.0)];
        let failed = execute(&tree, &mut detections, &mut |_, _| Err("no such output".into()));
        assert_eq!(failed, Err("no such output".into()));
    }

    #[test]
    fn a_frame_with_nothing_in_it_runs_no_stage() {
        assert_eq!(run(&mut []), (vec![], 0));
    }
}
