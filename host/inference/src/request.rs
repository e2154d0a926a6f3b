//! Checks what a worker asks to be run, before anything of it is used.

use std::ops::Range;

use ocelli_protocol::inference::{ErrorCode, MAX_RANK, PlacedTensor};
use ocelli_protocol::shm::ALIGNMENT;

use crate::error::RequestError;
use crate::tensor::{Signature, Tensor, TensorPlace};

/// Where the tensors of a run lie.
#[derive(Debug)]
pub(crate) struct Layout {
    /// One for each input of the signature, in its order.
    pub(crate) inputs: Vec<TensorPlace>,
    /// The region for all outputs.
    pub(crate) output_region: Range<usize>,
}

impl Layout {
    /// The layout of a request over a region of `length` bytes.
    pub(crate) fn check(
        signature: &Signature,
        length: usize,
        placed: &[PlacedTensor],
        output_offset: u64,
        output_length: u64,
    ) -> Result<Self, RequestError> {
        const ROOM: &str = "the room for the outputs";
        let room = region(ROOM, length, output_offset, output_length)?;
        aligned(ROOM, output_offset)?;
        if let Some(unknown) = placed.iter().find(|given| {
            !signature.inputs.iter().any(|input| input.declaration.name == given.name)
        }) {
            let names: Vec<_> =
                signature.inputs.iter().map(|input| input.declaration.name.as_str()).collect();
            let message = format!(
                "the model has no input \"{}\"; it has: {}",
                unknown.name,
                names.join(", ")
            );
            return Err(RequestError::argument(message));
        }
        let inputs = signature.inputs.iter().map(|input| input_place(input, length, placed, &room));
        let inputs = inputs.collect::<Result<_, _>>()?;
        fits_fixed_outputs(signature, &room)?;
        Ok(Self { inputs, output_region: room })
    }
}

fn input_place(
    input: &Tensor,
    length: usize,
    placed: &[PlacedTensor],
    room: &Range<usize>,
) -> Result<TensorPlace, RequestError> {
    let declaration = &input.declaration;
    let name = &declaration.name;
    let mut given = placed.iter().filter(|given| given.name == *name);
    let Some(tensor) = given.next() else {
        return Err(RequestError::argument(format!("the input \"{name}\" is missing")));
    };
    if given.next().is_some() {
        return Err(RequestError::argument(format!("the input \"{name}\" is given twice")));
    }
    if tensor.element != declaration.element {
        return Err(RequestError::argument(format!(
            "the input \"{name}\" is {}, the model takes {}",
            tensor.element.name(),
            declaration.element.name()
        )));
    }
    if tensor.shape.len() > MAX_RANK
        || tensor.shape.contains(&0)
        || !declaration.admits(&tensor.shape)
    {
        return Err(RequestError::argument(format!(
            "the input \"{name}\" has shape {:?}, the model takes {:?}",
            tensor.shape, declaration.shape
        )));
    }
    let what = format!("the input \"{name}\"");
    aligned(&what, tensor.offset)?;
    let size = tensor
        .element
        .bytes(&tensor.shape)
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(u64::MAX);
    let bytes = region(&what, length, tensor.offset, size)?;
    if bytes.start < room.end && room.start < bytes.end {
        return Err(RequestError::argument(format!(
            "{what} at {}..{} overlaps the room for the outputs at {}..{}",
            bytes.start, bytes.end, room.start, room.end
        )));
    }
    Ok(TensorPlace { shape: tensor.shape.clone(), bytes })
}

/// Fails where the outputs up to the first without a fixed shape do not fit, before a run for
/// nothing.
fn fits_fixed_outputs(signature: &Signature, room: &Range<usize>) -> Result<(), RequestError> {
    let mut start = room.start;
    for output in &signature.outputs {
        let Some(shape) = output.declaration.fixed_shape() else { break };
        let bytes = output.declaration.element.bytes(&shape);
        let place = place_in(room, start, shape, bytes)
            .ok_or_else(|| output_too_large(&output.declaration.name, room))?;
        start = place.bytes.end;
    }
    Ok(())
}

/// The place of `bytes` bytes at the first aligned offset from `from` on, if it fits.
pub(crate) fn place_in(
    room: &Range<usize>,
    from: usize,
    shape: Vec<u32>,
    bytes: Option<usize>,
) -> Option<TensorPlace> {
    let start = from.checked_next_multiple_of(ALIGNMENT)?;
    let end = start.checked_add(bytes?)?;
    (end <= room.end).then_some(TensorPlace { shape, bytes: start..end })
}

/// The error of an output that does not fit.
pub(crate) fn output_too_large(name: &str, room: &Range<usize>) -> RequestError {
    let message = format!(
        "the output \"{name}\" does not fit into the {} bytes given for the outputs",
        room.len()
    );
    RequestError::new(ErrorCode::TooLarge, message)
}

/// The range of `size` bytes at `offset` in shared memory of `length` bytes.
pub(crate) fn region(
    what: &str,
    length: usize,
    offset: u64,
    size: u64,
) -> Result<Range<usize>, RequestError> {
    let start = usize::try_from(offset).ok();
    let end = offset.checked_add(size).and_then(|end| usize::try_from(end).ok());
    start.zip(end).filter(|(_, end)| *end <= length).map(|(start, end)| start..end).ok_or_else(|| {
        RequestError::argument(format!(
            "{what}, {size} bytes at {offset}, does not lie in the {length} bytes of shared memory"
        ))
    })
}

fn aligned(what: &str, offset: u64) -> Result<(), RequestError> {
    if offset.is_multiple_of(ALIGNMENT as u64) {
        return Ok(());
    }
    Err(RequestError::argument(format!(
        "{what} begins at {offset}, which is no multiple of {ALIGNMENT}"
    )))
}
