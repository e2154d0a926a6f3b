//! `ocelli:pipeline@0.2.0`, the newest version: what the host's functions are written for.

/// Generated from `wit/0.2`.
#[allow(missing_docs, reason = "generated; the documentation stands in the WIT files")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi:keyvalue": crate::guest::keyvalue::bindings::wasi::keyvalue,
            "wasi:nn/tensor.tensor": crate::guest::nn::Tensor,
            "wasi:nn/graph.graph": crate::guest::nn::Graph,
            "wasi:nn/inference.graph-execution-context": crate::guest::nn::ExecutionContext,
            "wasi:nn/errors.error": crate::inference::InferenceError,
            "ocelli:pipeline/frames.frame": crate::guest::frames::FrameHandle,
            "ocelli:pipeline/frames.image": crate::guest::frames::Image,
        },
    });
}

pub use bindings::exports::ocelli::pipeline::pipeline as exported;
pub use bindings::ocelli::pipeline::{boxes, frames, results};
pub use bindings::{CameraPipeline, CameraPipelinePre, wasi};

use wasmtime::component::{HasSelf, Linker};

use crate::guest::state::InstanceState;

/// Defines this version's own interfaces. `results` has types alone, for which a component needs
/// nothing in its linker.
pub(super) fn add_to_linker(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    frames::add_to_linker::<InstanceState, HasSelf<InstanceState>>(linker, |state| state)?;
    boxes::add_to_linker::<InstanceState, HasSelf<InstanceState>>(linker, |state| state)
}
