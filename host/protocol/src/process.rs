//! The descriptors of child processes: passed by number, from 3 on, before a child starts.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Descriptors of an `ocelli-worker`, and its threads.
pub mod worker {
    use super::RawFd;
    /// Most threads. A worker has six: its first, which runs the pipeline, and `heartbeat`,
    /// `epoch`, `intake`, `shown` and `hang-up`. The rest is to spare for libraries.
    pub const MAX_THREADS: u64 = 8;
    /// Most threads of one whose decoder works on a GPU: drivers have some for each processor.
    pub const MAX_DEVICE_THREADS: u64 = 256;
    /// Stream socket to the host.
    pub const HOST: RawFd = 3;
    /// Sequenced-packet socket to the inference process.
    pub const INFERENCE: RawFd = 4;
    /// The session's shared memory.
    pub const TENSORS: RawFd = 5;
    /// The compiled component, open for reading.
    pub const COMPONENT: RawFd = 6;
    /// Stream socket for the keys of Redis that the session was granted. Without a grant it has no
    /// other end.
    pub const REDIS: RawFd = 7;
    /// The first of the folders that the session was granted, in the order of the arguments behind
    /// its name: [`super::GrantedDirectory`].
    pub const DIRECTORIES: RawFd = 8;
}

/// Folders that a session may be granted: a descriptor and a rule of landlock each.
pub const MAX_DIRECTORIES: usize = 8;

/// A folder that a session was granted, as it stands among a worker's arguments. The worker
/// confines itself by it before it reads a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedDirectory {
    /// Its path in the component: absolute.
    pub guest: String,
    /// Whether the component may change what is in it.
    pub write: bool,
}

impl GrantedDirectory {
    const READ: &str = "read:";
    const WRITE: &str = "write:";

    /// The folder as an argument.
    pub fn argument(&self) -> String {
        format!("{}{}", if self.write { Self::WRITE } else { Self::READ }, self.guest)
    }

    /// The folder of an argument. `None`: it is none.
    pub fn of_argument(argument: &str) -> Option<Self> {
        let read = argument.strip_prefix(Self::READ).map(|guest| (guest, false));
        let (guest, write) =
            read.or(argument.strip_prefix(Self::WRITE).map(|guest| (guest, true)))?;
        guest.starts_with('/').then(|| Self { guest: guest.to_owned(), write })
    }
}

/// Descriptors of an `ocelli-inference`.
pub mod inference {
    use super::RawFd;
    /// Sequenced-packet socket to the host.
    pub const HOST: RawFd = 3;
}

/// Descriptors of an `ocelli-ingest`.
pub mod ingest {
    use super::RawFd;
    /// Stream socket to the host.
    pub const HOST: RawFd = 3;
    /// Sequenced-packet socket to the host, for connections. For a file it has no other end.
    pub const NETWORK: RawFd = 4;
    /// The file, open for reading. For a camera it is `/dev/null`.
    pub const FILE: RawFd = 5;
}

/// Descriptors of an `ocelli-compile`, and its memory.
pub mod compile {
    use super::RawFd;
    /// Private memory, in bytes. A component made of CPython takes 342 MB.
    pub const MEMORY: u64 = 2 << 30;
    /// The component, open for reading.
    pub const COMPONENT: RawFd = 3;
    /// The file that the compiled component is written to.
    pub const OUTPUT: RawFd = 4;
}

/// Takes over a descriptor that the parent promised to pass.
///
/// # Safety
///
/// To be called once per number, at the start of a child that its parent gave this descriptor,
/// before anything else in the process could own it.
#[allow(unsafe_code)]
pub unsafe fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the caller promises that the number is an open descriptor that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Ends this process when its parent ends, however that ends. Call it first of all: a parent that
/// died before is noticed by the closed socket.
///
/// The kernel looks at the *thread* that started the child, so the parent must start children from
/// a thread that lives as long as the process: never from a pool whose threads come and go.
pub fn die_with_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_folder_is_the_same_behind_an_argument() {
        for write in [false, true] {
            let folder = GrantedDirectory { guest: "/zones of read:/x".into(), write };
            assert_eq!(GrantedDirectory::of_argument(&folder.argument()), Some(folder));
        }
        for argument in ["", "/zones", "read:", "read:zones", "all:/zones", "write"] {
            assert_eq!(GrantedDirectory::of_argument(argument), None, "{argument}");
        }
    }
}
