//! What a schema cannot say: names, addresses, values that depend on each other, and what this version does not have.

use std::collections::BTreeMap;

use ::redis::IntoConnectionInfo;
use ocelli_protocol::key::TrustedKey;

use super::error::Problem;
use super::source::Source;
use super::tree::Node;
use super::{Camera, CameraTable, Config, Device, Document, Redis, Signatures};

/// Longest session name in bytes. The session's log file is named after it, and file names end at 255 bytes.
pub const MAX_ID_BYTES: usize = 200;

/// Whether a session, a configured camera or a subscriber's, may be called this: anything printable, without blanks at
/// its ends. The error says what is wrong with the name and does not repeat it.
pub fn check_session_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        Err("a session's name is empty".into())
    } else if id.len() > MAX_ID_BYTES {
        Err(format!("a session's name has at most {MAX_ID_BYTES} bytes, this one has {}", id.len()))
    } else if let Some(character) = id.chars().find(|&character| !printable(character)) {
        Err(format!("a session's name is printable; this one has U+{:04X}", u32::from(character)))
    } else if id.trim() != id {
        Err("a session's name has no blanks at its ends".into())
    } else {
        Ok(())
    }
}

/// Neither a control character nor one that is invisible or turns the direction of the line around: names stand in log
/// lines and on consoles.
fn printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The last step: from a document that the schema admits to a config.
pub(super) fn typed(document: Document, tree: &Node) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut report = |key: &str, message: String| {
        problems.push(Problem { origin: tree.nearest(key).origin.clone(), key: key.to_owned(), message });
    };
    let listen = document.server.listen;
    if !listen.ip().to_canonical().is_loopback() {
        report(
            "server.listen",
            format!(
                "{listen} is not a loopback address, and this version has no tokens to keep strangers out: listen on \
                 127.0.0.1 and put a reverse proxy that authenticates in front"
            ),
        );
    }
    let limits = &document.resource_limits;
    if limits.guest_memory_mb > limits.memory_per_process_mb {
        report(
            "resource_limits.guest_memory_mb",
            format!(
                "{} is more than the whole worker process may use (resource_limits.memory_per_process_mb = {})",
                limits.guest_memory_mb, limits.memory_per_process_mb
            ),
        );
    }
    let mut models = BTreeMap::new();
    for (index, options) in document.inference.models.iter().enumerate() {
        if let Some(first) = models.insert(&options.name, index) {
            let message = format!("\"{}\" is in inference.models[{first}] already", options.name);
            report(&format!("inference.models[{index}].name"), message);
        }
    }
    let analyze = &document.analyze;
    let kept: usize = analyze.pipelines.iter().map(|pipeline| pipeline.workers).sum();
    if kept > analyze.workers {
        report(
            "analyze.pipelines",
            format!("their {kept} workers are more than analyze.workers = {}", analyze.workers),
        );
    }
    for (index, key) in document.deploy.trusted_keys.iter().enumerate() {
        if let Err(error) = TrustedKey::parse(key) {
            report(&format!("deploy.trusted_keys[{index}]"), error.to_string());
        }
    }
    if document.deploy.signatures == Signatures::Required && document.deploy.trusted_keys.is_empty() {
        let message =
            "components have to be signed, and deploy.trusted_keys names nobody who could sign them";
        report("deploy.signatures", message.into());
    }
    if let Some(redis) = &document.redis
        && let Err(message) = check_redis(&redis.url)
    {
        report("redis.url", message);
    }
    let mut seen = BTreeMap::new();
    let mut cameras = Vec::with_capacity(document.cameras.len());
    for (index, table) in document.cameras.into_iter().enumerate() {
        let key = |name: &str| format!("cameras[{index}].{name}");
        if let Err(message) = check_session_id(&table.id) {
            report(&key("id"), message);
        } else if let Some(first) = seen.insert(table.id.clone(), index) {
            report(&key("id"), format!("\"{}\" is the name of cameras[{first}] already", table.id));
        }
        if let Some(granted) = &table.redis_prefix {
            match &document.redis {
                None => report(&key("redis_prefix"), "there is no [redis] to use".into()),
                Some(Redis { prefix: own, .. }) if granted.starts_with(own) || own.starts_with(granted) => {
                    let message = format!("{granted:?} and redis.prefix = {own:?} have keys in common");
                    report(&key("redis_prefix"), message);
                }
                Some(_) => {}
            }
        }
        match camera(table) {
            Ok(camera) => cameras.push(camera),
            Err((id, message)) => {
                report(&key("source"), format!("camera \"{}\": {message}", id.escape_debug()))
            }
        }
    }
    let max = document.session_processes.max_concurrent_sessions;
    if seen.len() > max {
        report(
            "cameras",
            format!("{} cameras are more than session_processes.max_concurrent_sessions = {max}", seen.len()),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        server: document.server,
        session_processes: document.session_processes,
        resource_limits: document.resource_limits,
        inference: document.inference,
        models: document.models,
        logs: document.logs,
        store: document.store,
        redis: document.redis,
        subscriptions: document.subscriptions,
        deploy: document.deploy,
        analyze: document.analyze,
        alerts: document.alerts,
        cameras,
    })
}

/// Whether Redis can be reached by such an address. The error does not repeat it.
fn check_redis(url: &str) -> Result<(), String> {
    let form = || "expected redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS".to_owned();
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err(form());
    }
    // Its words name the part that is wrong.
    url.into_connection_info().map(|_| ()).map_err(|error| format!("{}; {error}", form()))
}

fn camera(table: CameraTable) -> Result<Camera, (String, String)> {
    match Source::parse(&table.source, table.transport, table.pace, table.repeat) {
        Ok(source) => Ok(Camera {
            id: table.id,
            source,
            pipeline: table.pipeline,
            settings: table.settings,
            decode: table.decode,
            priority: table.priority,
            redis_prefix: table.redis_prefix,
        }),
        Err(error) => Err((table.id, error.to_string())),
    }
}

/// A value that the schema admits and the types do not: the strings with a form of their own.
pub(super) fn untyped(tree: &Node, error: &serde_json::Error) -> Problem {
    let problem = |key: &str, message| Problem {
        origin: tree.nearest(key).origin.clone(),
        key: key.to_owned(),
        message,
    };
    let value = |key: &str| tree.nearest(key).to_json();
    if let Some(text) = value("server.listen").as_str()
        && text.parse::<std::net::SocketAddr>().is_err()
    {
        let message = format!("expected ADDRESS:PORT such as 127.0.0.1:8001, found the string {text:?}");
        return problem("server.listen", message);
    }
    let models = value("inference.models").as_array().map_or(0, Vec::len);
    let devices = (0..models).map(|index| format!("inference.models[{index}].device"));
    for key in std::iter::once("inference.device".to_owned()).chain(devices) {
        if let Some(Err(message)) = value(&key).as_str().map(str::parse::<Device>) {
            return problem(&key, message);
        }
    }
    Problem::whole(error.to_string())
}
