//! Asks the inference process for models and runs.
//!
//! One request at a time. The inference process may be replaced under a request: its successor says `Hello`, and the
//! request is sent again. A request that was not answered in time stays *unsettled*: the blocks that it named may still
//! be written to, so they are kept until its answer comes, and no new request is sent before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::inference::{
    ErrorCode, FromWorker, MAX_PACKET, PacketError, PlacedTensor, TensorDeclaration, ToWorker, receive, send,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::arena::Block;

/// How often a request may outlive the process that it was sent to. The second time, the request itself is the likely
/// cause.
const MAX_DEATHS: u32 = 2;

/// Why a request brought nothing: a code of wasi:nn and a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InferenceError {
    /// Its kind.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
}

impl InferenceError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The inputs and outputs of an opened model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<TensorDeclaration>,
    /// What it gives, in the order in which it is laid out.
    pub outputs: Vec<TensorDeclaration>,
}

/// A request whose answer has not come, with the blocks that must not be reused until it does.
struct Unsettled {
    request: FromWorker,
    _blocks: Vec<Arc<Block>>,
    deaths: u32,
}

/// The worker's end of the connection.
pub struct Client {
    socket: OwnedFd,
    buffer: Vec<u8>,
    last_id: u64,
    timeout: Duration,
    greeted: bool,
    unsettled: Option<Unsettled>,
}

impl Client {
    /// A client over the inherited packet socket. `timeout` bounds each request, waiting in the queue included.
    pub fn new(socket: OwnedFd, timeout: Duration) -> Self {
        Self { socket, buffer: vec![0; MAX_PACKET], last_id: 0, timeout, greeted: false, unsettled: None }
    }

    /// Asks for a model by name. Gives the name by which it is run.
    pub fn open(&mut self, model: &str) -> Result<(String, Signature), InferenceError> {
        let id = self.next_id();
        match self.exchange(FromWorker::Open { id, model: model.to_owned() }, Vec::new())? {
            ToWorker::Opened { model, inputs, outputs, .. } => Ok((model, Signature { inputs, outputs })),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a model. `inputs` lie in `blocks`; the outputs are written into `output`.
    pub fn run(
        &mut self,
        model: &str,
        inputs: Vec<PlacedTensor>,
        mut blocks: Vec<Arc<Block>>,
        output: &Arc<Block>,
    ) -> Result<Vec<PlacedTensor>, InferenceError> {
        let id = self.next_id();
        let request = FromWorker::Run {
            id,
            model: model.to_owned(),
            inputs,
            output_offset: output.offset() as u64,
            output_length: output.len() as u64,
        };
        blocks.push(Arc::clone(output));
        match self.exchange(request, blocks)? {
            ToWorker::Done { outputs, .. } => {
                let room = output.offset()..output.offset() + output.len();
                let inside = |tensor: &PlacedTensor| {
                    tensor.range().is_some_and(|range| range.start >= room.start && range.end <= room.end)
                };
                if outputs.iter().all(inside) {
                    Ok(outputs)
                } else {
                    Err(InferenceError::new(ErrorCode::RuntimeError, "an output lies outside its block"))
                }
            }
            other => Err(unexpected(&other)),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request and waits for its answer. `Failed` comes back as an error.
    fn exchange(&mut self, request: FromWorker, blocks: Vec<Arc<Block>>) -> Result<ToWorker, InferenceError> {
        let deadline = Instant::now() + self.timeout;
        if self.unsettled.is_some() {
            // The answer itself came too late to be of use.
            self.settle(deadline)?;
        }
        send(self.socket.as_fd(), &request).map_err(lost)?;
        self.unsettled = Some(Unsettled { request, _blocks: blocks, deaths: 0 });
        match self.settle(deadline)? {
            ToWorker::Failed { code, message, .. } => Err(InferenceError { code, message }),
            ToWorker::Stale { waited_ms, .. } => Err(stale(waited_ms)),
            answer => Ok(answer),
        }
    }

    /// Waits for the answer to the unsettled request.
    fn settle(&mut self, deadline: Instant) -> Result<ToWorker, InferenceError> {
        loop {
            let answer = self.receive(deadline)?;
            let Some(unsettled) = &mut self.unsettled else { return Ok(answer) };
            match &answer {
                ToWorker::Hello => {
                    unsettled.deaths += u32::from(self.greeted);
                    self.greeted = true;
                    if unsettled.deaths >= MAX_DEATHS {
                        self.unsettled = None;
                        let message =
                            format!("the inference process died {MAX_DEATHS} times on this request");
                        return Err(InferenceError::new(ErrorCode::RuntimeError, message));
                    }
                    // The request may be the one that the last process took with it. If it still waits in the
                    // socket, the inference process sees its number twice and runs it once.
                    send(self.socket.as_fd(), &unsettled.request).map_err(lost)?;
                }
                ToWorker::Opened { id, .. }
                | ToWorker::Done { id, .. }
                | ToWorker::Stale { id, .. }
                | ToWorker::Failed { id, .. } => {
                    if *id == unsettled.request.id() {
                        self.unsettled = None;
                        return Ok(answer);
                    }
                }
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<ToWorker, InferenceError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut descriptors = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut descriptors, timeout.as_ref()))
            .map_err(|errno| lost(PacketError::Io(errno)))?;
        if ready == 0 {
            let message =
                format!("no answer from the inference process within {} ms", self.timeout.as_millis());
            return Err(InferenceError::new(ErrorCode::Timeout, message));
        }
        receive(self.socket.as_fd(), &mut self.buffer).map_err(lost)
    }
}

fn lost(error: PacketError) -> InferenceError {
    InferenceError::new(ErrorCode::RuntimeError, format!("the inference process cannot be reached: {error}"))
}

fn stale(waited_ms: u32) -> InferenceError {
    let message = format!(
        "the frame is too old by now: the request waited {waited_ms} ms for a free thread and was dropped \
         (config: inference.stale_ms)"
    );
    InferenceError::new(ErrorCode::Timeout, message)
}

fn unexpected(answer: &ToWorker) -> InferenceError {
    InferenceError::new(
        ErrorCode::RuntimeError,
        format!("the inference process answered out of turn: {answer:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use ocelli_protocol::inference::{Element, packet_pair};
    use ocelli_protocol::shm::SharedMemory;
    use std::os::fd::OwnedFd;

    const GENEROUS: Duration = Duration::from_secs(60);

    /// Plays the inference process: `serve` gets the socket and a receive function.
    fn served(
        serve: impl FnOnce(&OwnedFd, &mut dyn FnMut() -> FromWorker) + Send + 'static,
    ) -> (Client, OwnedFd) {
        let (ours, theirs) = packet_pair().unwrap();
        let kept = theirs.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = vec![0; MAX_PACKET];
            serve(&theirs, &mut || receive(theirs.as_fd(), &mut buffer).unwrap());
        });
        (Client::new(ours, GENEROUS), kept)
    }

    fn opened(id: u64) -> ToWorker {
        ToWorker::Opened { id, model: "model".into(), inputs: Vec::new(), outputs: Vec::new() }
    }

    #[test]
    fn a_request_is_sent_again_to_the_next_process() {
        let (mut client, _kept) = served(|socket, next| {
            send(socket.as_fd(), &ToWorker::Hello).unwrap();
            let lost = next();
            // The first process may have read the request once before its hello arrived, and dies here.
            send(socket.as_fd(), &ToWorker::Hello).unwrap();
            while next() != lost {}
            send(socket.as_fd(), &opened(lost.id())).unwrap();
        });
        assert!(client.open("model").is_ok());
    }

    #[test]
    fn a_request_that_kills_twice_is_given_up() {
        let (mut client, _kept) = served(|socket, next| {
            (0..3).for_each(|_| send(socket.as_fd(), &ToWorker::Hello).unwrap());
            let request = next();
            assert_eq!(request.id(), 1);
        });
        let error = client.open("model").unwrap_err();
        assert_eq!(error.code, ErrorCode::RuntimeError);
        assert!(error.message.contains("died 2 times"), "{error}");
    }

    #[test]
    fn blocks_of_an_unanswered_request_are_not_given_out_again() {
        let (ours, theirs) = packet_pair().unwrap();
        let mut client = Client::new(ours, Duration::ZERO);
        let arena = Arena::new(SharedMemory::create(8192).unwrap());
        let output = Arc::new(arena.allocate(4096).unwrap());
        let error = client.run("model", Vec::new(), Vec::new(), &output).unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        drop(output);
        assert_eq!(arena.largest_free(), 4096, "the block is still under the request");

        send(theirs.as_fd(), &ToWorker::Failed { id: 1, code: ErrorCode::Unknown, message: String::new() })
            .unwrap();
        client.timeout = GENEROUS;
        send(theirs.as_fd(), &opened(2)).unwrap();
        assert!(client.open("model").is_ok());
        assert_eq!(arena.largest_free(), 8192);
    }

    #[test]
    fn an_output_outside_its_block_is_refused() {
        let (mut client, _kept) = served(|socket, next| {
            let id = next().id();
            let tensor =
                PlacedTensor { name: "y".into(), element: Element::F32, shape: vec![1024], offset: 4096 };
            send(socket.as_fd(), &ToWorker::Done { id, outputs: vec![tensor], queued_ns: 0, run_ns: 0 })
                .unwrap();
        });
        let arena = Arena::new(SharedMemory::create(8192).unwrap());
        let output = Arc::new(arena.allocate(4096).unwrap());
        let error = client.run("model", Vec::new(), Vec::new(), &output).unwrap_err();
        assert!(error.message.contains("outside"), "{error}");
    }
}
