//! The table `[decoder]` of a `model.toml`: how outputs become boxes or classes. Pipelines get it
//! as JSON (`ocelli:pipeline/models`); `detect` of the SDK has the arithmetic of each family.

use ocelli_protocol::inference::TensorDeclaration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Strides that a family may have: a level of 4 to one of 128 input pixels.
const MAX_LEVELS: usize = 6;

/// Bins of a side: NanoDet has 8 or 11, and more than this reach across any input.
const MAX_BINS: u32 = 64;

/// The form of a model's outputs, by the family of detectors that has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum ModelDecoder {
    /// YOLOv5 to v7: [1, N, 5 + classes], rows of middle, size, objectness and scores.
    Yolov5(ScoredTable),
    /// YOLOv8, v9, 11 and 12: [1, 4 + classes, N], columns of middle, size and scores.
    Yolov8(ScoredTable),
    /// YOLOv10, and exports with suppression inside: [1, N, 6], rows of edges, score and class.
    Yolov10(FinishedTable),
    /// YOLOX: [1, N, 5 + classes], middle and size relative to the cells of a grid.
    Yolox(GridTable),
    /// NanoDet and NanoDet-Plus: the distances to a box's sides are distributions over bins.
    Nanodet(BinnedLevels),
    /// DETR, RT-DETR, D-FINE: a fixed number of queries, nothing to suppress.
    Detr(QueryOutputs),
    /// SSD and others whose boxes are edges beside a tensor of scores.
    Ssd(EdgeOutputs),
    /// One score for each class.
    Classifier(ClassScores),
}

/// One output with a box and its scores in each row or column. Boxes are in input pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ScoredTable {
    pub output: String,
    /// Number of scores; what stands behind them is not looked at.
    pub classes: u32,
}

/// One output whose rows are finished detections. Boxes are in input pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct FinishedTable {
    pub output: String,
}

/// One output with a row for each cell of each level, the finest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct GridTable {
    pub output: String,
    pub classes: u32,
    /// Input pixels from cell to cell, level by level.
    pub strides: Vec<u32>,
}

/// The outputs of NanoDet: `output` alone, or `scores` and `sides` of each level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct BinnedLevels {
    /// [1, N, classes + 4 * bins], the levels one behind the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// For each level [1, cells, classes].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<String>,
    /// For each level [1, cells, 4 * bins].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<String>,
    pub classes: u32,
    /// Input pixels from cell to cell, level by level.
    pub strides: Vec<u32>,
    /// Bins of a side: distances of 0 to `bins` - 1 strides.
    pub bins: u32,
    /// Where in a cell its point lies, in strides: 0.5, and 0 for NanoDet-Plus.
    pub point: f32,
}

/// The outputs of DETR: `boxes` and `logits`; `boxes`, `labels` and `scores`; or `output`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct QueryOutputs {
    /// [1, queries, 4 + classes]: middle and size in shares of the picture, then scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// [1, queries, 4]: with `logits` middle and size in shares of the picture, with `labels` edges
    /// in input pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<String>,
    /// [1, queries, classes], before the sigmoid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<String>,
    /// [1, queries]: class numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// [1, queries].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<String>,
    /// The input, `i64` [1, 2], that takes the picture's width and height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizes: Option<String>,
}

/// The outputs of SSD: boxes by their edges beside their scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct EdgeOutputs {
    /// [1, N, 4] or [N, 4].
    pub boxes: String,
    /// [1, N, classes]; with `labels` [1, N] or [N].
    pub scores: String,
    /// [1, N] or [N]: class numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The order of a box's edges.
    pub order: EdgeOrder,
    /// Whether edges are shares of the picture, and not input pixels.
    pub unit: bool,
    /// The class number, or the column of `scores`, of the first label: 1 where 0 is the
    /// background.
    pub first: u32,
}

/// The order of a box's edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum EdgeOrder {
    /// Left, top, right, bottom.
    Xyxy,
    /// Top, left, bottom, right.
    Yxyx,
}

/// The output of a classifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ClassScores {
    /// [n, classes].
    pub output: String,
    pub activation: ScoreActivation,
}

/// The function from a classifier's numbers to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ScoreActivation {
    /// One class applies.
    Softmax,
    /// Each class applies or not.
    Sigmoid,
    /// The model has done it.
    None,
}

impl ModelDecoder {
    /// The family's name, as the table writes it.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Yolov5(_) => "yolov5",
            Self::Yolov8(_) => "yolov8",
            Self::Yolov10(_) => "yolov10",
            Self::Yolox(_) => "yolox",
            Self::Nanodet(_) => "nanodet",
            Self::Detr(_) => "detr",
            Self::Ssd(_) => "ssd",
            Self::Classifier(_) => "classifier",
        }
    }

    /// The first error in it, for a model with these inputs, outputs and number of labels.
    pub(super) fn problem(
        &self,
        inputs: &[TensorDeclaration],
        outputs: &[TensorDeclaration],
        labels: usize,
    ) -> Option<String> {
        self.form_problem()
            .or_else(|| {
                let named = |(key, name): (&str, &String)| unknown(key, name, "output", outputs);
                self.outputs().into_iter().find_map(named)
            })
            .or_else(|| match self {
                Self::Detr(QueryOutputs { sizes: Some(sizes), .. }) => {
                    unknown("sizes", sizes, "input", inputs)
                }
                _ => None,
            })
            .or_else(|| self.table_problem(outputs))
            .or_else(|| {
                let classes = usize::try_from(self.classes()?).ok()?;
                (labels > 0 && labels != classes).then(|| {
                    format!("there are {labels} `labels`, and `decoder.classes` is {classes}")
                })
            })
    }

    /// The number of classes, for families that have to say it.
    pub(super) fn classes(&self) -> Option<u32> {
        match self {
            Self::Yolov5(ScoredTable { classes, .. })
            | Self::Yolov8(ScoredTable { classes, .. })
            | Self::Yolox(GridTable { classes, .. })
            | Self::Nanodet(BinnedLevels { classes, .. }) => Some(*classes),
            Self::Yolov10(_) | Self::Detr(_) | Self::Ssd(_) | Self::Classifier(_) => None,
        }
    }

    /// The outputs that it names, each with its key.
    fn outputs(&self) -> Vec<(&'static str, &String)> {
        match self {
            Self::Yolov5(ScoredTable { output, .. })
            | Self::Yolov8(ScoredTable { output, .. })
            | Self::Yolov10(FinishedTable { output })
            | Self::Yolox(GridTable { output, .. })
            | Self::Classifier(ClassScores { output, .. }) => vec![("output", output)],
            Self::Nanodet(BinnedLevels { output, scores, sides, .. }) => {
                let levels = scores.iter().map(|name| ("scores", name));
                let levels = levels.chain(sides.iter().map(|name| ("sides", name)));
                output.iter().map(|name| ("output", name)).chain(levels).collect()
            }
            Self::Detr(QueryOutputs { output, boxes, logits, labels, scores, .. }) => {
                let named = [
                    ("output", output),
                    ("boxes", boxes),
                    ("logits", logits),
                    ("labels", labels),
                    ("scores", scores),
                ];
                named.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))).collect()
            }
            Self::Ssd(EdgeOutputs { boxes, scores, labels, .. }) => {
                let labels = labels.iter().map(|name| ("labels", name));
                [("boxes", boxes), ("scores", scores)].into_iter().chain(labels).collect()
            }
        }
    }

    /// An error in the table itself.
    fn form_problem(&self) -> Option<String> {
        if self.classes() == Some(0) {
            return Some("`decoder.classes` is 0".into());
        }
        let strides = match self {
            Self::Yolox(GridTable { strides, .. })
            | Self::Nanodet(BinnedLevels { strides, .. }) => Some(strides),
            _ => None,
        };
        if let Some(strides) = strides
            && (!(1..=MAX_LEVELS).contains(&strides.len()) || strides.contains(&0))
        {
            return Some(format!(
                "`decoder.strides` is {strides:?}: it has 1 to {MAX_LEVELS} numbers above 0"
            ));
        }
        match self {
            Self::Nanodet(BinnedLevels { bins, .. }) if !(2..=MAX_BINS).contains(bins) => {
                Some(format!("`decoder.bins` is {bins}: it is 2 to {MAX_BINS}"))
            }
            Self::Nanodet(BinnedLevels { point, .. }) if !(0.0..=1.0).contains(point) => {
                Some(format!("`decoder.point` is {point}: it is 0 to 1"))
            }
            Self::Nanodet(BinnedLevels { output: None, scores, sides, strides, .. })
                if scores.len() != strides.len() || sides.len() != strides.len() =>
            {
                Some(format!(
                    "`decoder.scores` has {} names and `decoder.sides` {}, for {} strides; or \
                     `decoder.output` names one output that holds all",
                    scores.len(),
                    sides.len(),
                    strides.len()
                ))
            }
            Self::Detr(QueryOutputs { output, boxes, logits, labels, scores, .. }) => {
                let given = [output, boxes, logits, labels, scores].map(Option::is_some);
                let forms = [
                    [true, false, false, false, false],
                    [false, true, true, false, false],
                    [false, true, false, true, true],
                ];
                (!forms.contains(&given)).then(|| {
                    "`decoder` of the family detr names `output`; `boxes` and `logits`; or \
                     `boxes`, `labels` and `scores`"
                        .into()
                })
            }
            _ => None,
        }
    }

    /// A table whose sides are known and cannot hold what the family has in it.
    fn table_problem(&self, outputs: &[TensorDeclaration]) -> Option<String> {
        // Counted from the end: the axis of a box's numbers.
        let (output, axis, least) = match self {
            Self::Yolov5(ScoredTable { output, classes })
            | Self::Yolox(GridTable { output, classes, .. }) => {
                (output, 1, 5 + u64::from(*classes))
            }
            Self::Yolov8(ScoredTable { output, classes }) => (output, 2, 4 + u64::from(*classes)),
            Self::Yolov10(FinishedTable { output }) => (output, 1, 6),
            Self::Nanodet(BinnedLevels { output: Some(output), classes, bins, .. }) => {
                (output, 1, u64::from(*classes) + 4 * u64::from(*bins))
            }
            _ => return None,
        };
        let shape = &outputs.iter().find(|tensor| tensor.name == *output)?.shape;
        let side = shape.len().checked_sub(axis).and_then(|place| shape.get(place));
        let holds = |&side: &i64| u64::try_from(side).ok().is_none_or(|side| least <= side);
        let fits = side.is_some_and(holds);
        (shape.len() < 2 || !fits).then(|| {
            format!(
                "output {output:?} has shape {shape:?}; the family {} with `decoder.classes` as \
                 they are has at least {least} numbers of a box in it",
                self.family()
            )
        })
    }
}

/// A name that the model does not have.
fn unknown(key: &str, name: &str, kind: &str, among: &[TensorDeclaration]) -> Option<String> {
    if among.iter().any(|tensor| tensor.name == *name) {
        return None;
    }
    let names: Vec<_> = among.iter().map(|tensor| tensor.name.as_str()).collect();
    Some(format!(
        "`decoder.{key}` is {name:?}, which is no {kind}; there are: {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::inference::Element;

    fn tensor(name: &str, shape: &[i64]) -> TensorDeclaration {
        TensorDeclaration { name: name.into(), element: Element::F32, shape: shape.to_vec() }
    }

    fn problem(table: &str, labels: usize) -> Option<String> {
        let decoder: ModelDecoder = toml::from_str(table).unwrap();
        let outputs = [tensor("rows", &[1, 25200, 85]), tensor("boxes", &[1, -1, 4])];
        decoder.problem(&[tensor("images", &[1, 3, 640, 640])], &outputs, labels)
    }

    #[test]
    fn a_table_names_outputs_that_are_there_and_hold_what_its_family_has() {
        let good = "family = \"yolov5\"\noutput = \"rows\"\nclasses = 80\n";
        assert_eq!(problem(good, 80), None);
        assert_eq!(problem(good, 0), None);
        for (from, to, words) in [
            ("\"rows\"", "\"row\"", "`decoder.output` is \"row\""),
            ("80", "81", "at least 86"),
            ("80", "0", "`decoder.classes` is 0"),
            ("80", "79", "80 `labels`, and `decoder.classes` is 79"),
        ] {
            let found = problem(&good.replace(from, to), 80);
            assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{found:?}");
        }
    }

    #[test]
    fn the_ways_of_a_family_exclude_each_other() {
        let detr = |keys: &str| problem(&format!("family = \"detr\"\n{keys}"), 0);
        assert_eq!(detr("boxes = \"boxes\"\nlogits = \"rows\""), None);
        assert_eq!(detr("output = \"rows\""), None);
        for keys in ["", "boxes = \"boxes\"", "output = \"rows\"\nlogits = \"rows\""] {
            assert!(detr(keys).is_some_and(|words| words.contains("`logits`")), "{keys}");
        }
        let sizes = "boxes = \"boxes\"\nlabels = \"rows\"\nscores = \"rows\"\nsizes = \"size\"";
        assert!(detr(sizes).is_some_and(|words| words.contains("no input")));
        let nanodet = "family = \"nanodet\"\nclasses = 80\nbins = 11\npoint = 0.5\n";
        let levels = format!("{nanodet}strides = [8, 16]\nscores = [\"rows\"]\nsides = []");
        assert!(problem(&levels, 80).is_some_and(|words| words.contains("2 strides")));
    }

    #[test]
    fn what_no_family_has_is_an_error() {
        for table in
            ["family = \"yolov9000\"", "output = \"rows\"", "family = \"yolov10\"\nrows = \"rows\""]
        {
            assert!(toml::from_str::<ModelDecoder>(table).is_err(), "{table}");
        }
    }
}
