//! The API's documents: OpenAPI for HTTP, AsyncAPI for the WebSocket. Routes and texts are written
//! by hand; the schemas come from the types. Tests hold both to the routes and messages.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::generate::Contract;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::audit::AuditLine;
use super::discover::DiscoverAnswer;
use super::events::{EventPage, FoundPage};
use super::insight::{LogTail, SystemAnswer};
use super::jobs::{JobView as Job, JobWithResults, Results};
use super::login::Me;
use super::message::ClientMessage;
use super::probe::ProbeAnswer;
use super::rest::Readiness;
use super::tokens::TokenView;
use crate::analyze::Analysis;
use crate::config::edit::ConfigEntry;
use crate::deploy::{ConfigStatus, DescribedPipeline, NamedPipeline, Record, ReloadReport};
use crate::event::{JournalledEvent, ServerMessage};
use crate::inference::catalog::ModelList;
use crate::journal::Backup;
use crate::monitor::SessionStats;
use crate::session::{SessionSettings, SessionStatus};
use crate::shape;

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| http_document().to_string());
    json(&TEXT)
}

/// `GET /asyncapi.json`.
pub(super) async fn asyncapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| websocket_document().to_string());
    json(&TEXT)
}

fn json(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Schemas of types, for answers or for requests.
fn generator(contract: Contract) -> SchemaGenerator {
    let settings = shape::settings().with_transform(closed).with(|settings| {
        settings.contract = contract;
        settings.definitions_path = "/components/schemas".into();
    });
    settings.into_generator()
}

/// Closes a schema: no unnamed members, and an optional member is left out, never null.
fn closed(schema: &mut Schema) {
    transform_subschemas(&mut closed, schema);
    let required = schema.get("required").cloned().unwrap_or_default();
    let required =
        |name: &str| required.as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let Some(Value::Object(members)) = schema.get_mut("properties") else { return };
    for (name, member) in members {
        let Ok(member) = <&mut Schema>::try_from(member) else { continue };
        // Anything at all: `{}`, which every tool knows, for `true`.
        member.ensure_object();
        if !required(name) {
            shape::never_null(member);
        }
    }
    if schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".into(), false.into());
    }
}

fn http_document() -> Value {
    let mut types = generator(Contract::Serialize);
    // The types that these refer to are included.
    let roots: &[fn(&mut SchemaGenerator) -> Schema] = &[
        SchemaGenerator::subschema_for::<Readiness>,
        SchemaGenerator::subschema_for::<SessionStatus>,
        SchemaGenerator::subschema_for::<SessionSettings>,
        SchemaGenerator::subschema_for::<Me<'_>>,
        SchemaGenerator::subschema_for::<AuditLine>,
        SchemaGenerator::subschema_for::<TokenView<'_>>,
        SchemaGenerator::subschema_for::<ConfigStatus>,
        SchemaGenerator::subschema_for::<EventPage>,
        SchemaGenerator::subschema_for::<FoundPage>,
        SchemaGenerator::subschema_for::<Analysis>,
        SchemaGenerator::subschema_for::<Results<'_>>,
        SchemaGenerator::subschema_for::<JobWithResults<'_>>,
        SchemaGenerator::subschema_for::<Job<'_>>,
        SchemaGenerator::subschema_for::<Record>,
        SchemaGenerator::subschema_for::<NamedPipeline>,
        SchemaGenerator::subschema_for::<DescribedPipeline>,
        SchemaGenerator::subschema_for::<ModelList>,
        SchemaGenerator::subschema_for::<SessionStats>,
        SchemaGenerator::subschema_for::<LogTail>,
        SchemaGenerator::subschema_for::<ProbeAnswer>,
        SchemaGenerator::subschema_for::<DiscoverAnswer>,
        SchemaGenerator::subschema_for::<ConfigEntry>,
        SchemaGenerator::subschema_for::<ReloadReport>,
        SchemaGenerator::subschema_for::<SystemAnswer>,
        SchemaGenerator::subschema_for::<Backup>,
    ];
    for root in roots {
        root(&mut types);
    }
    let mut document = written(include_str!("openapi.json"));
    put(&mut document, "/components", "schemas", types.take_definitions(true).into());
    document
}

fn websocket_document() -> Value {
    let mut document = written(include_str!("asyncapi.json"));
    let (mut read, mut sent) = (generator(Contract::Deserialize), generator(Contract::Serialize));
    payload(&mut document, &mut read, ClientMessage::json_schema);
    payload(&mut document, &mut sent, ServerMessage::json_schema);
    payload(&mut document, &mut sent, JournalledEvent::json_schema);
    put(&mut document, "/components", "schemas", sent.take_definitions(true).into());
    document
}

/// Adds the schema of a message, or of each of several, to its entry.
fn payload(
    document: &mut Value,
    types: &mut SchemaGenerator,
    of: fn(&mut SchemaGenerator) -> Schema,
) {
    let mut schema = of(types);
    types.transforms_mut().for_each(|transform| transform.transform(&mut schema));
    let messages = match schema.remove("oneOf") {
        Some(Value::Array(messages)) => messages,
        _ => vec![schema.to_value()],
    };
    for message in messages {
        let name =
            message.pointer("/properties/type/const").and_then(Value::as_str).unwrap_or_default();
        put(document, &format!("/components/messages/{name}"), "payload", message);
    }
}

/// A document that is written by hand. Tests check that it is JSON with a place for every schema.
fn written(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn put(document: &mut Value, place: &str, key: &str, value: Value) {
    if let Some(Value::Object(members)) = document.pointer_mut(place) {
        members.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
