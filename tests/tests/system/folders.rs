//! Folders: those of the host are its own, and a pipeline has those that it was granted.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use ocelli_testkit::{Ocelli, PipelineFolder, clip};
use serde_json::{Value, json};

/// A camera with the pipeline that does with files what it is told.
fn filer(id: &str, steps: &[Value], more: &str) -> String {
    let steps: Vec<String> = steps.iter().map(inline).collect();
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = \"filer\"\n\
         settings = {{ steps = [{}] }}\n{more}\n",
        steps.join(", ")
    )
}

/// A step as an inline table.
fn inline(step: &Value) -> String {
    let step = step.as_object().unwrap().iter().next().unwrap();
    format!("{{ {} = {} }}", step.0, step.1)
}

/// What came of each step in the first frame.
async fn answers(host: &Ocelli, session: &str) -> Vec<Value> {
    let mut client = host.client().await;
    client
        .send(&json!({"type": "subscribe", "session": session, "after": 0, "detections": false}))
        .await;
    let event = client.next_of("event").await;
    assert_eq!(event["kind"], "files", "{event}");
    event["data"]["answers"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_reaches_the_folders_that_it_was_granted_and_nothing_else() {
    let site = tempfile::tempdir().unwrap();
    let at = |name: &str| site.path().join(name);
    for folder in ["zones/day", "state"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("secret"), "secret").unwrap();
    std::fs::write(at("zones/gate"), "lane").unwrap();
    let secret = at("secret").display().to_string();
    for (target, link) in [("../secret", "up"), (secret.as_str(), "out"), ("gate", "in")] {
        symlink(target, at("zones").join(link)).unwrap();
    }
    let granted = format!(
        "[[cameras.directories]]\nhost = {:?}\nguest = \"/zones\"\n\
         [[cameras.directories]]\nhost = {:?}\nguest = \"/state\"\nwrite = true",
        at("zones").display().to_string(),
        at("state").display().to_string()
    );
    let good = [
        json!({"read": "/zones/gate"}),
        json!({"read": "/zones/in"}),
        json!({"read": "/zones/day/../gate"}),
        json!({"list": "/zones"}),
        json!({"write": ["/state/new", "state"]}),
        json!({"make_folder": "/state/sub"}),
        json!({"rename": ["/state/new", "/state/sub/moved"]}),
        json!({"read": "/state/sub/moved"}),
        json!({"fill": ["/state/large", 1 << 20]}),
        json!({"remove": "/state/large"}),
        json!({"list": "/state"}),
        json!({"rename": ["/state/sub", "/state/done"]}),
    ];
    let bad = [
        json!({"read": "/zones/up"}),
        json!({"read": "/zones/out"}),
        json!({"read": "/zones/../secret"}),
        json!({"read": secret}),
        json!({"read": "/etc/passwd"}),
        json!({"read": "/proc/self/environ"}),
        json!({"list": "/"}),
        json!({"write": ["/zones/new", ""]}),
        json!({"write": ["/zones/gate", ""]}),
        json!({"remove": "/zones/gate"}),
        json!({"rename": ["/zones/gate", "/state/gate"]}),
        json!({"make_folder": "/zones/sub"}),
        json!({"write": ["/state/../secret", ""]}),
        json!({"link": ["/state/done/moved", "/state/twice"]}),
        json!({"fill": ["/state/huge", 65 << 20]}),
    ];
    let store = PipelineFolder::with(&["filer"]);
    let config = store.section()
        + &filer("granted", &[good.as_slice(), &bad].concat(), &granted)
        + &filer("bare", &good, "");
    let host = Ocelli::start(&config).await;

    let got = answers(&host, "granted").await;
    let texts: Vec<_> = got[..good.len()].iter().map(|answer| answer["ok"].as_str()).collect();
    assert_eq!(
        texts,
        ["lane", "lane", "lane", "day gate in out up", "", "", "", "state", "", "", "sub", ""]
            .map(Some),
        "{got:#?}"
    );
    for (step, answer) in bad.iter().zip(&got[good.len()..]) {
        assert!(answer["error"].is_string(), "{step}: {answer}");
    }
    assert_eq!(std::fs::read(at("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read(at("zones/gate")).unwrap(), b"lane");
    assert_eq!(std::fs::read(at("state/done/moved")).unwrap(), b"state");
    assert!(std::fs::metadata(at("state/huge")).unwrap().len() <= 64 << 20);

    for (step, answer) in good.iter().zip(answers(&host, "bare").await) {
        assert!(answer["error"].is_string(), "without a grant: {step}: {answer}");
    }
    alone(&host.folder().join("logs"));
    alone(store.folder());
}

/// Whether nobody but the host's user reaches what lies in a folder of the host. What a test put
/// there itself is left out.
fn alone(folder: &Path) {
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("pipelines") {
                continue;
            }
            if path.is_dir() {
                assert_eq!(mode(&path), 0o700, "{}", path.display());
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 2, "{}", folder.display());
}
