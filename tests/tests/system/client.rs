//! The client that Rust programs have, and the command that is made with it.

use std::process::Command;

use ocelli_client::{Client, Error, Message, Subscribe};
use ocelli_testkit::{ClientProcess, DEADLINE, Ocelli, PipelineFolder, Relay, program};
use serde_json::json;
use tokio::time::timeout;

use crate::delivery::eventful;

/// A name that has to be encoded in paths.
const GATE: &str = "display-001;gate/1";

/// A host with a session that makes an event of each frame, 25 a second. The folder of the
/// pipeline's name must outlive it.
async fn host() -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let host = Ocelli::start(&(store.section() + &eventful(GATE, "realtime"))).await;
    (store, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_off_resumes_and_gives_every_event_once_and_in_order() {
    const EVENTS: u64 = 200;
    const BETWEEN_CUTS: u64 = 20;
    let (_store, host) = host().await;
    let relay = Relay::to(host.address().port()).await;
    let client = Client::new(&format!("http://{}", relay.address())).unwrap();
    let mut subscriber = client.subscriber();
    subscriber.subscribe(Subscribe::to(GATE).after(0).detections(false)).await;
    let (mut last, mut lost) = (0, 0);
    while last < EVENTS {
        match timeout(DEADLINE, subscriber.next()).await.expect("a message in time") {
            Ok(Message::Event(event)) => {
                assert_eq!((event.session.as_str(), event.seq), (GATE, last + 1));
                last = event.seq;
                if last.is_multiple_of(BETWEEN_CUTS) {
                    relay.cut();
                }
            }
            Ok(message) => assert!(!matches!(message, Message::Error(_)), "{message:?}"),
            Err(error) => {
                assert!(matches!(error, Error::Disconnected(_)), "{error}");
                lost += 1;
            }
        }
    }
    // What had come before a cut is still read; a cut may fall into the time without a connection.
    assert!((2..=EVENTS / BETWEEN_CUTS).contains(&lost), "{lost} connections were lost");
    assert_eq!(relay.connections() as u64, lost + 1);
    let page = client.events(GATE, 0, 100).await.unwrap();
    assert_eq!((page.events.len(), page.next, page.oldest), (100, Some(100), 1));
    assert!(page.newest >= last, "{} and {last}", page.newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_for_all_that_a_host_tells_and_refusals_have_their_codes() {
    let (_store, host) = host().await;
    let client = Client::new(&format!("http://{}", host.address())).unwrap();
    assert!(client.is_ready().await.unwrap());
    let sessions = client.sessions().await.unwrap();
    assert_eq!(sessions.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), [GATE]);
    assert_eq!(client.session(GATE).await.unwrap().pipeline, "changeling");
    assert_eq!(client.restart(GATE).await.unwrap().id, GATE);
    let deployments = client.deployments(GATE, 5).await.unwrap();
    assert_eq!(deployments.iter().map(|record| record.number).collect::<Vec<_>>(), [1]);
    assert!(
        client
            .models()
            .await
            .unwrap()
            .models
            .iter()
            .any(|model| model.name == "nanodet-g-320-int8")
    );
    let Err(Error::Problem(problem)) = client.session("nobody").await else { panic!("no problem") };
    assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_session"));
    let Err(Error::Problem(problem)) = client.rollback(GATE).await else { panic!("no problem") };
    assert_eq!((problem.status, problem.code.as_str()), (409, "no_previous_version"));

    let mut subscriber = client.subscriber();
    subscriber.subscribe(Subscribe::to("nobody")).await;
    subscriber.subscribe(Subscribe::to(GATE)).await;
    subscriber.query(GATE, Some(&json!(7)), &json!({})).await.unwrap();
    let (mut refused, mut found, mut answered) = (false, false, false);
    while !(refused && found && answered) {
        match timeout(DEADLINE, subscriber.next()).await.expect("a message in time").unwrap() {
            Message::Error(refusal) if refusal.code == "unknown_session" => refused = true,
            // The session was started anew just before.
            Message::Error(refusal) if refusal.code == "not_running" => {
                subscriber.query(GATE, Some(&json!(7)), &json!({})).await.unwrap();
            }
            Message::Detections(detections) => found |= detections.session == GATE,
            Message::Answer { session, id, answer } => {
                assert_eq!((session.as_str(), id), (GATE, Some(json!(7))));
                answered = answer["frames"].is_u64();
            }
            Message::Error(refusal) => panic!("{refusal:?}"),
            _ => {}
        }
    }
    subscriber.close().await;
    client.delete(GATE).await.unwrap();
    assert!(client.sessions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_tells_is_printed_and_nothing_is_a_failure() {
    let (_store, host) = host().await;
    let watch = async |session: &str, more: &[&str]| {
        let mut command = Command::new(program("ocelli"));
        command.args(["watch", session, "--url", &format!("http://{}", host.address())]).args(more);
        timeout(DEADLINE, ClientProcess::start(&mut command).end()).await.expect("it ends in time")
    };
    let (good, said) = watch(GATE, &["--seconds", "3"]).await;
    assert!(good && said.contains("results/s") && said.contains("  event "), "{said}");
    assert!(said.starts_with(&format!("subscribed to session {GATE}, which is ")), "{said}");
    let (good, said) = watch("*", &["--seconds", "3", "--json"]).await;
    assert!(good && said.lines().all(|line| line.starts_with("{\"type\":\"")), "{said}");
    let (good, said) = watch("nobody", &[]).await;
    assert!(!good && said.is_empty(), "{said}");
}
