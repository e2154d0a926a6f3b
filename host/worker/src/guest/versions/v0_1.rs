//! `ocelli:pipeline@0.1.0` for components that were made for it: what they export. Their imports
//! are the newest version's (`older`), which also converts what `process` returns.

/// The exports. The types of `frames` are the newest version's.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi": crate::guest::newest::wasi,
            "ocelli:pipeline/frames": crate::guest::newest::frames,
        },
    });
}

pub use bindings::ocelli::pipeline::results;
pub use bindings::{CameraPipeline, CameraPipelinePre};
