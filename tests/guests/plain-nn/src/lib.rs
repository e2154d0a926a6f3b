//! A component that knows `wasi:nn` and, of this host, only what it has to export: it asks no frame
//! for anything. For its first frame it makes tensors of bytes of its own, runs a model on them,
//! and reports the outputs in an event.
//!
//! The settings say which model: `{}` for "nanodet-g-416" by name, `{"own":true}` for a graph that
//! it brings as bytes, y = x + x.

mod bindings {
    #![allow(
        missing_docs,
        unsafe_code,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::restriction
    )]

    wit_bindgen::generate!({
        path: "../../../wit/0.1",
        inline: "
            package ocelli:plain-nn;

            world plain {
                import wasi:nn/graph@0.2.0-rc-2024-10-28;
                import wasi:nn/inference@0.2.0-rc-2024-10-28;
                export ocelli:pipeline/pipeline@0.1.0;
            }
        ",
        world: "ocelli:plain-nn/plain",
        generate_all,
    });
}

use std::cell::Cell;

use bindings::exports::ocelli::pipeline::pipeline::{Description, Guest};
use bindings::ocelli::pipeline::frames::Frame;
use bindings::ocelli::pipeline::results::{Event, Output};
use bindings::wasi::nn::errors::Error;
use bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load, load_by_name};
use bindings::wasi::nn::tensor::{Tensor, TensorType};

/// The graph that it brings: an ONNX file, y = x + x for four numbers.
const DOUBLE: &[u8] = include_bytes!("double.onnx");

std::thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
    static DONE: Cell<bool> = const { Cell::new(false) };
}

struct Plain;

impl Guest for Plain {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: String::new(),
        }
    }

    fn init(settings: String) -> Result<(), String> {
        OWN.set(settings.contains("\"own\":true"));
        Ok(())
    }

    fn process(_: &Frame) -> Result<Output, String> {
        if DONE.replace(true) {
            return Ok(Output { detections: None, events: vec![] });
        }
        let data = if OWN.get() { run_own() } else { run_by_name() }.map_err(told)?;
        let event = Event { kind: "ran".into(), detections: vec![], data, attachments: vec![] };
        Ok(Output { detections: None, events: vec![event] })
    }

    fn command(_: String) -> Result<String, String> {
        Err("plain-nn answers no commands".into())
    }

    fn snapshot() -> Vec<u8> {
        vec![]
    }

    fn restore(_: String, _: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it maps errors")]
fn told(error: Error) -> String {
    format!("{:?}: {}", error.code(), error.data())
}

fn run_own() -> Result<String, Error> {
    let graph = load(&[DOUBLE.to_vec()], GraphEncoding::Onnx, ExecutionTarget::Cpu)?;
    let context = graph.init_execution_context()?;
    let x = Tensor::new(&[4], TensorType::Fp32, &bytes([0.5, -1.0, 3.0, 1e6]));
    Ok(report(&context.compute(vec![("x".into(), x)])?))
}

fn run_by_name() -> Result<String, Error> {
    const SIDE: u32 = 416;
    let context = load_by_name("nanodet-g-416")?.init_execution_context()?;
    // Bright in the middle, dark at the edges.
    let middle = SIDE as f32 / 2.0;
    let pixel = |x: u32, y: u32| {
        let (dx, dy) = (x as f32 - middle, y as f32 - middle);
        2.0 - (dx * dx + dy * dy).sqrt() / 100.0
    };
    let plane = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| pixel(x, y)));
    let input = Tensor::new(&[1, 3, SIDE, SIDE], TensorType::Fp32, &bytes(plane).repeat(3));
    Ok(report(&context.compute(vec![("input".into(), input)])?))
}

fn bytes(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Of each output its name, dimensions, and the sum of its numbers; as JSON.
fn report(outputs: &[(String, Tensor)]) -> String {
    let outputs = outputs.iter().map(|(name, tensor)| {
        let sum: f64 = tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f64::from(f32::from_le_bytes(bytes)))
            .sum();
        format!("{{\"name\":{name:?},\"dimensions\":{:?},\"sum\":{sum:.3}}}", tensor.dimensions())
    });
    format!("{{\"outputs\":[{}]}}", outputs.collect::<Vec<_>>().join(","))
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code)]
const _: () = {
    bindings::export!(Plain with_types_in bindings);
};
