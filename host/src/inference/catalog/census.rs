//! Of which operators a model's graph is made, and which of its weights it makes anew from what the
//! file stores: what tells a model that was quantised well from one that was not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader};

use serde::Serialize;

use super::graph_file::{GraphMessage, LENGTH, VARINT};

/// Operators that are told apart: ONNX and ONNX Runtime have some three hundred together. What
/// comes after so many is counted as [`OTHERS`].
const MAX_OPERATORS: usize = 512;

/// See [`MAX_OPERATORS`].
const OTHERS: &str = "(others)";

/// Operators that a line shows, the most frequent first.
const SHOWN: usize = 16;

/// `TensorProto.DataType`: the floats of 16 bits.
const FLOAT16: u64 = 10;
const BFLOAT16: u64 = 16;

/// What a graph is made of. Graphs inside of nodes (`If`, `Loop`) are not looked at.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct GraphCensus {
    /// The number of nodes of each operator.
    pub operators: BTreeMap<String, u32>,
    /// Weights that are stored in 16 bits and cast by the graph. ONNX Runtime does it once, when
    /// it loads the model.
    pub weights_cast: u32,
    /// Weights that the graph quantises, not the file. The tool that quantised the model took them
    /// for activations, since something lay between them and the operator: they have one scale for
    /// all channels and no sign, for which ONNX Runtime has slower code.
    pub weights_quantised_in_graph: u32,
}

/// What is known of a tensor that is the same in each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Constant {
    /// Stored in 16 bits.
    Half,
    Other,
}

/// A node by its operator and what its tensors' names hash to.
struct GraphNode {
    operator: String,
    inputs: Vec<u64>,
    outputs: Vec<u64>,
}

impl GraphCensus {
    /// Reads a model's file. `None` if it is no message, or has more fields than are looked at.
    pub(crate) fn of(file: File) -> io::Result<Option<Self>> {
        let end = file.metadata()?.len();
        let mut message = GraphMessage::new(BufReader::new(file));
        match message.census(end) {
            Err(error)
                if [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof]
                    .contains(&error.kind()) =>
            {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// What makes the model slower than it could be, on one line.
    pub fn warning(&self) -> Option<String> {
        let count = self.weights_quantised_in_graph;
        (count > 0).then(|| {
            format!(
                "{count} weights are quantised by the graph, as activations are ({} are cast from \
                 16 bits): the file is larger than it need be, and runs take up to twice the time; \
                 fold the model's constants before it is quantised",
                self.weights_cast
            )
        })
    }

    /// Operators and cast weights, on one line.
    pub fn summary(&self) -> String {
        let mut operators: Vec<_> = self.operators.iter().collect();
        operators.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let more = operators.len().saturating_sub(SHOWN);
        let shown: Vec<_> =
            operators.iter().take(SHOWN).map(|(name, count)| format!("{name} {count}")).collect();
        let mut line = format!("operators: {}", shown.join(", "));
        if more > 0 {
            line += &format!(", and {more} others");
        }
        if self.weights_cast > 0 && self.weights_quantised_in_graph == 0 {
            line += &format!(
                "; {} weights are cast from 16 bits when the model loads, at no cost in a run: \
                 fold them before you quantise it",
                self.weights_cast
            );
        }
        line
    }

    /// Takes stock of nodes, which are in an order in which each comes after what it needs.
    fn take_stock(nodes: Vec<GraphNode>, mut constants: HashMap<u64, Constant>) -> Self {
        let mut census = Self::default();
        let mut cast = HashSet::new();
        for GraphNode { operator, inputs, outputs } in nodes {
            let first = inputs.first().and_then(|name| constants.get(name)).copied();
            // `Constant` has no inputs.
            let is_constant = match inputs.as_slice() {
                [] => operator == "Constant",
                inputs => inputs.iter().all(|name| constants.contains_key(name)),
            };
            match (operator.as_str(), first) {
                // A weight that several nodes cast is one.
                ("Cast", Some(Constant::Half)) if cast.insert(inputs.first().copied()) => {
                    census.weights_cast += 1;
                }
                ("QuantizeLinear", Some(_)) => census.weights_quantised_in_graph += 1,
                _ => {}
            }
            if is_constant {
                constants.extend(outputs.into_iter().map(|name| (name, Constant::Other)));
            }
            let known =
                census.operators.contains_key(&operator) || census.operators.len() < MAX_OPERATORS;
            let name = if known { operator } else { OTHERS.to_owned() };
            *census.operators.entry(name).or_default() += 1;
        }
        census
    }
}

impl GraphMessage {
    /// `ModelProto`.
    fn census(&mut self, end: u64) -> io::Result<GraphCensus> {
        let (mut nodes, mut constants) = (Vec::new(), HashMap::new());
        while self.at() < end {
            match self.field()? {
                (7, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    self.nodes_and_weights(end, &mut nodes, &mut constants)?;
                }
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(GraphCensus::take_stock(nodes, constants))
    }

    /// `GraphProto`.
    fn nodes_and_weights(
        &mut self,
        end: u64,
        nodes: &mut Vec<GraphNode>,
        constants: &mut HashMap<u64, Constant>,
    ) -> io::Result<()> {
        while self.at() < end {
            match self.field()? {
                (1, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    nodes.push(self.node(end)?);
                }
                (5, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    let (name, constant) = self.weight(end)?;
                    constants.insert(name, constant);
                }
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(())
    }

    /// `NodeProto`.
    fn node(&mut self, end: u64) -> io::Result<GraphNode> {
        let mut node =
            GraphNode { operator: String::new(), inputs: Vec::new(), outputs: Vec::new() };
        while self.at() < end {
            match self.field()? {
                (1, LENGTH) => {
                    let name = self.text(end)?;
                    // An input that is left out has no name.
                    if !name.is_empty() {
                        node.inputs.push(hash(&name));
                    }
                }
                (2, LENGTH) => node.outputs.push(hash(&self.text(end)?)),
                (4, LENGTH) => node.operator = self.text(end)?,
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(node)
    }

    /// `TensorProto`.
    fn weight(&mut self, end: u64) -> io::Result<(u64, Constant)> {
        let (mut name, mut element) = (String::new(), 0);
        while self.at() < end {
            match self.field()? {
                (2, VARINT) => element = self.varint()?,
                (8, LENGTH) => name = self.text(end)?,
                (_, kind) => self.skip(kind, end)?,
            }
        }
        let constant = match element {
            FLOAT16 | BFLOAT16 => Constant::Half,
            _ => Constant::Other,
        };
        Ok((hash(&name), constant))
    }
}

/// Names are compared by their hashes, which are shorter: a million of them must fit.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::graph_file::tests::{nested, number, text};
    use super::*;
    use std::io::{Seek, Write};
    use std::path::PathBuf;

    fn census(bytes: &[u8]) -> Option<GraphCensus> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        GraphCensus::of(file).unwrap()
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let inputs: Vec<_> = inputs.iter().map(|name| text(1, name)).collect();
        nested(1, &[inputs.concat(), text(2, output), text(4, operator)])
    }

    fn weight(name: &str, element: u64) -> Vec<u8> {
        nested(5, &[number(2, element), text(8, name), nested(9, &[vec![7; 1000]])])
    }

    fn model(parts: &[Vec<u8>]) -> Vec<u8> {
        [number(1, 8), nested(7, parts)].concat()
    }

    const F32: u64 = 1;
    const U8: u64 = 2;

    #[test]
    fn the_bundled_models_have_the_operators_that_they_were_measured_with() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models");
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if let Ok(file) = File::open(path.join("model.onnx")) {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                found.insert(name, GraphCensus::of(file).unwrap().unwrap());
            }
        }
        // Cast weights, and nodes by operator.
        type Counts = (u32, &'static [(&'static str, u32)]);
        let expected: [(&str, Counts); 4] = [
            ("centerface", (0, &[("Conv", 60), ("ConvTranspose", 3), ("Relu", 42)])),
            ("faceres-224", (50, &[("Cast", 50), ("Clip", 27), ("Conv", 27), ("Gemm", 3)])),
            (
                "nanodet-g-320-int8",
                (0, &[("Conv", 34), ("DequantizeLinear", 152), ("QuantizeLinear", 84)]),
            ),
            ("nanodet-g-416", (36, &[("Cast", 36), ("Conv", 34), ("LeakyRelu", 28)])),
        ];
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, expected.map(|(name, ..)| name));
        for (name, (cast, operators)) in expected {
            let census = &found[name];
            for (operator, count) in operators {
                assert_eq!(census.operators.get(*operator), Some(count), "{name}: {operator}");
            }
            let casts = census.operators.get("Cast").copied().unwrap_or_default();
            assert_eq!((census.weights_cast, casts), (cast, cast), "{name}");
            assert_eq!(census.warning(), None, "{name}");
        }
        let nodes = |name: &str| found[name].operators.values().sum::<u32>();
        assert_eq!((nodes("nanodet-g-320-int8"), nodes("nanodet-g-416")), (337, 137));
    }

    #[test]
    fn weights_that_were_not_folded_before_quantising_are_counted() {
        // As `quantize_static` leaves it: what should be int8 in the file is f16, cast, quantised.
        let unfolded = model(&[
            node("QuantizeLinear", &["picture", "scale", "zero"], "q"),
            node("DequantizeLinear", &["q", "scale", "zero"], "d"),
            node("Cast", &["half"], "w"),
            node("QuantizeLinear", &["w", "scale", "zero"], "wq"),
            node("DequantizeLinear", &["wq", "scale", "zero"], "wd"),
            node("Conv", &["d", "wd", ""], "out"),
            weight("half", FLOAT16),
            weight("scale", F32),
            weight("zero", U8),
        ]);
        let census = census(&unfolded).unwrap();
        assert_eq!((census.weights_cast, census.weights_quantised_in_graph), (1, 1));
        assert_eq!(census.operators["QuantizeLinear"], 2);
        let warning = census.warning().unwrap();
        assert!(warning.starts_with("1 weights are quantised by the graph"), "{warning}");
        assert_eq!(warning.lines().count(), 1);
    }

    #[test]
    fn what_costs_nothing_in_a_run_is_told_and_not_warned_of() {
        let floats = model(&[
            node("Cast", &["half"], "w"),
            node("Cast", &["half"], "again"),
            node("Cast", &["picture"], "floats"),
            node("Conv", &["floats", "w"], "out"),
            weight("half", BFLOAT16),
        ]);
        let floats = census(&floats).unwrap();
        assert_eq!((floats.weights_cast, floats.warning()), (1, None));
        assert!(floats.summary().starts_with("operators: Cast 3, Conv 1; 1 weights are cast"));

        let quantised = model(&[
            node("DequantizeLinear", &["w", "scale"], "d"),
            node("Conv", &["picture", "d"], "out"),
            weight("w", 3),
            weight("scale", F32),
        ]);
        let quantised = census(&quantised).unwrap();
        assert_eq!(quantised.summary(), "operators: Conv 1, DequantizeLinear 1");
        assert_eq!(quantised.warning(), None);
    }

    #[test]
    fn what_is_no_model_has_no_census_and_a_flood_of_operators_is_bounded() {
        for other in [&b"graph"[..], &[0xff; 100], b"PK\x03\x04"] {
            assert_eq!(census(other), None, "{other:?}");
        }
        let flood: Vec<_> =
            (0..2000).map(|n| node(&format!("Op{n}"), &["x"], &format!("y{n}"))).collect();
        let census = census(&model(&flood)).unwrap();
        assert_eq!(census.operators.len(), MAX_OPERATORS + 1);
        assert_eq!(census.operators[OTHERS] as usize, 2000 - MAX_OPERATORS);
        assert!(census.summary().ends_with(&format!("and {} others", MAX_OPERATORS + 1 - SHOWN)));
    }
}
