//! From a received picture to the subscribers of its camera, alike for every reader: the gate, the
//! two times, the number, the fan-out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::worker::{CaptureClock, Codec, Orientation, UnitHeader};
use tokio::time::Instant;
use tracing::info;

use super::AccessUnit;
use super::fanout::Fanout;
use super::key_frame_gate::KeyFrameGate;
use super::timing::{CameraClock, PresentationClock, RtpTime};

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
    /// Since when this session delivers.
    up_since: Option<Instant>,
}

impl Delivery {
    /// Of a source that has not been read yet; it is shown as `source`.
    pub(super) fn new(source: String, fanout: Arc<Fanout>) -> Self {
        Self {
            source,
            fanout,
            number: 0,
            gate: KeyFrameGate::default(),
            presentation: PresentationClock::default(),
            camera_clock: CameraClock::default(),
            up_since: None,
        }
    }

    /// A new session: it does not continue the one before.
    pub(super) fn new_session(&mut self) {
        self.gate.new_session();
        self.presentation.new_session();
        self.camera_clock.new_session();
    }

    /// Ends the session. How long it has delivered, if it did.
    pub(super) fn end_session(&mut self) -> Option<Duration> {
        self.up_since.take().map(|since| since.elapsed())
    }

    /// Takes a sender report: at this time of the stream the camera's clock showed `ntp`, in 32.32
    /// fixed point.
    pub(super) fn sender_report(&mut self, time: RtpTime, ntp: u64) {
        self.camera_clock.report(time, ntp);
    }

    /// Delivers a picture, unless one that it refers to is missing. Whether it did.
    pub(super) fn deliver(&mut self, picture: ReceivedPicture) -> bool {
        let Some(discontinuity) = self.gate.admit(picture.key, picture.lost) else { return false };
        if self.up_since.is_none() {
            self.up_since = Some(Instant::now());
            info!(target: "ocelli::source", source = self.source, codec = ?picture.codec, "up");
            self.fanout.up();
        }
        let header = UnitHeader {
            number: self.number,
            codec: picture.codec,
            key: picture.key,
            disposable: picture.disposable,
            discontinuity,
            presentation_ns: Some(self.presentation.place(picture.time, picture.received_ns)),
            capture_ns: self.camera_clock.capture_ns(picture.time, picture.received_wall_ns),
            capture_clock: CaptureClock::default(),
            orientation: picture.orientation,
            hidden: false,
            received_ns: picture.received_ns,
        };
        self.number += 1;
        self.fanout.unit(AccessUnit { header, data: picture.data });
        true
    }
}
