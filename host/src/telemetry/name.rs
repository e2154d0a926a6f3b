//! Names of log files: which file a session's lines are in, and which log a file belongs to.

use ocelli_protocol::digest::Digest;

use crate::config::MAX_ID_BYTES;

/// The host's own log, in the folder of `[logs] directory`.
pub const MAIN_LOG: &str = "detector_worker_main.log";

const PREFIX: &str = "detector_worker_camera_";
const SUFFIX: &str = ".log";

/// Stands before the digest in a changed name. No unchanged name has it.
const SEPARATOR: char = '~';

/// Hexadecimal digits of the SHA-256 in a changed name. Subscribers choose names: to find two with
/// the same 128 bits takes 2^64 attempts.
const DIGITS: usize = 32;

/// Characters of a session's name that are kept in a changed name. With all the rest, and the
/// number of a rotated file, it stays below the 255 bytes that a file's name may have.
const READABLE: usize = 150;

/// The name of the file with a session's lines. Printable ASCII but `/`, `~` and the blank stays;
/// where there is anything else, it becomes `_`, and `~` and 32 hexadecimal digits of the name's
/// SHA-256 follow. Two sessions never have one file.
pub fn session_log(session: &str) -> String {
    if session.len() <= MAX_ID_BYTES && session.chars().all(fits) {
        return format!("{PREFIX}{session}{SUFFIX}");
    }
    let readable: String =
        session.chars().take(READABLE).map(|c| if fits(c) { c } else { '_' }).collect();
    let digest = Digest::of(session);
    format!("{PREFIX}{readable}{SEPARATOR}{digest:.DIGITS$}{SUFFIX}")
}

fn fits(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '/' | SEPARATOR)
}

/// The session log that a file is, or is an older part of: `X.log` for `X.log` and `X.log.3`. None
/// for other files.
pub(super) fn session_log_of(file: &str) -> Option<&str> {
    let log = match file.rsplit_once('.') {
        Some((log, number))
            if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            log
        }
        _ => file,
    };
    (log.starts_with(PREFIX) && log.ends_with(SUFFIX)).then_some(log)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    /// Names that become the same when the unfit characters are replaced, among them such as look
    /// like changed ones.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a;/~.]{1,4}",
            "[a_]~[0-9a-f]{32}",
            "\\PC{1,200}",
            "[.]{1,3}",
            "[ab;]{200,400}"
        ]
    }

    proptest! {
        #[test]
        fn two_sessions_never_share_a_file(names in prop::collection::btree_set(name(), 2..10)) {
            let files: std::collections::BTreeSet<String> = names.iter().map(|name| session_log(name)).collect();
            prop_assert_eq!(files.len(), names.len());
        }

        #[test]
        fn a_name_is_one_file_in_the_folder(name in name(), number in 1..=100u32) {
            let file = session_log(&name);
            let rotated = format!("{file}.{number}");
            for file in [&file, &rotated] {
                prop_assert!(file.len() <= 255, "{}", file.len());
                let path: Vec<_> = Path::new(file).components().collect();
                prop_assert!(matches!(path.as_slice(), [Component::Normal(_)]), "{file}");
                prop_assert!(file.bytes().all(|byte| byte.is_ascii_graphic()), "{file}");
            }
            prop_assert_eq!(session_log_of(&file), Some(file.as_str()));
            prop_assert_eq!(session_log_of(&rotated), Some(file.as_str()));
        }
    }

    #[test]
    fn a_name_that_fits_stays_and_another_has_its_digest() {
        assert_eq!(session_log("cam-001"), "detector_worker_camera_cam-001.log");
        assert_eq!(
            session_log("display-001;cam-001"),
            "detector_worker_camera_display-001;cam-001.log"
        );
        assert_eq!(
            session_log("display-001/cam-001"),
            format!(
                "detector_worker_camera_display-001_cam-001~{:.DIGITS$}.log",
                Digest::of("display-001/cam-001")
            )
        );
    }

    #[test]
    fn other_files_are_no_session_logs() {
        for file in [
            MAIN_LOG,
            "detector_worker_main.log.1",
            "detector_worker_camera_a",
            "notes.log",
            "1",
            "",
        ] {
            assert_eq!(session_log_of(file), None, "{file}");
        }
    }
}
