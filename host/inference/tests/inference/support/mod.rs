//! What the tests share: the real library and model, and a worker's end of a session.

pub(crate) mod onnx;
pub(crate) mod started;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ocelli_protocol::inference::{
    Attach, Configure, Device, Element, ErrorCode, InferenceRequest, InferenceResponse, MAX_PACKET,
    Model, PacketError, PlacedTensor, Priority, ServiceLevel, TensorDeclaration, packet_pair,
    receive, send,
};
use ocelli_protocol::shm::SharedMemory;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Nothing takes this long, on however busy a machine.
pub(crate) const GENEROUS: Duration = Duration::from_secs(120);

pub(crate) const MODEL: &str = "nanodet-g-416";
pub(crate) const INPUT_SHAPE: [u32; 4] = [1, 3, 416, 416];
pub(crate) const INPUT_LENGTH: usize = 3 * 416 * 416;

/// Where the outputs go: after the input, which is a multiple of 64 bytes long.
pub(crate) const OUTPUT_OFFSET: u64 = (INPUT_LENGTH * 4) as u64;
/// 3549 rows of 80 and 44 numbers, and up to 63 bytes between the six tensors.
pub(crate) const OUTPUT_LENGTH: u64 = 3549 * 124 * 4 + 6 * 64;

/// ONNX Runtime, where `./x setup` puts it.
pub(crate) fn library() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("OCELLI_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("ocelli")))
        .or_else(|| Some(variable("HOME")?.join(".cache/ocelli")))
        .expect("HOME is not set");
    let path = cache.join("onnxruntime-1.28.0/libonnxruntime.so.1.28.0");
    assert!(path.exists(), "this test needs ONNX Runtime at {}: run ./x setup", path.display());
    path
}

/// The model of the repository, as its `model.toml` declares it.
pub(crate) fn model() -> Model {
    #[derive(serde::Deserialize)]
    struct Description {
        name: String,
        file: String,
        sha256: String,
        inputs: Vec<TensorDeclaration>,
        outputs: Vec<TensorDeclaration>,
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models").join(MODEL);
    let folder =
        folder.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let text =
        std::fs::read_to_string(folder.join("model.toml")).expect("the model has a model.toml");
    let Description { name, file, sha256, inputs, outputs } = toml::from_str(&text).unwrap();
    let path = folder.join(file).to_str().unwrap().to_owned();
    Model {
        name,
        path,
        sha256,
        inputs,
        outputs,
        device: Device::Cpu,
        fallback: false,
        batching: None,
    }
}

pub(crate) fn configure(threads: u32, models: Vec<Model>, preload: &[&str]) -> Configure {
    Configure {
        library: library().to_str().unwrap().to_owned(),
        library_sha256: None,
        threads,
        budget_millicores: 1000,
        gpu_memory_fraction: 1.0,
        memory: None,
        folder: None,
        models,
        preload: preload.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A model of one node that is written by hand: `y = Identity(x)`, both f32 with one side. `side`
/// of none leaves it open. The bytes are protobuf: `onnx.ModelProto` of `onnx/onnx.proto`.
pub(crate) fn identity(side: Option<u8>) -> Vec<u8> {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length =
            u8::try_from(content.len()).ok().filter(|length| *length < 128).expect("a short field");
        [&[number << 3 | 2, length], content].concat()
    }
    let dimension = match side {
        Some(side) => vec![1 << 3, side],
        None => field(2, b"n"),
    };
    let shape = field(2, &field(1, &dimension));
    let tensor = field(1, &[&[1 << 3, 1], shape.as_slice()].concat());
    let value = |name: &[u8]| [field(1, name), field(2, &tensor)].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value(b"x")), field(12, &value(b"y"))]
        .concat();
    let opset = [1 << 4, 13];
    [&[1 << 3, 8][..], &field(7, &graph), &field(8, &opset)].concat()
}

/// A file with these bytes, and the model that it is.
pub(crate) fn model_of(
    name: &str,
    bytes: &[u8],
    shape: &[i64],
) -> (Model, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let sha256 = ocelli_protocol::digest::Digest::of(bytes).to_string();
    let tensor = |name: &str| {
        vec![TensorDeclaration {
            name: name.to_owned(),
            element: Element::F32,
            shape: shape.to_vec(),
        }]
    };
    let path = file.path().to_str().unwrap().to_owned();
    let (inputs, outputs) = (tensor("x"), tensor("y"));
    let name = name.to_owned();
    let model = Model {
        name,
        path,
        sha256,
        inputs,
        outputs,
        device: Device::Cpu,
        fallback: false,
        batching: None,
    };
    (model, file)
}

/// The type that `model.toml` calls so.
pub(crate) fn element(name: &str) -> Element {
    serde::Deserialize::deserialize(
        serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name),
    )
    .unwrap()
}

/// A picture's worth of numbers that depends on `seed`.
pub(crate) fn picture(seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 / 64.0 - 2.0
    };
    (0..INPUT_LENGTH).map(|_| next()).collect()
}

/// A worker's end of a session.
pub(crate) struct Worker {
    pub(crate) name: String,
    /// Counts the attachments of this test program from 1.
    pub(crate) number: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) memory: SharedMemory,
    /// The inference process's end, as the host keeps it.
    pub(crate) theirs: OwnedFd,
    buffer: Vec<u8>,
}

impl Worker {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let (socket, theirs) = packet_pair().unwrap();
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(GENEROUS)).unwrap();
        }
        let length = usize::try_from(OUTPUT_OFFSET + OUTPUT_LENGTH).unwrap().next_multiple_of(4096);
        let memory = SharedMemory::create(length).unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("session-{number}"),
            number,
            socket,
            memory,
            theirs,
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// How the host announces it: with a share of its own, and more time than any run takes.
    pub(crate) fn attach(&self, generation: u32) -> Attach {
        let timeout_ms = u32::try_from(GENEROUS.as_millis()).unwrap();
        Attach {
            session: self.name.clone(),
            number: self.number,
            catalog_version: generation,
            service: ServiceLevel {
                share: self.number,
                priority: Priority::Normal,
                timeout_ms,
                stale_ms: None,
                budgeted: true,
                may_load: false,
            },
            suspect: None,
        }
    }

    pub(crate) fn send(&self, request: &InferenceRequest) {
        send(self.socket.as_fd(), request).unwrap();
    }

    pub(crate) fn receive(&mut self) -> InferenceResponse {
        receive(self.socket.as_fd(), &mut self.buffer).expect("an answer")
    }

    /// Waits until the other side has ended the connection.
    pub(crate) fn wait_for_end(&mut self) {
        loop {
            match receive::<InferenceResponse>(self.socket.as_fd(), &mut self.buffer) {
                Ok(_) => {}
                Err(PacketError::Closed) => return,
                Err(error) => panic!("instead of the connection's end: {error}"),
            }
        }
    }

    pub(crate) fn greeted(mut self) -> Self {
        assert_eq!(self.receive(), InferenceResponse::Hello);
        self
    }

    pub(crate) fn write(&self, offset: usize, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.write_bytes(offset, &bytes);
    }

    #[allow(unsafe_code)]
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: no request is under way, and the slice ends here.
        unsafe { self.memory.bytes_mut(offset..offset + bytes.len()) }
            .unwrap()
            .copy_from_slice(bytes);
    }

    #[allow(unsafe_code)]
    pub(crate) fn read_bytes(&self, tensor: &PlacedTensor) -> Vec<u8> {
        // SAFETY: no request is under way, and the slice ends here.
        unsafe { self.memory.bytes(tensor.range().unwrap()) }.unwrap().to_vec()
    }

    pub(crate) fn read(&self, tensor: &PlacedTensor) -> Vec<f32> {
        let bytes = self.read_bytes(tensor);
        bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Forgets earlier outputs, so that only a new run can bring them back.
    pub(crate) fn clear_outputs(&self) {
        self.write(
            usize::try_from(OUTPUT_OFFSET).unwrap(),
            &vec![f32::NAN; OUTPUT_LENGTH as usize / 4],
        );
    }

    pub(crate) fn open(
        &mut self,
        id: u64,
        model: &str,
    ) -> Result<InferenceResponse, (ErrorCode, String)> {
        self.send(&InferenceRequest::Open { id, model: model.to_owned() });
        self.answer(id)
    }

    /// Runs, and gives the outputs in the model's order.
    pub(crate) fn run(
        &mut self,
        request: &InferenceRequest,
    ) -> Result<Vec<Vec<f32>>, (ErrorCode, String)> {
        self.send(request);
        let InferenceResponse::Done { outputs, .. } = self.answer(request.id())? else {
            panic!("another answer")
        };
        Ok(outputs.iter().map(|output| self.read(output)).collect())
    }

    pub(crate) fn answer(
        &mut self,
        expected: u64,
    ) -> Result<InferenceResponse, (ErrorCode, String)> {
        let answer = self.receive();
        match &answer {
            InferenceResponse::Failed { id, code, message } if *id == expected => {
                Err((*code, message.clone()))
            }
            InferenceResponse::Opened { id, .. } | InferenceResponse::Done { id, .. }
                if *id == expected =>
            {
                Ok(answer)
            }
            other => panic!("instead of the answer to {expected}: {other:?}"),
        }
    }
}

/// A correct request to run the detector.
pub(crate) fn request(id: u64) -> InferenceRequest {
    InferenceRequest::Run {
        id,
        model: MODEL.to_owned(),
        inputs: vec![PlacedTensor {
            name: "input".into(),
            element: Element::F32,
            shape: INPUT_SHAPE.to_vec(),
            offset: 0,
        }],
        output_offset: OUTPUT_OFFSET,
        output_length: OUTPUT_LENGTH,
    }
}
