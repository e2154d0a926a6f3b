//! Units and parameter sets in Annex B form, from the form that containers keep them in: each NAL
//! unit behind its length (ISO/IEC 14496-15).

use ocelli_protocol::worker::Codec;

/// The four-byte form, as before parameter sets and the first NAL unit.
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// How the NAL units of a stream are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By start codes, or there are none: a picture is a unit.
    AsIs,
    /// By a length of so many bytes, 1 to 4, before each.
    Lengths(usize),
}

/// What the parameters of a codec say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) form: Form,
    /// Parameter sets in Annex B form.
    pub(crate) sets: Vec<u8>,
}

impl Parameters {
    /// Reads a container's `extradata`: the content of an `avcC` or `hvcC` box, parameter sets in
    /// Annex B form, or nothing. One that is cut short gives what comes before the cut.
    pub(crate) fn read(codec: Codec, extradata: &[u8]) -> Self {
        let as_is = |sets: &[u8]| Self { form: Form::AsIs, sets: sets.to_vec() };
        match (codec, extradata) {
            (Codec::Mjpeg, _) => as_is(&[]),
            (_, [0, 0, 1, ..] | [0, 0, 0, 1, ..]) => as_is(extradata),
            (Codec::H264, [1, _, _, _, lengths, rest @ ..]) => {
                Self { form: form(*lengths), sets: avc_sets(rest) }
            }
            // Version 0 was written by early muxers.
            (Codec::H265, [0 | 1, rest @ ..]) => match rest.get(20..) {
                Some([lengths, rest @ ..]) => Self { form: form(*lengths), sets: hevc_sets(rest) },
                _ => as_is(&[]),
            },
            _ => as_is(&[]),
        }
    }
}

/// The last two bits of the byte say one less than the length's bytes.
fn form(byte: u8) -> Form {
    Form::Lengths(usize::from(byte & 3) + 1)
}

/// A number in `count` bytes, and what follows.
fn number(data: &[u8], count: usize) -> Option<(usize, &[u8])> {
    let (number, rest) = data.split_at_checked(count)?;
    Some((number.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)), rest))
}

/// Appends `count` NAL units, each behind a length of two bytes. Gives what follows.
fn append_sets<'a>(sets: &mut Vec<u8>, mut data: &'a [u8], count: usize) -> Option<&'a [u8]> {
    for _ in 0..count {
        let (length, rest) = number(data, 2)?;
        let (nal, rest) = rest.split_at_checked(length)?;
        if !nal.is_empty() {
            sets.extend_from_slice(&START_CODE);
            sets.extend_from_slice(nal);
        }
        data = rest;
    }
    Some(data)
}

/// The sets of an `avcC` box, from their number on.
fn avc_sets(data: &[u8]) -> Vec<u8> {
    let mut sets = Vec::new();
    let read = |sets: &mut Vec<u8>| {
        let (count, rest) = number(data, 1)?;
        let rest = append_sets(sets, rest, count & 31)?;
        let (count, rest) = number(rest, 1)?;
        append_sets(sets, rest, count)
    };
    // Cut short: what was read before stays.
    let _ = read(&mut sets);
    sets
}

/// The sets of an `hvcC` box, from the number of its arrays on: VPS, SPS, PPS. Its SEI messages are
/// of no use to a decoder.
fn hevc_sets(data: &[u8]) -> Vec<u8> {
    let mut kinds = [const { Vec::new() }; 3];
    let read = |[vps, sps, pps]: &mut [Vec<u8>; 3]| {
        let (arrays, mut data) = number(data, 1)?;
        for _ in 0..arrays {
            let (kind, rest) = number(data, 1)?;
            let (count, rest) = number(rest, 2)?;
            let mut others = Vec::new();
            let sets = match kind & 63 {
                32 => &mut *vps,
                33 => &mut *sps,
                34 => &mut *pps,
                _ => &mut others,
            };
            data = append_sets(sets, rest, count)?;
        }
        Some(data)
    };
    let _ = read(&mut kinds);
    kinds.concat()
}

/// Appends a unit in Annex B form to `out`. `false` if the unit is damaged: then `out` has the NAL
/// units before the damage.
pub(crate) fn append_unit(form: Form, data: &[u8], out: &mut Vec<u8>) -> bool {
    let Form::Lengths(bytes) = form else {
        out.extend_from_slice(data);
        return true;
    };
    let start = out.len();
    if append_lengths(bytes, data, out).is_some() {
        return true;
    }
    // Some muxers write start codes although they announce lengths.
    if data.starts_with(&START_CODE) {
        out.truncate(start);
        out.extend_from_slice(data);
        return true;
    }
    false
}

fn append_lengths(bytes: usize, mut data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while !data.is_empty() {
        let (length, rest) = number(data, bytes)?;
        let (nal, rest) = rest.split_at_checked(length)?;
        if !nal.is_empty() {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(nal);
        }
        data = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVC: &[u8] = &[1, 100, 0, 31, 0xff, 0xe1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 3];

    fn hvcc() -> Vec<u8> {
        let mut data = vec![0; 21];
        data[0] = 1;
        data.extend([0xfc | 3, 3]);
        // PPS before VPS, and an SEI message.
        data.extend([34, 0, 1, 0, 2, 0x44, 1]);
        data.extend([39, 0, 1, 0, 1, 0x4e]);
        data.extend([32, 0, 1, 0, 2, 0x40, 1]);
        data
    }

    #[test]
    fn sets_of_both_boxes_come_in_the_order_that_decoders_want() {
        let avc = Parameters::read(Codec::H264, AVC);
        assert_eq!(avc.form, Form::Lengths(4));
        assert_eq!(avc.sets, [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3]);
        let hevc = Parameters::read(Codec::H265, &hvcc());
        assert_eq!(hevc.form, Form::Lengths(4));
        assert_eq!(hevc.sets, [0, 0, 0, 1, 0x40, 1, 0, 0, 0, 1, 0x44, 1]);
    }

    #[test]
    fn a_box_cut_anywhere_gives_what_came_before() {
        for end in 0..AVC.len() {
            let sets = Parameters::read(Codec::H264, &AVC[..end]).sets;
            assert_eq!(sets.len(), if end < 11 { 0 } else { 7 }, "{end}");
        }
        let whole = hvcc();
        for end in 0..whole.len() {
            Parameters::read(Codec::H265, &whole[..end]);
        }
    }

    #[test]
    fn start_codes_stay_and_other_extradata_is_none() {
        let annex_b = [0, 0, 0, 1, 0x67, 1];
        let parameters = Parameters::read(Codec::H264, &annex_b);
        assert_eq!(parameters, Parameters { form: Form::AsIs, sets: annex_b.to_vec() });
        for extradata in [&[][..], &[7, 1, 2, 3, 4, 5]] {
            assert_eq!(Parameters::read(Codec::H264, extradata).form, Form::AsIs);
            assert!(Parameters::read(Codec::Mjpeg, AVC).sets.is_empty());
        }
    }

    #[test]
    fn lengths_become_start_codes_up_to_the_damage() {
        let mut out = Vec::new();
        assert!(append_unit(Form::Lengths(2), &[0, 2, 0x65, 1, 0, 0, 0, 1, 0x41], &mut out));
        assert_eq!(out, [0, 0, 0, 1, 0x65, 1, 0, 0, 0, 1, 0x41]);
        out.clear();
        assert!(!append_unit(Form::Lengths(2), &[0, 1, 0x65, 0, 9, 0x41], &mut out));
        assert_eq!(out, [0, 0, 0, 1, 0x65]);
        out.clear();
        assert!(append_unit(Form::Lengths(4), &[0, 0, 0, 1, 0x65, 1], &mut out));
        assert_eq!(out, [0, 0, 0, 1, 0x65, 1], "start codes where lengths were announced");
    }
}
