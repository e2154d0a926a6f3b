//! The picture that a session shows to people: the newest frame, or with boxes the newest that its
//! pipeline has looked at, encoded on request by a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use ocelli_protocol::wire::MAX_PAYLOAD;
use ocelli_protocol::worker::{Detection, FromWorker, LogLevel, PictureWish};
use parking_lot::Mutex;

use crate::host_link::HostLink;
use crate::video::{Frame, ShownBox, jpeg_shown};

/// Requests that wait: the host sends one after the other, and gives one up that takes too long.
const REQUESTS: usize = 4;

/// Stack of the thread in bytes. The 2 MiB that threads have by default would count against the
/// process's private memory.
const STACK: usize = 256 << 10;

/// A request for a picture, as [`ToWorker::EncodePicture`](ocelli_protocol::worker::ToWorker) has
/// it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PictureRequest {
    pub(super) id: u64,
    pub(super) wish: PictureWish,
    pub(super) known: Option<u64>,
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Showcase {
    frames: Arc<Mutex<ShownFrames>>,
    requests: SyncSender<PictureRequest>,
    host: HostLink,
}

/// Each holds a buffer of the decoder's; they are mostly the same.
#[derive(Default)]
struct ShownFrames {
    decoded: Option<Arc<Frame>>,
    processed: Option<(Arc<Frame>, Vec<ShownBox>)>,
}

impl Showcase {
    /// Starts the thread, which ends with the last clone.
    pub(super) fn start(host: &HostLink) -> std::io::Result<Self> {
        let (requests, inbox) = sync_channel(REQUESTS);
        let frames = Arc::<Mutex<ShownFrames>>::default();
        let (shown, link) = (Arc::clone(&frames), host.clone());
        let serve = move || {
            while let Ok(request) = inbox.recv() {
                answer(&shown, request, &link);
            }
        };
        std::thread::Builder::new().name("shown".into()).stack_size(STACK).spawn(serve)?;
        Ok(Self { frames, requests, host: host.clone() })
    }

    /// Takes the newest frame.
    pub(super) fn decoded(&self, frame: &Arc<Frame>) {
        self.frames.lock().decoded = Some(Arc::clone(frame));
    }

    /// Takes the newest frame that the pipeline has looked at, with what it found.
    pub(super) fn processed(&self, frame: Arc<Frame>, found: &[Detection]) {
        let boxes = found.iter().map(ShownBox::of).collect();
        self.frames.lock().processed = Some((frame, boxes));
    }

    /// Has a picture encoded, and the host answered.
    pub(super) fn request(&self, request: PictureRequest) {
        if self.requests.try_send(request).is_err() {
            self.host.send(&no_picture(request.id));
        }
    }
}

fn no_picture(id: u64) -> FromWorker {
    FromWorker::PictureEncoded { id, frame: None, presentation_ns: 0 }
}

fn answer(shown: &Mutex<ShownFrames>, request: PictureRequest, host: &HostLink) {
    let PictureRequest { id, wish, known } = request;
    let (frame, boxes) = {
        let shown = shown.lock();
        match &shown.processed {
            Some((frame, boxes)) if wish.boxes => (Some(Arc::clone(frame)), boxes.clone()),
            _ => (shown.decoded.clone(), Vec::new()),
        }
    };
    let Some(frame) = frame else { return host.send(&no_picture(id)) };
    let encoded = FromWorker::PictureEncoded {
        id,
        frame: Some(frame.number),
        presentation_ns: frame.shown_ns,
    };
    if known == Some(frame.number) {
        return host.send(&encoded);
    }
    match jpeg_shown(&frame.picture, wish.width, &boxes) {
        // A longer one is not sent, and the host would wait for it.
        Ok(jpeg) if jpeg.bytes.len() > MAX_PAYLOAD => host.send(&no_picture(id)),
        Ok(jpeg) => host.send_with(&encoded, &jpeg.bytes),
        Err(error) => {
            host.log(LogLevel::Warn, "picture", &error.to_string(), Some(frame.number));
            host.send(&no_picture(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use ocelli_protocol::wire::Reader;
    use ocelli_protocol::worker::{Decode, Rect};

    use super::*;
    use crate::video::clips::units;
    use crate::video::{Stream, still};

    const AS_IT_IS: PictureWish = PictureWish { width: None, boxes: false };

    struct Rig {
        showcase: Showcase,
        from: Reader<UnixStream>,
    }

    impl Rig {
        fn new() -> Self {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_read_timeout(Some(std::time::Duration::from_secs(120))).unwrap();
            let showcase = Showcase::start(&HostLink::from_stream(theirs)).unwrap();
            Self { showcase, from: Reader::new(ours) }
        }

        /// The frame's number and time, and the width and height of the file; none without one.
        fn asks(
            &mut self,
            wish: PictureWish,
            known: Option<u64>,
        ) -> (Option<u64>, i64, Option<(u32, u32)>) {
            self.showcase.request(PictureRequest { id: 9, wish, known });
            match self.from.read::<FromWorker>().unwrap() {
                (FromWorker::PictureEncoded { id: 9, frame, presentation_ns }, file) => {
                    let picture = (!file.is_empty()).then(|| still(file, u32::MAX).unwrap());
                    let size = picture.map(|picture| (picture.width(), picture.height()));
                    (frame, presentation_ns, size)
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_newest_picture_is_encoded_or_with_boxes_the_newest_that_was_looked_at() {
        for clip in ["people-576-high-b3.mp4", "people-576-hevc.mp4", "people-576-mjpeg.avi"] {
            let mut rig = Rig::new();
            assert_eq!(rig.asks(AS_IT_IS, None), (None, 0, None), "{clip}: none is there yet");
            let mut frames = Vec::new();
            let mut stream = Stream::new(Decode::All);
            for (header, data) in units(clip).iter().take(30) {
                stream.push(header, data, &mut |frame| frames.push(Arc::new(frame))).unwrap();
            }
            rig.showcase.decoded(&frames[3]);
            let with_boxes = PictureWish { boxes: true, ..AS_IT_IS };
            let time = |number: usize| frames[number].shown_ns;
            assert_eq!(rig.asks(with_boxes, None), (Some(3), time(3), Some((768, 576))), "{clip}");
            rig.showcase.processed(Arc::clone(&frames[4]), &[]);
            rig.showcase.decoded(&frames[6]);
            assert_eq!(rig.asks(AS_IT_IS, Some(3)), (Some(6), time(6), Some((768, 576))), "{clip}");
            assert_eq!(rig.asks(AS_IT_IS, Some(6)), (Some(6), time(6), None), "{clip}: known");
            let small = PictureWish { width: Some(320), boxes: true };
            assert_eq!(rig.asks(small, None), (Some(4), time(4), Some((320, 240))), "{clip}");
        }
    }

    #[test]
    fn whatever_a_guest_calls_a_box_a_picture_comes() {
        let mut rig = Rig::new();
        let (header, data) = units("people-576-mjpeg.avi").swap_remove(0);
        let mut frames = Vec::new();
        let mut take = |frame: Frame| frames.push(Arc::new(frame));
        Stream::new(Decode::All).push(&header, &data, &mut take).unwrap();
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 0.0, 767.0];
        let found: Vec<_> = odd
            .iter()
            .flat_map(|&x| odd.map(|width| Rect { x, y: width, width, height: x }))
            .map(|area| Detection {
                label: String::new(),
                score: 0.0,
                area,
                track: None,
                attributes: Vec::new(),
                embedding: None,
            })
            .collect();
        rig.showcase.processed(frames.remove(0), &found);
        for width in [0, 1, 17, 767, u32::MAX] {
            let wish = PictureWish { width: Some(width), boxes: true };
            let (frame, _, size) = rig.asks(wish, None);
            assert_eq!((frame, size.unwrap().0), (Some(0), width.clamp(16, 768)));
        }
    }
}
