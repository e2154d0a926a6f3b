//! Boxes of MP4 files (ISO/IEC 14496-12).

/// No turn and no change of size.
pub(crate) const UPRIGHT: [u32; 9] = [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30];

/// A box with a version and flags.
pub(crate) fn full(kind: &[u8; 4], version: u8, flags: u32, content: &[&[u8]]) -> Vec<u8> {
    let head = (u32::from(version) << 24 | flags).to_be_bytes();
    let parts: Vec<&[u8]> = std::iter::once(&head[..]).chain(content.iter().copied()).collect();
    boxed(kind, &parts)
}

/// A box: its length, its kind, its content.
pub(crate) fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    // Callers count what they put in before: it is less than 4 GiB.
    let length = u32::try_from(length + 8).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(kind);
    content.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// The bytes of a matrix.
pub(crate) fn matrix(matrix: [u32; 9]) -> Vec<u8> {
    matrix.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// The sample entry of a codec's pictures; `codec` is the box that tells of it.
pub(crate) fn visual_entry(kind: &[u8; 4], (width, height): (u16, u16), codec: &[u8]) -> Vec<u8> {
    boxed(
        kind,
        &[
            &[0; 6],
            // The first reference to data.
            &1u16.to_be_bytes(),
            &[0; 16],
            &width.to_be_bytes(),
            &height.to_be_bytes(),
            // 72 dots to the inch, both ways.
            &(72u32 << 16).to_be_bytes(),
            &(72u32 << 16).to_be_bytes(),
            &[0; 4],
            // A picture in each sample, no name, colours of 24 bits.
            &1u16.to_be_bytes(),
            &[0; 32],
            &24u16.to_be_bytes(),
            &[0xff; 2],
            codec,
        ],
    )
}

/// The media of a track of pictures in this file; `times` is its `mdhd`, `samples` its `stbl`.
pub(crate) fn media(times: &[u8], samples: &[u8]) -> Vec<u8> {
    let hdlr = full(b"hdlr", 0, 0, &[&[0; 4], b"vide", &[0; 12], b"Ocelli\0"]);
    let url = full(b"url ", 0, 1, &[]);
    let dref = full(b"dref", 0, 0, &[&1u32.to_be_bytes(), &url]);
    let dinf = boxed(b"dinf", &[&dref]);
    let vmhd = full(b"vmhd", 0, 1, &[&[0; 8]]);
    let minf = boxed(b"minf", &[&vmhd, &dinf, samples]);
    boxed(b"mdia", &[times, &hdlr, &minf])
}
