//! `frame.motion` and `frame.flow` as their WIT says them, of a camera's frames.

use std::sync::Arc;

use ocelli_protocol::worker::Decode;
use wasmtime::component::Resource;

use super::newest::frames::{FrameError, HostFrame, Motion, Point, Rect};
use super::resources::FrameHandle;
use super::tests::{TestInstance, state};
use crate::video::{Frame, Stream, clips};

/// The first frames of a street with people, 768 x 576 at 10 a second.
fn frames(count: usize) -> Vec<Arc<Frame>> {
    let mut stream = Stream::new(Decode::All);
    let mut frames = Vec::new();
    for (header, data) in clips::units("people-576-mjpeg.avi").iter().take(count) {
        stream.push(header, data, &mut |frame| frames.push(Arc::new(frame))).unwrap();
    }
    assert_eq!(frames.len(), count);
    frames
}

/// Hands a frame to the component, as a call of `process` does.
fn begin(state: &mut TestInstance, frame: &Arc<Frame>) -> Resource<FrameHandle> {
    state.begin_frame(FrameHandle { frame: Arc::clone(frame), skipped: 0 }).unwrap()
}

fn motion(state: &mut TestInstance, frame: &Resource<FrameHandle>) -> Motion {
    let frame = Resource::new_borrow(frame.rep());
    HostFrame::motion(&mut state.frames(), frame).unwrap().unwrap()
}

fn flow(
    state: &mut TestInstance,
    frame: &Resource<FrameHandle>,
    points: &[(f32, f32)],
) -> Result<Vec<Option<(f32, f32)>>, FrameError> {
    let points = points.iter().map(|&(x, y)| Point { x, y }).collect();
    let frame = Resource::new_borrow(frame.rep());
    let found = HostFrame::flow(&mut state.frames(), frame, points).unwrap()?;
    Ok(found.into_iter().map(|found| found.map(|Point { x, y }| (x, y))).collect())
}

#[test]
fn people_who_walk_move_and_the_street_does_not() {
    let mut state = state();
    let mut moved = Motion { regions: Vec::new(), share: 0.0, calibrating: true };
    for (number, frame) in frames(20).iter().enumerate() {
        let frame = begin(&mut state, frame);
        moved = motion(&mut state, &frame);
        assert_eq!(moved.calibrating, number < 11, "the first second");
        let again = motion(&mut state, &frame);
        assert_eq!((again.share, again.regions.len()), (moved.share, moved.regions.len()));
        state.end_frame(frame).unwrap();
    }
    assert!((1..=32).contains(&moved.regions.len()), "{moved:?}");
    assert!(moved.share > 0.005 && moved.share < 0.2, "{moved:?}");
    for Rect { x, y, width, height } in moved.regions {
        assert!(x >= 0.0 && y >= 0.0 && x + width <= 768.0 && y + height <= 576.0);
        assert!(width > 0.0 && height > 0.0);
    }
}

#[test]
fn points_are_those_of_the_last_frame_that_was_asked_about() {
    let mut state = state();
    let frames = frames(4);
    // A sign at a lamp post, and what is no place in the picture.
    let sign = (428.0, 222.0);
    let nowhere = [(768.0, 5.0), (f32::NAN, 5.0)];

    let first = begin(&mut state, &frames[0]);
    assert_eq!(flow(&mut state, &first, &[sign]).unwrap(), [None], "there is no frame before");
    assert_eq!(flow(&mut state, &first, &[sign]).unwrap(), [None], "nor at another call for it");
    state.end_frame(first).unwrap();

    let second = begin(&mut state, &frames[1]);
    let found = flow(&mut state, &second, &[sign]).unwrap();
    let (x, y) = found[0].unwrap();
    assert!((x - sign.0).hypot(y - sign.1) < 1.0, "{found:?}");
    assert_eq!(flow(&mut state, &second, &[sign]).unwrap(), found, "from the same frame again");
    assert_eq!(flow(&mut state, &second, &nowhere).unwrap(), [None, None]);
    state.end_frame(second).unwrap();

    // One that nobody asks about is not followed from.
    let third = begin(&mut state, &frames[0]);
    motion(&mut state, &third);
    state.end_frame(third).unwrap();
    let fourth = begin(&mut state, &frames[1]);
    assert_eq!(flow(&mut state, &fourth, &[sign]).unwrap(), [Some(sign)], "the frame itself");
    state.end_frame(fourth).unwrap();
}

#[test]
fn a_call_takes_up_to_1024_points() {
    let mut state = state();
    let frame = begin(&mut state, &frames(1)[0]);
    let points = vec![(1.0, 1.0); 1025];
    assert_eq!(flow(&mut state, &frame, &points[1..]).unwrap().len(), 1024);
    let FrameError::InvalidSpec(message) = flow(&mut state, &frame, &points).unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(message, "1025 points: at most 1024 are taken");
}
