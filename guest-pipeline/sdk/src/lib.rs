//! The SDK for pipelines in Rust.
//!
//! A pipeline is a WebAssembly component that looks at one camera. The host decodes the stream,
//! calls [`Pipeline::process`] for each frame that it gives to the pipeline, and sends on what
//! comes back. Pixels stay with the host: a pipeline asks a [`Frame`] for the tensor that its model
//! takes and gets a handle, runs a model on it with [`nn::Model`], and reads only the model's
//! outputs.
//!
//! Implement [`Pipeline`] and name the type in [`export_pipeline!`]:
//!
//! ```
//! use ocelli_sdk::{Description, Event, Frame, Output, Pipeline, export_pipeline, settings};
//!
//! /// Tells when the picture turns dark.
//! struct Darkness {
//!     below: u8,
//!     dark: bool,
//! }
//!
//! settings! {
//!     /// Settings of darkness.
//!     struct Settings {
//!         /// Mean grey below which a picture is dark.
//!         below: u8 = 40;
//!     }
//! }
//!
//! impl Pipeline for Darkness {
//!     fn describe() -> Description {
//!         Description {
//!             name: "darkness".into(),
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             models: vec![],
//!             settings_schema: settings::schema::<Settings>().to_string(),
//!         }
//!     }
//!
//!     fn new(json: &str) -> Result<Self, String> {
//!         let Settings { below } = settings::read(json)?;
//!         Ok(Self { below, dark: false })
//!     }
//!
//!     fn process(&mut self, frame: &Frame) -> Result<Output, String> {
//!         let grey = frame.luma(32, 32).map_err(|e| e.to_string())?;
//!         let mean = grey.iter().map(|&p| u64::from(p)).sum::<u64>() / grey.len().max(1) as u64;
//!         let dark = mean < u64::from(self.below);
//!         let turned = !std::mem::replace(&mut self.dark, dark) && dark;
//!         let events = if turned { vec![Event::new("dark")] } else { vec![] };
//!         Ok(Output::skipped().with_events(events))
//!     }
//! }
//!
//! export_pipeline!(Darkness);
//! # fn main() {}
//! ```
//!
//! The crate is a library of type `cdylib`, built with `cargo build --target wasm32-wasip2`. One
//! instance of a component serves one camera, on one thread, for as long as the deployment lives; a
//! trap (a panic too) ends the instance, so what a camera can cause is answered with an error,
//! which the host counts and shows.
//!
//! # What is here
//!
//! | module | for |
//! | --- | --- |
//! | [`nn`] | models by name, their outputs as numbers |
//! | [`detect`], [`models`] | boxes of any detector whose model describes itself |
//! | [`letterbox`], [`geometry`] | from the tensor's pixels to the frame's |
//! | [`nms`] | score filter over a model's class scores, non-maximum suppression |
//! | [`budget`] | whether a model may run for this frame |
//! | [`boxes`] | the same done by the host, which copies only the rows that matter |
//! | [`nanodet`], [`labels`] | boxes of the NanoDet detectors, the COCO labels |
//! | [`centerface`], [`align`], [`faceres`] | faces with landmarks, faces in one position, what a face says |
//! | [`embedding`], [`classifier`] | vectors of length 1 and their likeness, the best classes |
//! | [`track`] | ByteTrack: the same number for the same object from frame to frame |
//! | [`assign`] | pairs of two lists with the largest sum of gains |
//! | [`zones`], [`lines`] | who is in which part of the picture since when, who crosses a line |
//! | [`counts`] | how many entered and left, kept across restarts |
//! | [`events`] | a queue that spreads events over frames |
//! | [`rate_limiter`] | how many frames a second are looked at |
//! | [`settings`] | settings declared once: type, default, limits, schema |
//! | [`store`] | what has to outlive a restart: the session's own keys and values |
//! | [`log`] | the camera's log |
//! | `testing` | with this feature: scripted frames and models for tests of `process` |
//! | [`bindings`] | the generated interface, for what the above does not cover |
//!
//! A component imports of the host only what its code uses.
//!
//! Everything compiles natively too, and can be tested so: frames, models, log and store have a
//! stand-in there.

#![warn(missing_docs)]

/// The pieces of the page that goes through the SDK by tasks are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sdk.md")]
struct Tour;

pub mod align;
pub mod assign;
pub mod bindings;
pub mod boxes;
pub mod budget;
pub mod centerface;
pub mod classifier;
pub mod counts;
pub mod detect;
pub mod embedding;
pub mod events;
pub mod faceres;
pub mod geometry;
mod glue;
pub mod labels;
mod lanes;
pub mod letterbox;
pub mod lines;
pub mod log;
pub mod models;
pub mod nanodet;
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
pub mod native;
pub mod nms;
pub mod nn;
mod pipeline;
pub mod rate_limiter;
pub mod settings;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod track;
mod types;
pub mod zones;

pub use bindings::exports::ocelli::pipeline::pipeline::{Description, ModelNeed};
#[cfg(target_family = "wasm")]
pub use bindings::ocelli::pipeline::frames::{
    Affine, Channels, Element, Fit, Frame, FrameError, Image, Layout, Motion, Placement, Point,
    Rect, TensorSpec,
};
pub use bindings::ocelli::pipeline::results::{Attribute, Basis, Detection, Event, Output, Source};
#[cfg(target_family = "wasm")]
pub use bindings::wasi::nn::tensor::{Tensor, TensorType};
pub use letterbox::Letterbox;
#[cfg(not(target_family = "wasm"))]
pub use native::frames::{
    Affine, Channels, Element, Fit, Frame, FrameError, Image, Layout, Motion, Placement, Point,
    Rect, TensorSpec,
};
#[cfg(not(target_family = "wasm"))]
pub use native::tensor::{Tensor, TensorType};
pub use pipeline::Pipeline;

/// What [`export_pipeline!`] and [`settings!`] expand to; not for direct use.
#[doc(hidden)]
pub mod __private {
    pub use crate::glue::InstanceSlot;
    pub use {serde, serde_json};
}
