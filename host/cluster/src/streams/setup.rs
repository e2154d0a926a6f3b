//! The site's streams: made, or brought to what is wanted, by any host.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType};

use super::error::{STREAM_NAME_IN_USE, STREAM_NOT_FOUND};
use super::link::Link;
use super::names::{Bucket, MAX_STREAMS, Names};
use super::{StreamError, StreamLimits};

/// How the streams are laid out. Another number is another way to read them.
const LAYOUT: &str = "1";
const LAYOUT_KEY: &str = "ocelli.layout";
/// Over how many streams the site's events are spread: what its first host said.
const STREAMS_KEY: &str = "ocelli.streams";

/// JetStream's word for no limit.
const UNLIMITED: i64 = -1;

/// Makes what is not there, updates what differs, and returns over how many streams events are
/// spread. Fails where a stream has no leader.
pub(super) async fn ensure(
    link: &Link,
    names: &Names,
    limits: &StreamLimits,
) -> Result<u8, StreamError> {
    let mut wanted = state_config(names, limits);
    let info = ensure_one(link, &mut wanted).await?;
    let streams = laid_out(&info.config)?;
    if streams != limits.streams.clamp(1, MAX_STREAMS) {
        let (site, here) = (streams, limits.streams);
        tracing::warn!(site, here, "the site has another number of event streams: that one counts");
    }
    for stream in 0..streams {
        ensure_one(link, &mut event_config(names, limits, stream)).await?;
    }
    ensure_one(link, &mut object_config(names, limits)).await?;
    ensure_one(link, &mut picture_config(names, limits)).await?;
    Ok(streams)
}

/// Makes one stream what is wanted.
async fn ensure_one(link: &Link, wanted: &mut Config) -> Result<Info, StreamError> {
    let name = wanted.name.clone();
    let found = match info(link, &name).await {
        Ok(found) => found,
        Err(StreamError::Refused { code: STREAM_NOT_FOUND, .. }) => {
            match link.api(&format!("STREAM.CREATE.{name}"), wanted).await {
                Ok(made) => made,
                // Another host was faster.
                Err(StreamError::Refused { code: STREAM_NAME_IN_USE, .. }) => {
                    info(link, &name).await?
                }
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    if found.config.subjects != wanted.subjects || !is_ours(&found.config) {
        return Err(StreamError::NotOurs(format!("stream {name} is not one of a site")));
    }
    let found = match update(&found.config, wanted) {
        Some(config) => link.api(&format!("STREAM.UPDATE.{name}"), &config).await?,
        None => found,
    };
    match &found.cluster {
        Some(cluster) if cluster.leader.as_deref().unwrap_or_default().is_empty() => {
            Err(StreamError::Unavailable(format!("stream {name} has no leader")))
        }
        _ => Ok(found),
    }
}

/// What a stream is now.
pub(super) async fn info(link: &Link, name: &str) -> Result<Info, StreamError> {
    link.api(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await
}

fn is_ours(config: &Config) -> bool {
    config.metadata.contains_key(LAYOUT_KEY)
}

/// Over how many streams the site's events are spread.
fn laid_out(config: &Config) -> Result<u8, StreamError> {
    let said = |key| config.metadata.get(key).map(String::as_str).unwrap_or_default();
    if said(LAYOUT_KEY) != LAYOUT {
        let reason = format!("the site's streams have layout {:?}", said(LAYOUT_KEY));
        return Err(StreamError::NotOurs(format!("{reason}, this version reads {LAYOUT}")));
    }
    match said(STREAMS_KEY).parse() {
        Ok(streams) if (1..=MAX_STREAMS).contains(&streams) => Ok(streams),
        _ => Err(StreamError::NotOurs(format!("{} event streams", said(STREAMS_KEY)))),
    }
}

/// The configuration that brings `found` to what is wanted, `None` where it is that already. What a
/// site does not decide (placement, compression) stays.
fn update(found: &Config, wanted: &Config) -> Option<Config> {
    let mut config = found.clone();
    config.num_replicas = wanted.num_replicas;
    config.max_age = wanted.max_age;
    config.max_bytes = wanted.max_bytes;
    config.max_messages_per_subject = wanted.max_messages_per_subject;
    config.discard = wanted.discard;
    config.allow_direct = wanted.allow_direct;
    config.allow_rollup = wanted.allow_rollup;
    config.allow_atomic_publish = wanted.allow_atomic_publish;
    config.allow_message_ttl = wanted.allow_message_ttl;
    if !config.max_age.is_zero() {
        config.duplicate_window = config.duplicate_window.min(config.max_age);
    }
    (config != *found).then_some(config)
}

fn base(name: String, subjects: Vec<String>, limits: &StreamLimits) -> Config {
    Config {
        name,
        subjects,
        storage: StorageType::File,
        num_replicas: usize::from(limits.replicas.max(1)),
        max_messages: UNLIMITED,
        max_bytes: UNLIMITED,
        max_messages_per_subject: UNLIMITED,
        allow_direct: true,
        metadata: HashMap::from([
            (LAYOUT_KEY.to_owned(), LAYOUT.to_owned()),
            (STREAMS_KEY.to_owned(), limits.streams.clamp(1, MAX_STREAMS).to_string()),
        ]),
        ..Default::default()
    }
}

/// Events: the oldest make room.
fn event_config(names: &Names, limits: &StreamLimits, stream: u8) -> Config {
    Config {
        max_age: limits.max_age,
        max_bytes: limit(limits.max_bytes),
        max_messages_per_subject: limit(limits.max_msgs_per_subject),
        discard: DiscardPolicy::Old,
        allow_atomic_publish: true,
        ..base(names.event_stream(stream), vec![names.all_events(stream)], limits)
    }
}

/// State: nothing makes room, for what is old may still be in force.
fn state_config(names: &Names, limits: &StreamLimits) -> Config {
    Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_atomic_publish: true,
        allow_message_ttl: true,
        ..base(names.state_stream(), vec![names.all_state()], limits)
    }
}

/// Objects, as the client's object store wants its stream.
fn object_config(names: &Names, limits: &StreamLimits) -> Config {
    bucket_config(&names.bucket(Bucket::Objects), limits)
}

/// Pictures of events: the oldest make room.
fn picture_config(names: &Names, limits: &StreamLimits) -> Config {
    Config {
        max_age: limits.picture_age,
        max_bytes: limit(limits.picture_bytes),
        discard: DiscardPolicy::Old,
        ..bucket_config(&names.bucket(Bucket::Pictures), limits)
    }
}

fn bucket_config(bucket: &str, limits: &StreamLimits) -> Config {
    let subjects = vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")];
    Config {
        discard: DiscardPolicy::New,
        allow_rollup: true,
        max_age: Duration::ZERO,
        ..base(format!("OBJ_{bucket}"), subjects, limits)
    }
}

/// 0 is no limit.
fn limit(most: u64) -> i64 {
    match i64::try_from(most) {
        Ok(0) | Err(_) => UNLIMITED,
        Ok(most) => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> StreamLimits {
        StreamLimits {
            replicas: 1,
            streams: 2,
            max_age: Duration::from_secs(600),
            picture_age: Duration::from_secs(600),
            picture_bytes: 1 << 20,
            max_bytes: 0,
            max_msgs_per_subject: 10,
        }
    }

    #[test]
    fn what_differs_is_updated_and_what_is_not_decided_stays() {
        let names = Names::new("hall");
        let found = Config {
            description: Some("by hand".to_owned()),
            ..event_config(&names, &limits(), 0)
        };
        assert_eq!(update(&found, &event_config(&names, &limits(), 0)), None);
        let more = StreamLimits { replicas: 3, max_bytes: 1 << 20, ..limits() };
        let updated = update(&found, &event_config(&names, &more, 0)).unwrap();
        assert_eq!((updated.num_replicas, updated.max_bytes), (3, 1 << 20));
        assert_eq!(updated.description.as_deref(), Some("by hand"));
    }

    #[test]
    fn a_layout_of_another_version_is_refused() {
        let mut config = state_config(&Names::new("hall"), &limits());
        assert_eq!(laid_out(&config), Ok(2));
        config.metadata.insert(LAYOUT_KEY.to_owned(), "2".to_owned());
        assert_eq!(laid_out(&config).unwrap_err().code(), "not_ours");
    }
}
