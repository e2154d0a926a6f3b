//! `./x bench`: what the isolation of Ocelli costs, measured beside a *bare loop*.
//!
//! The bare loop ([`bare`]) is one native process without any isolation: the worker's decoder and
//! resampler, the same ONNX Runtime with the same options, and the default pipeline's own boxes,
//! suppression and tracks as native code. The driver ([`phases`]) lets it and the whole chain work
//! in turn, several times in one run, because a machine that others use, too, is a different
//! machine a minute later: what is compared was measured side by side.
//!
//! CPU time is user and system time of processes as the kernel counts it, so waiting for a core
//! costs nothing. The cameras' server and the driver, which is the subscriber as well, belong to
//! neither side.
//!
//! ```text
//! cost      bare loop x 2 | host + 2 workers + inference on files | again ...   CPU per result, ratio
//! live      N RTSP cameras: results a second, CPU, memory, latency of each station
//! twenty    20 RTSP cameras at a low rate: the host's own CPU | 20 idle workers: PSS by mapping
//! growth    1, 2, 5, 10, 20, 40 cameras: CPU, memory, latency, threads, descriptors; the cost of one more
//! readers   4 cameras of 576 and of 1080 lines with each reader, 20 with the compatible one: CPU, memory
//! isolation one run of the model: in this process | in a child process | again ...            p50, difference
//! embed     faces to vectors over HTTP: bare runs of the models | 250 pictures | again ... | 16 at once
//! fairness  9 cameras at 2 results a second: alone | beside a session that floods the inference process | again ...
//! joining   subscribe to first result: running camera, cold camera, file
//! fanout    1000 subscribers at 10 messages a second: results, with some that never read, compressed, events
//! sinks     a backlog and a steady rate to Redis, MQTT and a webhook beside bare clients: events a second, CPU, lag
//! site      8 cameras: alone | in a site of one server of each engine | of three: CPU, memory, events' latency
//! takeover  30 RTSP cameras on 10 hosts: a host is killed | frozen | again ...   seconds to events and detections elsewhere
//! tracking  boxes and tracks against a ground truth: a file, cameras at full and at lower rates, a still scene
//! page      the dashboard in a browser: joining, latency by rung, CPU a picture, walls of 1, 4 and 20
//! peers     4, 8 and 20 cameras: Ocelli | each script of a folder that is given | again ...   results a second, CPU, memory, start
//! recovery  SIGKILL of a worker, of the inference process: to the next result
//! ```
//!
//! Nothing here asserts a time; a machine that cannot run a part is an error that says so.

pub mod bare;
pub mod bare_models;
pub mod cameras;
pub mod chain;
pub mod child;
pub mod listeners;
pub mod machine;
pub mod paths;
pub mod phases;
pub mod report;
pub mod statistics;
pub mod subscriber;
pub mod table;
pub mod tracking;
