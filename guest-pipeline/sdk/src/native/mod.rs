//! The host's part of the contract, natively: frames, tensors and models that a test scripts.
//! `testing` is the door to it; in a component nothing of it is there.
//!
//! Resources have methods here that only generated code calls, and only in a component:
//! `from_handle` and the like.

pub mod boxes;
pub(crate) mod budget;
pub mod frames;
pub mod model;
pub mod tensor;
