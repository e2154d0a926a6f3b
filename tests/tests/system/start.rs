//! What a host refuses to start with: each with its exit status, and with what to do.

use std::path::Path;

use ocelli_testkit::{Ocelli, root, run_to_end};
use tempfile::TempDir;

use crate::camera;

/// A camera that is never reached: the host ends before.
fn some_camera() -> String {
    camera("cam", "rtsp://127.0.0.1:9/cam", "")
}

/// Runs a host that must end with `status` and these words.
async fn refused(config: &str, status: i32, words: &[&str]) {
    let exit = run_to_end(config).await;
    assert_eq!(exit.status, Some(status), "{}", exit.stderr);
    for word in words {
        assert!(exit.stderr.contains(word), "no {word:?} in: {}", exit.stderr);
    }
}

fn directory(path: &Path) -> String {
    format!("[models]\ndirectory = {:?}\n", path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_config_key_is_refused_with_its_line_and_the_nearest_key() {
    let config = "[resource_limits]\nmemory_per_proces_mb = 100\n";
    refused(config, 2, &["line 2", "memory_per_proces_mb", "memory_per_process_mb", "ocelli.toml"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_of_models_is_refused() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nowhere");
    let words = [missing.to_str().unwrap(), "models.directory"];
    refused(&(directory(&missing) + &some_camera()), 1, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_model_is_refused_by_name() {
    let config = "[inference]\npreload = [\"nanodet-h-999\"]\n".to_owned() + &some_camera();
    refused(&config, 1, &["nanodet-h-999"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_model_is_missing_fails_at_once_and_says_which() {
    let folder = TempDir::new().unwrap();
    let host = Ocelli::start(&(directory(folder.path()) + &some_camera())).await;
    let session = host.wait_for_session("cam", |session| session["state"] == "failed").await;
    let reason = session["reason"].as_str().unwrap();
    assert!(reason.contains("object-detect") && reason.contains("nanodet-g-320-int8"), "{reason}");
    assert_eq!(session["restarts"], 0, "trying again would not bring the model");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_changed_is_refused() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("nanodet-g-416");
    std::fs::create_dir(&model).unwrap();
    for file in ["model.toml", "model.onnx"] {
        std::fs::copy(root().join("models/nanodet-g-416").join(file), model.join(file)).unwrap();
    }
    let mut bytes = std::fs::read(model.join("model.onnx")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(model.join("model.onnx"), bytes).unwrap();
    let words = ["nanodet-g-416", "model.onnx", "sha256", "restore"];
    refused(&(directory(folder.path()) + &some_camera()), 1, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_onnx_runtime_is_refused() {
    let config =
        "[inference]\nlibrary = \"/nonexistent/libonnxruntime.so\"\n".to_owned() + &some_camera();
    refused(
        &config,
        1,
        &["ONNX Runtime", "/nonexistent/libonnxruntime.so", "./x setup", "inference.library"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_not_onnx_runtime_is_refused() {
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    std::fs::write(&library, b"not a library").unwrap();
    let config =
        format!("[inference]\nlibrary = {:?}\n", library.display().to_string()) + &some_camera();
    refused(&config, 1, &[library.to_str().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_compiles_what_its_cache_lacks_and_the_next_finds_it_there() {
    let folder = TempDir::new().unwrap();
    // All other tests' hosts have one that is not empty for long.
    let cache = folder.path().join("cache");
    let environment = [("OCELLI__STORE__CACHE", cache.to_str().unwrap())];
    let entries = || {
        std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let compiled = |host: &Ocelli| host.log().text().contains("compiled in ");

    let host = Ocelli::start_with(&some_camera(), &environment).await;
    assert!(compiled(&host), "{}", host.log().text());
    let first = entries();
    assert_eq!(first.len(), 1, "{first:?}");
    // Both at once have it.
    let next = Ocelli::start_with(&some_camera(), &environment).await;
    assert!(!compiled(&next), "{}", next.log().text());
    for host in [&host, &next] {
        host.wait_for_session("cam", |session| session["state"] == "degraded").await;
    }
    assert_eq!(entries(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_pipeline_is_refused_with_its_camera() {
    let config = some_camera().replace("object-detect", "object-detekt");
    refused(&config, 1, &["cam", "object-detekt", "pipelines"]).await;
}
