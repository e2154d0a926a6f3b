//! How long real cameras are silent when a real host of their site dies or freezes: hosts with their
//! workers, cameras over RTSP, three servers of each engine, a subscriber at a host without cameras.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ocelli_testkit::{Cameras, Client, ClosedPort, Ocelli, PipelineFolder, Random, Site};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Environment;
use crate::paths::CLIP;
use crate::statistics::{largest, median};
use crate::table::Table;

/// Hosts, the subscriber's among them.
const HOSTS: usize = 10;

/// The host that has no cameras, and that is asked.
const ASKED: &str = "h0";

/// Cameras: as many as two cores serve beside ten hosts, where workers decode key frames alone.
const CAMERAS: usize = 30;

/// How long is listened before a fault, to know how often detections come.
const BEFORE: Duration = Duration::from_secs(8);

/// How long a host is frozen: three times the life of its lease.
const FROZEN: Duration = Duration::from_secs(15);

/// How long is listened from a fault on.
const AFTER: Duration = Duration::from_secs(25);

/// How long the site may take to be whole.
const WHOLE: Duration = Duration::from_secs(120);

/// Between two looks at the site.
const LOOK: Duration = Duration::from_millis(300);

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Takeovers {
    /// One for each fault.
    pub rows: Vec<TakeoverTimes>,
    /// Events that the subscriber got.
    pub events: u64,
    /// Those of them whose number does not follow the one before.
    pub gaps: u64,
}

/// What a fault cost. Times are in seconds from the fault on.
#[derive(Debug, Serialize)]
pub struct TakeoverTimes {
    /// What happens to a host.
    pub fault: Fault,
    /// How often it happened.
    pub rounds: usize,
    /// To the event that says that another host has the camera, of each camera.
    pub taken_over: Vec<f64>,
    /// To the first event of its pipeline there.
    pub first_event: Vec<f64>,
    /// To the first detections there.
    pub first_detections: Vec<f64>,
    /// The longest silence of another host's camera, in each round.
    pub others: Vec<f64>,
    /// The same before the fault: time from key frame to key frame.
    pub before: Vec<f64>,
}

/// What happens to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Fault {
    /// It gets SIGKILL, and is started again later.
    Killed,
    /// It gets SIGSTOP, and SIGCONT when others have its cameras.
    Frozen,
}

struct Host {
    ocelli: Ocelli,
    _pipelines: PipelineFolder,
}

/// What was heard of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Takeover,
    Event,
    Detections,
}

/// All that the subscriber heard.
#[derive(Default)]
struct HeardWords {
    words: Vec<(Instant, String, Word)>,
    last: BTreeMap<String, u64>,
    events: u64,
    gaps: u64,
}

/// Measures; `None`, and it has been said why, where an engine is missing.
pub async fn measure(environment: &Environment) -> Result<Option<Takeovers>> {
    let Some(site) = Site::cluster() else { return Ok(None) };
    let cameras = Cameras::start(&[], &[("/cam", CLIP)]);
    let first = start(&site, ASKED).await;
    let asked = &first.ocelli;
    let mut hosts = BTreeMap::new();
    for index in 1..HOSTS {
        let name = format!("h{index}");
        hosts.insert(name.clone(), start(&site, &name).await);
    }
    for camera in 0..CAMERAS {
        add(asked, camera, &cameras.url("/cam")).await?;
    }
    let draining = br#"{"draining":true}"#;
    let path = format!("/v1/cluster/hosts/{ASKED}/drain");
    let (status, answer) = asked.post(&path, "application/json", draining).await;
    ensure!(status == 200, "draining: {status} {answer}");
    let mut client = asked.client().await;
    for camera in 0..CAMERAS {
        client.subscribe(&id(camera)).await;
    }

    let mut heard = HeardWords::default();
    let mut rows = Vec::new();
    let mut random = Random::with_seed(21);
    for fault in [Fault::Killed, Fault::Frozen] {
        let mut row = TakeoverTimes {
            fault,
            rounds: environment.repeats,
            taken_over: Vec::new(),
            first_event: Vec::new(),
            first_detections: Vec::new(),
            others: Vec::new(),
            before: Vec::new(),
        };
        for _ in 0..environment.repeats {
            let owners = whole(asked, &mut client, &mut heard).await?;
            listen(&mut client, &mut heard, Instant::now() + BEFORE).await;
            let victims: BTreeSet<&String> = owners.values().collect();
            let victim = victims.iter().nth(random.usize(..victims.len())).context("no owner")?;
            let victim = (*victim).clone();
            let hit: BTreeSet<String> = owners
                .into_iter()
                .filter_map(|(camera, owner)| (owner == victim).then_some(camera))
                .collect();
            let host = &mut hosts.get_mut(&victim).context("who is that?")?.ocelli;
            round(host, fault, &hit, &mut client, &mut heard, &mut row).await?;
        }
        rows.push(row);
    }
    Ok(Some(Takeovers { rows, events: heard.events, gaps: heard.gaps }))
}

fn id(camera: usize) -> String {
    format!("cam-{camera}")
}

/// Starts a host of the site.
async fn start(site: &Site, name: &str) -> Host {
    let pipelines = PipelineFolder::with(&["changeling"]);
    let port = ClosedPort::new();
    let address = port.address;
    let (etcd, nats) = (json!(site.etcd.urls()), json!(site.nats.urls()));
    let config = format!(
        "[server]\nlisten = \"{address}\"\nedit_config = true\n[cluster]\nsite = \"bench\"\n\
         host = \"{name}\"\naddress = \"http://{address}\"\netcd = {etcd}\nnats = {nats}\n"
    ) + &pipelines.section();
    drop(port);
    Host { ocelli: Ocelli::start(&config).await, _pipelines: pipelines }
}

async fn add(host: &Ocelli, camera: usize, source: &str) -> Result<()> {
    let entry = json!({"source": source, "pipeline": "changeling", "decode": "key",
        "settings": {"every": 1}});
    let path = format!("/v1/config/cameras/{}", id(camera));
    let (status, answer) = host.put(&path, entry.to_string().as_bytes()).await;
    ensure!((200..300).contains(&status), "adding a camera: {status} {answer}");
    Ok(())
}

/// Waits until all hosts live and each camera has been heard at its owner's; with the owners.
async fn whole(
    host: &Ocelli,
    client: &mut Client,
    heard: &mut HeardWords,
) -> Result<BTreeMap<String, String>> {
    let (begun, mut from) = (Instant::now(), heard.words.len());
    let mut known = BTreeMap::new();
    loop {
        let site: Value = serde_json::from_str(&host.get("/v1/cluster").await)?;
        let list = |key| site.get(key).and_then(Value::as_array).into_iter().flatten();
        let hosts = list("hosts").count();
        let cameras = list("cameras");
        let owners: BTreeMap<String, String> = cameras
            .filter_map(|camera| {
                let owner = text(camera, "host").filter(|owner| *owner != ASKED)?;
                Some((text(camera, "id")?.to_owned(), owner.to_owned()))
            })
            .collect();
        if owners != known {
            (known, from) = (owners, heard.words.len());
        }
        let words = heard.words.iter().skip(from);
        let speak: BTreeSet<&String> = words.map(|(_, camera, _)| camera).collect();
        if hosts == HOSTS && known.len() == CAMERAS && speak.len() == CAMERAS {
            return Ok(known);
        }
        ensure!(begun.elapsed() < WHOLE, "the site does not become whole: {site}");
        listen(client, heard, Instant::now() + LOOK).await;
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

async fn listen(client: &mut Client, heard: &mut HeardWords, until: Instant) {
    while let Ok(message) = timeout_at(until, client.next()).await {
        let Some(camera) = text(&message, "session") else { continue };
        let word = match text(&message, "type") {
            Some("detections") => Word::Detections,
            Some("event") if text(&message, "kind") == Some("takeover") => Word::Takeover,
            Some("event") => Word::Event,
            _ => continue,
        };
        let seq = message.get("seq").and_then(Value::as_u64);
        if let Some(seq) = seq.filter(|_| word != Word::Detections) {
            heard.events += 1;
            let before = heard.last.insert(camera.to_owned(), seq);
            heard.gaps += u64::from(before.is_some_and(|before| seq != before + 1));
        }
        heard.words.push((Instant::now(), camera.to_owned(), word));
    }
}

async fn round(
    host: &mut Ocelli,
    fault: Fault,
    hit: &BTreeSet<String>,
    client: &mut Client,
    heard: &mut HeardWords,
    row: &mut TakeoverTimes,
) -> Result<()> {
    let begun = Instant::now();
    match fault {
        Fault::Killed => host.process().signal(Signal::KILL),
        Fault::Frozen => host.process().signal(Signal::STOP),
    }
    listen(client, heard, begun + FROZEN).await;
    if fault == Fault::Frozen {
        host.process().signal(Signal::CONT);
    }
    listen(client, heard, begun + AFTER).await;
    for camera in hit {
        let words = heard.words.iter().filter(|(time, of, _)| *time > begun && of == camera);
        let mut words = words.skip_while(|(_, _, word)| *word != Word::Takeover);
        let after = |time: &Instant| time.duration_since(begun).as_secs_f64();
        let (taken, ..) = words.next().with_context(|| format!("nobody took {camera} over"))?;
        row.taken_over.push(after(taken));
        let rest: Vec<_> = words.collect();
        for (wanted, times) in
            [(Word::Event, &mut row.first_event), (Word::Detections, &mut row.first_detections)]
        {
            let first = rest.iter().find(|(_, _, word)| *word == wanted);
            let (time, ..) = first.with_context(|| format!("no {wanted:?} of {camera}"))?;
            times.push(after(time));
        }
    }
    row.before.push(silence(heard, hit, begun - BEFORE, begun));
    row.others.push(silence(heard, hit, begun, begun + AFTER));
    if fault == Fault::Killed {
        host.cut_and_start_again().await;
    }
    Ok(())
}

/// The longest time without detections of a camera that was not hit, in seconds.
fn silence(heard: &HeardWords, hit: &BTreeSet<String>, from: Instant, to: Instant) -> f64 {
    let mut longest = Duration::ZERO;
    for camera in (0..CAMERAS).map(id).filter(|camera| !hit.contains(camera)) {
        let mut last = from;
        let words = heard.words.iter().filter(|(time, of, word)| {
            *of == camera && *word == Word::Detections && (from..to).contains(time)
        });
        for time in words.map(|(time, ..)| *time).chain([to]) {
            longest = longest.max(time.duration_since(last));
            last = time;
        }
    }
    longest.as_secs_f64()
}

impl Display for Takeovers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## A host of a site dies\n")?;
        writeln!(
            f,
            "{HOSTS} hosts, {CAMERAS} cameras over RTSP whose workers decode key frames, one each \
             two seconds; three servers of each engine. Median / longest, in seconds from the fault \
             on. Of {} events that a subscriber at another host got, {} did not follow the one \
             before.",
            self.events, self.gaps
        )?;
        let mut table = Table::new([
            "a host is",
            "rounds, cameras",
            "taken over",
            "first event",
            "first detections",
            "others silent, before",
        ]);
        let both = |times: &[f64]| format!("{:.1} / {:.1}", median(times), largest(times));
        for row in &self.rows {
            table.row([
                format!("{:?}", row.fault).to_lowercase(),
                format!("{}, {}", row.rounds, row.taken_over.len()),
                both(&row.taken_over),
                both(&row.first_event),
                both(&row.first_detections),
                format!("{:.1}, {:.1}", largest(&row.others), largest(&row.before)),
            ]);
        }
        table.fmt(f)
    }
}
