//! The frames that a run gets: a video file, or a folder of pictures.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail, ensure};
use ocelli_protocol::clock;
use ocelli_protocol::digest::Digest;
use ocelli_protocol::wire::MAX_PAYLOAD;
use ocelli_protocol::worker::{CaptureClock, Codec, Orientation, ToWorker, UnitHeader};

use crate::config::source::{FileSource, Source};
use crate::source::{SourceEvent, Sources};
use crate::util::folder::{Folder, open_regular};
use crate::worker::WorkerSender;

/// Endings of the files of a folder that are its pictures.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Recorded frames. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Footage {
    Video(FileSource),
    Pictures(Pictures),
}

/// The JPEG and PNG files of a folder, in the order of their names.
#[derive(Debug, Clone)]
pub(crate) struct Pictures {
    folder: Folder,
    names: Arc<[String]>,
    /// Nanoseconds from one to the next.
    interval_ns: u64,
}

impl Footage {
    /// The pictures of a folder as frames of a source with so many in a second, above 0.
    pub(crate) fn pictures(folder: Folder, rate: f64) -> anyhow::Result<Self> {
        let shown = folder.path().display().to_string();
        let is_picture = |name: &String| {
            let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
            !name.starts_with('.') && ending.is_some_and(|end| ENDINGS.contains(&end.as_str()))
        };
        let names = folder.names().with_context(|| shown.clone())?;
        let mut names: Vec<String> = names.into_iter().filter(is_picture).collect();
        ensure!(!names.is_empty(), "{shown} has no JPEG or PNG file");
        names.sort_unstable();
        let interval_ns = (1e9 / rate).round() as u64;
        Ok(Self::Pictures(Pictures { folder, names: names.into(), interval_ns }))
    }

    /// Its path, to be shown.
    pub(super) fn shown(&self) -> String {
        let path = match self {
            Self::Video(source) => &source.path,
            Self::Pictures(pictures) => pictures.folder.path(),
        };
        path.display().to_string()
    }

    /// SHA-256 of the video, or of the pictures' names and contents, hexadecimal. May block.
    pub(crate) fn digest(&self) -> anyhow::Result<String> {
        let digest = match self {
            Self::Video(source) => {
                let file = open_regular(&source.path);
                let digest = file.and_then(Digest::of_reader);
                digest.with_context(|| source.path.display().to_string())?
            }
            Self::Pictures(Pictures { folder, names, .. }) => {
                let mut list = String::new();
                for name in names.iter() {
                    let digest = folder.read_linked(name).and_then(Digest::of_reader);
                    let digest = digest.with_context(|| folder_entry(folder, name))?;
                    list += &format!("{digest} {name}\n");
                }
                Digest::of(list.as_bytes())
            }
        };
        Ok(digest.to_string())
    }
}

/// What was sent of footage.
pub(super) struct FedUnits {
    /// Access units that were sent.
    pub(super) units: u64,
    /// Pictures of a video that could not be read.
    pub(super) lost: u64,
    /// Why the first part of a video could not be read.
    pub(super) damaged: Option<String>,
    /// Kept until the worker is done: it ends when this is dropped.
    pub(super) sender: WorkerSender,
}

/// Sends footage to a worker: all of it and its end, or the first units and the wish for the
/// pipeline's state. Fails where the footage cannot be read. A worker that is gone ends it.
pub(super) async fn feed(
    footage: Footage,
    sources: Sources,
    sender: WorkerSender,
    until: Option<u64>,
) -> anyhow::Result<FedUnits> {
    let mut fed = FedUnits { units: 0, lost: 0, damaged: None, sender };
    let is_there = match footage {
        Footage::Video(source) => feed_video(&mut fed, source, &sources, until).await?,
        Footage::Pictures(pictures) => feed_pictures(&mut fed, &pictures, until).await?,
    };
    if is_there {
        let is_cut = until.is_some_and(|until| fed.units >= until);
        let last = if is_cut { ToWorker::Snapshot } else { ToWorker::EndOfStream };
        // A worker that is gone is noticed by its messages.
        let _ = fed.sender.send(&last, &[]).await;
    }
    Ok(fed)
}

/// Whether the worker is still there.
async fn feed_video(
    fed: &mut FedUnits,
    source: FileSource,
    sources: &Sources,
    until: Option<u64>,
) -> anyhow::Result<bool> {
    let mut subscription = sources.subscribe(&Source::File(source));
    let lost = subscription.lost();
    let is_there = loop {
        if until.is_some_and(|until| fed.units >= until) {
            break true;
        }
        match subscription.next().await {
            SourceEvent::Unit(unit) => {
                let message = ToWorker::Unit(unit.header.clone());
                if fed.sender.send(&message, &unit.data).await.is_err() {
                    break false;
                }
                fed.units += 1;
            }
            SourceEvent::Up => {}
            SourceEvent::Damaged(why) => {
                fed.damaged.get_or_insert(why);
            }
            SourceEvent::Down(fault) => bail!("{fault}"),
            SourceEvent::Ended => break true,
        }
    };
    fed.lost = lost.load(Ordering::Relaxed);
    Ok(is_there)
}

/// Whether the worker is still there.
async fn feed_pictures(
    fed: &mut FedUnits,
    pictures: &Pictures,
    until: Option<u64>,
) -> anyhow::Result<bool> {
    let most = until.and_then(|until| usize::try_from(until).ok()).unwrap_or(usize::MAX);
    for name in pictures.names.iter().take(most) {
        let (folder, shown) = (pictures.folder.clone(), folder_entry(&pictures.folder, name));
        let name = name.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let most = MAX_PAYLOAD as u64 + 1;
            folder.read_linked(&name)?.take(most).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        });
        let bytes = read.await.context("reading pictures")?.with_context(|| shown.clone())?;
        ensure!(bytes.len() <= MAX_PAYLOAD, "{shown} is larger than {} MiB", MAX_PAYLOAD >> 20);
        let message = ToWorker::Picture(pictures.header(fed.units));
        if fed.sender.send(&message, &bytes).await.is_err() {
            return Ok(false);
        }
        fed.units += 1;
    }
    Ok(true)
}

/// A file's path, to be shown.
fn folder_entry(folder: &Folder, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

impl Pictures {
    fn header(&self, number: u64) -> UnitHeader {
        let shown_ns = number.saturating_mul(self.interval_ns);
        UnitHeader {
            number,
            codec: Codec::Mjpeg,
            key: true,
            disposable: false,
            discontinuity: false,
            presentation_ns: i64::try_from(shown_ns).ok(),
            capture_ns: shown_ns,
            capture_clock: CaptureClock::Host,
            orientation: Orientation::Upright,
            hidden: false,
            received_ns: clock::monotonic_ns(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_in_the_order_of_their_names_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Folder::open(folder.path()).unwrap();
        for name in ["b.PNG", "a.jpeg", "c.jpg", ".d.jpg", "readme.txt", "jpg"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let Footage::Pictures(pictures) = Footage::pictures(open(), 4.0).unwrap() else {
            panic!("no pictures")
        };
        assert_eq!(&*pictures.names, ["a.jpeg", "b.PNG", "c.jpg"]);
        assert_eq!(pictures.header(3).presentation_ns, Some(750_000_000));
        for name in &*pictures.names {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        let error = Footage::pictures(open(), 4.0).unwrap_err().to_string();
        assert!(error.ends_with("has no JPEG or PNG file"), "{error}");
    }
}
