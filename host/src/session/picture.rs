//! Pictures of a session for people, which its worker encodes: one at a time, shared by all who ask
//! alike while the frame is the same.

use std::time::Duration;

use bytes::Bytes;
use ocelli_protocol::worker::PictureWish;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::handle::SessionRequest;

/// Who may wait for pictures of one session: they are served one after the other,
/// usually in 10 ms each.
const WAITING: usize = 64;

/// How long a worker may take: it encodes the largest picture in half a second, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long no newer picture is asked for: 50 a second are more than any camera has.
const FRESH: Duration = Duration::from_millis(20);

/// Ways of encoding of which the last picture is kept, and their bytes together: a display with
/// boxes and one without, thumbnails, and what a page shows large.
const KEPT: usize = 4;
const KEPT_BYTES: usize = 4 << 20;

/// The first bytes of a JPEG file.
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

/// An encoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPicture {
    /// The frame's number in its source, in presentation order.
    pub frame: u64,
    /// As in the frame's detections.
    pub presentation_ns: i64,
    /// A JPEG file.
    pub jpeg: Bytes,
}

/// Why there is no picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("the session has no picture yet")]
    None,
    #[error("{WAITING} requests wait for pictures of this session")]
    Busy,
}

/// A request for a picture, for the session's task.
pub(super) struct PictureOrder {
    wish: PictureWish,
    /// When the host got this picture the last time, and of which frame.
    known: Option<(Instant, u64)>,
    reply: oneshot::Sender<WorkerPicture>,
}

/// A worker's answer: without bytes if the host has the picture.
struct WorkerPicture {
    frame: u64,
    presentation_ns: i64,
    jpeg: Vec<u8>,
}

/// Where those who want pictures wait.
#[derive(Debug)]
pub(super) struct PictureDesk {
    places: Semaphore,
    /// The last pictures, the newest last. Whoever holds it has the turn.
    kept: Mutex<Vec<KeptPicture>>,
}

#[derive(Debug)]
struct KeptPicture {
    wish: PictureWish,
    at: Instant,
    picture: EncodedPicture,
}

impl Default for PictureDesk {
    fn default() -> Self {
        Self { places: Semaphore::new(WAITING), kept: Mutex::default() }
    }
}

impl PictureDesk {
    /// The newest picture, ordered from the session's task.
    pub(super) async fn picture(
        &self,
        wish: PictureWish,
        orders: &mpsc::Sender<SessionRequest>,
    ) -> Result<EncodedPicture, PictureError> {
        let _place = self.places.try_acquire().map_err(|_| PictureError::Busy)?;
        let turn = timeout(PATIENCE, self.kept.lock()).await;
        let mut kept = turn.map_err(|_| PictureError::Busy)?;
        let last = kept.iter().find(|kept| kept.wish == wish);
        if let Some(last) = last
            && last.at.elapsed() < FRESH
        {
            return Ok(last.picture.clone());
        }
        let known = last.map(|last| last.picture.frame);
        let (reply, answer) = oneshot::channel();
        let since = last.map(|last| (last.at, last.picture.frame));
        let order = SessionRequest::Picture(PictureOrder { wish, known: since, reply });
        let answered = timeout(PATIENCE, async {
            orders.send(order).await.ok()?;
            answer.await.ok()
        });
        let answer = answered.await.ok().flatten().ok_or(PictureError::None)?;
        let jpeg = match last {
            Some(last) if answer.jpeg.is_empty() && known == Some(answer.frame) => {
                last.picture.jpeg.clone()
            }
            _ if answer.jpeg.is_empty() => return Err(PictureError::None),
            _ => answer.jpeg.into(),
        };
        let WorkerPicture { frame, presentation_ns, .. } = answer;
        let picture = EncodedPicture { frame, presentation_ns, jpeg };
        let at = Instant::now();
        kept.retain(|kept| kept.wish != wish);
        kept.push(KeptPicture { wish, at, picture: picture.clone() });
        let bytes = |kept: &[KeptPicture]| -> usize {
            kept.iter().map(|kept| kept.picture.jpeg.len()).sum()
        };
        while kept.len() > KEPT || (kept.len() > 1 && bytes(&kept) > KEPT_BYTES) {
            kept.remove(0);
        }
        Ok(picture)
    }
}

/// The picture that a worker is asked for.
pub(super) struct PendingPicture {
    /// Pictures from before are another worker's, whose frames may have had the same numbers.
    begun: Instant,
    next: u64,
    waiting: Option<(u64, oneshot::Sender<WorkerPicture>)>,
}

impl Default for PendingPicture {
    fn default() -> Self {
        Self { begun: Instant::now(), next: 0, waiting: None }
    }
}

impl PendingPicture {
    /// The request's number, and what is wanted. An earlier one, which was given up, gets nothing.
    pub(super) fn begin(&mut self, order: PictureOrder) -> (u64, PictureWish, Option<u64>) {
        let id = self.next;
        self.next += 1;
        self.waiting = Some((id, order.reply));
        let known = order.known.filter(|(at, _)| *at >= self.begun);
        (id, order.wish, known.map(|(_, frame)| frame))
    }

    /// Passes a worker's answer on. False if it is no picture.
    pub(super) fn answer(
        &mut self,
        id: u64,
        frame: Option<u64>,
        presentation_ns: i64,
        jpeg: Vec<u8>,
    ) -> bool {
        if !jpeg.is_empty() && !jpeg.starts_with(&JPEG) {
            return false;
        }
        // The answer to a request that was given up is dropped.
        if let Some((_, reply)) = self.waiting.take_if(|(waiting, _)| *waiting == id)
            && let Some(frame) = frame
        {
            let _ = reply.send(WorkerPicture { frame, presentation_ns, jpeg });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const WISH: PictureWish = PictureWish { width: Some(320), boxes: true };

    /// A session with a worker that has encoded so many pictures.
    struct Rig {
        desk: Arc<PictureDesk>,
        orders: mpsc::Sender<SessionRequest>,
        frame: Arc<AtomicUsize>,
        encoded: Arc<AtomicUsize>,
    }

    impl Rig {
        fn new() -> Self {
            let (orders, mut inbox) = mpsc::channel(1);
            let (frame, encoded) = (Arc::new(AtomicUsize::new(0)), Arc::<AtomicUsize>::default());
            let (shown, count) = (Arc::clone(&frame), Arc::clone(&encoded));
            tokio::spawn(async move {
                let mut pending = PendingPicture::default();
                while let Some(SessionRequest::Picture(order)) = inbox.recv().await {
                    let (id, _, known) = pending.begin(order);
                    let frame = shown.load(Ordering::Relaxed) as u64;
                    let mut jpeg = JPEG.to_vec();
                    if known == Some(frame) {
                        jpeg.clear();
                    } else {
                        jpeg.push(count.fetch_add(1, Ordering::Relaxed) as u8);
                    }
                    assert!(pending.answer(id, Some(frame).filter(|f| *f != 99), 5, jpeg));
                }
            });
            Self { desk: Arc::default(), orders, frame, encoded }
        }

        async fn ask(&self, wish: PictureWish) -> Result<EncodedPicture, PictureError> {
            self.desk.picture(wish, &self.orders).await
        }

        fn encoded(&self) -> usize {
            self.encoded.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_encoded_once_for_all_who_want_it_alike() {
        let rig = Rig::new();
        let asked: Vec<_> = (0..WAITING).map(|_| rig.ask(WISH)).collect();
        let first = rig.ask(WISH).await.unwrap();
        assert_eq!((first.frame, first.presentation_ns, &first.jpeg[..3]), (0, 5, &JPEG[..]));
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.iter().all(|answer| answer.as_ref() == Ok(&first)));
        tokio::time::advance(FRESH).await;
        assert_eq!(rig.ask(WISH).await.unwrap(), first, "the frame is the same");
        assert_eq!(rig.encoded(), 1);
        assert_ne!(rig.ask(PictureWish::default()).await.unwrap().jpeg, first.jpeg);
        rig.frame.store(1, Ordering::Relaxed);
        assert_eq!(rig.ask(WISH).await.unwrap().frame, 0, "asked for a moment ago");
        tokio::time::advance(FRESH).await;
        assert_eq!(rig.ask(WISH).await.unwrap().frame, 1);
        assert_eq!(rig.encoded(), 3);
        for width in 0..9 {
            let wish = PictureWish { width: Some(width), boxes: false };
            rig.ask(wish).await.unwrap();
        }
        assert_eq!(rig.desk.kept.lock().await.len(), KEPT);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_beyond_the_bound_or_too_early_is_told() {
        let rig = Rig::new();
        rig.frame.store(99, Ordering::Relaxed);
        assert_eq!(rig.ask(WISH).await, Err(PictureError::None), "the worker has none");
        let (silent, (orders, _inbox)) = (Arc::<PictureDesk>::default(), mpsc::channel(1));
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..WAITING {
            let (desk, orders) = (Arc::clone(&silent), orders.clone());
            asked.spawn(async move { desk.picture(WISH, &orders).await });
        }
        while silent.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(silent.picture(WISH, &orders).await, Err(PictureError::Busy));
        asked.shutdown().await;
        let begun = Instant::now();
        assert_eq!(silent.picture(WISH, &orders).await, Err(PictureError::None));
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[test]
    fn what_a_worker_calls_a_picture_is_one_or_the_worker_is_at_fault() {
        let mut pending = PendingPicture::default();
        let order = || {
            let (reply, answer) = oneshot::channel();
            (PictureOrder { wish: WISH, known: None, reply }, answer)
        };
        let ((first, mut given_up), (second, mut wanted)) = (order(), order());
        assert_eq!((pending.begin(first).0, pending.begin(second).0), (0, 1));
        assert!(!pending.answer(1, Some(0), 0, b"<script>".to_vec()));
        assert!(pending.answer(0, Some(7), 0, JPEG.to_vec()), "late, and nobody's");
        assert!(given_up.try_recv().is_err() && wanted.try_recv().is_err());
        assert!(pending.answer(1, Some(8), 0, JPEG.to_vec()));
        assert_eq!(wanted.try_recv().unwrap().frame, 8);
    }
}
