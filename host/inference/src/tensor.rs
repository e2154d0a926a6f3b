//! The tensors of a model: declared by the catalog, checked against the graph, placed in memory.

use std::ffi::CString;
use std::ops::Range;

use ocelli_protocol::graph::{GraphTensor, difference};
use ocelli_protocol::inference::{Element, MAX_RANK, MAX_TENSORS, Model, TensorDeclaration};
use ocelli_protocol::shm::ALIGNMENT;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

/// A tensor of a model, with its name as the C interface takes it.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// As in the catalog.
    pub(crate) declaration: TensorDeclaration,
    /// The same name, ending in 0.
    pub(crate) name: CString,
}

/// A checked place of a tensor: in the region, aligned, and as long as the shape needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorPlace {
    pub(crate) shape: Vec<u32>,
    pub(crate) bytes: Range<usize>,
}

/// The inputs and outputs of a model, as the catalog declares them.
#[derive(Debug)]
pub(crate) struct Signature {
    /// In the catalog's order.
    pub(crate) inputs: Vec<Tensor>,
    /// In the catalog's order, which is the order in which they are laid out.
    pub(crate) outputs: Vec<Tensor>,
}

/// Why a model's declared inputs and outputs cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("model \"{model}\" has {count} {kind}s; 1 to {MAX_TENSORS} are possible")]
    Count { model: String, kind: &'static str, count: usize },
    #[error(
        "model \"{model}\": {kind} \"{name}\" has shape {shape:?}; at most {MAX_RANK} sides are \
         possible, each -1 or more than 0"
    )]
    Shape { model: String, kind: &'static str, name: String, shape: Vec<i64> },
    #[error("model \"{model}\": the name of {kind} {name:?} holds a 0 byte")]
    ZeroByte { model: String, kind: &'static str, name: String },
}

impl Signature {
    pub(crate) fn new(model: &Model) -> Result<Self, SignatureError> {
        let tensors = |kind: &'static str, declared: &[TensorDeclaration]| {
            if declared.is_empty() || declared.len() > MAX_TENSORS {
                let (model, count) = (model.name.clone(), declared.len());
                return Err(SignatureError::Count { model, kind, count });
            }
            declared.iter().map(|declaration| tensor(&model.name, kind, declaration)).collect()
        };
        Ok(Self {
            inputs: tensors("input", &model.inputs)?,
            outputs: tensors("output", &model.outputs)?,
        })
    }

    /// How the graph of a session differs from what is declared, if it does.
    pub(crate) fn difference(&self, session: &Session) -> Option<String> {
        let sides = [
            ("input", &self.inputs, session.inputs()),
            ("output", &self.outputs, session.outputs()),
        ];
        sides.into_iter().find_map(|(kind, declared, graph)| {
            let graph: Vec<_> = graph.iter().map(graph_tensor).collect();
            difference(kind, declared.iter().map(|tensor| &tensor.declaration), &graph)
        })
    }

    /// Bytes that the tensors of fixed shape take when they are laid out one after the other.
    pub(crate) fn fixed_bytes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Option<usize> {
        tensors.filter_map(|tensor| Some((tensor, tensor.declaration.fixed_shape()?))).try_fold(
            0_usize,
            |sum, (tensor, shape)| {
                let bytes = tensor.declaration.element.bytes(&shape)?;
                sum.checked_add(bytes.checked_next_multiple_of(ALIGNMENT)?)
            },
        )
    }
}

fn tensor(
    model: &str,
    kind: &'static str,
    declaration: &TensorDeclaration,
) -> Result<Tensor, SignatureError> {
    let TensorDeclaration { name, shape, .. } = declaration;
    let (model, name) = (model.to_owned(), name.clone());
    if shape.len() > MAX_RANK || shape.iter().any(|&side| side == 0 || side < -1) {
        return Err(SignatureError::Shape { model, kind, name, shape: shape.clone() });
    }
    match CString::new(name.as_str()) {
        Ok(name) => Ok(Tensor { declaration: declaration.clone(), name }),
        Err(_) => Err(SignatureError::ZeroByte { model, kind, name }),
    }
}

/// An input or output of a session's graph.
pub(crate) fn graph_tensor(outlet: &Outlet) -> GraphTensor {
    let (kind, element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (ty.to_string(), element_of(*ty), shape.to_vec()),
        other => (other.to_string(), None, Vec::new()),
    };
    GraphTensor { name: outlet.name().to_owned(), element, kind, shape }
}

fn element_of(ty: TensorElementType) -> Option<Element> {
    Some(match ty {
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Bfloat16 => Element::Bf16,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Int64 => Element::I64,
        _ => return None,
    })
}
