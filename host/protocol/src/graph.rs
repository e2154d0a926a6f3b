//! What a model's graph has, as ONNX Runtime reads it, and how it is held against what `model.toml`
//! declares.
//!
//! The inference process reads graphs; it and the host, which asks it by
//! `ocelli-inference --inspect`, compare them with the same words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inference::{Element, TensorDeclaration};

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphTensor {
    /// Name in the graph.
    pub name: String,
    /// Type of the elements; `None` for a type that Ocelli does not move, or if it is no tensor.
    pub element: Option<Element>,
    /// Its type in ONNX Runtime's words.
    pub kind: String,
    /// Its shape; -1 is a dimension known at run time alone.
    pub shape: Vec<i64>,
}

/// The output of `ocelli-inference --inspect`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// SHA-256 of the file: lower-case hexadecimal.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The program that wrote the file, as it says of itself. May be empty.
    pub producer: String,
    /// What its exporter wrote beside the graph, of the keys that are looked for.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// In the graph's order.
    pub inputs: Vec<GraphTensor>,
    /// In the graph's order.
    pub outputs: Vec<GraphTensor>,
}

/// How what is declared and what the graph has differ: a sentence that names the tensor and both
/// sides, or none. Where the graph leaves a side of a shape open, the declaration may fix it.
/// `kind` is "input" or "output".
pub fn difference<'a>(
    kind: &str,
    declared: impl Iterator<Item = &'a TensorDeclaration> + Clone,
    graph: &[GraphTensor],
) -> Option<String> {
    for TensorDeclaration { name, element, shape } in declared.clone() {
        let Some(found) = graph.iter().find(|tensor| tensor.name == *name) else {
            let names: Vec<_> = graph.iter().map(|tensor| tensor.name.as_str()).collect();
            return Some(format!(
                "the graph has no {kind} \"{name}\"; it has: {}",
                names.join(", ")
            ));
        };
        let same_shape = shape.len() == found.shape.len()
            && shape
                .iter()
                .zip(&found.shape)
                .all(|(declared, found)| declared == found || *found < 0);
        if !same_shape || found.element != Some(*element) {
            return Some(format!(
                "{kind} \"{name}\" is declared as {} {shape:?}, but is {} {:?} in the graph",
                element.name(),
                found.element.map_or(found.kind.as_str(), |element| element.name()),
                found.shape
            ));
        }
    }
    let undeclared =
        graph.iter().find(|tensor| declared.clone().all(|known| known.name != tensor.name))?;
    Some(format!(
        "the graph's {kind} \"{}\", {} {:?}, is not declared",
        undeclared.name, undeclared.kind, undeclared.shape
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(shape: &[i64]) -> Vec<TensorDeclaration> {
        vec![TensorDeclaration { name: "x".into(), element: Element::F32, shape: shape.to_vec() }]
    }

    fn graph(element: Option<Element>, shape: &[i64]) -> Vec<GraphTensor> {
        vec![GraphTensor {
            name: "x".into(),
            element,
            kind: "tensor(of it)".into(),
            shape: shape.to_vec(),
        }]
    }

    #[test]
    fn what_agrees_has_no_difference_and_an_open_side_may_be_fixed() {
        for found in [[1, 3, -1], [1, 3, 4]] {
            let found = graph(Some(Element::F32), &found);
            assert_eq!(difference("input", declared(&[1, 3, 4]).iter(), &found), None);
        }
        let open = declared(&[1, 3, -1]);
        let fixed = graph(Some(Element::F32), &[1, 3, 4]);
        assert!(
            difference("input", open.iter(), &fixed).is_some(),
            "a side that the graph fixes is not open"
        );
    }

    #[test]
    fn a_difference_names_the_tensor_and_both_sides() {
        let other =
            difference("output", declared(&[1, 4]).iter(), &graph(Some(Element::I8), &[1, 5]))
                .unwrap();
        for text in ["output \"x\"", "f32 [1, 4]", "i8 [1, 5]"] {
            assert!(other.contains(text), "{other:?} lacks {text:?}");
        }
        let strange = difference("output", declared(&[1]).iter(), &graph(None, &[1])).unwrap();
        assert!(strange.contains("tensor(of it)"), "{strange}");
        let missing = difference("input", declared(&[1]).iter(), &[]).unwrap();
        assert!(missing.contains("no input \"x\""), "{missing}");
        let more = difference("input", [].iter(), &graph(Some(Element::F32), &[1])).unwrap();
        assert!(more.contains("\"x\"") && more.contains("not declared"), "{more}");
    }
}
