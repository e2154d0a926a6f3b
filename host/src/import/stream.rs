//! One stream of go2rtc's: a source with options behind `#`, or several of which one is taken.

use serde_json::{Map, Value};

use super::variables::Variables;
use crate::config::source::{Source, SourceError, SourceOptions, Transport};

/// A stream as keys of a camera's entry.
#[derive(Debug, Clone, Default)]
pub(super) struct ImportedStream {
    /// `source`, and `transport` where it is another than the default.
    pub(super) keys: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// Why a camera or stream does not become an entry. No part of an address is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is not enabled")]
    NotEnabled,
    #[error("it has no ffmpeg.inputs")]
    NoInputs,
    #[error("its input has no path")]
    NoPath,
    #[error("its input is a restream of go2rtc that the file does not name")]
    UnknownRestream,
    #[error("it has no source")]
    NoSource,
    #[error("its source is not a text")]
    NotText,
    #[error("its source names the variable {0}, which has no value here")]
    Unset(String),
    #[error("it is made by ffmpeg out of another stream or device")]
    MadeByFfmpeg,
    #[error(
        "its source is an ONVIF address: the dashboard's search for cameras, or the camera's own \
         pages, name its RTSP URL"
    )]
    Onvif,
    #[error("its source is `{0}:`; Ocelli reads rtsp:// and rtsps://")]
    OtherScheme(&'static str),
    #[error("its source is neither rtsp:// nor rtsps://")]
    NotRtsp,
    #[error("its address has a `#` that begins no option; write %23")]
    Hash,
    #[error("its address: {0}")]
    Address(#[from] SourceError),
    /// None of several sources: the reason for each, once.
    #[error("{0}")]
    Each(String),
}

/// Where go2rtc restreams what it reads, inside Frigate's container too.
const RESTREAMS: [&str; 3] = ["127.0.0.1:8554", "localhost:8554", "[::1]:8554"];

/// What go2rtc's options for a stream of RTSP say that concerns sound, talking back, or itself: a
/// camera's picture is the same without them.
const WITHOUT_EFFECT: [&str; 6] = ["backchannel", "media", "audio", "timeout", "pkt_size", "gop"];

/// The name of the restream that an address means; `None`: it is another address.
pub(super) fn restream(address: &str) -> Option<&str> {
    let rest = address.strip_prefix("rtsp://")?;
    let (host, path) = rest.split_once('/')?;
    // With a user's name and password of go2rtc's own server.
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    RESTREAMS.contains(&host).then(|| path.split(['?', '#']).next().unwrap_or_default())
}

/// Other sources of go2rtc's that a camera's owner meets.
const OTHER_SCHEMES: [&str; 20] = [
    "bubble", "doorbird", "dvrip", "echo", "exec", "expr", "hass", "homekit", "http", "https",
    "isapi", "kasa", "nest", "onvif", "ring", "rtmp", "tapo", "tuya", "webrtc", "wyze",
];

/// Takes the first source of a list that Ocelli can read. The others are counted in a note.
pub(super) fn first_of(value: &Value, variables: &Variables) -> Result<ImportedStream, Unusable> {
    let sources: Vec<&str> = match value {
        Value::String(source) => vec![source.as_str()],
        Value::Array(sources) => sources.iter().filter_map(Value::as_str).collect(),
        Value::Null => Vec::new(),
        _ => return Err(Unusable::NotText),
    };
    let mut reasons = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        match stream(source, variables) {
            Ok(mut taken) => {
                let others = sources.len().saturating_sub(n + 1) + reasons.len();
                if others > 0 {
                    let plural = if others == 1 { "" } else { "s" };
                    let number = n + 1;
                    taken.notes.push(format!(
                        "of its sources number {number} is taken, {others} other{plural} left out"
                    ));
                }
                return Ok(taken);
            }
            Err(reason) => reasons.push(reason.to_string()),
        }
    }
    reasons.dedup();
    Err(if reasons.is_empty() { Unusable::NoSource } else { Unusable::Each(reasons.join("; ")) })
}

/// Reads one source of go2rtc's.
pub(super) fn stream(text: &str, variables: &Variables) -> Result<ImportedStream, Unusable> {
    let text = variables.expand(text.trim()).map_err(|unset| Unusable::Unset(unset.0))?;
    let (address, options) = text.split_once('#').unwrap_or((&text, ""));
    let mut stream = ImportedStream::default();
    let address = match address.strip_prefix("ffmpeg:") {
        Some(address) if is_rtsp(address) => {
            stream.notes.push("read by ffmpeg in go2rtc, here from the camera itself".to_owned());
            address
        }
        Some(_) => return Err(Unusable::MadeByFfmpeg),
        None => address,
    };
    if !is_rtsp(address) {
        return Err(not_rtsp(address));
    }
    let address = match address.strip_prefix("rtspx://") {
        Some(rest) => format!("rtsps://{rest}"),
        None => address.to_owned(),
    };
    let mut transport = None;
    let mut unknown = Vec::new();
    for option in options.split('#').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("transport", "udp") => transport = Some(Transport::Udp),
            ("transport", "tcp") | ("video", "copy") => {}
            ("video", _) => stream.notes.push(
                "ffmpeg changes its encoding in go2rtc; here it is that of the camera".to_owned(),
            ),
            (key, _) if WITHOUT_EFFECT.contains(&key) => {}
            (key, _) if key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                unknown.push(key.to_owned());
            }
            // What is no option is part of a password, say.
            _ => return Err(Unusable::Hash),
        }
    }
    if !unknown.is_empty() {
        stream.notes.push(format!("without go2rtc's options {}", unknown.join(", ")));
    }
    let is_tls = address.starts_with("rtsps://");
    if is_tls {
        stream.notes.push(
            "go2rtc accepts every certificate; if the camera's is not signed by an authority of \
             this system, set certificate_sha256 to what `ocelli probe` prints"
                .to_owned(),
        );
    }
    let options = SourceOptions { transport, ..SourceOptions::default() };
    Source::configured(&address, options)?;
    stream.keys.insert("source".to_owned(), address.into());
    if let Some(transport) = transport {
        let transport = serde_json::to_value(transport).unwrap_or_default();
        stream.keys.insert("transport".to_owned(), transport);
    }
    Ok(stream)
}

fn is_rtsp(address: &str) -> bool {
    ["rtsp://", "rtsps://", "rtspx://"].iter().any(|scheme| address.starts_with(scheme))
}

/// Why a source of another kind is left out. Of the source only a known scheme is repeated:
/// `user:password@host` has a name where a scheme would be.
fn not_rtsp(address: &str) -> Unusable {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme);
    match OTHER_SCHEMES.into_iter().find(|known| scheme == Some(*known)) {
        Some("onvif") => Unusable::Onvif,
        Some(scheme) => Unusable::OtherScheme(scheme),
        None => Unusable::NotRtsp,
    }
}
