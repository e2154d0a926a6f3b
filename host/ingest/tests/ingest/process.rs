//! A reader process, and the host's ends of its sockets.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::ingest::{
    Damage, FromIngest, IngestFault, IngestUnit, Input, Open, StreamInfo,
};
use ocelli_protocol::process::ingest as descriptor;
use ocelli_protocol::wire::{self, Reader, WireError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Private memory of a reader: more than any file here needs.
pub(crate) const MEMORY: u64 = 128 << 20;

/// How long a message may take before the process counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running reader.
pub(crate) struct Ingest {
    child: Child,
    messages: Reader<UnixStream>,
}

/// A packet socket's two ends.
pub(crate) fn packet_sockets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

impl Ingest {
    /// Starts a reader that reads `open`.
    pub(crate) fn start(open: &Open, network: OwnedFd, file: OwnedFd) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli-ingest"));
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .fd_mappings(vec![
                FdMapping { parent_fd: theirs.into(), child_fd: descriptor::HOST },
                FdMapping { parent_fd: network, child_fd: descriptor::NETWORK },
                FdMapping { parent_fd: file, child_fd: descriptor::FILE },
            ])
            .unwrap();
        let child = command.spawn().unwrap();
        // The command holds the other ends as long as it lives.
        drop(command);
        wire::write(&mut &ours, open, &[]).unwrap();
        Self { child, messages: Reader::new(ours) }
    }

    /// A reader of a file, with 10 s for a picture.
    pub(crate) fn of_file(file: File, ending: &str) -> Self {
        let open = Open {
            input: Input::File { ending: ending.to_owned() },
            memory: MEMORY,
            read_timeout_ms: 10_000,
        };
        Self::start(&open, packet_sockets().0, file.into())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next message and its payload; `None` once it has closed the connection.
    pub(crate) fn message(&mut self) -> Option<(FromIngest, Vec<u8>)> {
        match self.messages.read() {
            Ok((message, payload)) => Some((message, payload.to_vec())),
            Err(WireError::Closed) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads to the last message, after which the process has to end by itself and without a crash.
    pub(crate) fn play(mut self) -> Played {
        let mut played = Played::default();
        while let Some((message, payload)) = self.message() {
            assert!(played.end.is_none(), "{message:?} after {:?}", played.end);
            match message {
                FromIngest::SandboxReport(_) => assert!(played.info.is_none()),
                FromIngest::Opened(info) => assert!(played.info.replace(info).is_none()),
                FromIngest::Unit(unit) => played.units.push((unit, payload)),
                FromIngest::Damage(damage) => {
                    played.damage.push((played.units.len(), damage));
                }
                FromIngest::Alive => {}
                FromIngest::Ended => played.end = Some(Ok(())),
                FromIngest::Failed(fault) => played.end = Some(Err(fault)),
            }
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}, signal {:?}", status.signal());
        assert!(played.end.is_some(), "it ended without a word");
        played
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that a reader said.
#[derive(Debug, Default)]
pub(crate) struct Played {
    pub(crate) info: Option<StreamInfo>,
    pub(crate) units: Vec<(IngestUnit, Vec<u8>)>,
    /// Each with the number of units before it.
    pub(crate) damage: Vec<(usize, Damage)>,
    pub(crate) end: Option<Result<(), IngestFault>>,
}

impl Played {
    /// What the stream is.
    pub(crate) fn info(&self) -> &StreamInfo {
        self.info.as_ref().unwrap_or_else(|| panic!("not opened: {:?}", self.end))
    }

    /// The fault that it ended with.
    pub(crate) fn fault(&self) -> &IngestFault {
        self.end.as_ref().unwrap().as_ref().unwrap_err()
    }

    /// Whether it came to the file's end.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.end, Some(Ok(())))
    }
}

/// Plays a file.
pub(crate) fn play(path: &Path) -> Played {
    let ending = ocelli_ingest::ending(path);
    Ingest::of_file(File::open(path).unwrap(), &ending).play()
}

/// Plays bytes as a file.
pub(crate) fn play_bytes(bytes: &[u8], ending: &str) -> Played {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Ingest::of_file(file, ending).play()
}

/// A file of these tests.
pub(crate) fn own_clip(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clips")).join(name)
}

/// The NAL units of a unit in Annex B form, without zeros at their end.
pub(crate) fn nals(unit: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> =
        unit.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at).collect();
    starts.push(unit.len());
    let between = starts.windows(2).map(|pair| {
        let nal = &unit[pair[0] + 3..pair[1]];
        &nal[..nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
    });
    between.filter(|nal| !nal.is_empty()).collect()
}
