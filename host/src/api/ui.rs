//! The dashboard: the files of `host/ui/dist`, which are in the program, for browsers.
//!
//! They hold nothing of the host and need no right; all that they show is asked for under the
//! caller's. Paths that the page itself understands answer with the page.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ocelli_protocol::digest::Digest;

use super::problem::Problem;
use crate::config::BasePath;

/// Paths and contents; `build.rs` makes the table.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/ui_files.rs"));

/// The file that is the page.
const INDEX: &str = "index.html";

/// What the addresses in the page begin with, of files and of the API.
const RELATIVE: &str = "\"./";

/// The folder of files whose names have a hash of their content.
const HASHED: &str = "assets/";

/// Paths that the page understands: those of `host/ui/src/router.ts`.
const PLACES: &[&str] = &[
    "/",
    "/add",
    "/cameras",
    "/cameras/{*place}",
    "/deployments",
    "/deployments/{*place}",
    "/events",
    "/login",
    "/system",
    "/zones",
    "/zones/{*place}",
];

/// What the page may load: its own files, pictures that it makes itself, and this API. Nothing is
/// inline, so that a text which a camera or a pipeline slips into the page runs nothing. `'self'`
/// covers WebSockets of the same host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Headers of each of its files.
const GUARDS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::VARY, "Accept-Encoding"),
];

/// A name with a hash never means anything else.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// The page is asked for anew each time: after an update of the host it names other files.
const ASK_AGAIN: &str = "no-cache";

/// A file as it is sent.
#[derive(Debug)]
struct DashboardFile {
    kind: &'static str,
    keep: &'static str,
    /// Weak: it stands for the compressed content too.
    tag: String,
    content: Bytes,
    /// Left out where that is not shorter.
    gzip: Option<Bytes>,
}

impl DashboardFile {
    fn new(path: &str, content: &'static [u8], base: &BasePath) -> Self {
        let content: Bytes = match std::str::from_utf8(content) {
            // Its own address may lie deeper: from there, a relative one would lead elsewhere.
            Ok(page) if path == INDEX => page.replace(RELATIVE, &format!("\"{base}/")).into(),
            _ => Bytes::from_static(content),
        };
        Self {
            kind: kind(path),
            keep: if path.starts_with(HASHED) { FOREVER } else { ASK_AGAIN },
            tag: format!("W/\"{:.32}\"", Digest::of(&content)),
            gzip: compressed(&content).map(Bytes::from),
            content,
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let cached = [(header::ETAG, self.tag.as_str()), (header::CACHE_CONTROL, self.keep)];
        let known = listed(headers, &header::IF_NONE_MATCH);
        if known.into_iter().any(|known| known == self.tag || known == "*") {
            return (StatusCode::NOT_MODIFIED, cached, GUARDS).into_response();
        }
        let kind = [(header::CONTENT_TYPE, self.kind)];
        match &self.gzip {
            Some(gzip) if takes_gzip(headers) => {
                let encoded = [(header::CONTENT_ENCODING, "gzip")];
                (cached, GUARDS, kind, encoded, gzip.clone()).into_response()
            }
            _ => (cached, GUARDS, kind, self.content.clone()).into_response(),
        }
    }
}

/// The files of a dashboard by their paths.
#[derive(Debug)]
struct Dashboard(HashMap<&'static str, DashboardFile>);

impl Dashboard {
    fn new(table: &[(&'static str, &'static [u8])], base: &BasePath) -> Self {
        let file = |path, content| (path, DashboardFile::new(path, content, base));
        let files = table.iter().map(|(path, content)| file(*path, content));
        Self(files.collect())
    }

    fn answer(&self, path: &str, headers: &HeaderMap) -> Response {
        let missing = || {
            let detail = "this host was built without its dashboard, which `./x ui` builds";
            Problem::new(StatusCode::NOT_FOUND, "no_dashboard", detail).into_response()
        };
        self.0.get(path).map_or_else(missing, |file| file.answer(headers))
    }
}

/// The routes of the dashboard, of a host whose addresses begin with `base`. They are no part of the
/// API.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(base: BasePath) -> Router<S> {
    // Compressed when the first browser asks: some 20 ms for 200 kB.
    let dashboard = LazyLock::new(move || Dashboard::new(EMBEDDED, &base));
    let paths = EMBEDDED.iter().map(|(path, _)| *path);
    routes_of(paths, Arc::new(move |path, headers| dashboard.answer(path, headers)))
}

/// Answers with the file of this path.
type AnswerFn = dyn Fn(&str, &HeaderMap) -> Response + Send + Sync;

fn routes_of<S: Clone + Send + Sync + 'static>(
    paths: impl Iterator<Item = &'static str>,
    answer: Arc<AnswerFn>,
) -> Router<S> {
    let file = |path: &'static str| {
        let answer = Arc::clone(&answer);
        get(async move |headers: HeaderMap| answer(path, &headers))
    };
    let mut router = Router::new();
    for path in paths.filter(|path| *path != INDEX) {
        router = router.route(&format!("/{path}"), file(path));
    }
    for place in PLACES {
        router = router.route(place, file(INDEX));
    }
    router
}

/// The media type by the name's end. Texts are UTF-8.
fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

/// As gzip, if that is shorter.
fn compressed(content: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    encoder.write_all(content).ok()?;
    encoder.finish().ok().filter(|gzip| gzip.len() < content.len())
}

/// The items of a header that is a list.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).collect()
}

/// Whether the client names gzip, and not to refuse it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    listed(headers, &header::ACCEPT_ENCODING).into_iter().any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|it| it > 0.0))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use flate2::read::GzDecoder;
    use tower_service::Service;

    use super::*;

    const SCRIPT: &[u8] = &[b'x'; 5000];

    static FILES: &[(&str, &[u8])] = &[
        ("assets/index-1a2b.js", SCRIPT),
        ("icon.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("index.html", b"<!doctype html><title>t</title>"),
    ];

    struct Answered {
        status: u16,
        headers: HeaderMap,
        body: Bytes,
    }

    impl Answered {
        fn header(&self, name: &HeaderName) -> &str {
            self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
        }
    }

    async fn ask(
        table: &'static [(&'static str, &'static [u8])],
        request: &str,
        header: Option<(HeaderName, &str)>,
    ) -> Answered {
        let dashboard = Dashboard::new(table, &BasePath::default());
        let paths = table.iter().map(|(path, _)| *path);
        let mut router: Router =
            routes_of(paths, Arc::new(move |path, headers| dashboard.answer(path, headers)));
        let (method, path) = request.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answered { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    #[tokio::test]
    async fn every_place_of_the_page_is_the_page_which_runs_nothing_but_its_own_files() {
        for place in ["/", "/login", "/cameras/gate", "/cameras/a%2Fb/zones", "/events", "/system"]
        {
            let page = ask(FILES, &format!("GET {place}"), None).await;
            assert_eq!((page.status, &*page.body), (200, FILES[2].1), "{place}");
            assert_eq!(page.header(&header::CONTENT_TYPE), "text/html; charset=utf-8");
            assert_eq!(page.header(&header::CACHE_CONTROL), "no-cache");
            assert_eq!(page.header(&header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            let policy = page.header(&header::CONTENT_SECURITY_POLICY);
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        }
        for other in ["/v1", "/camera", "/assets/index-0000.js", "/index.html", "/../x"] {
            assert_eq!(ask(FILES, &format!("GET {other}"), None).await.status, 404, "{other}");
        }
        assert_eq!(ask(FILES, "POST /", None).await.status, 405);
        let head = ask(FILES, "HEAD /", None).await;
        assert!(head.status == 200 && head.body.is_empty());
    }

    #[test]
    fn the_page_names_its_files_below_the_path_of_the_host() {
        let page: &[u8] = br#"<meta name="base" content="./" /><script src="./assets/a.js">"#;
        for (base, expected) in [
            ("", r#"<meta name="base" content="/" /><script src="/assets/a.js">"#),
            ("/a/b", r#"<meta name="base" content="/a/b/" /><script src="/a/b/assets/a.js">"#),
        ] {
            let base = base.parse().unwrap();
            assert_eq!(DashboardFile::new(INDEX, page, &base).content, expected);
            assert_eq!(DashboardFile::new("a.html", page, &base).content, page);
        }
        let (_, built) = EMBEDDED.iter().find(|(path, _)| *path == INDEX).unwrap();
        let built = std::str::from_utf8(built).unwrap();
        assert!(built.contains(r#"content="./""#) && built.contains(r#"src="./assets/"#));
        assert!(!built.contains("=\"/"), "an address that knows no base: {built}");
    }

    #[test]
    fn the_places_are_those_of_the_pages_own_router() {
        let router = include_str!("../../ui/src/router.ts");
        let words = |before: &str| -> Vec<&str> {
            let after = router.split(before).skip(1);
            after.filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
        };
        // Of one word, and of a word and a session's name.
        let alone = words("case \"").into_iter().map(|word| format!("/{word}"));
        let named = words("first === \"").into_iter().map(|word| format!("/{word}/{{*place}}"));
        let understood: BTreeSet<String> = alone.chain(named).chain(["/".to_owned()]).collect();
        let served: BTreeSet<String> = PLACES.iter().map(|&place| place.to_owned()).collect();
        assert_eq!(served, understood);
        assert_eq!(served.len(), PLACES.len(), "a place twice");
    }

    #[tokio::test]
    async fn a_name_with_a_hash_is_kept_and_what_a_browser_has_is_not_sent_again() {
        let script = ask(FILES, "GET /assets/index-1a2b.js", None).await;
        assert_eq!((script.status, &*script.body), (200, SCRIPT));
        assert_eq!(script.header(&header::CONTENT_TYPE), "text/javascript; charset=utf-8");
        assert_eq!(script.header(&header::CACHE_CONTROL), FOREVER);
        let icon = ask(FILES, "GET /icon.svg", None).await;
        assert_eq!(icon.header(&header::CACHE_CONTROL), "no-cache");
        assert_eq!(icon.header(&header::CONTENT_TYPE), "image/svg+xml");
        let page = ask(FILES, "GET /", None).await;
        let tag = page.header(&header::ETAG);
        let again = format!("\"other\", {tag}");
        let known = ask(FILES, "GET /", Some((header::IF_NONE_MATCH, again.as_str()))).await;
        assert!(known.status == 304 && known.body.is_empty());
        assert_eq!(known.header(&header::ETAG), tag);
        let stale = ask(FILES, "GET /", Some((header::IF_NONE_MATCH, "W/\"other\""))).await;
        assert_eq!(stale.status, 200);
        assert_ne!(tag, icon.header(&header::ETAG));
    }

    #[tokio::test]
    async fn who_takes_gzip_gets_it_where_it_is_shorter_and_nobody_else() {
        for (accepted, compressed) in [
            ("gzip, deflate, br", true),
            ("br;q=1, GZIP; q=0.5", true),
            ("gzip;q=0, br", false),
            ("br", false),
            ("", false),
        ] {
            let accept = Some((header::ACCEPT_ENCODING, accepted));
            let script = ask(FILES, "GET /assets/index-1a2b.js", accept).await;
            assert_eq!(script.header(&header::VARY), "Accept-Encoding");
            let encoding = script.header(&header::CONTENT_ENCODING);
            assert_eq!(encoding, if compressed { "gzip" } else { "" }, "{accepted}");
            if compressed {
                let mut content = Vec::new();
                GzDecoder::new(&*script.body).read_to_end(&mut content).unwrap();
                assert!(content == SCRIPT && script.body.len() < SCRIPT.len());
            } else {
                assert_eq!(&*script.body, SCRIPT);
            }
        }
        let short = ask(FILES, "GET /", Some((header::ACCEPT_ENCODING, "gzip"))).await;
        assert_eq!(short.header(&header::CONTENT_ENCODING), "", "it would be longer");
    }

    #[tokio::test]
    async fn a_host_without_a_dashboard_says_so() {
        let answer = ask(&[], "GET /", None).await;
        assert_eq!(answer.status, 404);
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["code"], "no_dashboard");
    }
}
