//! The lines of libav's log between two messages to the host.
//!
//! libav says what went wrong in its log alone: its functions return a number. The lines of a read
//! are gathered here, on the thread that reads.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;

use ocelli_protocol::ingest::MAX_TEXT;

/// `AV_LOG_ERROR` and `AV_LOG_WARNING` of libavutil.
const ERROR: c_int = 16;
const WARNING: c_int = 24;

/// How a warning begins that means lost packets: libavformat returns no error for those.
const LOSSES: [&str; 2] = ["RTP: missed", "jitter buffer full"];

/// How the line begins that names the status of a refused request.
const REFUSED: &str = "method ";

#[allow(unsafe_code)]
unsafe extern "C" {
    fn ocelli_ingest_log(line: extern "C" fn(c_int, c_int, *const c_char));
}

/// What libav has said since [`take`].
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Its last error, or else its last warning.
    pub(crate) last: Option<String>,
    /// Its first word of something lost in the input.
    pub(crate) loss: Option<String>,
    /// The status with which a camera has refused a request.
    pub(crate) status: Option<u16>,
    pub(crate) last_level: c_int,
}

thread_local! {
    static LINES: RefCell<Lines> = RefCell::default();
}

/// Gathers the log from now on, instead of writing it to standard error.
#[allow(unsafe_code)]
pub(crate) fn gather() {
    static ONCE: Once = Once::new();
    // SAFETY: sets a global of libavutil that is made to be set from anywhere.
    ONCE.call_once(|| unsafe { ocelli_ingest_log(line) });
}

/// Takes what was said.
pub(crate) fn take() -> Lines {
    LINES.with(|lines| lines.take())
}

/// Called by the shim within a call to libav.
extern "C" fn line(level: c_int, of_container: c_int, text: *const c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: the shim passes a line that ends with a zero.
    #[allow(unsafe_code)]
    let text = unsafe { CStr::from_ptr(text) };
    let text = one_line(&text.to_string_lossy());
    LINES.with(|lines| {
        // It is borrowed nowhere else while libav runs.
        if let Ok(mut lines) = lines.try_borrow_mut() {
            lines.add(level, of_container != 0, text);
        }
    });
}

impl Lines {
    fn add(&mut self, level: c_int, of_container: bool, text: String) {
        if level > WARNING || text.is_empty() {
            return;
        }
        if let Some(status) = text.strip_prefix(REFUSED).and_then(status) {
            self.status = Some(status);
        }
        let lost = level <= ERROR || LOSSES.iter().any(|loss| text.starts_with(loss));
        if of_container && lost && self.loss.is_none() {
            self.loss = Some(text.clone());
        }
        if self.last.is_none() || level <= self.last_level {
            (self.last, self.last_level) = (Some(text), level);
        }
    }
}

/// The status in the rest of a line like "method DESCRIBE failed: 404 Not Found".
fn status(line: &str) -> Option<u16> {
    let (_, status) = line.split_once(" failed: ")?;
    status.get(..3)?.parse().ok()
}

/// A text in one line of at most [`MAX_TEXT`] bytes, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = MAX_TEXT.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_outlasts_a_warning_and_the_last_of_a_level_counts() {
        let mut lines = Lines::default();
        lines.add(WARNING, true, "odd".into());
        lines.add(ERROR, true, "wrong".into());
        lines.add(ERROR, true, "more wrong".into());
        lines.add(WARNING, true, "odd again".into());
        lines.add(WARNING + 8, true, "by the way".into());
        assert_eq!(lines.last.as_deref(), Some("more wrong"));
        assert_eq!(lines.loss.as_deref(), Some("wrong"));
    }

    #[test]
    fn lost_packets_are_losses_and_a_decoders_words_are_not() {
        let mut lines = Lines::default();
        lines.add(ERROR, false, "non-existing PPS 0 referenced".into());
        assert_eq!(lines.loss, None);
        lines.add(WARNING, true, "RTP: missed 3 packets".into());
        assert_eq!(lines.loss.as_deref(), Some("RTP: missed 3 packets"));
    }

    #[test]
    fn the_status_of_a_refusal_is_read_from_its_line() {
        let mut lines = Lines::default();
        lines.add(ERROR, true, "method DESCRIBE failed: 404 Not Found".into());
        assert_eq!(lines.status, Some(404));
        assert_eq!(status("DESCRIBE failed: é"), None);
    }

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(one_line(" a\r\nb\u{1b}[31m\n"), "a  b [31m");
        assert!(one_line(&"é".repeat(MAX_TEXT)).len() <= MAX_TEXT);
    }
}
