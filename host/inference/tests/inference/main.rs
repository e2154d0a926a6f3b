//! The inference process and its engine with the real ONNX Runtime.
//!
//! One program of many modules. nextest gives each test a process of its own: ONNX Runtime is
//! loaded once in a process, and never by two ways.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

mod support;

mod batch;
mod engine;
mod models;
mod private;
mod process;
mod rogue;
mod service;
mod tensors;
