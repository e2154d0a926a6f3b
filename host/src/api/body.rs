//! Reads a body that is one file, up to a limit.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;

/// The length of a body by its header, if there is one.
pub(super) fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Reads a body of at most `most` bytes. `None` if it has more.
pub(super) async fn collect(request: Request, most: usize) -> Result<Option<Bytes>, Problem> {
    let expected = length(request.headers()).unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(expected.min(most));
    let mut chunks = request.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::bad("bad_body", error.to_string()))?;
        if bytes.len().saturating_add(chunk.len()) > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

/// Bytes of a JSON body: a camera's settings with some hundred zones.
const MAX_JSON: usize = 256 << 10;

/// Reads a body that is JSON.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {} KiB", MAX_JSON >> 10);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let bytes = collect(request, MAX_JSON).await?.ok_or_else(too_large)?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad("bad_json", error.to_string()))
}

/// Settings are a JSON object.
pub(super) fn settings(text: &str) -> Result<Map<String, Value>, Problem> {
    serde_json::from_str(text).map_err(|error| {
        Problem::bad("bad_settings", format!("settings are a JSON object: {error}"))
    })
}
