//! A source's viewers: they get its access units as they came, beside the workers.
//!
//! A [`PictureTap`] never waits, so nothing here holds a worker up, and the units are shared. What
//! waits for a viewer is short, because an old picture is worth nothing to a person who looks: half
//! a second, after which a viewer goes on at the next key unit and its next picture is marked as a
//! discontinuity. The queues of one connection are a [`ViewerGroup`], which says whose turn it is.
//!
//! ```text
//! fanout | file --unit--> tap: kept GOP --unit--> queue of each viewer --> group: turns --> api
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ocelli_protocol::worker::Codec;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::AccessUnit;
use super::clips::RecorderInner;
use super::gop::GopCache;
use super::timeline::StreamTimeline;

/// Time that may wait for a viewer, in nanoseconds of receipt: longer, and what a page shows is no
/// longer what happens. The GOP that it joined with does not count.
const MAX_WAITING_NS: u64 = 500_000_000;
/// Bytes that may wait for a viewer, likewise: half a second of 25 Mbit/s, the rate of a 4K camera,
/// and a key picture.
const MAX_WAITING_BYTES: usize = 2 << 20;
/// Bytes that may wait for all viewers of a group, the GOPs that they joined with included: one
/// second of a wall of 20 such cameras. A viewer whose GOP finds no room begins at the next key
/// unit. One for which nothing waits gets its next picture even beyond it.
const MAX_GROUP_BYTES: usize = 64 << 20;

/// A picture for a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedPicture {
    pub unit: Arc<AccessUnit>,
    /// It does not continue the picture before: some were left out, or the source began anew.
    pub discontinuity: bool,
}

impl ViewedPicture {
    fn bytes(&self) -> usize {
        self.unit.data.len()
    }
}

/// Which pictures a viewer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerChoice {
    All,
    /// Key units alone.
    Key,
}

/// The viewers of a session, and what its clips take.
#[derive(Debug, Default)]
pub struct ViewerCounts {
    /// Viewers, and the recorder of clips.
    watching: watch::Sender<u64>,
    recorded: AtomicBool,
    dropped: AtomicU64,
    clip_bytes: AtomicUsize,
}

impl ViewerCounts {
    /// Viewers now.
    pub fn viewers(&self) -> u64 {
        self.watching.borrow().saturating_sub(self.recorded.load(Ordering::Relaxed).into())
    }

    /// How many the pictures are for: the viewers, and one more where clips are recorded. As it
    /// changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.watching.subscribe()
    }

    /// Notes whether clips are recorded.
    pub(super) fn set_recorded(&self, recorded: bool) {
        self.watching.send_modify(|watching| {
            let before = u64::from(self.recorded.swap(recorded, Ordering::Relaxed));
            *watching = (*watching + u64::from(recorded)).saturating_sub(before);
        });
    }

    /// Bytes of pictures that are kept for clips of events to come.
    pub fn clip_bytes(&self) -> u64 {
        self.clip_bytes.load(Ordering::Relaxed) as u64
    }

    pub(super) fn set_clip_bytes(&self, bytes: usize) {
        self.clip_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Pictures that viewers were too slow for, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Where viewers join one reader. Clones are the same tap.
#[derive(Clone, Debug, Default)]
pub struct PictureTap {
    state: Arc<Mutex<TapState>>,
}

#[derive(Debug, Default)]
struct TapState {
    gop: GopCache,
    codec: Option<Codec>,
    queues: Vec<Arc<ViewerQueue>>,
    recorders: Vec<Arc<RecorderInner>>,
    timeline: StreamTimeline,
}

impl PictureTap {
    /// Hands the next unit, in decoding order, to every viewer.
    pub fn unit(&self, unit: &Arc<AccessUnit>) {
        let mut state = self.state.lock();
        state.codec = Some(unit.header.codec);
        state.gop.push(unit);
        state.timeline.unit(&unit.header);
        state.queues.iter().for_each(|queue| queue.push(unit));
        state.recorders.iter().for_each(|recorder| recorder.unit(unit));
    }

    /// The next unit does not continue those before.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.gop.clear();
        state.recorders.iter().for_each(|recorder| recorder.end());
    }

    /// Where the times of its units lie.
    pub fn timeline(&self) -> StreamTimeline {
        self.state.lock().timeline
    }

    /// The codec of the last unit; `None` before the first.
    fn codec(&self) -> Option<Codec> {
        self.state.lock().codec
    }

    /// Adds a viewer's queue: it gets the kept GOP and then all further units.
    fn join(&self, queue: &Arc<ViewerQueue>) {
        let mut state = self.state.lock();
        queue.begin(state.gop.units());
        state.queues.push(Arc::clone(queue));
    }

    fn leave(&self, queue: &Arc<ViewerQueue>) {
        self.state.lock().queues.retain(|other| !Arc::ptr_eq(other, queue));
    }

    /// Adds a recorder of clips: it gets the kept GOP and then all further units.
    pub(super) fn join_recorder(&self, recorder: &Arc<RecorderInner>) {
        let mut state = self.state.lock();
        state.gop.units().iter().for_each(|unit| recorder.unit(unit));
        state.recorders.push(Arc::clone(recorder));
    }

    pub(super) fn leave_recorder(&self, recorder: &Arc<RecorderInner>) {
        self.state.lock().recorders.retain(|other| !Arc::ptr_eq(other, recorder));
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

/// The pictures of a session, whatever reads its source: the session's end.
#[derive(Debug)]
pub struct PictureFeedOwner {
    taps: watch::Sender<PictureTap>,
    counts: Arc<ViewerCounts>,
}

impl Default for PictureFeedOwner {
    fn default() -> Self {
        Self { taps: watch::Sender::new(PictureTap::default()), counts: Arc::default() }
    }
}

impl PictureFeedOwner {
    /// The viewers' end. It ends with this owner.
    pub fn feed(&self) -> PictureFeed {
        PictureFeed { taps: self.taps.subscribe(), counts: Arc::clone(&self.counts) }
    }

    /// Moves the viewers to another reader, unless it is the same.
    pub fn follow(&self, tap: PictureTap) {
        self.taps.send_if_modified(|known| {
            let moved = !known.is_same(&tap);
            *known = tap;
            moved
        });
    }
}

/// The viewers' end of a session's pictures.
#[derive(Clone, Debug)]
pub struct PictureFeed {
    taps: watch::Receiver<PictureTap>,
    counts: Arc<ViewerCounts>,
}

impl PictureFeed {
    /// The codec, once the source has delivered.
    pub fn codec(&self) -> Option<Codec> {
        self.taps.borrow().codec()
    }

    pub fn counts(&self) -> &Arc<ViewerCounts> {
        &self.counts
    }

    /// A viewer, which `group` calls by `number`.
    pub fn view(&self, group: &Arc<ViewerGroup>, number: u32, choice: ViewerChoice) -> Viewer {
        self.counts.watching.send_modify(|viewers| *viewers += 1);
        let queue = Arc::new(ViewerQueue {
            number,
            group: Arc::clone(group),
            counts: Arc::clone(&self.counts),
            state: Mutex::new(QueueState::new(choice)),
        });
        let mut taps = self.taps.clone();
        let tap = taps.borrow_and_update().clone();
        tap.join(&queue);
        Viewer { taps, tap, queue }
    }
}

/// The viewers of one connection, by turns.
#[derive(Debug, Default)]
pub struct ViewerGroup {
    /// Viewers for which pictures wait, each once.
    ready: Mutex<VecDeque<u32>>,
    waiting_bytes: AtomicUsize,
    wake: Notify,
}

impl ViewerGroup {
    /// Waits until a picture may wait for one of them.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Makes the next [`wait`](Self::wait) return at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The viewer whose turn it is.
    pub fn next_ready(&self) -> Option<u32> {
        self.ready.lock().pop_front()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= MAX_GROUP_BYTES
    }
}

/// How a viewer's session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedChange {
    /// Another reader has its source; the viewer has joined it.
    Moved,
    /// It has ended.
    Ended,
}

/// A viewer's end of its queue; leaves when dropped.
#[derive(Debug)]
pub struct Viewer {
    taps: watch::Receiver<PictureTap>,
    tap: PictureTap,
    queue: Arc<ViewerQueue>,
}

impl Viewer {
    /// The next picture. To be called when it is this viewer's turn.
    pub fn next(&self) -> Option<ViewedPicture> {
        self.queue.pop()
    }

    /// Changes which pictures come. One that gets all from now on begins with the kept GOP.
    pub fn choose(&self, choice: ViewerChoice) {
        match choice {
            ViewerChoice::Key => self.queue.keep_keys(),
            ViewerChoice::All if self.queue.choice() == choice => {}
            ViewerChoice::All => {
                self.tap.leave(&self.queue);
                self.queue.restart(choice);
                self.tap.join(&self.queue);
            }
        }
    }

    /// Follows the session to another reader, if it has moved. What it does, once.
    pub fn follow(&mut self) -> Option<FeedChange> {
        match self.taps.has_changed() {
            Ok(false) => None,
            Ok(true) => {
                let tap = self.taps.borrow_and_update().clone();
                self.tap.leave(&self.queue);
                self.queue.restart(self.queue.choice());
                tap.join(&self.queue);
                self.tap = tap;
                Some(FeedChange::Moved)
            }
            Err(_) => Some(FeedChange::Ended),
        }
    }

    /// Returns when [`follow`](Self::follow) has something to do, for the first time from now on
    /// and each time after that.
    pub fn changes(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut taps, group) = (self.taps.clone(), Arc::clone(&self.queue.group));
        async move {
            while taps.changed().await.is_ok() {
                group.wake();
            }
            group.wake();
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.tap.leave(&self.queue);
        self.queue.restart(self.queue.choice());
        self.queue.counts.watching.send_modify(|viewers| *viewers = viewers.saturating_sub(1));
    }
}

/// The queue of one viewer.
#[derive(Debug)]
struct ViewerQueue {
    number: u32,
    group: Arc<ViewerGroup>,
    counts: Arc<ViewerCounts>,
    state: Mutex<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    choice: ViewerChoice,
    /// The rest of the GOP that it joined with: read first, and outside of the viewer's bounds.
    joined: VecDeque<ViewedPicture>,
    live: VecDeque<ViewedPicture>,
    live_bytes: usize,
    /// Units are left out up to the next key unit.
    skipping: bool,
    /// The next picture does not continue the last.
    gap: bool,
    /// It waits for its turn.
    listed: bool,
}

impl QueueState {
    fn new(choice: ViewerChoice) -> Self {
        Self {
            choice,
            joined: VecDeque::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            skipping: false,
            gap: false,
            listed: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.live.is_empty()
    }

    /// Empties the queue. The bytes and the number of pictures that waited.
    fn clear(&mut self) -> (usize, u64) {
        let (bytes, pictures) = (self.bytes(), self.joined.len() + self.live.len());
        self.joined.clear();
        self.live.clear();
        self.live_bytes = 0;
        (bytes, pictures as u64)
    }

    /// Bytes that wait.
    fn bytes(&self) -> usize {
        self.live_bytes + self.joined.iter().map(ViewedPicture::bytes).sum::<usize>()
    }

    /// Whether a unit with so many bytes is more than may wait.
    fn is_full(&self, unit: &AccessUnit) -> bool {
        let Some(first) = self.live.front() else { return false };
        let waiting = unit.header.received_ns.saturating_sub(first.unit.header.received_ns);
        waiting >= MAX_WAITING_NS
            || self.live_bytes.saturating_add(unit.data.len()) > MAX_WAITING_BYTES
    }
}

impl ViewerQueue {
    /// Begins with the kept GOP, or its key unit.
    fn begin(&self, gop: &[Arc<AccessUnit>]) {
        let mut state = self.state.lock();
        let gop = match state.choice {
            ViewerChoice::All => gop,
            ViewerChoice::Key => gop.get(..1).unwrap_or_default(),
        };
        let bytes = gop.iter().map(|unit| unit.data.len()).sum();
        if gop.is_empty() || !self.group.has_room(bytes) {
            // What follows refers to pictures that this viewer does not get.
            state.skipping = true;
            return;
        }
        self.group.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        for unit in gop {
            let discontinuity = std::mem::take(&mut state.gap) || unit.header.discontinuity;
            state.joined.push_back(ViewedPicture { unit: Arc::clone(unit), discontinuity });
        }
        self.list(&mut state);
    }

    /// Empties the queue before it joins again, or leaves.
    fn restart(&self, choice: ViewerChoice) {
        let mut state = self.state.lock();
        let (bytes, _) = state.clear();
        self.group.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        *state = QueueState { gap: true, listed: state.listed, ..QueueState::new(choice) };
    }

    fn choice(&self) -> ViewerChoice {
        self.state.lock().choice
    }

    /// Keeps the key units alone, of those that wait too.
    fn keep_keys(&self) {
        let mut state = self.state.lock();
        let before = state.bytes();
        state.choice = ViewerChoice::Key;
        state.joined.retain(|picture| picture.unit.header.key);
        state.live.retain(|picture| picture.unit.header.key);
        state.live_bytes = state.live.iter().map(ViewedPicture::bytes).sum();
        let freed = before.saturating_sub(state.bytes());
        self.group.waiting_bytes.fetch_sub(freed, Ordering::Relaxed);
    }

    fn push(&self, unit: &Arc<AccessUnit>) {
        let mut state = self.state.lock();
        let key = unit.header.key;
        if state.choice == ViewerChoice::Key && !key {
            return;
        }
        let mut full = state.is_full(unit);
        if full && key {
            // The newest picture that can be decoded takes the place of older ones.
            let (bytes, pictures) = state.clear();
            self.group.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.fetch_add(pictures, Ordering::Relaxed);
            state.gap = true;
            full = false;
        }
        let room = state.is_empty() || self.group.has_room(unit.data.len());
        if full || !room || (state.skipping && !key) {
            // One that waits for its first key unit has lost nothing.
            if full || !room || state.gap {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                state.gap = true;
            }
            state.skipping = true;
            return;
        }
        state.skipping = false;
        let discontinuity = std::mem::take(&mut state.gap) || unit.header.discontinuity;
        state.live_bytes += unit.data.len();
        self.group.waiting_bytes.fetch_add(unit.data.len(), Ordering::Relaxed);
        state.live.push_back(ViewedPicture { unit: Arc::clone(unit), discontinuity });
        self.list(&mut state);
    }

    fn pop(&self) -> Option<ViewedPicture> {
        let mut state = self.state.lock();
        state.listed = false;
        let picture = match state.joined.pop_front() {
            Some(picture) => picture,
            None => {
                let picture = state.live.pop_front()?;
                state.live_bytes = state.live_bytes.saturating_sub(picture.bytes());
                picture
            }
        };
        self.group.waiting_bytes.fetch_sub(picture.bytes(), Ordering::Relaxed);
        if !state.is_empty() {
            self.list(&mut state);
        }
        Some(picture)
    }

    /// Has it wait for its turn, if it does not.
    fn list(&self, state: &mut QueueState) {
        if !std::mem::replace(&mut state.listed, true) {
            self.group.ready.lock().push_back(self.number);
            self.group.wake();
        }
    }
}

#[cfg(test)]
mod tests;
