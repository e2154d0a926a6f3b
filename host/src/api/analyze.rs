//! `POST /v1/analyze/{pipeline}`: one picture, or a list of them, now or as a job.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, TryStreamExt};
use serde::Deserialize;

use super::access::Caller;
use super::body;
use super::control::Control;
use super::extract::{InPath, InQuery};
use super::jobs::{self, Results};
use super::problem::Problem;
use super::state::ApiState;
use crate::analyze::{
    Analyses, AnalysisError, AnalysisErrorKind, AnalysisLimits, AnalysisRequest, ImageFile,
    ImageOutcome, NamedImage, now,
};
use crate::config::BasePath;

/// Bytes for boundaries, headers and settings between the pictures of a list.
const BETWEEN: usize = 1 << 20;

/// Most bytes of a list's settings.
const MAX_SETTINGS: usize = 64 << 10;

/// Characters of a file's name that an answer repeats.
const MAX_FILENAME: usize = 200;

/// The part of a list that holds the settings.
const SETTINGS: &str = "settings";

/// Bytes of the longest body that is read.
pub(super) fn longest_body(bounds: AnalysisLimits) -> usize {
    bounds.image_bytes.saturating_mul(bounds.images).saturating_add(BETWEEN)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalyzeParameters {
    #[serde(default, rename = "async", deserialize_with = "switch")]
    background: bool,
    settings: Option<String>,
}

/// 1 or true, 0 or false.
fn switch<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match String::deserialize(from)?.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!(
            "async is 1 or 0, not {:?}",
            truncated(other, MAX_FILENAME)
        ))),
    }
}

pub(super) async fn analyze<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(pipeline): InPath,
    InQuery(parameters): InQuery<AnalyzeParameters>,
    request: Request,
) -> Result<Response, Problem> {
    let (analyses, base) = (state.control.analyses(), &state.gate.base);
    let mut order = analyses.request(&pipeline)?;
    order.set_owner(&caller.name);
    if let Some(text) = &parameters.settings {
        order.set_settings(&body::settings(text)?);
    }
    if !parameters.background {
        analyses.admit()?;
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "multipart/form-data" => list(analyses, order, &parameters, request, base).await,
        // Programs say image/jpg, or nothing that helps: what the file is, its bytes say.
        "" | "application/octet-stream" => one(analyses, order, &parameters, request, base).await,
        kind if kind.starts_with("image/") => {
            one(analyses, order, &parameters, request, base).await
        }
        _ => {
            let detail = "the Content-Type says what the body is: an image (image/jpeg, image/png, \
                or application/octet-stream; its bytes say which it is: JPEG and PNG are read), or \
                multipart/form-data for a list of them";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
        }
    }
}

async fn one(
    analyses: &Analyses,
    order: AnalysisRequest,
    parameters: &AnalyzeParameters,
    request: Request,
    base: &BasePath,
) -> Result<Response, Problem> {
    let image = image(analyses, request).await?;
    if parameters.background {
        let named = NamedImage { filename: None, image: Ok(image) };
        return Ok(jobs::accepted(&analyses.submit(order, false, vec![named])?, base));
    }
    Ok(Json(analyses.analyze(&order, image).await?).into_response())
}

/// Reads a body that is one picture. A body whose header says that it is too large is not read.
async fn image(analyses: &Analyses, request: Request) -> Result<ImageFile, Problem> {
    let arrived = now();
    let AnalysisLimits { image_bytes, timeout, .. } = analyses.limits();
    let length = body::length(request.headers());
    if length.is_some_and(|length| length > image_bytes) {
        return Err(too_large(image_bytes).into());
    }
    let room = analyses.reserve_memory(length.unwrap_or(image_bytes))?;
    let body = within(timeout, body::collect(request, image_bytes)).await??;
    let body = body.ok_or_else(|| too_large(image_bytes))?;
    Ok(ImageFile::new(body, arrived, room)?)
}

fn too_large(most: usize) -> AnalysisError {
    let message = format!("the file has more than {} MiB (analyze.max_image_mb)", most >> 20);
    AnalysisError::new(AnalysisErrorKind::ImageTooLarge, message)
}

/// Limits the time for an upload.
async fn within<T>(timeout: Duration, reading: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(timeout, reading).await.map_err(|_| {
        let detail = format!("a picture took longer than {} ms to arrive", timeout.as_millis());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "upload_timeout", detail)
    })
}

async fn list(
    analyses: &Analyses,
    mut order: AnalysisRequest,
    parameters: &AnalyzeParameters,
    request: Request,
    base: &BasePath,
) -> Result<Response, Problem> {
    let multipart = Multipart::from_request(request, &()).await;
    let multipart =
        multipart.map_err(|rejection| Problem::bad("bad_multipart", rejection.body_text()))?;
    let mut parts = Parts {
        analyses,
        multipart,
        seen: 0,
        held: 0,
        background: parameters.background,
        first: None,
    };
    if let Some(text) = parts.settings().await? {
        if parameters.settings.is_some() {
            let detail = "settings stand in the query or in a part, not in both";
            return Err(Problem::bad("bad_settings", detail));
        }
        order.set_settings(&body::settings(&text)?);
    }
    if parameters.background {
        let pictures: Vec<NamedImage> = parts.pictures().try_collect().await?;
        if pictures.is_empty() {
            return Err(no_images());
        }
        return Ok(jobs::accepted(&analyses.submit(order, true, pictures)?, base));
    }
    let items: Vec<ImageOutcome> =
        analyses.analyze_all(&order, parts.pictures()).try_collect().await?;
    if items.is_empty() {
        return Err(no_images());
    }
    Ok(Json(Results::of(&items)).into_response())
}

fn no_images() -> Problem {
    Problem::bad("no_images", "the list has no picture")
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = "the list is longer than its pictures may be together";
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", detail);
        }
        Self::bad("bad_multipart", error.body_text())
    }
}

/// The parts of a list, read one after the other as they are needed.
struct Parts<'a> {
    analyses: &'a Analyses,
    multipart: Multipart,
    /// Pictures read so far.
    seen: usize,
    /// Bytes of the pictures read so far.
    held: usize,
    /// Whether all pictures are in memory until the last has come.
    background: bool,
    /// The first picture, if it was read in search of the settings.
    first: Option<NamedImage>,
}

impl<'a> Parts<'a> {
    /// The settings, which come before all pictures.
    async fn settings(&mut self) -> Result<Option<String>, Problem> {
        match self.next().await? {
            Some(Part::Settings(text)) => Ok(Some(text)),
            Some(Part::Picture(first)) => {
                self.first = Some(first);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn pictures(self) -> impl Stream<Item = Result<NamedImage, Problem>> + 'a {
        stream::try_unfold(self, |mut parts| async move {
            if let Some(first) = parts.first.take() {
                return Ok(Some((first, parts)));
            }
            match parts.next().await? {
                Some(Part::Picture(picture)) => Ok(Some((picture, parts))),
                Some(Part::Settings(_)) => {
                    let detail = "the part named settings comes once, before all pictures";
                    Err(Problem::bad("bad_settings", detail))
                }
                None => Ok(None),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Part>, Problem> {
        let bounds = self.analyses.limits();
        let field = within(bounds.timeout, self.multipart.next_field()).await??;
        let Some(field) = field else { return Ok(None) };
        if field.name() == Some(SETTINGS) {
            let text = within(bounds.timeout, up_to(field, MAX_SETTINGS)).await??;
            let bad = |detail: String| Problem::bad("bad_settings", detail);
            let text =
                text.ok_or_else(|| bad(format!("settings have at most {MAX_SETTINGS} bytes")))?;
            let text = String::from_utf8(text.into())
                .map_err(|_| bad("settings are a JSON object, which is UTF-8".into()))?;
            return Ok(Some(Part::Settings(text)));
        }
        self.seen += 1;
        if self.seen > bounds.images {
            let detail =
                format!("a list has at most {} pictures (analyze.max_images)", bounds.images);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_images", detail));
        }
        let filename = field.file_name().map(|name| truncated(name, MAX_FILENAME).to_owned());
        let room = if self.background {
            let (held, whole) = (self.held, self.analyses.total_memory());
            self.analyses
                .reserve_memory(bounds.image_bytes)
                .map_err(|busy| no_room(busy, held, whole))?
        } else {
            self.analyses.wait_for_memory(bounds.image_bytes).await?
        };
        let arrived = now();
        let file = within(bounds.timeout, up_to(field, bounds.image_bytes)).await??;
        let image = match file {
            Some(file) => {
                self.held += file.len();
                ImageFile::new(file, arrived, room)
            }
            None => Err(too_large(bounds.image_bytes)),
        };
        Ok(Some(Part::Picture(NamedImage { filename, image })))
    }
}

/// If the list alone takes most of the memory, trying again does not help.
fn no_room(busy: AnalysisError, held: usize, whole: usize) -> Problem {
    if held <= whole / 2 {
        return busy.into();
    }
    let most = whole >> 21;
    let detail = format!(
        "the pictures of a job have at most {most} MiB together: send fewer, or send them without \
            async"
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", detail)
}

enum Part {
    Settings(String),
    Picture(NamedImage),
}

/// The bytes of a part. `None` if it has more than `most`; the rest is skipped with the next part.
async fn up_to(mut field: Field<'_>, most: usize) -> Result<Option<Bytes>, MultipartError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await? {
        if bytes.len().saturating_add(chunk.len()) > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

fn truncated(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}
