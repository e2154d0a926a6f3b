//! What a config says of a source beside its URL or path.

use std::path::PathBuf;

use ocelli_protocol::digest::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::source_error::SourceError;

/// The transport of RTP packets from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Inside the RTSP connection: nothing is lost, passes every firewall that RTSP passes.
    #[default]
    Tcp,
    /// In datagrams of their own. Packets that overtake each other count as lost.
    Udp,
}

/// How fast a file's access units are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// As fast as the session takes them.
    #[default]
    AsFast,
    /// At the speed at which they were recorded.
    Realtime,
}

/// The certificates that are trusted of a camera with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsTrust {
    /// Those of the system's certificate authorities.
    #[default]
    System,
    /// Those of the authorities in this PEM file.
    Authorities(PathBuf),
    /// The one with this SHA-256, whoever signed it.
    Pinned(Digest),
}

/// Which reader reads a camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderSetting {
    /// The strict one, and where that fails on the stream the compatible one.
    #[default]
    Auto,
    /// The host's own, which costs next to nothing and goes by the standards.
    Strict,
    /// libavformat in a confined process of its own, which bears what cameras in the field do.
    Compatible,
}

/// What a config says of a source beside its URL or path. `None` and `false` mean the default and
/// fit every source.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Of RTP packets; for cameras.
    pub transport: Option<Transport>,
    /// Seconds that a camera may send no picture before its connection is given up.
    pub silence_s: Option<u64>,
    /// For files.
    pub pace: Option<Pace>,
    /// For files.
    pub repeat: bool,
    /// For cameras.
    pub reader: Option<ReaderSetting>,
    /// A PEM file with the authorities that are trusted; for `rtsps://`.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the camera's certificate, hexadecimal; for `rtsps://`.
    pub certificate_sha256: Option<String>,
}

impl SourceOptions {
    /// Refuses options that files do not have.
    pub(super) fn fit_file(&self) -> Result<(), SourceError> {
        let only_live = |key| Err(SourceError::LiveKey { key });
        match self {
            Self { transport: Some(_), .. } => only_live("transport"),
            Self { reader: Some(_), .. } => only_live("reader"),
            Self { silence_s: Some(_), .. } => only_live("silence_s"),
            _ => self.fit_plain(),
        }
    }

    /// Refuses options of sources with TLS.
    pub(super) fn fit_plain(&self) -> Result<(), SourceError> {
        match self {
            Self { ca: Some(_), .. } => Err(SourceError::NotTls { key: "ca" }),
            Self { certificate_sha256: Some(_), .. } => {
                Err(SourceError::NotTls { key: "certificate_sha256" })
            }
            _ => Ok(()),
        }
    }

    /// Refuses options that live streams do not have.
    pub(super) fn fit_live(&self) -> Result<(), SourceError> {
        match self {
            Self { repeat: true, .. } => Err(SourceError::FileKey { key: "repeat" }),
            Self { pace: Some(_), .. } => Err(SourceError::FileKey { key: "pace" }),
            _ => Ok(()),
        }
    }

    /// The certificates that are trusted of a source with TLS.
    pub(super) fn trust(&self) -> Result<TlsTrust, SourceError> {
        if self.transport == Some(Transport::Udp) {
            return Err(SourceError::TlsNeeds("transport = \"tcp\": all media is encrypted"));
        }
        if self.reader == Some(ReaderSetting::Strict) {
            let needs = "the compatible reader: leave reader out, the strict one has no TLS";
            return Err(SourceError::TlsNeeds(needs));
        }
        match (&self.ca, &self.certificate_sha256) {
            (Some(_), Some(_)) => Err(SourceError::TwoTrusts),
            (Some(file), None) => Ok(TlsTrust::Authorities(file.clone())),
            (None, Some(text)) => {
                // As `openssl x509 -fingerprint` and others write it, with or without colons.
                let digits = text.replace(':', "").to_ascii_lowercase();
                digits.parse().map(TlsTrust::Pinned).map_err(|_| SourceError::Fingerprint)
            }
            (None, None) => Ok(TlsTrust::System),
        }
    }
}

/// Leaves out `enableSrtp`, with which UniFi asks for a second encryption within TLS.
pub(super) fn leave_out_srtp(url: &mut Url) {
    let Some(query) = url.query().map(str::to_owned) else { return };
    let is_srtp = |pair: &&str| {
        pair.split('=').next().is_some_and(|name| name.eq_ignore_ascii_case("enableSrtp"))
    };
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_srtp(pair)).collect();
    url.set_query((!rest.is_empty()).then(|| rest.join("&")).as_deref());
}

#[cfg(test)]
mod tests {
    use super::super::source::{RtspSource, Source};
    use super::*;

    fn rtsp(text: &str) -> RtspSource {
        match Source::parse(text, None, None, false) {
            Ok(Source::Rtsp(source)) => source,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_with_tls_has_its_own_port_and_trusts_the_system_unless_it_is_said() {
        let text = "rtsps://u:p%40s@unifi:7441/abc?enableSrtp&x=1";
        let source = rtsp(text);
        assert_eq!(source.to_string(), "rtsps://***:***@unifi:7441/abc?x=1");
        assert_eq!(source.request_url(), "rtsp://u:p%40s@unifi:7441/abc?x=1");
        assert_eq!(source.tls, Some(TlsTrust::System));
        assert_eq!(rtsp("rtsps://[::1]/abc?enableSrtp").address(), ("::1", 322));
        assert_eq!(rtsp("rtsps://[::1]/a?enableSrtp").request_url(), "rtsp://[::1]:322/a");
        assert_eq!(rtsp("rtsps://a:322/x"), rtsp("rtsps://a/x"));

        let of = |text: &str, options: SourceOptions| match Source::configured(text, options) {
            Ok(Source::Rtsp(source)) => Ok(source.tls),
            Ok(Source::File(_)) => panic!("{text} is no file"),
            Err(error) => Err(error),
        };
        let pinned = |text: &str| SourceOptions {
            certificate_sha256: Some(text.to_owned()),
            ..SourceOptions::default()
        };
        let ca = SourceOptions { ca: Some("a.pem".into()), ..SourceOptions::default() };
        assert_eq!(of(text, ca.clone()), Ok(Some(TlsTrust::Authorities("a.pem".into()))));
        let colons = ["0A"; 32].join(":");
        assert_eq!(of(text, pinned(&colons)), Ok(Some(TlsTrust::Pinned([10; 32].into()))));
        assert_eq!(of(text, pinned(&"0a".repeat(32))), Ok(Some(TlsTrust::Pinned([10; 32].into()))));
        for wrong in ["", "0a", &"0a".repeat(33), &"0g".repeat(32), &"a".repeat(63)] {
            assert_eq!(of(text, pinned(wrong)), Err(SourceError::Fingerprint), "{wrong}");
        }
        let both = SourceOptions { ca: Some("a.pem".into()), ..pinned(&colons) };
        assert_eq!(of(text, both), Err(SourceError::TwoTrusts));
        assert_eq!(of("rtsp://a/b", ca), Err(SourceError::NotTls { key: "ca" }));
        let strict =
            SourceOptions { reader: Some(ReaderSetting::Strict), ..SourceOptions::default() };
        assert!(matches!(of(text, strict.clone()), Err(SourceError::TlsNeeds(_))));
        assert_eq!(of("file:a", strict), Err(SourceError::LiveKey { key: "reader" }));
    }
}
