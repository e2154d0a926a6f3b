//! The documents that tell programs what the API is: OpenAPI for HTTP, AsyncAPI for the WebSocket. They are written by hand,
//! and the tests hold them to the routes and messages that there are.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// `GET /openapi.json`.
const OPENAPI: &str = include_str!("openapi.json");

/// `GET /asyncapi.json`.
const ASYNCAPI: &str = include_str!("asyncapi.json");

pub(super) async fn openapi() -> Response {
    json(OPENAPI)
}

pub(super) async fn asyncapi() -> Response {
    json(ASYNCAPI)
}

fn json(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests;
