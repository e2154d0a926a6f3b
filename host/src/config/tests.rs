use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::*;

const SHIPPED: &str = include_str!("../../../config/ocelli.toml");
const SERVICE: &str = include_str!("../../../config/service.toml");
const UNIT: &str = include_str!("../../../config/ocelli.service");
const DEMO: &str = include_str!("../../../config/demo.toml");

fn parsed(text: &str) -> Config {
    Config::from_text(Path::new("test.toml"), text, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The schema's keys, sections with their keys below them.
fn schema_keys(schema: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let schema = if schema["items"]["type"] == "object" { &schema["items"] } else { schema };
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        schema_keys(below, &path, keys);
        keys.insert(path);
    }
}

/// The schema that editors get. `OCELLI_BLESS=1` in this test's environment writes it anew.
#[test]
fn the_committed_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/ocelli.schema.json");
    let schema = schema_document();
    if std::env::var_os("OCELLI_BLESS").is_some() {
        std::fs::write(&path, format!("{schema:#}\n")).unwrap();
    }
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(
        committed == schema,
        "config/ocelli.schema.json is not current: OCELLI_BLESS=1 cargo test -p ocelli --lib \
         the_committed_schema"
    );
}

/// What a reader of the schema would take for a key's default is what it is; a section is where its
/// keys are.
#[test]
fn every_default_is_in_the_schema_and_within_it() {
    fn defaults(schema: &Value) -> Option<Value> {
        if let Some(default) = schema.get("default") {
            return Some(default.clone());
        }
        let members = schema.get("properties")?.as_object()?.iter();
        let members = members.filter_map(|(key, below)| Some((key.clone(), defaults(below)?)));
        Some(Value::Object(members.collect()))
    }
    let mut schema = schema_document();
    // None is there until somebody says so.
    for section in ["redis", "mqtt", "otlp", "cluster"] {
        schema["properties"].as_object_mut().unwrap().remove(section);
    }
    schema["properties"]["server"]["properties"].as_object_mut().unwrap().remove("tls");
    let document = defaults(&schema).unwrap().to_string();
    assert_eq!(
        Config::from_text(Path::new("test.json"), &document, &[]).unwrap(),
        Config::default()
    );
    let (document, mut keys): (Value, _) =
        (serde_json::from_str(&document).unwrap(), BTreeSet::new());
    for (section, members) in schema["properties"].as_object().unwrap() {
        for key in members["properties"].as_object().into_iter().flat_map(Map::keys) {
            if document[section].get(key).is_none() {
                keys.insert(format!("{section}.{key}"));
            }
        }
    }
    assert_eq!(
        keys.into_iter().collect::<Vec<_>>(),
        [
            "inference.budget_cores",
            "inference.library",
            "inference.threads",
            "server.cameras_file",
            "store.cache"
        ]
    );
}

#[test]
fn the_shipped_config_says_the_defaults_and_names_every_key() {
    assert_eq!(parsed(SHIPPED), Config::default());
    assert_eq!(parsed(""), Config::default());
    let mut keys = BTreeSet::new();
    schema_keys(&schema_document(), "", &mut keys);
    for key in &keys {
        let name = key.rsplit('.').next().unwrap();
        let named = |line: &str| {
            let line = line.trim_start_matches(['#', ' ', '[']);
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ']']))
                || line.split_once(&format!(".{name}]")).is_some()
        };
        assert!(SHIPPED.lines().any(named), "{key} is not in config/ocelli.toml");
    }
}

/// A key's range stands in the comment above it or behind it.
#[test]
fn the_shipped_config_says_every_range() {
    let schema = schema_document();
    let (mut section, mut above, mut ranges) = (Vec::new(), String::new(), 0);
    for line in SHIPPED.lines() {
        let text = line.trim_start_matches(['#', ' ']);
        let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
        if text.starts_with('[') && word(text.trim_matches(['[', ']'])) {
            section = text.trim_matches(['[', ']']).split('.').collect();
            continue;
        }
        let Some((key, _)) = text.split_once(" = ").filter(|(key, _)| word(key)) else {
            above = if line.starts_with('#') { format!("{above} {text}") } else { String::new() };
            continue;
        };
        let path = section.iter().chain([&key]);
        let schema = path.fold(&schema, |schema, key| {
            let table = if schema["items"].is_object() { &schema["items"] } else { schema };
            &table["properties"][key]
        });
        if let (Value::Number(least), Value::Number(most)) =
            (&schema["minimum"], &schema["maximum"])
        {
            let (range, said) = (format!("{least} to {most}"), format!("{above} {text}"));
            assert!(said.contains(&range), "{section:?} {key}: {range} is not in {said:?}");
            ranges += 1;
        }
        above.clear();
    }
    assert!(ranges > 50, "{ranges}");
}

#[test]
fn the_example_camera_of_the_shipped_config_is_valid_once_it_is_uncommented() {
    let (_, example) = SHIPPED.split_once("# [[cameras]]").unwrap();
    let lines: Vec<&str> = example.lines().map(|line| line.trim_start_matches("# ")).collect();
    // Some are for files or for TLS, and the prefix needs a Redis, as their comments say.
    let not_alone = ["pace", "repeat", "redis_prefix", "certificate_sha256", "ca "];
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|line| !not_alone.iter().any(|key| line.starts_with(key)))
        .collect();
    let config = parsed(&format!("[[cameras]]\n{}", lines.join("\n")));
    assert_eq!(config.cameras[0].id, "cam-001");
    assert_eq!(config.cameras[0].settings, *json!({"score": 0.4}).as_object().unwrap());
}

#[test]
fn the_services_paths_stand_in_its_config() {
    let Config { models, logs, store, .. } = parsed(SERVICE);
    for path in [&models.directory, &logs.directory, &store.directory] {
        assert!(path.is_absolute(), "{path:?}");
    }
    assert!(!UNIT.contains("OCELLI_"), "a path that `ocelli check` would not see");
    let start = "ExecStart=/opt/ocelli/bin/ocelli serve --config /etc/ocelli/ocelli.toml";
    for line in ["StateDirectory=ocelli", "LogsDirectory=ocelli", start] {
        assert!(UNIT.contains(line), "{line}");
    }
}

#[test]
fn the_demo_config_is_valid() {
    assert_eq!(parsed(DEMO).cameras.len(), 1);
}

#[test]
fn a_redis_is_an_address_and_nothing_else_is_needed() {
    let redis = |text: &str| parsed(text).redis.unwrap();
    let all = redis("[redis]\nurl = \"rediss://u:hunter2@h:7/3\"\n");
    let (prefix, length, crops) = (all.prefix.as_str(), all.stream_length, all.crops);
    assert_eq!((prefix, length, crops, all.publish), ("ocelli:", 10_000, true, false));
    assert!(!format!("{all:?}").contains("hunter2"));
    for url in
        ["http://h", "redis://", "redis://h:x", "redis://u:hunter2@h/one", "unix:///redis.sock"]
    {
        let text = format!("[redis]\nurl = {url:?}\n");
        let error = Config::from_text(Path::new("test.toml"), &text, &[]).unwrap_err().to_string();
        assert!(error.contains("redis.url: expected redis://"), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_mqtt_broker_is_an_address_and_what_stands_in_topics_is_checked() {
    let refused = |more: &str| {
        let text = format!("[mqtt]\nurl = \"mqtt://u:hunter2@h\"\n{more}\n");
        let error = Config::from_text(Path::new("test.toml"), &text, &[]).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        error
    };
    let mqtt = parsed("[mqtt]\nurl = \"mqtts://u:hunter2@h\"\n").mqtt.unwrap();
    assert_eq!((mqtt.prefix.as_str(), mqtt.keep_alive_s), ("ocelli", 30));
    assert!(refused("prefix = \"a/+\"").contains("mqtt.prefix"));
    assert!(refused("name = \"#1\"").contains("mqtt.name"));
    assert!(refused("key = \"k.pem\"").contains("mqtt.key"));
    assert!(refused("ca = \"c.pem\"").contains("for mqtts://"));
    let text = "[mqtt]\nurl = \"http://u:hunter2@h\"\n";
    let error = Config::from_text(Path::new("test.toml"), text, &[]).unwrap_err().to_string();
    assert!(error.contains("mqtt.url: expected mqtt://") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_pipeline_is_granted_keys_of_redis_that_are_not_the_hosts() {
    let config = |redis: &str, prefix: &str| {
        let camera =
            "[[cameras]]\nid = \"a\"\nsource = \"file:a.mp4\"\npipeline = \"p\"\nredis_prefix = ";
        let text = format!("{redis}{camera}{prefix:?}\n");
        Config::from_text(Path::new("test.toml"), &text, &[]).map_err(|error| error.to_string())
    };
    let redis = "[redis]\nurl = \"redis://h\"\n";
    assert_eq!(config(redis, "app:").unwrap().cameras[0].redis_prefix.as_deref(), Some("app:"));
    assert!(config("", "app:").unwrap_err().contains("there is no [redis]"));
    for shared in ["ocelli:", "ocelli:events:", "o"] {
        assert!(config(redis, shared).unwrap_err().contains("keys in common"), "{shared}");
    }
}
