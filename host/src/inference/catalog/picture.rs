//! Which input of a model takes a picture, and how a frame becomes it.

use ocelli_protocol::inference::{Element, TensorDeclaration};
use ocelli_protocol::model::{AxisOrder, PictureInput};

use super::manifest::Preprocessing;

/// Longest side of a tensor that a frame gives, in pixels.
const MAX_SIDE: u32 = 4096;

/// The first input that takes a picture of three channels: its index, the place of its height in
/// the shape, which the width follows, and the order of its axes.
pub(super) fn picture_input(inputs: &[TensorDeclaration]) -> Option<(usize, usize, AxisOrder)> {
    inputs.iter().enumerate().find_map(|(index, input)| match *input.shape.as_slice() {
        [1 | -1, 3, _, _] => Some((index, 2, AxisOrder::Nchw)),
        [1 | -1, _, _, 3] => Some((index, 1, AxisOrder::Nhwc)),
        _ => None,
    })
}

/// Height and width of the picture's input, where neither is open.
pub(super) fn input_sides(inputs: &[TensorDeclaration]) -> Option<[i64; 2]> {
    let (index, place, _) = picture_input(inputs)?;
    match inputs.get(index)?.shape.get(place..)? {
        &[height, width, ..] if height > 0 && width > 0 => Some([height, width]),
        _ => None,
    }
}

/// How a frame becomes the picture's input, or why none does, in words that follow "the model".
pub(super) fn picture(
    inputs: &[TensorDeclaration],
    preprocessing: Option<&Preprocessing>,
) -> Result<PictureInput, PictureFault> {
    let (index, _, layout) = picture_input(inputs).ok_or(PictureFault::NoInput)?;
    let input = inputs.get(index).ok_or(PictureFault::NoInput)?;
    let bytes = match input.element {
        Element::F32 => false,
        Element::U8 => true,
        other => return Err(PictureFault::Element(input.name.clone(), other)),
    };
    let open = || PictureFault::OpenSides(input.name.clone(), input.shape.clone());
    let [height, width] = input_sides(inputs).ok_or_else(open)?;
    let side = |side: i64| u32::try_from(side).ok().filter(|side| *side <= MAX_SIDE);
    let (Some(width), Some(height)) = (side(width), side(height)) else { return Err(open()) };
    let Preprocessing { channels, mean, std, fit, fill } =
        preprocessing.ok_or(PictureFault::NoTable)?;
    Ok(PictureInput {
        name: input.name.clone(),
        width,
        height,
        layout,
        bytes,
        channels: *channels,
        fit: *fit,
        mean: *mean,
        std: *std,
        fill: *fill,
    })
}

/// Why no frame becomes a model's input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PictureFault {
    #[error("no input takes a picture: [1, 3, height, width] or [1, height, width, 3]")]
    NoInput,
    #[error("its input {0:?} is of {name}, and frames become f32 or u8", name = .1.name())]
    Element(String, Element),
    #[error(
        "its input {0:?} has shape {1:?}: fix height and width in model.toml, at most {MAX_SIDE}"
    )]
    OpenSides(String, Vec<i64>),
    #[error("model.toml has no table [preprocessing]")]
    NoTable,
}
