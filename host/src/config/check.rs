//! Checks beyond the schema: names, addresses, and values that depend on each other.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use ::redis::IntoConnectionInfo;
use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::inference::Device;
use ocelli_protocol::key::TrustedKey;

use super::allow::SourcePattern;
use super::base_path::BasePath;
use super::directory;
use super::document::{Camera, CameraTable, Config, Document};
use super::error::{ConfigProblem, ValueOrigin};
use super::http_url::HttpUrl;
use super::inference::InferenceConfig;
use super::mqtt::MqttConfig;
use super::redis::RedisConfig;
use super::registry::{self, OciReference, RegistryConfig};
use super::sections::{AnalyzeConfig, DeployConfig, ResourceLimits, Signatures};
use super::server::{Role, ServerConfig, Token, TokenHash, WebOrigin};
use super::tree::Node;
use super::trusted_proxy::TrustedProxy;
use super::webhook::{WebhookConfig, WebhookSecret};

/// The name of callers on a host without tokens.
pub const LOCAL_CALLER: &str = "local";

/// The name that stands for every session. No camera may have it.
pub const EVERY_SESSION: &str = "*";

/// Longest session name in bytes: it names a log file, and file names have at most 255 bytes.
pub const MAX_ID_BYTES: usize = 200;

/// Longest name of a webhook in bytes: it is a label of metrics.
const MAX_WEBHOOK_NAME: usize = 64;

/// An invalid name of a `session` or a `token`: the first field. The text does not repeat the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a {0}'s name is empty")]
    Empty(&'static str),
    /// With its length in bytes.
    #[error("a {0}'s name has at most {MAX_ID_BYTES} bytes, this one has {1}")]
    TooLong(&'static str, usize),
    #[error("a {0}'s name is printable; this one has U+{code:04X}", code = u32::from(*.1))]
    Unprintable(&'static str, char),
    #[error("a {0}'s name has no blanks at its ends")]
    OuterBlanks(&'static str),
    #[error("\"{LOCAL_CALLER}\" is the name of callers on a host without tokens")]
    Reserved,
}

/// Checks the name of a session: 1 to [`MAX_ID_BYTES`] printable bytes without blanks at the ends.
pub fn check_session_id(id: &str) -> Result<(), NameError> {
    check_name(id, "session")
}

/// Checks the name of a token, which stands in log lines and in the history of deployments.
pub(crate) fn check_token_name(name: &str) -> Result<(), NameError> {
    if name == LOCAL_CALLER {
        return Err(NameError::Reserved);
    }
    check_name(name, "token")
}

fn check_name(name: &str, noun: &'static str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty(noun))
    } else if name.len() > MAX_ID_BYTES {
        Err(NameError::TooLong(noun, name.len()))
    } else if let Some(character) = name.chars().find(|&character| !printable(character)) {
        Err(NameError::Unprintable(noun, character))
    } else if name.trim() != name {
        Err(NameError::OuterBlanks(noun))
    } else {
        Ok(())
    }
}

/// Neither a control character nor one that is invisible or reverses the text direction: names
/// stand in log lines and on consoles.
fn printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}')
}

/// The last step: turns a document that passed the schema into a config.
/// `path`: the config's file, for words about it.
pub(super) fn into_config(
    document: Document,
    tree: &Node,
    path: &Path,
) -> Result<Config, Vec<ConfigProblem>> {
    let (mut config, cameras) = document.into_parts();
    let mut check = Check { tree, path, problems: Vec::new() };
    check.server(&config.server, config.cluster.is_some());
    check.limits(&config.resource_limits);
    check.models(&config.inference);
    check.analyze(&config.analyze);
    check.deploy(&config.deploy);
    check.redis(config.redis.as_ref());
    check.webhooks(&config.webhooks);
    check.mqtt(config.mqtt.as_ref());
    check.cluster(&config, &cameras);
    let max_sessions = config.session_processes.max_concurrent_sessions;
    config.cameras = check.cameras(cameras, config.redis.as_ref(), max_sessions);
    if check.problems.is_empty() { Ok(config) } else { Err(check.problems) }
}

/// The problems found so far, each with the place of its key. One method checks one section.
struct Check<'a> {
    tree: &'a Node,
    path: &'a Path,
    problems: Vec<ConfigProblem>,
}

impl Check<'_> {
    fn report(&mut self, key: impl Into<String>, message: impl Into<String>) {
        let key = key.into();
        self.problems.push(ConfigProblem::at(&self.tree.nearest(&key).origin, key, message));
    }

    /// `in_site`: the host may take all its tokens from its site, and lets nobody in before.
    fn server(&mut self, server: &ServerConfig, in_site: bool) {
        let (listen, none) = (server.listen, server.tokens.is_empty() && !in_site);
        if none && !listen.ip().to_canonical().is_loopback() {
            self.report(
                "server.listen",
                format!(
                    "{listen} is not a loopback address, and without tokens everyone who reaches \
                     it would get in: make a token (`ocelli token new`) for [[server.tokens]], or \
                     listen on 127.0.0.1"
                ),
            );
        }
        self.tokens(&server.tokens);
        for (index, host) in server.hosts.iter().enumerate() {
            let parsed = url::Host::parse(host);
            if !parsed.is_ok_and(|parsed| parsed.to_string() == host.to_ascii_lowercase()) {
                self.report(
                    format!("server.hosts[{index}]"),
                    format!("expected a host's name or address, without a port, found {host:?}"),
                );
            }
        }
    }

    fn tokens(&mut self, tokens: &[Token]) {
        let (mut names, mut hashes) = (BTreeMap::new(), HashMap::new());
        for (index, token) in tokens.iter().enumerate() {
            let key = |name: &str| format!("server.tokens[{index}].{name}");
            if let Err(error) = check_token_name(&token.name) {
                self.report(key("name"), error.to_string());
            } else if let Some(first) = names.insert(&token.name, index) {
                let message =
                    format!("\"{}\" is the name of server.tokens[{first}] already", token.name);
                self.report(key("name"), message);
            }
            if let Some(first) = hashes.insert(&token.hash, index) {
                self.report(
                    key("hash"),
                    format!("it is the hash of server.tokens[{first}] already"),
                );
            }
            if token.sessions.is_some() && token.role != Role::Viewer {
                let role = token.role.name();
                let message =
                    format!("only a viewer's sessions are named; role \"{role}\" sees all");
                self.report(key("sessions"), message);
            }
        }
    }

    fn limits(&mut self, limits: &ResourceLimits) {
        if limits.guest_memory_mb > limits.memory_per_process_mb {
            self.report(
                "resource_limits.guest_memory_mb",
                format!(
                    "{} is more than the whole worker process may use \
                     (resource_limits.memory_per_process_mb = {})",
                    limits.guest_memory_mb, limits.memory_per_process_mb
                ),
            );
        }
    }

    fn models(&mut self, inference: &InferenceConfig) {
        let mut names = BTreeMap::new();
        for (index, options) in inference.models.iter().enumerate() {
            if let Some(first) = names.insert(&options.name, index) {
                self.report(
                    format!("inference.models[{index}].name"),
                    format!("\"{}\" is in inference.models[{first}] already", options.name),
                );
            }
        }
    }

    fn analyze(&mut self, analyze: &AnalyzeConfig) {
        let reserved: usize = analyze.pipelines.iter().map(|pipeline| pipeline.workers).sum();
        if reserved > analyze.workers {
            self.report(
                "analyze.pipelines",
                format!(
                    "their {reserved} workers are more than analyze.workers = {}",
                    analyze.workers
                ),
            );
        }
    }

    fn deploy(&mut self, deploy: &DeployConfig) {
        for (index, key) in deploy.trusted_keys.iter().enumerate() {
            if let Err(error) = TrustedKey::parse(key) {
                self.report(format!("deploy.trusted_keys[{index}]"), error.to_string());
            }
        }
        if deploy.signatures == Signatures::Required && deploy.trusted_keys.is_empty() {
            let message = "components have to be signed, and deploy.trusted_keys has no key";
            self.report("deploy.signatures", message);
        }
        self.registries(&deploy.registries);
    }

    fn registries(&mut self, registries: &[RegistryConfig]) {
        let mut hosts = BTreeMap::new();
        for (index, RegistryConfig { host, user, password, .. }) in registries.iter().enumerate() {
            let key = |name: &str| format!("deploy.registries[{index}].{name}");
            let host = host.to_ascii_lowercase();
            if !registry::is_registry(&host) {
                self.report(key("host"), format!("expected HOST or HOST:PORT, found {host:?}"));
            } else if let Some(first) = hosts.insert(host, index) {
                let message = format!("it is the host of deploy.registries[{first}] already");
                self.report(key("host"), message);
            }
            match (user, password) {
                (Some(_), None) => self.report(key("user"), "its password is missing"),
                (None, Some(_)) => self.report(key("password"), "its user is missing"),
                _ => {}
            }
        }
    }

    /// Checks the address of Redis. The message does not repeat it.
    fn redis(&mut self, redis: Option<&RedisConfig>) {
        const FORM: &str =
            "expected redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS";
        let Some(url) = redis.map(|redis| redis.url.as_str()) else { return };
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            self.report("redis.url", FORM);
        } else if let Err(error) = url.into_connection_info() {
            // Its text names the part that is wrong.
            self.report("redis.url", format!("{FORM}; {error}"));
        }
    }

    /// Checks what belongs together. The cameras of a site stand in the site.
    fn cluster(&mut self, config: &Config, cameras: &[CameraTable]) {
        let Some(cluster) = &config.cluster else { return };
        for (key, message) in cluster.problems() {
            self.report(format!("cluster.{key}"), message);
        }
        if config.server.cameras_file.is_some() {
            let message = "with [cluster] cameras are the site's: leave this key out";
            self.report("server.cameras_file", message);
        }
        for index in 0..cameras.len() {
            let key = format!("cameras[{index}]");
            if !matches!(self.tree.nearest(&key).origin, ValueOrigin::Cameras(_)) {
                let message = "with [cluster] cameras are the site's: add them with `ocelli camera \
                               put`, or over the API";
                self.report(key, message);
            }
        }
    }

    fn webhooks(&mut self, webhooks: &[WebhookConfig]) {
        let ordinary =
            |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        let mut names = BTreeMap::new();
        for (index, hook) in webhooks.iter().enumerate() {
            let key = |name: &str| format!("webhooks[{index}].{name}");
            if !hook.name.chars().all(ordinary) || hook.name.len() > MAX_WEBHOOK_NAME {
                let message =
                    format!("expected at most {MAX_WEBHOOK_NAME} letters, digits, - and _");
                self.report(key("name"), message);
            } else if let Some(first) = names.insert(&hook.name, index) {
                let message = format!("it is the name of webhooks[{first}] already");
                self.report(key("name"), message);
            }
            if hook.url.is_plain() && !hook.allow_private {
                let message = "http:// reaches private addresses alone: set allow_private = true, \
                               or write https://";
                self.report(key("url"), message);
            }
        }
    }

    /// Checks the address of the broker, which the message does not repeat, and what belongs
    /// together.
    fn mqtt(&mut self, mqtt: Option<&MqttConfig>) {
        let Some(mqtt) = mqtt else { return };
        let tls = match mqtt.address() {
            Ok(address) => address.tls,
            Err(error) => {
                self.report("mqtt.url", error.to_string());
                true
            }
        };
        if mqtt.certificate.is_some() != mqtt.key.is_some() {
            self.report("mqtt.key", "certificate and key belong together");
        }
        if !tls && (mqtt.ca.is_some() || mqtt.key.is_some()) {
            self.report("mqtt.url", "ca, certificate and key are for mqtts://");
        }
        let levels = [Some(&mqtt.prefix), mqtt.name.as_ref(), mqtt.discovery.as_ref()];
        for (key, text) in ["prefix", "name", "discovery"].into_iter().zip(levels) {
            let wrong = |character: char| character.is_control() || "+#".contains(character);
            if text.is_some_and(|text| text.contains(wrong) || text.starts_with('$')) {
                self.report(
                    format!("mqtt.{key}"),
                    "it stands in topics: neither `+` nor `#` nor control characters, and no `$` \
                     at its beginning",
                );
            }
        }
    }

    /// The cameras whose sources can be read.
    fn cameras(
        &mut self,
        tables: Vec<CameraTable>,
        redis: Option<&RedisConfig>,
        max_sessions: usize,
    ) -> Vec<Camera> {
        let mut indexes = BTreeMap::new();
        let mut cameras = Vec::with_capacity(tables.len());
        for (index, table) in tables.into_iter().enumerate() {
            let key = |name: &str| format!("cameras[{index}].{name}");
            let id = table.id();
            if let Err(error) = check_session_id(id) {
                self.report(key("id"), error.to_string());
            } else if id == EVERY_SESSION {
                let message =
                    format!("{EVERY_SESSION:?} stands for every session, and is the name of none");
                self.report(key("id"), message);
            } else if let Some(first) = indexes.insert(id.to_owned(), index) {
                let message = self.name_of_another(id, first, index);
                self.report(key("id"), message);
            }
            if OciReference::is_meant_by(table.pipeline())
                && let Err(error) = table.pipeline().parse::<OciReference>()
            {
                self.report(key("pipeline"), error.to_string());
            }
            if let Some(prefix) = table.redis_prefix() {
                self.redis_prefix(key("redis_prefix"), prefix, redis);
            }
            for (place, fault) in directory::faults(table.directories()) {
                self.report(key(&format!("directories{place}")), fault);
            }
            let wrong = |error| format!("camera \"{}\": {error}", id.escape_debug());
            match table.source().map(|source| (table.substream(&source), source)) {
                Ok((Ok(substream), source)) => cameras.push(table.with_streams(source, substream)),
                Ok((Err(error), _)) => self.report(key("substream"), wrong(error)),
                Err(error) => self.report(key("source"), wrong(error)),
            }
        }
        if indexes.len() > max_sessions {
            self.report(
                "cameras",
                format!(
                    "{} cameras are more than session_processes.max_concurrent_sessions = \
                     {max_sessions}",
                    indexes.len()
                ),
            );
        }
        cameras
    }

    /// Words on a camera that has the name of an earlier one, which may stand in another file.
    fn name_of_another(&self, id: &str, first: usize, second: usize) -> String {
        let origin = |index: usize| &self.tree.nearest(&format!("cameras[{index}].id")).origin;
        let (first_origin, second_origin) = (origin(first), origin(second));
        let key = first_origin.key(format!("cameras[{first}]"));
        match (first_origin, second_origin) {
            (ValueOrigin::Cameras(_), _) | (_, ValueOrigin::Line(_) | ValueOrigin::File) => {
                format!("\"{id}\" is the name of {key} already")
            }
            (ValueOrigin::Line(line), _) => {
                let config = self.path.display();
                format!("\"{id}\" is the name of {key} of {config} already, in line {line}")
            }
            _ => format!("\"{id}\" is the name of {key} of {} already", self.path.display()),
        }
    }

    /// Checks that a pipeline's keys in Redis and the host's own have no prefix in common.
    fn redis_prefix(&mut self, key: String, prefix: &str, redis: Option<&RedisConfig>) {
        match redis {
            None => self.report(key, "there is no [redis] to use"),
            Some(RedisConfig { prefix: own, .. })
                if prefix.starts_with(own) || own.starts_with(prefix) =>
            {
                self.report(
                    key,
                    format!("{prefix:?} and redis.prefix = {own:?} have keys in common"),
                );
            }
            Some(_) => {}
        }
    }
}

/// The values that the schema admits and the types do not: strings with a form of their own.
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
                problems.push(ConfigProblem::at(&tree.nearest(&key).origin, key, message));
            }
        }
    };
    check(vec!["server.listen".into()], |text| {
        let message =
            format!("expected ADDRESS:PORT such as 127.0.0.1:8001, found the string {text:?}");
        text.parse::<std::net::SocketAddr>().is_err().then_some(message)
    });
    check(vec!["server.base_path".into()], parse_error::<BasePath>);
    check(each("server.tokens", ".hash"), parse_error::<TokenHash>);
    check(each("server.tokens", ".expires"), |text| {
        let message = format!(
            "expected a time as RFC 3339 writes it, such as 2030-01-31T12:00:00Z, found {text:?}"
        );
        text.parse::<jiff::Timestamp>().is_err().then_some(message)
    });
    check(vec!["otlp.endpoint".into()], parse_error::<HttpUrl>);
    check(each("webhooks", ".url"), parse_error::<HttpUrl>);
    check(each("webhooks", ".secret"), parse_error::<WebhookSecret>);
    check(each("webhooks", ".previous_secret"), parse_error::<WebhookSecret>);
    check(each("server.origins", ""), parse_error::<WebOrigin>);
    check(each("server.trusted_proxies", ""), parse_error::<TrustedProxy>);
    check(each("subscriptions.sources", ""), parse_error::<SourcePattern>);
    let devices =
        each("inference.models", ".device").into_iter().chain(["inference.device".into()]);
    check(devices.collect(), parse_error::<Device>);
    check(each("cameras", ".decode_device"), parse_error::<DecodeDevice>);
    if problems.is_empty() {
        problems.push(ConfigProblem::whole(error.to_string()));
    }
    problems
}

fn parse_error<T: std::str::FromStr<Err: fmt::Display>>(text: &str) -> Option<String> {
    text.parse::<T>().err().map(|error| error.to_string())
}
