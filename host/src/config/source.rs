//! Sources of video: an RTSP URL or a file, parsed from a config key or a message.
//!
//! Credentials are taken out of the URL here and nowhere else. The rest can be shown:
//! [`Display`](fmt::Display) and [`Debug`](fmt::Debug) of everything in this module hide them, and
//! no error repeats any part of the text that could hold them.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{
    NON_ALPHANUMERIC, percent_decode as decode, percent_decode_str, utf8_percent_encode,
};
use url::Url;

pub use super::source_error::SourceError;
use super::source_options::leave_out_srtp;
pub use super::source_options::{Pace, ReaderSetting, SourceOptions, TlsTrust, Transport};

/// A source of access units. Equal sources share one connection to the camera.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A live stream over RTSP.
    Rtsp(RtspSource),
    /// A recording in a file.
    File(FileSource),
}

/// A live stream of an RTSP server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RtspSource {
    url: Url,
    /// Credentials for the server.
    pub credentials: Option<Credentials>,
    /// The transport of RTP packets.
    pub transport: Transport,
    /// How long it may send no picture before its connection is given up. `None`: as its rate says.
    pub silence: Option<Duration>,
    /// The reader of its stream.
    pub reader: ReaderSetting,
    /// `rtsps://`: the certificates that are trusted. `None`: without TLS.
    pub tls: Option<TlsTrust>,
    /// Named by a subscriber, not by the config.
    pub is_subscribers: bool,
}

/// A video file and how it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileSource {
    /// As written; a relative path starts from the process's working directory.
    pub path: PathBuf,
    /// How fast access units are handed out.
    pub pace: Pace,
    /// Restart at the end, forever. Numbers and times continue without a gap.
    pub repeat: bool,
    /// The folder that the file has to lie in when it is opened, since a subscriber named it.
    /// `None`: the operator named it.
    pub beneath: Option<PathBuf>,
}

/// User name and password, percent-decoded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User name, percent-decoded.
    pub user: String,
    /// Password, percent-decoded. Empty if the URL has none.
    pub password: String,
}

/// Schemes worth naming in an error. A scheme outside this list is not repeated: in
/// `user:password@host` the user name stands where a scheme would.
const KNOWN_SCHEMES: [&str; 12] =
    ["rtspu", "http", "https", "rtmp", "rtmps", "srt", "rtp", "udp", "hls", "ftp", "ws", "wss"];

/// RTSP's port where a URL names none (RFC 2326, 3.2).
pub(super) const RTSP_PORT: u16 = 554;

/// The port of RTSP over TLS where a URL names none (RFC 7826, 22.14.1).
pub(super) const RTSPS_PORT: u16 = 322;

/// Placeholder for a hidden user name, password or token.
const HIDDEN: &str = "***";

/// Letters and digits on end that make a token: recorders name a stream by so many.
const TOKEN: usize = 16;

impl Source {
    /// Reads a source with the options that most have; see [`configured`](Self::configured).
    pub fn parse(
        text: &str,
        transport: Option<Transport>,
        pace: Option<Pace>,
        repeat: bool,
    ) -> Result<Self, SourceError> {
        let options = SourceOptions { transport, pace, repeat, ..SourceOptions::default() };
        Self::configured(text, options)
    }

    /// Reads `rtsp://[user[:password]@]host[:port]/path`, the same with `rtsps://`, or `file:PATH`.
    ///
    /// User name and password are percent-decoded.
    ///
    /// # Errors Names the error in the text, without repeating the text.
    pub fn configured(text: &str, options: SourceOptions) -> Result<Self, SourceError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        if let Some(path) = strip_scheme(text, "file:") {
            options.fit_file()?;
            let (path, repeat) = (file_path(path)?.to_owned(), options.repeat);
            let pace = options.pace.unwrap_or_default();
            return Ok(Self::File(FileSource { path, pace, repeat, beneath: None }));
        }
        if let Some(is_tls) =
            ["rtsp://", "rtsps://"].iter().position(|scheme| strip_scheme(text, scheme).is_some())
        {
            return RtspSource::parse(text, is_tls == 1, options).map(Self::Rtsp);
        }
        if strip_scheme(text, "rtspx://").is_some() {
            return Err(SourceError::Unchecked);
        }
        let known = KNOWN_SCHEMES
            .into_iter()
            .find(|scheme| strip_scheme(text, scheme).is_some_and(|rest| rest.starts_with("://")));
        Err(known.map_or(SourceError::Unrecognised, |scheme| SourceError::Scheme { scheme }))
    }

    /// Whether the source is live. It never waits for a slow reader, a file does.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Rtsp(_))
    }

    /// Whether the strict reader cannot read it whatever it is like.
    pub fn needs_compatible_reader(&self) -> bool {
        matches!(self, Self::Rtsp(RtspSource { tls: Some(_), .. }))
    }

    /// The same source as a subscriber named it.
    #[must_use]
    pub fn of_subscriber(self) -> Self {
        match self {
            Self::Rtsp(source) => Self::Rtsp(RtspSource { is_subscribers: true, ..source }),
            file @ Self::File(_) => file,
        }
    }
}

impl RtspSource {
    fn parse(text: &str, is_tls: bool, options: SourceOptions) -> Result<Self, SourceError> {
        options.fit_live()?;
        let tls = if is_tls {
            Some(options.trust()?)
        } else {
            options.fit_plain()?;
            None
        };
        let mut url =
            Url::parse(text).map_err(|error| SourceError::Url { reason: error.to_string() })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(SourceError::NoHost);
        }
        // The parser reads rtsp://user:12#34@host/ as host "user", port 12: show nothing of that.
        if url.fragment().is_some() {
            return Err(SourceError::Reserved { character: '#', encoded: "%23" });
        }
        if url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) {
            return Err(SourceError::Reserved { character: '@', encoded: "%40" });
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Credentials {
                user: percent_decode(user)?,
                password: percent_decode(password.unwrap_or_default())?,
            }),
        };
        let cleared = url.set_username("").and_then(|()| url.set_password(None)).and_then(|()| {
            let default = if is_tls { RTSPS_PORT } else { RTSP_PORT };
            if url.port() == Some(default) { url.set_port(None) } else { Ok(()) }
        });
        cleared.map_err(|()| SourceError::NoHost)?;
        if is_tls {
            leave_out_srtp(&mut url);
        }
        let transport = options.transport.unwrap_or_default();
        let reader = options.reader.unwrap_or_default();
        let silence = options.silence_s.map(Duration::from_secs);
        Ok(Self { url, credentials, transport, silence, reader, tls, is_subscribers: false })
    }

    /// Whether both are one stream of one camera, whoever named it and whichever reader reads it.
    pub fn is_same_stream(&self, other: &Self) -> bool {
        self.url == other.url
            && self.credentials == other.credentials
            && self.transport == other.transport
    }

    /// The URL that the compatible reader asks for, with the credentials: always `rtsp://`, since
    /// the host speaks TLS for it. It must not be shown.
    pub fn request_url(&self) -> String {
        let (host, port) = self.address();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let credentials = match &self.credentials {
            Some(Credentials { user, password }) => {
                format!("{}:{}@", encode(user), encode(password))
            }
            None => String::new(),
        };
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("rtsp://{credentials}{host}:{port}{}{query}", self.url.path())
    }

    /// The URL without credentials, as it goes into requests. It may hold a token in its query: to
    /// show it, show the source.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Host and port to connect to.
    pub fn address(&self) -> (&str, u16) {
        let host = self.url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let default = if self.tls.is_some() { RTSPS_PORT } else { RTSP_PORT };
        (host, self.url.port().unwrap_or(default))
    }

    /// Hides secrets in the text of a server or library: user name and password, plain and
    /// percent-encoded, and the secret values of the URL's query.
    pub fn scrub(&self, text: &str) -> String {
        let mut scrubbed = text.to_owned();
        if let Some(credentials) = &self.credentials {
            let mut secrets = [credentials.user.as_str(), credentials.password.as_str()];
            // The longer one first: a password that holds the user name must go as a whole.
            secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
            for secret in secrets.into_iter().filter(|secret| !HIDDEN.contains(secret)) {
                scrubbed = hide(&scrubbed, secret);
            }
        }
        if let Some(query) = self.url.query().filter(|query| !query.is_empty()) {
            scrubbed = scrubbed.replace(query, &hide_secret_pairs(query));
        }
        let path = self.url.path();
        scrubbed = scrubbed.replace(path, &shown_path(path));
        for segment in path.split('/').filter(|segment| is_secret(segment)) {
            scrubbed = scrubbed.replace(segment, HIDDEN);
        }
        scrubbed
    }
}

/// Hides every occurrence of a secret, whichever of its characters are percent-encoded there.
fn hide(text: &str, secret: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match after_encoded(rest, secret) {
            Some(after) => {
                shown.push_str(HIDDEN);
                rest = after;
            }
            None => {
                shown.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
    }
    shown
}

/// The rest of a text after the secret that it starts with.
fn after_encoded<'a>(text: &'a str, secret: &str) -> Option<&'a str> {
    text.get(encoded_length(text.as_bytes(), secret.as_bytes())?..)
}

fn encoded_length(text: &[u8], secret: &[u8]) -> Option<usize> {
    let Some((byte, secret)) = secret.split_first() else { return Some(0) };
    let escaped = || match text {
        [b'%', high, low, text @ ..] if decode(&[b'%', *high, *low]).eq([*byte]) => {
            Some(encoded_length(text, secret)? + 3)
        }
        _ => None,
    };
    // A % in the text may start an escape or be one of the secret's own.
    escaped().or_else(|| match text {
        [literal, text @ ..] if literal == byte => Some(encoded_length(text, secret)? + 1),
        _ => None,
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp(source) => source.fmt(f),
            Self::File(source) => source.fmt(f),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp(source) => fmt::Debug::fmt(source, f),
            Self::File(source) => fmt::Debug::fmt(source, f),
        }
    }
}

impl fmt::Display for RtspSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "rtsps://" } else { "rtsp://" })?;
        if self.credentials.is_some() {
            write!(f, "{HIDDEN}:{HIDDEN}@")?;
        }
        f.write_str(self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(&shown_path(self.url.path()))?;
        match self.url.query() {
            Some(query) => write!(f, "?{}", hide_secret_pairs(query)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RtspSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtspSource")
            .field("url", &format_args!("{self}"))
            .field("transport", &self.transport)
            .field("silence", &self.silence)
            .field("reader", &self.reader)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.path.display())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The text after `scheme`, which is compared without regard to case.
pub(super) fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The path of a `file:` source: `PATH`, or `//` and an absolute path. It is not decoded.
pub(super) fn file_path(text: &str) -> Result<&Path, SourceError> {
    let path = match text.strip_prefix("//") {
        None => text,
        Some(path) if path.starts_with('/') => path,
        Some("") => "",
        Some(_) => return Err(SourceError::RemoteFile),
    };
    if path.is_empty() { Err(SourceError::NoPath) } else { Ok(Path::new(path)) }
}

/// Decodes `%41` to `A`. A `%` that starts no escape stands for itself.
pub(super) fn percent_decode(text: &str) -> Result<String, SourceError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| SourceError::Credentials)
}

/// A URL's path as it is shown: without segments that are secrets, and without the values of pairs
/// that are.
fn shown_path(path: &str) -> String {
    let shown = |segment| {
        if is_secret(segment) { HIDDEN.to_owned() } else { hide_secret_pairs(segment) }
    };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// Whether a segment of a path is a secret by its looks: `user:password`, or a token. That is 16
/// letters and digits on end, or 32 characters of any kind, with a letter and a digit among them.
fn is_secret(segment: &str) -> bool {
    let is_mixed = |text: &str| {
        text.contains(|c: char| c.is_ascii_digit()) && text.contains(char::is_alphabetic)
    };
    let is_long = |text: &str| text.len() >= TOKEN && is_mixed(text);
    !segment.contains('=')
        && (segment.contains(':')
            || segment.split(|c: char| !c.is_ascii_alphanumeric()).any(is_long)
            || (segment.len() >= 2 * TOKEN && is_mixed(segment)))
}

/// Hides the values of `name=value` pairs with the name of a secret. Some cameras take credentials
/// or tokens in the path (`/user=admin_password=x_channel=1`) or in the query.
fn hide_secret_pairs(text: &str) -> String {
    const SECRET_NAMES: [&str; 8] =
        ["user", "usr", "pass", "pwd", "auth", "token", "secret", "key"];
    let is_end = |c: char| matches!(c, '&' | ';' | '?' | '/');
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(is_end) {
        let (pair, end) = match part.char_indices().next_back() {
            Some((at, c)) if is_end(c) => part.split_at(at),
            _ => (part, ""),
        };
        match pair.split_once('=') {
            Some((name, _))
                if SECRET_NAMES.iter().any(|secret| name.to_ascii_lowercase().contains(secret)) =>
            {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(HIDDEN);
            }
            _ => shown.push_str(pair),
        }
        shown.push_str(end);
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Source, SourceError> {
        Source::parse(text, None, None, false)
    }

    fn rtsp(text: &str) -> RtspSource {
        match parse(text).unwrap() {
            Source::Rtsp(source) => source,
            Source::File(_) => panic!("{text} is no file"),
        }
    }

    #[test]
    fn credentials_are_decoded_and_leave_the_url() {
        let source = rtsp("rtsp://us%40er:p%3A%2F%20%C3%A4@camera:8554/stream?channel=1");
        let credentials = source.credentials.clone().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("us@er", "p:/ ä"));
        assert_eq!(source.url().as_str(), "rtsp://camera:8554/stream?channel=1");
        assert_eq!(source.to_string(), "rtsp://***:***@camera:8554/stream?channel=1");
        assert_eq!(source.transport, Transport::Tcp);
    }

    #[test]
    fn a_source_without_credentials_shows_none() {
        let source = rtsp("RTSP://camera:554/stream");
        assert_eq!(source.credentials, None);
        assert_eq!(source.to_string(), "rtsp://camera/stream");
        assert_eq!(source.address(), ("camera", 554));
        assert_eq!(rtsp("rtsp://[::1]:8554/a").address(), ("::1", 8554));
    }

    #[test]
    fn equal_streams_are_equal_sources() {
        assert_eq!(rtsp("rtsp://camera:554/stream"), rtsp(" rtsp://camera/stream "));
        assert_ne!(rtsp("rtsp://a:b@camera/stream"), rtsp("rtsp://camera/stream"));
    }

    #[test]
    fn a_file_keeps_its_path() {
        let Source::File(file) =
            Source::parse("file:clips/a b.mp4", None, Some(Pace::Realtime), true).unwrap()
        else {
            panic!("a file");
        };
        assert_eq!(
            file,
            FileSource {
                path: "clips/a b.mp4".into(),
                pace: Pace::Realtime,
                repeat: true,
                beneath: None
            }
        );
        assert_eq!(parse("file:///videos/a.mp4").unwrap().to_string(), "file:/videos/a.mp4");
        assert!(!parse("file:a.mp4").unwrap().is_live());
        assert!(parse("rtsp://a/b").unwrap().is_live());
    }

    #[test]
    fn what_is_no_source_is_told_why() {
        assert_eq!(parse("  "), Err(SourceError::Empty));
        assert_eq!(parse("http://camera/x"), Err(SourceError::Scheme { scheme: "http" }));
        assert_eq!(parse("rtspx://camera/x"), Err(SourceError::Unchecked));
        assert_eq!(parse("camera.mp4"), Err(SourceError::Unrecognised));
        assert_eq!(parse("admin:secret@camera/x"), Err(SourceError::Unrecognised));
        assert_eq!(parse("rtsp:///x"), Err(SourceError::NoHost));
        assert!(matches!(parse("rtsp://camera:99999/x"), Err(SourceError::Url { .. })));
        assert_eq!(parse("file:"), Err(SourceError::NoPath));
        assert_eq!(parse("file://"), Err(SourceError::NoPath));
        assert_eq!(parse("file://host/a.mp4"), Err(SourceError::RemoteFile));
        assert_eq!(parse("rtsp://u:%FF@camera/x"), Err(SourceError::Credentials));
        let udp_file = Source::parse("file:a.mp4", Some(Transport::Udp), None, false);
        assert_eq!(udp_file, Err(SourceError::LiveKey { key: "transport" }));
        let repeated = Source::parse("rtsp://a/b", None, None, true);
        assert_eq!(repeated, Err(SourceError::FileKey { key: "repeat" }));
    }

    #[test]
    fn a_password_that_should_have_been_encoded_is_not_shown_as_a_host() {
        for text in [
            "rtsp://admin:12#ab@camera/x",
            "rtsp://admin:12/ab@camera/x",
            "rtsp://admin:12?ab@camera/x",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, SourceError::Reserved { .. }), "{error:?}");
            assert!(!error.to_string().contains("admin"), "{error}");
        }
    }

    #[test]
    fn secrets_in_path_and_query_are_hidden() {
        assert_eq!(
            rtsp("rtsp://c/user=admin_password=tlJw_channel=1?token=abc&channel=2").to_string(),
            "rtsp://c/user=***?token=***&channel=2"
        );
        assert_eq!(rtsp("rtsp://c/s?PWD=x").to_string(), "rtsp://c/s?PWD=***");
        assert_eq!(
            rtsp("rtsp://c/s?token=abc").scrub("got rtsp://c/s?token=abc"),
            "got rtsp://c/s?token=***"
        );
    }

    #[test]
    fn segments_of_a_path_that_are_secrets_are_hidden_and_names_are_not() {
        for (path, shown) in [
            ("/live/admin:hunter2/1", "/live/***/1"),
            ("/0Kq3vT9xWm2LpZ7a", "/***"),
            ("/s/1b4e28ba-2fa1-11d2-883f-0016d3cca427/main", "/s/***/main"),
            ("/user=admin&password=x/1", "/user=***&password=***/1"),
            ("/Streaming/Channels/101", "/Streaming/Channels/101"),
            ("/axis-media/media.amp", "/axis-media/media.amp"),
            ("/h264_stream_channel_01", "/h264_stream_channel_01"),
            ("/cam/realmonitor", "/cam/realmonitor"),
            ("/", "/"),
        ] {
            let source = rtsp(&format!("rtsp://c{path}"));
            assert_eq!(source.to_string(), format!("rtsp://c{shown}"));
            let text = format!("no answer to rtsp://c{path}: 404");
            assert_eq!(source.scrub(&text), format!("no answer to rtsp://c{shown}: 404"));
        }
        let source = rtsp("rtsp://c/live/0Kq3vT9xWm2LpZ7a");
        assert_eq!(source.scrub("stream 0Kq3vT9xWm2LpZ7a: gone"), "stream ***: gone");
    }

    /// A secret that occurs in nothing else that is shown: it starts with Q and has no letter of
    /// the fixed texts.
    fn secret() -> impl Strategy<Value = String> {
        "Q[XZ0-9~!$%:/?#@&=ä ]{7,16}"
    }

    proptest! {
        #[test]
        fn neither_user_nor_password_is_ever_shown(user in secret(), password in secret(), host in "[a-p]{1,8}") {
            let mut url = Url::parse(&format!("rtsp://{host}/stream")).unwrap();
            url.set_username(&user).unwrap();
            url.set_password(Some(&password)).unwrap();
            // The url crate leaves some characters that are legal there; a % of the user's own must
            // be encoded by them.
            let text = format!(
                "rtsp://{}:{}@{host}/stream",
                encode(&user),
                encode(&password)
            );
            let source = rtsp(&text);
            prop_assert_eq!(
                source.credentials.clone(),
                Some(Credentials { user: user.clone(), password: password.clone() })
            );
            let foreign = source.scrub(&format!("401 for {user} with {password} at {text} and \
                {url}"));
            let shown = format!("{source} {source:?} {:?} {foreign}", source.credentials);
            for hidden in [&user, &password, &encode(&user), &encode(&password)] {
                prop_assert!(!shown.contains(hidden.as_str()), "{} in {}", hidden, shown);
            }
        }

        #[test]
        fn no_error_shows_a_credential_however_it_is_written(user in secret(), password in secret()) {
            let whole = format!("rtsp://{user}:{password}@camera/stream");
            let wrong = [
                format!("rtsp://{user}:{password}@"),
                format!("http://{user}:{password}@camera/stream"),
                format!("{user}:{password}@camera/stream"),
                format!("{user}://{password}@camera/stream"),
                format!("file://{user}:{password}@camera/stream"),
            ];
            for text in wrong.iter().chain([&whole]) {
                let shown = match parse(text) {
                    Err(error) => format!("{error} {error:?}"),
                    Ok(source) => {
                        prop_assert_eq!(text, &whole, "only this one is a source");
                        format!("{source} {source:?}")
                    }
                };
                prop_assert!(!shown.contains(&user) && !shown.contains(&password), "{}", shown);
            }
        }
    }

    fn encode(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }
}
