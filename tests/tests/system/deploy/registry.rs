//! Components in a registry: a camera's entry and a deployment name them, and what runs stays what
//! it was, whatever becomes of the tag and of the registry.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ocelli_testkit::{Ocelli, OciRegistry, program};
use serde_json::{Value, json};

use super::{COMMON, more_results, playing, version, watch};

/// Runs a command of the product.
fn ocelli(arguments: &[&str]) -> Output {
    let mut command = Command::new(program("ocelli"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["OCELLI_REGISTRY_USER", "OCELLI_REGISTRY_PASSWORD", "OCELLI_TOKEN"] {
        command.env_remove(variable);
    }
    command.env("DOCKER_CONFIG", "/nonexistent").output().unwrap()
}

/// Holds a command to having failed with one line that says this.
fn assert_one_line(output: &Output, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(said) && stderr.trim_end().lines().count() == 1, "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// Pushes a version of changeling. Returns the reference that is pinned to it.
fn push(folder: &Path, version_of: &str, reference: &str) -> String {
    let file = folder.join(format!("{version_of}.wasm"));
    std::fs::write(&file, version(version_of)).unwrap();
    let pushed = ocelli(&["pipeline", "push", file.to_str().unwrap(), reference]);
    assert!(pushed.status.success(), "{pushed:?}");
    let line = String::from_utf8(pushed.stdout).unwrap();
    let pinned = line.split(' ').next().unwrap().to_owned();
    assert!(pinned.starts_with(&format!("{reference}@sha256:")), "{line}");
    pinned
}

async fn runs(host: &Ocelli, version: &str) {
    let version = format!("changeling {version}");
    host.wait_for_session("cam", |session| {
        session["state"] == "running" && session["pipeline_version"] == *version
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_runs_what_its_reference_meant_until_it_is_deployed_anew() {
    let (mut registry, files) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let tag = registry.reference("team/changeling:1");
    let first = push(files.path(), "1.0.0", &tag);
    let config = format!("{COMMON}probation_s = 1\n{}", playing("cam", &tag, ""));
    let mut host = Ocelli::start(&config).await;
    runs(&host, "1.0.0").await;
    let record = host.wait_for_deployment("cam", |newest| newest["state"] == "healthy").await;
    assert_eq!(
        (&record["pipeline"], &record["cause"]),
        (&json!(tag), &json!("config")),
        "{record}"
    );
    let digest = record["digest"].clone();

    // The tag moves, and the registry goes away: a restart changes nothing.
    let second = push(files.path(), "1.1.0", &tag);
    host.cut_and_start_again().await;
    runs(&host, "1.0.0").await;
    registry.kill();
    host.cut_and_start_again().await;
    runs(&host, "1.0.0").await;
    assert_eq!(host.deployments("cam").await.len(), 1);

    // Other settings are those of the same component.
    host.edit_config(&format!(
        "{COMMON}probation_s = 1\n{}",
        playing("cam", &tag, "settings = { every = 10 }")
    ));
    let set = host.wait_for_deployment("cam", |newest| {
        newest["state"] == "healthy" && newest["settings"] == json!({"every": 10})
    });
    assert_eq!(set.await["digest"], digest);

    let recording = watch(&host, "cam").await;
    let url = format!("http://{}", host.address());
    let deploy = |reference: &str| ocelli(&["deploy", "cam", reference, "--url", &url]);
    assert_one_line(&deploy(&tag), "it cannot be reached: Connection refused");
    assert_one_line(
        &deploy("oci://registry.example/x:1"),
        "does not name the registry registry.example",
    );
    assert_one_line(&deploy("oci://registry.example/x"), "it names no version");
    let (status, problem) = host.deploy("cam", &format!("?pipeline={tag}"), b"").await;
    assert_eq!((status, &problem["code"]), (502, &json!("registry_failed")), "{problem}");
    assert_eq!(host.deployments("cam").await.len(), 2);

    registry.run();
    assert_one_line(
        &deploy(&registry.reference("team/changeling:2")),
        "it has no team/changeling:2",
    );
    let done = deploy(&tag);
    assert!(done.status.success(), "{done:?}");
    runs(&host, "1.1.0").await;
    let healthy = |newest: &Value| newest["state"] == "healthy" && newest["version"] == "1.1.0";
    host.wait_for_deployment("cam", healthy).await;
    let back = deploy(&first);
    assert!(back.status.success(), "{back:?}");
    runs(&host, "1.0.0").await;
    more_results(&recording, 3).await;
    assert!(second != first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_no_registry_gives_is_a_reason_of_the_session_and_is_tried_again() {
    let (mut registry, files) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let tag = registry.reference("changeling:1");
    push(files.path(), "1.0.0", &tag);
    registry.kill();
    let config = format!("{COMMON}{}", playing("cam", &tag, ""));
    let host = Ocelli::start(&config).await;
    let failed = host.wait_for_session("cam", |session| session["state"] == "failed").await;
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("it cannot be reached: Connection refused"), "{failed}");
    // By itself, once the registry is there.
    registry.run();
    runs(&host, "1.0.0").await;

    let file = files.path().join("none.wasm");
    std::fs::write(&file, "no component").unwrap();
    let refused = ocelli(&["pipeline", "push", file.to_str().unwrap(), &registry.reference("x:1")]);
    assert_one_line(&refused, "none.wasm: ");
    let good = files.path().join("1.0.0.wasm");
    let good = good.to_str().unwrap();
    assert_one_line(&ocelli(&["pipeline", "push", good, "registry.example/x:1"]), "oci://HOST");
    registry.kill();
    assert_one_line(&ocelli(&["pipeline", "push", good, &tag]), "it cannot be reached: ");
}
