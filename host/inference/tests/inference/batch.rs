//! Requests that run as one.

use std::sync::mpsc::{Receiver, channel};

use ocelli_protocol::inference::{
    Attach, Batching, Element, ErrorCode, InferenceRequest, InferenceResponse, Model, PlacedTensor,
};

use crate::support::started::*;
use crate::support::*;

/// A batch that never waits this long: it is complete sooner.
const LONG_MS: u32 = 100_000;

/// `y = operator(x)` of any shape of two sides.
fn batched(operator: &str, max: u32, delay_ms: u32) -> (Model, tempfile::NamedTempFile) {
    let value = |name| onnx::value(name, onnx::F32, &[None, None]);
    let file =
        onnx::model(&[onnx::node(operator, &["x"], "y", &[])], &[], &[value("x")], &[value("y")]);
    let (model, kept) = model_of("model", &file, &[-1, -1]);
    (Model { batching: Some(Batching { max, delay_ms }), ..model }, kept)
}

fn run_rows(id: u64, rows: u32, side: u32, room: u64) -> InferenceRequest {
    let x = PlacedTensor {
        name: "x".into(),
        element: Element::F32,
        shape: vec![rows, side],
        offset: 0,
    };
    InferenceRequest::Run {
        id,
        model: "model".into(),
        inputs: vec![x],
        output_offset: 64,
        output_length: room,
    }
}

/// A session whose runs tell how many requests run at that moment.
fn session(started: &Started, change: impl Fn(&mut Attach)) -> (Worker, Receiver<usize>) {
    let worker = started.session(change);
    let (told, running) = channel();
    let ledger = started.ledger_again();
    on_run(&worker, move |_| told.send(ledger.running().len()).unwrap());
    (worker, running)
}

fn outputs(worker: &mut Worker, id: u64) -> Result<(Vec<u32>, Vec<f32>), (ErrorCode, String)> {
    match worker.answer(id)? {
        InferenceResponse::Done { outputs, .. } => {
            Ok((outputs[0].shape.clone(), worker.read(&outputs[0])))
        }
        other => panic!("instead of a result: {other:?}"),
    }
}

#[test]
fn requests_of_one_model_run_as_one_and_each_gets_its_own_rows() {
    let (model, _file) = batched("Neg", 3, LONG_MS);
    let started = start(configure(1, vec![model], &["model"]));
    let mut sessions: Vec<_> = (0..3).map(|_| session(&started, |_| {})).collect();
    for (rows, (worker, _)) in (1..).zip(&sessions) {
        let x: Vec<f32> = (0..rows * 2).map(|number| (rows * 10 + number) as f32).collect();
        worker.write(0, &x);
        worker.send(&run_rows(1, rows, 2, 64));
    }
    for (rows, (worker, running)) in (1..).zip(&mut sessions) {
        let (shape, y) = outputs(worker, 1).unwrap();
        let expected: Vec<f32> =
            (0..rows * 2).map(|number| -((rows * 10 + number) as f32)).collect();
        assert_eq!((shape, y), (vec![rows, 2], expected));
        assert_eq!(running.recv().unwrap(), 3, "it ran by itself");
    }
    assert!(started.ledger.running().is_empty());
}

#[test]
fn each_request_of_a_batch_has_its_own_error() {
    let (model, _file) = batched("Sqrt", 4, LONG_MS);
    let started = start(configure(1, vec![model], &["model"]));
    let mut sessions: Vec<_> = (0..4).map(|_| session(&started, |_| {})).collect();
    for (worker, _) in &sessions {
        worker.write(0, &[4.0, 9.0]);
    }
    sessions[1].0.write(0, &[4.0, -1.0]);
    for (index, room) in [64, 64, 4, 1 << 40].into_iter().enumerate() {
        sessions[index].0.send(&run_rows(1, 1, 2, room));
    }
    assert_eq!(outputs(&mut sessions[0].0, 1).unwrap().1, [2.0, 3.0]);
    let (code, message) = outputs(&mut sessions[1].0, 1).unwrap_err();
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::RuntimeError, "the output \"y\" holds NaN at element 1")
    );
    assert_eq!(outputs(&mut sessions[2].0, 1).unwrap_err().0, ErrorCode::TooLarge);
    assert_eq!(outputs(&mut sessions[3].0, 1).unwrap_err().0, ErrorCode::InvalidArgument);
    assert_eq!(sessions[0].1.recv().unwrap(), 4);
}

#[test]
fn other_shapes_do_not_join_and_nobody_waits_longer_than_the_delay() {
    let (model, _file) = batched("Neg", 8, 20);
    let started = start(configure(1, vec![model], &["model"]));
    let mut sessions: Vec<_> = (0..2).map(|_| session(&started, |_| {})).collect();
    for (side, (worker, _)) in (1..).zip(&sessions) {
        worker.write(0, &[1.0; 2]);
        worker.send(&run_rows(1, 1, side, 64));
    }
    for (side, (worker, running)) in (1..).zip(&mut sessions) {
        assert_eq!(outputs(worker, 1).unwrap(), (vec![1, side], vec![-1.0; side as usize]));
        assert_eq!(running.recv().unwrap(), 1);
    }
}

#[test]
fn a_batch_that_fails_is_run_one_by_one() {
    // Two rows of three numbers become three rows of two: not one row for each.
    let (model, _file) = batched("Transpose", 2, LONG_MS);
    let started = start(configure(1, vec![model], &["model"]));
    let mut sessions: Vec<_> = (0..2).map(|_| session(&started, |_| {})).collect();
    for (number, (worker, _)) in (1_u8..).zip(&sessions) {
        worker.write(0, &[f32::from(number); 3]);
        worker.send(&run_rows(1, 1, 3, 64));
    }
    for (number, (worker, running)) in (1_u8..).zip(&mut sessions) {
        assert_eq!(outputs(worker, 1).unwrap(), (vec![3, 1], vec![f32::from(number); 3]));
        assert_eq!(running.recv().unwrap(), 2, "they were not tried as one");
    }
}

#[test]
fn a_suspect_joins_nobody() {
    let (model, _file) = batched("Neg", 2, LONG_MS);
    let started = start(configure(1, vec![model], &["model"]));
    let (mut suspect, running) = session(&started, |attach| attach.suspect = Some(1));
    suspect.write(0, &[1.0; 2]);
    suspect.send(&run_rows(1, 1, 2, 64));
    assert_eq!(outputs(&mut suspect, 1).unwrap().1, [-1.0; 2]);
    assert_eq!(running.recv().unwrap(), 1);
}

#[test]
fn a_model_whose_first_side_is_fixed_is_not_batched() {
    let (model, _file) = small("model", "Neg");
    let model = Model { batching: Some(Batching { max: 2, delay_ms: LONG_MS }), ..model };
    let started = start(configure(1, vec![model], &["model"]));
    let mut worker = started.session(|attach| attach.service.timeout_ms = 60_000);
    worker.write(0, &[1.0; 4]);
    assert_eq!(worker.run(&run_small(1, "model")).unwrap(), [[-1.0; 4]]);
}
