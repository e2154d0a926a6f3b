//! What the tests of all crates are made with. It knows no crate of the product but the public client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

pub mod skip;
