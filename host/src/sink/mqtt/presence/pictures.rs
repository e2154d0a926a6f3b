//! Pictures of cameras.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::worker::PictureWish;
use tokio::time::{MissedTickBehavior, timeout};

use super::PresenceSources;
use crate::config::{MqttConfig, PicturePublishing};
use crate::sink::mqtt::link::{BrokerLink, PublishRefusal};
use crate::sink::mqtt::topics::MqttTopics;

/// How long one camera's picture may take: the others wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks for new events.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes pictures as the settings say, one at a time, until the connection is lost.
pub(super) async fn publish(
    sources: PresenceSources,
    settings: MqttConfig,
    topics: MqttTopics,
    link: Arc<BrokerLink>,
) {
    let between = match settings.pictures {
        PicturePublishing::Off => return std::future::pending().await,
        PicturePublishing::Events => LOOK,
        PicturePublishing::Interval => Duration::from_secs(settings.pictures_s),
    };
    let mut turns = tokio::time::interval(between);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The newest event of each session that a picture was published for.
    let mut newest = HashMap::new();
    loop {
        turns.tick().await;
        for session in due(&sources, &settings, &mut newest).await {
            if !publish_one(&sources, &settings, &topics, &link, &session).await {
                return;
            }
        }
    }
}

/// The sessions whose picture is to be published now.
async fn due(
    sources: &PresenceSources,
    settings: &MqttConfig,
    newest: &mut HashMap<Arc<str>, u64>,
) -> Vec<String> {
    if settings.pictures == PicturePublishing::Interval {
        return sources.sessions.list().into_iter().map(|status| status.id).collect();
    }
    // What cannot be read now is asked for a second later.
    let spans = sources.hub.events().sessions().await.unwrap_or_default();
    let mut due = Vec::new();
    for (session, span) in spans {
        let before = newest.insert(Arc::clone(&session), span.newest);
        if before.is_none_or(|before| before < span.newest) {
            due.push(session.to_string());
        }
    }
    due
}

/// False: the connection is of no use any more.
async fn publish_one(
    sources: &PresenceSources,
    settings: &MqttConfig,
    topics: &MqttTopics,
    link: &BrokerLink,
    session: &str,
) -> bool {
    let Some(handle) = sources.sessions.get(session) else { return true };
    let wish = PictureWish { width: Some(settings.pictures_width), boxes: true };
    let Ok(Ok(picture)) = timeout(PATIENCE, handle.picture(wish)).await else { return true };
    let topic = topics.of(session, "picture");
    let limit = settings.pictures_kb as usize * 1024;
    if picture.jpeg.len() > limit || !link.fits(&topic, picture.jpeg.len()) {
        let bytes = picture.jpeg.len();
        tracing::debug!(target: "ocelli::sink", session, "a picture of {bytes} bytes is too large");
        return true;
    }
    // Acknowledged before the next one is made: one picture at a time is in memory.
    let sent = match link.send(&topic, picture.jpeg, true).await {
        Ok(notice) => link.acknowledged(notice).await,
        Err(fault) => Err(PublishRefusal::Link(fault)),
    };
    !matches!(sent, Err(PublishRefusal::Link(_)))
}
