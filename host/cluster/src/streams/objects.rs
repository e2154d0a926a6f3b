//! Objects by their SHA-256: components, models, attachments, large snapshots.

use std::fmt;
use std::io::ErrorKind;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::jetstream::object_store::{
    DeleteErrorKind, GetErrorKind, Object, ObjectMetadata, ObjectStore,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::names::Bucket;
use super::{StreamError, Streams};

/// How long a reader waits for the next bytes of an object.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of an object at once: one chunk of the store.
const CHUNK: usize = 128 << 10;

/// A replica that is behind may not have a new object yet: so often is asked again, so long apart.
const BEHIND: (u32, Duration) = (5, Duration::from_millis(200));

/// A SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = StreamError;

    fn from_str(text: &str) -> Result<Self, StreamError> {
        let mut digest = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 2 * digest.len() {
            return Err(StreamError::Options(format!("{text:?} is no SHA-256")));
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| StreamError::Options(format!("{text:?} is no SHA-256")))?;
        }
        Ok(Self(digest))
    }
}

impl Streams {
    /// Stores an object unless it is there.
    pub async fn put_object(&self, bytes: Bytes) -> Result<Digest, StreamError> {
        let digest = Digest::of(&bytes);
        self.put_named(Bucket::Objects, &digest.to_string(), digest, &mut &bytes[..]).await?;
        Ok(digest)
    }

    /// Stores the picture of an event unless it is there. It goes as [`StreamLimits`](super::StreamLimits) say.
    pub async fn put_picture(&self, bytes: Bytes) -> Result<(), StreamError> {
        let digest = Digest::of(&bytes);
        self.put_named(Bucket::Pictures, &digest.to_string(), digest, &mut &bytes[..]).await
    }

    /// A picture of at most `most` bytes, verified.
    pub async fn get_picture(&self, digest: Digest, most: usize) -> Result<Bytes, StreamError> {
        self.get_named(Bucket::Pictures, &digest.to_string(), digest, most).await
    }

    /// Stores what is read, whose digest has to be `digest`, unless it is there.
    pub async fn put_object_from(
        &self,
        digest: Digest,
        from: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<(), StreamError> {
        self.put_named(Bucket::Objects, &digest.to_string(), digest, from).await
    }

    /// An object of at most `most` bytes, verified.
    pub async fn get_object(&self, digest: Digest, most: usize) -> Result<Bytes, StreamError> {
        self.get_named(Bucket::Objects, &digest.to_string(), digest, most).await
    }

    /// Writes an object and verifies it; returns its size. After an error what was written is to be
    /// thrown away.
    pub async fn get_object_into(
        &self,
        digest: Digest,
        into: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<u64, StreamError> {
        let object = self.open_named(Bucket::Objects, &digest.to_string()).await?;
        self.copy(object, digest, into).await
    }

    /// Stores what is read under a name, unless something of that name is there.
    pub(super) async fn put_named(
        &self,
        bucket: Bucket,
        name: &str,
        digest: Digest,
        from: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<(), StreamError> {
        let store = self.bucket(bucket).await?;
        if let Ok(there) = store.info(name).await
            && !there.deleted
        {
            return Ok(());
        }
        let mut reading = Hashing { from, sha256: Sha256::new() };
        let metadata = ObjectMetadata { name: name.to_owned(), ..Default::default() };
        let under = format!("$O.{}", self.names().bucket(bucket));
        let put = self.link().watched(&under, store.put(metadata, &mut reading)).await?;
        put.map_err(|error| self.failed(name, &error.to_string()))?;
        if Digest(reading.sha256.finalize().into()) != digest {
            self.remove_named(bucket, name).await?;
            return Err(StreamError::Damaged(format!("object {digest}")));
        }
        Ok(())
    }

    pub(super) async fn get_named(
        &self,
        bucket: Bucket,
        name: &str,
        digest: Digest,
        most: usize,
    ) -> Result<Bytes, StreamError> {
        let object = self.open_named(bucket, name).await?;
        if object.info.size > most {
            let size = object.info.size;
            return Err(StreamError::TooLarge { what: "an object", size, most });
        }
        let mut bytes = Vec::with_capacity(object.info.size);
        self.copy(object, digest, &mut bytes).await?;
        Ok(bytes.into())
    }

    pub(super) async fn remove_named(&self, bucket: Bucket, name: &str) -> Result<(), StreamError> {
        let store = self.bucket(bucket).await?;
        let under = format!("$O.{}", self.names().bucket(bucket));
        match self.link().watched(&under, store.delete(name)).await? {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => {
                Err(self.failed(name, &error.to_string()))
            }
            _ => Ok(()),
        }
    }

    async fn open_named(&self, bucket: Bucket, name: &str) -> Result<Object, StreamError> {
        let store = self.bucket(bucket).await?;
        for tried in 1.. {
            match store.get(name).await {
                Ok(object) => return Ok(object),
                Err(error) if error.kind() == GetErrorKind::NotFound => {
                    if tried >= BEHIND.0 {
                        break;
                    }
                    tokio::time::sleep(BEHIND.1).await;
                }
                Err(error) => return Err(self.failed(name, &error.to_string())),
            }
        }
        Err(StreamError::NotFound(name.to_owned()))
    }

    /// Copies an object and verifies it.
    async fn copy(
        &self,
        mut object: Object,
        digest: Digest,
        into: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<u64, StreamError> {
        let name = object.info.name.clone();
        let mut sha256 = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = tokio::time::timeout(READ_TIMEOUT, object.read(&mut buffer)).await;
            let count = match read {
                Err(_) => return Err(self.failed(&name, "no more bytes come")),
                Ok(Ok(count)) => count,
                Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                    return Err(StreamError::Damaged(format!("object {name}")));
                }
                Ok(Err(error)) => return Err(self.failed(&name, &error.to_string())),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            sha256.update(bytes);
            size += u64::try_from(count).unwrap_or_default();
            let written = into.write_all(bytes).await;
            written.map_err(|error| StreamError::Options(format!("object {name}: {error}")))?;
        }
        let flushed = into.flush().await;
        flushed.map_err(|error| StreamError::Options(format!("object {name}: {error}")))?;
        if Digest(sha256.finalize().into()) != digest {
            return Err(StreamError::Damaged(format!("object {name}")));
        }
        Ok(size)
    }

    async fn bucket(&self, bucket: Bucket) -> Result<ObjectStore, StreamError> {
        self.layout()?;
        self.link().usable()?;
        let bucket = self.names().bucket(bucket);
        let opened = self.link().context.get_object_store(&bucket).await;
        opened.map_err(|error| self.failed(&bucket, &error.to_string()))
    }

    /// Names what the client's object store gives as text.
    fn failed(&self, name: &str, said: &str) -> StreamError {
        let text = format!("object {name}: {said}");
        let full = ["insufficient", "exceeded", "maximum", "no space"];
        if full.iter().any(|word| said.contains(word)) {
            return StreamError::Full(text);
        }
        StreamError::Unavailable(text)
    }
}

/// Computes the digest of what is read.
struct Hashing<'a, R> {
    from: &'a mut R,
    sha256: Sha256,
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashing<'_, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut *this.from).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            this.sha256.update(buffer.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest::of(b"abc");
        assert!(digest.to_string().starts_with("ba7816bf"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for none in ["", "ba78", &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(none.parse::<Digest>().unwrap_err().code(), "options", "{none}");
        }
    }
}
