//! The dashboard in a real browser: Debian's headless Chromium, a running host, real RTSP cameras.
//! Each test is named after what it promises, and has a host and a browser of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

mod access;
mod adding;
mod clips;
mod deploy;
mod harness;
mod jpeg;
mod login;
mod many;
mod network;
mod pictures;
mod recover;
mod seen;
mod sinks;
mod site;
mod tokens;
mod zones;
