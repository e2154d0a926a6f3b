//! `ocelli:pipeline@0.2.0` for components that were made for it: what they export. Their imports
//! are the newest version's (`older`), which also converts what `process` returns.

/// The exports. The types of `results` are 0.1's, of the others the newest version's.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2",
        world: "camera-pipeline",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi": crate::guest::newest::wasi,
            "ocelli:pipeline/boxes": crate::guest::newest::boxes,
            "ocelli:pipeline/frames": crate::guest::newest::frames,
            "ocelli:pipeline/results": crate::guest::versions::v0_1::results,
        },
    });
}

pub use bindings::{CameraPipeline, CameraPipelinePre};
