//! Models that a pipeline brings itself.

use ocelli_protocol::inference::{Element, ErrorCode, InferenceRequest, InferenceResponse};

use crate::support::started::*;
use crate::support::*;

/// Where the file lies: beyond the tensors of a small run.
const FILE: usize = 4096;

fn load(
    worker: &mut Worker,
    id: u64,
    file: &[u8],
) -> Result<InferenceResponse, (ErrorCode, String)> {
    worker.write_bytes(FILE, file);
    worker.send(&InferenceRequest::Load { id, offset: FILE as u64, length: file.len() as u64 });
    worker.answer(id)
}

/// `y = operator(x)` of four numbers.
fn file(operator: &str) -> Vec<u8> {
    let value = |name| onnx::value(name, onnx::F32, &[Some(4)]);
    onnx::model(&[onnx::node(operator, &["x"], "y", &[])], &[], &[value("x")], &[value("y")])
}

#[test]
fn a_model_of_its_own_runs_for_that_session_alone() {
    let started = start(configure(2, vec![], &[]));
    let mut worker = started.session(|attach| attach.service.may_load = true);
    for (id, operator) in [(1, "Neg"), (2, "Abs")] {
        let Ok(InferenceResponse::Opened { model, inputs, outputs, .. }) =
            load(&mut worker, id, &file(operator))
        else {
            panic!("not loaded")
        };
        assert_eq!(model, format!("#{id}"));
        assert_eq!(
            (inputs[0].name.as_str(), inputs[0].element, inputs[0].shape.as_slice()),
            ("x", Element::F32, &[4][..])
        );
        assert_eq!((outputs[0].name.as_str(), outputs.len()), ("y", 1));
    }
    // What was parsed is a copy.
    worker.write_bytes(FILE, &[0; 100]);
    worker.write(0, &[-1.0, 2.0, -3.0, 4.0]);
    assert_eq!(worker.run(&run_small(3, "#1")).unwrap(), [[1.0, -2.0, 3.0, -4.0]]);
    assert_eq!(worker.run(&run_small(4, "#2")).unwrap(), [[1.0, 2.0, 3.0, 4.0]]);
    assert_eq!(worker.run(&run_small(5, "#3")).unwrap_err().0, ErrorCode::NotFound);

    let mut other = started.session(|attach| attach.service.may_load = true);
    assert_eq!(other.run(&run_small(1, "#1")).unwrap_err().0, ErrorCode::NotFound);
    assert!(
        started.loaded.try_recv().is_err(),
        "the host was told of a model that no other session has"
    );
}

#[test]
fn who_may_not_load_is_told_which_setting_allows_it() {
    let started = start(configure(1, vec![], &[]));
    let mut worker = started.session(|_| {});
    let (code, message) = load(&mut worker, 1, &file("Neg")).unwrap_err();
    assert_eq!(code, ErrorCode::Security);
    assert!(message.contains("`inference.load`"), "{message}");
}

#[test]
fn a_file_that_is_no_model_is_refused_and_takes_no_place() {
    let started = start(configure(1, vec![], &[]));
    let mut worker = started.session(|attach| attach.service.may_load = true);
    let whole = file("Neg");
    // 8 is text.
    let text = onnx::identity(8, &[Some(4)]);
    let wrong: [(&[u8], ErrorCode); 4] = [
        (b"no model at all", ErrorCode::InvalidEncoding),
        (&whole[..whole.len() / 2], ErrorCode::InvalidEncoding),
        (&[], ErrorCode::InvalidEncoding),
        (&text, ErrorCode::UnsupportedOperation),
    ];
    for (id, (file, code)) in (1..).zip(wrong) {
        let (found, message) = load(&mut worker, id, file).unwrap_err();
        assert_eq!(found, code, "{message}");
        assert!(!message.is_empty());
    }
    worker.send(&InferenceRequest::Load { id: 10, offset: u64::MAX, length: 2 });
    let (code, message) = worker.answer(10).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(message.contains("does not lie in"), "{message}");
    for id in 11..15 {
        let Ok(InferenceResponse::Opened { model, .. }) = load(&mut worker, id, &whole) else {
            panic!("not loaded")
        };
        assert_eq!(model, format!("#{}", id - 10));
    }
    let (code, message) = load(&mut worker, 15, &whole).unwrap_err();
    assert_eq!(code, ErrorCode::TooLarge);
    assert!(message.contains("4 models"), "{message}");
}

#[test]
fn a_model_reads_no_other_file() {
    let started = start(configure(1, vec![], &[]));
    let mut worker = started.session(|attach| attach.service.may_load = true);
    let value = |name| onnx::value(name, onnx::F32, &[Some(4)]);
    let add = onnx::node("Add", &["x", "w"], "y", &[]);
    // Beneath the working directory of this test, where ONNX Runtime would look.
    for (id, file) in (1..).zip(["Cargo.toml", "/proc/self/maps", "../inference/Cargo.toml"]) {
        let weights = onnx::weights_elsewhere("w", 4, file);
        let model =
            onnx::model(std::slice::from_ref(&add), &[weights], &[value("x")], &[value("y")]);
        let (code, message) = load(&mut worker, id, &model).unwrap_err();
        assert_eq!(code, ErrorCode::InvalidEncoding, "{message}");
        assert!(message.contains("xternal data"), "{message}");
    }
}
