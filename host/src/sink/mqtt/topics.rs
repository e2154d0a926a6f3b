//! The topics of a host. None is broken by a name: what a topic's level cannot hold is written as
//! in a URL, `%2F` for a slash.
//!
//! | topic | what |
//! | --- | --- |
//! | `PREFIX/HOST/status` | `online` or `offline`, retained |
//! | `PREFIX/HOST/SESSION/events` | each event |
//! | `PREFIX/HOST/SESSION/state` | the session's state, retained |
//! | `PREFIX/HOST/SESSION/detections` | what the pipeline found, where it is asked for |
//! | `PREFIX/HOST/SESSION/picture` | a JPEG, retained |
//! | `PREFIX/HOST/SESSION/objects/LABEL` | how many of this label are in the picture, retained |
//! | `PREFIX/HOST/SESSION/zones/ZONE` | how many objects are in this zone, retained |

use std::fmt::Write;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What a level of a topic cannot hold: the separator, the wildcards, and `%` since it begins what
/// stands for them.
const LEVEL: &AsciiSet = &CONTROLS.add(b'/').add(b'+').add(b'#').add(b'%');

/// The topics of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MqttTopics {
    root: String,
}

impl MqttTopics {
    /// `prefix` may have several levels; `host` is one.
    pub(super) fn new(prefix: &str, host: &str) -> Self {
        let levels = prefix.split('/').map(level).collect::<Vec<_>>().join("/");
        Self { root: format!("{levels}/{}", level(host)) }
    }

    /// Whether the host is there.
    pub(super) fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    /// What a session has: `events`, `state`, `detections`, `picture`.
    pub(super) fn of(&self, session: &str, what: &str) -> String {
        format!("{}/{}/{what}", self.root, level(session))
    }

    /// A count of a session: `objects` by label, or `zones` by name.
    pub(super) fn count(&self, session: &str, what: &str, name: &str) -> String {
        format!("{}/{}", self.of(session, what), level(name))
    }
}

fn level(name: &str) -> String {
    utf8_percent_encode(name, LEVEL).to_string()
}

/// A name as Home Assistant's identifiers have it: letters, digits and `-`, every other byte as `_`
/// and two hexadecimal digits. Different names stay different.
pub(super) fn identifier(name: &str) -> String {
    name.bytes().fold(String::new(), |mut id, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            id.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(id, "_{byte:02x}");
        }
        id
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_stays_within_its_level() {
        let topics = MqttTopics::new("site/ocelli", "box #1");
        assert_eq!(topics.status(), "site/ocelli/box %231/status");
        assert_eq!(topics.of("a/b+c#%", "events"), "site/ocelli/box %231/a%2Fb%2Bc%23%25/events");
        assert_eq!(
            topics.count("türe", "zones", "$in/out"),
            "site/ocelli/box %231/t%C3%BCre/zones/$in%2Fout"
        );
    }

    proptest! {
        #[test]
        fn topics_of_different_names_differ_and_are_topics(one: String, other: String) {
            let topics = MqttTopics::new("ocelli", "host");
            let topic = topics.of(&one, "events");
            prop_assert!(rumqttc::valid_topic(&topic));
            prop_assert_eq!(topic.matches('/').count(), 3);
            prop_assert_eq!(one == other, topic == topics.of(&other, "events"));
            prop_assert_eq!(one == other, identifier(&one) == identifier(&other));
        }
    }
}
