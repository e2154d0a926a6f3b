//! Messages of a host in words for a person.

use ocelli_client::{Detection, Event, HostStatus, Message};
use serde_json::Value;

/// One line; `per_second` is the rate of results. None: the message says nothing to a person.
pub(super) fn line(message: &Message, per_second: Option<f64>) -> Option<String> {
    let rate = per_second.map_or(String::new(), |rate| format!("  {rate:4.1} results/s"));
    Some(match message {
        Message::Detections(found) => {
            let listed = listed(&found.detections);
            format!("{}  frame {:6}{rate}  {listed}", clock(&found.time), found.frame)
        }
        Message::Event(event) => {
            let what = what(event);
            format!("{}  event {:6}  {} {what}", clock(&event.time), event.seq, event.kind)
        }
        Message::Session { state, reason, .. } => {
            format!(
                "session is {state}{}",
                reason.as_ref().map_or(String::new(), |why| format!(": {why}"))
            )
        }
        Message::Subscribed { session, state } => {
            format!("subscribed to session {session}, which is {state}")
        }
        Message::Lagged { missed, .. } => {
            format!("{missed} messages missed: this terminal was too slow")
        }
        Message::Host(host) => host_line(host),
        Message::Error(refusal) => format!("error {}: {}", refusal.code, refusal.message),
        _ => return None,
    })
}

/// What an event says beside its kind.
pub(super) fn what(event: &Event) -> String {
    let text = |key: &str| event.data.get(key).and_then(Value::as_str);
    match event.kind.as_str() {
        "alert" => {
            let raised =
                if event.data.get("raised").is_some_and(|it| it == true) { "" } else { "over: " };
            format!("{raised}{}", text("message").or(text("alert")).unwrap_or_default())
        }
        "deployment" => {
            let reason = text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
            let (state, pipeline) = (text("state"), text("pipeline"));
            format!("{} {}{reason}", pipeline.unwrap_or_default(), state.unwrap_or_default())
        }
        _ if !event.detections.is_empty() => listed(&event.detections),
        _ if event.data.is_empty() => String::new(),
        _ => Value::from(event.data.clone()).to_string(),
    }
}

/// What of the host is not well.
pub(super) fn host_line(host: &HostStatus) -> String {
    let parts = host.parts.iter().filter(|(_, part)| part.state != "ok").map(|(name, part)| {
        let why = part.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("{name} is {}{why}", part.state)
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "host: all is well".to_owned()
    } else {
        format!("host: {}", parts.join("; "))
    }
}

/// `person 0.87 #7 [12 34 56 78]`, one after the other; the box is left, top, width, height in
/// frame pixels.
pub(super) fn listed(detections: &[Detection]) -> String {
    let each =
        detections.iter().map(|Detection { label, score, area: [x, y, w, h], track, .. }| {
            let track = track.map_or(String::new(), |track| format!(" #{track}"));
            format!("{label} {score:.2}{track} [{x:.0} {y:.0} {w:.0} {h:.0}]")
        });
    each.collect::<Vec<_>>().join(", ")
}

/// `12:34:56.789` of an RFC 3339 time, or all of it where it is something else.
fn clock(time: &str) -> &str {
    const TO_MILLISECONDS: usize = "12:34:56.789".len();
    let of_day = time.split_once('T').map_or(time, |(_, of_day)| of_day);
    of_day.get(..TO_MILLISECONDS).unwrap_or(of_day)
}
