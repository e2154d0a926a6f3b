//! Families whose boxes are an output of their own, beside scores or classes: DETR with its
//! successors (Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020; Zhao et
//! al., "DETRs Beat YOLOs on Real-time Object Detection", CVPR 2024) and SSD.

use super::family::{EdgeOrder, EdgeOutputs, QueryOutputs};
use super::table::{OutputTable, about, candidate};
use crate::geometry::BBox;
use crate::nms::{self, Candidate};
use crate::nn::OutputSource;

/// The boxes of an output [.., N, 4], by their number.
struct Boxes {
    table: OutputTable,
}

impl Boxes {
    fn read(outputs: &impl OutputSource, name: &str) -> Result<Self, String> {
        Ok(Self { table: OutputTable::read(outputs, name)?.with_columns(4)? })
    }

    fn each<T>(&self, made: impl FnOnce(&dyn Fn(usize) -> Option<[f32; 4]>) -> T) -> T {
        let values = self.table.values();
        let columns = self.table.columns;
        made(&|number| values.get(number * columns..)?.first_chunk().copied())
    }
}

/// Widths and heights in shares of the picture, in pixels.
fn scaled(bbox: BBox, (width, height): (u32, u32)) -> BBox {
    let (width, height) = (width as f32, height as f32);
    BBox {
        left: bbox.left * width,
        top: bbox.top * height,
        right: bbox.right * width,
        bottom: bbox.bottom * height,
    }
}

/// Queries in one of the three forms of [`QueryOutputs`].
pub(super) fn detr(
    form: &QueryOutputs,
    size: (u32, u32),
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let middle = |[x, y, width, height]: [f32; 4]| scaled(about(x, y, width, height), size);
    match form {
        QueryOutputs { output: Some(output), .. } => {
            let table = OutputTable::read(outputs, output)?.with_columns(5)?;
            let values = table.values();
            let rows = values.chunks_exact(table.columns).enumerate();
            Ok(rows
                .filter_map(|(number, row)| {
                    let (numbers, scores) = row.split_first_chunk::<4>()?;
                    let hit = nms::best(number, scores);
                    (hit.score >= least_score)
                        .then(|| candidate(middle(*numbers), hit.class, hit.score, wants))?
                })
                .collect())
        }
        QueryOutputs { boxes: Some(boxes), logits: Some(logits), .. } => {
            let boxes = Boxes::read(outputs, boxes)?;
            let logits = OutputTable::read(outputs, logits)?;
            let hits = nms::rows_at_least(&logits.values(), logits.columns, logit(least_score));
            Ok(boxes.each(|edges| {
                let hits = hits.iter().filter_map(|hit| {
                    let bbox = middle(edges(hit.row)?);
                    candidate(bbox, hit.class, sigmoid(hit.score), wants)
                });
                hits.collect()
            }))
        }
        QueryOutputs { boxes: Some(boxes), labels: Some(labels), scores: Some(scores), .. } => {
            let chosen = labelled(outputs, labels, scores, 0, least_score)?;
            Ok(Boxes::read(outputs, boxes)?.each(|edges| {
                let found = chosen.iter().filter_map(|&(number, class, score)| {
                    let [left, top, right, bottom] = edges(number)?;
                    candidate(BBox { left, top, right, bottom }, class, score, wants)
                });
                found.collect()
            }))
        }
        _ => Err("its [decoder] names neither `output`, nor `boxes` with `logits`, nor `boxes` \
                  with `labels` and `scores`"
            .into()),
    }
}

/// Boxes by their edges, with a score for each class or with one class.
pub(super) fn ssd(
    form: &EdgeOutputs,
    size: (u32, u32),
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let chosen = match &form.labels {
        Some(labels) => labelled(outputs, labels, &form.scores, form.first, least_score)?,
        None => {
            let first = form.first as usize;
            let table = OutputTable::read(outputs, &form.scores)?.with_columns(first + 1)?;
            let values = table.values();
            let rows = values.chunks_exact(table.columns).enumerate();
            let best = rows.filter_map(|(number, row)| Some(nms::best(number, row.get(first..)?)));
            let reached = best.filter(|hit| hit.score >= least_score);
            reached.map(|hit| (hit.row, hit.class, hit.score)).collect()
        }
    };
    Ok(Boxes::read(outputs, &form.boxes)?.each(|edges| {
        let found = chosen.iter().filter_map(|&(number, class, score)| {
            let [a, b, c, d] = edges(number)?;
            let bbox = match form.order {
                EdgeOrder::Xyxy => BBox { left: a, top: b, right: c, bottom: d },
                EdgeOrder::Yxyx => BBox { left: b, top: a, right: d, bottom: c },
            };
            let bbox = if form.unit { scaled(bbox, size) } else { bbox };
            candidate(bbox, class, score, wants)
        });
        found.collect()
    }))
}

/// Number, class and score of the boxes that have one class each and reach `least_score`. `first`
/// is the number of the first class; lower ones stand for nothing.
fn labelled(
    outputs: &impl OutputSource,
    labels: &str,
    scores: &str,
    first: u32,
    least_score: f32,
) -> Result<Vec<(usize, u32, f32)>, String> {
    let (classes, scores) = (outputs.integers(labels)?, outputs.floats(scores)?);
    let scores = scores.values();
    if classes.len() != scores.len() {
        return Err(format!("it gives {} labels and {} scores", classes.len(), scores.len()));
    }
    let each = classes.iter().zip(scores.iter()).enumerate();
    Ok(each
        .filter(|(_, (_, score))| **score >= least_score)
        .filter_map(|(number, (class, score))| {
            let class = u32::try_from(class.checked_sub(i64::from(first))?).ok()?;
            Some((number, class, *score))
        })
        .collect())
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The number whose sigmoid is `score`.
fn logit(score: f32) -> f32 {
    (score / (1.0 - score)).ln()
}
