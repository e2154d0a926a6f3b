//! Access units of an ingest process in the host's own form: judged by their NAL units, with
//! parameter sets before key pictures.

use bytes::Bytes;
use ocelli_protocol::ingest::{IngestUnit, StreamInfo};
use ocelli_protocol::worker::Codec;

use crate::source::nal::{Assembler, NalCodec, PictureInfo, split_annex_b};

/// Judges the units of one stream in decoding order.
#[derive(Debug)]
pub(in crate::source) struct PictureReader {
    codec: Codec,
    /// `None`: each unit is a picture by itself.
    assembler: Option<Assembler>,
    has_key: bool,
}

impl PictureReader {
    pub(in crate::source) fn new(stream: &StreamInfo) -> Self {
        let nal_codec = NalCodec::of(stream.codec);
        let sets = || split_annex_b(&stream.parameter_sets).map(<[u8]>::to_vec).collect();
        let assembler = nal_codec.map(|codec| Assembler::new(codec, sets()));
        Self { codec: stream.codec, assembler, has_key: false }
    }

    pub(in crate::source) fn codec(&self) -> Codec {
        self.codec
    }

    /// A unit as it is handed on. `None` if it holds no picture.
    pub(in crate::source) fn read(
        &mut self,
        unit: &IngestUnit,
        data: Bytes,
    ) -> Option<(PictureInfo, Bytes)> {
        let Some(assembler) = &mut self.assembler else {
            // No picture refers to JPEG ones, but sessions that skip disposable ones need some.
            return (!data.is_empty()).then_some((
                PictureInfo { key: true, disposable: false, whole: true, unmarked: false },
                data,
            ));
        };
        let nals: Vec<&[u8]> = split_annex_b(&data).collect();
        // Some recordings begin in mid-stream, at a picture that only the container knows to be
        // a start.
        let (picture, data) = assembler.assemble(&nals, unit.key && !self.has_key)?;
        self.has_key |= picture.key;
        Some((picture, data))
    }
}
