//! Handles that are none, and handles that are never given back.

use std::hint::black_box;

use ocelli_sdk::{Frame, Image, Rect, Tensor, TensorSpec};

/// Higher than any handle that the host has given.
const UNKNOWN: u32 = 123_456;

/// Tensors kept of each frame.
const TENSORS: usize = 1000;

/// Encoded pictures kept of each frame.
const IMAGES: usize = 8;

/// What was never given back.
#[derive(Default)]
pub(crate) struct HeldHandles {
    tensors: Vec<Tensor>,
    images: Vec<Image>,
}

impl HeldHandles {
    /// Keeps a thousand small tensors more.
    pub(crate) fn keep_tensors(&mut self, frame: &Frame) -> Result<(), String> {
        for _ in 0..TENSORS {
            self.tensors.push(small_tensor(frame)?);
        }
        Ok(())
    }

    /// Keeps eight encoded pictures of the whole frame more, as large as they get.
    pub(crate) fn keep_images(&mut self, frame: &Frame) -> Result<(), String> {
        for _ in 0..IMAGES {
            self.images.push(frame.image(None, 100).map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}

/// Three numbers, made of a corner of the frame.
fn small_tensor(frame: &Frame) -> Result<Tensor, String> {
    let corner = Rect { x: 0.0, y: 0.0, width: 8.0, height: 8.0 };
    let made = frame.tensor(Some(corner), TensorSpec::letterbox(1, 1));
    made.map(|(tensor, _)| tensor).map_err(|error| error.to_string())
}

/// Asks for the shape of a tensor that never was.
pub(crate) fn use_unknown() {
    ask(UNKNOWN);
}

/// Asks for the shape of a tensor that was dropped.
pub(crate) fn use_dropped(frame: &Frame) -> Result<(), String> {
    let tensor = small_tensor(frame)?;
    let handle = tensor.handle();
    drop(tensor);
    ask(handle);
    Ok(())
}

#[allow(unsafe_code)]
fn ask(handle: u32) {
    // SAFETY: a handle is a number that the host looks up. This one it does not know, which is what
    // the test is about: the component is ended in the call, before anything here could rely on an
    // answer.
    let tensor = unsafe { Tensor::from_handle(handle) };
    black_box(tensor.dimensions());
}
