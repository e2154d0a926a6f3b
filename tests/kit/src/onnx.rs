//! Models made of a model and a wrapping (`tests/models/families`), by the fields of `onnx.proto`.

use crate::root;

const VARINT: u64 = 0;
const LENGTH: u64 = 2;

/// The model that detects in the form of another family: `tests/models/families/{family}.onnx`
/// around `nanodet-g-416`.
pub fn family(family: &str) -> Vec<u8> {
    let read = |path: &str| {
        std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let wrapping = read(&format!("tests/models/families/{family}.onnx"));
    wrapped(&read("models/nanodet-g-416/model.onnx"), &wrapping)
}

/// `model` with the inputs and outputs of `wrapping`, whose nodes are named `head...` where they
/// come before the model's. The wrapping's inputs that are named as outputs of the model are those.
pub fn wrapped(model: &[u8], wrapping: &[u8]) -> Vec<u8> {
    let (inner, outer) = (text(model, 7), text(wrapping, 7));
    let known: Vec<_> = numbered(inner, 12).map(|output| text(output.content, 1)).collect();
    let is_head = |node: &Field| text(node.content, 3).starts_with(b"head");
    let (mut whole, mut tail) = (Vec::<u8>::new(), Vec::<u8>::new());
    for node in numbered(outer, 1) {
        let part = if is_head(&node) { &mut whole } else { &mut tail };
        part.extend(node.whole);
    }
    let kept = fields(inner).into_iter().filter(|field| ![11, 12].contains(&field.number));
    kept.for_each(|field| whole.extend(field.whole));
    whole.extend(tail);
    for field in fields(outer) {
        let own = field.number == 11 && !known.contains(&text(field.content, 1));
        if own || [5, 12].contains(&field.number) {
            whole.extend(field.whole);
        }
    }
    let kept = fields(model).into_iter().filter(|field| field.number != 7);
    let notes = numbered(wrapping, 14);
    let mut made: Vec<u8> = kept.chain(notes).flat_map(|field| field.whole.to_vec()).collect();
    made.extend(varint(7 << 3 | LENGTH));
    made.extend(varint(whole.len() as u64));
    made.extend(whole);
    made
}

/// A field of a message.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u64,
    /// With its number and length.
    whole: &'a [u8],
    content: &'a [u8],
}

fn fields(message: &[u8]) -> Vec<Field<'_>> {
    let mut found = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let begin = rest;
        let tag = number(&mut rest);
        let size = match tag & 7 {
            VARINT => {
                let before = rest;
                number(&mut rest);
                let size = before.len() - rest.len();
                rest = before;
                size
            }
            LENGTH => number(&mut rest) as usize,
            1 => 8,
            5 => 4,
            other => panic!("no value is of the kind {other}"),
        };
        let (content, after) = rest.split_at(size);
        let whole = &begin[..begin.len() - after.len()];
        found.push(Field { number: tag >> 3, whole, content });
        rest = after;
    }
    found
}

fn numbered(message: &[u8], number: u64) -> impl Iterator<Item = Field<'_>> {
    fields(message).into_iter().filter(move |field| field.number == number)
}

/// The content of the first field of this number.
fn text(message: &[u8], number: u64) -> &[u8] {
    numbered(message, number).next().map_or(&[], |field| field.content)
}

fn number(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().expect("a number ends");
        *rest = after;
        value |= u64::from(byte & 0x7f) << place;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
