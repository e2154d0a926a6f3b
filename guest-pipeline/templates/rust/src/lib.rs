//! Finds what is bright in the picture, and tells when it comes into view.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{
    Description, Detection, Event, Frame, Output, Pipeline, export_pipeline, log, settings,
};

/// Columns and rows of the small grey picture that the host makes of each frame.
const SIZE: (u32, u32) = (320, 180);

settings! {
    /// What an operator may set for a camera.
    struct Settings {
        /// Grey, 0 to 255, from which on a pixel is bright.
        above: u8 = 128;
    }
}

/// The pipeline of one camera.
pub struct Bright {
    above: u8,
    /// Whether something bright was in the frame before.
    in_view: bool,
}

impl Pipeline for Bright {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: settings::schema::<Settings>().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let Settings { above } = settings::read(json)?;
        Ok(Self {
            above,
            in_view: false,
        })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let grey = frame
            .luma(SIZE.0, SIZE.1)
            .map_err(|error| error.to_string())?;
        let scale = (
            frame.width() as f32 / SIZE.0 as f32,
            frame.height() as f32 / SIZE.1 as f32,
        );
        let found: Vec<Detection> = bright(&grey, SIZE.0 as usize, self.above)
            .map(|[left, top, right, bottom]| {
                let area = BBox::from_xywh(
                    left as f32 * scale.0,
                    top as f32 * scale.1,
                    (right - left) as f32 * scale.0,
                    (bottom - top) as f32 * scale.1,
                );
                Detection::new("bright", 1.0, area)
            })
            .into_iter()
            .collect();
        let came = !found.is_empty() && !self.in_view;
        self.in_view = !found.is_empty();
        let mut events = vec![];
        if came {
            log::info(
                "bright",
                &format!("something came into view at frame {}", frame.index()),
            );
            events.push(Event {
                detections: found.clone(),
                ..Event::new("appeared")
            });
        }
        Ok(Output::found(found).with_events(events))
    }

    /// Whether something is in view: the next version does not report it again.
    fn snapshot(&mut self) -> Vec<u8> {
        vec![1, u8::from(self.in_view)]
    }

    fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), String> {
        // The first byte is the format.
        match *state {
            [1, in_view] => self.in_view = in_view != 0,
            _ => {
                return Err(format!(
                    "the state of version {version} is of an unknown format"
                ));
            }
        }
        Ok(())
    }
}

/// The least box around all bright pixels: left, top, and the first column right of it and row
/// below it.
fn bright(grey: &[u8], width: usize, above: u8) -> Option<[usize; 4]> {
    let mut found: Option<[usize; 4]> = None;
    for (pixel, _) in grey
        .iter()
        .enumerate()
        .filter(|(_, value)| **value >= above)
    {
        let (x, y) = (pixel % width, pixel / width);
        let [left, top, right, bottom] = found.unwrap_or([x, y, x, y]);
        found = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
    }
    found
}

export_pipeline!(Bright);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Session;

    /// A dark picture, with a white square of 64 pixels if it is to have one.
    fn picture(square: Option<(usize, usize)>) -> Frame {
        let (width, height) = (640, 360);
        let mut pixels = vec![32; width * height * 3];
        for (x, y) in square.into_iter().flat_map(|(left, top)| {
            (top..top + 64).flat_map(move |y| (left..left + 64).map(move |x| (x, y)))
        }) {
            pixels[(y * width + x) * 3..][..3].fill(255);
        }
        Frame::of_rgb(640, 360, &pixels)
    }

    #[test]
    fn the_square_is_found_and_told_once() {
        let mut session = Session::<Bright>::start("{}").unwrap();
        let nothing = session.process(&picture(None)).unwrap();
        assert!(nothing.detections.unwrap().is_empty() && nothing.events.is_empty());
        let came = session.process(&picture(Some((100, 200)))).unwrap();
        let area = &came.detections.unwrap()[0].box_;
        let edges = [
            area.x - 100.0,
            area.y - 200.0,
            area.width - 64.0,
            area.height - 64.0,
        ];
        assert!(edges.iter().all(|off| off.abs() <= 4.0), "{area:?}");
        assert_eq!(came.events[0].kind, "appeared");
        // The next version takes the state over.
        session.swap("{}").unwrap();
        let stays = session.process(&picture(Some((110, 200)))).unwrap();
        assert!(stays.events.is_empty(), "it was told before");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert!(Session::<Bright>::start(r#"{"above": 30}"#).is_ok());
        for wrong in [r#"{"above": 300}"#, r#"{"abov": 30}"#] {
            assert!(Session::<Bright>::start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_state_of_another_format_is_refused() {
        let mut pipeline = Bright {
            above: 128,
            in_view: false,
        };
        assert!(
            pipeline
                .restore("9.0.0", &[9, 9])
                .is_err_and(|why| why.contains("9.0.0"))
        );
    }
}
