//! The pictures that the client of one WebSocket watches: whose turn it is, and how a picture is on
//! the wire.

use std::collections::HashMap;
use std::sync::Arc;

use ocelli_protocol::worker::UnitHeader;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::event::{PictureChoice, PictureCodec, ServerMessage};
use crate::source::{FeedChange, PictureFeed, ViewedPicture, Viewer, ViewerChoice, ViewerGroup};

/// Sessions that one client may watch: a wall of 4K has room for fewer tiles.
pub(super) const WATCHED: usize = 256;

/// Bytes of a picture's message before the picture.
pub(super) const HEADER: usize = 40;

/// Where the stream's number is in it.
pub(super) const STREAM_AT: usize = 4;

/// The version of the header.
const VERSION: u8 = 1;

/// Bits of the header's flags. Three further ones, from [`TURNED`] on, are the orientation.
pub(super) const KEY: u8 = 1 << 0;
pub(super) const DISCONTINUITY: u8 = 1 << 1;
const HIDDEN: u8 = 1 << 2;
const TURNED: u32 = 4;

/// What a socket watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    group: Arc<ViewerGroup>,
    state: Mutex<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    watched: HashMap<u32, WatchedSession>,
    streams: HashMap<Arc<str>, u32>,
    /// The last stream's number: they are not given again.
    last: u32,
}

#[derive(Debug)]
struct WatchedSession {
    name: Arc<str>,
    viewer: Viewer,
    /// Wakes the socket when the session moves to another reader, or ends.
    _changes: AbortOnDropHandle<()>,
}

impl WatchState {
    fn number(&mut self) -> Option<u32> {
        self.last = self.last.checked_add(1)?;
        Some(self.last)
    }
}

impl Watches {
    /// A number for a stream that is not one of these.
    pub(super) fn number(&self) -> Option<u32> {
        self.state.lock().number()
    }

    /// How many sessions are watched.
    pub(super) fn count(&self) -> usize {
        self.state.lock().watched.len()
    }

    /// Begins to watch a session, or changes which of its pictures come. The stream's number;
    /// `None` if it would be one too many.
    pub(super) fn watch(
        &self,
        session: &str,
        feed: &PictureFeed,
        choice: ViewerChoice,
    ) -> Option<u32> {
        let mut state = self.state.lock();
        if let Some(stream) = state.streams.get(session).copied() {
            if let Some(watched) = state.watched.get(&stream) {
                watched.viewer.choose(choice);
            }
            return Some(stream);
        }
        if state.watched.len() >= WATCHED {
            return None;
        }
        let stream = state.number()?;
        let name: Arc<str> = session.into();
        let viewer = feed.view(&self.group, stream, choice);
        let changes = AbortOnDropHandle::new(tokio::spawn(viewer.changes()));
        state.streams.insert(Arc::clone(&name), stream);
        state.watched.insert(stream, WatchedSession { name, viewer, _changes: changes });
        Some(stream)
    }

    /// Ends the pictures of a session. The number that its stream had.
    pub(super) fn end(&self, session: &str) -> Option<u32> {
        let mut state = self.state.lock();
        let stream = state.streams.remove(session)?;
        state.watched.remove(&stream);
        Some(stream)
    }

    /// Ends all pictures.
    pub(super) fn end_all(&self) {
        let mut state = self.state.lock();
        state.streams.clear();
        state.watched.clear();
    }

    /// Waits until a picture is ready, or a session has moved or ended.
    pub(super) async fn wait(&self) {
        self.group.wait().await;
    }

    /// Makes the next [`wait`](Self::wait) return at once.
    pub(super) fn wake(&self) {
        self.group.wake();
    }

    /// Follows the sessions that have moved to another reader. Those that have ended, with the
    /// numbers that their streams had.
    pub(super) fn follow(&self) -> Vec<(Arc<str>, u32)> {
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        for (stream, watched) in &mut state.watched {
            if watched.viewer.follow() == Some(FeedChange::Ended) {
                ended.push((Arc::clone(&watched.name), *stream));
            }
        }
        for (name, stream) in &ended {
            state.watched.remove(stream);
            state.streams.remove(name);
        }
        ended
    }

    /// The next picture; the sessions take turns.
    pub(super) fn next(&self) -> Option<(u32, ViewedPicture)> {
        let state = self.state.lock();
        loop {
            let stream = self.group.next_ready()?;
            let picture = state.watched.get(&stream).and_then(|watched| watched.viewer.next());
            if let Some(picture) = picture {
                return Some((stream, picture));
            }
        }
    }
}

/// The beginning of a picture's message, big-endian. `now_ns` is the present on the monotonic
/// clock.
pub(super) fn header(stream: u32, picture: &ViewedPicture, now_ns: u64) -> [u8; HEADER] {
    let unit = &picture.unit.header;
    let codec: u16 = match PictureCodec::from(unit.codec) {
        PictureCodec::H264 => 1,
        PictureCodec::H265 => 2,
        PictureCodec::Mjpeg => 3,
    };
    let mut header = [0; HEADER];
    let fields: [&[u8]; 7] = [
        &[VERSION, flags(unit, picture.discontinuity)],
        &codec.to_be_bytes(),
        &stream.to_be_bytes(),
        &unit.number.to_be_bytes(),
        &unit.shown_ns().to_be_bytes(),
        &unit.capture_ns.to_be_bytes(),
        &now_ns.saturating_sub(unit.received_ns).to_be_bytes(),
    ];
    let bytes = fields.into_iter().flatten();
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    header
}

fn flags(unit: &UnitHeader, discontinuity: bool) -> u8 {
    let flag = |is: bool, bit: u8| if is { bit } else { 0 };
    flag(unit.key, KEY)
        | flag(discontinuity, DISCONTINUITY)
        | flag(unit.hidden, HIDDEN)
        | (unit.orientation.code() << TURNED)
}

/// The client's choice; `None` if it wants no pictures.
pub(super) fn choice(pictures: PictureChoice) -> Option<ViewerChoice> {
    match pictures {
        PictureChoice::All => Some(ViewerChoice::All),
        PictureChoice::Key => Some(ViewerChoice::Key),
        PictureChoice::None => None,
    }
}

/// The message that a stream has ended.
pub(super) fn ended(session: &str, stream: u32) -> ServerMessage<'_> {
    ServerMessage::Watching { session, pictures: PictureChoice::None, codec: None, stream }
}
