//! Reads a body that is one file, up to a limit.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream::StreamExt;

use super::problem::Problem;

/// The length of a body by its header, if there is one.
pub(super) fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Reads a body of at most `most` bytes. `None` if it has more. `expected` is the length by its
/// header.
pub(super) async fn collect(
    body: Body,
    expected: usize,
    most: usize,
) -> Result<Option<Bytes>, Problem> {
    let mut bytes = BytesMut::with_capacity(expected.min(most));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let unreadable = |error: axum::Error| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string())
        };
        let chunk = chunk.map_err(unreadable)?;
        if bytes.len().saturating_add(chunk.len()) > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}
