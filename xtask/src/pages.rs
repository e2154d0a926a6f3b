//! Holds the pages to the code: figures, names, links, files that they name, and the width of their
//! lines.

mod names;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Columns of a line.
const WIDTH: usize = 100;

const REFERENCE: &str = "docs/operator-reference.md";
const GUIDE: &str = "docs/operator-guide.md";
const SUBSCRIBER: &str = "docs/subscriber.md";
const AUTHOR: &str = "docs/pipeline-author.md";
const CAMERAS: &str = "docs/cameras.md";
const BUILT_IN: &str = "docs/built-in-pipelines.md";
const RUNBOOK: &str = "docs/runbook.md";
const SIZING: &str = "docs/sizing.md";
const SECURITY: &str = "docs/security.md";

/// Page, a phrase of it, and the place of the figure. In the phrase `{}` stands for the
/// figure, `{KiB}`, `{MiB}`, `{ms}` and `{s}` for it in that unit. The place is a constant in the
/// files whose path begins so (`PATH NAME`), a field of one (`PATH NAME.FIELD`), another field
/// (`PATH .FIELD`), or a default of `config/ocelli.schema.json` (`= SECTION.KEY`).
const FIGURES: &[(&str, &str, &str)] = &[
    (SUBSCRIBER, "up to {} sessions by name", "host/src/api/socket.rs SUBSCRIPTIONS"),
    (SUBSCRIBER, "more than {} sessions", "host/src/api/socket.rs SUBSCRIPTIONS"),
    (SUBSCRIBER, "messages under {} bytes", "host/src/api/websocket/deflate.rs SHORTEST"),
    (SUBSCRIBER, "or over {MiB} MiB uncompressed", "host/src/api/websocket/deflate.rs LONGEST"),
    (SUBSCRIBER, "printable text of up to {} bytes", "host/src/config/check.rs MAX_ID_BYTES"),
    (SUBSCRIBER, "A message has at most {KiB} KiB", "host/src/api/message.rs MAX_MESSAGE"),
    (SUBSCRIBER, "over {KiB} KiB; over 128 KiB, as sent", "host/src/api/message.rs MAX_MESSAGE"),
    (
        SUBSCRIBER,
        "requests ({MiB} MiB of them) and 16 queries",
        "host/src/api/socket.rs REQUEST_BYTES",
    ),
    (SUBSCRIBER, "of them) and {} queries and commands", "host/src/api/ask.rs ASKED"),
    (SUBSCRIBER, "audit log has it. {} queries and commands", "host/src/api/ask.rs ASKED"),
    (SUBSCRIBER, "each may stand up to {} times", "host/src/api/filter.rs VALUES"),
    (SUBSCRIBER, "or after {} steps", "host/src/journal/events/search.rs SEEKS"),
    (SUBSCRIBER, "may send {} messages a second", "host/src/api/socket.rs FRAMES.per_second"),
    (SUBSCRIBER, "in bursts of up to {},", "host/src/api/socket.rs FRAMES.burst"),
    (SUBSCRIBER, "beyond {} a second (bursts", "host/src/api/socket.rs FLOOD.per_second"),
    (SUBSCRIBER, "a second (bursts of {})", "host/src/api/socket.rs FLOOD.burst"),
    (SUBSCRIBER, "over {} messages a second: some", "host/src/api/socket.rs FRAMES.per_second"),
    (SUBSCRIBER, "over {} messages a second |", "host/src/api/socket.rs FLOOD.per_second"),
    (SUBSCRIBER, "`subscriptions.grace_s` ({} s by default)", "= subscriptions.grace_s"),
    (SUBSCRIBER, "up to {} of a session wait for it", "host/src/event/queue.rs MAX_DETECTIONS"),
    (SUBSCRIBER, "(and up to {MiB} MiB over all", "host/src/event/queue.rs MAX_BYTES"),
    (SUBSCRIBER, "beyond {} waiting ones", "host/src/event/queue.rs MAX_EVENTS"),
    (SUBSCRIBER, "if more than {} of them", "host/src/event/queue.rs MAX_ANSWERS"),
    (SUBSCRIBER, "no answer of the pipeline within {s} s", "host/src/session ANSWER_TIMEOUT"),
    (SUBSCRIBER, "The host pings every {s} s", "host/src/api/state.rs .ping"),
    (SUBSCRIBER, "that has sent nothing for {s} s", "host/src/api/state.rs .silence"),
    (SUBSCRIBER, "has taken no message for {s} s", "host/src/api/state.rs .send"),
    (SUBSCRIBER, "together are limited to {}", "host/src/api/mod.rs MAX_SOCKETS"),
    (SUBSCRIBER, "about `stream_length` events ({} by default)", "= redis.stream_length"),
    (SUBSCRIBER, "half of the host's {MiB} MiB", "host/src/analyze IMAGE_MEMORY"),
    (SUBSCRIBER, "`limit` is 1 to {}, by default", "host/src/api/events.rs MAX_LISTED"),
    (SUBSCRIBER, "by default {}; `from` and `to`", "host/src/api/events.rs LISTED"),
    (
        SUBSCRIBER,
        "A page ends earlier at {MiB} MiB",
        "host/src/journal/events/reader.rs PAGE_BYTES",
    ),
    (GUIDE, "- `reserve_mb` ({}, at most", "= events.reserve_mb"),
    (GUIDE, "`batch_size` or {KiB} KiB at most", "host/src/sink/webhook/mod.rs MAX_BODY"),
    (GUIDE, "Of an answer {KiB} KiB are read", "host/src/sink/webhook/mod.rs MAX_ANSWER"),
    (GUIDE, "later after up to {s} s. `Retry", "host/src/sink/webhook/mod.rs WAITS.longest"),
    (GUIDE, "At most {} traces wait", "host/src/telemetry/otlp/mod.rs MAX_WAITING"),
    (GUIDE, "took longer than | {s} s to connect", "host/src/registry/http.rs CONNECT"),
    (GUIDE, "{s} s to find the component", "host/src/registry/http.rs ANSWER"),
    (GUIDE, "component, {s} s to fetch it", "host/src/registry/http.rs TRANSFER"),
    (GUIDE, "at most {} % of the disk)", "host/src/journal/events/room.rs RESERVE_PERCENT"),
    (SUBSCRIBER, "after {} examined events", "host/src/journal/events/reader.rs LOOKED_AT"),
    (SUBSCRIBER, "the newest first, by default {}, at", "host/src/api/deployments.rs LISTED"),
    (SUBSCRIBER, "by default 20, at most {}.", "host/src/api/deployments.rs MAX_LISTED"),
    (SUBSCRIBER, "in the history: up to {} characters", "host/src/api/deployments.rs MAX_NAME"),
    (SUBSCRIBER, "`invalid_shadow` | more than {} frames", "host/src/session MAX_SHADOW"),
    (SUBSCRIBER, "took longer than {s} s to arrive", "host/src/api/deployments.rs UPLOAD"),
    (AUTHOR, "a session may bring {} models", "host/protocol/src/inference.rs MAX_OWN_MODELS"),
    (AUTHOR, "a batch of 1 to {} regions", "host/worker/src/guest/frames.rs MAX_REGIONS"),
    (AUTHOR, "the largest first, at most {},", "host/worker/src/video/motion MAX_REGIONS"),
    (AUTHOR, "At most {} points", "host/worker/src/guest/frames.rs MAX_POINTS"),
    (AUTHOR, "as bytes, at most {} x 640", "host/worker/src/video/tensor.rs MAX_LUMA_SIDE"),
    (AUTHOR, "A spec's sides are 1 to {} pixels", "host/worker/src/video/spec.rs MAX_SIDE"),
    (AUTHOR, "At most {MiB} MiB. - `restore", "host/protocol/src/wire.rs MAX_PAYLOAD"),
    (AUTHOR, "at most `limit` (up to {})", "host/worker/src/guest/boxes.rs MAX_BOXES"),
    (AUTHOR, "rows and {} numbers", "host/worker/src/guest/boxes.rs MAX_GIVEN"),
    (AUTHOR, "keys, {} buckets with names", "host/protocol/src/limit.rs MAX_STORE_BUCKETS"),
    (AUTHOR, "with names of up to {} bytes", "host/protocol/src/limit.rs MAX_STORE_BUCKET"),
    (AUTHOR, "keys of up to {} bytes", "host/protocol/src/limit.rs MAX_STORE_KEY"),
    (AUTHOR, "`list-keys` gives {} keys", "host/worker/src/kv_store PAGE"),
    (AUTHOR, "A key has at most {} bytes", "host/protocol/src/redis_bridge MAX_KEY"),
    (AUTHOR, "a value {MiB} MiB; one call", "host/protocol/src/redis_bridge MAX_VALUE"),
    (AUTHOR, "one call takes {} keys", "host/protocol/src/redis_bridge MAX_KEYS"),
    (AUTHOR, "keys and {MiB} MiB. - `list", "host/protocol/src/redis_bridge MAX_BYTES"),
    (AUTHOR, "in steps of {}: a page", "host/src/redis/keyvalue.rs SCANNED"),
    (AUTHOR, "`deploy.first_frame_ms` ({s} s)", "= deploy.first_frame_ms"),
    (AUTHOR, "`deploy.swap_timeout_ms` ({s} s)", "= deploy.swap_timeout_ms"),
    (
        AUTHOR,
        "More than {KiB} KiB, 8192 schemas",
        "guest-pipeline/sdk/settings/src/lib.rs MAX_SCHEMA",
    ),
    (
        AUTHOR,
        "{} schemas within, 256 patterns",
        "guest-pipeline/sdk/settings/src/compile.rs MAX_NODES",
    ),
    (AUTHOR, "within, {} patterns", "guest-pipeline/sdk/settings/src/compile.rs MAX_PATTERNS"),
    (AUTHOR, "A message is cut at {KiB} KiB", "host/protocol/src/limit.rs MAX_LINE"),
    (AUTHOR, "main log, at most {} in a minute", "host/src/telemetry/files.rs GUEST_LINES_IN_MAIN"),
    (AUTHOR, "tensor_memory_mb`, {} MiB", "= resource_limits.tensor_memory_mb"),
    (AUTHOR, "`guest_memory_mb`, {} MiB", "= resource_limits.guest_memory_mb"),
    (AUTHOR, "| table elements | {} |", "host/worker/src/guest/limits.rs MAX_TABLE_ELEMENTS"),
    (AUTHOR, "| instances, tables | {} each", "host/worker/src/guest/limits.rs MAX_INSTANCES"),
    (AUTHOR, "`call_cpu_ms`, {} ms", "= resource_limits.call_cpu_ms"),
    (AUTHOR, "`call_timeout_ms`, {s} s", "= resource_limits.call_timeout_ms"),
    (AUTHOR, "`host_call_ms`, {s} s", "= resource_limits.host_call_ms"),
    (AUTHOR, "`inference.timeout_ms`, {s} s", "= inference.timeout_ms"),
    (AUTHOR, "| handles at a time | {} |", "host/worker/src/guest/limits.rs MAX_HANDLES"),
    (AUTHOR, "`events_per_frame`, {} |", "= resource_limits.events_per_frame"),
    (AUTHOR, "`event_kb`, {} KiB", "= resource_limits.event_kb"),
    (AUTHOR, "`attachments_per_frame`, {} |", "= resource_limits.attachments_per_frame"),
    (AUTHOR, "and of an event | {} |", "host/protocol/src/limit.rs MAX_DETECTIONS"),
    (AUTHOR, "attachments of a frame | {MiB} MiB", "host/protocol/src/limit.rs MAX_OUTPUT_BYTES"),
    (AUTHOR, "`log_lines_per_second`, {} |", "= resource_limits.log_lines_per_second"),
    (AUTHOR, "`memory_per_process_mb`, {} MiB", "= resource_limits.memory_per_process_mb"),
    (AUTHOR, "inputs of a model; dimensions | {};", "host/protocol/src/inference.rs MAX_TENSORS"),
    (AUTHOR, "dimensions | 64; {} |", "host/protocol/src/inference.rs MAX_RANK"),
    (AUTHOR, "the host checks it every {ms} ms", "host/worker/src/guest/deadline.rs TICK"),
    (AUTHOR, "a new worker after {s} s", "host/src RESTART_BACKOFF.first"),
    (AUTHOR, "up to {s} s, and after five", "host/src RESTART_BACKOFF.longest"),
    (BUILT_IN, "| `score` | `{}` | least", "guest-pipeline/object-detect/src/settings.rs .score"),
    (BUILT_IN, "| `iou` | `{}` | of two", "guest-pipeline/object-detect/src/settings.rs .iou"),
    (
        BUILT_IN,
        "| `runs_per_second` | `{}` | in budget",
        "guest-pipeline/object-detect/src/settings.rs RUNS_PER_SECOND",
    ),
    (
        BUILT_IN,
        "| `size` | {} | longest side",
        "guest-pipeline/object-detect/src/settings.rs .size",
    ),
    (
        BUILT_IN,
        "| `quality` | {} | that of JPEG",
        "guest-pipeline/object-detect/src/settings.rs .quality",
    ),
    (BUILT_IN, "pixels, 16 to {}; larger", "guest-pipeline/object-detect/src MAX_SIDE"),
    (BUILT_IN, "pixels, {} to 4096; larger", "guest-pipeline/object-detect/src LEAST_SIDE"),
    (BUILT_IN, "surroundings, {} times its box", "guest-pipeline/object-detect/src SURROUNDINGS"),
    (BUILT_IN, "of a frame are at most {}, and", "guest-pipeline/object-detect/src MAX_PICTURES"),
    (BUILT_IN, "at most 8, and {MiB} MiB together", "guest-pipeline/object-detect/src MAX_BYTES"),
    (BUILT_IN, "has a `name` (1 to {} letters", "guest-pipeline/sdk/src MAX_ZONE_NAME"),
    (BUILT_IN, "A look gives at most {} events", "guest-pipeline/sdk/src EVENTS_PER_FRAME"),
    (
        BUILT_IN,
        "| `score` | {} | least score of a face",
        "guest-pipeline/face-embed/src/settings.rs .score",
    ),
    (BUILT_IN, "| `iou` | {} | of two", "guest-pipeline/face-embed/src/settings.rs .iou"),
    (BUILT_IN, "| `max_faces` | {} |", "guest-pipeline/face-embed/src/settings.rs .max_faces"),
    (BUILT_IN, "the best first (1 to {})", "guest-pipeline/face-embed/src MOST_FACES"),
    (
        BUILT_IN,
        "| `min_face_pixels` | {} |",
        "guest-pipeline/face-embed/src/settings.rs .min_face_pixels",
    ),
    (BUILT_IN, "the `embedding` ({} numbers", "guest-pipeline/sdk/src/faceres.rs DIMENSION"),
    (BUILT_IN, "about the box, {} times", "guest-pipeline/sdk/src/faceres.rs CROP"),
    (BUILT_IN, "multiples of {}, at most", "guest-pipeline/sdk/src/centerface.rs SIDE_STEP"),
    (BUILT_IN, "at most {} pixels in all", "guest-pipeline/sdk/src/centerface.rs MAX_PIXELS"),
    (BUILT_IN, "A tree has at most {} stages", "guest-pipeline/cascade/src/objects.rs MAX_STAGES"),
    (BUILT_IN, "stages, {} levels deep", "guest-pipeline/cascade/src/objects.rs MAX_DEPTH"),
    (BUILT_IN, "1 (default) to {};", "guest-pipeline/cascade/src/objects.rs MAX_BATCH"),
    ("wit/0.3/frames.wit", "At most {} regions", "host/worker/src/guest MAX_REGIONS"),
    (
        "wit/0.3/frames.wit",
        "the largest first. At most {}.",
        "host/worker/src/video/motion MAX_REGIONS",
    ),
    ("wit/0.3/frames.wit", "At most {} points", "host/worker/src/guest MAX_POINTS"),
    ("wit/0.3/frames.wit", "At most {} x 640", "host/worker/src/video MAX_LUMA_SIDE"),
    (BUILT_IN, "parts of the picture, at most {},", "guest-pipeline/sdk/src MAX_ZONES"),
    (BUILT_IN, "lines across the picture, at most {},", "guest-pipeline/sdk/src MAX_LINES"),
    (REFERENCE, "The host checks it every {ms} ms", "host/worker/src/guest/deadline.rs TICK"),
    (REFERENCE, "`guest_memory_mb`, {} MiB", "= resource_limits.guest_memory_mb"),
    (REFERENCE, "`memory_per_process_mb`, {} MiB", "= resource_limits.memory_per_process_mb"),
    (REFERENCE, "for attachments: {MiB} MiB", "host/worker/src/guest MAX_IMAGE_BYTES"),
    (
        REFERENCE,
        "| `tables` | {} table elements",
        "host/worker/src/guest/limits.rs MAX_TABLE_ELEMENTS",
    ),
    (REFERENCE, "| `handles` | {} at a time", "host/worker/src/guest/limits.rs MAX_HANDLES"),
    (REFERENCE, "tensor_memory_mb`, {} MiB", "= resource_limits.tensor_memory_mb"),
    (REFERENCE, "sides of 1 to {} pixels", "host/worker/src/video/spec.rs MAX_SIDE"),
    (REFERENCE, "`call_cpu_ms`, {} ms", "= resource_limits.call_cpu_ms"),
    (REFERENCE, "`call_timeout_ms`, {} ms", "= resource_limits.call_timeout_ms"),
    (REFERENCE, "`host_call_ms`, {} ms", "= resource_limits.host_call_ms"),
    (REFERENCE, "| `stack` | {KiB} KiB", "host/protocol/src/engine.rs MAX_WASM_STACK"),
    (REFERENCE, "| `detections` | {} of a frame", "host/protocol/src/limit.rs MAX_DETECTIONS"),
    (REFERENCE, "`events_per_frame`, {} |", "= resource_limits.events_per_frame"),
    (REFERENCE, "`event_kb`, {} KiB", "= resource_limits.event_kb"),
    (REFERENCE, "`attachments_per_frame`, {} |", "= resource_limits.attachments_per_frame"),
    (REFERENCE, "{MiB} MiB that a call returns", "host/protocol/src/limit.rs MAX_OUTPUT_BYTES"),
    (REFERENCE, "returns; {MiB} MiB for a snapshot", "host/protocol/src/wire.rs MAX_PAYLOAD"),
    (REFERENCE, "and {MiB} MiB handed to the host", "host/worker/src/guest ARGUMENT_OVERHEAD"),
    (REFERENCE, "`log_lines_per_second`, {} |", "= resource_limits.log_lines_per_second"),
    (REFERENCE, "growth leaves {MiB} MiB of", "host/worker/src/memory.rs RESERVED"),
    (REFERENCE, "`open_files` ({}) descriptors", "= resource_limits.open_files"),
    (REFERENCE, "`cpu_percent` ({}) bounds", "= resource_limits.cpu_percent"),
    (REFERENCE, "sends more than {} messages", "host/src MAX_MESSAGE_RATE"),
    (REFERENCE, "at least {MiB} MiB; `deploy.reserve_mb`", "host/src/deploy/admission LEAST"),
    (REFERENCE, "at most {s} s later", "host/src/worker READY_TIMEOUT"),
    (REFERENCE, "in a row up to {s} s, plus", "host/src RESTART_BACKOFF.longest"),
    (REFERENCE, "or no connection within {s} s", "host/src/source/rtsp.rs DESCRIBE_LIMIT"),
    (REFERENCE, "no first picture within {s} s", "host/src/source/silence.rs FIRST_PICTURE"),
    (REFERENCE, "but at least {s} s and", "host/src/source/mod.rs .silence_limit"),
    (REFERENCE, "and at most {s} s; 20", "host/src/source/silence.rs LONGEST"),
    (REFERENCE, "{s} s while there was one", "host/src/source/silence.rs SECOND_PICTURE"),
    (REFERENCE, "RTCP reports come, {s} s", "host/src/source/silence.rs LONGEST_REPORTED"),
    (REFERENCE, "{s} s before the first", "host/src/source/silence.rs FIRST_PICTURE_REPORTED"),
    (REFERENCE, "intra picture after {}", "host/src/source/nal.rs UNMARKED"),
    (REFERENCE, "up to {s} s, for `protocol`", "host/src/source/retry.rs PERSISTENT.longest"),
    (CAMERAS, "strict reader | {KiB} KiB |", "host/protocol/src/rtsp.rs ANSWER_BUDGET"),
    (CAMERAS, "streams of a description | {} |", "host/protocol/src/rtsp.rs MAX_STREAMS"),
    (CAMERAS, "a coded picture | {MiB} MiB |", "host/protocol/src/rtsp.rs MAX_PICTURE"),
    (CAMERAS, "picture is whole | {MiB} MiB |", "host/protocol/src/rtsp.rs PICTURE_BUDGET"),
    (CAMERAS, "of the process | {MiB} MiB |", "host/src/source/ingest/process.rs CAMERA_MEMORY"),
    (CAMERAS, "wait for a session | {} and", "host/src/source/fanout.rs MAX_WAITING_UNITS"),
    (CAMERAS, "| 250 and {MiB} MiB |", "host/src/source/fanout.rs MAX_WAITING_BYTES"),
    (CAMERAS, "sessions that join | {} and", "host/src/source/gop.rs MAX_UNITS"),
    (CAMERAS, "| 1000 and {MiB} MiB |", "host/src/source/gop.rs MAX_BYTES"),
    (CAMERAS, "a fault's text | {} |", "host/src/util/line.rs MAX_LINE"),
    (REFERENCE, "SETUP or PLAY within {s} s", "host/src/source/rtsp.rs REQUEST_LIMIT"),
    (REFERENCE, "no key frame for {s} s", "host/src/source/rtsp.rs KEY_LIMIT"),
    (REFERENCE, "follows after {s} s, doubled", "host/src/source/retry.rs SLOW.first"),
    (REFERENCE, "doubled up to {s} s, for the first", "host/src/source/retry.rs SLOW.longest"),
    (REFERENCE, "A stream that held for {s} s", "host/src/source/retry.rs HEALTHY"),
    (REFERENCE, "decoding: {} access units", "host/src/source/fanout.rs MAX_WAITING_UNITS"),
    (REFERENCE, "or {MiB} MiB waited", "host/src/source/fanout.rs MAX_WAITING_BYTES"),
    (REFERENCE, "checked every {s} s. Clears", "host/src/monitor/mod.rs DISK_INTERVAL"),
    (
        REFERENCE,
        "of pipelines and workers, at most {} of",
        "host/src/telemetry/files.rs GUEST_LINES_IN_MAIN",
    ),
    (
        REFERENCE,
        "There are at most {} session logs",
        "host/src/telemetry/files.rs MAX_SESSION_LOGS",
    ),
    (REFERENCE, "A message has at most {KiB} KiB", "host/src/telemetry/record.rs MAX_MESSAGE"),
    (REFERENCE, "another value {KiB} KiB", "host/src/telemetry/record.rs MAX_VALUE"),
    (REFERENCE, "{MiB} MiB of lines may wait", "host/src/telemetry/mod.rs FILES_ROOM"),
    (REFERENCE, "for the files and {MiB} MiB", "host/src/telemetry/mod.rs CONSOLE_ROOM"),
    (GUIDE, "The host keeps at most {}; beyond", "host/src/api/logins.rs MAX_LOGINS"),
    (SUBSCRIBER, "the newest last, at most {}. `what`", "host/src/api/audit.rs KEPT"),
    (SUBSCRIBER, "`GET /v1/audit?lines={}`", "host/src/api/audit.rs LISTED"),
    (GUIDE, "At most {} connections have sent", "host/src/api/connections.rs MAX_STRANGERS"),
    (GUIDE, "buffer of {MiB} MiB: if", "host/src/source/ingest/broker.rs RECEIVE_BUFFER"),
    (GUIDE, "plus {MiB} MiB. The process", "host/src UNCOUNTED_MEMORY"),
    (GUIDE, "`cpu.weight` {} instead", "host/src/deploy/compile/child.rs CPU_WEIGHT"),
    (GUIDE, "`pids.max` is {} threads", "host/protocol/src/process.rs MAX_THREADS"),
    (REFERENCE, "by more than {MiB} MiB; - it has", "host/src UNCOUNTED_MEMORY"),
    (REFERENCE, "it has more than {} threads", "host/protocol/src/process.rs MAX_THREADS"),
    (REFERENCE, "of linear memories: {}", "host/worker/src/guest/limits.rs MAX_MEMORIES"),
    (REFERENCE, "one of its size may: {} s,", "host/compile/src/main.rs CPU_TIME"),
    (REFERENCE, "and {} s for each MiB)", "host/compile/src/main.rs CPU_TIME_PER_MIB"),
    (AUTHOR, "| linear memories | {} |", "host/worker/src/guest/limits.rs MAX_MEMORIES"),
    (GUIDE, "(IoU of at least {})", "host/src SAME_OBJECT"),
    (GUIDE, "`keep_hours` ({})", "= events.keep_hours"),
    (GUIDE, "`keep_mb` ({})", "= events.keep_mb"),
    (GUIDE, "`attachments_hours` ({})", "= events.attachments_hours"),
    (GUIDE, "`attachments_mb` ({})", "= events.attachments_mb"),
    (GUIDE, "`clips_hours` ({})", "= events.clips_hours"),
    (GUIDE, "`clips_mb` ({})", "= events.clips_mb"),
    (GUIDE, "`too_large` ({MiB} MiB, or", "host/src/source/clips/ring.rs MAX_BYTES"),
    (GUIDE, "collected take {MiB} MiB)", "host/src/source/clips.rs MAX_COLLECTED_BYTES"),
    (GUIDE, "holds up to {} events or", "host/src/journal/events/outbox.rs EVENTS"),
    (GUIDE, "events or {MiB} MiB in memory", "host/src/journal/events/outbox.rs BYTES"),
    (GUIDE, "retries after {ms} ms to 5 s", "host/src/sink/driver.rs WAITS.first"),
    (GUIDE, "ms to {s} s. - A sink", "host/src/sink/driver.rs WAITS.longest"),
    (GUIDE, "at most {} events of one session", "host/src/sink/driver.rs MAX_EVENTS"),
    (GUIDE, "and about {MiB} MiB; the host", "host/src/sink/redis/entry.rs MAX_BYTES"),
    (GUIDE, "is retried every {s} s; its others", "host/src/sink/driver.rs ASIDE"),
    (
        GUIDE,
        "needs {} bytes of memory for each pixel",
        "host/worker/src/video/still.rs BYTES_PER_PIXEL",
    ),
    (RUNBOOK, "in memory, {} or 8 MiB for each", "host/src/journal/events/outbox.rs EVENTS"),
    (RUNBOOK, "or {MiB} MiB for each session", "host/src/journal/events/outbox.rs BYTES"),
    (RUNBOOK, "(`deploy.probation_s`, {} s)", "= deploy.probation_s"),
    (
        RUNBOOK,
        "`session_processes.health_check_interval` ({} s)",
        "= session_processes.health_check_interval",
    ),
    (RUNBOOK, "started anew, after 0.1 s and up to {s} s", "host/src RESTART_BACKOFF.longest"),
    (RUNBOOK, "raises its soft limit to {} by itself", "host/src/serve.rs DESCRIPTORS"),
    (RUNBOOK, "if it takes nothing for {s} s", "host/src/api/state.rs .send"),
    (RUNBOOK, "is tried again every {s} s.", "host/src/sink/driver.rs ASIDE"),
    (RUNBOOK, "the host waits {s} s to a minute", "host/src/source/retry.rs SLOW.first"),
    (
        SIZING,
        "max_concurrent_sessions`, {} by default",
        "= session_processes.max_concurrent_sessions",
    ),
    (SIZING, "| events | {} MiB or 30 days", "= events.keep_mb"),
    (SIZING, "| pictures of events | {} MiB or 7 days", "= events.attachments_mb"),
    (SIZING, "| compiled components | {} MiB |", "= deploy.cache_mb"),
    (SIZING, "memory_per_process_mb` ({}), are", "= resource_limits.memory_per_process_mb"),
    (SIZING, "and {} bytes for each pixel", "host/worker/src/video/still.rs BYTES_PER_PIXEL"),
    (SECURITY, "| a camera | {MiB} MiB and a", "host/src/source/ingest/process.rs CAMERA_MEMORY"),
    (SECURITY, "reader, {MiB} MiB that wait", "host/src/source/fanout.rs MAX_WAITING_BYTES"),
    (SECURITY, "output | {} detections", "host/protocol/src/limit.rs MAX_DETECTIONS"),
    (SECURITY, "detections, {} events", "= resource_limits.events_per_frame"),
    (SECURITY, "events, {} log lines a second", "= resource_limits.log_lines_per_second"),
    (SECURITY, "to compile | {} MiB, 300 s", "= deploy.max_component_mb"),
    (SECURITY, "64 MiB, {} s, memory", "= deploy.compile_timeout_s"),
    (SECURITY, "a token | {} connections", "host/src/api/connections.rs MAX_STRANGERS"),
    (SECURITY, "{KiB} KiB a message", "host/src/api/message.rs MAX_MESSAGE"),
    (SECURITY, "not read | {MiB} MiB each", "host/src/event/queue.rs MAX_BYTES"),
    (SECURITY, "in a log | {KiB} KiB, one", "host/src/telemetry/record.rs MAX_MESSAGE"),
];

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files that Git tracks or would add.
fn files() -> BTreeSet<String> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|path| root().join(path).exists()).map(str::to_owned).collect()
}

fn pages(files: &BTreeSet<String>) -> Vec<(&str, String)> {
    files
        .iter()
        .filter(|path| path.ends_with(".md"))
        .map(|path| (path.as_str(), read(path)))
        .collect()
}

/// The text as one line, each run of white space as one blank.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A figure of the code; durations in milliseconds. `None` without one, or with two that differ.
fn figure(files: &BTreeSet<String>, place: &str) -> Option<f64> {
    let (path, name) = place.split_once(' ')?;
    if path == "=" {
        let schema: serde_json::Value =
            serde_json::from_str(&read("config/ocelli.schema.json")).unwrap();
        let (section, key) = name.split_once('.')?;
        return schema["properties"][section]["properties"][key]["default"].as_f64();
    }
    let (constant, field) =
        name.split_once('.').map_or((name, None), |(name, field)| (name, Some(field)));
    let found: Vec<f64> = files
        .iter()
        .filter(|file| file.starts_with(path) && file.ends_with(".rs"))
        .filter_map(|file| {
            let text = read(file);
            let mut rest = text.as_str();
            if !constant.is_empty() {
                rest = rest.split_once(&format!("const {constant}: "))?.1.split_once("= ")?.1;
            }
            match field {
                Some(field) => {
                    let name = format!("{field}: ");
                    let mut places = rest.split(&name).skip(1);
                    places.find_map(|text| number(text).or_else(|| declared(text)))
                }
                None => number(rest),
            }
        })
        .collect();
    found.first().copied().filter(|value| found.iter().all(|other| other == value))
}

/// The default of a field that the SDK's `settings!` declares: `f32 = 0.4, above(0)`.
fn declared(text: &str) -> Option<f64> {
    let (ty, default) = text.split_once(" = ")?;
    if ty.contains([';', '\n']) { None } else { number(default) }
}

/// The number that `text` begins with: `1 << 20`, `2 * 8`, `Duration::from_secs(5)`.
fn number(text: &str) -> Option<f64> {
    for (prefix, factor) in [("Duration::from_secs(", 1000.0), ("Duration::from_millis(", 1.0)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return Some(number(rest)? * factor);
        }
    }
    let end = text.find([';', ',', ')', '}']).unwrap_or(text.len());
    let mut words = text[..end].split_whitespace();
    let literal = |word: &str| word.replace('_', "").parse::<f64>().ok();
    let mut value = literal(words.next()?)?;
    while let Some(operator) = words.next() {
        let operand = literal(words.next()?)?;
        match operator {
            "<<" => value *= operand.exp2(),
            "*" => value *= operand,
            "/" => value /= operand,
            _ => return None,
        }
    }
    Some(value)
}

/// As the pages write numbers: from five digits on with commas.
fn written(value: f64) -> String {
    let mut text = value.to_string();
    if text.len() >= 5 && !text.contains('.') {
        for position in (1..text.len())
            .rev()
            .filter(|position| (text.len() - position).is_multiple_of(3))
            .collect::<Vec<_>>()
        {
            text.insert(position, ',');
        }
    }
    text
}

#[test]
fn figures_are_those_of_the_code() {
    let (files, mut problems) = (files(), Vec::new());
    for &(page, phrase, place) in FIGURES {
        let Some(value) = figure(&files, place) else {
            problems.push(format!("{place}: no such figure, for {page}: {phrase:?}"));
            continue;
        };
        let units = [
            ("{}", 1.0),
            ("{KiB}", 1024.0),
            ("{MiB}", 1_048_576.0),
            ("{ms}", 1.0),
            ("{s}", 1000.0),
        ];
        let phrase = units.iter().fold(phrase.to_owned(), |phrase, (unit, divisor)| {
            phrase.replace(unit, &written(value / divisor))
        });
        if !in_one_line(&read(page)).contains(&phrase) {
            problems.push(format!("{page} does not say {phrase:?} ({place})"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn numbers_are_read_and_written() {
    for (text, expected) in [
        ("64 << 10;", Some(65_536.0)),
        ("10_000;", Some(10_000.0)),
        ("Duration::from_secs(5);", Some(5000.0)),
        ("Duration::from_millis(250),", Some(250.0)),
        ("0.5;", Some(0.5)),
        ("MAX / 2;", None),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
    for (value, expected) in
        [(0.1, "0.1"), (4096.0, "4096"), (10_000.0, "10,000"), (1_048_576.0, "1,048,576")]
    {
        assert_eq!(written(value), expected);
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The lines of a page that are no code, each with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

#[test]
fn links_lead_somewhere() {
    let files = files();
    let pages = pages(&files);
    let mut problems = Vec::new();
    for (page, text) in &pages {
        let text = prose(text).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let mut target = Path::new(page).parent().unwrap().to_path_buf();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                if part == ".." {
                    assert!(target.pop(), "{page}: {link}")
                } else {
                    target.push(part)
                }
            }
            let target =
                if path.is_empty() { (*page).to_owned() } else { target.display().to_string() };
            if !root().join(&target).exists() {
                problems.push(format!("{page}: {link}: no such file"));
            } else if !fragment.is_empty() {
                let headings = pages.iter().find(|(page, _)| *page == target).map(|(_, text)| {
                    prose(text)
                        .filter_map(|(_, line)| line.strip_prefix('#'))
                        .map(|line| anchor(line.trim_start_matches('#')))
                        .collect::<Vec<_>>()
                });
                if !headings
                    .is_some_and(|headings| headings.iter().any(|heading| heading == fragment))
                {
                    problems.push(format!("{page}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn files_that_pages_of_the_code_name_are_there() {
    let files = files();
    let folders: BTreeSet<&str> = files
        .iter()
        .flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..=end]))
        .collect();
    let mut problems = Vec::new();
    for page in ["ARCHITECTURE.md", "docs/glossary.md", "docs/pipeline-author.md", "wit/README.md"]
    {
        let text = read(page);
        let text: String = prose(&text).flat_map(|(_, line)| [line, "\n"]).collect();
        for name in text.split('`').skip(1).step_by(2) {
            let there = if name.ends_with(".rs") {
                files.iter().any(|path| path == name || path.ends_with(&format!("/{name}")))
            } else if name.starts_with("host/") {
                let folder = format!("{}/", name.trim_end_matches('/'));
                files.contains(name) || folders.contains(folder.as_str())
            } else {
                true
            };
            if !there {
                problems.push(format!("{page}: `{name}`"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn lines_fit() {
    let files = files();
    let long: Vec<String> = pages(&files)
        .iter()
        .flat_map(|(page, text)| {
            let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > WIDTH);
            long.map(|(index, _)| format!("{page}:{}", index + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert!(long.is_empty(), "longer than {WIDTH} columns: {}", long.join(" "));
}
