//! ONNX files of a node or two, written as `onnx.ModelProto` of `onnx/onnx.proto`: what they hold
//! is seen here, not in a file made elsewhere.

/// `onnx.TensorProto.DataType`, with the bytes of an element, by the name that `model.toml` has for
/// it.
pub(crate) const ELEMENTS: [(&str, u64, usize); 9] = [
    ("f32", 1, 4),
    ("u8", 2, 1),
    ("i8", 3, 1),
    ("i32", 6, 4),
    ("i64", 7, 8),
    ("bool", 9, 1),
    ("f16", 10, 2),
    ("f64", 11, 8),
    ("bf16", 16, 2),
];

pub(crate) const F32: u64 = 1;

/// Opset: `Identity` and `Cast` take bfloat16 from 13 on.
const OPSET: u64 = 13;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// An input or output: a name, a type, and sides, of which none is open.
pub(crate) fn value(name: &str, element: u64, shape: &[Option<u64>]) -> Vec<u8> {
    let sides = shape.iter().map(|side| match side {
        Some(side) => bytes(1, &number(1, *side)),
        None => bytes(1, &bytes(2, b"n")),
    });
    let sides: Vec<u8> = sides.flatten().collect();
    let tensor = [number(1, element), bytes(2, &sides)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

/// A node without a name.
pub(crate) fn node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|input| bytes(1, input.as_bytes())).collect();
    node.extend(bytes(2, output.as_bytes()));
    node.extend(bytes(4, operator.as_bytes()));
    node.extend(attributes.iter().flat_map(|attribute| bytes(5, attribute)));
    node
}

/// An attribute that is a number.
pub(crate) fn attribute(name: &str, value: u64) -> Vec<u8> {
    const INT: u64 = 2;
    [bytes(1, name.as_bytes()), number(3, value), number(20, INT)].concat()
}

/// Weights.
pub(crate) fn weights(name: &str, shape: &[u64], values: &[f32]) -> Vec<u8> {
    let sides: Vec<u8> = shape.iter().flat_map(|side| number(1, *side)).collect();
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [sides, number(2, F32), bytes(8, name.as_bytes()), bytes(9, &raw)].concat()
}

/// Weights that lie in another file, from its first byte on.
pub(crate) fn weights_elsewhere(name: &str, count: u64, file: &str) -> Vec<u8> {
    const EXTERNAL: u64 = 1;
    let entry = |key: &str, value: &str| {
        bytes(13, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat())
    };
    let entries = [entry("location", file), entry("length", &(count * 4).to_string())].concat();
    let name = bytes(8, name.as_bytes());
    [number(1, count), number(2, F32), name, entries, number(14, EXTERNAL)].concat()
}

/// A whole file.
pub(crate) fn model(
    nodes: &[Vec<u8>],
    weights: &[Vec<u8>],
    inputs: &[Vec<u8>],
    outputs: &[Vec<u8>],
) -> Vec<u8> {
    let all = |field, parts: &[Vec<u8>]| {
        parts.iter().flat_map(|part| bytes(field, part)).collect::<Vec<u8>>()
    };
    let graph = [all(1, nodes), bytes(2, b"g"), all(5, weights), all(11, inputs), all(12, outputs)]
        .concat();
    [number(1, 8), bytes(2, b"ocelli-tests"), bytes(7, &graph), bytes(8, &number(2, OPSET))]
        .concat()
}

/// `y = Identity(x)`.
pub(crate) fn identity(element: u64, shape: &[Option<u64>]) -> Vec<u8> {
    let values = [value("x", element, shape), value("y", element, shape)];
    model(&[node("Identity", &["x"], "y", &[])], &[], &values[..1], &values[1..])
}

/// `y = Cast(x)`, from f32.
pub(crate) fn cast(to: u64, shape: &[Option<u64>]) -> Vec<u8> {
    let cast = node("Cast", &["x"], "y", &[attribute("to", to)]);
    model(&[cast], &[], &[value("x", F32, shape)], &[value("y", to, shape)])
}

/// `y = Relu(Conv(x, w))`: [1, 3, 8, 8] to [1, 4, 6, 6].
pub(crate) fn convolution() -> Vec<u8> {
    let sides = |sides: [u64; 4]| sides.map(Some);
    let kernel: Vec<f32> = (0..4 * 3 * 3 * 3).map(|index| index as f32 / 108.0 - 0.5).collect();
    model(
        &[node("Conv", &["x", "w"], "c", &[]), node("Relu", &["c"], "y", &[])],
        &[weights("w", &[4, 3, 3, 3], &kernel)],
        &[value("x", F32, &sides([1, 3, 8, 8]))],
        &[value("y", F32, &sides([1, 4, 6, 6]))],
    )
}
