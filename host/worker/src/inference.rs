//! Asks the inference process for models and runs.
//!
//! One request at a time. The inference process may be replaced under a request: its successor says
//! `Hello`, and the request is sent again, as often as that happens. Who is to blame for a death is
//! the host's to judge: a request that may not be run again it answers itself. A request that was
//! not answered in time stays *unsettled*: the blocks that it named may still be written to, so
//! they are kept until its answer comes, and no new request is sent before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{
    ErrorCode, InferenceRequest, InferenceResponse, MAX_OWN_MODELS, MAX_PACKET, MAX_WANT,
    PacketError, PlacedTensor, TensorDeclaration, receive, send,
};
use rustix::event::PollFlags;

use crate::arena::{Arena, Block};
use crate::counters::SharedCounters;
use crate::poll::ready_by;

/// How much longer than a request's own time the worker waits for its answer. The inference process
/// answers at the deadline itself, and one that hangs is killed half a second later, whereupon the
/// host answers. So this is run into only where neither gets to it.
const GRACE: Duration = Duration::from_secs(2);

/// How long an answer to `ask` may take: it waits for nothing but a processor, or for a process that
/// replaces one that died. A spare takes milliseconds; without one it is no until there is one.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The same where the last question has no answer yet: no frame need wait for that again.
const AGAIN: Duration = Duration::from_millis(100);

/// Why a request failed: a code of wasi:nn and a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InferenceError {
    /// The code of `wasi:nn`.
    pub code: ErrorCode,
    /// The cause, for the component's author.
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
pub struct ModelSignature {
    /// The inputs, in the model's order.
    pub inputs: Vec<TensorDeclaration>,
    /// The outputs, in the order in which they are laid out.
    pub outputs: Vec<TensorDeclaration>,
}

/// A model that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedModel {
    /// By what name to run it.
    pub name: String,
    /// The model's inputs and outputs.
    pub signature: Arc<ModelSignature>,
}

/// A model that the component brought. Its bytes stay in memory: the next inference process does
/// not have it.
struct OwnModel {
    bytes: Vec<u8>,
    opened: OpenedModel,
    /// Its name in the inference process that has loaded it.
    name: String,
    /// Inference processes that had said `Hello` when it was loaded.
    greetings: u64,
}

/// A request whose answer has not come, with the blocks that must not be reused until it does.
struct PendingRequest {
    request: InferenceRequest,
    _blocks: Vec<Arc<Block>>,
}

/// The worker's end of the connection.
pub struct InferenceClient {
    socket: OwnedFd,
    buffer: Vec<u8>,
    arena: Arc<Arena>,
    counters: Arc<SharedCounters>,
    last_id: u64,
    timeout: Duration,
    /// Inference processes that have said `Hello`.
    greetings: u64,
    own: Vec<OwnModel>,
    unsettled: Option<PendingRequest>,
}

impl InferenceClient {
    /// A client over the inherited packet socket, whose requests name blocks of `arena` and are
    /// counted in `counters`. `timeout` is what the inference process gives each request, waiting
    /// in the queue included.
    pub fn new(
        socket: OwnedFd,
        timeout: Duration,
        arena: Arc<Arena>,
        counters: Arc<SharedCounters>,
    ) -> Self {
        Self {
            socket,
            buffer: vec![0; MAX_PACKET],
            arena,
            counters,
            last_id: 0,
            timeout: timeout.saturating_add(GRACE),
            greetings: 0,
            own: Vec::new(),
            unsettled: None,
        }
    }

    /// Asks for a model of the host's by name. `patience` is what the caller has left.
    pub fn open(&mut self, model: &str, patience: Duration) -> Result<OpenedModel, InferenceError> {
        let id = self.next_id();
        self.opened(InferenceRequest::Open { id, model: model.to_owned() }, Vec::new(), patience)
    }

    /// Has a model of the component's own loaded: the bytes of an ONNX file. The same bytes are
    /// loaded once. Too many models, and more bytes than there is shared memory for, are
    /// [`ErrorCode::TooLarge`].
    pub fn load(
        &mut self,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<OpenedModel, InferenceError> {
        if let Some(own) = self.own.iter().find(|own| own.bytes == bytes) {
            return Ok(own.opened.clone());
        }
        let held: usize = self.own.iter().map(|own| own.bytes.len()).sum();
        let most = self.arena.capacity();
        if self.own.len() >= MAX_OWN_MODELS || held.saturating_add(bytes.len()) > most {
            let message = format!(
                "a model of {} bytes beside {} with {held} bytes: a session may bring \
                    {MAX_OWN_MODELS} models with \
                 {most} bytes together",
                bytes.len(),
                self.own.len()
            );
            return Err(InferenceError::new(ErrorCode::TooLarge, message));
        }
        let opened = self.load_bytes(&bytes, patience)?;
        let (name, greetings) = (opened.name.clone(), self.greetings);
        self.own.push(OwnModel { bytes, opened: opened.clone(), name, greetings });
        Ok(opened)
    }

    /// Asks whether models may run for the frame at hand. `want` is 0 to 1. No where the answer
    /// does not come: the process is being replaced.
    pub fn ask(&mut self, want: f32, patience: Duration) -> bool {
        // NaN becomes 0.
        let want = (want.clamp(0.0, 1.0) * f32::from(MAX_WANT)).round() as u16;
        let id = self.next_id();
        let request = InferenceRequest::Ask { id, want };
        let is_open = self
            .unsettled
            .as_ref()
            .is_some_and(|pending| matches!(pending.request, InferenceRequest::Ask { .. }));
        let most = if is_open { AGAIN } else { AT_ONCE };
        let answer = self.exchange(request, Vec::new(), patience.min(most));
        let granted = matches!(answer, Ok(InferenceResponse::Granted { granted: true, .. }));
        self.counters.update(|counters| {
            counters.budget_asked += 1;
            counters.budget_granted += u64::from(granted);
        });
        granted
    }

    /// Runs a model. `inputs` lie in `blocks`; the outputs are written into `output`.
    pub fn run(
        &mut self,
        model: &str,
        inputs: Vec<PlacedTensor>,
        mut blocks: Vec<Arc<Block>>,
        output: &Arc<Block>,
        patience: Duration,
    ) -> Result<Vec<PlacedTensor>, InferenceError> {
        blocks.push(Arc::clone(output));
        let mut ran = self.run_once(model, &inputs, &blocks, output, patience);
        if ran.as_ref().is_err_and(|error| error.code == ErrorCode::NotFound) {
            match self.load_again(model, patience) {
                Ok(true) => ran = self.run_once(model, &inputs, &blocks, output, patience),
                Ok(false) => {}
                Err(error) => ran = Err(error),
            }
        }
        self.counters.update(|counters| match &ran {
            Ok(RunOutcome::Done { queued_ns, run_ns, .. }) => {
                counters.inferred += 1;
                counters.inference_wait_ns = counters.inference_wait_ns.saturating_add(*queued_ns);
                counters.inference_run_ns = counters.inference_run_ns.saturating_add(*run_ns);
            }
            Ok(RunOutcome::Stale { .. }) => counters.inference_stale += 1,
            Err(_) => counters.inference_failed += 1,
        });
        match ran? {
            RunOutcome::Done { outputs, .. } => Ok(outputs),
            RunOutcome::Stale { waited_ms } => Err(stale(waited_ms)),
        }
    }

    fn run_once(
        &mut self,
        model: &str,
        inputs: &[PlacedTensor],
        blocks: &[Arc<Block>],
        output: &Block,
        patience: Duration,
    ) -> Result<RunOutcome, InferenceError> {
        let id = self.next_id();
        let own = self.own.iter().find(|own| own.opened.name == model);
        let request = InferenceRequest::Run {
            id,
            model: own.map_or(model, |own| &own.name).to_owned(),
            inputs: inputs.to_vec(),
            output_offset: output.offset() as u64,
            output_length: output.len() as u64,
        };
        match self.exchange(request, blocks.to_vec(), patience)? {
            InferenceResponse::Done { outputs, queued_ns, run_ns, .. } => {
                let block = output.offset()..output.offset() + output.len();
                let inside = |tensor: &PlacedTensor| {
                    tensor
                        .range()
                        .is_some_and(|range| range.start >= block.start && range.end <= block.end)
                };
                if outputs.iter().all(inside) {
                    Ok(RunOutcome::Done { outputs, queued_ns, run_ns })
                } else {
                    Err(InferenceError::new(
                        ErrorCode::RuntimeError,
                        "an output lies outside its block",
                    ))
                }
            }
            InferenceResponse::Stale { waited_ms, .. } => Ok(RunOutcome::Stale { waited_ms }),
            other => Err(unexpected(&other)),
        }
    }

    fn load_bytes(
        &mut self,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<OpenedModel, InferenceError> {
        let mut block = self.arena.allocate(bytes.len()).ok_or_else(|| {
            let free = self.arena.largest_free();
            let message = format!(
                "a model of {} bytes does not fit: {free} bytes are free in one piece",
                bytes.len()
            );
            InferenceError::new(ErrorCode::TooLarge, message)
        })?;
        block.bytes_mut().get_mut(..bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        let (offset, length) = (block.offset() as u64, bytes.len() as u64);
        let request = InferenceRequest::Load { id: self.next_id(), offset, length };
        self.opened(request, vec![Arc::new(block)], patience)
    }

    /// Loads a model of the component's own once more where another inference process has taken
    /// over since. Gives whether that was done.
    fn load_again(&mut self, model: &str, patience: Duration) -> Result<bool, InferenceError> {
        let greetings = self.greetings;
        let lost = |own: &OwnModel| own.opened.name == model && own.greetings < greetings;
        let Some(index) = self.own.iter().position(lost) else { return Ok(false) };
        let mut own = self.own.swap_remove(index);
        let loaded = self.load_bytes(&own.bytes, patience);
        if let Ok(loaded) = &loaded {
            (own.name, own.greetings) = (loaded.name.clone(), self.greetings);
        }
        self.own.push(own);
        loaded.map(|_| true)
    }

    fn opened(
        &mut self,
        request: InferenceRequest,
        blocks: Vec<Arc<Block>>,
        patience: Duration,
    ) -> Result<OpenedModel, InferenceError> {
        match self.exchange(request, blocks, patience)? {
            InferenceResponse::Opened { model, inputs, outputs, .. } => Ok(OpenedModel {
                name: model,
                signature: Arc::new(ModelSignature { inputs, outputs }),
            }),
            other => Err(unexpected(&other)),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request and waits for its answer, no longer than the caller's patience. `Failed`
    /// comes back as an error.
    fn exchange(
        &mut self,
        request: InferenceRequest,
        blocks: Vec<Arc<Block>>,
        patience: Duration,
    ) -> Result<InferenceResponse, InferenceError> {
        let wait = self.timeout.min(patience);
        let deadline = Instant::now() + wait;
        let begun = monotonic_ns();
        let answered = self.exchange_until(request, blocks, deadline);
        let took = monotonic_ns().saturating_sub(begun);
        self.counters.update(|counters| {
            counters.inference_call_ns = counters.inference_call_ns.saturating_add(took);
        });
        match answered? {
            Some(InferenceResponse::Failed { code, message, .. }) => {
                Err(InferenceError { code, message })
            }
            Some(answer) => Ok(answer),
            None => {
                let message =
                    format!("no answer from the inference process within {} ms", wait.as_millis());
                Err(InferenceError::new(ErrorCode::Timeout, message))
            }
        }
    }

    /// None: no answer in time.
    fn exchange_until(
        &mut self,
        request: InferenceRequest,
        blocks: Vec<Arc<Block>>,
        deadline: Instant,
    ) -> Result<Option<InferenceResponse>, InferenceError> {
        // The answer to an earlier request comes too late to be of use.
        if self.unsettled.is_some() && self.await_response(deadline)?.is_none() {
            return Ok(None);
        }
        send(self.socket.as_fd(), &request).map_err(lost)?;
        self.unsettled = Some(PendingRequest { request, _blocks: blocks });
        self.await_response(deadline)
    }

    /// Waits for the answer to the unsettled request.
    fn await_response(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<InferenceResponse>, InferenceError> {
        loop {
            let Some(answer) = self.receive(deadline)? else { return Ok(None) };
            let Some(unsettled) = &self.unsettled else { return Ok(Some(answer)) };
            match &answer {
                InferenceResponse::Hello => {
                    self.greetings += 1;
                    // The request may be the one that the last process took with it. If it still
                    // waits in the socket, the inference process sees its number twice and runs it
                    // once.
                    send(self.socket.as_fd(), &unsettled.request).map_err(lost)?;
                }
                InferenceResponse::Opened { id, .. }
                | InferenceResponse::Done { id, .. }
                | InferenceResponse::Granted { id, .. }
                | InferenceResponse::Stale { id, .. }
                | InferenceResponse::Failed { id, .. } => {
                    if *id == unsettled.request.id() {
                        self.unsettled = None;
                        return Ok(Some(answer));
                    }
                }
            }
        }
    }

    /// The next message; `None` if none has come by `deadline`.
    fn receive(&mut self, deadline: Instant) -> Result<Option<InferenceResponse>, InferenceError> {
        let ready = ready_by(&self.socket, PollFlags::IN, deadline);
        if !ready.map_err(|errno| lost(PacketError::Io(errno)))? {
            return Ok(None);
        }
        receive(self.socket.as_fd(), &mut self.buffer).map(Some).map_err(lost)
    }
}

/// The result of a run.
enum RunOutcome {
    Done { outputs: Vec<PlacedTensor>, queued_ns: u64, run_ns: u64 },
    Stale { waited_ms: u32 },
}
fn lost(error: PacketError) -> InferenceError {
    InferenceError::new(
        ErrorCode::RuntimeError,
        format!("the inference process cannot be reached: {error}"),
    )
}

fn stale(waited_ms: u32) -> InferenceError {
    let message = format!(
        "the frame is too old by now: the request waited {waited_ms} ms for a free thread and was \
            dropped \
         (config: inference.stale_ms)"
    );
    InferenceError::new(ErrorCode::Timeout, message)
}

fn unexpected(answer: &InferenceResponse) -> InferenceError {
    InferenceError::new(
        ErrorCode::RuntimeError,
        format!("the inference process answered out of turn: {answer:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::inference::{Element, packet_pair};
    use ocelli_protocol::shm::SharedMemory;
    use ocelli_protocol::worker::Counters;

    const GENEROUS: Duration = Duration::from_secs(60);
    const MEMORY: usize = 16 << 10;

    /// What the inference process receives next.
    type Next<'a> = &'a mut dyn FnMut() -> InferenceRequest;

    /// A client, and the other end of its socket.
    fn pair() -> (InferenceClient, OwnedFd) {
        let (ours, theirs) = packet_pair().unwrap();
        let arena = Arena::new(SharedMemory::create(MEMORY).unwrap());
        (InferenceClient::new(ours, GENEROUS, arena, Arc::default()), theirs)
    }

    /// What [`served`] plays. A test ends with all of it played: what the player found wrong fails
    /// the test.
    struct Played {
        socket: OwnedFd,
        player: Option<std::thread::JoinHandle<()>>,
    }

    impl Drop for Played {
        fn drop(&mut self) {
            // It waits for no request any more.
            rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).unwrap();
            let played = self.player.take().unwrap().join();
            assert!(
                std::thread::panicking() || played.is_ok(),
                "the played process saw what it did not expect"
            );
        }
    }

    /// Plays the inference process: `serve` gets the socket and a receive function.
    fn served(
        serve: impl FnOnce(&OwnedFd, Next<'_>) + Send + 'static,
    ) -> (InferenceClient, Played) {
        let (client, theirs) = pair();
        let socket = theirs.try_clone().unwrap();
        let player = std::thread::spawn(move || {
            let mut buffer = vec![0; MAX_PACKET];
            serve(&theirs, &mut || receive(theirs.as_fd(), &mut buffer).unwrap());
        });
        (client, Played { socket, player: Some(player) })
    }

    fn tell(socket: &OwnedFd, message: &InferenceResponse) {
        send(socket.as_fd(), message).unwrap();
    }

    fn opened(id: u64, model: &str) -> InferenceResponse {
        InferenceResponse::Opened {
            id,
            model: model.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn done(id: u64) -> InferenceResponse {
        InferenceResponse::Done { id, outputs: Vec::new(), queued_ns: 30, run_ns: 500 }
    }

    fn failed(id: u64, code: ErrorCode) -> InferenceResponse {
        InferenceResponse::Failed { id, code, message: "its words".into() }
    }

    /// Runs a model without inputs, whose outputs may take 4096 bytes.
    fn run(client: &mut InferenceClient, model: &str) -> Result<Vec<PlacedTensor>, InferenceError> {
        let output = Arc::new(client.arena.allocate(4096).unwrap());
        client.run(model, Vec::new(), Vec::new(), &output, GENEROUS)
    }

    #[test]
    fn a_request_is_sent_again_to_each_next_process() {
        let (mut client, _played) = served(|socket, next| {
            tell(socket, &InferenceResponse::Hello);
            let lost = next();
            // The first process may have read the request once before its hello arrived, and dies
            // here; so do three more.
            for _ in 0..4 {
                tell(socket, &InferenceResponse::Hello);
                while next() != lost {}
            }
            tell(socket, &opened(lost.id(), "model"));
        });
        assert!(client.open("model", GENEROUS).is_ok());
    }

    #[test]
    fn a_request_that_the_host_gives_up_is_answered_with_its_words() {
        let (mut client, _played) = served(|socket, next| {
            let id = next().id();
            (0..2).for_each(|_| tell(socket, &InferenceResponse::Hello));
            tell(socket, &failed(id, ErrorCode::RuntimeError));
            tell(socket, &InferenceResponse::Hello);
            while next().id() == id {}
            tell(socket, &opened(id + 1, "model"));
        });
        let error = run(&mut client, "model").unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::RuntimeError, "its words"));
        assert_eq!(client.counters.snapshot().inference_failed, 1);
        assert!(client.open("model", GENEROUS).is_ok(), "the next request is a new one");
    }

    #[test]
    fn runs_are_counted_by_what_came_of_them() {
        let (mut client, _played) = served(|socket, next| {
            for _ in 0..2 {
                tell(socket, &done(next().id()));
            }
            tell(socket, &InferenceResponse::Stale { id: next().id(), waited_ms: 2100 });
            tell(socket, &failed(next().id(), ErrorCode::Timeout));
        });
        run(&mut client, "model").unwrap();
        run(&mut client, "model").unwrap();
        let stale = run(&mut client, "model").unwrap_err();
        assert_eq!(stale.code, ErrorCode::Timeout);
        assert!(
            stale.message.contains("2100 ms") && stale.message.contains("inference.stale_ms"),
            "{stale}"
        );
        assert_eq!(run(&mut client, "model").unwrap_err().code, ErrorCode::Timeout);
        let Counters {
            inferred,
            inference_failed,
            inference_stale,
            inference_wait_ns,
            inference_run_ns,
            ..
        } = client.counters.snapshot();
        assert_eq!((inferred, inference_failed, inference_stale), (2, 1, 1));
        assert_eq!((inference_wait_ns, inference_run_ns), (60, 1000));
    }

    #[test]
    fn what_is_wanted_is_told_in_thousandths_and_no_answer_is_no() {
        let (mut client, _played) = served(|socket, next| {
            for wanted in [0, 0, 1000, 1000, 250] {
                let InferenceRequest::Ask { id, want } = next() else { panic!("another request") };
                assert_eq!(want, wanted);
                tell(socket, &InferenceResponse::Granted { id, granted: want > 250 });
            }
            // Answered when it is of no use any more: the next request waits for it.
            let late = next().id();
            tell(socket, &failed(late, ErrorCode::RuntimeError));
            tell(socket, &done(next().id()));
        });
        let mut ask = |want| client.ask(want, GENEROUS);
        assert_eq!(
            [f32::NAN, -1.0, 1.0, f32::INFINITY, 0.25].map(&mut ask),
            [false, false, true, true, false]
        );
        assert!(!ask(1.0));
        run(&mut client, "model").unwrap();
        let counters = client.counters.snapshot();
        assert_eq!((counters.budget_asked, counters.budget_granted), (6, 2));
        assert_eq!((counters.inferred, counters.inference_failed), (1, 0));
    }

    #[test]
    fn blocks_of_an_unanswered_request_are_not_given_out_again() {
        let (mut client, theirs) = pair();
        let arena = Arc::clone(&client.arena);
        let output = Arc::new(arena.allocate(4096).unwrap());
        let error =
            client.run("model", Vec::new(), Vec::new(), &output, Duration::ZERO).unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        drop(output);
        assert_eq!(arena.largest_free(), MEMORY - 4096, "the block is still under the request");

        tell(&theirs, &failed(1, ErrorCode::Unknown));
        tell(&theirs, &opened(2, "model"));
        assert!(client.open("model", GENEROUS).is_ok());
        assert_eq!(arena.largest_free(), MEMORY);
    }

    #[test]
    fn the_callers_patience_may_be_shorter_than_the_requests_time() {
        let (mut client, _theirs) = pair();
        let error = client.open("model", Duration::from_millis(7)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(error.message.contains("7 ms"), "{error}");
    }

    #[test]
    fn an_output_outside_its_block_is_refused() {
        let (mut client, _played) = served(|socket, next| {
            let id = next().id();
            let tensor = PlacedTensor {
                name: "y".into(),
                element: Element::F32,
                shape: vec![1024],
                offset: 4096,
            };
            tell(
                socket,
                &InferenceResponse::Done { id, outputs: vec![tensor], queued_ns: 0, run_ns: 0 },
            );
        });
        let error = run(&mut client, "model").unwrap_err();
        assert!(error.message.contains("outside"), "{error}");
        assert_eq!(client.counters.snapshot().inference_failed, 1);
    }

    #[test]
    fn the_same_bytes_are_loaded_once_and_give_their_room_back() {
        let (mut client, _played) = served(|socket, next| {
            for name in ["own/1", "own/2"] {
                let InferenceRequest::Load { id, length, .. } = next() else {
                    panic!("another request")
                };
                assert_eq!(length, 5000);
                tell(socket, &opened(id, name));
            }
        });
        let first = client.load(vec![1; 5000], GENEROUS).unwrap();
        assert_eq!(client.load(vec![1; 5000], GENEROUS).unwrap(), first);
        assert_eq!(client.load(vec![2; 5000], GENEROUS).unwrap().name, "own/2");
        assert_eq!(client.arena.largest_free(), MEMORY);
        let error = client.load(vec![3; MEMORY - 2 * 5000 + 1], GENEROUS).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_model_of_the_components_own_is_loaded_again_by_the_next_process() {
        let (mut client, _played) = served(|socket, next| {
            tell(socket, &InferenceResponse::Hello);
            let load = next();
            while next() != load {}
            tell(socket, &opened(load.id(), "own/1"));

            let run = next();
            tell(socket, &InferenceResponse::Hello);
            assert_eq!(next(), run);
            tell(socket, &failed(run.id(), ErrorCode::NotFound));
            let InferenceRequest::Load { id, length, .. } = next() else {
                panic!("another request")
            };
            assert_eq!(length, 9);
            tell(socket, &opened(id, "own/7"));
            let InferenceRequest::Run { id, model, .. } = next() else { panic!("another request") };
            assert_eq!(model, "own/7");
            tell(socket, &done(id));
            // Not known, by a process that has loaded it: nothing is tried twice.
            tell(socket, &failed(next().id(), ErrorCode::NotFound));
        });
        let own = client.load(vec![1; 9], GENEROUS).unwrap();
        run(&mut client, &own.name).unwrap();
        let counters = client.counters.snapshot();
        assert_eq!((counters.inferred, counters.inference_failed), (1, 0));
        assert_eq!(run(&mut client, &own.name).unwrap_err().code, ErrorCode::NotFound);
    }
}
