//! The generated bindings of the world `camera-pipeline` in `wit`, which leads to the newest folder
//! of the repository's `wit/`. Generated code: the allowances below are for it.
//!
//! Natively there is no host behind an import. There the interfaces of frames and tensors, through
//! which all else goes, are those of `native`, so that `process` can be called in a test.
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]

#[cfg(target_family = "wasm")]
wit_bindgen::generate!({
    path: "wit",
    world: "camera-pipeline",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "ocelli_sdk::bindings",
});

#[cfg(not(target_family = "wasm"))]
wit_bindgen::generate!({
    path: "wit",
    world: "camera-pipeline",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "ocelli_sdk::bindings",
    with: {
        "ocelli:pipeline/frames@0.3.0": crate::native::frames,
        "wasi:nn/tensor@0.2.0-rc-2024-10-28": crate::native::tensor,
    },
});

/// The records of the two interfaces that are not generated above.
#[cfg(not(target_family = "wasm"))]
pub(crate) mod records {
    wit_bindgen::generate!({
        path: "wit",
        inline: r#"
            package ocelli:native;

            world records {
                import ocelli:pipeline/frames@0.3.0;
            }
        "#,
        generate_all,
    });
}
