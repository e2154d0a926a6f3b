//! Messages to and from the inference process, and the packet socket that carries them.
//!
//! The host starts the process, sends [`FromHost::Configure`] and waits for [`ToHost::Ready`].
//! Then it announces each session with [`FromHost::Attach`], passing the inference end of the
//! session's packet socket and its shared memory. The inference process greets the worker with
//! [`InferenceResponse::Hello`].
//!
//! The host keeps a duplicate of both descriptors. When the inference process dies it gives them to
//! the next one: the worker's end stays as it was, and the second `Hello` tells the worker to send
//! again what it still waits for. An inference process answers each request number at most once, so
//! a request that was sent twice does not run twice.
//!
//! A worker has at most one request under way.
//!
//! The [`crate::in_flight::InFlightTable`] has the running requests, in memory that the host and
//! the inference process share: when the process dies, the host reads there which requests may have
//! caused it. The next process gets such a request as a *suspect* ([`Attach::suspect`]) and runs it
//! alone.
//!
//! Models have versions: a folder that changes on disk makes a new *version* of the catalog. A
//! session keeps the one that it was attached with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;
pub use crate::packet::{PacketError, packet_pair, receive, receive_with, send, send_with};

/// Longest packet in bytes: a request with 64 tensors, or the catalog of a few hundred models,
/// stays below it.
pub const MAX_PACKET: usize = 128 << 10;

/// Most inputs or outputs of a model.
pub const MAX_TENSORS: usize = 64;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Descriptors that accompany [`FromHost::Attach`]: the socket, then the shared memory.
/// [`FromHost::Configure`] carries one: the in-flight table.
pub const ATTACH_DESCRIPTORS: usize = 2;

/// Most requests that one run may answer: a batch.
pub const MAX_BATCH: u32 = 32;

/// Most models that a session may have loaded by [`InferenceRequest::Load`]: each takes memory in
/// the inference process until the session ends.
pub const MAX_OWN_MODELS: usize = 4;

/// The most that a pipeline can want of the budget ([`InferenceRequest::Ask`]).
pub const MAX_WANT: u16 = 1000;

/// The type of a tensor's elements.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
pub enum Element {
    /// IEEE half.
    F16,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// bfloat16.
    Bf16,
    /// Unsigned byte.
    U8,
    /// Signed byte. `wasi:nn` has no such type: components see it as `U8`.
    I8,
    /// Truth value: a byte, 0 or 1. `wasi:nn` has no such type: components see it as `U8`.
    Bool,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 8 bytes.
    I64,
}

impl Element {
    /// Its name, as `model.toml` and JSON write it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Bytes of a tensor of this shape. `None` if that overflows.
    pub fn bytes(self, shape: &[u32]) -> Option<usize> {
        shape
            .iter()
            .try_fold(self.size(), |bytes, &side| bytes.checked_mul(usize::try_from(side).ok()?))
    }
}

/// An input or output as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Tensor")]
pub struct TensorDeclaration {
    /// Its name in the graph.
    pub name: String,
    /// Its elements.
    pub element: Element,
    /// Its shape; -1 is a dimension known at run time alone.
    #[schemars(inner(range(min = -1)))]
    pub shape: Vec<i64>,
}

impl TensorDeclaration {
    /// The shape, where every dimension of it is fixed.
    pub fn fixed_shape(&self) -> Option<Vec<u32>> {
        self.shape.iter().map(|&side| u32::try_from(side).ok()).collect()
    }

    /// Whether a tensor of this shape may be given where this one is declared.
    pub fn admits(&self, shape: &[u32]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(&declared, &given)| declared < 0 || declared == i64::from(given))
    }
}

/// The device that runs a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Device {
    #[default]
    Cpu,
    /// NVIDIA by CUDA: the device's number.
    Cuda(u32),
    /// NVIDIA by TensorRT: the device's number.
    Tensorrt(u32),
    Openvino,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Tensorrt(number) => write!(f, "tensorrt:{number}"),
            Self::Openvino => f.write_str("openvino"),
        }
    }
}

/// Why a text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDevice {
    /// What stands behind the colon is no number.
    #[error("{text:?} is no device: a number has to follow \"{kind}:\"")]
    Number {
        text: String,
        /// What stands before the colon.
        kind: String,
    },
    /// There is no such kind.
    #[error("{0:?} is no device: \"cpu\", \"cuda:N\", \"tensorrt:N\" or \"openvino\" is")]
    Kind(String),
}

impl std::str::FromStr for Device {
    type Err = InvalidDevice;

    /// "cpu", "cuda:N", "tensorrt:N" or "openvino"; "cuda" and "tensorrt" alone mean device 0.
    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number)),
            None => (text, None),
        };
        let numbered = |device: fn(u32) -> Self| match number.unwrap_or("0").parse() {
            Ok(number) => Ok(device(number)),
            Err(_) => Err(InvalidDevice::Number { text: text.into(), kind: kind.into() }),
        };
        match kind {
            "cpu" if number.is_none() => Ok(Self::Cpu),
            "openvino" if number.is_none() => Ok(Self::Openvino),
            "cuda" => numbered(Self::Cuda),
            "tensorrt" => numbered(Self::Tensorrt),
            _ => Err(InvalidDevice::Kind(text.into())),
        }
    }
}

/// How requests of several sessions are put into one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// Most requests of a run: 2 to [`MAX_BATCH`].
    pub max: u32,
    /// How long the first request waits for others, in milliseconds.
    pub delay_ms: u32,
}

/// A version of a model that the host has checked and offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the model in the catalog.
    pub name: String,
    /// Absolute path of the ONNX file.
    pub path: String,
    /// SHA-256 of the file: lower-case hexadecimal.
    pub sha256: String,
    /// Inputs as `model.toml` declares them.
    pub inputs: Vec<TensorDeclaration>,
    /// Outputs as `model.toml` declares them.
    pub outputs: Vec<TensorDeclaration>,
    /// The device that the operator chose.
    pub device: Device,
    /// Whether the model runs on the processor if the device is not usable; otherwise that is an
    /// error.
    pub fallback: bool,
    /// `None`: each request runs by itself.
    pub batching: Option<Batching>,
}

/// The configuration of the inference process. Carries the descriptor of the in-flight table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configure {
    /// ONNX Runtime's shared library, an absolute path.
    pub library: String,
    /// SHA-256 of the library that this release pins, lower-case hexadecimal; `None` for another.
    pub library_sha256: Option<String>,
    /// Runs at the same time: one thread and one session of each model for each.
    pub threads: u32,
    /// Thousandths of a core for the runs of those that ask ([`InferenceRequest::Ask`]).
    pub budget_millicores: u32,
    /// Share of a GPU's memory that the process may take, 0 to 1.
    pub gpu_memory_fraction: f32,
    /// Private memory of the process in bytes (RLIMIT_DATA); `None`: unbounded.
    pub memory: Option<u64>,
    /// Absolute path of a folder that later versions of the catalog are read from; `None`: models
    /// come from their first folder alone.
    pub folder: Option<String>,
    /// Version 0 of the catalog.
    pub models: Vec<Model>,
    /// Names of those to load and warm before [`ToHost::Ready`].
    pub preload: Vec<String>,
}

/// The importance of a session's requests: a share of the runners' time, not precedence, so no
/// session starves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A quarter of a normal share.
    Low,
    /// One share.
    #[default]
    Normal,
    /// Four shares.
    High,
}

impl Priority {
    /// The share of the runners' time relative to the others', under overload.
    pub fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }
}

/// The service of the inference process for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLevel {
    /// Sessions with the same number have one share of the runners' time together.
    pub share: u64,
    /// Importance of the session's requests.
    pub priority: Priority,
    /// Milliseconds that a request may take, waiting included. A run that takes longer is
    /// terminated.
    pub timeout_ms: u32,
    /// Milliseconds after which a request that still waits is dropped as stale: its frame is too
    /// old to be of use. `None`: it waits as long as `timeout_ms` allows.
    pub stale_ms: Option<u32>,
    /// Whether the worker may have models of its own loaded ([`InferenceRequest::Load`]).
    pub may_load: bool,
    /// Whether what it asks ([`InferenceRequest::Ask`]) is weighed; otherwise it may always run:
    /// every frame of a file counts.
    pub budgeted: bool,
}

/// A session that may send requests from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The session's name, for messages.
    pub session: String,
    /// Unique among all attachments of the host, not 0: the number in the in-flight table.
    pub number: u64,
    /// The version of the catalog that the session keeps.
    pub catalog_version: u32,
    /// The session's share and time limits.
    pub service: ServiceLevel,
    /// A request that was running when a process died: it is run alone, so that it is known whether
    /// it was the cause.
    pub suspect: Option<u64>,
}

/// From the host to the inference process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromHost {
    Configure(Configure),
    /// Another version of the catalog. Models of earlier versions stay.
    Catalog {
        /// Counts up from 1.
        version: u32,
        /// All models of the version.
        models: Vec<Model>,
    },
    /// A session may send requests from now on. Carries [`ATTACH_DESCRIPTORS`] descriptors.
    Attach(Attach),
    /// Take no more requests, answer those that were taken, then say [`ToHost::Drained`] and exit.
    Drain,
}

/// The devices that a loaded model really runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Name of the model in the catalog.
    pub name: String,
    /// SHA-256 of the model's version.
    pub sha256: String,
    /// Nodes of the graph by the execution provider that runs them, as ONNX Runtime reports it.
    /// Empty if the library does not report it.
    pub nodes: Vec<(String, u32)>,
    /// The provider's error text if the model does not run on its device.
    pub fell_back: Option<String>,
}

/// From the inference process to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The library is loaded and the models to preload are warm.
    Ready {
        version: String,
        /// How the process is confined.
        confinement: Confinement,
        /// The models that are loaded.
        models: Vec<LoadedModel>,
    },
    /// A model was loaded because a session asked for it.
    Loaded(LoadedModel),
    /// Answer to [`FromHost::Drain`]: every request that was taken is answered.
    Drained,
    /// The process cannot work and exits.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

/// A tensor in the session's shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTensor {
    /// Name in the graph.
    pub name: String,
    /// Type of the elements.
    pub element: Element,
    /// Size of each axis.
    pub shape: Vec<u32>,
    /// Offset in the shared memory: a multiple of [`crate::shm::ALIGNMENT`].
    pub offset: u64,
}

impl PlacedTensor {
    /// The tensor's bytes in the shared memory. `None` if that overflows.
    pub fn range(&self) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        Some(start..start.checked_add(self.element.bytes(&self.shape)?)?)
    }
}

/// From a worker to the inference process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InferenceRequest {
    /// Asks for a model; answered by `Opened` or `Failed`. The model is loaded and warmed if it
    /// is not yet.
    Open {
        /// Counts up with each request of the session.
        id: u64,
        model: String,
    },
    /// Asks for a model whose file lies in the shared memory; answered by `Opened` or `Failed`.
    /// It is loaded for this session alone and stays until the session ends; `Run` names it as
    /// `Opened` says.
    Load {
        /// Counts up with each request of the session.
        id: u64,
        /// Offset of the ONNX file in the shared memory.
        offset: u64,
        /// Size of the file in bytes.
        length: u64,
    },
    /// Runs a model that was opened before; answered by `Done`, `Stale` or `Failed`.
    Run {
        /// Counts up with each request of the session.
        id: u64,
        model: String,
        /// Every input of the model.
        inputs: Vec<PlacedTensor>,
        /// Where the outputs go: one after the other in the model's order, each aligned. Overlaps
        /// no input.
        output_offset: u64,
        /// Bytes reserved for them.
        output_length: u64,
    },
    /// Asks whether models may run for the frame at hand; answered by `Granted`, at once.
    Ask {
        /// Counts up with each request of the session.
        id: u64,
        /// How much of the picture the results no longer describe: 0 to [`MAX_WANT`].
        want: u16,
    },
}

impl InferenceRequest {
    pub fn id(&self) -> u64 {
        match self {
            Self::Open { id, .. }
            | Self::Load { id, .. }
            | Self::Run { id, .. }
            | Self::Ask { id, .. } => *id,
        }
    }
}

/// Why a request failed: the codes of wasi:nn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// A tensor is missing, or has another name, type or shape than the model takes.
    InvalidArgument,
    /// The model's file cannot be read as a graph.
    InvalidEncoding,
    /// The deadline has passed.
    Timeout,
    /// ONNX Runtime reported an error, or the process died.
    RuntimeError,
    /// Something that this host does not do.
    UnsupportedOperation,
    /// The tensors do not fit into the session's shared memory.
    TooLarge,
    NotFound,
    Security,
    Unknown,
}

/// From the inference process to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InferenceResponse {
    /// An inference process serves this session from now on. A request still unanswered is to be
    /// sent again.
    Hello,
    /// The model may be run.
    Opened {
        id: u64,
        /// The name for [`InferenceRequest::Run`].
        model: String,
        /// Inputs of the model.
        inputs: Vec<TensorDeclaration>,
        /// Outputs of the model, in the order in which they are laid out.
        outputs: Vec<TensorDeclaration>,
    },
    /// The outputs lie in the shared memory.
    Done {
        id: u64,
        /// The tensors with their offsets and shapes.
        outputs: Vec<PlacedTensor>,
        /// Time spent waiting for a free thread, in nanoseconds.
        queued_ns: u64,
        /// Time of the run itself, in nanoseconds.
        run_ns: u64,
    },
    /// Whether models may run for the frame at hand.
    Granted { id: u64, granted: bool },
    /// The request was not run: it had waited so long that its frame is too old.
    Stale {
        id: u64,
        /// How long it had waited, in milliseconds.
        waited_ms: u32,
    },
    /// The request failed; the session may go on. Sent by the host where the process died of the
    /// request.
    Failed {
        id: u64,
        /// The code of `wasi:nn`.
        code: ErrorCode,
        /// The cause, for the component's author.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_written_as_it_is_read() {
        for text in ["cpu", "cuda:0", "cuda:3", "tensorrt:1", "openvino"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cpu:0", "cuda:", "cuda:x", "openvino:1"] {
            assert!(text.parse::<Device>().unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn a_tensor_of_impossible_size_has_no_range() {
        let tensor = PlacedTensor {
            name: "x".into(),
            element: Element::F32,
            shape: vec![u32::MAX, u32::MAX, u32::MAX],
            offset: 0,
        };
        assert_eq!(tensor.range(), None);
    }

    #[test]
    fn a_shape_fits_where_the_fixed_sides_agree() {
        let declared =
            TensorDeclaration { name: "x".into(), element: Element::F32, shape: vec![-1, 3, 416] };
        assert!(declared.admits(&[7, 3, 416]));
        assert!(!declared.admits(&[7, 4, 416]));
        assert!(!declared.admits(&[7, 3]));
        assert_eq!(declared.fixed_shape(), None);
    }
}
