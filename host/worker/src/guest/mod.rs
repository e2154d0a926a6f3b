//! The guest component: its bindings, what it may import, and one instance of it in its store.

#[cfg(test)]
pub(crate) mod components;
pub mod deadline;
pub mod frames;
pub mod instance;
#[cfg(test)]
mod limit_tests;
pub mod limits;
pub mod log;
pub mod nn;
#[cfg(test)]
mod nn_tests;
pub mod output;
pub mod state;
pub mod support;
#[cfg(test)]
mod tests;

/// Generated from the world in `wit/0.1`.
#[allow(missing_docs, reason = "generated; the documentation stands in the WIT files")]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi:nn/tensor.tensor": crate::guest::nn::Tensor,
            "wasi:nn/graph.graph": crate::guest::nn::Graph,
            "wasi:nn/inference.graph-execution-context": crate::guest::nn::ExecutionContext,
            "wasi:nn/errors.error": crate::inference::InferenceError,
            "ocelli:pipeline/frames.frame": crate::guest::frames::FrameHandle,
            "ocelli:pipeline/frames.image": crate::guest::frames::Image,
        },
    });
}
