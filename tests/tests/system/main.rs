//! The whole system: the real programs, a real RTSP server, real clips and the real model. Each
//! test is named after what it promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

mod analyze;
mod attackers;
mod author;
mod backup;
mod bad_sources;
mod budget;
mod cameras;
mod cameras_file;
mod chart;
mod client;
mod clients;
mod clips;
mod cluster;
mod compile;
mod contamination;
mod damaged;
mod decode_device;
mod delivery;
mod demo;
mod deploy;
mod digests;
mod documents;
mod faces;
mod families;
mod faults;
mod files;
mod folders;
mod hostile;
mod inference;
mod insight;
mod isolation;
mod libraries;
mod manager;
mod metrics;
mod models;
mod monitoring;
mod mqtt;
mod objects;
mod operator;
mod probe;
mod projects;
mod proxies;
mod readers;
mod recordings;
mod recovery;
mod redis;
mod reload;
mod rogues;
mod rollouts;
mod sandbox;
mod start;
mod storage;
mod streams;
mod subscribers;
mod substream;
mod terminal;
mod traces;
mod webhooks;

/// The table of a camera in a config. `more` are further lines.
fn camera(id: &str, source: &str, more: &str) -> String {
    format!("[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = \"object-detect\"\n{more}\n")
}

/// Settings of a camera that is to cost little: 4 results a second.
const SLOW: &str = "settings = { max_results_per_second = 4 }";
