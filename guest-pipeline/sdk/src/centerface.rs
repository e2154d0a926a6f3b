//! Faces and their five landmarks by CenterFace (Xu et al., "CenterFace: Joint Face Detection and
//! Alignment Using Face as Point", 2019; Star-Clouds/CenterFace), which takes pictures of any size.

use crate::align::Point;
use crate::geometry::BBox;
use crate::nms::{self, Candidate};
use crate::nn::Model;
use crate::{Frame, Letterbox, Rect, TensorSpec};

/// The model's name in the host's catalogue.
pub const MODEL: &str = "centerface";

/// The name of the model's input, [1, 3, height, width]: RGB, 0 to 255.
pub const INPUT: &str = "input";

/// Input pixels from cell to cell.
pub const STRIDE: u32 = 4;

/// Both sides of the input are multiples of this: the coarsest level that the network halves down
/// to.
pub const SIDE_STEP: u32 = 32;

/// Most pixels of the input: with the outputs, 15.75 bytes a pixel, a run fills the 8 MiB of memory
/// that a session has for tensors.
pub const MAX_PIXELS: u32 = 512 << 10;

/// Landmarks of a face: eyes, nose, corners of the mouth.
const LANDMARKS: usize = 5;

/// A face that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// In whatever pixels the caller works in, as `landmarks`.
    pub bbox: BBox,
    /// 0 to 1.
    pub score: f32,
    /// Eyes, tip of the nose, corners of the mouth; left before right as one sees them.
    pub landmarks: [Point; LANDMARKS],
}

impl Face {
    /// The face in frame pixels. The box is clipped to the frame, landmarks may lie beyond it.
    #[must_use]
    pub fn in_frame(&self, picture: &Letterbox) -> Self {
        let landmarks = self.landmarks.map(|(x, y)| picture.placement.to_frame(x, y));
        Self { bbox: picture.in_frame(&self.bbox), score: self.score, landmarks }
    }
}

/// The outputs of a run: one value or more for each cell of a grid, row by row, one plane after the
/// other.
#[derive(Debug, Clone, Copy)]
pub struct Maps<'a> {
    columns: usize,
    /// Scores after the sigmoid.
    heatmap: &'a [f32],
    /// Logarithms of height and width in strides.
    scale: [&'a [f32]; 2],
    /// The face's middle from the cell's, in strides: y, x.
    offset: [&'a [f32]; 2],
    /// y and x of each landmark, as shares of the box from its left upper corner.
    landmarks: [[&'a [f32]; 2]; LANDMARKS],
}

impl<'a> Maps<'a> {
    /// The outputs for an input of `width` x `height` pixels: `heatmap` [1, h, w], `scale` [2, h,
    /// w], `offset` [2, h, w] and `landmarks` [10, h, w], h and w being a quarter of the input's.
    ///
    /// # Errors
    /// Outputs whose lengths do not fit the size; scores that are not finite.
    pub fn new(
        (width, height): (u32, u32),
        heatmap: &'a [f32],
        scale: &'a [f32],
        offset: &'a [f32],
        landmarks: &'a [f32],
    ) -> Result<Self, String> {
        let columns = (width / STRIDE) as usize;
        let cells = columns * (height / STRIDE) as usize;
        for (name, values, planes) in [
            ("heatmap", heatmap, 1),
            ("scale", scale, 2),
            ("offset", offset, 2),
            ("landmarks", landmarks, 10),
        ] {
            if cells == 0 || values.len() != planes * cells {
                let found = values.len();
                return Err(format!(
                    "output {name} has {found} values, {width} x {height} input pixels give \
                        {planes} x {cells}"
                ));
            }
        }
        if !heatmap.iter().all(|score| score.is_finite()) {
            return Err("output heatmap is not finite".into());
        }
        let plane = |values: &'a [f32], n: usize| {
            values.get(n * cells..(n + 1) * cells).unwrap_or_default()
        };
        Ok(Self {
            columns,
            heatmap,
            scale: [plane(scale, 0), plane(scale, 1)],
            offset: [plane(offset, 0), plane(offset, 1)],
            landmarks: std::array::from_fn(|n| {
                [plane(landmarks, 2 * n), plane(landmarks, 2 * n + 1)]
            }),
        })
    }

    /// The faces of `score` and more that stand after suppression at `iou`, best first, in input
    /// pixels.
    #[must_use]
    pub fn faces(&self, score: f32, iou: f32) -> Vec<Face> {
        let cells = self.heatmap.iter().enumerate().filter(|&(_, &found)| found >= score);
        let faces = cells.filter_map(|(cell, &score)| self.face(cell, score)).collect();
        nms::suppress_by(faces, iou, |face| Candidate {
            bbox: face.bbox,
            class: 0,
            score: face.score,
        })
    }

    /// The face of one cell. `None` where something of it is not finite or the box has no area.
    fn face(&self, cell: usize, score: f32) -> Option<Face> {
        let at = |[first, second]: &[&[f32]; 2]| Some((*first.get(cell)?, *second.get(cell)?));
        let stride = STRIDE as f32;
        let (row, column) =
            (cell.checked_div(self.columns)? as f32, cell.checked_rem(self.columns)? as f32);
        let (height, width) = at(&self.scale)?;
        let (height, width) = (height.exp() * stride, width.exp() * stride);
        let (down, across) = at(&self.offset)?;
        let left = (column + across + 0.5) * stride - width / 2.0;
        let top = (row + down + 0.5) * stride - height / 2.0;
        let mut landmarks = [(0.0, 0.0); LANDMARKS];
        for (point, planes) in landmarks.iter_mut().zip(&self.landmarks) {
            let (y, x) = at(planes)?;
            *point = (left + x * width, top + y * height);
        }
        let bbox = BBox::from_xywh(left, top, width, height);
        let finite = landmarks.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        (bbox.is_proper() && finite).then_some(Face { bbox, score, landmarks })
    }
}

/// Checks the width and height of an input.
///
/// # Errors
/// A side that is 0 or no multiple of [`SIDE_STEP`], more pixels than [`MAX_PIXELS`]. `path` is
/// where the size stands in the settings.
pub fn check_size([width, height]: [u32; 2], path: &str) -> Result<(), String> {
    let fits = |side: u32| side > 0 && side.is_multiple_of(SIDE_STEP);
    if !fits(width) || !fits(height) || u64::from(width) * u64::from(height) > u64::from(MAX_PIXELS)
    {
        return Err(format!(
            "{path}: [{width}, {height}] is no size for this model: both sides are multiples of \
                {SIDE_STEP}, and \
             their product is at most {MAX_PIXELS}"
        ));
    }
    Ok(())
}

/// The model, loaded, with an input of one size.
pub struct Detector {
    input: TensorSpec,
    model: Model,
}

impl Detector {
    /// Loads the model of this name for inputs of `size`: width and height, which [`check_size`]
    /// has passed. Each size has its memory in the inference process, so a pipeline uses one.
    ///
    /// # Errors
    /// The host has no such model or cannot run it.
    pub fn load(name: &str, [width, height]: [u32; 2]) -> Result<Self, String> {
        Ok(Self { input: TensorSpec::letterbox(width, height), model: Model::load(name)? })
    }

    /// The faces in a region of the frame, or in all of it, best first, in frame pixels.
    ///
    /// # Errors
    /// No tensor to be had, a run that failed, outputs that are not this model's.
    pub fn faces(
        &self,
        frame: &Frame,
        region: Option<Rect>,
        score: f32,
        iou: f32,
    ) -> Result<Vec<Face>, String> {
        let (tensor, placement) = frame.tensor(region, self.input).map_err(|e| e.to_string())?;
        let outputs = self.model.run([(INPUT, tensor)])?;
        let [heatmap, scale, offset, landmarks] =
            ["heatmap", "scale", "offset", "landmarks"].map(|name| outputs.floats(name));
        let (heatmap, scale, offset, landmarks) = (heatmap?, scale?, offset?, landmarks?);
        let (heatmap, scale, offset, landmarks) =
            (heatmap.values(), scale.values(), offset.values(), landmarks.values());
        let size = (self.input.width, self.input.height);
        let maps = Maps::new(size, &heatmap, &scale, &offset, &landmarks)
            .map_err(|e| format!("model {}: {e}", self.model.name()))?;
        let picture = Letterbox { width: frame.width(), height: frame.height(), placement };
        let faces = maps.faces(score, iou).into_iter().map(|face| face.in_frame(&picture));
        Ok(faces.filter(|face| face.bbox.is_proper()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letterbox;

    /// 16 x 8 input pixels: 4 x 2 cells.
    const SIZE: (u32, u32) = (16, 8);
    const CELLS: usize = 8;

    struct Outputs {
        heatmap: Vec<f32>,
        scale: Vec<f32>,
        offset: Vec<f32>,
        landmarks: Vec<f32>,
    }

    impl Outputs {
        /// Nothing found; all boxes of 4 x 4 pixels.
        fn empty() -> Self {
            let zeros = |planes| vec![0.0; planes * CELLS];
            Self { heatmap: zeros(1), scale: zeros(2), offset: zeros(2), landmarks: zeros(10) }
        }

        fn faces(&self, score: f32) -> Vec<Face> {
            let Self { heatmap, scale, offset, landmarks } = self;
            Maps::new(SIZE, heatmap, scale, offset, landmarks).unwrap().faces(score, 0.3)
        }
    }

    #[test]
    fn a_cell_gives_the_face_worked_out_by_hand() {
        let mut outputs = Outputs::empty();
        // Cell 6: column 2, row 1. Height 8 and width 6 pixels, the middle at ((2 + 0.25 + 0.5) 4,
        // (1 - 0.5 + 0.5) 4).
        outputs.heatmap[6] = 0.75;
        outputs.scale[6] = 2f32.ln();
        outputs.scale[CELLS + 6] = 1.5f32.ln();
        outputs.offset[6] = -0.5;
        outputs.offset[CELLS + 6] = 0.25;
        for n in 0..5 {
            outputs.landmarks[2 * n * CELLS + 6] = 0.1 * n as f32;
            outputs.landmarks[(2 * n + 1) * CELLS + 6] = 0.2 * n as f32;
        }
        let faces = outputs.faces(0.5);
        let [Face { bbox, score, landmarks }] = faces[..] else { panic!("{faces:?}") };
        assert_eq!(score, 0.75);
        for (got, want) in
            [(bbox.left, 8.0), (bbox.top, 0.0), (bbox.right, 14.0), (bbox.bottom, 8.0)]
        {
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
        for (n, (x, y)) in landmarks.into_iter().enumerate() {
            let (want_x, want_y) = (8.0 + 1.2 * n as f32, 0.8 * n as f32);
            assert!((x - want_x).abs() < 1e-5 && (y - want_y).abs() < 1e-5, "{x}, {y}");
        }
    }

    #[test]
    fn neighbouring_cells_are_one_face_and_distant_ones_two() {
        let mut outputs = Outputs::empty();
        outputs.scale.fill(2f32.ln());
        (outputs.heatmap[0], outputs.heatmap[1], outputs.heatmap[3]) = (0.6, 0.9, 0.5);
        let scores: Vec<_> = outputs.faces(0.5).iter().map(|face| face.score).collect();
        assert_eq!(scores, [0.9, 0.5], "boxes of 8 pixels, 4 and 8 apart");
        assert_eq!(outputs.faces(0.55).len(), 1, "below the score");
    }

    #[test]
    fn faces_come_back_to_the_frame_with_their_landmarks() {
        let placement = letterbox::place(32, 8, 16, 8).unwrap();
        let picture = Letterbox { width: 32, height: 8, placement };
        let face = Face {
            bbox: BBox::from_xywh(1.0, 1.0, 6.0, 6.0),
            score: 0.5,
            landmarks: [(2.0, 3.0), (4.0, 3.0), (3.0, 4.0), (2.0, 5.0), (4.0, 7.0)],
        };
        let found = face.in_frame(&picture);
        assert_eq!(
            found.bbox,
            BBox::from_xywh(2.0, 0.0, 12.0, 8.0),
            "half size under two rows, clipped"
        );
        assert_eq!(found.landmarks[4], (8.0, 10.0));
    }

    #[test]
    fn outputs_of_another_size_are_refused_with_both_sizes() {
        let Outputs { heatmap, scale, offset, .. } = Outputs::empty();
        let error = Maps::new(SIZE, &heatmap, &scale, &offset, &[0.0; 79]).unwrap_err();
        assert!(error.contains("landmarks has 79") && error.contains("10 x 8"), "{error}");
        assert!(Maps::new((0, 0), &[], &[], &[], &[]).is_err());
    }

    #[test]
    fn numbers_that_are_not_finite_are_no_face() {
        let mut outputs = Outputs::empty();
        (outputs.heatmap[2], outputs.heatmap[5]) = (0.9, 0.8);
        outputs.scale[2] = f32::INFINITY;
        outputs.landmarks[9 * CELLS + 5] = f32::NAN;
        assert_eq!(outputs.faces(0.5), []);
        outputs.heatmap[7] = f32::NAN;
        let Outputs { heatmap, scale, offset, landmarks } = &outputs;
        let error = Maps::new(SIZE, heatmap, scale, offset, landmarks).unwrap_err();
        assert!(error.contains("heatmap"), "{error}");
    }

    #[test]
    fn a_size_that_the_model_does_not_take_is_named() {
        assert_eq!(check_size([416, 416], "size"), Ok(()));
        assert_eq!(check_size([1024, 512], "size"), Ok(()));
        for size in [[0, 32], [400, 416], [1024, 544], [1 << 31, 1 << 31]] {
            let error = check_size(size, "settings.detector_size").unwrap_err();
            assert!(
                error.contains("settings.detector_size") && error.contains(&format!("{}", size[0]))
            );
        }
    }
}
