//! Every receiver gets every event, signed, in order and without a gap, whatever it does meanwhile;
//! and no other notices.

use std::time::Duration;

use ocelli_testkit::depth::is_full;
use ocelli_testkit::{
    HookReceiver, Ocelli, PipelineFolder, Random, Reception, Relay, client_python, clip, program,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// A camera that makes an event of each frame: 25 a second.
fn eventful(session: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {session:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 1 }}\n"
    )
}

/// A host with two such cameras.
async fn host(webhooks: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras = eventful("gate") + &eventful("yard");
    let host = Ocelli::start(&(store.section() + webhooks + &cameras)).await;
    (store, host)
}

const FROM_THE_BEGINNING: &str = "from = \"beginning\"";

/// What came without its doubles: every event from the first on, in order. Gives the last.
fn without_gap(numbers: &[u64]) -> u64 {
    let mut last = 0;
    for number in numbers {
        assert!(*number <= last + 1, "{number} follows {last}: {numbers:?}");
        last = last.max(*number);
    }
    last
}

fn reaches(session: &'static str, last: u64) -> impl Fn(&HookReceiver) -> bool {
    move |receiver| without_gap(&receiver.numbers(session)) >= last
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_what_subscribers_get_and_is_signed_as_others_verify_it() {
    let receiver = HookReceiver::start().await;
    let section = receiver.section("hook", FROM_THE_BEGINNING);
    let (_store, host) = host(&(section + "sessions = [\"gate\"]\n")).await;
    receiver.until("events", reaches("gate", 10)).await;
    assert!(receiver.numbers("yard").is_empty());
    let kept = host.events("gate").await;
    let taken = receiver.taken();
    let told = taken.iter().flat_map(|request| request.body["data"]["events"].as_array().unwrap());
    for (told, kept) in told.zip(&kept) {
        assert_eq!((&told["type"], &told["session"]), (&json!("event"), &json!("gate")));
        for name in ["seq", "time", "kind", "deployment", "frame", "detections", "data"] {
            assert_eq!(told[name], kept[name], "{name}");
        }
    }
    // By the libraries of those who wrote the standard.
    let checks = "import json,sys\nfrom standardwebhooks import Webhook, WebhookVerificationError\n\
        text, headers = json.load(sys.stdin)\nhook = Webhook(sys.argv[1])\n\
        hook.verify(text, headers)\n\
        try:\n hook.verify(text + ' ', headers)\nexcept WebhookVerificationError: print('good')";
    for request in taken.iter().take(2) {
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.body["type"], "ocelli.events");
        let given = json!([request.text, request.headers]).to_string();
        assert_eq!(python(checks, &[HookReceiver::SECRET], &given), "good\n");
    }
}

/// What a script of the clients' Python says.
fn python(script: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new(client_python());
    command.args(["-c", script]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_misbehaves_loses_nothing_and_holds_up_no_other() {
    let (odd, good) = (HookReceiver::with(Reception::Silent).await, HookReceiver::start().await);
    let more = "from = \"beginning\"\ntimeout_ms = 500\n";
    let sections = odd.section("odd", more) + &good.section("good", more);
    let (_store, host) = host(&sections).await;
    odd.until("a request that is not answered", |odd| odd.asked() > 0).await;
    for reception in [
        Reception::Answer(500, String::new()),
        Reception::Answer(503, "Retry-After: 1\r\n".into()),
        Reception::Answer(302, "Location: http://169.254.169.254/latest/meta-data/\r\n".into()),
        Reception::Hangup,
        Reception::HalfAnswer,
        Reception::Endless,
    ] {
        odd.set(reception.clone());
        let (asked, last) = (odd.asked(), without_gap(&good.numbers("gate")));
        odd.until(&format!("{reception:?}"), |odd| odd.asked() > asked).await;
        good.until("the other receiver goes on", reaches("gate", last + 1)).await;
    }
    odd.set(Reception::Take);
    let last = without_gap(&good.numbers("gate"));
    odd.until("everything that it lacks", reaches("gate", last)).await;
    without_gap(&odd.numbers("yard"));
    let errors = host.metric("ocelli_sink_errors_total{sink=\"webhook:odd\"}").await.unwrap();
    assert!(errors >= 3.0, "{errors}");
    assert_eq!(host.metric("ocelli_sink_errors_total{sink=\"webhook:good\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_never_taken_is_left_out_and_one_that_is_gone_is_asked_no_more() {
    let refusing = HookReceiver::with(Reception::Answer(422, String::new())).await;
    let gone = HookReceiver::with(Reception::Answer(410, String::new())).await;
    let sections = refusing.section("refusing", FROM_THE_BEGINNING)
        + &gone.section("gone", FROM_THE_BEGINNING);
    let (_store, host) = host(&sections).await;
    // Batches are halved until a single event is refused: that one is left out.
    refusing.until("many requests", |refusing| refusing.asked() > 40).await;
    refusing.set(Reception::Take);
    refusing.until("events", |refusing| !refusing.numbers("gate").is_empty()).await;
    let first = refusing.numbers("gate")[0];
    assert!(first > 1, "{first}");
    let refused = host.metric("ocelli_sink_refused_events_total{sink=\"webhook:refusing\"}").await;
    assert!(refused.unwrap() >= (first - 1) as f64, "{refused:?}");
    assert!(host.log().text().contains("never takes event 1, which is left out"));
    assert_eq!(gone.asked(), 1, "it has said that it is gone");
    assert_eq!(host.metric("ocelli_sink_up{sink=\"webhook:gone\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_reached_only_where_that_is_allowed() {
    let (kept, allowed) = (HookReceiver::start().await, HookReceiver::start().await);
    // `localhost` as a name: what it stands for is judged, and not what it is called.
    let name = format!("https://localhost:{}/", kept.address.port());
    let section = format!(
        "[[webhooks]]\nname = \"kept\"\nurl = {name:?}\nsecret = {:?}\nfrom = \"beginning\"\n",
        HookReceiver::SECRET
    );
    let metadata = section
        .replace("\"kept\"", "\"metadata\"")
        .replace(&format!("localhost:{}", kept.address.port()), "169.254.169.254")
        + "allow_private = true\n";
    let sections = section + &metadata + &allowed.section("allowed", FROM_THE_BEGINNING);
    let (_store, host) = host(&sections).await;
    allowed.until("events", reaches("gate", 5)).await;
    for (webhook, why) in
        [("kept", "allow_private is not set"), ("metadata", "no receiver is at such an address")]
    {
        let told = |line: &str| (line.contains(webhook) && line.contains(why)).then_some(());
        assert!(host.log().find(told).await.is_some(), "{webhook}");
    }
    assert_eq!(kept.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_at_random_cost_no_event_and_no_order() {
    let receiver = HookReceiver::start().await;
    let relay = Relay::to(receiver.address.port()).await;
    let section = receiver.section("hook", "from = \"beginning\"\nbatch_size = 4\n");
    let section = section.replace(&receiver.address.to_string(), &relay.address().to_string());
    let (_store, mut host) = host(&section).await;
    let mut random = Random::with_seed(7);
    for cut in 0..if is_full() { 100 } else { 10 } {
        let last = without_gap(&receiver.numbers("gate")) + random.u64(1..8);
        receiver.until("events between cuts", reaches("gate", last)).await;
        match cut % 10 {
            9 => host.cut_and_start_again().await,
            _ => relay.cut(),
        }
    }
    let last = host.events("gate").await.last().unwrap()["seq"].as_u64().unwrap();
    receiver.until("the rest", reaches("gate", last)).await;
    without_gap(&receiver.numbers("yard"));
    // What came twice came with the same content.
    let mut events = std::collections::BTreeMap::<(String, u64), Value>::new();
    for request in receiver.taken() {
        let session = request.body["data"]["session"].as_str().unwrap().to_owned();
        for event in request.body["data"]["events"].as_array().unwrap() {
            let place = (session.clone(), event["seq"].as_u64().unwrap());
            let first = events.entry(place).or_insert_with(|| event.clone());
            assert_eq!(first, event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_tries_a_webhook_of_the_config() {
    use std::process::Command;
    let receiver = HookReceiver::start().await;
    let config = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(config.path(), receiver.section("hook", "")).unwrap();
    let config = config.path().to_owned();
    let test = |name: &'static str| {
        let mut command = Command::new(program("ocelli"));
        command.args(["webhook", "test", name, "--config"]).arg(&config);
        async move { tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap() }
    };
    let run = test("hook").await;
    assert!(run.status.success(), "{run:?}");
    let taken = receiver.taken();
    assert_eq!((taken.len(), &taken[0].body["type"]), (1, &json!("ocelli.ping")));
    receiver.set(Reception::Answer(401, String::new()));
    let run = test("hook").await;
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(said.contains("HTTP status 401") && said.contains("busy"), "{said}");
    let run = test("hok").await;
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(said.contains("hok") && said.contains("hook"), "{said}");
    assert!(!said.contains("whsec_"), "{said}");
    receiver.set(Reception::Slow(Duration::from_millis(50)));
    assert!(test("hook").await.status.success());
}
