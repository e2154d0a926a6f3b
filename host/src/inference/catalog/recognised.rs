//! What a model's graph and its metadata tell of how to run it: the decoder's family, by the form
//! of the outputs, the preprocessing, by the family, and the labels.
//!
//! A graph does not hold its preprocessing. Each family has one with which it is trained; an
//! operator who trained otherwise changes `model.toml`.

use std::collections::BTreeMap;

use ocelli_protocol::inference::{Element, TensorDeclaration};
use ocelli_protocol::model::{ChannelOrder, PictureFit};

use super::decoder::{
    BinnedLevels, ClassScores, EdgeOrder, EdgeOutputs, FinishedTable, GridTable, ModelDecoder,
    QueryOutputs, ScoreActivation, ScoredTable,
};
use super::manifest::Preprocessing;
use super::metadata::ExportNotes;
use super::picture::{input_sides, picture_input};

/// Strides of YOLO's and NanoDet's levels, and those of models with one level more.
const STRIDES: [&[u32]; 2] = [&[8, 16, 32], &[8, 16, 32, 64]];

/// Anchors in a cell of YOLOv5.
const ANCHORS: i64 = 3;

/// Most rows of a detector that has selected its detections, or of one with queries: 300 are usual,
/// 900 and more are cells of a small grid.
const MAX_SELECTED: i64 = 1000;

/// Columns of a segmenting model behind the scores, which weigh its prototypes of masks.
const MASK_WEIGHTS: i64 = 32;

/// Numbers of bins of NanoDet's sides.
const BINS: [i64; 2] = [8, 11];

/// Means and deviations of ImageNet's channels in RGB, in pixels of 0 to 255.
const IMAGENET: ([f32; 3], [f32; 3]) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);

/// The same in BGR, as NanoDet's configurations write them.
const IMAGENET_BGR: ([f32; 3], [f32; 3]) = ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395]);

/// The grey with which YOLO fills its letterbox.
const GREY: [f32; 3] = [114.0; 3];

/// What is known of a model, beside its tensors.
#[derive(Debug, Default, PartialEq)]
pub struct Recognised {
    /// How its outputs become boxes or classes.
    pub decoder: Option<ModelDecoder>,
    /// How a picture becomes its input.
    pub preprocessing: Option<Preprocessing>,
    /// Names of the classes. Empty: the file has none.
    pub labels: Vec<String>,
}

/// Recognises a model by its tensors, its metadata, and the labels that are known otherwise. Sides
/// of the picture's input that are open are fixed where the metadata has them.
pub fn recognise(
    inputs: &mut [TensorDeclaration],
    outputs: &[TensorDeclaration],
    metadata: &BTreeMap<String, String>,
    labels: Option<Vec<String>>,
) -> Recognised {
    let notes = ExportNotes(metadata);
    fix_sides(inputs, notes);
    let labels = labels.or_else(|| notes.labels()).unwrap_or_default();
    let graph = Graph {
        inputs,
        outputs,
        notes,
        sides: input_sides(inputs),
        labels: i64::try_from(labels.len()).ok().filter(|labels| *labels > 0),
    };
    let decoder = graph.decoder();
    let preprocessing = decoder.as_ref().map(|decoder| preprocessing(decoder, &graph));
    Recognised { decoder, preprocessing, labels }
}

/// Fixes the height and the width of the picture's input.
fn fix_sides(inputs: &mut [TensorDeclaration], notes: ExportNotes<'_>) {
    let picture = picture_input(inputs).map(|(index, place, _)| (index, place));
    if let (Some((index, place)), Some(size)) = (picture, notes.size())
        && let Some(sides) = inputs.get_mut(index).and_then(|input| input.shape.get_mut(place..))
    {
        sides.iter_mut().zip(size).filter(|(side, _)| **side < 0).for_each(|(side, given)| {
            *side = given;
        });
    }
}

struct Graph<'a> {
    inputs: &'a [TensorDeclaration],
    outputs: &'a [TensorDeclaration],
    notes: ExportNotes<'a>,
    /// Height and width of the picture's input.
    sides: Option<[i64; 2]>,
    /// Number of labels, if they are known.
    labels: Option<i64>,
}

impl Graph<'_> {
    fn decoder(&self) -> Option<ModelDecoder> {
        // Boxes that are turned, which no family has.
        if self.notes.task() == Some("obb") {
            return None;
        }
        self.levels()
            .or_else(|| self.boxes_beside_scores())
            .or_else(|| self.table())
            .or_else(|| self.classifier())
    }

    /// Cells of all levels of these strides.
    fn cells(&self, strides: &[u32]) -> Option<i64> {
        let [height, width] = self.sides?;
        let level = |stride: &u32| {
            let cells = |side: i64| side.unsigned_abs().div_ceil(u64::from(*stride));
            i64::try_from(cells(height).checked_mul(cells(width))?).ok()
        };
        strides.iter().try_fold(0i64, |sum, stride| sum.checked_add(level(stride)?))
    }

    /// The strides of which a table with so many rows has all cells, or `each` times as many.
    fn strides(&self, rows: i64, each: i64) -> Option<&'static [u32]> {
        STRIDES.into_iter().find(|strides| {
            self.cells(strides).is_some_and(|cells| cells.checked_mul(each) == Some(rows))
        })
    }

    /// An output with so many axes whose name has one of these words.
    fn named(&self, words: &[&str], axes: usize) -> Option<&TensorDeclaration> {
        self.outputs.iter().find(|tensor| {
            let name = tensor.name.to_ascii_lowercase();
            tensor.shape.len() == axes && words.iter().any(|word| name.contains(word))
        })
    }

    /// NanoDet with two outputs for each level.
    fn levels(&self) -> Option<ModelDecoder> {
        let (mut scores, mut sides, mut strides) = (Vec::new(), Vec::new(), Vec::new());
        let (mut classes, mut bins) = (None, None);
        for stride in STRIDES.into_iter().next_back()? {
            let cells = self.cells(&[*stride])?;
            let mut level: Vec<_> = self
                .outputs
                .iter()
                .filter_map(|tensor| match *tensor.shape.as_slice() {
                    [1 | -1, rows, columns] if rows == cells => Some((columns, &tensor.name)),
                    _ => None,
                })
                .collect();
            let side = |&(columns, name): &(i64, &String)| {
                let boxes = ["reg", "box", "dis"].iter().any(|word| name.contains(word));
                BINS.iter().any(|bins| columns == 4 * bins)
                    && (boxes || self.labels.is_some_and(|labels| labels != columns))
            };
            let Some(place) = level.iter().position(side) else { continue };
            let (width, side) = level.remove(place);
            let [(columns, score)] = *level.as_slice() else { return None };
            if *classes.get_or_insert(columns) != columns || *bins.get_or_insert(width) != width {
                return None;
            }
            strides.push(*stride);
            scores.push(score.clone());
            sides.push(side.clone());
        }
        Some(ModelDecoder::Nanodet(BinnedLevels {
            output: None,
            scores,
            sides,
            classes: count(classes?)?,
            strides,
            bins: count(bins? / 4)?,
            point: 0.5,
        }))
    }

    /// Detectors whose boxes are an output of their own.
    fn boxes_beside_scores(&self) -> Option<ModelDecoder> {
        let words = ["box", "det", "location"];
        let boxes = [3, 2].into_iter().find_map(|axes| self.named(&words, axes));
        let boxes = boxes.filter(|boxes| boxes.shape.last() == Some(&4))?;
        let rank = boxes.shape.len();
        let numbers =
            |words: &[&str]| self.named(words, rank - 1).map(|tensor| tensor.name.clone());
        if let (Some(scores), Some(labels)) = (numbers(&["score"]), numbers(&["label", "class"])) {
            return Some(self.selected(boxes, scores, labels));
        }
        let others: Vec<_> =
            self.outputs.iter().filter(|tensor| tensor.name != boxes.name).collect();
        let [scores] = *others.as_slice() else { return None };
        let (&[_, rows, _], &[_, scored, columns]) =
            (boxes.shape.as_slice(), scores.shape.as_slice())
        else {
            return None;
        };
        if rows != scored {
            return None;
        }
        let queries = (1..=MAX_SELECTED).contains(&rows)
            || scores.name.contains("logit")
            || boxes.name.contains("pred");
        let (boxes, scores) = (boxes.name.clone(), scores.name.clone());
        if queries {
            let (boxes, logits) = (Some(boxes), Some(scores));
            return Some(ModelDecoder::Detr(QueryOutputs {
                boxes,
                logits,
                ..QueryOutputs::default()
            }));
        }
        Some(ModelDecoder::Ssd(EdgeOutputs {
            boxes,
            scores,
            labels: None,
            order: EdgeOrder::Xyxy,
            unit: true,
            // One column more than labels, or labels that are not known: 0 is the background.
            first: u32::from(self.labels != Some(columns)),
        }))
    }

    /// Detectors that give one score and one class number for each box.
    fn selected(&self, boxes: &TensorDeclaration, scores: String, labels: String) -> ModelDecoder {
        let sizes = self.inputs.iter().find(|input| {
            matches!(*input.shape.as_slice(), [1 | -1, 2]) && input.element == Element::I64
        });
        if let Some(sizes) = sizes {
            return ModelDecoder::Detr(QueryOutputs {
                boxes: Some(boxes.name.clone()),
                labels: Some(labels),
                scores: Some(scores),
                sizes: Some(sizes.name.clone()),
                ..QueryOutputs::default()
            });
        }
        // TensorFlow's name, and with it its order.
        let tensorflow = boxes.name.starts_with("detection_boxes");
        ModelDecoder::Ssd(EdgeOutputs {
            boxes: boxes.name.clone(),
            scores,
            labels: Some(labels),
            order: if tensorflow { EdgeOrder::Yxyx } else { EdgeOrder::Xyxy },
            // Torchvision's have no batch and are in pixels.
            unit: boxes.shape.len() == 3,
            first: 1,
        })
    }

    /// Detectors with a box and its scores in each row or column of one output.
    fn table(&self) -> Option<ModelDecoder> {
        let tables: Vec<_> = self.outputs.iter().filter(|t| t.shape.len() == 3).collect();
        let [TensorDeclaration { name, shape, .. }] = *tables.as_slice() else { return None };
        let &[1 | -1, first, last] = shape.as_slice() else { return None };
        let output = name.clone();
        let masks = if self.is_segmenting() { MASK_WEIGHTS } else { 0 };
        // The labels tell how many columns are scores. Where they are not known, all are.
        let scores = |side: i64, before: i64| {
            let all = side - before - masks;
            let classes = self.labels.map_or(all, |labels| labels.min(all));
            (classes > 0).then(|| count(classes)).flatten()
        };
        let open_columns = last < 0 && self.labels.is_some_and(|n| first == 4 + n + masks);
        if self.strides(last, 1).is_some() || open_columns {
            return Some(ModelDecoder::Yolov8(ScoredTable { output, classes: scores(first, 4)? }));
        }
        let open_rows = first < 0
            && self.notes.is_ultralytics()
            && self.labels.is_some_and(|n| last == 5 + n + masks);
        if self.strides(first, ANCHORS).is_some() || open_rows {
            return Some(ModelDecoder::Yolov5(ScoredTable { output, classes: scores(last, 5)? }));
        }
        if let Some(strides) = self.strides(first, 1) {
            return self.grid(output, last, strides);
        }
        let selected = first <= MAX_SELECTED;
        let has_queries = self.notes.description().to_ascii_lowercase().contains("detr");
        if selected && last == 6 && !has_queries {
            return Some(ModelDecoder::Yolov10(FinishedTable { output }));
        }
        let queries = self.labels.is_some_and(|labels| last == 4 + labels);
        (selected && queries).then(|| {
            ModelDecoder::Detr(QueryOutputs { output: Some(output), ..QueryOutputs::default() })
        })
    }

    /// YOLOX or NanoDet, which both have a row for each cell. NanoDet-Plus has a level more.
    fn grid(&self, output: String, columns: i64, strides: &[u32]) -> Option<ModelDecoder> {
        let yolox = match self.labels {
            Some(labels) => columns == 5 + labels,
            None => strides.len() == 3,
        };
        if yolox {
            let classes = count(columns - 5).filter(|classes| *classes > 0)?;
            return Some(ModelDecoder::Yolox(GridTable {
                output,
                classes,
                strides: strides.to_vec(),
            }));
        }
        let bins = BINS.into_iter().find(|bins| match self.labels {
            Some(labels) => columns == labels + 4 * bins,
            None => columns > 4 * bins,
        })?;
        Some(ModelDecoder::Nanodet(BinnedLevels {
            output: Some(output),
            scores: Vec::new(),
            sides: Vec::new(),
            classes: count(columns - 4 * bins)?,
            strides: strides.to_vec(),
            bins: count(bins)?,
            point: 0.0,
        }))
    }

    /// Whether a further output has the prototypes of masks.
    fn is_segmenting(&self) -> bool {
        self.notes.task() == Some("segment")
            || self
                .outputs
                .iter()
                .any(|tensor| matches!(*tensor.shape.as_slice(), [_, MASK_WEIGHTS, _, _]))
    }

    fn classifier(&self) -> Option<ModelDecoder> {
        let [TensorDeclaration { name, element, shape }] = self.outputs else { return None };
        let &[1 | -1, classes] = shape.as_slice() else { return None };
        let labelled = self.labels.is_none_or(|labels| labels == classes);
        // Without labels an output of this form may as well be an embedding.
        let known = self.labels.is_some() || self.notes.task() == Some("classify");
        (classes > 1 && *element == Element::F32 && labelled && known).then(|| {
            // Ultralytics' exporter leaves the softmax in the graph.
            let activation = match self.notes.task() {
                Some("classify") => ScoreActivation::None,
                _ => ScoreActivation::Softmax,
            };
            ModelDecoder::Classifier(ClassScores { output: name.clone(), activation })
        })
    }
}

fn count(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}

/// The preprocessing with which models of a family are trained.
fn preprocessing(decoder: &ModelDecoder, graph: &Graph<'_>) -> Preprocessing {
    const WHOLE: ([f32; 3], [f32; 3]) = ([0.0; 3], [1.0; 3]);
    const UNIT: ([f32; 3], [f32; 3]) = ([0.0; 3], [255.0; 3]);
    use ChannelOrder::{Bgr, Rgb};
    use PictureFit::{Letterbox, Stretch};
    let bytes = picture_input(graph.inputs)
        .and_then(|(index, ..)| graph.inputs.get(index))
        .is_some_and(|input| input.element == Element::U8);
    let (channels, (mean, std), fit, fill) = match decoder {
        ModelDecoder::Yolov5(_) | ModelDecoder::Yolov8(_) | ModelDecoder::Yolov10(_) => {
            (Rgb, UNIT, Letterbox, GREY)
        }
        ModelDecoder::Yolox(_) => (Bgr, WHOLE, Letterbox, GREY),
        ModelDecoder::Nanodet(_) => (Bgr, IMAGENET_BGR, Letterbox, [0.0; 3]),
        ModelDecoder::Detr(_) => (Rgb, UNIT, Stretch, [0.0; 3]),
        ModelDecoder::Ssd(_) => (Rgb, UNIT, Stretch, [0.0; 3]),
        ModelDecoder::Classifier(_) if graph.notes.is_ultralytics() => {
            (Rgb, UNIT, Stretch, [0.0; 3])
        }
        ModelDecoder::Classifier(_) => (Rgb, IMAGENET, Stretch, [0.0; 3]),
    };
    // Bytes are pixels as they are.
    let (mean, std) = if bytes { WHOLE } else { (mean, std) };
    Preprocessing { channels, mean, std, fit, fill }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[i64]) -> TensorDeclaration {
        TensorDeclaration { name: name.into(), element: Element::F32, shape: shape.to_vec() }
    }

    fn images(height: i64, width: i64) -> TensorDeclaration {
        tensor("images", &[1, 3, height, width])
    }

    fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn labels(count: usize) -> Option<Vec<String>> {
        Some((0..count).map(|n| format!("label {n}")).collect())
    }

    /// The decoder of a model, as `model.toml` has it: the names of keys and their values.
    fn decoder(
        inputs: &[TensorDeclaration],
        outputs: &[TensorDeclaration],
        metadata: &[(&str, &str)],
        labels: Option<Vec<String>>,
    ) -> Option<serde_json::Value> {
        let found = recognise(&mut inputs.to_vec(), outputs, &notes(metadata), labels);
        let count = found.labels.len();
        if let Some(decoder) = &found.decoder {
            assert_eq!(decoder.problem(inputs, outputs, count), None, "{decoder:?}");
        }
        found.decoder.map(|decoder| serde_json::to_value(decoder).unwrap())
    }

    #[test]
    fn a_table_is_of_the_family_whose_rows_or_columns_it_has() {
        let table = |shape: &[i64], metadata: &[(&str, &str)], labels| {
            let found = decoder(&[images(640, 640)], &[tensor("o", shape)], metadata, labels)?;
            let classes = found["classes"].as_u64().unwrap_or(0);
            Some(format!("{} {classes}", found["family"].as_str().unwrap()))
        };
        let queries = &[("description", "Ultralytics rtdetr-l model trained on coco.yaml")][..];
        let names = &[("names", "{0: 'a', 1: 'b'}"), ("stride", "32"), ("imgsz", "[640, 640]")];
        for (shape, metadata, labels, expected) in [
            (&[1, 84, 8400][..], &[][..], None, Some("yolov8 80")),
            (&[1, 6, 8400], &names[..], None, Some("yolov8 2")),
            (&[1, 5, 8400], &[], labels(1), Some("yolov8 1")),
            (&[1, 56, 8400], &[], labels(1), Some("yolov8 1")),
            (&[-1, 6, -1], &names[..], None, Some("yolov8 2")),
            (&[1, 25200, 85], &[], None, Some("yolov5 80")),
            (&[1, 25200, 6], &[], None, Some("yolov5 1")),
            (&[-1, -1, 7], &names[..], None, Some("yolov5 2")),
            (&[1, 8400, 85], &[], None, Some("yolox 80")),
            (&[1, 8400, 85], &[], labels(80), Some("yolox 80")),
            (&[1, 8400, 112], &[], labels(80), Some("nanodet 80")),
            (&[1, 8500, 112], &[], None, Some("nanodet 80")),
            (&[1, 300, 6], &[], labels(80), Some("yolov10 0")),
            (&[1, 300, 6], &[], labels(2), Some("yolov10 0")),
            (&[1, 300, 6], queries, labels(2), Some("detr 0")),
            (&[1, 300, 84], &[], labels(80), Some("detr 0")),
            (&[1, 300, 85], &[], labels(80), None),
            (&[1, 8400, 85], &[], labels(3), None),
            (&[1, 77, 3], &[], None, None),
            (&[1, 84, 8400], &[("task", "obb")], None, None),
            (&[2, 84, 8400], &[], None, None),
        ] {
            let found = table(shape, metadata, labels.clone());
            assert_eq!(found.as_deref(), expected, "{shape:?} {metadata:?}");
        }
    }

    #[test]
    fn weights_of_masks_are_no_scores() {
        let outputs = [tensor("o", &[1, 116, 8400]), tensor("masks", &[1, 32, 160, 160])];
        let found = decoder(&[images(640, 640)], &outputs, &[], None).unwrap();
        assert_eq!((&found["family"], &found["classes"]), (&"yolov8".into(), &80.into()));
    }

    #[test]
    fn sides_that_are_open_are_the_exporters() {
        let mut inputs = [images(-1, -1)];
        let metadata = notes(&[("imgsz", "[480, 640]"), ("names", "['a']"), ("stride", "32")]);
        let found = recognise(&mut inputs, &[tensor("o", &[1, 5, -1])], &metadata, None);
        assert_eq!(inputs[0].shape, [1, 3, 480, 640]);
        assert_eq!(found.labels, ["a"]);
        let preprocessing = found.preprocessing.unwrap();
        assert_eq!(preprocessing.std, [255.0; 3]);
        assert_eq!(preprocessing.fit, PictureFit::Letterbox);
        let mut fixed = [images(320, 320)];
        recognise(&mut fixed, &[tensor("o", &[1, 5, -1])], &metadata, None);
        assert_eq!(fixed[0].shape, [1, 3, 320, 320], "the graph goes first");
    }

    #[test]
    fn nanodet_has_scores_and_sides_for_each_level() {
        let outputs = [
            tensor("cls_s8", &[1, 2704, 44]),
            tensor("cls_s16", &[1, 676, 44]),
            tensor("cls_s32", &[1, 169, 44]),
            tensor("reg_s8", &[1, 2704, 44]),
            tensor("reg_s16", &[1, 676, 44]),
            tensor("reg_s32", &[1, 169, 44]),
        ];
        let found = decoder(&[images(416, 416)], &outputs, &[], None).unwrap();
        let expected = serde_json::json!({
            "family": "nanodet", "scores": ["cls_s8", "cls_s16", "cls_s32"],
            "sides": ["reg_s8", "reg_s16", "reg_s32"], "classes": 44, "strides": [8, 16, 32],
            "bins": 11, "point": 0.5
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn boxes_beside_scores_are_queries_or_all_that_there_are() {
        let boxes = |name: &str, rows| tensor(name, &[1, rows, 4]);
        let found = |inputs: &[TensorDeclaration], outputs: &[TensorDeclaration], labels| {
            decoder(inputs, outputs, &[], labels).unwrap()
        };
        let square = [images(640, 640)];
        let detr = found(&square, &[tensor("logits", &[1, -1, 80]), boxes("pred_boxes", -1)], None);
        assert_eq!((&detr["family"], &detr["logits"]), (&"detr".into(), &"logits".into()));
        let detr = found(&square, &[boxes("dets", 300), tensor("labels", &[1, 300, 91])], None);
        assert_eq!((&detr["family"], &detr["logits"]), (&"detr".into(), &"labels".into()));

        let sizes = TensorDeclaration {
            name: "orig_target_sizes".into(),
            element: Element::I64,
            shape: vec![1, 2],
        };
        let chosen =
            [tensor("labels", &[1, 300]), boxes("boxes", 300), tensor("scores", &[1, 300])];
        let given = [images(640, 640), sizes];
        let dfine = found(&given, &chosen, labels(80));
        assert_eq!(
            (&dfine["family"], &dfine["sizes"]),
            (&"detr".into(), &given[1].name[..].into())
        );
        let ssd = found(&square, &chosen, labels(80));
        assert_eq!((&ssd["family"], &ssd["labels"]), (&"ssd".into(), &"labels".into()));
        assert_eq!((&ssd["unit"], &ssd["order"]), (&true.into(), &"xyxy".into()));

        let torchvision =
            [tensor("boxes", &[-1, 4]), tensor("labels", &[-1]), tensor("scores", &[-1])];
        assert_eq!(found(&square, &torchvision, None)["unit"], false);
        let tensorflow = [
            boxes("detection_boxes", 100),
            tensor("detection_classes", &[1, 100]),
            tensor("detection_scores", &[1, 100]),
            tensor("num_detections", &[1]),
            tensor("raw_detection_boxes", &[1, 1917, 4]),
            tensor("raw_detection_scores", &[1, 1917, 91]),
        ];
        let ssd = found(&[tensor("image", &[1, 320, 320, 3])], &tensorflow, None);
        assert_eq!((&ssd["order"], &ssd["scores"]), (&"yxyx".into(), &"detection_scores".into()));

        let all = |columns| [tensor("scores", &[1, 4420, columns]), boxes("boxes", 4420)];
        assert_eq!(found(&square, &all(2), None)["first"], 1, "0 is the background");
        assert_eq!(found(&square, &all(2), labels(1))["first"], 1);
        assert_eq!(found(&square, &all(2), labels(2))["first"], 0);
    }

    #[test]
    fn a_classifier_is_one_whose_classes_have_names() {
        let outputs = [tensor("o", &[-1, 10])];
        let found = |metadata: &[(&str, &str)], labels| {
            decoder(&[images(224, 224)], &outputs, metadata, labels)
        };
        assert_eq!(found(&[], None), None, "it may be an embedding");
        assert_eq!(found(&[], labels(9)), None);
        assert_eq!(found(&[], labels(10)).unwrap()["activation"], "softmax");
        assert_eq!(found(&[("task", "classify")], None).unwrap()["activation"], "none");
    }
}
