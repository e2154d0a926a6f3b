//! The host by what it shows to others: its HTTP and WebSocket API, its config and command line,
//! the sources that it reads.
//!
//! One program of many modules, since each program links the whole host. nextest gives each test a
//! process of its own, which tests that set a process-wide default or read the log count on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

#[macro_use]
mod support;

mod api_access;
mod api_analyze;
mod api_deployments;
mod api_server;
mod api_site;
mod api_tls;
mod api_websocket;
mod config_cli;
mod config_load;
mod source_attacks;
mod source_file;
mod source_odd_cameras;
mod source_reader;
mod source_rtsp;
