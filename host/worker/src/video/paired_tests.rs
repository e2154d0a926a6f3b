//! Pictures whose chroma lie paired in one plane, as devices give them out: what is made of them is
//! what is made of the same picture in three planes.

use std::sync::Arc;

use ocelli_protocol::worker::{Decode, Rect};

use super::clips::units;
use super::device::Device;
use super::*;

/// The first frames of a clip.
fn frames(clip: &str) -> Vec<Frame> {
    let (mut stream, mut frames) = (Stream::new(Decode::All), Vec::new());
    for (header, data) in units(clip).iter().take(6) {
        stream.push(header, data, &mut |frame| frames.push(frame)).unwrap();
    }
    stream.drain(&mut |frame| frames.push(frame));
    frames
}

fn tensor(picture: &Picture) -> Vec<u8> {
    let spec = TensorSpec {
        width: 320,
        height: 320,
        fit: Fit::Letterbox,
        channels: Channels::Rgb,
        layout: Layout::Nhwc,
        element: Element::U8,
        fill: [0.0; 3],
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let region = Rect { x: 33.0, y: 21.5, width: 403.0, height: 411.0 };
    let mut out = vec![0; spec.bytes()];
    Resampler::new().tensor(picture, Some(region), &spec, &mut out).unwrap();
    out
}

#[test]
fn tensors_pictures_grey_and_motion_are_those_of_the_planar_picture() {
    let frames = frames("people-576-high-b3.mp4");
    let (mut watch, mut watch_paired) = (Watch::default(), Watch::default());
    for frame in &frames {
        let planar = &frame.picture;
        let paired = planar.paired(c"nv12");
        assert_eq!(paired.format(), "nv12");
        assert_eq!((paired.width(), paired.height()), (planar.width(), planar.height()));
        assert_eq!(paired.chroma_shift(), planar.chroma_shift());
        assert_eq!(paired.chroma_offset(), planar.chroma_offset());
        assert_eq!(paired.matrix(), planar.matrix());
        for y in 0..planar.luma().height() {
            assert_eq!(paired.luma().row(y), planar.luma().row(y), "row {y} of {}", frame.number);
        }
        let (pairs, planes) = (paired.chroma().unwrap(), planar.chroma().unwrap());
        for (one, other) in pairs.iter().zip(&planes) {
            assert_eq!((one.width(), one.height()), (other.width(), other.height()));
            assert!(one.rows(0).eq(other.rows(0)));
        }
        assert_eq!(tensor(&paired), tensor(planar));
        assert_eq!(
            Resampler::new().luma(&paired, 77, 55).unwrap(),
            Resampler::new().luma(planar, 77, 55).unwrap()
        );
        let file = |picture: &Picture| jpeg(picture, None, 80).unwrap().bytes;
        assert_eq!(file(&paired), file(planar));
        let time = frame.presentation_ns;
        assert_eq!(watch_paired.motion(&paired, time), watch.motion(planar, time));
        watch.next();
        watch_paired.next();
    }
}

#[test]
fn samples_of_ten_bits_come_down_from_the_upper_end_of_their_bytes() {
    let planar = &frames("people-576-high.mp4")[0].picture;
    let deep = planar.paired(c"p010le");
    assert_eq!((deep.format(), deep.luma().depth()), ("p010le", 10));
    let is_same = |deep: Plane<'_>, planar: Plane<'_>| {
        deep.rows(0).zip(planar.rows(0)).all(|(deep, planar)| {
            let samples = deep.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
            samples.eq(planar.iter().map(|sample| u16::from(*sample) << 2))
        })
    };
    assert!(is_same(deep.luma(), planar.luma()));
    let pairs = deep.chroma().unwrap().into_iter().zip(planar.chroma().unwrap());
    assert!(pairs.into_iter().all(|(deep, planar)| is_same(deep, planar)));
    assert_eq!(tensor(&deep), tensor(planar));
}

#[test]
fn a_picture_of_paired_chroma_is_shared_between_threads() {
    let picture = Arc::new(frames("people-576-high.mp4")[0].picture.paired(c"nv12"));
    let expected = tensor(&picture);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let picture = Arc::clone(&picture);
            std::thread::spawn(move || tensor(&picture))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

/// Decodes by the device that `OCELLI_DECODE_DEVICE` names, and holds its pictures to those of the
/// processor: H.264 is decoded the same to the bit, whatever decodes it. `tests/gpu/run` calls it.
#[test]
fn a_device_decodes_what_the_processor_decodes() {
    let Ok(name) = std::env::var("OCELLI_DECODE_DEVICE") else {
        ocelli_testkit::skip::skip("OCELLI_DECODE_DEVICE names no device that decodes");
        return;
    };
    let device = Device::open(&name.parse().unwrap()).unwrap();
    for clip in ["people-576-high-b3.mp4", "people-576-hevc.mp4", "people-1080-high-b3.mp4"] {
        let decoded = |stream: Stream| {
            let (mut stream, mut frames) = (stream, Vec::new());
            let mut sums = |frame: Frame| {
                // By their order too.
                let mix = |sum: u64, s: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*s));
                let rows = |plane: Plane<'_>| plane.rows(0).flatten().fold(0, mix);
                let chroma = frame.picture.chroma().unwrap().map(rows);
                frames.push((frame.number, rows(frame.picture.luma()), chroma));
            };
            for (header, data) in &units(clip) {
                stream.push(header, data, &mut sums).unwrap();
            }
            stream.drain(&mut sums);
            frames
        };
        let expected: Vec<(u64, u64, [u64; 2])> = decoded(Stream::new(Decode::All));
        let found = decoded(Stream::new(Decode::All).on(device.clone()));
        assert!(!found.is_empty() && found == expected, "{clip} by {name}");
    }
}
