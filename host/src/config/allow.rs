//! The sources that subscribers may name. A pattern is compared with a source that was taken apart,
//! by the same parser that is believed when it is connected to, never with its text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::source::{
    FileSource, RTSP_PORT, RTSPS_PORT, RtspSource, Source, SourceError, file_path, percent_decode,
    strip_scheme,
};

/// One entry of `[subscriptions] sources`:
/// - `rtsp://HOST[:PORT][/PATH]`: `HOST` is a name, an address, `*.DOMAIN` for the names below a
///   domain, or `*`; without a port it is RTSP's own, 554, and `*` is any; `/PATH` is what the path
///   begins with;
/// - `rtsp://ADDRESS/BITS[:PORT]`: the addresses of a network, written as addresses;
/// - both with `rtsps://`, for RTSP over TLS, whose port is 322;
/// - `file:PATH`: a file, or those in a folder and the folders below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourcePattern {
    text: String,
    admits: PatternTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternTarget {
    Rtsp {
        tls: bool,
        host: Host,
        /// `None`: any.
        port: Option<u16>,
        /// Empty: any.
        path: String,
    },
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// The names that end in this, which begins with a dot.
    Below(String),
    Network(IpNet),
}

/// Why a text is not a pattern of sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("expected rtsp://HOST, rtsp://*.DOMAIN, rtsp://ADDRESS/BITS or file:PATH, found {0:?}")]
    Form(String),
    #[error(transparent)]
    Path(#[from] SourceError),
    #[error("a folder is written without \"..\"")]
    ParentFolder,
    #[error("{0:?} has no place in a pattern of hosts, ports and paths")]
    Character(char),
    #[error("{0:?} is neither a host's name, *.DOMAIN, nor an address")]
    Host(String),
    #[error("{0} is not a network")]
    Network(String),
    #[error("{0:?} is not a port: 1 to 65535, or * for any")]
    Port(String),
}

impl SourcePattern {
    /// Whether a subscriber may name this source.
    pub fn admits(&self, source: &Source) -> bool {
        match (&self.admits, source) {
            (PatternTarget::Rtsp { tls, path, .. }, Source::Rtsp(source)) => {
                let (name, number) = source.address();
                *tls == source.tls.is_some()
                    && self.admits_host(name, number)
                    && below(source, path)
            }
            (PatternTarget::File(folder), Source::File(FileSource { path, .. })) => {
                !climbs(path) && path.starts_with(folder)
            }
            _ => false,
        }
    }

    /// The source as it may be read when a subscriber names it: a file beneath the folder that is
    /// written here, or next to the one file that is. `None`: it is not admitted.
    pub fn admitted(&self, source: &Source) -> Option<Source> {
        if !self.admits(source) {
            return None;
        }
        match (&self.admits, source) {
            (PatternTarget::File(written), Source::File(file)) => {
                let folder = if file.path == *written { written.parent()? } else { written };
                let beneath = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                let beneath = Some(beneath.to_owned());
                Some(Source::File(FileSource { beneath, ..file.clone() }))
            }
            _ => Some(source.clone()),
        }
    }

    /// Whether it admits some stream of this name or address at this port.
    pub fn admits_host(&self, name: &str, number: u16) -> bool {
        match &self.admits {
            PatternTarget::Rtsp { host, port, .. } => {
                host.admits(name) && port.is_none_or(|port| port == number)
            }
            PatternTarget::File(_) => false,
        }
    }

    /// Whether it admits some stream of this name or address, at whatever port.
    pub fn admits_name(&self, name: &str) -> bool {
        matches!(&self.admits, PatternTarget::Rtsp { host, .. } if host.admits(name))
    }
}

impl Host {
    fn admits(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self {
            Self::Any => true,
            Self::Name(name) => host == *name,
            Self::Below(domain) => is_name(&host) && host.ends_with(domain),
            // Only a written address counts as one: the resolver would accept 0x0a010001, too.
            Self::Network(network) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| network.contains(&address.to_canonical())),
        }
    }
}

/// Whether the path lies below `start`. A path that a server might resolve to outside does not.
fn below(source: &RtspSource, start: &str) -> bool {
    if start.is_empty() {
        return true;
    }
    let path = source.url().path();
    let Some(rest) = path.strip_prefix(start) else { return false };
    let decoded = percent_decode(path).unwrap_or_default();
    // A % that is left was encoded twice.
    let climbs = decoded.contains('%') || decoded.split(['/', '\\']).any(|part| part == "..");
    !climbs && (rest.is_empty() || start.ends_with('/') || rest.starts_with('/'))
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// Whether this is a name, and nothing that a resolver could take for an address.
fn is_name(host: &str) -> bool {
    let ordinary =
        |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    !number && host.split('.').all(|label| !label.is_empty() && label.chars().all(ordinary))
}

impl FromStr for SourcePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let admits = if let Some(path) = strip_scheme(text, "file:") {
            let path = file_path(path)?;
            if climbs(path) {
                return Err(PatternError::ParentFolder);
            }
            PatternTarget::File(path.to_owned())
        } else if let Some(rest) = strip_scheme(text, "rtsp://") {
            rtsp(rest, false)?
        } else if let Some(rest) = strip_scheme(text, "rtsps://") {
            rtsp(rest, true)?
        } else {
            return Err(PatternError::Form(text.to_owned()));
        };
        Ok(Self { text: text.to_owned(), admits })
    }
}

fn rtsp(rest: &str, tls: bool) -> Result<PatternTarget, PatternError> {
    if let Some(character) = rest
        .chars()
        .find(|character| "@?#\\%".contains(*character) || !character.is_ascii_graphic())
    {
        return Err(PatternError::Character(character));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (name, port) = match authority.rfind(']').map(|end| authority.split_at(end + 1)) {
        Some((name, port)) => (name, port.strip_prefix(':').or((!port.is_empty()).then_some(""))),
        None => {
            authority.split_once(':').map_or((authority, None), |(name, port)| (name, Some(port)))
        }
    };
    let name = name.to_ascii_lowercase();
    let address: Option<IpAddr> =
        match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => {
                address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::from(address).to_canonical())
            }
            None => name.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        };
    let default = if tls { RTSPS_PORT } else { RTSP_PORT };
    let not_a_host = || PatternError::Host(name.clone());
    if let (Some(address), None) = (address, port)
        && let Some((bits, port)) = network(path)
    {
        let network = bits.parse().ok().and_then(|bits| IpNet::new(address, bits).ok());
        let network = network.ok_or_else(|| PatternError::Network(format!("{address}/{bits}")))?;
        return Ok(PatternTarget::Rtsp {
            tls,
            host: Host::Network(network),
            port: port_of(port, default)?,
            path: String::new(),
        });
    }
    let host = match (address, name.strip_prefix('*')) {
        (Some(address), _) => Host::Network(address.into()),
        (None, Some("")) => Host::Any,
        (None, Some(domain)) => match domain.strip_prefix('.') {
            Some(below) if is_name(below) => Host::Below(domain.to_owned()),
            _ => return Err(not_a_host()),
        },
        (None, None) if is_name(&name) => Host::Name(name),
        (None, None) => return Err(not_a_host()),
    };
    let path = if path == "/" { String::new() } else { path.to_owned() };
    Ok(PatternTarget::Rtsp { tls, host, port: port_of(port, default)?, path })
}

/// Of `/16` or `/16:8554` the bits and the port.
fn network(path: &str) -> Option<(&str, Option<&str>)> {
    let path = path.strip_prefix('/')?;
    let (bits, port) = path.split_once(':').map_or((path, None), |(bits, port)| (bits, Some(port)));
    let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((bits, port))
}

/// `default`: the port where none is written.
fn port_of(port: Option<&str>, default: u16) -> Result<Option<u16>, PatternError> {
    match port {
        None => Ok(Some(default)),
        Some("*") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| PatternError::Port(number.to_owned())),
    }
}

impl TryFrom<String> for SourcePattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<SourcePattern> for String {
    fn from(pattern: SourcePattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a pattern admits what is a source; what is none gets nowhere.
    fn admits(pattern: &str, source: &str) -> bool {
        let pattern: SourcePattern = pattern.parse().unwrap();
        Source::parse(source, None, None, false).is_ok_and(|source| pattern.admits(&source))
    }

    #[test]
    fn a_pattern_admits_what_it_says() {
        for (pattern, source) in [
            ("rtsp://cams.example", "rtsp://cams.example/stream"),
            ("rtsp://cams.example", "RTSP://user:pass@CAMS.Example:554/a/../b?x=y"),
            ("rtsp://Cams.example/", "rtsp://cams.example/"),
            ("rtsp://cams.example:8554", "rtsp://cams.example:8554/"),
            ("rtsp://cams.example:*", "rtsp://cams.example:1/"),
            ("rtsp://*.example.org", "rtsp://a.b.example.org/"),
            ("rtsp://*", "rtsp://anything.example/"),
            ("rtsp://*:*", "rtsp://10.0.0.1:9/"),
            ("rtsp://10.1.0.0/16", "rtsp://10.1.255.3/live"),
            ("rtsp://10.1.0.0/16", "rtsp://[::ffff:10.1.0.9]/live"),
            ("rtsp://10.1.0.0/16:*", "rtsp://10.1.0.1:8554/live"),
            ("rtsp://[fd00::]/8:8554", "rtsp://[fd12::1]:8554/live"),
            ("rtsp://[::1]:8554", "rtsp://[0:0:0:0:0:0:0:1]:8554/live"),
            ("rtsps://unifi.example", "rtsps://unifi.example:322/abc?enableSrtp"),
            ("rtsps://10.1.0.0/16:7441", "rtsps://10.1.0.9:7441/abc"),
            ("rtsp://127.0.0.1:8554/live/", "rtsp://127.0.0.1:8554/live/cam%201"),
            ("rtsp://127.0.0.1:8554/live", "rtsp://127.0.0.1:8554/live?channel=1"),
            ("rtsp://10.0.0.1:554/16", "rtsp://10.0.0.1/16"),
            ("file:/var/clips/", "file:/var/clips/a/b.mp4"),
            ("file:/var/clips", "file:///var//clips/./a.mp4"),
            ("file:/", "file:/etc/passwd"),
            ("file:clips", "file:clips/a.mp4"),
        ] {
            assert!(admits(pattern, source), "{pattern} {source}");
        }
    }

    #[test]
    fn what_only_looks_like_an_allowed_source_is_none() {
        for (pattern, source) in [
            // Another host behind, before or beside the name.
            ("rtsp://good.example", "rtsp://good.example.evil.com/"),
            ("rtsp://good.example", "rtsp://good.example@evil.com/"),
            ("rtsp://good.example", "rtsp://good.example:554@evil.com/"),
            ("rtsp://good.example", "rtsp://evil.com\\@good.example.evil.com/"),
            ("rtsp://good.example", "rtsp://evil.com/good.example"),
            ("rtsp://good.example", "rtsp://evil.com?@good.example/"),
            ("rtsp://good.example", "rtsp://evil.com#@good.example/"),
            ("rtsp://good.example", "rtsp://evilgood.example/"),
            ("rtsp://good.example", "rtsp://good.example./"),
            ("rtsp://good.example", "rtsp://g%6fod.example/"),
            ("rtsp://good.example", "rtsp://good.example%2eevil.com/"),
            ("rtsp://good.example", "rtsp://ｇood.example/"),
            ("rtsp://good.example", "rtsp://good.example:22/"),
            ("rtsp://good.example", "rtsp://good.example:*/"),
            ("rtsp://*.example.org", "rtsp://example.org/"),
            ("rtsp://*.example.org", "rtsp://.example.org/"),
            ("rtsp://*.example.org", "rtsp://evil%00.example.org/"),
            ("rtsp://*.example.org", "rtsp://evilexample.org/"),
            ("rtsp://*.example.org", "rtsp://a.example.org.evil.com/"),
            // Addresses in odd notations, which a resolver takes.
            ("rtsp://127.0.0.1", "rtsp://2130706433/"),
            ("rtsp://127.0.0.1", "rtsp://0x7f.1/"),
            ("rtsp://127.0.0.1", "rtsp://127.1/"),
            ("rtsp://127.0.0.1", "rtsp://0177.0.0.1/"),
            ("rtsp://127.0.0.1", "rtsp://127.0.0.01/"),
            ("rtsp://127.0.0.1", "rtsp://127.0.0.1./"),
            ("rtsp://127.0.0.1", "rtsp://[::1]/"),
            ("rtsp://127.0.0.1", "rtsp://localhost/"),
            ("rtsp://10.1.0.0/16", "rtsp://10.2.0.1/"),
            ("rtsp://10.1.0.0/16", "rtsp://[::ffff:10.2.0.1]/"),
            ("rtsp://10.1.0.0/16", "rtsp://10.1.0.1.evil.com/"),
            ("rtsp://10.1.0.0/16", "rtsp://167837697/"),
            ("rtsp://10.1.0.0/16", "rtsp://10.1.0.1:22/"),
            ("rtsp://[::]/0", "rtsp://127.0.0.1/"),
            ("rtsp://[::]/0", "rtsp://[::ffff:127.0.0.1]/"),
            // Ways out of a path.
            ("rtsp://a/live/", "rtsp://a/live"),
            ("rtsp://a/live", "rtsp://a/lively"),
            ("rtsp://a/live/", "rtsp://a/live/../admin"),
            ("rtsp://a/live/", "rtsp://a/live/%2e%2E/admin"),
            ("rtsp://a/live/", "rtsp://a/live/..%2fadmin"),
            ("rtsp://a/live/", "rtsp://a/live/..%5cadmin"),
            ("rtsp://a/live/", "rtsp://a/live/%252e%252e%252fadmin"),
            ("rtsp://a/live/", "rtsp://a/LIVE/x"),
            ("file:/var/clips/", "file:/var/clips/../passwd"),
            ("file:/var/clips/", "file:/var/clips-secret/a"),
            ("file:/var/clips/", "file:var/clips/a"),
            ("file:/var/clips/", "file:/VAR/clips/a"),
            ("file:/var/clips/", "file:%2fvar/clips/a"),
            ("file:/var/clips/", "file://evil/var/clips/a"),
            ("file:clips", "file:clips/../../etc/passwd"),
            // Another scheme.
            ("rtsp://*:*", "file:/etc/passwd"),
            ("rtsp://*:*", "http://a/"),
            ("rtsp://*:*", "rtsps://a/"),
            ("rtsps://*:*", "rtsp://a/"),
            ("rtsps://a", "rtsps://a:554/"),
            ("file:/", "rtsp://a/"),
        ] {
            assert!(!admits(pattern, source), "{pattern} {source}");
        }
    }

    #[test]
    fn a_file_is_read_beneath_the_folder_that_admits_it() {
        for (pattern, source, folder) in [
            ("file:/var/clips/", "file:/var/clips/a/b.mp4", Some("/var/clips")),
            ("file:/var/clips/b.mp4", "file:/var/clips/b.mp4", Some("/var/clips")),
            ("file:b.mp4", "file:b.mp4", Some(".")),
            ("file:/", "file:/", None),
        ] {
            let pattern: SourcePattern = pattern.parse().unwrap();
            let admitted = pattern.admitted(&Source::parse(source, None, None, false).unwrap());
            let beneath = admitted.map(|admitted| match admitted {
                Source::File(file) => file.beneath.unwrap(),
                Source::Rtsp(_) => panic!("{source}"),
            });
            assert_eq!(beneath, folder.map(PathBuf::from), "{source}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_with_what_is_wrong() {
        for (pattern, says) in [
            ("", "expected rtsp://HOST"),
            ("rtsp:", "expected rtsp://HOST"),
            ("http://a", "expected rtsp://HOST"),
            ("*", "expected rtsp://HOST"),
            ("rtsp://", "neither a host's name"),
            ("rtsp://127.0.0.1:", "not a port"),
            ("rtsp://a:99999", "not a port"),
            ("rtsp://user:pass@host", "has no place"),
            ("rtsp://a/../b%2f", "has no place"),
            ("rtsp://*example.org", "neither a host's name"),
            ("rtsp://a.*.org", "neither a host's name"),
            ("rtsp://example.org.", "neither a host's name"),
            ("rtsp://0x7f.1", "neither a host's name"),
            ("rtsp://2130706433", "neither a host's name"),
            ("rtsp://10.0.0.", "neither a host's name"),
            ("rtsp://[::1", "neither a host's name"),
            ("rtsp://[::1]8554", "not a port"),
            ("rtsp://10.0.0.0/33", "not a network"),
            ("file:", "needs a path"),
            ("file://host/x", "this machine"),
            ("file:/a/../b", "without \"..\""),
        ] {
            let error = pattern.parse::<SourcePattern>().unwrap_err().to_string();
            assert!(error.contains(says), "{pattern}: {error}");
        }
    }
}
