//! The real program with real descriptors: start, sessions, death, and what the next process takes
//! over.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Configure, FromHost, InferenceRequest, InferenceResponse, MAX_PACKET, PacketError, ToHost,
    packet_pair, receive, send, send_with,
};
use ocelli_protocol::process;
use ort::session::Session;
use ort::value::TensorRef;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::support::*;

/// A running `ocelli-inference`, seen from the host.
struct Process {
    child: Child,
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Process {
    fn spawn() -> Self {
        let (socket, theirs) = packet_pair().unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(GENEROUS)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli-inference"));
        let mapping = FdMapping { parent_fd: theirs, child_fd: process::inference::HOST };
        command.fd_mappings(vec![mapping]).unwrap();
        let child = command.env_clear().stdin(Stdio::null()).spawn().unwrap();
        // The command holds the child's end until here; afterwards only the child does.
        drop(command);
        Self { child, socket, buffer: vec![0; MAX_PACKET] }
    }

    /// Starts and configures; gives the answer.
    fn configured(configure: Configure) -> (Self, ToHost) {
        let mut process = Self::spawn();
        let ledger = InFlightTable::create(configure.threads as usize).unwrap();
        send_with(process.socket.as_fd(), &FromHost::Configure(configure), &[ledger.fd()]).unwrap();
        let answer = process.receive().expect("an answer to Configure");
        (process, answer)
    }

    fn ready(threads: u32) -> Self {
        let (process, answer) = Self::configured(configure(threads, vec![model()], &[MODEL]));
        assert!(matches!(answer, ToHost::Ready { version, .. } if version == "1.28.0"));
        process
    }

    fn receive(&mut self) -> Result<ToHost, PacketError> {
        receive(self.socket.as_fd(), &mut self.buffer)
    }

    fn attach(&self, worker: &Worker) {
        let message = FromHost::Attach(worker.attach(0));
        send_with(self.socket.as_fd(), &message, &[worker.theirs.as_fd(), worker.memory.fd()])
            .unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(configure: Configure) -> String {
    let (mut process, answer) = Process::configured(configure);
    let ToHost::Failed { message } = answer else { panic!("it answered {answer:?}") };
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
    message
}

/// The same model by `ort` alone, in this process.
#[allow(unsafe_code)]
fn direct(picture: &[f32]) -> Vec<Vec<f32>> {
    // SAFETY: before the library is loaded, by a test that has its process for itself.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let environment = ort::init_from(library()).unwrap().with_telemetry(false).build().unwrap();
    let mut session = Session::builder(&environment)
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .commit_from_file(model().path)
        .unwrap();
    let input = TensorRef::from_array_view((INPUT_SHAPE.map(i64::from), picture)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let values = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1.to_vec();
    model().outputs.iter().map(|output| values(&output.name)).collect()
}

#[test]
fn results_equal_a_direct_run_bit_for_bit() {
    let process = Process::ready(2);
    let worker = Worker::new();
    process.attach(&worker);
    let mut worker = worker.greeted();
    assert!(worker.open(1, MODEL).is_ok());
    let bits = |outputs: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        outputs.into_iter().map(|output| output.into_iter().map(f32::to_bits).collect()).collect()
    };
    worker.write(0, &picture(1));
    let expected = bits(direct(&picture(1)));
    // More runs than threads: each runner's session takes part.
    for id in 2..6 {
        worker.clear_outputs();
        assert!(bits(worker.run(&request(id)).unwrap()) == expected, "run {id} differs");
    }
}

#[test]
fn the_next_process_takes_over_the_sessions_of_one_that_was_killed() {
    let mut first = Process::ready(1);
    let worker = Worker::new();
    first.attach(&worker);
    let mut worker = worker.greeted();
    worker.write(0, &picture(3));
    let expected = worker.run(&request(1)).unwrap();

    // The request may be lost with the process, or wait in the socket for the next one.
    worker.clear_outputs();
    worker.send(&request(2));
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(matches!(first.receive(), Err(PacketError::Closed)));

    let second = Process::ready(1);
    second.attach(&worker);
    let mut answered = false;
    loop {
        match worker.receive() {
            InferenceResponse::Hello => break,
            // The first process was quicker than its end.
            InferenceResponse::Done { id: 2, .. } => answered = true,
            other => panic!("instead of the second hello: {other:?}"),
        }
    }
    if !answered {
        assert_eq!(worker.run(&request(2)).unwrap(), expected);
    }
    // Nothing else came of request 2, however often it was sent.
    worker.clear_outputs();
    assert_eq!(worker.run(&request(3)).unwrap(), expected);
}

#[test]
fn a_request_left_in_the_socket_and_sent_again_runs_once() {
    let worker = Worker::new();
    worker.write(0, &picture(4));
    // As if a process had died before it read this, and the worker had sent it again on the second
    // hello.
    worker.send(&request(5));
    worker.send(&request(5));
    let process = Process::ready(1);
    process.attach(&worker);
    let mut worker = worker.greeted();
    worker.answer(5).unwrap();
    worker.run(&request(6)).unwrap();
}

#[test]
fn it_ends_well_when_the_host_closes_its_socket() {
    let mut process = Process::ready(1);
    let worker = Worker::new();
    process.attach(&worker);
    let _worker = worker.greeted();
    let (unconnected, _) = packet_pair().unwrap();
    drop(std::mem::replace(&mut process.socket, unconnected));
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn it_answers_what_it_took_and_ends_well_when_it_is_drained() {
    let mut process = Process::ready(1);
    let (busy, waiting) = (Worker::new(), Worker::new());
    process.attach(&busy);
    process.attach(&waiting);
    let (mut busy, waiting) = (busy.greeted(), waiting.greeted());
    busy.write(0, &picture(1));
    waiting.write(0, &picture(1));
    busy.run(&request(1)).unwrap();
    busy.send(&request(2));
    waiting.send(&request(1));
    send(process.socket.as_fd(), &FromHost::Drain).unwrap();
    assert!(matches!(process.receive(), Ok(ToHost::Drained)));
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    // What it did not take is in the sockets, for the next process. Either way each has one answer.
    let next = Process::ready(1);
    for (mut worker, id) in [(busy, 2), (waiting, 1)] {
        next.attach(&worker);
        let answers = [worker.receive(), worker.receive()];
        let hellos = answers.iter().filter(|answer| **answer == InferenceResponse::Hello).count();
        let done = answers.iter().filter(
            |answer| matches!(answer, InferenceResponse::Done { id: done, .. } if *done == id),
        );
        assert_eq!((hellos, done.count()), (1, 1), "{answers:?}");
    }
}

#[test]
fn a_model_that_is_loaded_later_is_told_to_the_host() {
    let (mut process, answer) = Process::configured(configure(1, vec![model()], &[]));
    assert!(matches!(answer, ToHost::Ready { models, .. } if models.is_empty()));
    let worker = Worker::new();
    process.attach(&worker);
    assert!(worker.greeted().open(1, MODEL).is_ok());
    let Ok(ToHost::Loaded(loaded)) = process.receive() else { panic!("not told") };
    assert_eq!((loaded.name.as_str(), loaded.sha256), (MODEL, model().sha256));
    let (_process, answer) = Process::configured(configure(1, vec![model()], &[MODEL]));
    assert!(
        matches!(answer, ToHost::Ready { models, .. } if models.len() == 1 && models[0].name == MODEL)
    );
}

#[test]
fn its_memory_is_bounded_as_it_is_told() {
    let bytes = 3 << 30;
    let bounded = Configure { memory: Some(bytes), ..configure(1, vec![model()], &[MODEL]) };
    let (process, answer) = Process::configured(bounded);
    assert!(matches!(answer, ToHost::Ready { .. }), "{answer:?}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id())).unwrap();
    let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    assert!(data.contains(&bytes.to_string()), "{data}");
}

#[test]
fn a_worker_that_goes_away_leaves_the_others() {
    let process = Process::ready(1);
    let (gone, stays) = (Worker::new(), Worker::new());
    process.attach(&gone);
    process.attach(&stays);
    let (gone, mut stays) = (gone.greeted(), stays.greeted());
    gone.send(&request(1));
    drop(gone);
    stays.write(0, &picture(1));
    stays.run(&request(1)).unwrap();
}

#[test]
fn a_session_without_descriptors_costs_nobody_else_theirs() {
    let process = Process::ready(1);
    send(process.socket.as_fd(), &FromHost::Attach(Worker::new().attach(0))).unwrap();
    let worker = Worker::new();
    process.attach(&worker);
    assert!(worker.greeted().open(1, MODEL).is_ok());
}

#[test]
fn a_library_that_cannot_be_used_is_told_to_the_host_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let with = |library: String| Configure { library, ..configure(1, vec![model()], &[]) };
    std::fs::write(path("text.so"), "no library at all, but long enough to be one ".repeat(9))
        .unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_ocelli-inference"), path("program.so")).unwrap();
    let whole = std::fs::read(library()).unwrap();
    std::fs::write(path("half.so"), &whole[..whole.len() / 2]).unwrap();
    for (name, text) in [
        ("missing.so", "not found"),
        ("text.so", "not a shared library"),
        ("half.so", "truncated"),
        ("program.so", "cannot dynamically load"),
    ] {
        let message = failed(with(path(name)));
        for text in [text, name, "./x setup"] {
            assert!(message.contains(text), "{message:?} lacks {text:?}");
        }
    }
    let digest =
        Configure { library_sha256: Some("00".repeat(32)), ..configure(1, vec![model()], &[]) };
    assert!(failed(digest).contains("expected 0000"));
}

#[test]
fn a_model_that_cannot_be_preloaded_is_told_to_the_host() {
    let message = failed(configure(1, vec![model()], &["yolo"]));
    assert!(message.contains("\"yolo\"") && message.contains(MODEL), "{message}");
}

#[test]
fn a_first_message_that_is_no_configuration_ends_it() {
    let mut process = Process::spawn();
    send(process.socket.as_fd(), &InferenceRequest::Open { id: 9, model: "x".into() }).unwrap();
    assert!(matches!(process.receive(), Ok(ToHost::Failed { .. })));
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
}
