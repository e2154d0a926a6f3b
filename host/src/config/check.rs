//! What a schema cannot say: names, addresses, values that depend on each other, and what this
//! version does not have.

use std::collections::{BTreeMap, HashMap};

use ::redis::IntoConnectionInfo;
use ocelli_protocol::key::TrustedKey;

use super::error::ConfigProblem;
use super::source::Source;
use super::tree::Node;
use super::{
    Camera, CameraTable, Config, Device, Document, RedisConfig, Role, Signatures, SourcePattern,
    TokenHash, WebOrigin,
};

/// What callers are called where there are no tokens.
pub const LOCAL_CALLER: &str = "local";

/// The name that stands for every session: no camera is called so.
pub const EVERY_SESSION: &str = "*";

/// Longest session name in bytes. The session's log file is named after it, and file names end at
/// 255 bytes.
pub const MAX_ID_BYTES: usize = 200;

/// Whether a session, a configured camera or a subscriber's, may be called this: anything
/// printable, without blanks at its ends. The error says what is wrong with the name and does not
/// repeat it.
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

/// What a token of the config may be called: it stands in log lines and in the history of
/// deployments.
pub fn check_token_name(name: &str) -> Result<(), String> {
    if name == LOCAL_CALLER {
        return Err(format!(
            "\"{LOCAL_CALLER}\" is what callers are called where there are no tokens"
        ));
    }
    check_session_id(name).map_err(|message| message.replace("session's", "token's"))
}

/// Neither a control character nor one that is invisible or turns the direction of the line around:
/// names stand in log lines and on consoles.
fn printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The last step: from a document that the schema admits to a config.
pub(super) fn into_config(document: Document, tree: &Node) -> Result<Config, Vec<ConfigProblem>> {
    let mut problems = Vec::new();
    let mut report = |key: &str, message: String| {
        problems.push(ConfigProblem {
            origin: tree.nearest(key).origin.clone(),
            key: key.to_owned(),
            message,
        });
    };
    let listen = document.server.listen;
    if !listen.ip().to_canonical().is_loopback() && document.server.tokens.is_empty() {
        report(
            "server.listen",
            format!(
                "{listen} is not a loopback address, and without tokens everyone who reaches it \
                    would get in: make a token \
                 (`ocelli token new`) for [[server.tokens]], or listen on 127.0.0.1"
            ),
        );
    }
    let (mut names, mut hashes) = (BTreeMap::new(), HashMap::new());
    for (index, token) in document.server.tokens.iter().enumerate() {
        let key = |name: &str| format!("server.tokens[{index}].{name}");
        if let Err(message) = check_token_name(&token.name) {
            report(&key("name"), message);
        } else if let Some(first) = names.insert(&token.name, index) {
            report(
                &key("name"),
                format!("\"{}\" is the name of server.tokens[{first}] already", token.name),
            );
        }
        if let Some(first) = hashes.insert(&token.hash, index) {
            report(&key("hash"), format!("it is the hash of server.tokens[{first}] already"));
        }
        if token.sessions.is_some() && token.role != Role::Viewer {
            let role = token.role.name();
            report(
                &key("sessions"),
                format!("only a viewer's sessions are named; role \"{role}\" sees all"),
            );
        }
    }
    for (index, host) in document.server.hosts.iter().enumerate() {
        if !url::Host::parse(host)
            .is_ok_and(|parsed| parsed.to_string() == host.to_ascii_lowercase())
        {
            let message =
                format!("expected a host's name or address, without a port, found {host:?}");
            report(&format!("server.hosts[{index}]"), message);
        }
    }
    let limits = &document.resource_limits;
    if limits.guest_memory_mb > limits.memory_per_process_mb {
        report(
            "resource_limits.guest_memory_mb",
            format!(
                "{} is more than the whole worker process may use \
                    (resource_limits.memory_per_process_mb = {})",
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
    if document.deploy.signatures == Signatures::Required && document.deploy.trusted_keys.is_empty()
    {
        let message = "components have to be signed, and deploy.trusted_keys names nobody who \
            could sign them";
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
        } else if table.id == EVERY_SESSION {
            report(
                &key("id"),
                format!("{EVERY_SESSION:?} stands for every session, and is the name of none"),
            );
        } else if let Some(first) = seen.insert(table.id.clone(), index) {
            report(&key("id"), format!("\"{}\" is the name of cameras[{first}] already", table.id));
        }
        if let Some(granted) = &table.redis_prefix {
            match &document.redis {
                None => report(&key("redis_prefix"), "there is no [redis] to use".into()),
                Some(RedisConfig { prefix: own, .. })
                    if granted.starts_with(own) || own.starts_with(granted) =>
                {
                    let message =
                        format!("{granted:?} and redis.prefix = {own:?} have keys in common");
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
            format!(
                "{} cameras are more than session_processes.max_concurrent_sessions = {max}",
                seen.len()
            ),
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
        events: document.events,
        subscriptions: document.subscriptions,
        deploy: document.deploy,
        analyze: document.analyze,
        alerts: document.alerts,
        cameras,
    })
}

/// Whether Redis can be reached by such an address. The error does not repeat it.
fn check_redis(url: &str) -> Result<(), String> {
    let form =
        || "expected redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS".to_owned();
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

/// The values that the schema admits and the types do not: the strings with a form of their own.
pub(super) fn type_problems(tree: &Node, error: &serde_json::Error) -> Vec<ConfigProblem> {
    let value = |key: &str| tree.nearest(key).to_json();
    let each = |list: &str, member: &str| -> Vec<String> {
        let count = value(list).as_array().map_or(0, Vec::len);
        (0..count).map(|index| format!("{list}[{index}]{member}")).collect()
    };
    let mut problems = Vec::new();
    let mut check = |keys: Vec<String>, wrong: fn(&str) -> Option<String>| {
        for key in keys {
            if let Some(message) = value(&key).as_str().and_then(wrong) {
                problems.push(ConfigProblem {
                    origin: tree.nearest(&key).origin.clone(),
                    key,
                    message,
                });
            }
        }
    };
    check(vec!["server.listen".into()], |text| {
        let message =
            format!("expected ADDRESS:PORT such as 127.0.0.1:8001, found the string {text:?}");
        text.parse::<std::net::SocketAddr>().is_err().then_some(message)
    });
    check(each("server.tokens", ".hash"), |text| text.parse::<TokenHash>().err());
    check(each("server.tokens", ".expires"), |text| {
        let message = format!(
            "expected a time as RFC 3339 writes it, such as 2030-01-31T12:00:00Z, found {text:?}"
        );
        text.parse::<jiff::Timestamp>().is_err().then_some(message)
    });
    check(each("server.origins", ""), |text| text.parse::<WebOrigin>().err());
    check(each("subscriptions.sources", ""), |text| text.parse::<SourcePattern>().err());
    let devices =
        each("inference.models", ".device").into_iter().chain(["inference.device".into()]);
    check(devices.collect(), |text| text.parse::<Device>().err());
    if problems.is_empty() {
        problems.push(ConfigProblem::whole(error.to_string()));
    }
    problems
}
