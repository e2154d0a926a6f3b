//! `wasi:nn` as its WIT says it: named tensors, element types, graphs by name and by bytes, and
//! what each error code means.

use ocelli_protocol::inference::{
    Element, ErrorCode, InferenceRequest, InferenceResponse, PlacedTensor, TensorDeclaration,
};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::shm::{ALIGNMENT, SharedMemory};
use wasmtime::component::Resource;

use super::newest::wasi::nn::errors;
use super::newest::wasi::nn::graph::{ExecutionTarget, GraphEncoding, Host as _, HostGraph as _};
use super::newest::wasi::nn::inference::HostGraphExecutionContext as _;
use super::newest::wasi::nn::tensor::{HostTensor, TensorType};
use super::resources::ExecutionContext;
use super::tensor::Tensor;
use super::tests::{MEMORY, TestInstance, counted, error_of, served};
use crate::inference::InferenceError;

/// The inputs of the model "mixed", which gives each of them back under the name in capitals.
const INPUTS: [(&str, Element); 3] =
    [("a", Element::F32), ("b", Element::I8), ("c", Element::Bool)];

/// What a file has to begin with to be a graph here.
const GRAPH: &[u8] = b"graph";

fn declared(inputs: bool) -> Vec<TensorDeclaration> {
    let name = |name: &str| if inputs { name.to_owned() } else { name.to_uppercase() };
    INPUTS
        .map(|(input, element)| TensorDeclaration { name: name(input), element, shape: vec![2] })
        .into()
}

/// The inference process.
#[allow(unsafe_code)]
fn answer(memory: &SharedMemory, request: InferenceRequest) -> InferenceResponse {
    let failed =
        |id, code, message: &str| InferenceResponse::Failed { id, code, message: message.into() };
    match request {
        InferenceRequest::Open { id, model } if model == "mixed" => InferenceResponse::Opened {
            id,
            model,
            inputs: declared(true),
            outputs: declared(false),
        },
        InferenceRequest::Open { id, model } => {
            failed(id, ErrorCode::NotFound, &format!("no model {model:?}"))
        }
        InferenceRequest::Load { id, offset, length } => {
            let range = offset as usize..(offset + length) as usize;
            // SAFETY: the worker waits for this answer.
            match unsafe { memory.bytes(range) }.unwrap() {
                b"secret" => failed(id, ErrorCode::Security, "not allowed"),
                bytes if bytes.starts_with(GRAPH) => InferenceResponse::Opened {
                    id,
                    model: "own/1".into(),
                    inputs: declared(true),
                    outputs: declared(false),
                },
                _ => failed(id, ErrorCode::InvalidEncoding, "no graph"),
            }
        }
        InferenceRequest::Ask { id, .. } => InferenceResponse::Granted { id, granted: true },
        InferenceRequest::Run { id, inputs, output_offset, .. } => {
            let names: Vec<_> =
                inputs.iter().map(|input| (input.name.as_str(), input.element)).collect();
            assert_eq!(names, INPUTS, "in the model's order and types");
            let outputs = inputs.iter().enumerate().map(|(index, input)| {
                let offset = output_offset + (index * ALIGNMENT) as u64;
                let output =
                    PlacedTensor { name: input.name.to_uppercase(), offset, ..input.clone() };
                // SAFETY: the worker waits for this answer, and inputs and outputs do not overlap.
                let (from, to) = unsafe {
                    (
                        memory.bytes(input.range().unwrap()),
                        memory.bytes_mut(output.range().unwrap()),
                    )
                };
                to.unwrap().copy_from_slice(from.unwrap());
                output
            });
            InferenceResponse::Done { id, outputs: outputs.collect(), queued_ns: 0, run_ns: 0 }
        }
    }
}

fn state() -> TestInstance {
    served(answer)
}

/// A component's tensor for an input of "mixed".
fn tensor(state: &mut TestInstance, name: &str) -> (String, Resource<Tensor>) {
    let (ty, data) = match name {
        "b" => (TensorType::U8, vec![1, 255]),
        "c" => (TensorType::U8, vec![0, 1]),
        _ => (TensorType::Fp32, [1.5_f32, -2.0].map(f32::to_le_bytes).concat()),
    };
    (name.to_owned(), state.nn().new(vec![2], ty, data).unwrap())
}

fn tensors(state: &mut TestInstance, names: &[&str]) -> Vec<(String, Resource<Tensor>)> {
    names.iter().map(|name| tensor(state, name)).collect()
}

fn context(state: &mut TestInstance) -> Resource<ExecutionContext> {
    let graph = state.nn().load_by_name("mixed".into()).unwrap().unwrap();
    state.nn().init_execution_context(graph).unwrap().unwrap()
}

/// What a run of "mixed" with such inputs answers.
fn refusal(
    state: &mut TestInstance,
    inputs: Vec<(String, Resource<Tensor>)>,
) -> (errors::ErrorCode, String) {
    let context = context(state);
    let error = state.nn().compute(context, inputs).unwrap().unwrap_err();
    error_of(state, error)
}

#[test]
fn named_tensors_are_taken_in_any_order() {
    let mut state = state();
    let context = context(&mut state);
    for order in [["a", "b", "c"], ["c", "a", "b"]] {
        let inputs = tensors(&mut state, &order);
        let outputs =
            state.nn().compute(Resource::new_borrow(context.rep()), inputs).unwrap().unwrap();
        let names: Vec<_> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C"]);
        let types = outputs
            .iter()
            .map(|(_, tensor)| state.nn().ty(Resource::new_borrow(tensor.rep())).unwrap());
        assert_eq!(types.collect::<Vec<_>>(), [TensorType::Fp32, TensorType::U8, TensorType::U8]);
        let data = outputs
            .into_iter()
            .map(|(_, tensor)| HostTensor::data(&mut state.nn(), tensor).unwrap())
            .collect::<Vec<_>>();
        assert_eq!(data[1..], [vec![1, 255], vec![0, 1]]);
    }
}

#[test]
fn an_output_may_be_the_next_runs_input() {
    let mut state = state();
    let context = context(&mut state);
    let inputs = tensors(&mut state, &["a", "b", "c"]);
    let outputs = state.nn().compute(Resource::new_borrow(context.rep()), inputs).unwrap().unwrap();
    let again = outputs.into_iter().map(|(name, tensor)| (name.to_lowercase(), tensor)).collect();
    assert_eq!(state.nn().compute(context, again).unwrap().unwrap().len(), 3);
}

#[test]
fn inputs_that_do_not_fit_the_model_are_named() {
    let mut state = state();
    let mut refused = |inputs: &[&str], words: &[&str]| {
        let inputs = tensors(&mut state, inputs);
        let (code, message) = refusal(&mut state, inputs);
        assert_eq!(code, errors::ErrorCode::InvalidArgument);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(&["a", "b"], &["\"c\"", "missing"]);
    refused(&["a", "b", "c", "d"], &["\"d\"", "no input", "\"a\", \"b\", \"c\""]);
    refused(&["a", "b", "b"], &["\"b\"", "twice"]);
    refused(&[], &["\"a\"", "missing"]);
}

#[test]
fn tensors_that_do_not_fit_the_model_are_named() {
    let mut state = state();
    let mut refused = |dimensions: Vec<u32>, ty, data: Vec<u8>, words: &[&str]| {
        let mut inputs = tensors(&mut state, &["a", "b"]);
        inputs.push(("c".into(), state.nn().new(dimensions, ty, data).unwrap()));
        let (code, message) = refusal(&mut state, inputs);
        assert_eq!(code, errors::ErrorCode::InvalidArgument);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(vec![3], TensorType::U8, vec![0; 3], &["\"c\"", "[3]", "[2]"]);
    refused(vec![1, 2], TensorType::U8, vec![0; 2], &["\"c\"", "[1, 2]", "[2]"]);
    refused(vec![2], TensorType::I32, vec![0; 8], &["\"c\"", "I32", "Bool"]);
    refused(vec![2], TensorType::U8, vec![1, 2], &["\"c\"", "0 or 1"]);
}

#[test]
fn a_model_that_is_not_there_is_not_found() {
    let mut state = state();
    let error = state.nn().load_by_name("nose".into()).unwrap().unwrap_err();
    let (code, message) = error_of(&mut state, error);
    assert_eq!(code, errors::ErrorCode::NotFound);
    assert!(message.contains("\"nose\""), "{message}");
}

#[test]
fn a_graph_in_bytes_is_loaded_and_runs() {
    let mut state = state();
    let free = state.arena.largest_free();
    for encoding in [GraphEncoding::Onnx, GraphEncoding::Autodetect] {
        let graph =
            state.nn().load(vec![GRAPH.to_vec()], encoding, ExecutionTarget::Cpu).unwrap().unwrap();
        let context = state.nn().init_execution_context(graph).unwrap().unwrap();
        let inputs = tensors(&mut state, &["a", "b", "c"]);
        for (_, output) in state.nn().compute(context, inputs).unwrap().unwrap() {
            HostTensor::drop(&mut state.nn(), output).unwrap();
        }
    }
    assert_eq!(state.arena.largest_free(), free, "the graph's bytes have left the shared memory");
}

#[test]
fn a_graph_that_is_not_loaded_says_why() {
    use errors::ErrorCode as Code;
    let mut state = state();
    let mut refused = |parts: &[&[u8]], encoding, target| {
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        let error = state.nn().load(parts, encoding, target).unwrap().unwrap_err();
        error_of(&mut state, error).0
    };
    use {ExecutionTarget::*, GraphEncoding::*};
    assert_eq!(refused(&[b"secret"], Onnx, Cpu), Code::Security);
    assert_eq!(refused(&[b"garbage"], Onnx, Cpu), Code::InvalidEncoding);
    assert_eq!(refused(&[], Onnx, Cpu), Code::InvalidArgument);
    assert_eq!(refused(&[b""], Onnx, Cpu), Code::InvalidArgument);
    assert_eq!(refused(&[GRAPH, GRAPH], Autodetect, Cpu), Code::InvalidArgument);
    for other in [Openvino, Tensorflow, Pytorch, Tensorflowlite, Ggml] {
        assert_eq!(refused(&[GRAPH], other, Cpu), Code::InvalidEncoding, "{other:?}");
    }
    for other in [Gpu, Tpu] {
        assert_eq!(refused(&[GRAPH], Onnx, other), Code::UnsupportedOperation, "{other:?}");
    }
    assert_eq!(refused(&[&[0; MEMORY + 1]], Onnx, Cpu), Code::TooLarge);
    assert_eq!(counted(&state, Limit::Tensor), 1);
}

#[test]
fn what_the_inference_process_answers_keeps_its_code() {
    use ErrorCode as Ours;
    use errors::ErrorCode as Theirs;
    for (ours, theirs) in [
        (Ours::InvalidArgument, Theirs::InvalidArgument),
        (Ours::InvalidEncoding, Theirs::InvalidEncoding),
        (Ours::Timeout, Theirs::Timeout),
        (Ours::RuntimeError, Theirs::RuntimeError),
        (Ours::UnsupportedOperation, Theirs::UnsupportedOperation),
        (Ours::TooLarge, Theirs::TooLarge),
        (Ours::NotFound, Theirs::NotFound),
        (Ours::Security, Theirs::Security),
        (Ours::Unknown, Theirs::Unknown),
    ] {
        let mut state = served(move |memory, request| match request {
            InferenceRequest::Run { id, .. } => {
                InferenceResponse::Failed { id, code: ours, message: "y: NaN".into() }
            }
            other => answer(memory, other),
        });
        let inputs = tensors(&mut state, &["a", "b", "c"]);
        assert_eq!(refusal(&mut state, inputs), (theirs, "y: NaN".into()));
        assert_eq!(state.counters.snapshot().inference_failed, 1);
    }
}

#[test]
fn a_stale_run_is_a_timeout_that_names_its_setting() {
    let mut state = served(|memory, request| match request {
        InferenceRequest::Run { id, .. } => InferenceResponse::Stale { id, waited_ms: 2345 },
        other => answer(memory, other),
    });
    let inputs = tensors(&mut state, &["a", "b", "c"]);
    let (code, message) = refusal(&mut state, inputs);
    assert_eq!(code, errors::ErrorCode::Timeout);
    assert!(message.contains("2345 ms") && message.contains("inference.stale_ms"), "{message}");
    let counters = state.counters.snapshot();
    assert_eq!((counters.inference_stale, counters.inference_failed, counters.inferred), (1, 0, 0));
}

#[test]
fn an_error_is_kept_until_it_is_dropped() {
    let mut state = state();
    let error = state.nn().load_by_name("nose".into()).unwrap().unwrap_err();
    let rep = error.rep();
    errors::HostError::drop(&mut state.nn(), error).unwrap();
    assert!(state.table_mut().get(&Resource::<InferenceError>::new_borrow(rep)).is_err());
}
