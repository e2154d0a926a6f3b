//! Tests of a pipeline, natively, in `cargo test`: [`frames`](frames()) are scripted, [`model`]s
//! say what the test has them say, and a [`Session`] calls the pipeline as the host does.
//!
//! ```
//! use ocelli_sdk::{Description, Frame, Output, Pipeline};
//! use ocelli_sdk::nn::Model;
//! # use ocelli_sdk::{Detection, TensorSpec, geometry::BBox};
//! use ocelli_sdk::testing::{self, Session};
//!
//! struct Finder {
//!     model: Model,
//! }
//!
//! impl Pipeline for Finder {
//!     fn describe() -> Description {
//! #       Description { name: "finder".into(), version: "0.1.0".into(), models: vec![],
//! #           settings_schema: String::new() } }
//! #   #[cfg(any())]
//! #   fn elided() {
//!         // ...
//!     }
//!
//!     fn new(_: &str) -> Result<Self, String> {
//!         Ok(Self { model: Model::load("finder")? })
//!     }
//!
//!     fn process(&mut self, frame: &Frame) -> Result<Output, String> {
//!         let spec = TensorSpec::letterbox(64, 64);
//!         let (tensor, _) = frame.tensor(None, spec).map_err(|error| error.to_string())?;
//!         let outputs = self.model.run([("input", tensor)])?;
//!         let score = outputs.floats("score")?.values()[0];
//!         let found = (score > 0.5).then(|| Detection::new("thing", score, BBox::default()));
//!         Ok(Output::found(found.into_iter().collect()))
//!     }
//! }
//!
//! // The model says that there is something, the more the longer.
//! let runs = [0.2, 0.4, 0.6].map(|score| vec![testing::floats("score", &[1], &[score])]);
//! testing::model_says("finder", runs);
//! let mut session = Session::<Finder>::start("{}")?;
//! let mut found = vec![];
//! for frame in testing::frames(640, 480, 10.0).take(3) {
//!     found.push(session.process(&frame)?.detections.unwrap_or_default().len());
//! }
//! assert_eq!(found, [0, 0, 1]);
//! # Ok::<(), String>(())
//! ```
//!
//! Models, log and [store](crate::store) are those of the thread, and a test has a thread of its
//! own.

mod detector;
mod schema;
mod session;

use std::cell::Cell;
use std::time::Duration;

pub use crate::native::model::{NamedTensor, describe as describe_model, script as model};
pub use detector::nanodet_outputs;
pub use schema::Schema;
pub use session::Session;

use crate::{Frame, Tensor, TensorType};

/// Grey frames of a camera, without end, at so many a second: their numbers and times are those of
/// a stream without a gap. [`Frame::of_rgb`] makes one with a picture.
pub fn frames(width: u32, height: u32, per_second: f64) -> impl Iterator<Item = Frame> {
    let grey = Frame::solid(width, height, [128; 3]);
    let at = move |n: u32| {
        let time = Duration::from_secs_f64(f64::from(n) / per_second);
        grey.clone().at(n.into(), time)
    };
    (0..).map(at)
}

/// An output of numbers, with its name. `shape` is the size of each dimension.
///
/// # Panics
/// Another number of values than the shape has.
#[must_use]
pub fn floats(name: &str, shape: &[u32], values: &[f32]) -> NamedTensor {
    let count: u64 = shape.iter().map(|&side| u64::from(side)).product();
    assert!(values.len() as u64 == count, "{} values are not {shape:?}", values.len());
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name.to_owned(), Tensor::new(shape, TensorType::Fp32, &bytes))
}

/// Makes a model whose runs have these outputs, one after the other. A run after the last is an
/// error. [`model`] makes one that looks at its inputs.
pub fn model_says(name: &str, runs: impl IntoIterator<Item = Vec<NamedTensor>>) {
    let runs: Vec<_> = runs.into_iter().collect();
    let next = Cell::new(0);
    model(name, move |_| {
        let number = next.replace(next.get() + 1);
        let ended = || format!("the test has outputs for {} runs, and this is another", runs.len());
        runs.get(number).cloned().ok_or_else(ended)
    });
}

/// The next answers to [`budget::ask`](crate::budget::ask). After the last one, and without any, it
/// is yes, as with a file.
pub fn budget_says(answers: impl IntoIterator<Item = bool>) {
    crate::native::budget::say(answers);
}

/// What was wanted by each [`budget::ask`](crate::budget::ask) since this was called last.
#[must_use]
pub fn budget_asked() -> Vec<f32> {
    crate::native::budget::asked()
}

#[cfg(test)]
mod tests;
