use std::collections::BTreeSet;

use serde_json::json;

use super::*;

const SHIPPED: &str = include_str!("../../../config/ocelli.toml");
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

/// A document's keys. The settings of a camera are the pipeline's.
fn document_keys(document: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let document = document.get(0).unwrap_or(document);
    for (key, below) in document.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        document_keys(below, &path, keys);
        keys.insert(path);
    }
}

#[test]
fn the_schema_and_the_types_have_the_same_keys() {
    let document = Document {
        server: Server {
            tls: Some(Tls { certificate: "c.pem".into(), key: "k.pem".into() }),
            tokens: vec![Token {
                name: "dash".into(),
                hash: TokenHash::of("token"),
                role: Role::Viewer,
                sessions: Some(vec!["cam".into()]),
                expires: Some(jiff::Timestamp::UNIX_EPOCH),
            }],
            ..Server::default()
        },
        session_processes: SessionProcesses::default(),
        resource_limits: ResourceLimits::default(),
        inference: Inference {
            threads: Some(1),
            library: Some("lib.so".into()),
            models: vec![ModelOptions {
                name: "eye".into(),
                device: Some(Device::Cpu),
                fallback: Some(Fallback::Cpu),
                max_batch: 1,
                batch_delay_ms: 1,
            }],
            ..Inference::default()
        },
        models: Models::default(),
        logs: Logs::default(),
        store: Store { cache: Some("cache".into()), ..Store::default() },
        events: Events::default(),
        redis: Some(serde_json::from_value(json!({"url": "redis://localhost"})).unwrap()),
        subscriptions: Subscriptions::default(),
        deploy: Deploy::default(),
        analyze: Analyze {
            pipelines: vec![AnalyzePipeline { name: "p".into(), workers: 1, settings: Map::new() }],
            ..Analyze::default()
        },
        alerts: Alerts::default(),
        cameras: vec![CameraTable {
            id: "cam".into(),
            source: "file:clip.mp4".into(),
            transport: Some(Transport::Udp),
            pace: Some(Pace::Realtime),
            repeat: true,
            pipeline: "object-detect".into(),
            settings: Map::new(),
            decode: Decode::Key,
            priority: Priority::Low,
            redis_prefix: Some("app:".into()),
        }],
    };
    let (mut ours, mut schemas) = (BTreeSet::new(), BTreeSet::new());
    document_keys(&serde_json::to_value(&document).unwrap(), "", &mut ours);
    schema_keys(&serde_json::from_str(SCHEMA).unwrap(), "", &mut schemas);
    assert_eq!(ours, schemas);
}

/// A document made of the schema's defaults.
fn schema_defaults(schema: &Value) -> Option<Value> {
    if let Some(default) = schema.get("default") {
        return Some(default.clone());
    }
    let properties = schema.get("properties")?.as_object()?;
    let members = properties.iter().filter_map(|(key, below)| Some((key.clone(), schema_defaults(below)?)));
    Some(Value::Object(members.collect()))
        .filter(|members| members.as_object().is_some_and(|m| !m.is_empty()))
}

#[test]
fn the_schema_and_the_types_have_the_same_defaults() {
    let defaults = schema_defaults(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let config = Config::from_text(Path::new("test.json"), &defaults.to_string(), &[]).unwrap();
    assert_eq!(config, Config::default());
    let mut ours = serde_json::to_value(Document::default()).unwrap();
    for (section, key) in
        [("inference", "threads"), ("inference", "library"), ("server", "tls"), ("store", "cache")]
    {
        ours[section].as_object_mut().unwrap().remove(key);
    }
    ours.as_object_mut().unwrap().remove("redis");
    assert_eq!(defaults, ours, "every key with a default has it in the schema");
}

#[test]
fn the_shipped_config_says_the_defaults_and_names_every_key() {
    assert_eq!(parsed(SHIPPED), Config::default());
    assert_eq!(parsed(""), Config::default());
    let mut keys = BTreeSet::new();
    schema_keys(&serde_json::from_str(SCHEMA).unwrap(), "", &mut keys);
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

#[test]
fn the_example_camera_of_the_shipped_config_is_valid_once_it_is_uncommented() {
    let (_, example) = SHIPPED.split_once("# [[cameras]]").unwrap();
    let lines: Vec<&str> = example.lines().map(|line| line.trim_start_matches("# ")).collect();
    // Pace and repeat are for files, and the prefix needs a Redis, as their comments say.
    let not_alone = ["pace", "repeat", "redis_prefix"];
    let lines: Vec<&str> =
        lines.into_iter().filter(|line| !not_alone.iter().any(|key| line.starts_with(key))).collect();
    let config = parsed(&format!("[[cameras]]\n{}", lines.join("\n")));
    assert_eq!(config.cameras[0].id, "cam-001");
    assert_eq!(config.cameras[0].settings, *json!({"score": 0.4}).as_object().unwrap());
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
    for url in ["http://h", "redis://", "redis://h:x", "redis://u:hunter2@h/one", "unix:///redis.sock"] {
        let text = format!("[redis]\nurl = {url:?}\n");
        let error = Config::from_text(Path::new("test.toml"), &text, &[]).unwrap_err().to_string();
        assert!(error.contains("redis.url: expected redis://"), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_pipeline_is_granted_keys_of_redis_that_are_not_the_hosts() {
    let config = |redis: &str, prefix: &str| {
        let camera = "[[cameras]]\nid = \"a\"\nsource = \"file:a.mp4\"\npipeline = \"p\"\nredis_prefix = ";
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
