//! The config as a whole: as it is written ([`Document`]) and as the host uses it ([`Config`]).

use std::path::PathBuf;

use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::Decode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cluster::ClusterConfig;
use super::directory::Directory;
use super::inference::InferenceConfig;
use super::mqtt::MqttConfig;
use super::otlp::OtlpConfig;
use super::redis::RedisConfig;
use super::sections::{
    AlertsConfig, AnalyzeConfig, DeployConfig, EventsConfig, LogsConfig, ModelsConfig,
    ResourceLimits, SessionProcesses, StoreConfig, SubscriptionsConfig,
};
use super::server::ServerConfig;
use super::source::{
    Pace, ReaderSetting, Source, SourceError, SourceOptions, Transport, strip_scheme,
};
use super::webhook::WebhookConfig;

/// Everything that an operator can set, with the defaults in place.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Config {
    /// The HTTP and WebSocket API.
    pub server: ServerConfig,
    /// The worker processes and their number.
    pub session_processes: SessionProcesses,
    /// Limits of one session.
    pub resource_limits: ResourceLimits,
    /// The process that runs the models.
    pub inference: InferenceConfig,
    /// The folder of models.
    pub models: ModelsConfig,
    /// The folder and the format of log files.
    pub logs: LogsConfig,
    /// Data directory and cache.
    pub store: StoreConfig,
    /// The Redis that events are written to, besides being sent to subscribers. `None`: no Redis.
    pub redis: Option<RedisConfig>,
    /// Receivers of events over HTTP.
    pub webhooks: Vec<WebhookConfig>,
    /// The MQTT broker that events are written to likewise. `None`: none.
    pub mqtt: Option<MqttConfig>,
    /// Retention of events and attachments.
    pub events: EventsConfig,
    /// Sessions that subscribers make.
    pub subscriptions: SubscriptionsConfig,
    /// Changing the pipeline of a running session.
    pub deploy: DeployConfig,
    /// The analysis of single images.
    pub analyze: AnalyzeConfig,
    /// The collector that gets traces. `None`: there are none.
    pub otlp: Option<OtlpConfig>,
    /// When an alert is raised.
    pub alerts: AlertsConfig,
    /// The site that the host belongs to. `None`: it stands alone.
    pub cluster: Option<ClusterConfig>,
    /// Sessions that are always on.
    #[serde(skip)]
    pub cameras: Vec<Camera>,
}

/// A session that is always on.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// The session's name; see [`check_session_id`](super::check_session_id).
    pub id: String,
    /// The source of its frames.
    pub source: Source,
    /// A smaller stream of the same camera, whose frames are analysed in the source's place.
    pub substream: Option<Source>,
    /// A pipeline's name, a path to a `.wasm` component, or a reference to one in a registry; see
    /// [`OciReference`](super::OciReference).
    pub pipeline: String,
    /// Given to the pipeline.
    pub settings: Map<String, Value>,
    /// Which frames are decoded.
    pub decode: Decode,
    /// What decodes them.
    pub decode_device: DecodeDevice,
    /// Its share of the inference process.
    pub priority: Priority,
    /// Prefix of the Redis keys that its pipeline may use. `None`: no access to Redis.
    pub redis_prefix: Option<String>,
    /// Folders that its pipeline may use.
    pub directories: Vec<Directory>,
}

/// A config as it is written: [`Config`] before sources are taken apart. Its keys are those
/// of the schema. Without `Debug`: it holds credentials.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(
    title = "Ocelli configuration",
    description = "What `ocelli serve --config FILE` reads, as TOML or JSON. The host checks a \
        config against this very schema."
)]
pub(super) struct Document {
    server: ServerConfig,
    session_processes: SessionProcesses,
    resource_limits: ResourceLimits,
    inference: InferenceConfig,
    models: ModelsConfig,
    logs: LogsConfig,
    store: StoreConfig,
    events: EventsConfig,
    redis: Option<RedisConfig>,
    /// Receivers of events over HTTP, besides subscribers.
    webhooks: Vec<WebhookConfig>,
    mqtt: Option<MqttConfig>,
    subscriptions: SubscriptionsConfig,
    deploy: DeployConfig,
    analyze: AnalyzeConfig,
    alerts: AlertsConfig,
    otlp: Option<OtlpConfig>,
    cluster: Option<ClusterConfig>,
    /// Sessions that are always on.
    cameras: Vec<CameraTable>,
}

/// A session that is always on.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CameraTable {
    /// The session's name: anything printable, unique, at most 200 bytes.
    #[schemars(length(min = 1))]
    id: String,
    /// rtsp://USER:PASSWORD@HOST:PORT/PATH, rtsps:// for TLS, or file:PATH (mp4, mov, mkv, MPEG-TS,
    /// avi, or a raw stream).
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    source: String,
    /// A second, smaller stream of the same camera, rtsp:// or rtsps://: its frames are analysed,
    /// viewers get those of source. transport, silence_s, reader and the certificates of TLS count
    /// for both. Left out: one stream does both.
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    substream: Option<String>,
    /// How RTSP media is carried. UDP has no reorder buffer here, so it loses more.
    #[schemars(extend("default" = Transport::default()))]
    transport: Option<Transport>,
    /// Seconds that an RTSP camera may send no picture before its connection is given up. Left out:
    /// as the rate says that it has shown, 4 to 120.
    #[schemars(range(min = 1, max = 3600))]
    silence_s: Option<u64>,
    /// Who reads a camera: "strict" goes by the standards and costs least, "compatible" bears what
    /// cameras in the field do, in a process of its own; "auto" begins with the first and goes over
    /// to the second where that fails.
    #[schemars(extend("default" = ReaderSetting::default()))]
    reader: Option<ReaderSetting>,
    /// For rtsps://: a PEM file with the certificate authorities that are trusted, instead of the
    /// system's. Relative to the working directory.
    #[schemars(length(min = 1))]
    ca: Option<PathBuf>,
    /// For rtsps://: SHA-256 of the camera's own certificate, 64 hexadecimal digits. It is trusted
    /// alone, whoever signed it.
    #[schemars(length(min = 1))]
    certificate_sha256: Option<String>,
    /// How fast a file is read: as fast as the pipeline takes it, or as fast as it was recorded.
    #[schemars(extend("default" = Pace::default()))]
    pace: Option<Pace>,
    /// Whether a file begins again at its end.
    #[serde(default)]
    repeat: bool,
    /// A pipeline's name, a path to a .wasm component, or a reference to one in a registry:
    /// oci://HOST[:PORT]/REPOSITORY:TAG, with @sha256:DIGEST behind the tag or in its place.
    #[schemars(length(min = 1))]
    pipeline: String,
    /// Settings of the pipeline, which defines their schema.
    #[serde(default)]
    settings: Map<String, Value>,
    /// Frames to decode: all, those that others refer to, or key frames alone.
    #[serde(default)]
    decode: Decode,
    /// What decodes: cpu, a GPU by vaapi or vaapi:/dev/dri/renderD128, or an NVIDIA one by cuda or
    /// cuda:N. A device that does not decode the stream fails the camera; the processor does not
    /// take its place.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1), extend("default" = "cpu"))]
    decode_device: DecodeDevice,
    /// The session's share of the inference process under overload: low is a quarter of normal,
    /// high four times as much.
    #[serde(default)]
    priority: Priority,
    /// Prefix of the Redis keys that the pipeline may use, as the wasi:keyvalue bucket "redis".
    /// Left out: no access to Redis.
    #[schemars(length(min = 1, max = 200))]
    redis_prefix: Option<String>,
    /// Folders that the pipeline may use. Left out: it sees no file.
    #[serde(default)]
    #[schemars(length(max = 8))]
    directories: Vec<Directory>,
    /// In a site: what its host must have, as labels of [cluster]: ["gpu"]. A host that stands alone
    /// takes the camera whatever they say.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1)))]
    labels: Vec<String>,
    /// In a site: the networks that its host must reach, by their names in [cluster] networks. A host
    /// that stands alone takes the camera whatever they say.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1)))]
    networks: Vec<String>,
}

impl Document {
    /// The config without cameras, and their tables.
    pub(super) fn into_parts(self) -> (Config, Vec<CameraTable>) {
        let config = Config {
            server: self.server,
            session_processes: self.session_processes,
            resource_limits: self.resource_limits,
            inference: self.inference,
            models: self.models,
            logs: self.logs,
            store: self.store,
            redis: self.redis,
            webhooks: self.webhooks,
            mqtt: self.mqtt,
            events: self.events,
            subscriptions: self.subscriptions,
            deploy: self.deploy,
            analyze: self.analyze,
            alerts: self.alerts,
            otlp: self.otlp,
            cluster: self.cluster,
            cameras: Vec::new(),
        };
        (config, self.cameras)
    }
}

impl CameraTable {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn pipeline(&self) -> &str {
        &self.pipeline
    }

    pub(super) fn redis_prefix(&self) -> Option<&str> {
        self.redis_prefix.as_deref()
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// The source, read from its keys.
    pub(super) fn source(&self) -> Result<Source, SourceError> {
        let options = SourceOptions {
            transport: self.transport,
            silence_s: self.silence_s,
            pace: self.pace,
            repeat: self.repeat,
            reader: self.reader,
            ca: self.ca.clone(),
            certificate_sha256: self.certificate_sha256.clone(),
        };
        Source::configured(&self.source, options)
    }

    /// The substream of a camera with this source, read from the same keys.
    pub(super) fn substream(&self, source: &Source) -> Result<Option<Source>, SourceError> {
        let Some(text) = &self.substream else { return Ok(None) };
        let Source::Rtsp(main) = source else {
            return Err(SourceError::Substream("a substream is of a camera; the source is a file"));
        };
        let is_tls = strip_scheme(text.trim(), "rtsps://").is_some();
        let options = SourceOptions {
            transport: self.transport,
            silence_s: self.silence_s,
            reader: self.reader,
            ca: self.ca.clone().filter(|_| is_tls),
            certificate_sha256: self.certificate_sha256.clone().filter(|_| is_tls),
            ..SourceOptions::default()
        };
        match Source::configured(text, options)? {
            Source::File(_) => Err(SourceError::Substream(
                "a substream is an rtsp:// or rtsps:// URL of the same camera, no file",
            )),
            Source::Rtsp(stream) if stream.is_same_stream(main) => Err(SourceError::Substream(
                "the substream is the source itself: leave it out, or name the camera's smaller \
                 stream",
            )),
            stream => Ok(Some(stream)),
        }
    }

    /// The camera, its streams read.
    pub(super) fn with_streams(self, source: Source, substream: Option<Source>) -> Camera {
        Camera {
            id: self.id,
            source,
            substream,
            pipeline: self.pipeline,
            settings: self.settings,
            decode: self.decode,
            decode_device: self.decode_device,
            priority: self.priority,
            redis_prefix: self.redis_prefix,
            directories: self.directories,
        }
    }
}
