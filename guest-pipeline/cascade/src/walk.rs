//! The way of a frame's detections through the tree.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{Attribute, Detection};

use crate::tree::{Stage, Tree};

/// Something in the frame that stages may look at: a detection, or what a stage found in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Roi {
    /// What it is.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// In frame pixels.
    pub bbox: BBox,
}

/// What a stage found in one crop.
#[derive(Debug, Clone, Default)]
pub struct StageResult {
    /// Their names are the stage's.
    pub attributes: Vec<Attribute>,
    /// Becomes the detection's.
    pub embedding: Option<Vec<f32>>,
    /// What the stages below this one may look at.
    pub roi: Option<Roi>,
}

/// Runs one stage on some subjects' crops and gives what it found in each, in their order.
pub type StageRunner<'a> = dyn FnMut(&Stage, &[RoiCrop]) -> Result<Vec<StageResult>, String> + 'a;

/// Takes detections, best first, through the tree, with `look` for its stages. Gives the number of
/// crops that were over [`Tree::max_crops`] and so were not looked at.
///
/// # Errors
/// What `look` says.
pub fn execute(
    tree: &Tree,
    detections: &mut [Detection],
    look: &mut StageRunner<'_>,
) -> Result<usize, String> {
    let subject =
        |d: &Detection| Roi { label: d.label.clone(), score: d.score, bbox: BBox::from(d.box_) };
    let subjects: Vec<_> = detections.iter().map(subject).enumerate().collect();
    let mut walk = Executor { detections, look, room: tree.max_crops, left_out: 0 };
    walk.stages(&tree.stages, &subjects)?;
    Ok(walk.left_out)
}

/// What a stage looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct RoiCrop {
    /// The subject that the crop is made about.
    pub roi: Roi,
    /// In frame pixels; it may reach beyond the frame.
    pub region: BBox,
}

struct Executor<'a> {
    detections: &'a mut [Detection],
    look: &'a mut StageRunner<'a>,
    /// Crops that may still be looked at.
    room: usize,
    left_out: usize,
}

impl Executor<'_> {
    /// Runs stages that stand beside each other, each with those below it, on subjects with the
    /// number of the detection that they belong to.
    fn stages(&mut self, stages: &[Stage], subjects: &[(usize, Roi)]) -> Result<(), String> {
        for stage in stages {
            let mut chosen: Vec<_> =
                subjects.iter().filter(|(_, subject)| stage.takes(subject)).collect();
            self.left_out += chosen.len().saturating_sub(self.room);
            chosen.truncate(self.room);
            self.room -= chosen.len();
            if chosen.is_empty() {
                continue;
            }
            let crop = |subject: &Roi| RoiCrop {
                roi: subject.clone(),
                region: stage.crop.about(&subject.bbox),
            };
            let crops: Vec<_> = chosen.iter().map(|(_, subject)| crop(subject)).collect();
            let mut next = Vec::new();
            for (&&(owner, _), found) in chosen.iter().zip((self.look)(stage, &crops)?) {
                if let Some(detection) = self.detections.get_mut(owner) {
                    detection.attributes.extend(found.attributes);
                    detection.embedding = found.embedding.or(detection.embedding.take());
                }
                next.extend(found.roi.map(|subject| (owner, subject)));
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
                    let subject = Roi { label: label.into(), score: 0.75, bbox };
                    StageResult {
                        attributes: vec![attribute("brand", label)],
                        roi: Some(subject),
                        embedding: None,
                    }
                }
                ("face", false) => {
                    let bbox = BBox::from_xywh(bbox.left, bbox.top, 4.0, 5.0);
                    let subject = Roi { label: "face".into(), score: 0.75, bbox };
                    StageResult { roi: Some(subject), ..StageResult::default() }
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
        let tree = Tree::read(TREE).unwrap();
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
        let tree = Tree::read(TREE).unwrap();
        let mut detections = [detection("car", 0.9, 0.0)];
        let failed = execute(&tree, &mut detections, &mut |_, _| Err("no such output".into()));
        assert_eq!(failed, Err("no such output".into()));
    }

    #[test]
    fn a_frame_with_nothing_in_it_runs_no_stage() {
        assert_eq!(run(&mut []), (vec![], 0));
    }
}
