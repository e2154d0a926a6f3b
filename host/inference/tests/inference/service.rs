//! What a session gets of the engine: its share, its time limits, and its models, whatever others
//! do.

use std::sync::mpsc::channel;

use ocelli_protocol::in_flight::RunningRequest;
use ocelli_protocol::inference::{
    Configure, Element, ErrorCode, InferenceRequest, InferenceResponse, Model, PlacedTensor,
};

use crate::support::started::*;
use crate::support::*;

/// A side of the slow model's matrices: one product takes some milliseconds.
const SIDE: u32 = 512;
/// Where its output goes.
const SLOW_OUTPUT: u64 = (SIDE * SIDE * 4) as u64;

/// `y = x * x * x ...`, so many products, and the file that holds it.
fn slow(products: usize) -> (Model, tempfile::NamedTempFile) {
    let names: Vec<_> = (1..products).map(|index| format!("p{index}")).collect();
    let mut last = "x";
    let nodes = names.iter().map(String::as_str).chain(["y"]).map(|name| {
        let node = onnx::node("MatMul", &[last, "x"], name, &[]);
        last = name;
        node
    });
    let nodes: Vec<_> = nodes.collect();
    let value = |name| onnx::value(name, onnx::F32, &[None, None]);
    model_of("slow", &onnx::model(&nodes, &[], &[value("x")], &[value("y")]), &[-1, -1])
}

/// Products that take a minute or more: nobody waits for them.
const FOR_EVER: usize = 20_000;

fn run_slow(id: u64) -> InferenceRequest {
    let x = PlacedTensor {
        name: "x".into(),
        element: Element::F32,
        shape: vec![SIDE, SIDE],
        offset: 0,
    };
    InferenceRequest::Run {
        id,
        model: "slow".into(),
        inputs: vec![x],
        output_offset: SLOW_OUTPUT,
        output_length: SLOW_OUTPUT,
    }
}

#[test]
fn a_run_is_ended_at_its_deadline_and_the_session_goes_on() {
    let ((slow, _file), (small, _other)) = (slow(FOR_EVER), small("small", "Neg"));
    let started = start(configure(1, vec![slow, small], &["slow", "small"]));
    let mut worker = started.session(|attach| attach.service.timeout_ms = 200);
    for id in [1, 3] {
        let (code, message) = worker.run(&run_slow(id)).unwrap_err();
        assert_eq!(code, ErrorCode::Timeout, "{message}");
        for text in ["model \"slow\"", "within 200 ms", "waited", "ran"] {
            assert!(message.contains(text), "{message:?} lacks {text:?}");
        }
        worker.write(0, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(worker.run(&run_small(id + 1, "small")).unwrap(), [[-1.0, -2.0, -3.0, -4.0]]);
    }
}

#[test]
fn a_request_that_waits_too_long_is_stale_or_failed_while_every_runner_is_busy() {
    let (slow, _file) = slow(FOR_EVER);
    let started = start(configure(1, vec![slow, model()], &["slow", MODEL]));
    let busy = started.session(|_| {});
    let (begun, begins) = channel();
    on_run(&busy, move |_| begun.send(()).unwrap());
    busy.send(&run_slow(1));
    begins.recv_timeout(GENEROUS).unwrap();

    let mut live = started.session(|attach| attach.service.stale_ms = Some(30));
    on_run(&live, |_| panic!("a stale request ran"));
    live.send(&request(1));
    let InferenceResponse::Stale { id: 1, waited_ms } = live.receive() else { panic!("not stale") };
    assert!(waited_ms >= 30, "{waited_ms}");

    let mut limited = started.session(|attach| attach.service.timeout_ms = 40);
    let (code, message) = limited.run(&request(1)).unwrap_err();
    assert_eq!(code, ErrorCode::Timeout);
    assert!(
        message.contains("within 40 ms; it waited") && message.contains("ran 0 ms"),
        "{message}"
    );

    // A frame grows old, a model that is asked for does not.
    let mut opening = started.session(|attach| {
        attach.service.stale_ms = Some(10);
        attach.service.timeout_ms = 60;
    });
    let (code, _) = opening.open(1, MODEL).unwrap_err();
    assert_eq!(code, ErrorCode::Timeout);
}

#[test]
fn the_ledger_tells_who_runs_until_when_and_that_the_process_lives() {
    let (small, _file) = small("small", "Neg");
    let started = start(configure(2, vec![small], &["small"]));
    let mut worker = started.session(|attach| attach.service.timeout_ms = 5000);
    let ledger = started.ledger_again();
    let (told, running) = channel();
    on_run(&worker, move |run| {
        told.send((run.request, run.model.to_owned(), run.input(0), ledger.running())).unwrap();
    });
    worker.write(0, &[1.0, 2.0, 3.0, 4.0]);
    let before = ocelli_protocol::clock::monotonic_ns();
    worker.run(&run_small(9, "small")).unwrap();
    let (request, model, input, running) = running.recv().unwrap();
    assert_eq!((request, model.as_str()), (9, "small"));
    assert_eq!(input.unwrap(), [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_ne_bytes).concat());
    let [RunningRequest { attachment, request: 9, deadline_ns }] = running[..] else {
        panic!("{running:?}")
    };
    assert_eq!(attachment, worker.number);
    assert!(deadline_ns > before && deadline_ns < before + GENEROUS.as_nanos() as u64);
    assert!(started.ledger.running().is_empty(), "it is answered and still in the ledger");
    assert!(started.ledger.last_heartbeat() > 0);
}

#[test]
fn a_suspect_runs_alone() {
    let started = start(configure(2, vec![model()], &[MODEL]));
    let mut workers: Vec<_> = (0..4).map(|_| started.session(|_| {})).collect();
    let suspect = started.session(|attach| attach.suspect = Some(2));
    let suspected = (suspect.number, 2);
    let (told, seen) = channel();
    for worker in workers.iter().chain([&suspect]) {
        let ledger = started.ledger_again();
        let told = told.clone();
        on_run(worker, move |_| {
            let running = ledger.running();
            let running = running.iter().map(|running| (running.attachment, running.request));
            told.send(running.collect::<Vec<_>>()).unwrap();
        });
    }
    drop(told);
    workers.push(suspect);
    std::thread::scope(|scope| {
        for mut worker in workers {
            scope.spawn(move || {
                worker.write(0, &picture(1));
                for id in 1..6 {
                    worker.run(&request(id)).unwrap();
                }
            });
        }
    });
    let seen: Vec<_> = seen.try_iter().collect();
    assert_eq!(seen.len(), 25);
    assert!(seen.iter().any(|running| running.len() == 2), "nothing ever ran at the same time");
    let with_suspect: Vec<_> = seen.iter().filter(|running| running.contains(&suspected)).collect();
    assert_eq!(with_suspect, [&vec![suspected]]);
}

#[test]
fn what_was_taken_is_answered_and_the_rest_waits_for_the_next_engine() {
    let (small, _file) = small("small", "Neg");
    let models = || configure(1, vec![small.clone()], &["small"]);
    let started = start(models());
    let mut first = started.session(|_| {});
    let second = Worker::new();
    started.attach(&second, |_| {}).unwrap();
    let second = second.greeted();
    first.write(0, &[1.0; 4]);
    second.write(0, &[2.0; 4]);
    let (begun, begins) = channel();
    let (release, released) = channel::<()>();
    on_run(&first, move |_| {
        begun.send(()).unwrap();
        released.recv_timeout(GENEROUS).unwrap();
    });
    first.send(&run_small(1, "small"));
    begins.recv_timeout(GENEROUS).unwrap();
    let drained = std::thread::spawn(move || started.engine.drain());
    release.send(()).unwrap();
    drained.join().unwrap();
    assert!(matches!(first.answer(1), Ok(InferenceResponse::Done { .. })));

    second.send(&run_small(1, "small"));
    let next = start(models());
    next.attach(&second, |_| {}).unwrap();
    let mut second = second.greeted();
    assert!(matches!(second.answer(1), Ok(InferenceResponse::Done { .. })));
}

#[test]
fn a_session_keeps_the_generation_that_it_was_attached_with() {
    let (old, _old_file) = small("model", "Identity");
    let (new, _new_file) = small("model", "Neg");
    let (other, _other_file) = small("other", "Abs");
    let started = start(configure(2, vec![old.clone(), other.clone()], &[]));
    let mut before = started.session(|_| {});
    before.write(0, &[1.0; 4]);
    assert_eq!(before.run(&run_small(1, "model")).unwrap(), [[1.0; 4]]);
    assert_eq!(started.loaded.recv_timeout(GENEROUS).unwrap().sha256, old.sha256);

    started.engine.offer(1, vec![new.clone()]).unwrap();
    let mut after = started.session(|attach| attach.catalog_version = 1);
    after.write(0, &[1.0; 4]);
    // Enough for each runner to have loaded both.
    for id in 2..6 {
        assert_eq!(after.run(&run_small(id, "model")).unwrap(), [[-1.0; 4]]);
        assert_eq!(before.run(&run_small(id, "model")).unwrap(), [[1.0; 4]]);
    }
    let told: Vec<_> = started.loaded.try_iter().map(|model| model.sha256).collect();
    assert_eq!(told, std::slice::from_ref(&new.sha256), "once for each version");
    assert_eq!(after.run(&run_small(6, "other")).unwrap_err().0, ErrorCode::NotFound);

    let never = Worker::new();
    let error =
        started.attach(&never, |attach| attach.catalog_version = 7).unwrap_err().to_string();
    assert!(error.contains("version 7 of the catalog"), "{error}");
    assert!(started.engine.offer(1, vec![new]).is_err(), "a version was replaced");
}

#[test]
fn many_sessions_in_one_share_get_no_more_than_one_in_another() {
    let started = start(configure(1, vec![model()], &[MODEL]));
    let share = u64::MAX;
    let crowd: Vec<_> =
        (0..4).map(|_| started.session(|attach| attach.service.share = share)).collect();
    let mut other = started.session(|_| {});
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answered = std::sync::atomic::AtomicU32::new(0);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for mut worker in crowd {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                for id in 1.. {
                    if stop.load(relaxed) {
                        return;
                    }
                    worker.run(&request(id)).unwrap();
                    answered.fetch_add(1, relaxed);
                }
            });
        }
        other.run(&request(1)).unwrap();
        let before = answered.load(relaxed);
        for id in 2..12 {
            other.run(&request(id)).unwrap();
        }
        let crowd = answered.load(relaxed) - before;
        stop.store(true, relaxed);
        // In turn: ten of each. First come, first served would be forty to ten.
        assert!((5..=20).contains(&crowd), "{crowd} runs of the crowd to 10 of the other");
    });
}

#[test]
fn whether_a_model_may_run_is_said_at_once_and_within_the_budget() {
    let (slow, _file) = slow(FOR_EVER);
    // Nobody waits for what so little brings in: two runs are there at the start.
    let little = Configure { budget_millicores: 1, ..configure(1, vec![slow], &["slow"]) };
    let started = start(little);
    // The only runner is busy until the end of the test.
    let running = started.session(|_| {});
    running.send(&run_slow(1));
    let ask = |worker: &mut Worker, id| {
        worker.send(&InferenceRequest::Ask { id, want: 1000 });
        match worker.receive() {
            InferenceResponse::Granted { id: of, granted } if of == id => granted,
            other => panic!("{other:?}"),
        }
    };
    let mut workers: Vec<_> = (0..3).map(|_| started.session(|_| {})).collect();
    let granted: Vec<_> = workers.iter_mut().map(|worker| ask(worker, 1)).collect();
    assert_eq!(granted[..2], [true, true]);
    let mut file = started.session(|attach| attach.service.budgeted = false);
    assert!((1..10).all(|id| ask(&mut file, id)), "every frame of a file counts");
    let refused = (2..100).any(|id| !ask(&mut workers[2], id));
    assert!(refused, "there is time for two");
}
