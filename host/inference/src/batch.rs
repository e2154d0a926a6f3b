//! Runs the requests of several sessions as one: their inputs are joined along the first side, and
//! the outputs are split again. Worth its copies on a GPU alone.

use std::sync::Arc;

use ocelli_protocol::inference::{Batching, ErrorCode, MAX_BATCH, Model, PlacedTensor};
use ort::session::RunOptions;

use crate::buffer::Buffer;
use crate::client::Client;
use crate::error::RequestError;
use crate::request::Layout;
use crate::run::{TensorNames, allocated, check_input, check_output, place_output, placed, write};
use crate::tensor::Signature;
use crate::value::Value;

/// The batching of a model whose tensors all have an open first side, if it is configured.
pub(crate) fn batching(model: &Model) -> Option<Batching> {
    let mut tensors = model.inputs.iter().chain(&model.outputs);
    let open = tensors.all(|tensor| tensor.shape.first() == Some(&-1));
    let batching = model.batching.filter(|batching| open && batching.max > 1)?;
    // The in-flight table has no more slots.
    Some(Batching { max: batching.max.min(MAX_BATCH), ..batching })
}

/// A request that can join a batch.
pub(crate) struct BatchPart {
    client: Arc<Client>,
    pub(crate) layout: Layout,
    rows: u32,
}

/// The outputs of one request, or its own error.
pub(crate) type Outcome = Result<Vec<PlacedTensor>, RequestError>;

impl BatchPart {
    /// `None` if its inputs have different numbers of rows.
    pub(crate) fn new(session: Arc<Client>, layout: Layout) -> Option<Self> {
        let mut rows = layout.inputs.iter().map(|place| place.shape.first().copied());
        let first = rows.next()??;
        rows.all(|other| other == Some(first)).then_some(Self {
            client: session,
            layout,
            rows: first,
        })
    }
}

/// Runs all parts as one batch. The outer error belongs to the run and to no single part; each
/// inner error belongs to its part.
pub(crate) fn run(
    parts: &[&BatchPart],
    signature: &Arc<Signature>,
    session: &mut ort::session::Session,
    options: &RunOptions,
) -> Result<Vec<Outcome>, RequestError> {
    let rows = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(part.rows));
    let rows =
        rows.ok_or_else(|| RequestError::argument("the joined requests have too many rows"))?;
    let mut buffers = Vec::with_capacity(signature.inputs.len());
    let mut inputs = Vec::with_capacity(signature.inputs.len());
    for index in 0..signature.inputs.len() {
        let (buffer, value) = join(parts, signature, index, rows)?;
        buffers.push(buffer);
        inputs.push(value);
    }
    let outputs = TensorNames::new(Arc::clone(signature)).run(session, Some(options), &inputs)?;
    // The tensors over the buffers go before them.
    drop(inputs);
    drop(buffers);
    split(parts, signature, &outputs, rows)
}

/// One input of all parts, one after the other, and the buffer that it lies in.
#[allow(unsafe_code)]
fn join(
    parts: &[&BatchPart],
    signature: &Signature,
    index: usize,
    rows: u32,
) -> Result<(Buffer, Value), RequestError> {
    let missing = || RequestError::argument("a joined request lacks an input");
    let declaration = &signature.inputs.get(index).ok_or_else(missing)?.declaration;
    let places: Option<Vec<_>> = parts.iter().map(|part| part.layout.inputs.get(index)).collect();
    let places = places.ok_or_else(missing)?;
    let mut buffer = Buffer::zeroed(places.iter().map(|place| place.bytes.len()).sum())?;
    let mut end = 0;
    for (part, place) in parts.iter().zip(&places) {
        if !buffer.copy_from(end, part.client.memory(), place.bytes.clone()) {
            return Err(missing());
        }
        end += place.bytes.len();
    }
    check_input(declaration, buffer.bytes())?;
    let mut shape = places.first().ok_or_else(missing)?.shape.clone();
    *shape.first_mut().ok_or_else(missing)? = rows;
    // SAFETY: the bytes are those of the buffer, which the caller drops after the value.
    let value = unsafe { Value::over(buffer.address(), end, declaration.element, &shape)? };
    Ok((buffer, value))
}

/// Gives each part its rows of the outputs.
fn split(
    parts: &[&BatchPart],
    signature: &Signature,
    outputs: &[Option<Value>],
    rows: u32,
) -> Result<Vec<Outcome>, RequestError> {
    let mut whole = Vec::with_capacity(outputs.len());
    for (output, value) in signature.outputs.iter().zip(outputs) {
        let declaration = &output.declaration;
        let (shape, bytes) = allocated(declaration, value.as_ref())?;
        if shape.first() != Some(&rows) {
            let message = format!(
                "the output \"{}\" has shape {shape:?} for a batch of {rows} rows: the model \
                 cannot be batched",
                declaration.name
            );
            return Err(RequestError::new(ErrorCode::RuntimeError, message));
        }
        whole.push((declaration, shape, bytes));
    }
    let mut begin = 0_usize;
    let split = parts.iter().map(|part| {
        let count = part.rows as usize;
        let from = begin;
        begin += count;
        let mut results = Vec::with_capacity(whole.len());
        let mut end = None;
        for (declaration, shape, bytes) in &whole {
            let row = bytes.len() / (rows as usize).max(1);
            let own = bytes.get(from * row..(from + count) * row).unwrap_or_default();
            check_output(declaration, own)?;
            let mut shape = shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = part.rows;
            }
            let place = place_output(declaration, &part.layout, end, shape)?;
            write(part.client.memory(), &place, own);
            end = Some(place.bytes.end);
            results.push(placed(declaration, &place));
        }
        Ok(results)
    });
    Ok(split.collect())
}
