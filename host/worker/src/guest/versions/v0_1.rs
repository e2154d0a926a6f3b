//! `ocelli:pipeline@0.1.0` for components that were made for it: what they export. Their imports
//! are the newest version's (`older`).

/// The exports, with the newest version's types.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi": crate::guest::newest::wasi,
            "ocelli:pipeline/frames": crate::guest::newest::frames,
            "ocelli:pipeline/results": crate::guest::newest::results,
        },
    });
}

pub use bindings::{CameraPipeline, CameraPipelinePre};
