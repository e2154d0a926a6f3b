//! Looks at a model's file before ONNX Runtime does, which says of most mistakes that it cannot
//! read the file. Only the few fields of the format that tell them are read (`onnx.proto`, by
//! number); weights are skipped. What is not recognised is left to ONNX Runtime.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use ocelli_inference::PINNED_VERSION as VERSION;

/// The newest IR version of ONNX that ONNX Runtime 1.28.0 reads, as its error says.
const NEWEST_IR: u64 = 13;

/// The newest opset of ONNX's own domain that it reads.
const NEWEST_OPSET: u64 = 26;

/// Bytes at a file's beginning that show what it is. A pointer of Git LFS has 130.
const BEGINNING: usize = 512;

/// Fields that are looked at: a large model has some ten thousand nodes.
const MAX_FIELDS: u32 = 1_000_000;

/// Longest name that is shown, in bytes.
const MAX_NAME: u64 = 200;

/// What is wrong with a model's file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphFault {
    /// Nothing is in it.
    #[error("the file is empty")]
    Empty,
    /// Git LFS has left the place of the file.
    #[error("it is a pointer of Git LFS, not the model: run `git lfs pull` where it comes from")]
    LfsPointer,
    /// A server's page, as a download without a login gives.
    #[error("it is a web page, not the model: the download needs another address, or a login")]
    WebPage,
    /// Its format is newer than the library.
    #[error(
        "it has ONNX's IR version {0}, ONNX Runtime {VERSION} reads {NEWEST_IR} and older: save it \
         with an older `onnx`"
    )]
    IrVersion(u64),
    /// Its operators are newer than the library.
    #[error(
        "it uses opset {0}, ONNX Runtime {VERSION} has {NEWEST_OPSET} and older: export it with \
         opset_version={NEWEST_OPSET}"
    )]
    Opset(u64),
    /// Weights lie in other files.
    #[error(
        "its weights lie in another file ({file:?}), which is not read: save the model with its \
         weights inside (`onnx.save(model, path, save_as_external_data=False)`)"
    )]
    ExternalData {
        /// As the model names it.
        file: String,
    },
}

/// What is wrong with the file. `pinned`: the library is the one whose versions are known.
pub(super) fn fault(file: File, pinned: bool) -> io::Result<Option<GraphFault>> {
    let mut file = BufReader::new(file);
    let mut beginning = Vec::new();
    file.by_ref().take(BEGINNING as u64).read_to_end(&mut beginning)?;
    let text = String::from_utf8_lossy(&beginning).trim_start().to_ascii_lowercase();
    if beginning.is_empty() {
        return Ok(Some(GraphFault::Empty));
    }
    if text.starts_with("version https://git-lfs") {
        return Ok(Some(GraphFault::LfsPointer));
    }
    if ["<!doctype html", "<html"].iter().any(|start| text.starts_with(start)) {
        return Ok(Some(GraphFault::WebPage));
    }
    let end = file.get_ref().metadata()?.len();
    file.rewind()?;
    let mut message = GraphMessage::new(file);
    match message.model(end, pinned) {
        // No message, or one that goes on forever.
        Err(error)
            if [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof]
                .contains(&error.kind()) =>
        {
            Ok(None)
        }
        found => found,
    }
}

/// A reader of a protobuf message in a file.
pub(super) struct GraphMessage {
    file: BufReader<File>,
    /// The place in the file.
    at: u64,
    fields: u32,
}

/// The kinds of values on the wire that ONNX has.
pub(super) const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
pub(super) const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl GraphMessage {
    /// The message that begins where the file stands.
    pub(super) fn new(file: BufReader<File>) -> Self {
        Self { file, at: 0, fields: 0 }
    }

    /// The place in the message.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// `ModelProto`.
    fn model(&mut self, end: u64, pinned: bool) -> io::Result<Option<GraphFault>> {
        let mut external = None;
        while self.at < end {
            match self.field()? {
                (1, VARINT) => {
                    let version = self.varint()?;
                    if pinned && version > NEWEST_IR {
                        return Ok(Some(GraphFault::IrVersion(version)));
                    }
                }
                (7, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    external = external.or(self.graph(end)?);
                }
                (8, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    let version = self.opset(end)?;
                    if pinned && version > NEWEST_OPSET {
                        return Ok(Some(GraphFault::Opset(version)));
                    }
                }
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(external.map(|file| GraphFault::ExternalData { file }))
    }

    /// `OperatorSetIdProto`: the version of ONNX's own operators, 0 of others'.
    fn opset(&mut self, end: u64) -> io::Result<u64> {
        let (mut domain, mut version) = (String::new(), 0);
        while self.at < end {
            match self.field()? {
                (1, LENGTH) => domain = self.text(end)?,
                (2, VARINT) => version = self.varint()?,
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(if ["", "ai.onnx"].contains(&domain.as_str()) { version } else { 0 })
    }

    /// `GraphProto`: the file of the first weights that lie elsewhere.
    fn graph(&mut self, end: u64) -> io::Result<Option<String>> {
        let mut external = None;
        while self.at < end {
            match self.field()? {
                (5, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    external = external.or(self.tensor(end)?);
                }
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(external)
    }

    /// `TensorProto`: the file in which its weights lie.
    fn tensor(&mut self, end: u64) -> io::Result<Option<String>> {
        let (mut location, mut elsewhere) = (String::new(), false);
        while self.at < end {
            match self.field()? {
                // `data_location`, of which 1 is `EXTERNAL`.
                (14, VARINT) => elsewhere = self.varint()? == 1,
                (13, LENGTH) => {
                    let end = self.end_of_value(end)?;
                    let (mut key, mut value) = (String::new(), String::new());
                    while self.at < end {
                        match self.field()? {
                            (1, LENGTH) => key = self.text(end)?,
                            (2, LENGTH) => value = self.text(end)?,
                            (_, kind) => self.skip(kind, end)?,
                        }
                    }
                    if key == "location" {
                        location = value;
                    }
                }
                (_, kind) => self.skip(kind, end)?,
            }
        }
        Ok(elsewhere.then_some(location))
    }

    /// The number of the next field, and the kind of its value.
    pub(super) fn field(&mut self) -> io::Result<(u64, u64)> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let tag = self.varint()?;
        Ok((tag >> 3, tag & 7))
    }

    pub(super) fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for place in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << place;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Where a value that has its length before it ends, within what holds it.
    pub(super) fn end_of_value(&mut self, within: u64) -> io::Result<u64> {
        let length = self.varint()?;
        let end = self.at.checked_add(length).filter(|end| *end <= within);
        end.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(super) fn text(&mut self, within: u64) -> io::Result<String> {
        let end = self.end_of_value(within)?;
        let mut bytes = vec![0; usize::try_from((end - self.at).min(MAX_NAME)).unwrap_or(0)];
        self.file.read_exact(&mut bytes)?;
        self.at += bytes.len() as u64;
        self.go_to(end)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn skip(&mut self, kind: u64, within: u64) -> io::Result<()> {
        let end = match kind {
            VARINT => return self.varint().map(drop),
            FIXED_64 => self.at + 8,
            FIXED_32 => self.at + 4,
            LENGTH => self.end_of_value(within)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if end > within {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.go_to(end)
    }

    fn go_to(&mut self, end: u64) -> io::Result<()> {
        let forward = i64::try_from(end - self.at).map_err(|_| io::ErrorKind::InvalidData)?;
        self.file.seek_relative(forward)?;
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    pub(crate) fn nested(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
        let bytes = parts.concat();
        [varint(field << 3 | LENGTH), varint(bytes.len() as u64), bytes].concat()
    }

    pub(crate) fn text(field: u64, value: &str) -> Vec<u8> {
        nested(field, &[value.as_bytes().to_vec()])
    }

    fn opset(domain: &str, version: u64) -> Vec<u8> {
        nested(8, &[text(1, domain), number(2, version)])
    }

    /// A tensor with weights inside, and one with them elsewhere.
    fn tensors() -> [Vec<u8>; 2] {
        let location = nested(13, &[text(1, "location"), text(2, "weights.bin")]);
        let offset = nested(13, &[text(1, "offset"), text(2, "0")]);
        [
            nested(5, &[text(8, "w"), nested(9, &[vec![7; 100_000]]), number(14, 0)]),
            nested(5, &[text(8, "v"), offset, location, number(14, 1)]),
        ]
    }

    fn found(bytes: &[u8], pinned: bool) -> Option<GraphFault> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        fault(file, pinned).unwrap()
    }

    #[test]
    fn what_is_no_model_is_named() {
        assert_eq!(found(b"", true), Some(GraphFault::Empty));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n";
        assert_eq!(found(pointer, false), Some(GraphFault::LfsPointer));
        for page in ["<!DOCTYPE html><html>", "\n <html lang=\"en\">", "<HTML>"] {
            assert_eq!(found(page.as_bytes(), false), Some(GraphFault::WebPage), "{page}");
        }
        // Neither a model nor anything that is known: ONNX Runtime's word.
        for other in [&b"graph"[..], b"PK\x03\x04", &[0xff; 100], &[0; 100]] {
            assert_eq!(found(other, true), None, "{other:?}");
        }
    }

    #[test]
    fn versions_are_told_where_the_library_is_known() {
        let [inside, _] = tensors();
        let model = |ir, own, others| {
            let graph = nested(7, &[text(2, "g"), inside.clone()]);
            [number(1, ir), graph, opset("", own), opset("com.microsoft", others)].concat()
        };
        assert_eq!(found(&model(NEWEST_IR, NEWEST_OPSET, 90), true), None);
        assert_eq!(found(&model(14, 17, 1), true), Some(GraphFault::IrVersion(14)));
        assert_eq!(found(&model(8, 27, 1), true), Some(GraphFault::Opset(27)));
        assert_eq!(found(&model(14, 27, 1), false), None);
        let named = [number(1, 8), opset("ai.onnx", 300)].concat();
        assert_eq!(found(&named, true), Some(GraphFault::Opset(300)));
    }

    #[test]
    fn weights_in_another_file_are_told_with_its_name() {
        let [inside, outside] = tensors();
        let model = [number(1, 8), nested(7, &[inside.clone(), outside, inside])].concat();
        let fault = found(&model, false).unwrap();
        assert_eq!(fault, GraphFault::ExternalData { file: "weights.bin".into() });
        assert_eq!(fault.to_string().lines().count(), 1);
        // One that is cut anywhere is no message.
        for end in 1..model.len().min(200) {
            assert_eq!(found(&model[..end], false), None, "{end}");
        }
    }
}
