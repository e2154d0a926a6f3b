//! What the pipeline keeps from frame to frame: counts in zones, and snapshots.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

mod counting;
mod snapshots;
