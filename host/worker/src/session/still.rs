//! One picture of a stream, for a person: `ocelli probe` starts a worker for it.

use std::io::{Read, Write};

use ocelli_protocol::limit::truncate_line;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{Decode, StillReport, ToWorker};

use crate::video::{Frame, Stream, jpeg, write_png};

/// Quality of a JPEG file: good on a page, a tenth of the PNG file's size.
const QUALITY: u8 = 80;

/// Decodes access units up to the first sound picture, or to their end, and writes a
/// [`StillReport`] and the picture: as a PNG file, or as a JPEG file.
pub fn write_still(units: impl Read, mut to: impl Write, as_jpeg: bool) -> anyhow::Result<()> {
    let mut reader = Reader::new(units);
    let mut stream = Stream::new(Decode::All);
    let (mut first, mut fault) = (None, None);
    while first.is_none() {
        let mut take = |frame: Frame| {
            first.get_or_insert(frame);
        };
        match reader.read::<ToWorker>() {
            Ok((ToWorker::Unit(header), data)) => stream.push(&header, data, &mut take)?,
            Ok((other, _)) => anyhow::bail!("a unit was expected, not {other:?}"),
            Err(WireError::Closed) => {
                stream.drain(&mut take);
                fault = stream.take_fault().or(fault);
                break;
            }
            Err(error) => return Err(error.into()),
        }
        fault = stream.take_fault().or(fault);
    }
    let size = first.as_ref().map(|frame| (frame.picture.width(), frame.picture.height()));
    let fault = fault.filter(|_| size.is_none()).map(|words| truncate_line(&words).to_owned());
    serde_json::to_writer(&mut to, &StillReport { size, fault })?;
    to.write_all(b"\n")?;
    match &first {
        Some(frame) if as_jpeg => to.write_all(&jpeg(&frame.picture, None, QUALITY)?.bytes)?,
        Some(frame) => write_png(&frame.picture, &mut to)?,
        None => {}
    }
    Ok(to.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::clips::{AccessUnit, units};
    use crate::video::still;
    use ocelli_protocol::wire::write;
    use ocelli_protocol::worker::Orientation;

    fn still_of(units: &[AccessUnit], as_jpeg: bool) -> (StillReport, Vec<u8>) {
        let (mut input, mut output) = (Vec::new(), Vec::new());
        for (header, data) in units {
            write(&mut input, &ToWorker::Unit(header.clone()), data).unwrap();
        }
        write_still(input.as_slice(), &mut output, as_jpeg).unwrap();
        let line = output.iter().position(|&byte| byte == b'\n').unwrap();
        (serde_json::from_slice(&output[..line]).unwrap(), output.split_off(line + 1))
    }

    #[test]
    fn the_first_picture_is_a_file_as_it_is_shown() {
        for clip in ["people-576-high-b3.mp4", "people-576-mjpeg.avi"] {
            let mut units: Vec<AccessUnit> = units(clip).into_iter().take(10).collect();
            units.iter_mut().for_each(|(header, _)| header.orientation = Orientation::TurnLeft);
            for (as_jpeg, begin) in [(false, &b"\x89PNG"[..]), (true, b"\xff\xd8")] {
                let (report, file) = still_of(&units, as_jpeg);
                assert_eq!(report, StillReport { size: Some((576, 768)), fault: None }, "{clip}");
                assert!(file.starts_with(begin), "{clip}");
                let picture = still(&file, u32::MAX).unwrap();
                assert_eq!((picture.width(), picture.height()), (576, 768), "{clip}");
            }
        }
    }

    #[test]
    fn without_a_picture_the_decoders_words_remain() {
        let (header, _) = units("people-576-mjpeg.avi").swap_remove(0);
        let (report, file) = still_of(&[(header, b"no JPEG".to_vec())], false);
        assert_eq!((report.size, file.len()), (None, 0));
        assert!(report.fault.unwrap().contains("access unit 0"));
        assert_eq!(still_of(&[], true).0, StillReport { size: None, fault: None });
    }
}
