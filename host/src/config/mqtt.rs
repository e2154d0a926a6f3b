//! The section `[mqtt]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::sink::{self, SinkStart};

/// The schemes of a broker's address, each with its port.
const SCHEMES: [(&str, u16); 2] = [("mqtt", 1883), ("mqtts", 8883)];

/// The MQTT broker that events are written to, besides being sent to subscribers. Without the
/// section: none.
// Its `Debug` leaves out the address, which holds credentials.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// mqtt://USER:PASSWORD@HOST:PORT; mqtts:// for TLS. The broker speaks MQTT 5.
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    pub url: String,
    /// A PEM file with the certificate authorities that are trusted, instead of the system's.
    /// Relative to the working directory.
    #[schemars(length(min = 1))]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate by which the host identifies itself, and those that lead
    /// from it to its authority. Needs `key`.
    #[schemars(length(min = 1))]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of this certificate.
    #[schemars(length(min = 1))]
    pub key: Option<PathBuf>,
    /// The first levels of every topic.
    #[serde(default = "prefix")]
    #[schemars(length(min = 1, max = 200))]
    pub prefix: String,
    /// The host's name in topics and towards the broker: hosts that share a broker need different
    /// ones. Left out: the machine's name.
    #[schemars(length(min = 1, max = 100))]
    pub name: Option<String>,
    /// Where a broker begins that this host has not written to before: with the events from now on,
    /// or with the beginning of the journal.
    #[serde(default)]
    pub from: SinkStart,
    /// The cameras whose detections are published, "*" for all sessions.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub detections: Vec<String>,
    /// Messages with detections of one session in a second, at most.
    #[serde(default = "detections_per_second")]
    #[schemars(range(min = 0.01, max = 100))]
    pub detections_per_second: f64,
    /// When the picture of a camera is published.
    #[serde(default)]
    pub pictures: PicturePublishing,
    /// With `pictures = "interval"`: seconds from one picture to the next.
    #[serde(default = "pictures_s")]
    #[schemars(range(min = 1, max = 86_400))]
    pub pictures_s: u64,
    /// Width of a picture in pixels, at most.
    #[serde(default = "pictures_width")]
    #[schemars(range(min = 64, max = 3840))]
    pub pictures_width: u32,
    /// Kibibytes of a picture, at most: a larger one is not published.
    #[serde(default = "pictures_kb")]
    #[schemars(range(min = 8, max = 8192))]
    pub pictures_kb: u32,
    /// The first level of Home Assistant's topics, under which the cameras announce themselves:
    /// "homeassistant", as a rule. Left out: they do not.
    #[schemars(length(min = 1, max = 200))]
    pub discovery: Option<String>,
    /// Milliseconds that connecting to the broker may take, and each of its answers.
    #[serde(default = "timeout_ms")]
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// Seconds of silence after which the host asks whether the broker is there.
    #[serde(default = "keep_alive_s")]
    #[schemars(range(min = 1, max = 3600))]
    pub keep_alive_s: u16,
}

/// When the picture of a camera is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PicturePublishing {
    /// Never.
    #[default]
    Off,
    /// With an event, once a second at most.
    Events,
    /// Every `pictures_s` seconds.
    Interval,
}

/// Where a broker is, and who the host is to it.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<String>,
}

/// The address has another form. The text does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected mqtt://USER:PASSWORD@HOST:PORT, or mqtts:// for TLS, and nothing behind it")]
pub struct BrokerAddressError;

impl MqttConfig {
    /// Where it is, without credentials.
    pub fn shown_address(&self) -> String {
        sink::shown(&self.url)
    }

    /// Takes the address apart.
    pub fn address(&self) -> Result<BrokerAddress, BrokerAddressError> {
        let url = Url::parse(&self.url).map_err(|_| BrokerAddressError)?;
        let scheme = SCHEMES.into_iter().find(|(scheme, _)| *scheme == url.scheme());
        let (scheme, usual) = scheme.ok_or(BrokerAddressError)?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        let host = url.host_str().filter(|host| !host.is_empty() && bare);
        let host = host.ok_or(BrokerAddressError)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let plain = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| BrokerAddressError)
        };
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(plain).transpose()?;
        let password = url.password().map(plain).transpose()?;
        let port = url.port().unwrap_or(usual);
        Ok(BrokerAddress { host, port, tls: scheme == "mqtts", user, password })
    }
}

impl std::fmt::Debug for MqttConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mqtt").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn prefix() -> String {
    "ocelli".into()
}

fn detections_per_second() -> f64 {
    2.0
}

fn pictures_s() -> u64 {
    10
}

fn pictures_width() -> u32 {
    1280
}

fn pictures_kb() -> u32 {
    512
}

fn timeout_ms() -> u32 {
    5000
}

fn keep_alive_s() -> u16 {
    30
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> MqttConfig {
        serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
    }

    #[test]
    fn an_address_is_taken_apart_and_shown_to_nobody() {
        let config = config("mqtts://ann:hunter%232@[::1]");
        assert!(!format!("{config:?}").contains("hunter"));
        let BrokerAddress { host, port, tls, user, password } = config.address().unwrap();
        assert_eq!((&*host, port, tls), ("::1", 8883, true));
        assert_eq!((user.as_deref(), password.as_deref()), (Some("ann"), Some("hunter#2")));
    }

    #[test]
    fn what_is_no_address_of_a_broker_is_refused() {
        for url in
            ["", "h", "http://h", "mqtt:h", "mqtt://", "mqtt://h/x", "mqtt://h?x=1", "mqtt://h:x"]
        {
            assert!(config(url).address().is_err(), "{url}");
        }
        let plain = config("mqtt://h").address().unwrap();
        assert_eq!((plain.port, plain.tls, plain.user), (1883, false, None));
    }
}
