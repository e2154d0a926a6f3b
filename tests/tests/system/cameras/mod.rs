//! Cameras of the field: each case is a scripted camera that is odd in one way, and what the host
//! makes of it. The kinds come from public reports; `docs/cameras.md` shows what plays.

mod access;
mod answers;
mod description;
mod packets;
mod sessions;
mod streams;
mod table;

use std::fmt::Write;
use std::time::Duration;

use ocelli_testkit::camera::{Camera, Script};
use ocelli_testkit::{Ocelli, PipelineFolder};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Decoded pictures that count as playing: some GOPs.
const PICTURES: u64 = 30;

/// How long a host may take until all of its cases are decided. The slowest camera sends a picture
/// in six seconds.
const DECIDED: Duration = Duration::from_secs(45);

/// Between two looks at a host.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Most connections of a camera that plays: two of the strict reader's that stalled or broke off,
/// and the compatible reader's.
const MAX_PLAYS: usize = 3;

/// How long what does not play is watched for connections.
const WATCHED: Duration = Duration::from_secs(20);

/// Most connections of a camera that does not play, while it is watched: a fast retry would make
/// more of them. A redirect without end costs 16 at each try.
const MAX_TRIES: usize = 40;

/// Most warnings about one camera that does not play: one for each kind of fault that it goes
/// through.
const MAX_WARNINGS: usize = 3;

/// What becomes of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its pictures come.
    Plays,
    /// Its session is degraded, and the error has this word.
    Says(&'static str),
}

/// A camera that is odd in one way.
struct Case {
    /// Of the session, too.
    name: &'static str,
    /// What is odd.
    odd: &'static str,
    script: Script,
    fate: Fate,
    pictures: u64,
    /// Further keys of the camera.
    keys: String,
    /// A key and the text of the file that it names.
    file: Option<(&'static str, String)>,
    /// In the place of the camera's own.
    credentials: Option<&'static str>,
}

fn case(name: &'static str, odd: &'static str, script: Script, fate: Fate) -> Case {
    let (keys, file, credentials) = (String::new(), None, None);
    Case { name, odd, script, fate, pictures: PICTURES, keys, file, credentials }
}

/// A camera that plays.
fn plays(name: &'static str, odd: &'static str, script: Script) -> Case {
    case(name, odd, script, Fate::Plays)
}

/// A camera that no player plays; the error has to have this word.
fn says(name: &'static str, odd: &'static str, script: Script, word: &'static str) -> Case {
    case(name, odd, script, Fate::Says(word))
}

impl Case {
    /// How many pictures have to be decoded.
    fn pictures(mut self, pictures: u64) -> Self {
        self.pictures = pictures;
        self
    }

    /// Further keys of the camera.
    fn keys(mut self, keys: &str) -> Self {
        writeln!(self.keys, "{keys}").unwrap();
        self
    }

    /// A further key that names a file with this text.
    fn file(mut self, key: &'static str, text: &str) -> Self {
        self.file = Some((key, text.to_owned()));
        self
    }

    /// The host is given these credentials: `user:password@`, or none.
    fn credentials(mut self, credentials: &'static str) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Changes the camera once more.
    fn script(mut self, change: impl FnOnce(Script) -> Script) -> Self {
        self.script = change(self.script);
        self
    }
}

/// What a host made of a case.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    odd: &'static str,
    fate: Fate,
    pictures: u64,
    /// Its entry of `GET /v1/sessions`.
    session: Value,
    plays: usize,
    connections: usize,
    /// The warnings of its source in the host's log.
    warnings: Vec<String>,
    /// How long it was watched.
    watched: Duration,
    /// The end of the session's own log, where something is wrong.
    log: String,
}

impl Outcome {
    fn decoded(&self) -> u64 {
        self.session["frames"]["decoded"].as_u64().unwrap_or(0)
    }

    fn has_played(&self) -> bool {
        self.decoded() >= self.pictures
    }

    fn error(&self) -> &str {
        self.session["last_error"].as_str().unwrap_or_default()
    }

    /// Whether it is as it should be, so far as more pictures decide it.
    fn is_decided(&self) -> bool {
        match self.fate {
            Fate::Plays => self.has_played(),
            Fate::Says(word) => self.session["state"] == "degraded" && self.error().contains(word),
        }
    }

    /// What is wrong; none where all is right.
    fn complaint(&self) -> Option<String> {
        let Self { plays, connections, warnings, .. } = self;
        let wrong = match self.fate {
            _ if !self.is_decided() => "not as it should be".to_owned(),
            Fate::Plays if *plays > MAX_PLAYS => format!("{plays} connections that played"),
            Fate::Says(_) if *connections > MAX_TRIES => format!("{connections} connections"),
            Fate::Says(_) if warnings.len() > MAX_WARNINGS => {
                format!("{} warnings", warnings.len())
            }
            _ => return None,
        };
        Some(format!(
            "{} ({}): {wrong} after {:.0} s: {} pictures of {}, {plays} PLAY, {connections} \
             connections, {}: {}\n{}",
            self.name,
            self.odd,
            self.watched.as_secs_f64(),
            self.decoded(),
            self.pictures,
            self.session["state"],
            self.error(),
            self.log,
        ))
    }
}

/// A case whose camera runs.
struct Watched {
    name: &'static str,
    odd: &'static str,
    fate: Fate,
    pictures: u64,
    camera: Camera,
}

impl Watched {
    fn outcome(&self, sessions: &Value, log: &str, watched: Duration) -> Outcome {
        let Self { name, odd, fate, pictures, ref camera } = *self;
        let mut all = sessions["sessions"].as_array().expect("a list of sessions").iter();
        let place = camera.address().to_string();
        let warns = |line: &&str| line.contains("WARN ocelli::source") && line.contains(&place);
        Outcome {
            name,
            odd,
            fate,
            pictures,
            session: all.find(|session| session["id"] == name).cloned().unwrap_or_default(),
            plays: camera.asked("PLAY"),
            connections: camera.connections(),
            warnings: log.lines().filter(warns).map(str::to_owned).collect(),
            watched,
            log: String::new(),
        }
    }
}

/// The last lines of a session's own log.
fn end_of_log(host: &Ocelli, session: &str) -> String {
    let path = host.folder().join(format!("logs/detector_worker_camera_{session}.log"));
    let log = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(6)..].iter().map(|line| format!("    {line:.300}\n")).collect()
}

/// A host for many cameras whose pipelines cost little.
async fn watch(cases: Vec<Case>) -> Vec<Outcome> {
    let store = PipelineFolder::with(&["motion"]);
    let mut config = store.section();
    config += "[session_processes]\nmax_concurrent_sessions = 100\nhealth_check_interval = 60\n";
    config += "[alerts]\nno_results_s = 0\nrestarts_per_hour = 0\nsource_down_s = 0\n";
    let mut cameras = Vec::new();
    for Case { name, odd, script, fate, pictures, keys, file, credentials } in cases {
        let camera = Camera::start(script).await;
        let url = credentials.map_or_else(|| camera.url(), |words| camera.url_with(words));
        write!(
            config,
            "[[cameras]]\nid = {name:?}\nsource = {url:?}\npipeline = \"motion\"\n{keys}"
        )
        .unwrap();
        if let Some((key, text)) = file {
            let path = store.folder().join(format!("{name}-{key}"));
            std::fs::write(&path, text).unwrap();
            writeln!(config, "{key} = {:?}", path.display().to_string()).unwrap();
        }
        cameras.push(Watched { name, odd, fate, pictures, camera });
    }
    let host = Ocelli::start(&config).await;
    let begun = Instant::now();
    loop {
        let sessions: Value = serde_json::from_str(&host.get("/v1/sessions").await).unwrap();
        let log = host.log().text();
        let watched = begun.elapsed();
        let mut outcomes: Vec<_> =
            cameras.iter().map(|camera| camera.outcome(&sessions, &log, watched)).collect();
        let refused = outcomes.iter().any(|outcome| outcome.fate != Fate::Plays);
        let long_enough = !refused || watched > WATCHED;
        if watched > DECIDED || long_enough && outcomes.iter().all(Outcome::is_decided) {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.complaint().is_some()) {
                outcome.log = end_of_log(&host, outcome.name);
            }
            return outcomes;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Holds a host to playing those of these cameras that can be played.
async fn hold(mut cases: Vec<Case>) {
    cases.retain(|case| case.fate == Fate::Plays);
    decide(cases).await;
}

/// Holds a host to what it makes of these cameras.
async fn decide(cases: Vec<Case>) {
    let outcomes = watch(cases).await;
    let slowest = outcomes.iter().map(|outcome| outcome.watched).max().unwrap_or_default();
    println!("{} cameras in {:.1} s", outcomes.len(), slowest.as_secs_f64());
    let complaints: Vec<_> = outcomes.iter().filter_map(Outcome::complaint).collect();
    assert!(
        complaints.is_empty(),
        "{} of {} cases:\n{}",
        complaints.len(),
        outcomes.len(),
        complaints.join("\n")
    );
}

/// Every case, by the host that they share in a test.
fn all() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("Lines of answers", answers::lines()),
        ("Sessions and transports", answers::sessions()),
        ("Descriptions", description::all()),
        ("Passwords", access::passwords()),
        ("Redirects and TLS", access::redirects()),
        ("Keepalives", sessions::keepalives()),
        ("What comes in between", sessions::talk()),
        ("NAL units", packets::units()),
        ("Packets", packets::headers()),
        ("Datagrams", packets::datagrams()),
        ("Times", streams::times()),
        ("Rates and encodings", streams::encodings()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_player_plays_is_told_and_tried_again_at_a_bounded_rate() {
    let cases = all().into_iter().flat_map(|(_, cases)| cases);
    decide(cases.filter(|case| case.fate != Fate::Plays).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_slightly_off_are_understood() {
    hold(answers::lines()).await;
    hold(answers::sessions()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptions_as_cameras_write_them_are_understood() {
    hold(description::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_that_ask_for_a_password_get_it_and_redirects_are_followed() {
    hold(access::passwords()).await;
    hold(access::redirects()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keepalives_end_no_session() {
    hold(sessions::keepalives()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cameras_say_between_packets_ends_no_session() {
    hold(sessions::talk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_packets_cost_a_picture_at_most() {
    hold(packets::units()).await;
    hold(packets::headers()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_come_from_wherever_the_camera_sends_them() {
    hold(packets::datagrams()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_times_end_no_session() {
    hold(streams::times()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rates_and_encodings_give_pictures() {
    hold(streams::encodings()).await;
}
