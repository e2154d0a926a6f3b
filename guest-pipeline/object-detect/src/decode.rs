//! From one level of the model's outputs to candidates in frame pixels.

use ocelli_sdk::Placement;
use ocelli_sdk::nanodet::Level;
use ocelli_sdk::nms::Candidate;

use crate::settings::Filter;

/// The picture that a tensor was made of.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Where it lies in the tensor.
    pub placement: Placement,
}

/// The candidates that the filter lets pass, in order of the cells, their boxes in frame pixels and clipped
/// to the frame. What lies outside the frame altogether, in the letterbox's bars, is left out.
pub fn candidates<'a>(
    level: &'a Level<'_>,
    filter: &'a Filter,
    picture: &'a Picture,
) -> impl Iterator<Item = Candidate> + 'a {
    let hits = level.hits(filter.least_score).into_iter().filter(|hit| filter.wants(hit.class));
    hits.filter_map(|hit| {
        let mut candidate = level.candidate(&hit)?;
        let in_frame = picture.placement.box_to_frame(&candidate.bbox);
        candidate.bbox = in_frame.clip(picture.width as f32, picture.height as f32);
        candidate.bbox.is_proper().then_some(candidate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CLASSES, Variant};
    use crate::settings::Settings;
    use ocelli_sdk::geometry::BBox;
    use ocelli_sdk::letterbox;

    /// A model of 32 x 32 pixels, whose level of stride 16 has 2 x 2 cells.
    const SMALL: Variant = Variant { name: "small", size: 32 };

    /// Scores with one class set in one cell, and sides that put every distance at one stride.
    fn outputs(cell: usize, class: usize, score: f32) -> (Vec<f32>, Vec<f32>) {
        let mut scores = vec![0.0; 4 * CLASSES];
        scores[cell * CLASSES + class] = score;
        let sides = (0..4 * 44).map(|i| if i % 11 == 1 { 50.0 } else { -50.0 }).collect();
        (scores, sides)
    }

    fn run(cell: usize, class: usize, settings: &str, picture: (u32, u32)) -> Vec<Candidate> {
        let (scores, sides) = outputs(cell, class, 0.9);
        let placement = letterbox::place(picture.0, picture.1, 32, 32).unwrap();
        let picture = Picture { width: picture.0, height: picture.1, placement };
        let level = SMALL.level(16, &scores, &sides).unwrap();
        candidates(&level, Settings::read(settings).unwrap().filter(), &picture).collect()
    }

    #[test]
    fn a_box_is_taken_to_the_frame_and_clipped() {
        // 64 x 32 pixels lie at half size under 8 rows of black. Cell 1: centre (24, 8), sides 16: 8..40 by
        // -8..24 in the tensor, so 16..80 by -32..32 in the frame, of which 16..64 by 0..32 is left.
        let found = run(1, 0, "{}", (64, 32));
        assert_eq!(found.len(), 1);
        let BBox { left, top, right, bottom } = found[0].bbox;
        for (got, want) in [(left, 16.0), (top, 0.0), (right, 64.0), (bottom, 32.0)] {
            assert!((got - want).abs() < 1e-4, "{got} for {want}");
        }
    }

    #[test]
    fn only_the_labels_asked_for_pass() {
        assert_eq!(run(0, 2, r#"{"labels":["car","dog"]}"#, (32, 32)).len(), 1);
        assert!(run(0, 0, r#"{"labels":["car","dog"]}"#, (32, 32)).is_empty());
    }

    #[test]
    fn a_box_in_the_bars_is_left_out() {
        // 320 x 10 pixels are one row of the tensor, row 15. Sides of no length but one stride to the top and
        // left.
        let (mut scores, mut sides) = outputs(2, 0, 0.9);
        scores[0] = 0.0;
        for side in [2, 3] {
            for cell in 0..4 {
                let from = cell * 44 + side * 11;
                sides[from..from + 11].fill(-50.0);
                sides[from] = 50.0;
            }
        }
        // Top side one tenth of a stride: from row 22.4 to 24, below the picture.
        for cell in 0..4 {
            let from = cell * 44 + 11;
            sides[from..from + 11].fill(-50.0);
            sides[from] = 9f32.ln();
            sides[from + 1] = 0.0;
        }
        let placement = letterbox::place(320, 10, 32, 32).unwrap();
        let picture = Picture { width: 320, height: 10, placement };
        let level = SMALL.level(16, &scores, &sides).unwrap();
        assert_eq!(level.hits(0.5).len(), 1);
        assert_eq!(candidates(&level, Settings::read("{}").unwrap().filter(), &picture).count(), 0);
    }
}
