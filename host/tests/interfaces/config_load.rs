//! Configs as operators write them, right and wrong: what is wrong is said by key, line and value,
//! all at once, and never with a credential.

use std::path::Path;

use ocelli::config::{
    CamerasPlace, Config, ConfigError, ConfigFile, MAX_ID_BYTES, TokenHash, check_session_id,
};
use proptest::prelude::*;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_text(Path::new("cams.toml"), text, &variables)
}

/// A config with the text of its file of cameras.
fn with_cameras(text: &str, cameras: &str) -> Result<ConfigFile, ConfigError> {
    let path = Path::new("site/cams.toml");
    ConfigFile::with_cameras(path, text, &[], |file| {
        assert_eq!(file, CamerasPlace::File(Path::new("site/more.toml")));
        Ok(Some(cameras.to_owned()))
    })
}

fn refused(text: &str) -> String {
    load(text, &[]).expect_err("this config is wrong").to_string()
}

fn camera(id: &str) -> String {
    format!("[[cameras]]\nid = {id:?}\nsource = \"file:clip.mp4\"\npipeline = \"object-detect\"\n")
}

#[test]
fn an_unknown_key_is_named_with_its_path_its_line_and_the_nearest_known_one() {
    assert_eq!(
        refused("[server]\n\n[session_processes]\nmax_concurent_sessions = 3\n"),
        "cams.toml: line 4: session_processes.max_concurent_sessions: unknown key; did you mean \
            max_concurrent_sessions?"
    );
    assert_eq!(
        refused("[session_processes.log_rotation]\nbackup_counts = 3\n"),
        "cams.toml: line 2: session_processes.log_rotation.backup_counts: unknown key; did you \
            mean backup_count?"
    );
    assert_eq!(
        refused("[resource_limits]\nmax_size_mb = 3\n"),
        "cams.toml: line 2: resource_limits.max_size_mb: unknown key here; did you mean \
         session_processes.log_rotation.max_size_mb?"
    );
    let camera = refused(&format!("{}sorce = \"x\"\n", camera("a")));
    assert_eq!(camera, "cams.toml: line 5: cameras[0].sorce: unknown key; did you mean source?");
    let far = refused("[store]\ntokens = []\n");
    assert_eq!(
        far,
        "cams.toml: line 2: store.tokens: unknown key here; did you mean server.tokens?"
    );
}

#[test]
fn a_wrong_value_is_shown_with_what_would_be_right() {
    let cases = [
        (
            "[session_processes]\nmax_concurrent_sessions = \"20\"",
            "line 2: session_processes.max_concurrent_sessions: expected an integer from 1 to \
                1000, found the string \"20\"",
        ),
        (
            "[session_processes]\nprocess_cleanup_timeout = 0",
            "line 2: session_processes.process_cleanup_timeout: expected an integer from 1 to \
                600, found the number 0",
        ),
        (
            "[session_processes]\nhealth_check_interval = 2.5",
            "line 2: session_processes.health_check_interval: expected an integer from 1 to 3600, \
                found the number 2.5",
        ),
        (
            "[resource_limits]\ngpu_memory_fraction = 1.01",
            "line 2: resource_limits.gpu_memory_fraction: expected a number from 0.01 to 1, found \
                the number 1.01",
        ),
        (
            "[resource_limits]\ngpu_memory_fraction = nan",
            "line 2: resource_limits.gpu_memory_fraction: expected a number from 0.01 to 1, found \
                the string \"nan\"",
        ),
        (
            "[subscriptions]\nsources = [\"rtsp://cams.example\", \"rtsp://10.0.0.\"]",
            "line 2: subscriptions.sources[1]: \"10.0.0.\" is neither a host's name, *.DOMAIN, \
                nor an address",
        ),
        (
            "[server]\norigins = [\"dash.example\"]",
            "line 2: server.origins[0]: expected SCHEME://HOST[:PORT] such as \
                https://dash.example, found \"dash.example\"",
        ),
        (
            "[server]\nhosts = [\"cams.example:80\"]",
            "line 2: server.hosts[0]: expected a host's name or address, without a port, found \
                \"cams.example:80\"",
        ),
        ("server = 3", "line 1: server: expected a table, found the number 3"),
        ("cameras = {}", "line 1: cameras: expected an array of tables, found a table"),
        (
            "[logs]\ndirectory = \"\"",
            "line 2: logs.directory: expected a string that is not empty, found the string \"\"",
        ),
        (
            "[server]\nlisten = \"localhost\"",
            "line 2: server.listen: expected ADDRESS:PORT such as 127.0.0.1:8001, found the \
                string \"localhost\"",
        ),
        (
            "[inference]\nisolation = \"thread\"",
            "line 2: inference.isolation: expected one of \"process\", \"session\", \
                \"in-process\", found the string \"thread\"",
        ),
        (
            "[inference]\npreload = [\n  \"a\",\n  7,\n]",
            "line 4: inference.preload[1]: expected a string that is not empty, found the number 7",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(refused(text), format!("cams.toml: {message}"));
    }
    let decode = refused(&format!("{}decode = \"some\"\n", camera("a")));
    assert!(
        decode.ends_with(
            "expected one of \"all\", \"reference\", \"key\", found the string \"some\""
        ),
        "{decode}"
    );
    let missing = refused("[[cameras]]\nid = \"a\"\n");
    assert!(
        missing.contains("cameras[0].source: missing")
            && missing.contains("cameras[0].pipeline: missing")
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = refused("[server]\nlisten = 1\nlistn = 2\n[stoer]\n");
    assert!(error.starts_with("cams.toml: 3 problems:\n  line "), "{error}");
    assert_eq!(error.lines().count(), 4, "{error}");
}

fn token(name: &str, text: &str, more: &str) -> String {
    let hash = TokenHash::of(text);
    format!("[[server.tokens]]\nname = {name:?}\nhash = \"{hash}\"\n{more}\n")
}

#[test]
fn an_address_that_strangers_reach_needs_a_token() {
    for listen in ["0.0.0.0:8001", "[::]:8001", "192.168.1.9:1"] {
        let section = format!("[server]\nlisten = {listen:?}\n");
        let error = refused(&section);
        let start = format!("cams.toml: line 2: server.listen: {listen} is not a loopback address");
        assert!(error.starts_with(&start), "{error}");
        assert!(
            error.contains("ocelli token new") && error.contains("listen on 127.0.0.1"),
            "{error}"
        );
        load(&format!("{section}{}", token("ann", "t", "role = \"viewer\"")), &[]).unwrap();
        // It takes its tokens from the site, and lets nobody in before.
        let site = "[cluster]\nsite = \"hall\"\nhost = \"a\"\naddress = \"http://10.0.0.1:1\"\n\
                    etcd = [\"http://127.0.0.1:2\"]\nnats = [\"nats://127.0.0.1:3\"]\n";
        load(&format!("{section}{site}"), &[]).unwrap();
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:8001", "[::ffff:127.0.0.1]:8001"] {
        load(&format!("[server]\nlisten = {listen:?}"), &[]).unwrap();
    }
}

#[test]
fn tokens_are_told_apart_by_name_and_hash_and_a_wrong_one_is_not_shown() {
    let (one, two) =
        (token("one", "1", "role = \"admin\""), token("two", "2", "role = \"viewer\""));
    load(&format!("{one}{two}sessions = [\"a\"]\nexpires = 2030-01-01T00:00:00+02:00\n"), &[])
        .unwrap();
    for (text, says) in [
        (
            format!("{one}{}", token("one", "2", "role = \"viewer\"")),
            "line 6: server.tokens[1].name: \"one\" is the name of",
        ),
        (
            format!("{one}{}", token("two", "1", "role = \"viewer\"")),
            "line 7: server.tokens[1].hash: it is the hash of",
        ),
        (
            token("local", "1", "role = \"viewer\""),
            "server.tokens[0].name: \"local\" is the name of callers",
        ),
        (
            token("NAME", "1", "role = \"viewer\"").replace("NAME", "a\u{200b}"),
            "server.tokens[0].name: a token's name is printable",
        ),
        (
            format!("{one}sessions = [\"a\"]"),
            "server.tokens[0].sessions: only a viewer's sessions are named",
        ),
        (token("one", "1", "role = \"root\""), "server.tokens[0].role: expected one of"),
        (
            format!("{one}expires = \"tomorrow\""),
            "server.tokens[0].expires: expected a time as RFC 3339",
        ),
        (
            format!("{one}expires = 2030-01-01"),
            "server.tokens[0].expires: expected a time as RFC 3339",
        ),
        (
            "[[server.tokens]]\nname = \"a\"\nhash = \"ocelli_s3cret\"\nrole = \"admin\"".into(),
            "line 3: server.tokens[0].hash: expected",
        ),
        (
            "[[server.tokens]]\nname = \"a\"\nhash = [\"ocelli_s3cret\"]\nrole = \"admin\"".into(),
            "server.tokens[0].hash: expected",
        ),
    ] {
        let error = refused(&text);
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_does_not_do_what_it_says_is_warned_of_when_it_is_set_and_only_then() {
    assert_eq!(Config::default().warnings(), Vec::<String>::new());
    let warnings = |text: &str| load(text, &[]).unwrap().warnings();
    let in_process = warnings("[inference]\nisolation = \"in-process\"\n");
    assert!(
        matches!(&in_process[..], [one] if one.contains("in-process") && one.contains("ends the host")),
        "{in_process:?}"
    );
    assert!(warnings("[inference]\nisolation = \"session\"\n").is_empty());
    let health = warnings("[session_processes]\nhealth_check_interval = 8\n");
    assert!(
        matches!(&health[..], [one] if one.contains("call_timeout_ms = \
            8000") && one.contains("hangs")),
        "{health:?}"
    );
    assert!(warnings("[session_processes]\nhealth_check_interval = 9\n").is_empty());
}

#[test]
fn a_device_that_is_none_is_refused_by_its_key() {
    for (text, key) in [
        ("[inference]\ndevice = \"gpu\"\n", "line 2: inference.device"),
        ("[inference]\ndevice = \"cuda:one\"\n", "line 2: inference.device"),
        (
            "[[inference.models]]\nname = \"eye\"\ndevice = \"cpu:0\"\n",
            "line 3: inference.models[0].device",
        ),
    ] {
        let error = refused(text);
        assert!(
            error.starts_with(&format!("cams.toml: {key}: ")) && error.contains("is no device"),
            "{error}"
        );
    }
    let error = refused("[[inference.models]]\nname = \"a\"\n[[inference.models]]\nname = \"a\"\n");
    assert!(error.contains("inference.models[1].name") && error.contains("already"), "{error}");
    let error =
        refused("[analyze]\nworkers = 1\n[[analyze.pipelines]]\nname = \"p\"\nworkers = 2\n");
    assert!(
        error.contains("analyze.pipelines") && error.contains("analyze.workers = 1"),
        "{error}"
    );
}

#[test]
fn values_that_depend_on_each_other_are_checked_together() {
    let error = refused("[resource_limits]\nmemory_per_process_mb = 128\nguest_memory_mb = 129\n");
    assert!(
        error.starts_with("cams.toml: line 3: resource_limits.guest_memory_mb: 129 is more than"),
        "{error}"
    );
    let three: String = ["a", "b", "c"].iter().map(|id| camera(id)).collect();
    let error = refused(&format!("{three}[session_processes]\nmax_concurrent_sessions = 2\n"));
    assert!(
        error.contains("3 cameras are more than session_processes.max_concurrent_sessions = 2"),
        "{error}"
    );
}

#[test]
fn cameras_have_unique_printable_names() {
    let error = refused(&format!("{}{}", camera("a"), camera("a")));
    assert_eq!(error, "cams.toml: line 6: cameras[1].id: \"a\" is the name of cameras[0] already");
    for id in ["display-001;cam-001", "Einfahrt Süd / 2", "カメラ", "..", "a'b\"c"] {
        check_session_id(id).unwrap();
    }
    let long = "x".repeat(MAX_ID_BYTES + 1);
    for id in ["", " a", "a ", "a\nb", "a\u{7f}", "a\u{202e}b", "a\u{200b}", long.as_str()] {
        assert!(check_session_id(id).is_err(), "{id:?}");
    }
    let error = refused(&camera("a").replace("\"a\"", "\"a\\u0007b\""));
    assert!(error.contains("cameras[0].id: ") && error.contains("U+0007"), "{error}");
}

#[test]
fn the_environment_overrides_the_file() {
    let config = load(
        "[server]\nlisten = \"127.0.0.1:1\"\n",
        &[
            ("OCELLI__INFERENCE__PRELOAD", "[\"nanodet\"]"),
            ("OCELLI__LOGS__DIRECTORY", "2024"),
            ("OCELLI__MODELS__DIRECTORY", "\"quoted\""),
            ("OCELLI__SERVER__LISTEN", "127.0.0.1:9"),
            ("OCELLI__SESSION_PROCESSES__LOG_ROTATION__BACKUP_COUNT", "7"),
            ("OCELLI_LOG", "debug"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 9);
    assert_eq!(config.session_processes.log_rotation.backup_count, 7);
    assert_eq!(config.logs.directory, Path::new("2024"));
    assert_eq!(config.models.directory, Path::new("quoted"));
    assert_eq!(config.inference.preload, ["nanodet"]);
}

#[test]
fn a_wrong_override_names_its_variable() {
    let cases = [
        ("OCELLI__SERVR__LISTEN", "x", "servr: unknown key; did you mean server?"),
        ("OCELLI__SERVER__LISTN", "x", "server.listn: unknown key; did you mean listen?"),
        (
            "OCELLI__SERVER__LISTEN",
            "0.0.0.0:80",
            "server.listen: 0.0.0.0:80 is not a loopback address",
        ),
        ("OCELLI__SERVER__LISTEN__PORT", "80", "no such key: what stands above it is a value"),
        (
            "OCELLI__INFERENCE__TIMEOUT_MS",
            "soon",
            "inference.timeout_ms: expected an integer from 1 to 600000",
        ),
        (
            "OCELLI__INFERENCE__TIMEOUT_MS",
            "5\nx = 1",
            "inference.timeout_ms: expected an integer from 1 to 600000",
        ),
        ("OCELLI__CAMERAS__0__ID", "a", "cameras cannot be set from the environment"),
        ("OCELLI__CAMERAS", "[]", "cameras cannot be set from the environment"),
        ("OCELLI__", "a", "not a key"),
        ("OCELLI__SERVER____LISTEN", "a", "not a key"),
    ];
    for (name, value, message) in cases {
        let error =
            load("[server]\nlisten = \"127.0.0.1:1\"\n", &[(name, value)]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cams.toml: environment variable {name}: {message}")),
            "{error}"
        );
    }
}

#[test]
fn json_is_read_by_its_ending_and_by_its_look() {
    let toml = format!("[inference]\nthreads = 2\n{}settings = {{ score = 0.4 }}\n", camera("a"));
    let json = r#"{"inference":{"threads":2},"cameras":[{"id":"a","source":"file:clip.mp4","pipeline":"object-detect",
                   "settings":{"score":0.4}}]}"#;
    let expected = load(&toml, &[]).unwrap();
    for name in ["cams.json", "cams"] {
        assert_eq!(Config::from_text(Path::new(name), json, &[]).unwrap(), expected);
    }
    let error =
        Config::from_text(Path::new("a.json"), r#"{"server":{"listn":1}}"#, &[]).unwrap_err();
    assert_eq!(error.to_string(), "a.json: server.listn: unknown key; did you mean listen?");
    let error = Config::from_text(Path::new("a.json"), "{\"server\":\n [}", &[]).unwrap_err();
    assert!(error.to_string().starts_with("a.json: not valid JSON, line 2, column 3: "), "{error}");
}

#[test]
fn a_file_that_is_not_there_or_cannot_be_read_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::load(&path).unwrap_err();
    assert!(matches!(error, ConfigError::Missing { .. }));
    let error = error.to_string();
    assert!(
        error.starts_with(&path.display().to_string()) && error.contains("--config"),
        "{error}"
    );
    let (_, example) = error.split_once("\n\n").unwrap();
    assert_eq!(
        load(example, &[]).unwrap().cameras.len(),
        1,
        "the example in the message is a valid config"
    );
    assert!(matches!(Config::load(folder.path()), Err(ConfigError::Unreadable { .. })));
    std::fs::write(folder.path().join("good.toml"), camera("a")).unwrap();
    assert_eq!(Config::load(&folder.path().join("good.toml")).unwrap().cameras.len(), 1);
}

#[test]
fn a_syntax_error_tells_line_and_column_and_not_the_line_itself() {
    let error = refused("[[cameras]]\nid = \"a\"\nsource = \"rtsp://user:hunter2@host/\nü");
    assert!(error.starts_with("cams.toml: not valid TOML, line 3, column "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_camera_whose_source_is_wrong_is_named_without_its_password() {
    let error = refused(
        "[[cameras]]\nid = \"gate\"\npipeline = \"p\"\nsource = \"ftp://user:hunter2@host/\"\n",
    );
    assert!(
        error.starts_with("cams.toml: line 4: cameras[0].source: camera \"gate\": "),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

proptest! {
    #[test]
    fn no_error_shows_what_stands_in_a_source(
        before in "[a-z:/@\\[\\]{}#=\"' \\\\]{0,12}",
        after in "[a-z:/@\\[\\]{}#=\"' \\\\\n]{0,12}",
        key in "source|sorce",
    ) {
        let texts = [
            format!("[[cameras]]\nid = \"a\"\npipeline = \"p\"\n{key} = \
                \"rtsp{before}QW3RTZ{after}"),
            format!("[[cameras]]\nid = \"a\"\npipeline = \"p\"\n{key} = \
                \"rtsp://u:{before}QW3RTZ{after}\"\n"),
            format!("[[cameras]]\nid = \"a\"\npipeline = \"p\"\n{key} = \
                [\"rtsp://u:QW3RTZ@h/\"]\n"),
            format!("{{\"cameras\":[{{\"id\":\"a\",\"pipeline\":\"p\",\"{key}\":\"{before}QW3RTZ{after}\"}}]}}"),
        ];
        for (index, text) in texts.iter().enumerate() {
            for name in ["a.toml", "a.json"] {
                let read = Config::from_text(Path::new(name), text, &[]);
                // As the text of another format, or with a list for a source, it is wrong whatever
                // stands in it.
                let wrong = index == 2 || (index == 3) == (name == "a.toml");
                prop_assert!(read.is_err() || !wrong, "{text} is taken as {name}");
                if let Err(error) = read {
                    prop_assert!(!format!("{error} {error:?}").contains("QW3RTZ"), "{error}");
                }
            }
        }
    }
}

const MORE: &str = "[server]\ncameras_file = \"more.toml\"\n";

#[test]
fn cameras_of_a_file_of_their_own_come_behind_those_of_the_config() {
    let file =
        with_cameras(&(camera("a") + MORE), &(camera("b") + "\n" + &camera("c"))).ok().unwrap();
    let names: Vec<&str> = file.config.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(file.camera_place("a"), Some((Path::new("site/cams.toml"), Some(2))));
    assert_eq!(file.camera_place("c"), Some((Path::new("site/more.toml"), Some(7))));
    assert_eq!(file.camera_place("d"), None);
    assert!(file.has_cameras_file);
    let named = file.config.server.cameras_file.as_deref();
    assert_eq!(named, Some(Path::new("site/more.toml")), "beside the config");
    assert_eq!(with_cameras(MORE, "# none\n").ok().unwrap().config.cameras, []);
    let problem = file.problem("cameras[2].pipeline", "is missing");
    assert_eq!(problem.to_string(), "site/more.toml: line 9: cameras[1].pipeline: is missing");
    let shown = problem.shown(&file.path, Some("c"));
    assert_eq!((shown.file.as_str(), shown.line), ("site/more.toml", Some(9)));
}

#[test]
fn what_is_wrong_in_a_file_of_cameras_is_told_with_its_own_place() {
    let cases = [
        (
            camera("b") + "sorce = \"x\"\n",
            "site/cams.toml: site/more.toml: line 5: cameras[0].sorce: unknown key; did you mean \
             source?",
        ),
        (
            camera("b") + "\n" + &camera("a"),
            "site/cams.toml: site/more.toml: line 7: cameras[1].id: \"a\" is the name of \
             cameras[0] of site/cams.toml already, in line 2",
        ),
        (
            camera("b") + "\n" + &camera("b"),
            "site/cams.toml: site/more.toml: line 7: cameras[1].id: \"b\" is the name of \
             cameras[0] already",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:1\"\n".to_owned(),
            "site/cams.toml: site/more.toml: line 1: server: a file of cameras has [[cameras]] \
             alone: this belongs into the config",
        ),
        (
            "cameras = \"b\"\n".to_owned(),
            "site/cams.toml: site/more.toml: line 1: cameras: expected tables of cameras, each \
             below [[cameras]]",
        ),
        ("[[cameras]]\nid = \"b".to_owned(), "site/more.toml: not valid TOML, line 2, column "),
    ];
    for (cameras, words) in cases {
        let error = with_cameras(&(camera("a") + MORE), &cameras).err().unwrap().to_string();
        assert!(error.starts_with(words), "{cameras}: {error}");
    }
    for (named, words) in [("cams.toml", "this file itself"), ("more.json", "TOML")] {
        let text = MORE.replace("more.toml", named);
        assert!(refused(&text).contains(words), "{named}: {}", refused(&text));
    }
    let empty = refused(&MORE.replace("more.toml", ""));
    assert!(empty.contains("server.cameras_file"), "{empty}");
}
