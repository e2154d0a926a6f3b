//! The permissions of each kind of child process.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// The permissions that a confined process retains.
#[derive(Debug)]
pub struct Profile<'a> {
    pub(crate) kind: ProcessKind,
    /// Folders in which files may be opened for reading. One that is not there is left out.
    pub(crate) readable: Vec<PathBuf>,
    /// An open file that may be reopened for reading.
    pub(crate) reopened: Option<BorrowedFd<'a>>,
    /// Open folders in which files may be opened, and whether they may be changed.
    pub(crate) directories: Vec<(BorrowedFd<'a>, bool)>,
    /// Whether drivers of devices work in the process.
    pub(crate) devices: bool,
    /// Whether the process holds the open render node of a GPU.
    pub(crate) render_node: bool,
}

/// Which system calls a process makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessKind {
    Worker,
    Compile,
    Inference,
    Ingest,
    Rtsp,
}

impl<'a> Profile<'a> {
    /// No file, and no device.
    fn of(kind: ProcessKind) -> Self {
        Self {
            kind,
            readable: Vec::new(),
            reopened: None,
            directories: Vec::new(),
            devices: false,
            render_node: false,
        }
    }

    /// A session's worker: no files, no network. `component` can be opened once more through its
    /// entry under `/proc/self/fd`, which is the one way in which Wasmtime maps a compiled
    /// component, until [`crate::seal`].
    pub fn worker(component: Option<BorrowedFd<'a>>) -> Self {
        Self { reopened: component, ..Self::of(ProcessKind::Worker) }
    }

    /// The same for a session that was granted folders, each with whether it may change what is in
    /// it. Landlock holds the process to them: seccomp does not see which file a call opens. So do
    /// not use them where [`Measure::Files`](ocelli_protocol::confinement::Measure::Files) is not
    /// enforced. A link, a pipe, a socket or a device cannot be made, nor anything executed.
    #[must_use]
    pub fn with_directories(self, directories: Vec<(BorrowedFd<'a>, bool)>) -> Self {
        Self { directories, ..self }
    }

    /// The compiler: the descriptors that it inherited, and threads.
    pub fn compile() -> Self {
        Self::of(ProcessKind::Compile)
    }

    /// The inference process, once ONNX Runtime is loaded: it still reads models beneath `models`,
    /// makes memory to warm them, and takes the descriptors of sessions.
    pub fn inference(models: Vec<PathBuf>) -> Self {
        Self { readable: models, ..Self::of(ProcessKind::Inference) }
    }

    /// The reader process of one source: no files, sockets that neither connect nor listen. The
    /// descriptors that it inherits stay open and at their numbers, because the one call that can
    /// carry an address is allowed for one of them only.
    pub fn ingest() -> Self {
        Self::of(ProcessKind::Ingest)
    }

    /// The strict reader's process of one camera: the same with threads, of which one resolves
    /// names.
    pub fn rtsp() -> Self {
        Self::of(ProcessKind::Rtsp)
    }

    /// Whether the process starts threads for as long as it runs.
    pub fn has_threads(&self) -> bool {
        self.kind == ProcessKind::Rtsp
    }

    /// The same where models run on a device other than the processor: its driver opens and writes
    /// files and makes calls of its own, of which no list exists. Files and system calls are not
    /// restricted, and are reported as such.
    pub fn with_devices(self) -> Self {
        Self { devices: true, ..self }
    }

    /// The same for a process that has opened the render node of a GPU, and has loaded its driver:
    /// the control calls of such nodes are allowed beside the others. Threads that the driver has
    /// begun get the list of system calls too; landlock does not reach them, which is reported.
    #[must_use]
    pub fn with_render_node(self) -> Self {
        Self { render_node: true, ..self }
    }
}
