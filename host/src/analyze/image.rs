//! The images of a request, and the memory that they take in the host.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::error::{AnalysisError, AnalysisErrorKind};
use super::format;

/// Bytes that one permit of the memory semaphore stands for.
pub(super) const MEMORY_UNIT: usize = 1 << 10;

/// Permits for so many bytes.
pub(super) fn memory_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX)
}

/// Memory reserved for an image's bytes; dropping it releases them.
#[derive(Debug)]
pub struct ImageMemory(OwnedSemaphorePermit);

impl ImageMemory {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(permit)
    }

    /// Releases all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let beyond = self.0.num_permits().saturating_sub(bytes.div_ceil(MEMORY_UNIT));
        drop(self.0.split(beyond));
    }
}

#[derive(Debug)]
pub struct ImageFile {
    bytes: Bytes,
    arrived: Instant,
    _memory: ImageMemory,
}

impl ImageFile {
    /// Accepts a file that starts as a JPEG or PNG image does. The host reads no further: a worker
    /// decodes it.
    pub fn new(
        bytes: Bytes,
        arrived: Instant,
        mut memory: ImageMemory,
    ) -> Result<Self, AnalysisError> {
        const JPEG: &[u8] = b"\xff\xd8\xff";
        const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
        if bytes.is_empty() {
            let message = "the image's file is empty; JPEG and PNG images are read";
            return Err(AnalysisError::new(AnalysisErrorKind::EmptyImage, message));
        }
        if !bytes.starts_with(JPEG) && !bytes.starts_with(PNG) {
            let message =
                format!("the file is {}; JPEG and PNG images are read", format::describe(&bytes));
            return Err(AnalysisError::new(AnalysisErrorKind::UnsupportedImage, message));
        }
        memory.shrink_to(bytes.len());
        Ok(Self { bytes, arrived, _memory: memory })
    }

    /// The whole file; shared, not copied.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// When its time began to run.
    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The same image, whose time begins to run at `arrived`.
    pub(super) fn arrived_at(self, arrived: Instant) -> Self {
        Self { arrived, ..self }
    }
}

/// An image of a list, or why the file is none.
#[derive(Debug)]
pub struct NamedImage {
    /// The file's name in the request, if it had one.
    pub filename: Option<String>,
    /// The image, or why the file is none.
    pub image: Result<ImageFile, AnalysisError>,
}
