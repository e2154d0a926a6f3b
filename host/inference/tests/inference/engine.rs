//! The engine inside this process: what it computes, what it refuses, and what goes on afterwards.

use std::os::fd::AsFd;
use std::sync::Once;

use ocelli_inference::{Engine, EngineError};
use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Configure, Element, ErrorCode, InferenceRequest, InferenceResponse, Model, PacketError,
    PlacedTensor, send,
};
use rustix::net::SendFlags;

use crate::support::*;

#[allow(unsafe_code)]
fn start(configure: Configure) -> Result<Engine, EngineError> {
    static TELEMETRY: Once = Once::new();
    // SAFETY: before the library is loaded, and nothing else in this program reads or writes the
    // environment but through std, which locks it.
    TELEMETRY.call_once(|| unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") });
    let ledger = InFlightTable::create(configure.threads as usize).unwrap();
    Engine::prepare(configure, ledger)?.start(|_| {}, None)
}

fn attach(engine: &Engine, worker: Worker) -> Worker {
    let socket = worker.theirs.try_clone().unwrap();
    let memory = worker.memory.fd().try_clone_to_owned().unwrap();
    engine.attach(worker.attach(0), socket, memory).unwrap();
    worker.greeted()
}

fn detector(threads: u32) -> Engine {
    start(configure(threads, vec![model()], &[MODEL])).unwrap()
}

fn refused(configure: Configure) -> String {
    match start(configure) {
        Ok(_) => panic!("the engine started"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_opened_model_tells_its_signature() {
    let engine = detector(1);
    assert_eq!(engine.version(), "1.28.0");
    assert_eq!(
        engine.loaded().iter().map(|model| model.name.as_str()).collect::<Vec<_>>(),
        [MODEL]
    );
    let mut worker = attach(&engine, Worker::new());
    let Ok(InferenceResponse::Opened { inputs, outputs, .. }) = worker.open(1, MODEL) else {
        panic!("not opened")
    };
    assert_eq!(inputs, model().inputs);
    assert_eq!(outputs, model().outputs);
}

#[test]
fn a_wrong_argument_is_named_and_the_session_goes_on() {
    let engine = detector(1);
    let mut worker = attach(&engine, Worker::new());
    worker.write(0, &picture(1));
    let expected = worker.run(&request(1)).unwrap();

    type Change = fn(&mut Vec<PlacedTensor>, &mut u64, &mut u64);
    let wrong: [(Change, ErrorCode, &str); 12] = [
        (
            |inputs, _, _| inputs[0].name = "image".into(),
            ErrorCode::InvalidArgument,
            "no input \"image\"; it has: input",
        ),
        (|inputs, _, _| inputs.clear(), ErrorCode::InvalidArgument, "\"input\" is missing"),
        (|inputs, _, _| inputs.push(inputs[0].clone()), ErrorCode::InvalidArgument, "given twice"),
        (
            |inputs, _, _| inputs[0].element = Element::U8,
            ErrorCode::InvalidArgument,
            "is u8, the model takes f32",
        ),
        (
            |inputs, _, _| inputs[0].shape[3] = 320,
            ErrorCode::InvalidArgument,
            "[1, 3, 416, 320], the model takes [1, 3, 416, 416]",
        ),
        (
            |inputs, _, _| inputs[0].shape = vec![1; 9],
            ErrorCode::InvalidArgument,
            "has shape [1, 1",
        ),
        (
            |inputs, _, _| inputs[0].offset = 4,
            ErrorCode::InvalidArgument,
            "begins at 4, which is no multiple of 64",
        ),
        (|inputs, _, _| inputs[0].offset = 64, ErrorCode::InvalidArgument, "overlaps"),
        (
            |inputs, _, _| inputs[0].offset = u64::MAX - 63,
            ErrorCode::InvalidArgument,
            "does not lie in",
        ),
        (
            |_, offset, _| *offset += 32,
            ErrorCode::InvalidArgument,
            "the room for the outputs begins at",
        ),
        (|_, _, length| *length = 1 << 40, ErrorCode::InvalidArgument, "does not lie in"),
        (
            |_, _, length| *length = 4096,
            ErrorCode::TooLarge,
            "\"cls_s8\" does not fit into the 4096 bytes",
        ),
    ];
    for (number, (change, code, text)) in (2..).zip(wrong) {
        let mut request = request(number);
        if let InferenceRequest::Run { inputs, output_offset, output_length, .. } = &mut request {
            change(inputs, output_offset, output_length);
        }
        let (found, message) = worker.run(&request).unwrap_err();
        assert_eq!(found, code, "{message}");
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
    assert_eq!(worker.run(&request(100)).unwrap(), expected);
}

#[test]
fn sessions_at_once_get_their_own_results() {
    let engine = detector(2);
    let mut workers: Vec<_> = (0..3).map(|_| attach(&engine, Worker::new())).collect();
    // One after the other first: these are the results that each is to get again.
    let expected: Vec<_> = (1_u32..)
        .zip(&mut workers)
        .map(|(seed, worker)| {
            worker.write(0, &picture(seed));
            worker.run(&request(1)).unwrap()
        })
        .collect();
    assert_ne!(expected[0], expected[1]);
    std::thread::scope(|scope| {
        for (worker, expected) in workers.iter_mut().zip(&expected) {
            scope.spawn(move || {
                for id in 2..6 {
                    worker.clear_outputs();
                    assert_eq!(worker.run(&request(id)).unwrap(), *expected);
                }
            });
        }
    });
}

#[test]
fn a_request_that_is_sent_again_is_answered_once() {
    let engine = detector(1);
    let mut worker = attach(&engine, Worker::new());
    worker.write(0, &picture(1));
    worker.send(&request(7));
    worker.send(&request(7));
    worker.answer(7).unwrap();
    worker.send(&request(7));
    worker.send(&request(3));
    // One thread answers in order: anything for 7 or 3 would come before this.
    worker.run(&request(8)).unwrap();
}

#[test]
fn a_worker_that_breaks_the_protocol_is_dropped_and_the_others_go_on() {
    let engine = detector(1);
    let mut good = attach(&engine, Worker::new());

    let mut garbage = attach(&engine, Worker::new());
    rustix::net::send(&garbage.socket, &[0xff; 100], SendFlags::empty()).unwrap();
    garbage.wait_for_end();

    let mut hasty = attach(&engine, Worker::new());
    hasty.send(&request(1));
    // The first may be answered already when the second is read; sooner or later two are under way.
    for id in 2..200 {
        match send(hasty.socket.as_fd(), &request(id)) {
            Ok(()) => {}
            Err(PacketError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    hasty.wait_for_end();

    let mut many = attach(&engine, Worker::new());
    let tensor =
        PlacedTensor { name: "x".into(), element: Element::F32, shape: vec![1], offset: 0 };
    let inputs = vec![tensor; 65];
    many.send(&InferenceRequest::Run {
        id: 1,
        model: MODEL.into(),
        inputs,
        output_offset: 0,
        output_length: 64,
    });
    many.wait_for_end();

    good.write(0, &picture(1));
    good.run(&request(1)).unwrap();
}

#[test]
fn a_worker_that_never_reads_holds_up_nobody() {
    let engine = detector(1);
    let deaf = attach(&engine, Worker::new());
    rustix::net::sockopt::set_socket_send_buffer_size(&deaf.theirs, 4096).unwrap();
    let mut good = attach(&engine, Worker::new());
    for id in 1..400 {
        let sent = send(deaf.socket.as_fd(), &InferenceRequest::Open { id, model: "none".into() });
        // Keeps step with the one thread, so that the deaf worker has one request at a time.
        let _ = good.open(id, "none").unwrap_err();
        if sent.is_err() {
            return;
        }
    }
    panic!("the deaf worker was served 400 times");
}

#[test]
fn memory_that_is_not_sealed_is_refused() {
    let engine = detector(1);
    let worker = Worker::new();
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let error = engine.attach(worker.attach(0), worker.theirs, file.into()).unwrap_err();
    assert!(!error.to_string().is_empty());
}

#[test]
fn an_output_of_open_shape_is_placed_and_may_be_too_large() {
    let (open, _file) = model_of("open", &identity(None), &[-1]);
    let engine = start(configure(1, vec![open], &["open"])).unwrap();
    let mut worker = attach(&engine, Worker::new());
    worker.write(0, &[1.0, 2.0, 3.0]);
    let request = |id, length| InferenceRequest::Run {
        id,
        model: "open".into(),
        inputs: vec![PlacedTensor {
            name: "x".into(),
            element: Element::F32,
            shape: vec![3],
            offset: 0,
        }],
        output_offset: 128,
        output_length: length,
    };
    for id in 1..3 {
        worker.send(&request(id, 64));
        let Ok(InferenceResponse::Done { outputs, .. }) = worker.answer(id) else {
            panic!("another answer")
        };
        assert_eq!((outputs[0].shape.as_slice(), outputs[0].offset), ([3].as_slice(), 128));
        assert_eq!(worker.read(&outputs[0]), [1.0, 2.0, 3.0]);
    }
    let (code, message) = worker.run(&request(3, 8)).unwrap_err();
    assert_eq!(code, ErrorCode::TooLarge);
    assert!(message.contains("\"y\" does not fit into the 8 bytes"), "{message}");
}

#[test]
fn a_model_that_is_not_preloaded_is_loaded_when_it_is_opened() {
    let (small, _file) = model_of("small", &identity(Some(4)), &[4]);
    let engine = start(configure(2, vec![model(), small], &[])).unwrap();
    let mut worker = attach(&engine, Worker::new());
    assert!(worker.open(1, "small").is_ok());
    let (code, message) = worker.open(2, "large").unwrap_err();
    assert_eq!(code, ErrorCode::NotFound);
    assert!(message.contains("\"large\"") && message.contains("nanodet-g-416, small"), "{message}");
    assert!(worker.open(3, MODEL).is_ok());
}

#[test]
fn a_changed_model_is_refused_with_both_digests() {
    let changed = Model { sha256: "00".repeat(32), ..model() };
    let message = refused(configure(1, vec![changed], &[MODEL]));
    for text in [MODEL, "model.onnx", "model.toml says 0000", &model().sha256] {
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
}

#[test]
fn a_missing_model_is_refused_with_its_path() {
    let missing = Model { path: "/nonexistent/model.onnx".into(), ..model() };
    let message = refused(configure(2, vec![missing], &[MODEL]));
    assert!(message.contains(MODEL) && message.contains("/nonexistent/model.onnx"), "{message}");
}

#[test]
fn a_truncated_model_is_refused_with_its_path() {
    let bytes = std::fs::read(model().path).unwrap();
    let (cut, file) = model_of("cut", &bytes[..bytes.len() / 2], &[1]);
    let message = refused(configure(1, vec![cut], &["cut"]));
    assert!(
        message.contains("\"cut\"") && message.contains(file.path().to_str().unwrap()),
        "{message}"
    );
}

#[test]
fn a_model_whose_graph_differs_from_its_declaration_is_refused_with_both_shapes() {
    let mut other = model();
    other.inputs[0].shape = vec![1, 3, 320, 320];
    let message = refused(configure(1, vec![other], &[MODEL]));
    for text in ["\"input\"", "[1, 3, 320, 320]", "[1, 3, 416, 416]"] {
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
    let mut renamed = model();
    renamed.outputs[2].name = "classes".into();
    let message = refused(configure(1, vec![renamed], &[MODEL]));
    assert!(message.contains("no output \"classes\"; it has: cls_s32"), "{message}");
    let mut fewer = model();
    fewer.outputs.pop();
    let message = refused(configure(1, vec![fewer], &[MODEL]));
    assert!(message.contains("\"reg_s32\"") && message.contains("not declared"), "{message}");
}

#[test]
fn a_side_that_the_graph_leaves_open_may_be_fixed() {
    let (fixed, _file) = model_of("fixed", &identity(None), &[3]);
    assert!(start(configure(1, vec![fixed], &["fixed"])).is_ok());
}

#[test]
fn one_process_has_one_library() {
    let _engine = detector(1);
    let other =
        Configure { library: "/nonexistent/other.so".into(), ..configure(1, vec![model()], &[]) };
    let message = refused(other);
    assert!(message.contains("/nonexistent/other.so") && message.contains("already"), "{message}");
}
