//! More memory than there is: on the heap, on the stack, on the host's side.

use std::hint::black_box;

use ocelli_sdk::{Frame, Output, Tensor, TensorSpec, TensorType};

/// 2^20: squared it makes 2^40 elements.
const EDGE: u32 = 1 << 20;

/// Allocates megabyte by megabyte until an allocation fails, which ends the component.
pub(crate) fn fill() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    while !black_box(false) {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

/// Calls itself. What the caller does with the answer keeps the optimiser from making a loop of it.
#[inline(never)]
pub(crate) fn recurse(depth: u64) {
    if !black_box(false) {
        recurse(depth + 1);
    }
    black_box(depth);
}

/// As [`recurse`], with a page of variables that are used after the call.
#[inline(never)]
pub(crate) fn recurse_with_large_frames(depth: u64) {
    let page = black_box([depth; 512]);
    if !black_box(false) {
        recurse_with_large_frames(depth + 1);
    }
    black_box(page);
}

/// Asks the host for a picture of 2^40 pixels, and passes on what it says.
pub(crate) fn ask_for_a_huge_tensor(frame: &Frame) -> Result<Output, String> {
    let asked = frame.tensor(None, TensorSpec::letterbox(EDGE, EDGE));
    Err(asked
        .err()
        .map_or("the host gave a tensor of 2^40 pixels".into(), |error| error.to_string()))
}

/// Says that four bytes are 2^40 numbers.
pub(crate) fn claim_a_huge_tensor() {
    black_box(Tensor::new(&[EDGE, EDGE], TensorType::Fp32, &[0; 4]));
}

/// Asks the host for 2^64 - 1 random bytes, which it would have to hold before it copies them here.
pub(crate) fn ask_for_huge_random() {
    #[cfg(target_family = "wasm")]
    black_box(wasip2::random::random::get_random_bytes(u64::MAX));
}
