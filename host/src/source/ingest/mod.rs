//! Sources are read by processes of their own: a camera by `ocelli-rtsp` with retina, every file
//! and the cameras whose streams the strict reader cannot read by `ocelli-ingest` with libavformat.
//!
//! Each process is confined, sees the one file that it is given, and connects to nothing: a
//! [`Broker`](broker::Broker) in the host resolves and connects for it, where the camera's rule
//! admits it, and speaks TLS. What the process sends is bounded and checked here; one that dies,
//! hangs or breaks the protocol is a fault of this one source. So is a camera's that sends too many
//! messages a second; a file's waits in its socket, since the host reads no faster than it hands on.

mod broker;
mod camera;
mod pictures;
mod process;
mod strict;
mod tls;

pub(super) use broker::Admitted;
pub(super) use camera::CompatibleReader;
pub(super) use pictures::PictureReader;
pub(super) use process::{Descriptors, IngestError, IngestItem, IngestLauncher, IngestProcess};
pub(super) use strict::{StrictItem, StrictLauncher, StrictProcess};
