//! Pictures of sessions as JPEG files, one or one after the other: for the simplest displays.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ocelli_protocol::worker::PictureWish;
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::access::Caller;
use super::control::{Control, Refusal};
use super::extract::{InPath, InQuery};
use super::problem::Problem;
use super::state::ApiState;
use crate::session::{EncodedPicture, PictureError};

/// Clients of all `mjpeg` together: one that shows a camera in its own way has the worker encode
/// each picture for it, 5 ms of a core for 768x576.
pub(super) const MJPEG_CLIENTS: usize = 32;

/// Pictures a second of `mjpeg`: as many as a display that only shows that something moves needs,
/// and as many as a camera sends.
const USUAL_FPS: f64 = 5.0;
const MOST_FPS: f64 = 30.0;
/// One picture in a minute.
const LEAST_FPS: f64 = 1.0 / 60.0;

/// Widths that may be asked for, in pixels.
const WIDTHS: std::ops::RangeInclusive<u32> = 16..=8192;

/// Before the first part of `mjpeg` and after each: a browser shows a part once it has the boundary
/// behind it.
const BOUNDARY: &str = "ocelli-picture";
const FIRST_BOUNDARY: &[u8] = b"--ocelli-picture\r\n";
const NEXT_BOUNDARY: &[u8] = b"\r\n--ocelli-picture\r\n";

/// The query of `GET /v1/sessions/{id}/frame.jpg`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameParameters {
    #[serde(default, deserialize_with = "flag")]
    boxes: bool,
    width: Option<u32>,
}

/// The query of `GET /v1/sessions/{id}/mjpeg`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MjpegParameters {
    #[serde(default, deserialize_with = "flag")]
    boxes: bool,
    width: Option<u32>,
    fps: Option<f64>,
}

/// 1 or 0, true or false: what one types into a browser.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!("{other:?} is neither 1 nor 0"))),
    }
}

fn wish(boxes: bool, width: Option<u32>) -> Result<PictureWish, Problem> {
    match width {
        Some(width) if !WIDTHS.contains(&width) => {
            let (least, most) = (WIDTHS.start(), WIDTHS.end());
            Err(Problem::bad("bad_query", format!("width is {least} to {most} pixels")))
        }
        _ => Ok(PictureWish { width, boxes }),
    }
}

fn interval_of(fps: Option<f64>) -> Result<Duration, Problem> {
    let fps = fps.unwrap_or(USUAL_FPS);
    // NaN lies in no range.
    if !(LEAST_FPS..=MOST_FPS).contains(&fps) {
        let detail = format!("fps is a 60th to {MOST_FPS} pictures a second");
        return Err(Problem::bad("bad_query", detail));
    }
    Ok(Duration::from_secs_f64(1.0 / fps))
}

impl From<PictureError> for Problem {
    fn from(error: PictureError) -> Self {
        let code = match error {
            PictureError::None => "no_picture",
            PictureError::Busy => "busy",
        };
        Self::unavailable(code, error.to_string()).retry_after(1)
    }
}

/// `GET /v1/sessions/{id}/frame.jpg`.
pub(super) async fn frame<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InPath(session): InPath,
    InQuery(FrameParameters { boxes, width }): InQuery<FrameParameters>,
) -> Result<Response, Problem> {
    let wish = wish(boxes, width)?;
    let picture = state.control.picture(&session, wish).await;
    let picture = picture.ok_or_else(|| Refusal::unknown(&session))??;
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::HeaderName::from_static("ocelli-frame"), picture.frame.to_string()),
        (
            header::HeaderName::from_static("ocelli-presentation-ns"),
            picture.presentation_ns.to_string(),
        ),
    ];
    Ok((headers, picture.jpeg).into_response())
}

/// `GET /v1/sessions/{id}/mjpeg`.
pub(super) async fn mjpeg<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    Extension(caller): Extension<Caller>,
    InPath(session): InPath,
    InQuery(MjpegParameters { boxes, width, fps }): InQuery<MjpegParameters>,
) -> Result<Response, Problem> {
    let (wish, every) = (wish(boxes, width)?, interval_of(fps)?);
    if state.control.session(&session).is_none() {
        return Err(Refusal::unknown(&session).into());
    }
    state.check_running()?;
    let place = Arc::clone(&state.displays).try_acquire_owned().map_err(|_| {
        let detail = format!("{MJPEG_CLIENTS} clients get pictures by mjpeg already");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_displays", detail).retry_after(10)
    })?;
    // No picture waits: the next one is encoded when the client has taken the one before.
    let (sender, receiver) = mpsc::channel(1);
    state.tasks.clone().spawn(async move {
        show(&state, &caller, &session, wish, every, &sender).await;
        drop(place);
    });
    let body = stream::unfold(receiver, async |mut receiver| {
        let part = receiver.recv().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(part), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, format!("multipart/x-mixed-replace; boundary={BOUNDARY}")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        // nginx would buffer the answer otherwise.
        (header::HeaderName::from_static("x-accel-buffering"), "no".to_owned()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Sends each new picture until the client or the session has gone, the client takes nothing, or
/// the host ends it.
async fn show<C: Control>(
    state: &ApiState<C>,
    caller: &Caller,
    session: &str,
    wish: PictureWish,
    every: Duration,
    parts: &mpsc::Sender<Bytes>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    let ended = state.ended(caller);
    tokio::pin!(ended);
    if parts.send(Bytes::from_static(FIRST_BOUNDARY)).await.is_err() {
        return;
    }
    loop {
        let picture = tokio::select! {
            biased;
            _ = &mut ended => return,
            () = parts.closed() => return,
            picture = async {
                ticks.tick().await;
                state.control.picture(session, wish).await
            } => picture,
        };
        let picture = match picture {
            None => return,
            // It comes, or comes back.
            Some(Err(_)) => continue,
            Some(Ok(picture)) => picture,
        };
        if last.replace(picture.frame) == Some(picture.frame) {
            continue;
        }
        for bytes in part(picture) {
            match timeout(state.timing.send, parts.send(bytes)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

/// A picture as a part of the answer, up to the boundary behind it.
fn part(picture: EncodedPicture) -> [Bytes; 3] {
    let EncodedPicture { frame, presentation_ns, jpeg } = picture;
    let length = jpeg.len();
    let head = format!(
        "Content-Type: image/jpeg\r\nContent-Length: {length}\r\nOcelli-Frame: {frame}\r\n\
            Ocelli-Presentation-Ns: {presentation_ns}\r\n\r\n"
    );
    [head.into(), jpeg, Bytes::from_static(NEXT_BOUNDARY)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_its_head_its_picture_and_the_boundary_behind_it() {
        let jpeg = Bytes::from_static(&[0xff, 0xd8]);
        let parts = part(EncodedPicture { frame: 7, presentation_ns: -5, jpeg });
        let head = "Content-Type: image/jpeg\r\nContent-Length: 2\r\nOcelli-Frame: 7\r\n\
            Ocelli-Presentation-Ns: -5\r\n\r\n";
        let expected = [head.as_bytes(), b"\xff\xd8\r\n--ocelli-picture\r\n"].concat();
        assert_eq!(parts.concat(), expected);
        assert_eq!(FIRST_BOUNDARY, format!("--{BOUNDARY}\r\n").as_bytes());
        assert_eq!(NEXT_BOUNDARY, format!("\r\n--{BOUNDARY}\r\n").as_bytes());
    }

    #[test]
    fn rates_and_widths_have_bounds() {
        for fps in [f64::NAN, 0.0, -1.0, 31.0, f64::INFINITY] {
            assert!(interval_of(Some(fps)).is_err(), "{fps}");
        }
        assert_eq!(interval_of(None).unwrap(), Duration::from_millis(200));
        assert_eq!(interval_of(Some(0.5)).unwrap(), Duration::from_secs(2));
        for width in [0, 15, 8193, u32::MAX] {
            assert!(wish(false, Some(width)).is_err(), "{width}");
        }
        assert_eq!(wish(true, None).unwrap(), PictureWish { width: None, boxes: true });
    }
}
