//! A ground truth on disk.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Located;

/// Frames of a truth: an hour at 30 a second.
const MAX_FRAMES: usize = 108_000;

/// The boxes of each frame of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// By frame, from the clip's first on.
    pub frames: Vec<Vec<Located>>,
}

impl Truth {
    /// Reads a file in the format of the MOT challenge: a line for each box with frame, from 1 on,
    /// number of the object, left, top, width, height; what follows is not looked at.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading the truth {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut frames: Vec<Vec<Located>> = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (frame, located) = box_of(line)
                .with_context(|| format!("line {} is not \"frame, id, x, y, w, h\"", index + 1))?;
            ensure!(frame <= MAX_FRAMES, "line {}: over {MAX_FRAMES} frames", index + 1);
            if frames.len() < frame {
                frames.resize(frame, Vec::new());
            }
            if let Some(frame) = frames.get_mut(frame - 1) {
                let twice = frame.iter().any(|other| other.object == located.object);
                ensure!(!twice, "line {}: the object is in this frame twice", index + 1);
                frame.push(located);
            }
        }
        ensure!(!frames.is_empty(), "no box in it");
        Ok(Self { frames })
    }
}

/// The frame, from 1 on, and the box.
fn box_of(line: &str) -> Option<(usize, Located)> {
    let mut fields = line.split(',').map(str::trim);
    let (frame, object) =
        (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    let mut number = || fields.next()?.parse::<f64>().ok().filter(|n| n.is_finite());
    let area = [number()?, number()?, number()?, number()?];
    let is_whole = |n: f64, least: f64| n >= least && n <= 1e9 && n.fract() == 0.0;
    let sound = is_whole(frame, 1.0) && is_whole(object, 0.0) && area[2] > 0.0 && area[3] > 0.0;
    sound.then_some((frame as usize, Located { object: Some(object as u64), area }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_come_in_their_frames_whatever_follows_them() {
        let truth = Truth::parse("1,7,10,20.5,30,40\n\n3,7,11,20,30,40,1,-1,-1,-1\n").unwrap();
        let counts: Vec<_> = truth.frames.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 0, 1]);
        let first = Located { object: Some(7), area: [10.0, 20.5, 30.0, 40.0] };
        assert_eq!(truth.frames[0], [first]);
    }

    #[test]
    fn what_is_no_truth_is_told_by_its_line() {
        let says = |text: &str| format!("{:#}", Truth::parse(text).unwrap_err());
        assert_eq!(says(""), "no box in it");
        let form = |line: u8| format!("line {line} is not \"frame, id, x, y, w, h\"");
        assert_eq!(says("1,1,0,0,9,9\n2,1,0,0,9\n"), form(2));
        for line in ["0,1,0,0,9,9", "1,1,0,0,0,9", "1,1,0,NaN,9,9", "1.5,1,0,0,9,9", "a picture"] {
            assert_eq!(says(line), form(1), "{line}");
        }
        assert_eq!(says("999999999,1,0,0,9,9"), "line 1: over 108000 frames");
        let twice = "line 2: the object is in this frame twice";
        assert_eq!(says("1,1,0,0,9,9\n1,1,5,5,9,9"), twice);
    }
}
