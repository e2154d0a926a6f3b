//! The host's side of the imports, called as the generated glue would call it: without wasm, with
//! the test in the place of the inference process.

pub(crate) mod components;

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ocelli_protocol::inference::{
    Element, ErrorCode, InferenceRequest, InferenceResponse, MAX_PACKET, PlacedTensor,
    TensorDeclaration, packet_pair, receive, send,
};
use ocelli_protocol::limit::Limit;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::worker::{self as protocol, Decode, WorkerLimits};
use serde_json::json;
use wasmtime::component::Resource;

use super::limits::{LimitExceeded, MAX_HANDLES};
use super::newest::wasi::config::store::Host as _;
use super::newest::wasi::nn::errors::{self, HostError as _};
use super::newest::wasi::nn::graph::{Host as _, HostGraph as _};
use super::newest::wasi::nn::inference::HostGraphExecutionContext as _;
use super::newest::wasi::nn::tensor::{HostTensor as _, TensorType};
use super::newest::{frames as wit_frames, results as wit};
use super::output::output;
use super::resources::{ExecutionContext, FrameHandle, Image, ImageBudget};
use super::state::tests::limits;
use super::state::{HostServices, InstanceState};
use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::host_link::HostLink;
use crate::inference::InferenceError;
use crate::redis_bridge::RedisBucket;
use crate::video::{Stream, clips};

/// The session's shared memory.
pub(super) const MEMORY: usize = 64 << 10;

/// A model that takes four numbers and gives them back doubled.
fn declaration(name: &str) -> TensorDeclaration {
    TensorDeclaration { name: name.into(), element: Element::F32, shape: vec![1, 4] }
}

/// The state of an instance, with what it shares with the worker.
pub(super) struct TestInstance {
    state: InstanceState,
    pub(super) arena: Arc<Arena>,
    pub(super) counters: Arc<SharedCounters>,
}

impl Deref for TestInstance {
    type Target = InstanceState;

    fn deref(&self) -> &InstanceState {
        &self.state
    }
}

impl DerefMut for TestInstance {
    fn deref_mut(&mut self) -> &mut InstanceState {
        &mut self.state
    }
}

/// An instance whose inference process knows one model, "double", and answers until the instance is
/// dropped.
pub(super) fn state() -> TestInstance {
    served(answer)
}

/// An instance whose inference process answers each request so, until the instance is dropped.
pub(super) fn served(
    answer: impl Fn(&SharedMemory, InferenceRequest) -> InferenceResponse + Send + 'static,
) -> TestInstance {
    let (ours, theirs) = packet_pair().unwrap();
    let memory = SharedMemory::create(MEMORY).unwrap();
    let view = SharedMemory::map(memory.fd().try_clone_to_owned().unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_PACKET];
        while let Ok(request) = receive::<InferenceRequest>(theirs.as_fd(), &mut buffer) {
            send(theirs.as_fd(), &answer(&view, request)).unwrap();
        }
    });
    let (host, _) = UnixStream::pair().unwrap();
    let settings = json!({"score": 0.5, "model": "double"}).as_object().unwrap().clone();
    let (arena, counters) = (Arena::new(memory), Arc::new(SharedCounters::default()));
    let host = HostLink::from_stream(host);
    let redis = RedisBucket::default();
    let services =
        HostServices::new(host, Arc::clone(&arena), ours, redis, limits(), Arc::clone(&counters));
    TestInstance { state: InstanceState::new(services, settings).unwrap(), arena, counters }
}

#[allow(unsafe_code)]
fn answer(memory: &SharedMemory, request: InferenceRequest) -> InferenceResponse {
    match request {
        InferenceRequest::Open { id, model } if model == "double" => InferenceResponse::Opened {
            id,
            model,
            inputs: vec![declaration("x")],
            outputs: vec![declaration("y")],
        },
        InferenceRequest::Open { id, .. } | InferenceRequest::Load { id, .. } => {
            InferenceResponse::Failed {
                id,
                code: ErrorCode::NotFound,
                message: "no such model".into(),
            }
        }
        InferenceRequest::Ask { id, want } => {
            InferenceResponse::Granted { id, granted: want > 500 }
        }
        InferenceRequest::Run { id, inputs, output_offset, .. } => {
            let output = PlacedTensor {
                name: "y".into(),
                element: Element::F32,
                shape: vec![1, 4],
                offset: output_offset,
            };
            // SAFETY: the worker waits for this answer, and input and output do not overlap.
            let (from, to) = unsafe {
                (
                    memory.bytes(inputs[0].range().unwrap()),
                    memory.bytes_mut(output.range().unwrap()),
                )
            };
            for (from, to) in from.unwrap().chunks_exact(4).zip(to.unwrap().chunks_exact_mut(4)) {
                to.copy_from_slice(
                    &(2.0 * f32::from_le_bytes(from.try_into().unwrap())).to_le_bytes(),
                );
            }
            InferenceResponse::Done { id, outputs: vec![output], queued_ns: 0, run_ns: 0 }
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn context(state: &mut TestInstance) -> Resource<ExecutionContext> {
    let graph = state.nn().load_by_name("double".into()).unwrap().unwrap();
    state.nn().init_execution_context(graph).unwrap().unwrap()
}

/// An error's code and words.
pub(super) fn error_of(
    state: &mut TestInstance,
    error: Resource<InferenceError>,
) -> (errors::ErrorCode, String) {
    let borrowed = || Resource::new_borrow(error.rep());
    (
        state.nn().code(borrowed()).unwrap(),
        errors::HostError::data(&mut state.nn(), borrowed()).unwrap(),
    )
}

#[test]
fn a_model_computes_over_shared_memory() {
    let mut state = state();
    let context = context(&mut state);
    let input = state.nn().new(vec![1, 4], TensorType::Fp32, bytes(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    let outputs = state.nn().compute(context, vec![("x".into(), input)]).unwrap().unwrap();
    let [(name, output)] = &outputs[..] else { panic!("{} outputs", outputs.len()) };
    assert_eq!(name, "y");
    assert_eq!(state.nn().dimensions(Resource::new_borrow(output.rep())).unwrap(), [1, 4]);
    let data = super::newest::wasi::nn::tensor::HostTensor::data(
        &mut state.nn(),
        Resource::new_borrow(output.rep()),
    );
    assert_eq!(data.unwrap(), bytes(&[2.0, 4.0, 6.0, 8.0]));
    assert_eq!(state.counters.snapshot().inferred, 1);
}

#[test]
fn dropped_tensors_give_their_memory_back() {
    let mut state = state();
    let free = state.arena.largest_free();
    for _ in 0..100 {
        let context = context(&mut state);
        let input = state.nn().new(vec![1, 4], TensorType::Fp32, bytes(&[0.0; 4])).unwrap();
        for (_, output) in state.nn().compute(context, vec![("x".into(), input)]).unwrap().unwrap()
        {
            super::newest::wasi::nn::tensor::HostTensor::drop(&mut state.nn(), output).unwrap();
        }
    }
    assert_eq!(state.arena.largest_free(), free);
}

/// How often a limit was run into.
pub(super) fn counted(state: &TestInstance, limit: Limit) -> u64 {
    state.counters.snapshot().limits.of(limit)
}

#[test]
fn a_tensor_over_the_shared_memory_is_refused_and_one_that_fills_it_is_not() {
    let mut state = state();
    let whole = u32::try_from(MEMORY).unwrap();
    let tensor = state.nn().new(vec![whole], TensorType::U8, vec![0; MEMORY]).unwrap();
    let error = state.nn().new(vec![1], TensorType::U8, vec![0]).unwrap_err().to_string();
    assert!(error.contains("does not fit"), "{error}");
    super::newest::wasi::nn::tensor::HostTensor::drop(&mut state.nn(), tensor).unwrap();
    assert_eq!(counted(&state, Limit::Tensor), 1);

    let error = state
        .nn()
        .new(vec![whole + 1], TensorType::U8, vec![0; MEMORY + 1])
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("{MEMORY} bytes")), "{error}");
    let error =
        state.nn().new(vec![u32::MAX; 4], TensorType::Fp64, vec![0; 8]).unwrap_err().to_string();
    assert!(error.contains("[4294967295, 4294967295, 4294967295, 4294967295]"), "{error}");
    assert_eq!(counted(&state, Limit::Tensor), 3);

    let error = state.nn().new(vec![2], TensorType::U8, vec![0; 8]).unwrap_err().to_string();
    assert!(error.contains("8 bytes given"), "{error}");
    assert_eq!(counted(&state, Limit::Tensor), 3, "a mistake and no limit");
}

#[test]
fn outputs_that_find_no_room_are_an_error_and_a_limit() {
    let mut state = state();
    let context = context(&mut state);
    let most = u32::try_from(MEMORY - 64).unwrap();
    let _full = state.nn().new(vec![most], TensorType::U8, vec![0; MEMORY - 64]).unwrap();
    let input = state.nn().new(vec![1, 4], TensorType::Fp32, bytes(&[0.0; 4])).unwrap();
    let error = state.nn().compute(context, vec![("x".into(), input)]).unwrap().unwrap_err();
    assert_eq!(error_of(&mut state, error).0, errors::ErrorCode::TooLarge);
    assert_eq!(counted(&state, Limit::Tensor), 1);
}

/// A frame of a camera's, of 768 x 576 pixels.
pub(super) fn frame(state: &mut TestInstance) -> Resource<FrameHandle> {
    let mut frames = Vec::new();
    let (header, data) = clips::units("people-576-mjpeg.avi").swap_remove(0);
    Stream::new(Decode::All).push(&header, &data, &mut |frame| frames.push(frame)).unwrap();
    state
        .table_mut()
        .push(FrameHandle { frame: Arc::new(frames.swap_remove(0)), skipped: 0 })
        .unwrap()
}

fn tensor_spec(width: u32, height: u32, element: wit_frames::Element) -> wit_frames::TensorSpec {
    wit_frames::TensorSpec {
        width,
        height,
        fit: wit_frames::Fit::Stretch,
        channels: wit_frames::Channels::Rgb,
        layout: wit_frames::Layout::Nchw,
        element,
        fill: (0.0, 0.0, 0.0),
        mean: (0.0, 0.0, 0.0),
        std: (1.0, 1.0, 1.0),
    }
}

#[test]
fn a_picture_is_asked_for_tensors_that_there_can_be() {
    let mut state = state();
    let frame = frame(&mut state);
    let mut tensor = |width, height, element| {
        let spec = tensor_spec(width, height, element);
        let frame = Resource::new_borrow(frame.rep());
        let made = wit_frames::HostFrame::tensor(&mut state.frames(), frame, None, spec).unwrap();
        (made.map(|_| ()), counted(&state, Limit::Tensor))
    };
    use wit_frames::{Element, FrameError};
    assert!(matches!(tensor(64, 64, Element::U8), (Ok(()), 0)));
    assert!(matches!(tensor(1 << 20, 1 << 20, Element::F32), (Err(FrameError::InvalidSpec(_)), 1)));
    assert!(matches!(tensor(0, 64, Element::F32), (Err(FrameError::InvalidSpec(_)), 2)));
    assert!(matches!(tensor(4096, 4096, Element::F32), (Err(FrameError::OutOfMemory(_)), 3)));
}

#[test]
fn a_second_stage_gets_1_to_64_crops_in_one_tensor() {
    let mut state = state();
    let frame = frame(&mut state);
    let mut batch = |count: usize| {
        let spec = tensor_spec(8, 8, wit_frames::Element::F32);
        let frame = Resource::new_borrow(frame.rep());
        // From over the left edge to over the right one.
        let region = |n: usize| wit_frames::Rect {
            x: n as f32 * 12.0 - 10.0,
            y: 550.0,
            width: 20.0,
            height: 40.0,
        };
        let regions = (0..count).map(region).collect();
        let (tensor, placements) =
            wit_frames::HostFrame::tensors(&mut state.frames(), frame, regions, spec)
                .unwrap()
                .ok()?;
        assert_eq!(placements.len(), count);
        let shape = state.nn().dimensions(Resource::new_borrow(tensor.rep())).unwrap();
        super::newest::wasi::nn::tensor::HostTensor::drop(&mut state.nn(), tensor).unwrap();
        Some(shape)
    };
    for count in [1, 16, 64] {
        assert_eq!(batch(count), Some(vec![count as u32, 3, 8, 8]));
    }
    assert_eq!(batch(0), None);
    assert_eq!(batch(65), None);
}

#[test]
fn settings_are_read_by_key() {
    let mut state = state();
    assert_eq!(state.settings().get("model".into()).unwrap().unwrap().as_deref(), Some("double"));
    assert_eq!(state.settings().get("score".into()).unwrap().unwrap().as_deref(), Some("0.5"));
    assert_eq!(state.settings().get("colour".into()).unwrap().unwrap(), None);
}

fn event(attachments: Vec<Resource<Image>>) -> wit::Output {
    let event = wit::Event {
        kind: "entered".into(),
        detections: Vec::new(),
        data: String::new(),
        attachments,
    };
    wit::Output { detections: None, events: vec![event], basis: None }
}

fn detection(score: f32) -> wit::Detection {
    let area = super::newest::frames::Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
    let label = "person".into();
    wit::Detection {
        label,
        score,
        box_: area,
        track: None,
        attributes: Vec::new(),
        embedding: None,
    }
}

fn output_of(detections: Vec<wit::Detection>) -> wit::Output {
    wit::Output { detections: Some(detections), events: Vec::new(), basis: None }
}

#[test]
fn models_run_in_a_dry_run_whatever_the_budget_says() {
    let mut state = state();
    assert!(state.nn().may_run(0.6) && !state.nn().may_run(0.5));
    state.set_dry_run(true);
    assert!(state.nn().may_run(0.0));
    state.set_dry_run(false);
    assert!(!state.nn().may_run(0.0));
}

#[test]
fn what_detections_rest_on_is_told_of_detections_alone() {
    let mut state = state();
    let basis = Some(wit::Basis { source: wit::Source::Flow, model_age: 300_000_000 });
    let mut rests_on = |taken| output(state.table_mut(), taken, &limits()).unwrap().basis;
    let flow = protocol::Basis { source: protocol::Source::Flow, model_age_ns: 300_000_000 };
    assert_eq!(rests_on(wit::Output { basis, ..output_of(vec![detection(0.5)]) }), Some(flow));
    assert_eq!(rests_on(output_of(vec![])), None);
    assert_eq!(rests_on(wit::Output { detections: None, events: vec![], basis }), None);
}

fn image(state: &mut TestInstance, jpeg: Vec<u8>) -> Resource<Image> {
    image_of(state, &ImageBudget::default(), jpeg)
}

fn image_of(state: &mut TestInstance, budget: &ImageBudget, jpeg: Vec<u8>) -> Resource<Image> {
    let lease = budget.reserve(jpeg.len()).unwrap();
    state.table_mut().push(Image { width: 1, height: 1, jpeg, lease }).unwrap()
}

/// The limit that taking over such an output runs into.
fn limit_of(state: &mut TestInstance, taken: wit::Output, limits: &WorkerLimits) -> Option<Limit> {
    let error = output(state.table_mut(), taken, limits).err()?;
    Some(LimitExceeded::from_error(&error).unwrap_or_else(|| panic!("{error}")).limit)
}

#[test]
fn an_attachment_leaves_with_its_event() {
    let mut state = state();
    let budget = ImageBudget::default();
    let image = image_of(&mut state, &budget, vec![7; 10]);
    let rep = image.rep();
    let taken = output(state.table_mut(), event(vec![image]), &limits()).unwrap();
    assert_eq!(taken.events[0].attachments, [vec![7; 10]]);
    assert!(
        state.table_mut().get(&Resource::<Image>::new_borrow(rep)).is_err(),
        "the handle is gone"
    );
    assert!(budget.reserve(budget.capacity()).is_some(), "and so are its bytes");
}

#[test]
fn attachments_are_taken_up_to_the_limit() {
    let mut state = state();
    let limits = WorkerLimits { attachments_per_frame: 2, ..limits() };
    let mut with = |count: usize| {
        let images = (0..count).map(|_| image(&mut state, vec![0; 4])).collect();
        limit_of(&mut state, event(images), &limits)
    };
    assert_eq!(with(2), None);
    assert_eq!(with(3), Some(Limit::Attachments));
}

#[test]
fn output_out_of_bounds_is_refused() {
    let mut state = state();
    let limits = limits();
    let large = image(&mut state, vec![0; 3 << 20]);
    assert_eq!(limit_of(&mut state, event(vec![large]), &limits), Some(Limit::OutputBytes));

    let with = |count| output_of(vec![detection(0.5); count]);
    assert_eq!(limit_of(&mut state, with(1000), &limits), None);
    assert_eq!(limit_of(&mut state, with(1001), &limits), Some(Limit::Detections));

    let odd = output_of(vec![detection(f32::NAN)]);
    let error = output(state.table_mut(), odd, &limits).unwrap_err();
    assert!(
        error.to_string().contains("not finite") && LimitExceeded::from_error(&error).is_none(),
        "{error}"
    );
}

#[test]
fn an_events_detections_count_towards_its_size() {
    let mut state = state();
    let limits = WorkerLimits { event_bytes: 20, ..limits() };
    let mut about = |label: &str| {
        let found = wit::Detection { label: label.into(), ..detection(0.5) };
        let event =
            wit::Event { detections: vec![found], ..event(Vec::new()).events.swap_remove(0) };
        limit_of(
            &mut state,
            wit::Output { detections: None, events: vec![event], basis: None },
            &limits,
        )
    };
    assert_eq!(about("thirteen long"), None, "with \"entered\" that makes 20 bytes");
    assert_eq!(about("fourteen bytes"), Some(Limit::EventBytes));
}

#[test]
fn handles_are_bounded() {
    let mut state = state();
    let pushed =
        (0..=MAX_HANDLES).take_while(|_| state.table_mut().push(Arc::new(())).is_ok()).count();
    assert_eq!(pushed, MAX_HANDLES);
}
