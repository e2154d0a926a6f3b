//! The generated bindings of the world `camera-pipeline` in `wit`, which leads to the newest folder
//! of the repository's `wit/`. Generated code: the allowances below are for it.
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]

wit_bindgen::generate!({
    path: "wit",
    world: "camera-pipeline",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "ocelli_sdk::bindings",
});
