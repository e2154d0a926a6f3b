//! Models of every element type, and files that are no models or damaged ones: through the real
//! program, as a host uses it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::digest::Digest;
use ocelli_protocol::graph::Inspection;
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Element, ErrorCode, FromHost, InferenceRequest, InferenceResponse, MAX_PACKET, Model,
    PacketError, PlacedTensor, TensorDeclaration, ToHost, packet_pair, receive, send_with,
};
use ocelli_protocol::process;
use ocelli_testkit::Random;
use ocelli_testkit::depth::rounds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ocelli-inference");

/// A running `ocelli-inference` with one worker, seen from both sides.
struct Served {
    child: Child,
    socket: OwnedFd,
    buffer: Vec<u8>,
    worker: Worker,
    next: u64,
}

impl Served {
    fn start(models: Vec<Model>) -> Self {
        let (socket, theirs) = packet_pair().unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(GENEROUS)).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: process::inference::HOST }])
            .unwrap();
        // What it logs of damaged files is not this test's.
        let child = command.env_clear().stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let ledger = InFlightTable::create(1).unwrap();
        let configure = FromHost::Configure(configure(1, models, &[]));
        send_with(socket.as_fd(), &configure, &[ledger.fd()]).unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let ready = receive::<ToHost>(socket.as_fd(), &mut buffer).unwrap();
        assert!(matches!(ready, ToHost::Ready { .. }), "{ready:?}");
        let worker = Worker::new();
        let attach = FromHost::Attach(worker.attach(0));
        send_with(socket.as_fd(), &attach, &[worker.theirs.as_fd(), worker.memory.fd()]).unwrap();
        Self { child, socket, buffer, worker: worker.greeted(), next: 0 }
    }

    /// Opens a model; none where the process died of it.
    fn open(&mut self, model: &str) -> Option<Result<(), (ErrorCode, String)>> {
        self.next += 1;
        let id = self.next;
        self.worker.send(&InferenceRequest::Open { id, model: model.to_owned() });
        loop {
            // The test holds the inference end of the worker's socket, as the host does: a death
            // closes the other alone.
            let mut ready = [
                PollFd::new(&self.worker.socket, PollFlags::IN),
                PollFd::new(&self.socket, PollFlags::IN),
            ];
            let limit = Timespec { tv_sec: GENEROUS.as_secs() as i64, tv_nsec: 0 };
            assert!(poll(&mut ready, Some(&limit)).unwrap() > 0, "no answer for {model}");
            if ready[0].revents().is_empty() {
                match receive::<ToHost>(self.socket.as_fd(), &mut self.buffer) {
                    Ok(_) => continue,
                    Err(PacketError::Closed) => return None,
                    Err(error) => panic!("{error}"),
                }
            }
            return match self.worker.receive() {
                InferenceResponse::Opened { id: answered, .. } if answered == id => Some(Ok(())),
                InferenceResponse::Failed { id: answered, code, message } if answered == id => {
                    Some(Err((code, message)))
                }
                other => panic!("instead of the answer to {id}: {other:?}"),
            };
        }
    }

    /// Runs `y = f(x)` on these bytes, and gives the bytes of `y`.
    #[allow(unsafe_code)]
    fn run(&mut self, model: &str, element: Element, input: &[u8], output: Element) -> Vec<u8> {
        const OUTPUT: u64 = 128;
        // SAFETY: no request is under way, and the slice ends here.
        unsafe { self.worker.memory.bytes_mut(0..input.len()) }.unwrap().copy_from_slice(input);
        self.next += 1;
        let shape = vec![u32::try_from(input.len() / element.size()).unwrap()];
        let x = PlacedTensor { name: "x".into(), element, shape, offset: 0 };
        let model = model.to_owned();
        let (output_offset, output_length) = (OUTPUT, 64);
        let run = InferenceRequest::Run {
            id: self.next,
            model,
            inputs: vec![x],
            output_offset,
            output_length,
        };
        self.worker.send(&run);
        let Ok(InferenceResponse::Done { outputs, .. }) = self.worker.answer(self.next) else {
            panic!("no result")
        };
        assert_eq!((outputs.len(), outputs[0].element), (1, output));
        // SAFETY: as above.
        unsafe { self.worker.memory.bytes(outputs[0].range().unwrap()) }.unwrap().to_vec()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `--inspect` as the host does.
fn inspect(file: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("--inspect").arg(file).arg("--library").arg(library());
    command.env_clear().stdin(Stdio::null()).output().unwrap()
}

fn tensor(name: &str, element: Element, shape: &[i64]) -> TensorDeclaration {
    TensorDeclaration { name: name.into(), element, shape: shape.to_vec() }
}

/// A file in `folder`, and the model that it is.
fn written(folder: &Path, name: &str, bytes: &[u8], like: &Model) -> Model {
    let path = folder.join(format!("{name}.onnx"));
    std::fs::write(&path, bytes).unwrap();
    let sha256 = Digest::of(bytes).to_string();
    Model { name: name.into(), path: path.to_str().unwrap().into(), sha256, ..like.clone() }
}

fn small(inputs: TensorDeclaration, outputs: TensorDeclaration) -> Model {
    Model { inputs: vec![inputs], outputs: vec![outputs], ..model() }
}

#[test]
fn every_element_type_goes_in_and_comes_out_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let models = onnx::ELEMENTS.map(|(name, number, _)| {
        let of = |tensor_name| tensor(tensor_name, element(name), &[3]);
        written(folder.path(), name, &onnx::identity(number, &[Some(3)]), &small(of("x"), of("y")))
    });
    let mut served = Served::start(models.to_vec());
    for (name, _, size) in onnx::ELEMENTS {
        served.open(name).unwrap().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        // Of any type: a truth value is 0 or 1, and these are small numbers or fractions of all
        // others.
        let bytes: Vec<u8> = (0..3 * size).map(|index| (index % 2) as u8).collect();
        assert_eq!(served.run(name, element(name), &bytes, element(name)), bytes, "{name}");
    }
}

#[test]
fn a_model_may_change_the_element_type() {
    let folder = tempfile::tempdir().unwrap();
    let models = onnx::ELEMENTS.map(|(name, number, _)| {
        let like = small(tensor("x", Element::F32, &[2]), tensor("y", element(name), &[2]));
        written(folder.path(), name, &onnx::cast(number, &[Some(2)]), &like)
    });
    let mut served = Served::start(models.to_vec());
    let expected: [(&str, &[u8]); 9] = [
        ("f32", &[0, 0, 0x80, 0x3f, 0, 0, 0, 0]),
        ("u8", &[1, 0]),
        ("i8", &[1, 0]),
        ("i32", &[1, 0, 0, 0, 0, 0, 0, 0]),
        ("i64", &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("bool", &[1, 0]),
        ("f16", &[0, 0x3c, 0, 0]),
        ("f64", &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("bf16", &[0x80, 0x3f, 0, 0]),
    ];
    for (name, expected) in expected {
        served.open(name).unwrap().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let input = [1.0_f32, 0.0].map(f32::to_ne_bytes).concat();
        assert_eq!(served.run(name, Element::F32, &input, element(name)), expected, "{name}");
    }
}

#[test]
fn another_element_type_than_declared_is_named_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let like = small(tensor("x", Element::I8, &[3]), tensor("y", Element::I8, &[3]));
    let other = written(folder.path(), "other", &onnx::identity(onnx::F32, &[Some(3)]), &like);
    let (code, message) = Served::start(vec![other]).open("other").unwrap().unwrap_err();
    assert_eq!(code, ErrorCode::InvalidEncoding);
    for text in ["\"other\"", "\"x\"", "i8 [3]", "f32 [3]"] {
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
}

#[test]
fn an_inspected_file_tells_its_tensors() {
    let told = inspect(Path::new(&model().path));
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Inspection = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told.sha256, model().sha256);
    assert_eq!((told.inputs.len(), told.outputs.len()), (1, 6));
    assert_eq!(
        (told.inputs[0].element, told.inputs[0].shape.as_slice()),
        (Some(Element::F32), &[1, 3, 416, 416][..])
    );

    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open.onnx");
    // 8 is text, which no tensor of a session can hold.
    std::fs::write(&open, onnx::identity(8, &[None, Some(4)])).unwrap();
    let told = inspect(&open);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Inspection = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told.producer, "ocelli-tests");
    assert_eq!((told.inputs[0].element, told.inputs[0].shape.as_slice()), (None, &[-1, 4][..]));
}

#[test]
fn what_is_no_model_is_told_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.onnx"), b"").unwrap();
    std::fs::write(path("text.onnx"), b"no model at all\n".repeat(100)).unwrap();
    let whole = onnx::convolution();
    std::fs::write(path("half.onnx"), &whole[..whole.len() / 2]).unwrap();
    for name in ["empty.onnx", "text.onnx", "half.onnx", "missing.onnx"] {
        let told = inspect(&path(name));
        let words = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(1), "{name}: {words}");
        assert!(words.contains(name) && told.stdout.is_empty(), "{name}: {words}");
    }
    let sparse = std::fs::File::create(path("huge.onnx")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    let told = inspect(&path("huge.onnx"));
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("3221225472 bytes"));
}

/// What happens to files: a few bytes of any place, the first few hundred bytes (lengths and types
/// lie there), the end cut off, a part twice, a part of zeros or ones.
fn mutated(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let kind = random.usize(..6);
    let at = random.usize(..bytes.len());
    let length = 1 + random.usize(..(bytes.len() - at).min(64));
    match kind {
        0 => bytes[at] ^= 1 << random.usize(..8),
        1 => {
            for _ in 0..1 + random.usize(..8) {
                let near = random.usize(..bytes.len().min(400));
                bytes[near] = random.u8(..);
            }
        }
        2 => bytes.truncate(at),
        3 => {
            let part = bytes[at..at + length].to_vec();
            bytes.splice(at..at, part);
        }
        4 => bytes[at..at + length].fill(0xff),
        _ => bytes[at..at + length].fill(0),
    }
    bytes
}

/// The originals, how many files are made of each (of 400 in a full run), and what a `model.toml`
/// says of them.
fn originals() -> Vec<(&'static str, usize, Vec<u8>, Model)> {
    let detector = model();
    let f32s = |shape: &[i64]| [tensor("x", Element::F32, shape), tensor("y", Element::F32, shape)];
    let [x, y] = f32s(&[4]);
    let identity = small(x, y);
    let cast = small(tensor("x", Element::F32, &[4]), tensor("y", Element::I8, &[4]));
    let convolution =
        small(tensor("x", Element::F32, &[1, 3, 8, 8]), tensor("y", Element::F32, &[1, 4, 6, 6]));
    let bytes = std::fs::read(&detector.path).unwrap();
    vec![
        ("identity", rounds(80), onnx::identity(onnx::F32, &[Some(4)]), identity),
        ("cast", rounds(80), onnx::cast(3, &[Some(4)]), cast),
        ("convolution", rounds(200), onnx::convolution(), convolution),
        ("nanodet", rounds(40), bytes, detector),
    ]
}

#[test]
fn mutated_files_are_each_a_model_or_a_named_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::with_seed(0x0ce1_1155);
    let mut models = Vec::new();
    for (kind, count, bytes, like) in originals() {
        for index in 0..count {
            let name = format!("{kind}-{index}");
            models.push(written(folder.path(), &name, &mutated(&bytes, &mut random), &like));
        }
    }
    let mut served_as = BTreeMap::<String, usize>::new();
    let (mut told_of, mut refused) = (0, 0);
    let mut deaths = Vec::new();
    // A catalog of all would be near the longest packet.
    for chunk in models.chunks(100) {
        let mut served = Served::start(chunk.to_vec());
        for model in chunk {
            let outcome = match served.open(&model.name) {
                Some(Ok(())) => "opened".to_owned(),
                Some(Err((code, message))) => {
                    assert!(
                        message.contains(&model.name),
                        "{message:?} does not name {}",
                        model.name
                    );
                    format!("{code:?}")
                }
                None => {
                    deaths.push(format!(
                        "{}, served: {}",
                        model.name,
                        served.child.wait().unwrap()
                    ));
                    served = Served::start(chunk.to_vec());
                    continue;
                }
            };
            *served_as.entry(outcome).or_default() += 1;
        }
    }
    for model in &models {
        let told = inspect(Path::new(&model.path));
        match told.status.code() {
            Some(0) => {
                serde_json::from_slice::<Inspection>(&told.stdout).unwrap();
                told_of += 1;
            }
            Some(1) => {
                let words = String::from_utf8_lossy(&told.stderr);
                assert!(words.contains(&model.name), "{words:?} does not name {}", model.name);
                refused += 1;
            }
            _ => deaths.push(format!("{}, inspected: {}", model.name, told.status)),
        }
    }
    assert!(deaths.is_empty(), "files that ended the process: {deaths:#?}");
    // Some changes leave a model, and some do not: or nothing was tried.
    let opened = served_as.remove("opened").unwrap_or_default();
    let failed: usize = served_as.values().sum();
    let least = models.len() / 10;
    assert!(opened > least && failed > least, "{opened} served, and {served_as:?}");
    assert!(told_of > least && refused > least, "{told_of} told of, {refused} refused");
}
