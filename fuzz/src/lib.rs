//! The fuzz targets: one function for each door through which others' bytes come in. `./x fuzz`
//! runs them under libFuzzer; the tests run them over the inputs in `corpus/`, which hold what was
//! found before.
//!
//! Every target takes any bytes. A panic, an abort, a hang of more than ten seconds and more than
//! 2 GiB of memory are findings.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a target fails"
)]

use ocelli::fuzzing;
use ocelli_compile::Requirements;
use ocelli_protocol::gate::Gate;
use ocelli_protocol::wire;
use ocelli_protocol::worker::{
    CaptureClock, Codec, Decode, FromWorker, Orientation, Pacing, UnitHeader, WorkerMode,
};
use ocelli_worker::video::Stream;

/// Pixels of the largest picture that the decoder takes here: a target's memory is for its own
/// faults.
const MAX_PIXELS: u64 = 1 << 20;

/// Bytes between two access units of an input. They are no start code.
const SEPARATOR: &[u8] = b"\xff\xff\xffUNIT";

/// A stream of a camera: assembled by the host, decoded by the worker. The first byte chooses the
/// codec and what is decoded; [`SEPARATOR`] ends a unit.
pub fn access_units(bytes: &[u8]) {
    let Some((&choice, stream)) = bytes.split_first() else { return };
    let codec = [Codec::H264, Codec::H265, Codec::Mjpeg][usize::from(choice) % 3];
    let setting = [Decode::All, Decode::Reference, Decode::Key][usize::from(choice) / 3 % 3];
    let units = split(stream);
    let units: Vec<(bool, Vec<u8>)> = match codec {
        Codec::Mjpeg => units.into_iter().map(|unit| (true, unit.to_vec())).collect(),
        _ => {
            let assembled = fuzzing::assemble_units(codec == Codec::H265, &units);
            assembled.into_iter().map(|(key, data)| (key, data.to_vec())).collect()
        }
    };
    let mut decoder = Stream::with_max_pixels(setting, MAX_PIXELS);
    let mut last = None;
    let mut take = |frame: ocelli_worker::video::Frame| {
        assert!(last.is_none_or(|last| frame.number > last), "frames in their order");
        last = Some(frame.number);
    };
    for (number, (key, data)) in units.iter().enumerate() {
        let header = UnitHeader {
            number: number as u64,
            codec,
            key: *key,
            disposable: false,
            discontinuity: false,
            presentation_ns: Some(number as i64 * 40_000_000),
            capture_ns: 0,
            capture_clock: CaptureClock::Host,
            orientation: Orientation::default(),
            hidden: false,
            received_ns: 0,
        };
        decoder.push(&header, data, &mut take).expect("a decoder of each codec");
    }
    decoder.drain(&mut take);
}

/// What a WebSocket client sends. The first byte chooses compression and how the bytes are cut.
pub fn client_frames(bytes: &[u8]) {
    let Some((&choice, frames)) = bytes.split_first() else { return };
    fuzzing::read_client_frames(frames, 1 << (choice % 16), choice & 0x80 != 0);
}

/// The file of a component, checked against the contract.
pub fn component_check(bytes: &[u8]) {
    let requirements = Requirements { max_bytes: 1 << 20, trusted: None };
    let report = ocelli_compile::check(bytes, &requirements);
    assert!(report.is_ok(), "an error is a fault of the checker: {report:?}");
}

/// The text of a config file.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzzing::read_config(text);
    }
}

/// The text of a `model.toml`.
pub fn manifests(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzzing::read_model_manifest(text);
    }
}

/// What a worker sends to the host, which has asked it for everything there is. The first byte
/// chooses the worker's task.
pub fn worker_messages(bytes: &[u8]) {
    let Some((&choice, mut stream)) = bytes.split_first() else { return };
    let modes = [
        WorkerMode::Stream(Pacing::NewestWins),
        WorkerMode::Stream(Pacing::EveryFrame),
        WorkerMode::Analyze,
        WorkerMode::Describe,
    ];
    let mut gate = Gate::new(modes[usize::from(choice) % modes.len()], choice & 0x80 != 0);
    while let Some((header, rest)) = stream.split_first_chunk::<{ wire::HEADER }>() {
        let Ok((message, payload)) = wire::decode_header(*header) else { return };
        let Some(body) = rest.get(..message.saturating_add(payload)) else { return };
        let Some(first) = body.first() else { return };
        let Ok(most) = gate.admit(*first, message, payload, |_| u64::MAX) else { return };
        if wire::decode_within::<FromWorker>(&body[..message], most).is_err() {
            return;
        }
        stream = &rest[message + payload..];
    }
}

/// The parts between the separators.
fn split(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = stream.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR) {
        parts.push(&stream[..at]);
        stream = &stream[at + SEPARATOR.len()..];
    }
    parts.push(stream);
    parts
}
