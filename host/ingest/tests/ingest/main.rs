//! The reader process as the host starts it: with its descriptors, and confined.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod camera;
mod cameras;
mod confinement;
mod damage;
mod files;
mod process;
