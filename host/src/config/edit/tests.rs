//! Texts before and after a change.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::config::{Config, Role, TokenHash};

const CONFIG: &str = r#"# The site.
[server]
listen = "127.0.0.1:8001" # the proxy's

# ---- cameras ----

# The gate, over the door.
[[cameras]]
id = "gate"
source = "rtsp://eye:s3cret@10.0.0.5/main" # the main stream
pipeline = "object-detect"
  [cameras.settings]
  # Cars are none of our business.
  labels = ["person"]
  threshold = 0.50

# Two.
[[cameras]]
pipeline = "object-detect"
id = 'yard'
source = "rtsp://10.0.0.6/"

[alerts]
restarts_per_hour = 3
"#;

fn table(value: Json) -> Map<String, Json> {
    let Json::Object(table) = value else { panic!("{value} is no object") };
    table
}

fn put(id: &str, value: Json) -> Result<String, ChangeError> {
    changed(CONFIG, &ConfigChange::PutCamera { id: id.to_owned(), table: table(value) })
}

#[test]
fn a_value_changes_and_everything_else_stays_as_it_is_written() {
    let gate = camera(CONFIG, "gate").unwrap().unwrap();
    assert_eq!(gate["source"], "rtsp://***:***@10.0.0.5/main");
    let same = put("gate", Json::Object(gate.clone())).unwrap();
    assert_eq!(same, CONFIG, "what was read can be put back");
    let mut other = gate;
    other["settings"]["threshold"] = json!(0.6);
    other["settings"]["zones"] = json!([{"name": "door", "area": [[0, 0], [1.5, 2]]}]);
    let text = put("gate", Json::Object(other)).unwrap();
    let expected = CONFIG.replace(
        "threshold = 0.50\n",
        "threshold = 0.6\nzones = [{ area = [[0, 0], [1.5, 2]], name = \"door\" }]\n",
    );
    let plain = |text: &str| text.replace("  zones", "zones");
    assert_eq!(plain(&text), plain(&expected));
}

#[test]
fn a_key_comes_and_a_key_goes() {
    let text = put(
        "yard",
        json!({"source": "rtsp://10.0.0.6/sub", "pipeline": "object-detect", "decode": "key"}),
    );
    let expected = CONFIG.replace("10.0.0.6/\"\n", "10.0.0.6/sub\"\ndecode = \"key\"\n");
    assert_eq!(text.unwrap(), expected);
    let gate = json!({"source": "rtsp://***:***@10.0.0.5/main", "pipeline": "object-detect"});
    let text = put("gate", gate).unwrap();
    assert!(!text.contains("settings") && text.contains("# the main stream"), "{text}");
    assert!(text.contains("s3cret") && text.contains("# The gate"), "{text}");
}

#[test]
fn a_new_camera_stands_behind_the_others() {
    let new = json!({"source": "rtsp://10.0.0.7/", "pipeline": "x", "settings": {"a": {"b": 1}}});
    let text = put("new \"one\"", new.clone()).unwrap();
    let entry = "source = \"rtsp://10.0.0.6/\"\n\n[[cameras]]\nid = 'new \"one\"'\n";
    assert!(text.contains(entry), "{text}");
    assert!(text.contains("[cameras.settings]\na = { b = 1 }\n"), "{text}");
    assert!(text.ends_with("[alerts]\nrestarts_per_hour = 3\n"), "{text}");
    let read = camera(&text, "new \"one\"").unwrap().unwrap();
    assert_eq!((&read["settings"], read.len()), (&new["settings"], 4));
    let pasted = ConfigChange::PutCamera { id: "a".into(), table: table(new) }.toml().unwrap();
    assert!(pasted.starts_with("[[cameras]]\nid = \"a\"\n"), "{pasted}");
    for empty in ["", "# nothing yet\n", "cameras = []\n"] {
        let change =
            ConfigChange::PutCamera { id: "a".into(), table: table(json!({"source": "file:x"})) };
        let text = changed(empty, &change).unwrap();
        assert_eq!(camera(&text, "a").unwrap().unwrap()["source"], "file:x", "{text}");
        assert!(text.starts_with(empty.trim_start_matches("cameras = []\n")), "{text}");
    }
}

#[test]
fn a_camera_goes_with_what_is_written_about_it_alone() {
    let remove =
        |text: &str, id: &str| changed(text, &ConfigChange::RemoveCamera { id: id.to_owned() });
    let text = remove(CONFIG, "gate").unwrap();
    assert!(!text.contains("over the door") && !text.contains("s3cret"), "{text}");
    assert!(text.contains("# ---- cameras ----") && text.contains("# Two."), "{text}");
    let text = remove(&text, "yard").unwrap();
    assert!(!text.contains("cameras]]") && text.contains("[alerts]"), "{text}");
    let unknown = remove(&text, "yard").unwrap_err();
    assert_eq!(unknown, ChangeError::Unknown("camera", "yard".into()));
}

#[test]
fn a_source_that_does_not_parse_is_hidden_whole_and_goes_back_unchanged() {
    for source in ["rtsp://eye:s3/cret@10.0.0.5/main", "rtspx://eye:s3cret@10.0.0.5/main"] {
        let config = CONFIG.replace("rtsp://eye:s3cret@10.0.0.5/main", source);
        assert_ne!(config, CONFIG);
        let gate = camera(&config, "gate").unwrap().unwrap();
        assert_eq!(gate["source"], "***", "{source}");
        let change = ConfigChange::PutCamera { id: "gate".into(), table: gate };
        assert_eq!(changed(&config, &change).unwrap(), config);
    }
}

#[test]
fn a_hidden_secret_is_kept_for_its_own_machine_alone() {
    let source = |source: &str| put("gate", json!({"source": source, "pipeline": "p"}));
    let text = source("rtsp://***:***@10.0.0.5/sub").unwrap();
    assert!(text.contains("rtsp://eye:s3cret@10.0.0.5/sub"), "{text}");
    for other in [
        "rtsp://***:***@10.0.0.9/main",
        "rtsp://***:***@10.0.0.5:8554/main",
        "rtsp://***:***@10.0.0.5/main?token=***",
    ] {
        assert_eq!(source(other), Err(ChangeError::Hidden), "{other}");
    }
    let new = json!({"source": "rtsp://***:***@10.0.0.5/main", "pipeline": "p"});
    assert_eq!(put("new", new), Err(ChangeError::Hidden));
    let text = source("rtsp://a:b@10.0.0.9/").unwrap();
    assert!(text.contains("rtsp://a:b@10.0.0.9/") && !text.contains("s3cret"), "{text}");
}

#[test]
fn tokens_come_and_go() {
    let add = |text: &str, name: &str| {
        let table = table(json!({"name": name, "hash": "sha256:00", "role": "viewer"}));
        changed(text, &ConfigChange::AddToken { table })
    };
    let text = add(CONFIG, "ann").unwrap();
    let read: toml::Table = text.parse().unwrap();
    assert_eq!(read["server"]["tokens"][0]["name"].as_str(), Some("ann"), "{text}");
    assert!(text.contains("# the proxy's\n\n[[server.tokens]]\nname = \"ann\"\n"), "{text}");
    assert_eq!(add(&text, "ann"), Err(ChangeError::Exists("ann".into())));
    let text = add(&text, "bob").unwrap();
    let removed = changed(&text, &ConfigChange::RemoveToken { name: "ann".into() }).unwrap();
    assert!(!removed.contains("ann") && removed.contains("bob"), "{removed}");
    let hash = TokenHash::of("text");
    let (role, sessions, expires) = (Role::Viewer, None, None);
    let token = Token { name: "eve".into(), hash, role, sessions, expires };
    let change = ConfigChange::add_token(&token);
    let (text, pasted) = (changed("", &change).unwrap(), change.toml().unwrap());
    assert_eq!(text.trim_start(), pasted);
    let config = Config::from_text(Path::new("a.toml"), &text, &[]).unwrap();
    assert_eq!(config.server.tokens, [token], "{text}");
}

#[test]
fn what_cannot_be_changed_in_place_is_left_alone() {
    let change = ConfigChange::RemoveCamera { id: "a".into() };
    let inline = changed("cameras = [{ id = \"a\" }]\n", &change);
    assert_eq!(inline, Err(ChangeError::Form("cameras")));
    let broken = changed("source = \"rtsp://u:s3cret@h/\nx", &change).unwrap_err().to_string();
    assert!(broken.contains("not TOML") && !broken.contains("s3cret"), "{broken}");
    let null = put("gate", json!({"source": "file:x", "pipeline": "p", "settings": {"a": null}}));
    assert_eq!(null, Err(ChangeError::Null("settings.a".into())));
}
