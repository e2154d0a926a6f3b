//! Against a real registry, and against one that lies.

use std::sync::Arc;

use hyper::header::HeaderValue;
use ocelli_testkit::{ClosedPort, FakeServer, OciRegistry, REGISTRY_LOGIN};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::manifest::{ArtifactManifest, Descriptor};
use super::*;

const MOST: u64 = 1 << 20;

fn reference(text: &str) -> OciReference {
    text.parse().unwrap()
}

async fn pull(text: &str, access: RegistryAccess) -> Result<Bytes, RegistryError> {
    let mut registry = Registry::new(&reference(text), access)?;
    let found = registry.find().await?;
    registry.fetch(found, MOST).await
}

async fn push(
    text: &str,
    component: &'static str,
    access: RegistryAccess,
) -> Result<Digest, RegistryError> {
    let interfaces = Interfaces { exports: vec!["a:b/c".into()], imports: vec!["d:e/f".into()] };
    let registry = Registry::new(&reference(text), access)?;
    registry.push(Bytes::from_static(component.as_bytes()), &interfaces).await
}

/// What a registry has under a path, as JSON.
async fn served(registry: &OciRegistry, path: &str) -> Value {
    let mut http = Http::new(&registry.address().to_string(), None, None).unwrap();
    let mut call = Call::get("a test", http.base.join(path).unwrap());
    call.headers.insert(ACCEPT, HeaderValue::from_static(manifest::MANIFEST));
    let answer = http.send(call, None).await.unwrap();
    serde_json::from_slice(&read(answer, MOST).await.unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn what_was_pushed_is_pulled_by_its_tag_until_that_moves_and_by_its_digest_for_ever() {
    let registry = OciRegistry::start();
    let (tag, access) = (registry.reference("team/loiter:1"), RegistryAccess::default);
    let first = push(&tag, "one", access()).await.unwrap();
    assert_eq!(pull(&tag, access()).await.unwrap(), "one");
    push(&tag, "two", access()).await.unwrap();
    push(&tag, "two", access()).await.unwrap();
    assert_eq!(pull(&tag, access()).await.unwrap(), "two");
    for pinned in [format!("team/loiter@sha256:{first}"), format!("team/loiter:1@sha256:{first}")] {
        assert_eq!(pull(&registry.reference(&pinned), access()).await.unwrap(), "one");
    }

    // As wkg has it.
    let manifest = served(&registry, &format!("v2/team/loiter/manifests/sha256:{first}")).await;
    let digest = manifest::written(&Digest::of("one"));
    assert_eq!(manifest["mediaType"], manifest::MANIFEST);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(
        manifest["layers"],
        json!([{"mediaType": "application/wasm", "digest": digest, "size": 3}])
    );
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = served(&registry, &format!("v2/team/loiter/blobs/{config}")).await;
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"], json!([digest]));
    assert_eq!(config["component"], json!({"exports": ["a:b/c"], "imports": ["d:e/f"]}));
    assert!(config["created"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{config}");

    let said = |error: RegistryError| error.to_string();
    let unknown = said(pull(&registry.reference("team/loiter:2"), access()).await.unwrap_err());
    assert!(unknown.ends_with("it has no team/loiter:2"), "{unknown}");
    let to_digest = push(&registry.reference(&format!("x@sha256:{first}")), "x", access()).await;
    assert!(said(to_digest.unwrap_err()).contains("pushed to a tag"));
}

#[tokio::test]
async fn a_login_is_given_where_one_is_asked_for_and_another_one_is_told() {
    let registry = OciRegistry::with_login();
    let tag = registry.reference("loiter:1");
    let access = |password: &str| {
        let (user, password) = (REGISTRY_LOGIN.0.to_owned(), password.to_owned());
        RegistryAccess { login: Some(RegistryUser { user, password }), ..RegistryAccess::default() }
    };
    push(&tag, "one", access(REGISTRY_LOGIN.1)).await.unwrap();
    assert_eq!(pull(&tag, access(REGISTRY_LOGIN.1)).await.unwrap(), "one");
    let without = pull(&tag, RegistryAccess::default()).await.unwrap_err();
    assert!(without.to_string().contains("it wants a login (HTTP status 401)"), "{without}");
    assert!(without.wants_login());
    let wrong = push(&tag, "two", access("wrong")).await.unwrap_err();
    assert!(wrong.to_string().contains("it wants another login (HTTP status 401)"), "{wrong}");
    assert_eq!(pull(&tag, access(REGISTRY_LOGIN.1)).await.unwrap(), "one");
}

#[tokio::test]
async fn a_registry_is_asked_over_tls_by_those_who_trust_it_alone() {
    let registry = OciRegistry::with_tls();
    let tag = registry.reference("loiter:1");
    let access = |ca| RegistryAccess { ca, plain_http: Some(false), ..RegistryAccess::default() };
    push(&tag, "one", access(Some(registry.certificate()))).await.unwrap();
    assert_eq!(pull(&tag, access(Some(registry.certificate()))).await.unwrap(), "one");
    let other = OciRegistry::with_tls();
    let strange = pull(&tag, access(Some(other.certificate()))).await.unwrap_err().to_string();
    assert!(strange.contains("cannot be reached") && strange.contains("certificate"), "{strange}");
    let missing = pull(&tag, access(Some("no.pem".into()))).await.unwrap_err().to_string();
    assert!(missing.contains("ca = no.pem"), "{missing}");
}

/// What a lying registry answers, by the request's method and path; anything else it does not know.
type Lies = Vec<(&'static str, Vec<u8>)>;

fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

/// A registry with a script, and the requests that it gets.
async fn lying(lies: Lies) -> (FakeServer, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::clone(&requests);
    let server = FakeServer::replying(move |request| {
        asked.lock().push(request.to_owned());
        let told = lies.iter().find(|(begin, _)| request.starts_with(begin));
        told.map_or_else(|| answer("404 Not Found", "", ""), |(_, answer)| answer.clone())
    });
    (server.await, requests)
}

fn a_manifest(component: &[u8], size: u64) -> String {
    let layer = Descriptor { size, ..Descriptor::of(manifest::LAYER, component) };
    let config = Descriptor::of(manifest::CONFIG, b"{}");
    let media_type = Some(manifest::MANIFEST.to_owned());
    let manifest = ArtifactManifest { schema_version: 2, media_type, config, layers: vec![layer] };
    serde_json::to_string(&manifest).unwrap()
}

const MANIFEST_OF_X: &str = "GET /v2/x/manifests/1 ";
const BLOB: &str = "GET /v2/x/blobs/";

#[tokio::test]
async fn a_registry_that_lies_gives_nothing_and_one_line() {
    let ok = |body: &str| answer("200 OK", "", body);
    let good = a_manifest(b"one", 3);
    let digest = Digest::of("one");
    let found = Digest::of("eno");
    let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let endless = [endless, b"400\r\n".to_vec(), vec![b'x'; 1024]].concat();
    let words = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[2J\\nway\"}]}";
    let scripts: Vec<(Lies, String)> = vec![
        (vec![(MANIFEST_OF_X, ok("<html>"))], "is no component: its manifest is not under".into()),
        (
            vec![(MANIFEST_OF_X, ok("{\"schemaVersion\":2,\"manifests\":[]}"))],
            "is no component: it is a list of manifests".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&" ".repeat(MAX_ANSWER as usize + 1)))],
            "the manifest: its answer is not understood: it is too long".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&good)), (BLOB, ok("eno"))],
            format!("another component than asked for: sha256:{found}, not sha256:{digest}"),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&good)), (BLOB, ok("one and more"))],
            "it has not the 3 bytes that its manifest says".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&good)), (BLOB, ok("on"))],
            "it has not the 3 bytes that its manifest says".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&good)), (BLOB, endless)],
            "it has not the 3 bytes that its manifest says".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&good)), (BLOB, answer("200 OK", "", "one")[..40].to_vec())],
            "the connection broke: ".into(),
        ),
        (
            vec![(MANIFEST_OF_X, ok(&a_manifest(b"one", MOST + 1)))],
            "has 1048577 bytes: a component has at most 1 MiB (deploy.max_component_mb)".into(),
        ),
        (vec![(MANIFEST_OF_X, ok(&good))], "it has no component x:1".into()),
        (
            vec![(MANIFEST_OF_X, answer("403 Forbidden", "", words))],
            "it wants a login (HTTP status 403): \"no [2J way\"".into(),
        ),
        (
            vec![(MANIFEST_OF_X, answer("500 Oh", "", "x".repeat(1 << 20)))],
            "the manifest: HTTP status 500".into(),
        ),
        (
            vec![(MANIFEST_OF_X, answer("307 There", "Location: /v2/x/manifests/1\r\n", ""))],
            "it leads on without end".into(),
        ),
        (
            vec![(MANIFEST_OF_X, answer("307 There", "Location: file:///etc/passwd\r\n", ""))],
            "it leads to file:///etc/passwd: this is no place on the web".into(),
        ),
        (
            vec![(MANIFEST_OF_X, answer("401 No", "WWW-Authenticate: Negotiate\r\n", ""))],
            "it asks for a login of no known kind".into(),
        ),
        (
            vec![(MANIFEST_OF_X, b"RTSP/1.0 200 OK\r\n\r\n".to_vec())],
            "the connection broke: ".into(),
        ),
    ];
    for (lies, expected) in scripts {
        let (server, _) = lying(lies).await;
        let told = pull(&format!("oci://{}/x:1", server.address), RegistryAccess::default()).await;
        let told = told.unwrap_err().to_string();
        assert!(told.contains(&expected), "{told}\n  {expected}");
        let one_line = told.starts_with("registry 127.0.0.1:") && !told.contains('\n');
        assert!(one_line && told.len() < 600, "{told}");
    }
    let (server, _) = lying(vec![("GET /v2/x/manifests/sha256:", ok(&good))]).await;
    let pinned = format!("oci://{}/x:1@sha256:{digest}", server.address);
    let told = pull(&pinned, RegistryAccess::default()).await.unwrap_err().to_string();
    assert!(told.contains("it serves another manifest than asked for"), "{told}");
}

#[tokio::test]
async fn a_registry_that_is_away_is_told() {
    let port = ClosedPort::new();
    let away = pull(&format!("oci://{}/x:1", port.address), RegistryAccess::default()).await;
    let away = away.unwrap_err();
    assert!(away.to_string().contains("it cannot be reached") && away.is_of_registry(), "{away}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_is_not_waited_for() {
    let server = FakeServer::silent().await;
    let late = pull(&format!("oci://{}/x:1", server.address), RegistryAccess::default()).await;
    let late = late.unwrap_err();
    assert!(late.to_string().contains(" took longer than ") && late.is_of_registry(), "{late}");
}

#[tokio::test]
async fn a_token_is_fetched_for_the_password_and_neither_follows_a_redirection() {
    let (store, of_store) = lying(vec![("GET /one", answer("200 OK", "", "one"))]).await;
    let place = format!("Location: http://{}/one\r\n", store.address);
    let good = a_manifest(b"one", 3);
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked = Arc::clone(&requests);
    let server = FakeServer::replying(move |request| {
        asked.lock().push(request.to_owned());
        let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name));
        let host = header("host: ").unwrap_or_default();
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"tests\"\r\n");
        let login = header("authorization: ").unwrap_or_default();
        if request.starts_with("GET /token?service=tests&scope=repository%3Ax%3Apull ") {
            // ann:hunter2
            assert_eq!(login, "Basic YW5uOmh1bnRlcjI=");
            answer("200 OK", "", "{\"access_token\":\"good\"}")
        } else if login != "Bearer good" {
            answer("401 Unauthorized", &challenge, "")
        } else if request.starts_with(MANIFEST_OF_X) {
            answer("200 OK", "", &good)
        } else {
            answer("307 There", &place, "")
        }
    })
    .await;
    let (user, password) = (REGISTRY_LOGIN.0.to_owned(), REGISTRY_LOGIN.1.to_owned());
    let login = Some(RegistryUser { user, password });
    let access = RegistryAccess { login, ..RegistryAccess::default() };
    let pulled = pull(&format!("oci://{}/x:1", server.address), access).await.unwrap();
    assert_eq!(pulled, "one");
    let of_store = of_store.lock();
    assert_eq!(of_store.len(), 1);
    assert!(!of_store[0].to_lowercase().contains("authorization"), "{of_store:?}");
    let tokens = requests.lock().iter().filter(|asked| asked.starts_with("GET /token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_registry_leads_the_host_neither_from_tls_nor_into_its_own_machine() {
    let (server, requests) = lying(vec![]).await;
    let mut http = Http::new("registry.example", None, None).unwrap();
    let plain = http.admit(&"http://store.example/".parse().unwrap()).unwrap_err();
    assert!(plain.to_string().contains("it is asked over TLS, and this is without"), "{plain}");
    for inside in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let url = format!("https://{inside}:{}/", server.address.port());
        let call = Call::get("a test", url.parse().unwrap());
        let fault = http.send(call, None).await.unwrap_err().to_string();
        assert!(fault.contains("this is this machine's own"), "{inside}: {fault}");
    }
    assert!(requests.lock().is_empty());
    assert_eq!(
        Http::new("docker.io", None, None).unwrap().base.host_str(),
        Some("registry-1.docker.io")
    );
    let schemes = ["localhost:5000", "127.0.0.1", "[::1]:5000", "10.0.0.1"]
        .map(|registry| Http::new(registry, None, None).unwrap().base.scheme().to_owned());
    assert_eq!(schemes, ["http", "http", "http", "https"]);
}
