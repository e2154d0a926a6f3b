//! The reader processes, one for each source: `ocelli-rtsp` is the strict reader of a camera
//! ([`strict`]), `ocelli-ingest` demuxes a file, or a camera that the strict reader cannot read,
//! with libavformat ([`session`]).
//!
//! It is confined before it reads anything from outside. A file comes as a descriptor; nothing is
//! opened by name. For a camera libavformat runs its own RTSP session: its sockets are this
//! process's, but it connects, resolves names and sends datagrams through functions of this program
//! that ask the host ([`network`]). So a redirect or an address in a session description reaches
//! nothing that the source's rule does not admit.
//!
//! ```text
//! host --Open--> session: reader --units, damage--> host
//!                            | demuxer (libavformat) <-- file, or sockets
//!                            '-- connect, getaddrinfo, sendto --> host
//! ```
//!
//! [`Reader`] does the same for a file without a process of its own, for tests of other crates.

mod annexb;
mod demuxer;
mod fault;
mod log;
pub mod network;
mod orientation;
pub mod program;
mod reader;
pub mod session;
pub mod strict;

use std::fs::File;
use std::path::Path;

use ocelli_protocol::ingest::{IngestFault, IngestUnit, StreamInfo};

pub use reader::{Item, Reader, Watch};

/// The ending of a file's name, as [`Reader::open_file`] takes it.
pub fn ending(path: &Path) -> String {
    path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

/// Access units in decoding order, each with its bytes.
pub type Units = Vec<(IngestUnit, Vec<u8>)>;

/// All units of a file, in Annex B form, without a process of its own. For tests.
///
/// # Errors
///
/// The file cannot be read to its end.
pub fn file_units(path: &Path) -> anyhow::Result<(StreamInfo, Units)> {
    let said = |fault: IngestFault| anyhow::anyhow!("{}: {}", path.display(), fault.reason);
    let file = File::open(path)?;
    let mut reader =
        Reader::open_file(file.into(), &ending(path), Box::new(|| false)).map_err(said)?;
    let mut units = Vec::new();
    loop {
        match reader.next_item() {
            Item::Unit(unit) => units.push((unit, reader.data().to_vec())),
            Item::Damage(damage) => anyhow::bail!("{}: {}", path.display(), damage.reason),
            Item::Ended => return Ok((reader.info().clone(), units)),
            Item::Failed(fault) => return Err(said(fault)),
        }
    }
}
