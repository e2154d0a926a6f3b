//! What goes into a model and what comes out: numbers that are none, truth values that are none,
//! and a worker that writes while its request runs.

use ocelli_protocol::inference::{
    Element, ErrorCode, InferenceRequest, InferenceResponse, PlacedTensor,
};
use ocelli_protocol::shm::SharedMemory;

use crate::support::started::*;
use crate::support::*;

/// A request to run a model of `y = f(x)` with so many elements.
fn run_of(id: u64, model: &str, element: Element, count: u32) -> InferenceRequest {
    let x = PlacedTensor { name: "x".into(), element, shape: vec![count], offset: 0 };
    InferenceRequest::Run {
        id,
        model: model.into(),
        inputs: vec![x],
        output_offset: 64,
        output_length: 64,
    }
}

#[test]
fn an_output_that_is_no_number_fails_the_run_with_its_place_and_value() {
    // Of fixed shape and of open shape.
    for shape in [4, -1] {
        let side = u64::try_from(shape).ok();
        let file = |operator| {
            let value = |name| onnx::value(name, onnx::F32, &[side]);
            onnx::model(
                &[onnx::node(operator, &["x"], "y", &[])],
                &[],
                &[value("x")],
                &[value("y")],
            )
        };
        let (root, _root) = model_of("root", &file("Sqrt"), &[shape]);
        let (log, _log) = model_of("log", &file("Log"), &[shape]);
        let (exp, _exp) = model_of("exp", &file("Exp"), &[shape]);
        let started = start(configure(1, vec![root, log, exp], &[]));
        let mut worker = started.session(|_| {});
        let cases = [
            ("root", [1.0, 4.0, -1.0, f32::NAN], "the output \"y\" holds NaN at element 2"),
            ("log", [1.0, 0.0, 1.0, 1.0], "the output \"y\" holds -infinity at element 1"),
            ("exp", [1.0, 1.0, 1.0, 1000.0], "the output \"y\" holds infinity at element 3"),
        ];
        for (id, (model, x, words)) in (1..).step_by(2).zip(cases) {
            worker.write(0, &x);
            let (code, message) = worker.run(&run_small(id, model)).unwrap_err();
            assert_eq!((code, message.as_str()), (ErrorCode::RuntimeError, words));
            worker.write(0, &[1.0; 4]);
            worker.run(&run_small(id + 1, model)).unwrap();
        }
    }
}

#[test]
fn every_type_that_can_be_no_number_is_checked() {
    let types = [("f16", Element::F16), ("f64", Element::F64), ("bf16", Element::Bf16)];
    let (models, _files): (Vec<_>, Vec<_>) = types
        .map(|(name, element)| {
            let number = onnx::ELEMENTS.iter().find(|(known, ..)| *known == name).unwrap().1;
            let file = onnx::cast(number, &[Some(4)]);
            model_between(name, &file, [Element::F32, element], &[4])
        })
        .into_iter()
        .unzip();
    let started = start(configure(1, models, &[]));
    let mut worker = started.session(|_| {});
    for (id, (name, _)) in (1..).zip(types) {
        worker.write(0, &[1.0, f32::NAN, 1.0, 1.0]);
        let (code, message) = worker.run(&run_small(id, name)).unwrap_err();
        assert_eq!(
            (code, message.as_str()),
            (ErrorCode::RuntimeError, "the output \"y\" holds NaN at element 1")
        );
    }
}

#[test]
fn a_byte_that_is_no_truth_value_is_refused() {
    let (truth, _file) =
        model_between("truth", &onnx::identity(9, &[Some(4)]), [Element::Bool; 2], &[4]);
    let started = start(configure(1, vec![truth], &[]));
    let mut worker = started.session(|_| {});
    worker.write_bytes(0, &[0, 1, 2, 1]);
    worker.send(&run_of(1, "truth", Element::Bool, 4));
    let (code, message) = worker.answer(1).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(message.contains("the input \"x\" holds 2 at element 2"), "{message}");
    worker.write_bytes(0, &[0, 1, 0, 1]);
    worker.send(&run_of(2, "truth", Element::Bool, 4));
    let Ok(InferenceResponse::Done { outputs, .. }) = worker.answer(2) else { panic!("no result") };
    assert_eq!(worker.read_bytes(&outputs[0]), [0, 1, 0, 1]);
}

#[test]
fn no_input_changes_under_a_run() {
    let (models, _files): (Vec<_>, Vec<_>) = onnx::ELEMENTS
        .iter()
        .map(|(name, number, _)| {
            let element = element(name);
            model_between(name, &onnx::identity(*number, &[Some(2)]), [element; 2], &[2])
        })
        .unzip();
    let started = start(configure(1, models, &[]));
    let mut worker = started.session(|_| {});
    let memory = SharedMemory::map(worker.memory.fd().try_clone_to_owned().unwrap()).unwrap();
    #[allow(unsafe_code)]
    on_run(&worker, move |_| {
        // SAFETY: what a worker does that keeps to nothing. The slice ends here.
        unsafe { memory.bytes_mut(0..16) }.unwrap().fill(0);
    });
    for (id, (name, _, size)) in (1..).zip(onnx::ELEMENTS) {
        let given = vec![1; 2 * size];
        worker.write_bytes(0, &given);
        worker.send(&run_of(id, name, element(name), 2));
        let Ok(InferenceResponse::Done { outputs, .. }) = worker.answer(id) else {
            panic!("no result")
        };
        assert_eq!(worker.read_bytes(&outputs[0]), given, "{name}");
    }
}
