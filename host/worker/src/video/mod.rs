//! From access units to pictures, and from pictures to the tensors that models take.
//!
//! [`still`] decodes a JPEG or PNG file. [`Stream`] decodes one source's access units, numbers the
//! pictures and leaves out what the decode setting excludes. A [`Picture`] stays in the decoder's
//! own memory: it is handed to another thread without being copied. A [`Resampler`] brings a region
//! of it to a tensor, plane by plane; only the pixels of the result are ever converted to RGB.

mod canvas;
mod colour;
mod damage;
mod decoder;
mod device;
mod encode;
mod flow;
mod font;
mod grey;
mod motion;
mod numbering;
mod orientation;
mod picture;
mod region;
mod spec;
mod still;
mod stream;
mod tensor;
mod warp;
mod watch;

#[cfg(test)]
pub(crate) mod clips;
#[cfg(test)]
mod paired_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod still_tests;
#[cfg(test)]
mod tests;

pub use canvas::Canvas;
pub use decoder::{Decoded, Decoder, DecoderError, MAX_PIXELS};
pub use device::Device;
pub use encode::{Jpeg, ShownBox, jpeg, jpeg_shown, jpeg_within, write_png};
pub use flow::Point;
pub use motion::Motion;
pub use numbering::Numbering;
pub use picture::{Matrix, Picture, Plane, Unreadable};
pub use spec::{
    Affine, Channels, Element, Fit, FrameError, Layout, MAX_SIDE, Placement, TensorSpec,
};
pub use still::{StillError, still};
pub use stream::{Frame, Stream};
pub use tensor::{MAX_LUMA_SIDE, Resampler};
pub use warp::warp;
pub use watch::Watch;
