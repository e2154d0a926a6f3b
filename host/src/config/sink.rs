//! What the sections of sinks have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// The first event of a target that this host has not written to before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SinkStart {
    /// The next one.
    #[default]
    Now,
    /// The oldest one of the journal.
    Beginning,
}

/// The address of a target for a person: without what may be a credential, and empty where it has no
/// host.
pub(super) fn shown(url: &str) -> String {
    let Some(url) = Url::parse(url).ok().filter(Url::has_host) else { return String::new() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    // Redis's is a number; any other may be the rest of a password.
    let number = |path: &&str| path.bytes().all(|it| it == b'/' || it.is_ascii_digit());
    let path = Some(url.path()).filter(number).unwrap_or_default();
    format!("{}://{}{port}{path}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_credentials() {
        for (url, said) in [
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("rediss://ann:hush@h/2?password=hush#hush", "rediss://h/2"),
            ("redis://:hush@[::1]:7000", "redis://[::1]:7000"),
            ("mqtts://hush@h:8883", "mqtts://h:8883"),
            // The slash would have to be %2f: what stands behind it may be of the password.
            ("redis://ann:12/34@h", "redis://ann:12"),
            // None has a host of which these would be the user and the password.
            ("redis:ann:hush@h", ""),
            ("ann:hush@h", ""),
            ("redis+unix:///run/redis.sock?pass=hush", ""),
            ("hush", ""),
        ] {
            assert_eq!(shown(url), said, "{url}");
        }
    }
}
