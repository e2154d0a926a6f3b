//! What makes a camera known to Home Assistant: one retained message for each, by which it makes a
//! device with its entities ("device discovery", Home Assistant 2024.11 and later). An empty message
//! removes all of it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::topics::{MqttTopics, identifier};

/// What Home Assistant makes of the state that is told.
const RUNNING: &str = "{{ 'ON' if value_json.state == 'running' else 'OFF' }}";

/// What it makes of a count.
const OCCUPIED: &str = "{{ 'ON' if value | int(0) > 0 else 'OFF' }}";

/// A camera as it is announced.
#[derive(Debug)]
pub(super) struct Announced<'a> {
    pub(super) host: &'a str,
    pub(super) session: &'a str,
    pub(super) pipeline: &'a str,
    /// Whether pictures are published.
    pub(super) pictures: bool,
    /// The labels that were seen.
    pub(super) labels: &'a BTreeSet<String>,
    pub(super) zones: &'a BTreeSet<String>,
}

impl Announced<'_> {
    /// The topic of its announcement. `root` is Home Assistant's own.
    pub(super) fn topic(root: &str, host: &str, session: &str) -> String {
        format!("{root}/device/{}/config", device(host, session))
    }

    /// The announcement. Names are its data alone, never part of a template.
    pub(super) fn payload(&self, topics: &MqttTopics) -> String {
        let Self { host, session, pipeline, .. } = *self;
        let id = device(host, session);
        let version = env!("CARGO_PKG_VERSION");
        json!({
            "device": {
                "identifiers": [&id], "name": session, "manufacturer": "Ocelli",
                "model": pipeline, "sw_version": version,
            },
            "origin": {"name": "Ocelli", "sw_version": version},
            "availability": [{"topic": topics.status()}],
            "components": self.components(&id, topics),
        })
        .to_string()
    }

    fn components(&self, id: &str, topics: &MqttTopics) -> Map<String, Value> {
        let session = self.session;
        let mut components = Map::new();
        let mut add = |key: String, mut entity: Value| {
            if let Value::Object(members) = &mut entity {
                members.insert("unique_id".into(), format!("{id}_{key}").into());
            }
            components.insert(key, entity);
        };
        add(
            "running".into(),
            json!({
                "platform": "binary_sensor", "name": "Running", "device_class": "running",
                "state_topic": topics.of(session, "state"), "value_template": RUNNING,
            }),
        );
        if self.pictures {
            let topic = topics.of(session, "picture");
            add("picture".into(), json!({"platform": "camera", "name": "Picture", "topic": topic}));
        }
        let places = [("objects", "label", self.labels), ("zones", "zone", self.zones)];
        for (what, kind, names) in places {
            for name in names {
                let (topic, key) = (topics.count(session, what, name), identifier(name));
                add(
                    format!("{kind}_{key}_count"),
                    json!({
                        "platform": "sensor", "name": format!("{name} count"),
                        "state_class": "measurement", "state_topic": topic,
                    }),
                );
                add(
                    format!("{kind}_{key}_occupancy"),
                    json!({
                        "platform": "binary_sensor", "name": format!("{name} occupancy"),
                        "device_class": "occupancy", "state_topic": topic,
                        "value_template": OCCUPIED,
                    }),
                );
            }
        }
        components
    }
}

/// A camera's identifier. The host's name comes first: two hosts may have a camera of one name.
fn device(host: &str, session: &str) -> String {
    format!("ocelli_{}__{}", identifier(host), identifier(session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_a_device_whose_entities_are_its_own_and_whose_names_are_only_data() {
        let topics = MqttTopics::new("ocelli", "box");
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let (labels, zones) = (names(&["person", "{{ x }}"]), names(&["person", "in/out"]));
        let camera = Announced {
            host: "box",
            session: "front door",
            pipeline: "object-detect",
            pictures: true,
            labels: &labels,
            zones: &zones,
        };
        let topic = Announced::topic("homeassistant", "box", "front door");
        assert_eq!(topic, "homeassistant/device/ocelli_box__front_20door/config");
        let payload: Value = serde_json::from_str(&camera.payload(&topics)).unwrap();
        assert_eq!(payload["availability"][0]["topic"], "ocelli/box/status");
        let components = payload["components"].as_object().unwrap();
        assert_eq!(components.len(), 2 + 2 * 4);
        let ids: BTreeSet<&str> =
            components.values().map(|it| it["unique_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), components.len());
        let zone = &components["zone_in_2fout_count"];
        assert_eq!(zone["state_topic"], "ocelli/box/front door/zones/in%2Fout");
        for entity in components.values() {
            let template = entity.get("value_template").map_or("", |it| it.as_str().unwrap());
            assert!(["", RUNNING, OCCUPIED].contains(&template), "{entity}");
        }
    }
}
