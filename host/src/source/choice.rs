//! Which of the two readers reads a camera. A value without clock or process: time comes as a
//! parameter, in seconds since 1970.
//!
//! ```text
//! strict ----- a fault that the other reader bears, two in a row that it may bear ----> compatible
//! compatible -- fails likewise without a picture, or a day has passed at its end -----> strict
//! ```
//!
//! A camera that is away or refuses the password changes nothing: no reader helps there. If both
//! fail, they take turns at the slow pace, and the fault names both causes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use super::fault::OtherReader;
use crate::config::source::{ReaderSetting, RtspSource};

/// After this time the strict reader is tried again, in seconds: a day, within which a camera's
/// firmware or the path through the network may have changed.
const REVIEW_AFTER: u64 = 86_400;

/// Sessions in a row that the other reader may do better with.
const STRIKES: u32 = 2;

/// A session of this length is a good one: what ended it says nothing of the reader. Longer than
/// the timeouts of sessions that cameras end because of a keepalive, which are a minute or two.
const GOOD: Duration = Duration::from_secs(600);

/// One of the two readers of cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ReaderKind {
    /// The host's own, by the standards.
    Strict,
    /// libavformat in a process of its own.
    Compatible,
}

impl fmt::Display for ReaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Compatible => "compatible",
        })
    }
}

impl ReaderKind {
    fn other(self) -> Self {
        match self {
            Self::Strict => Self::Compatible,
            Self::Compatible => Self::Strict,
        }
    }
}

/// The reader of a camera, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReaderInUse {
    pub(super) kind: ReaderKind,
    /// For people, without credentials.
    pub(super) reason: String,
    /// Seconds since 1970.
    pub(super) since: u64,
}

/// The reader of a camera as `GET /v1/sessions` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct ReaderStatus {
    /// "strict" goes by the standards, "compatible" bears what cameras in the field do.
    pub kind: ReaderKind,
    /// Why it is this one.
    pub reason: String,
    /// Since when, as RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
}

/// The reader that a camera has at any time. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct ReaderView {
    in_use: Arc<Mutex<Option<ReaderInUse>>>,
}

impl ReaderView {
    /// The reader. `None` before the first was chosen, and for a file.
    pub fn status(&self) -> Option<ReaderStatus> {
        let ReaderInUse { kind, reason, since } = self.in_use.lock().clone()?;
        let since = i64::try_from(since).ok().and_then(|at| Timestamp::from_second(at).ok())?;
        Some(ReaderStatus { kind, reason, since: since.to_string() })
    }

    pub(super) fn show(&self, reader: &ReaderInUse) {
        *self.in_use.lock() = Some(reader.clone());
    }
}

/// How a session ended.
#[derive(Clone, Debug)]
pub(super) struct SessionEnd {
    /// How long it has delivered; zero if it never did.
    pub(super) up_for: Duration,
    /// What the other reader can do about the fault.
    pub(super) other_reader: OtherReader,
    /// The fault without the source's name.
    pub(super) cause: String,
}

/// What follows the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same reader, after the wait that its fault asks for.
    Same,
    /// The other reader at once.
    Other,
    /// The other reader, after the slow wait.
    OtherSlowly,
}

/// Chooses the reader of one camera.
#[derive(Clone, Debug)]
pub(super) struct ReaderChooser {
    is_fixed: bool,
    in_use: ReaderInUse,
    /// Sessions in a row that ended in a way that the other reader may bear.
    strikes: u32,
    /// The cause with which the other reader failed, since none has delivered.
    other_cause: Option<String>,
    /// The other reader was tried with a password that may be wrong, since none has delivered.
    has_tried_password: bool,
}

impl ReaderChooser {
    /// `remembered`: the compatible reader that has played this source before.
    pub(super) fn new(
        source: &RtspSource,
        setting: ReaderSetting,
        remembered: Option<ReaderInUse>,
        now: u64,
    ) -> Self {
        let in_use =
            |kind, reason: &str| ReaderInUse { kind, reason: reason.to_owned(), since: now };
        let recent = remembered.filter(|reader| now.saturating_sub(reader.since) < REVIEW_AFTER);
        let (is_fixed, in_use) = match (setting, recent) {
            _ if source.tls.is_some() => (
                true,
                in_use(ReaderKind::Compatible, "rtsps:// needs it: the strict reader has no TLS"),
            ),
            (ReaderSetting::Strict, _) if source.is_subscribers => {
                let reason = "a subscriber named the source, and subscriptions.compatible is false";
                (true, in_use(ReaderKind::Strict, reason))
            }
            (ReaderSetting::Strict, _) => {
                (true, in_use(ReaderKind::Strict, "reader = \"strict\" in the config"))
            }
            (ReaderSetting::Compatible, _) => {
                (true, in_use(ReaderKind::Compatible, "reader = \"compatible\" in the config"))
            }
            (ReaderSetting::Auto, Some(remembered)) => (false, remembered),
            (ReaderSetting::Auto, None) => {
                (false, in_use(ReaderKind::Strict, "the first to be tried"))
            }
        };
        Self { is_fixed, in_use, strikes: 0, other_cause: None, has_tried_password: false }
    }

    /// Whether there is nothing to choose.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    /// The reader of the next session.
    pub(super) fn in_use(&self) -> &ReaderInUse {
        &self.in_use
    }

    /// Whether another reader is at hand when this one fails.
    pub(super) fn has_other(&self) -> bool {
        !self.is_fixed && self.in_use.kind == ReaderKind::Strict && self.other_cause.is_none()
    }

    /// The session has delivered its first picture.
    pub(super) fn plays(&mut self) {
        self.other_cause = None;
        self.has_tried_password = false;
    }

    /// The cause of a fault, beside the one with which the other reader failed.
    pub(super) fn with_other_cause(&self, cause: &str) -> Option<String> {
        let (this, other) = (self.in_use.kind, self.in_use.kind.other());
        self.other_cause
            .as_ref()
            .map(|before| format!("{cause} ({this} reader); before, {before} ({other} reader)"))
    }

    /// Judges the end of a session.
    pub(super) fn session_ended(&mut self, end: &SessionEnd, now: u64) -> Next {
        if self.is_fixed {
            return Next::Same;
        }
        match self.in_use.kind {
            ReaderKind::Strict => self.strict_ended(end, now),
            ReaderKind::Compatible => self.compatible_ended(end, now),
        }
    }

    fn strict_ended(&mut self, end: &SessionEnd, now: u64) -> Next {
        match end.other_reader {
            OtherReader::NoHelp => return Next::Same,
            OtherReader::OneAttempt if self.has_tried_password => return Next::Same,
            OtherReader::IfRepeated => {
                self.strikes = if end.up_for >= GOOD { 1 } else { self.strikes + 1 };
                if self.strikes < STRIKES {
                    return Next::Same;
                }
            }
            OtherReader::OneAttempt => self.has_tried_password = true,
            OtherReader::Helps => {}
        }
        // Cameras lock an account after a few wrong passwords.
        let slowly = end.other_reader == OtherReader::OneAttempt || self.other_cause.is_some();
        self.change(end, format!("the strict reader failed: {}", end.cause), now);
        if slowly { Next::OtherSlowly } else { Next::Other }
    }

    fn compatible_ended(&mut self, end: &SessionEnd, now: u64) -> Next {
        if !end.up_for.is_zero() {
            if now.saturating_sub(self.in_use.since) < REVIEW_AFTER {
                return Next::Same;
            }
            self.change(end, "tried again after a day".to_owned(), now);
            self.other_cause = None;
            return Next::Other;
        }
        // A password that the camera refuses to both readers is the strict one's to tell.
        let helps = match end.other_reader {
            OtherReader::NoHelp => false,
            OtherReader::OneAttempt => self.has_tried_password,
            OtherReader::IfRepeated | OtherReader::Helps => true,
        };
        if !helps {
            return Next::Same;
        }
        self.change(end, format!("the compatible reader failed: {}", end.cause), now);
        Next::OtherSlowly
    }

    fn change(&mut self, end: &SessionEnd, reason: String, now: u64) {
        let kind = self.in_use.kind.other();
        self.in_use = ReaderInUse { kind, reason, since: now };
        self.other_cause = Some(end.cause.clone());
        self.strikes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::source::Source;

    const NOW: u64 = 1_800_000_000;

    fn camera(text: &str) -> RtspSource {
        match Source::parse(text, None, None, false).unwrap() {
            Source::Rtsp(source) => source,
            Source::File(_) => panic!("{text} is no file"),
        }
    }

    fn auto(remembered: Option<ReaderInUse>) -> ReaderChooser {
        ReaderChooser::new(&camera("rtsp://a/b"), ReaderSetting::Auto, remembered, NOW)
    }

    fn end(other_reader: OtherReader, up_for: u64) -> SessionEnd {
        let cause = format!("fault {other_reader:?}");
        SessionEnd { up_for: Duration::from_secs(up_for), other_reader, cause }
    }

    fn compatible(since: u64) -> Option<ReaderInUse> {
        Some(ReaderInUse { kind: ReaderKind::Compatible, reason: "x".to_owned(), since })
    }

    #[test]
    fn auto_begins_strict_and_goes_over_after_a_fault_that_the_other_bears() {
        let mut chooser = auto(None);
        assert_eq!(chooser.in_use().kind, ReaderKind::Strict);
        assert!(chooser.has_other());
        assert_eq!(chooser.session_ended(&end(OtherReader::Helps, 0), NOW + 5), Next::Other);
        let reader = chooser.in_use();
        assert_eq!((reader.kind, reader.since), (ReaderKind::Compatible, NOW + 5));
        assert_eq!(reader.reason, "the strict reader failed: fault Helps");
    }

    #[test]
    fn repeated_stalls_change_the_reader_and_those_of_good_sessions_do_not() {
        let mut chooser = auto(None);
        let stall = end(OtherReader::IfRepeated, 20);
        assert_eq!(chooser.session_ended(&stall, NOW), Next::Same);
        assert_eq!(chooser.session_ended(&end(OtherReader::NoHelp, 0), NOW), Next::Same);
        assert_eq!(chooser.session_ended(&stall, NOW), Next::Other);
        let mut chooser = auto(None);
        for _ in 0..5 {
            let good = end(OtherReader::IfRepeated, GOOD.as_secs());
            assert_eq!(chooser.session_ended(&good, NOW), Next::Same);
        }
    }

    #[test]
    fn a_refused_password_is_tried_once_with_the_other_reader_and_slowly() {
        let mut chooser = auto(None);
        let refused = end(OtherReader::OneAttempt, 0);
        assert_eq!(chooser.session_ended(&refused, NOW), Next::OtherSlowly);
        assert_eq!(chooser.session_ended(&refused, NOW), Next::OtherSlowly);
        assert_eq!(chooser.in_use().kind, ReaderKind::Strict);
        for _ in 0..3 {
            assert_eq!(chooser.session_ended(&refused, NOW), Next::Same);
        }
        chooser.plays();
        assert_eq!(chooser.session_ended(&refused, NOW), Next::OtherSlowly);
    }

    #[test]
    fn readers_that_both_fail_take_turns_slowly_and_both_causes_are_told() {
        let mut chooser = auto(None);
        let odd = end(OtherReader::Helps, 0);
        assert_eq!(chooser.session_ended(&odd, NOW), Next::Other);
        assert_eq!(
            chooser.with_other_cause("bad").as_deref(),
            Some("bad (compatible reader); before, fault Helps (strict reader)")
        );
        for kind in [ReaderKind::Strict, ReaderKind::Compatible, ReaderKind::Strict] {
            assert_eq!(chooser.session_ended(&odd, NOW), Next::OtherSlowly);
            assert_eq!(chooser.in_use().kind, kind);
            assert!(!chooser.has_other(), "the other one has failed, too");
        }
        chooser.plays();
        assert_eq!(chooser.with_other_cause("bad"), None);
    }

    #[test]
    fn what_plays_stays_and_strict_is_tried_again_after_a_day() {
        let mut chooser = auto(compatible(NOW - 10));
        assert_eq!(chooser.in_use().kind, ReaderKind::Compatible);
        let stall = end(OtherReader::Helps, 60);
        for _ in 0..3 {
            assert_eq!(chooser.session_ended(&stall, NOW + 60), Next::Same);
        }
        let later = NOW - 10 + REVIEW_AFTER;
        assert_eq!(chooser.session_ended(&stall, later), Next::Other);
        assert_eq!(chooser.in_use().kind, ReaderKind::Strict);
        assert!(chooser.has_other());
        // It still fails: the next look is a day later.
        assert_eq!(chooser.session_ended(&end(OtherReader::Helps, 0), later + 1), Next::Other);
        assert_eq!(chooser.session_ended(&stall, later + 2), Next::Same);
        assert_eq!(auto(compatible(NOW - REVIEW_AFTER)).in_use().kind, ReaderKind::Strict);
    }

    #[test]
    fn settings_and_tls_leave_no_choice() {
        let fixed = |source: RtspSource, setting| {
            let mut chooser = ReaderChooser::new(&source, setting, None, NOW);
            assert!(!chooser.has_other());
            assert_eq!(chooser.session_ended(&end(OtherReader::Helps, 0), NOW), Next::Same);
            chooser.in_use().clone()
        };
        let strict = fixed(camera("rtsp://a/b"), ReaderSetting::Strict);
        assert_eq!(strict.kind, ReaderKind::Strict);
        let compatible = fixed(camera("rtsp://a/b"), ReaderSetting::Compatible);
        assert_eq!(compatible.kind, ReaderKind::Compatible);
        let tls = fixed(camera("rtsps://a/b"), ReaderSetting::Auto);
        assert_eq!(tls.kind, ReaderKind::Compatible);
        assert!(tls.reason.contains("TLS"), "{}", tls.reason);
        let named = match Source::parse("rtsp://a/b", None, None, false).unwrap().of_subscriber() {
            Source::Rtsp(source) => source,
            Source::File(_) => panic!("no file"),
        };
        let reason = fixed(named, ReaderSetting::Strict).reason;
        assert!(reason.contains("subscriptions.compatible"), "{reason}");
    }

    proptest! {
        #[test]
        fn a_camera_that_is_away_or_refuses_changes_no_reader_and_a_change_is_never_a_storm(
            ends in prop::collection::vec((0_usize..4, 0_u64..1200, any::<bool>()), 1..80),
        ) {
            let kinds = [
                OtherReader::NoHelp,
                OtherReader::IfRepeated,
                OtherReader::Helps,
                OtherReader::OneAttempt,
            ];
            let mut chooser = auto(None);
            let mut quick_changes = 0;
            for (at, (kind, up_for, delivers)) in ends.into_iter().enumerate() {
                let before = chooser.in_use().clone();
                let up_for = if delivers { up_for + 1 } else { 0 };
                if delivers {
                    chooser.plays();
                    quick_changes = 0;
                }
                let kind = kinds[kind];
                let next = chooser.session_ended(&end(kind, up_for), NOW + at as u64);
                let changed = chooser.in_use().kind != before.kind;
                prop_assert_eq!(changed, next != Next::Same);
                if kind == OtherReader::NoHelp {
                    prop_assert!(!changed);
                }
                quick_changes += u32::from(next == Next::Other);
                prop_assert!(quick_changes <= 1, "at most one change without a slow wait");
            }
        }
    }
}
