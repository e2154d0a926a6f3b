//! A worker that writes to its shared memory while its requests run, to have the runtime read and
//! write where the worker wants.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use ocelli_protocol::inference::{
    Device, Element, ErrorCode, InferenceRequest, InferenceResponse, Model, PlacedTensor,
    TensorDeclaration,
};
use ocelli_protocol::shm::SharedMemory;
use ocelli_testkit::depth::rounds;

use crate::support::started::*;
use crate::support::*;

/// Numbers that are looked up in one run: enough that they are written to while they are used.
const COUNT: usize = 1024;
/// The table that they are looked up in. What lies behind it in memory is not the worker's.
const ROWS: usize = 32;
const COLUMNS: usize = 4;

/// Where the tensors of a request lie.
const FLOATS: usize = 0;
const INDEXES: usize = COUNT * 4;
const OUTPUTS: usize = INDEXES + COUNT * 8;
const ROOM: usize = COUNT * (8 + 2 * COLUMNS * 4);

/// An index behind the table's end.
const FOREIGN: i64 = ROWS as i64 + 100;

/// `n = Cast(x)`, `y = Gather(w, n)`, `z = Gather(w, i)`: an output that is an index too, a float
/// that becomes one, and an input that is one.
fn lookup() -> (Model, tempfile::NamedTempFile) {
    const I64: u64 = 7;
    let (count, columns) = (Some(COUNT as u64), Some(COLUMNS as u64));
    let table: Vec<f32> = (0..ROWS * COLUMNS).map(|number| number as f32).collect();
    let bytes = onnx::model(
        &[
            onnx::node("Cast", &["x"], "n", &[onnx::attribute("to", I64)]),
            onnx::node("Gather", &["w", "n"], "y", &[]),
            onnx::node("Gather", &["w", "i"], "z", &[]),
        ],
        &[onnx::weights("w", &[ROWS as u64, COLUMNS as u64], &table)],
        &[onnx::value("x", onnx::F32, &[count]), onnx::value("i", I64, &[count])],
        &[
            onnx::value("n", I64, &[count]),
            onnx::value("y", onnx::F32, &[count, columns]),
            onnx::value("z", onnx::F32, &[count, columns]),
        ],
    );
    let (model, file) = model_of("lookup", &bytes, &[]);
    let tensor = |name: &str, element, shape: &[usize]| TensorDeclaration {
        name: name.into(),
        element,
        shape: shape.iter().map(|side| *side as i64).collect(),
    };
    let inputs = vec![tensor("x", Element::F32, &[COUNT]), tensor("i", Element::I64, &[COUNT])];
    let outputs = vec![
        tensor("n", Element::I64, &[COUNT]),
        tensor("y", Element::F32, &[COUNT, COLUMNS]),
        tensor("z", Element::F32, &[COUNT, COLUMNS]),
    ];
    (Model { inputs, outputs, device: Device::Cpu, ..model }, file)
}

fn run_lookup(id: u64) -> InferenceRequest {
    let placed = |name: &str, element, offset: usize| PlacedTensor {
        name: name.into(),
        element,
        shape: vec![COUNT as u32],
        offset: offset as u64,
    };
    InferenceRequest::Run {
        id,
        model: "lookup".into(),
        inputs: vec![placed("x", Element::F32, FLOATS), placed("i", Element::I64, INDEXES)],
        output_offset: OUTPUTS as u64,
        output_length: ROOM as u64,
    }
}

/// Writes what is no index, and what was there, in turn: over the output that is one, and over the
/// inputs where `inputs` says so.
#[allow(unsafe_code)]
fn flip(memory: &SharedMemory, inputs: bool, until: &AtomicBool) {
    let at = |offset: usize| memory.address(offset..offset + COUNT * 8).unwrap();
    let mut place = 0_usize;
    while !until.load(Ordering::Relaxed) {
        place = (place + 61) % COUNT;
        // SAFETY: the places lie in the mapping, are aligned, and are written to atomically here.
        let (number, index, float) = unsafe {
            (
                &*at(OUTPUTS).cast::<AtomicI64>().add(place),
                &*at(INDEXES).cast::<AtomicI64>().add(place),
                &*memory.address(FLOATS..INDEXES).unwrap().cast::<AtomicU32>().add(place),
            )
        };
        let honest = (place % ROWS) as i64;
        for value in [FOREIGN, honest] {
            number.store(value, Ordering::Relaxed);
            if inputs {
                index.store(value, Ordering::Relaxed);
                float.store((value as f32).to_bits(), Ordering::Relaxed);
            }
        }
    }
}

/// The table's rows.
fn rows() -> Vec<[u8; COLUMNS * 4]> {
    let row = |row| std::array::from_fn(|column| (row * COLUMNS + column) as f32);
    let bytes = |row: [f32; COLUMNS]| row.map(f32::to_ne_bytes).concat().try_into().unwrap();
    (0..ROWS).map(row).map(bytes).collect()
}

#[test]
fn a_worker_that_writes_while_its_request_runs_gets_nothing_that_is_not_its_own() {
    let (model, _file) = lookup();
    let started = start(configure(1, vec![model], &[]));
    let rows = rows();
    let honest: Vec<u8> = (0..COUNT).flat_map(|place| rows[place % ROWS]).collect();
    for inputs in [false, true] {
        let mut rogue = started.session(|_| {});
        let floats: Vec<f32> = (0..COUNT).map(|place| (place % ROWS) as f32).collect();
        let indexes = (0..COUNT).flat_map(|place| ((place % ROWS) as i64).to_ne_bytes());
        rogue.write(FLOATS, &floats);
        rogue.write_bytes(INDEXES, &indexes.collect::<Vec<u8>>());
        let memory = SharedMemory::map(rogue.memory.fd().try_clone_to_owned().unwrap()).unwrap();
        let is_own = |found: Vec<u8>| match inputs {
            true => found.chunks(COLUMNS * 4).all(|row| rows.iter().any(|own| own == row)),
            false => found == honest,
        };
        let runs = rounds(8000);
        let (mut refused, mut foreign) = (0, 0);
        let until = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| flip(&memory, inputs, &until));
            for id in 1..=runs as u64 {
                rogue.send(&run_lookup(id));
                match rogue.answer(id) {
                    Ok(InferenceResponse::Done { outputs, .. }) => {
                        let mut found = outputs[1..].iter().map(|output| rogue.read_bytes(output));
                        foreign += u32::from(!found.all(is_own));
                    }
                    Ok(other) => panic!("instead of a result: {other:?}"),
                    Err((code, message)) => {
                        assert_eq!(code, ErrorCode::InvalidArgument, "{message}");
                        refused += 1;
                    }
                }
            }
            until.store(true, Ordering::Relaxed);
        });
        assert_eq!(foreign, 0, "of {runs} runs, {refused} refused");
        // An input may be wrong when it is copied. What is written to an output means nothing to a
        // run.
        assert!(inputs || refused == 0, "{refused} of {runs} refused");
    }
}
