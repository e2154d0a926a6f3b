//! Pictures on events.

use ocelli_sdk::{Frame, Image, log};

use crate::settings::{PicturedEvent, Pictures, Shown};
use crate::track_event::{TrackEvent, TrackEventKind};

/// A crop is as much larger than the object's box: it shows where the object is.
const SURROUNDINGS: f32 = 1.3;

/// Pictures of one frame: half of what the host's usual limit takes (`attachments_per_frame`, 16).
/// Each takes the processor some milliseconds.
pub(crate) const MAX_PICTURES: usize = 8;

/// Bytes of the pictures of one frame: half of what the host takes of a frame altogether.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// The pictures of the events of one frame.
pub(crate) struct FramePictures<'a> {
    asked: Option<&'a Pictures>,
    count: usize,
    bytes: u64,
}

impl<'a> FramePictures<'a> {
    pub(crate) fn new(asked: Option<&'a Pictures>) -> Self {
        Self { asked, count: 0, bytes: 0 }
    }

    /// The picture of an event, if the settings ask for it, the frame shows the object, and the
    /// frame may have another. An event that waited for its frame has none: the object may be
    /// elsewhere by now. A picture that cannot be had costs the event nothing else.
    pub(crate) fn of(&mut self, event: &TrackEvent, frame: &Frame) -> Option<Image> {
        let asked = self.asked?;
        let kind = match event.kind {
            TrackEventKind::Entered => PicturedEvent::Entered,
            TrackEventKind::ZoneEntered { .. } => PicturedEvent::ZoneEntered,
            TrackEventKind::ZoneLeft { .. } => PicturedEvent::ZoneLeft,
            TrackEventKind::LineCrossed { .. } => PicturedEvent::LineCrossed,
            TrackEventKind::Left => return None,
        };
        let is_shown = event.track.last_seen == frame.presentation_time();
        if !asked.events.contains(&kind) || !is_shown || self.count >= MAX_PICTURES {
            return None;
        }
        let region = match asked.of {
            Shown::Crop => Some(event.track.bbox.expanded(SURROUNDINGS).into()),
            Shown::Frame => None,
        };
        // Counted whether it fits or not: to make it is what takes time.
        self.count += 1;
        match frame.image_within(region, asked.size, asked.quality) {
            Ok(image) if self.bytes + image.size() <= MAX_BYTES => {
                self.bytes += image.size();
                Some(image)
            }
            Ok(_) => None,
            Err(error) => {
                log::warn("pictures", &format!("an event has none: {error}"));
                None
            }
        }
    }
}
