//! From a received picture to the subscribers of its camera, alike for every reader: the gate, the
//! two times, the number, the fan-out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::worker::{Codec, Orientation, UnitHeader};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::fanout::Fanout;
use super::key_frame_gate::KeyFrameGate;
use super::silence::Silence;
use super::timing::{CameraClock, PresentationClock, RtpTime, SenderReport};
use super::{AccessUnit, SourceSettings};
use crate::config::source::RtspSource;

/// A picture as it came, judged.
pub(super) struct ReceivedPicture {
    /// Its bytes, as [`Codec`] describes them.
    pub(super) data: Bytes,
    pub(super) codec: Codec,
    /// Decoding can start here.
    pub(super) key: bool,
    /// No other picture refers to this one.
    pub(super) disposable: bool,
    /// Something between the picture before and this one did not arrive.
    pub(super) lost: bool,
    pub(super) orientation: Orientation,
    /// On the clock of its stream.
    pub(super) time: RtpTime,
    /// When it had arrived, on the monotonic clock, in nanoseconds.
    pub(super) received_ns: u64,
    /// When its first packet had arrived, in nanoseconds since 1970.
    pub(super) received_wall_ns: u64,
}

/// What outlives one session with a camera.
pub(super) struct Delivery {
    /// Its source, without credentials.
    source: String,
    fanout: Arc<Fanout>,
    /// The next unit's number.
    number: u64,
    gate: KeyFrameGate,
    presentation: PresentationClock,
    camera_clock: CameraClock,
    silence: Silence,
    /// Packets that could not be used, by what they were.
    left_out: BTreeMap<&'static str, u64>,
    /// Since when this session delivers.
    up_since: Option<Instant>,
    /// Notified when a session delivers its first picture.
    started: Arc<Notify>,
}

impl Delivery {
    /// Of a source that has not been read yet.
    pub(super) fn new(
        source: &RtspSource,
        fanout: Arc<Fanout>,
        SourceSettings { silence_limit }: SourceSettings,
    ) -> Self {
        let silence = Silence::new(silence_limit, source.silence, Instant::now());
        Self {
            source: source.to_string(),
            fanout,
            number: 0,
            gate: KeyFrameGate::default(),
            presentation: PresentationClock::default(),
            camera_clock: CameraClock::default(),
            silence,
            left_out: BTreeMap::new(),
            up_since: None,
            started: Arc::default(),
        }
    }

    /// A new session: it does not continue the one before.
    pub(super) fn new_session(&mut self) {
        self.gate.new_session();
        self.presentation.new_session();
        self.camera_clock.new_session();
        self.silence.new_session(Instant::now());
    }

    /// Notes which streams the camera offers beside the one that is read.
    pub(super) fn set_other_streams(&self, streams: Vec<String>) {
        self.fanout.set_other_streams(streams);
    }

    /// Notified when a session delivers its first picture.
    pub(super) fn started(&self) -> Arc<Notify> {
        Arc::clone(&self.started)
    }

    /// Ends the session. How long it has delivered, if it did.
    pub(super) fn end_session(&mut self) -> Option<Duration> {
        self.up_since.take().map(|since| since.elapsed())
    }

    /// The camera is alive, though it sends no picture: a report of its, or the like, has come.
    pub(super) fn alive(&mut self, now: Instant) {
        self.silence.report(now);
    }

    /// Another reader is at hand, which may bring a first picture if this session does not.
    pub(super) fn be_impatient(&mut self) {
        self.silence.be_impatient();
    }

    /// When the session is to be given up if no picture comes.
    pub(super) fn silence_deadline(&self) -> Instant {
        self.silence.deadline()
    }

    /// How long there was no picture at `now`, at which the session is given up.
    pub(super) fn silent_for(&mut self, now: Instant) -> Duration {
        self.silence.give_up(now);
        self.silence.so_far(now)
    }

    /// Takes a sender report.
    pub(super) fn sender_report(&mut self, report: SenderReport) {
        if let Err(reason) = self.camera_clock.report(report) {
            self.left_out(reason.words());
        }
    }

    /// Counts a packet that was left out, by what it is. The log gets the first of each kind, then
    /// the tenth, the hundredth and so on.
    pub(super) fn left_out(&mut self, what: &'static str) {
        let count = self.left_out.entry(what).or_default();
        *count += 1;
        if count.ilog10() > (*count - 1).checked_ilog10().unwrap_or_default() || *count == 1 {
            warn!(target: "ocelli::source", source = self.source, count, "left out {what}");
        }
    }

    /// Delivers a picture, unless one that it refers to is missing. Whether it did.
    pub(super) fn deliver(&mut self, picture: ReceivedPicture) -> bool {
        self.silence.picture(Instant::now());
        let Some(discontinuity) = self.gate.admit(picture.key, picture.lost) else { return false };
        if self.up_since.is_none() {
            self.up_since = Some(Instant::now());
            self.started.notify_one();
            info!(target: "ocelli::source", source = self.source, codec = ?picture.codec, "up");
            self.fanout.up();
        }
        let (capture_ns, capture_clock) =
            self.camera_clock.capture(picture.time, picture.received_ns, picture.received_wall_ns);
        let header = UnitHeader {
            number: self.number,
            codec: picture.codec,
            key: picture.key,
            disposable: picture.disposable,
            discontinuity,
            presentation_ns: Some(self.presentation.place(picture.time, picture.received_ns)),
            capture_ns,
            capture_clock,
            orientation: picture.orientation,
            hidden: false,
            received_ns: picture.received_ns,
        };
        self.number += 1;
        self.fanout.unit(AccessUnit { header, data: picture.data });
        true
    }
}
