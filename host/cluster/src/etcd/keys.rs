//! Where things lie under a site's prefix.

/// The folders that coordination is made of.
pub(crate) const HOST: &str = "host/";
pub(crate) const CAMERA: &str = "cam/";
pub(crate) const OWNER: &str = "own/";
pub(crate) const PIN: &str = "pin/";
pub(crate) const PREPARED: &str = "prep/";
pub(crate) const DRAIN: &str = "drain/";
pub(crate) const LISTENER: &str = "made/";
/// A single key.
pub(crate) const PLAN: &str = "plan";

/// All of them.
pub(crate) const COORDINATION: [&str; 8] =
    [HOST, CAMERA, OWNER, PIN, PREPARED, DRAIN, LISTENER, PLAN];

/// The longest id of a camera, in bytes.
const MAX_ID: usize = 200;

/// The longest key of a document, in bytes.
const MAX_DOCUMENT: usize = 512;

/// What a key is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Host(&'a str),
    Camera(&'a str),
    Owner(&'a str),
    Pin(&'a str),
    Prepared(&'a str),
    Drain(&'a str),
    /// A camera as [`listeners`] writes it, and a host.
    Listener(&'a str, &'a str),
    Plan,
    Document(&'a str),
}

impl<'a> Key<'a> {
    pub(crate) fn parse(key: &'a str) -> Self {
        if key == PLAN {
            return Key::Plan;
        }
        let (folder, name) = match key.split_once('/') {
            Some((folder, name)) => (key.get(..=folder.len()).unwrap_or(folder), name),
            None => return Key::Document(key),
        };
        match folder {
            HOST => Key::Host(name),
            CAMERA => Key::Camera(name),
            OWNER => Key::Owner(name),
            PIN => Key::Pin(name),
            PREPARED => Key::Prepared(name),
            DRAIN => Key::Drain(name),
            LISTENER => match name.split_once('/') {
                Some((camera, host)) => Key::Listener(camera, host),
                None => Key::Listener(name, ""),
            },
            _ => Key::Document(key),
        }
    }
}

/// The folder of the hosts with subscribers of a camera. The camera is written without a slash, so
/// that what begins with this folder is of no other camera.
pub(crate) fn listeners(camera: &str) -> String {
    format!("{LISTENER}{}/", camera.replace('%', "%25").replace('/', "%2F"))
}

/// The camera of a [`Key::Listener`].
pub(crate) fn listened(camera: &str) -> String {
    camera.replace("%2F", "/").replace("%25", "%")
}

/// Why `id` cannot be a camera's.
pub(crate) fn bad_camera(id: &str) -> Option<&'static str> {
    if id.is_empty() || id.len() > MAX_ID {
        Some("an id has 1 to 200 bytes")
    } else if id.chars().any(char::is_control) {
        Some("an id has no control characters")
    } else {
        None
    }
}

/// Why a document cannot lie at `key`.
pub(crate) fn bad_document(key: &str) -> Option<&'static str> {
    if key.is_empty() || key.len() > MAX_DOCUMENT || key.chars().any(char::is_control) {
        Some("a key has 1 to 512 bytes, none of them a control character")
    } else if !key.contains('/') {
        Some("a document lies in a folder")
    } else if Key::parse(key) == Key::Document(key) {
        None
    } else {
        Some("coordination uses it")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_keep_off_the_keys_of_coordination() {
        for key in
            ["host/a", "cam/x", "own/x", "pin/x", "prep/x", "drain/a", "made/x/a", "plan", "", "x"]
        {
            assert!(bad_document(key).is_some(), "{key:?}");
        }
        for key in ["dep/a", "rollout/7", "plans/a", "token/host/x"] {
            assert_eq!(bad_document(key), None, "{key:?}");
        }
    }

    #[test]
    fn an_id_may_look_like_a_path() {
        assert_eq!(Key::parse("cam/a/../b"), Key::Camera("a/../b"));
        assert_eq!(bad_camera("Halle 2 / Tür"), None);
        assert!(bad_camera("a\nb").is_some());
        assert!(bad_camera(&"x".repeat(201)).is_some());
    }

    proptest! {
        #[test]
        fn the_hosts_that_listen_to_a_camera_have_a_folder_of_their_own(
            one in "[ab/%25F]{1,6}",
            other in "[ab/%25F]{1,6}",
        ) {
            let key = format!("{}a", listeners(&one));
            prop_assert_eq!(key.starts_with(&listeners(&other)), one == other);
            let Key::Listener(camera, host) = Key::parse(&key) else { panic!("{key}") };
            prop_assert_eq!((listened(camera), host), (one, "a"));
        }
    }
}
