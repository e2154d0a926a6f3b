//! `ocelli:pipeline@0.3.0`, the newest version: what the host's functions are written for.

/// Generated from `wit/0.3`.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.3",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi:keyvalue": crate::guest::keyvalue::bindings::wasi::keyvalue,
            "wasi:nn/tensor.tensor": crate::guest::tensor::Tensor,
            "wasi:nn/graph.graph": crate::guest::resources::Graph,
            "wasi:nn/inference.graph-execution-context": crate::guest::resources::ExecutionContext,
            "wasi:nn/errors.error": crate::inference::InferenceError,
            "ocelli:pipeline/frames.frame": crate::guest::resources::FrameHandle,
            "ocelli:pipeline/frames.image": crate::guest::resources::Image,
        },
    });
}

pub use bindings::ocelli::pipeline::{boxes, budget, frames, models, results};
pub use bindings::{CameraPipeline, CameraPipelinePre, wasi};
