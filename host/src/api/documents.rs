//! The API's documents: OpenAPI for HTTP, AsyncAPI for the WebSocket. Routes and texts are written
//! by hand; the schemas come from the types. Tests hold both to the routes and messages.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::generate::Contract;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::audit::AuditLine;
use super::control::Control;
use super::discover::DiscoverAnswer;
use super::events::{EventPage, FoundPage};
use super::insight::{LogTail, SystemAnswer};
use super::jobs::{JobView as Job, JobWithResults, Results};
use super::login::Me;
use super::message::ClientMessage;
use super::probe::ProbeAnswer;
use super::rest::Readiness;
use super::site::SiteStatus;
use super::site::tokens::SiteTokenView;
use super::state::ApiState;
use super::tokens::TokenView;
use crate::analyze::Analysis;
use crate::config::BasePath;
use crate::config::edit::ConfigEntry;
use crate::deploy::{ConfigStatus, DescribedPipeline, NamedPipeline, Record, ReloadReport};
use crate::event::{JournalledEvent, ServerMessage};
use crate::fleet::RolloutStatus;
use crate::inference::catalog::ModelList;
use crate::journal::Backup;
use crate::monitor::SessionStats;
use crate::session::{SessionSettings, SessionStatus};
use crate::shape;

/// The texts, made when they are first asked for.
#[derive(Debug, Default)]
pub(super) struct Documents {
    http: OnceLock<Bytes>,
    websocket: OnceLock<Bytes>,
}

/// `GET /openapi.json`.
pub(super) async fn openapi<C: Control>(State(state): State<Arc<ApiState<C>>>) -> Response {
    let (text, base) = (&state.documents.http, &state.gate.base);
    answer(text.get_or_init(|| below(http_document(), "/servers/0/url", base, "")))
}

/// `GET /asyncapi.json`.
pub(super) async fn asyncapi<C: Control>(State(state): State<Arc<ApiState<C>>>) -> Response {
    let (text, base) = (&state.documents.websocket, &state.gate.base);
    let place = "/channels/ws/address";
    answer(text.get_or_init(|| below(websocket_document(), place, base, "/v1/ws")))
}

/// A document as text, with a path of the host below its base path.
fn below(mut document: Value, place: &str, base: &BasePath, path: &str) -> Bytes {
    if let (Some(address), false) = (document.pointer_mut(place), base.as_str().is_empty()) {
        *address = format!("{base}{path}").into();
    }
    document.to_string().into()
}

fn answer(text: &Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
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
        SchemaGenerator::subschema_for::<SiteStatus>,
        SchemaGenerator::subschema_for::<SiteTokenView<'_>>,
        SchemaGenerator::subschema_for::<RolloutStatus>,
        SchemaGenerator::subschema_for::<Backup>,
    ];
    for root in roots {
        root(&mut types);
    }
    let mut document = written(include_str!("openapi.json"));
    put(&mut document, "/components", "schemas", types.take_definitions(true).into());
    with_request_ids(&mut document);
    document
}

/// Adds the header that every answer has.
fn with_request_ids(part: &mut Value) {
    let Value::Object(members) = part else { return };
    for (name, member) in members {
        match member {
            Value::Object(answers) if name == "responses" => {
                for answer in answers.values_mut().filter_map(Value::as_object_mut) {
                    if !answer.contains_key("$ref") {
                        let headers = answer.entry("headers").or_insert_with(|| json!({}));
                        let header = json!({"$ref": "#/components/headers/RequestId"});
                        put(headers, "", "X-Request-Id", header);
                    }
                }
            }
            _ if name != "schemas" => with_request_ids(member),
            _ => {}
        }
    }
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
