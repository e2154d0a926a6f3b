//! A client without a host: it writes the bytes that the host's sink writes, in the same batches,
//! each acknowledged before the next, from memory and without any guarantee.

use std::collections::VecDeque;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use rumqttc::{AsyncClient, Broker, Event, MqttOptions, Packet, PublishOptions};
use rustix::time::ClockId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{HOST, STREAM_LENGTH, SinkKind};
use crate::bare::seconds;

/// Events of one transaction of Redis, and messages that a broker has not acknowledged.
const BATCH: usize = 256;

/// Events of one request: a webhook's `batch_size`.
const REQUEST: usize = 64;

/// Messages that wait for the broker's socket, and that one write takes.
const CHANNEL: usize = 64;
const WRITE_BATCH: usize = 32;

/// An event as subscribers get it.
#[derive(Debug, Clone)]
pub(super) struct BareEvent {
    session: &'static str,
    seq: u64,
    text: String,
}

/// So many events of a session, with this body.
pub(super) fn events(body: &str, session: &'static str, count: u64) -> Vec<BareEvent> {
    let members = body.strip_prefix('{').unwrap_or(body);
    let event = |seq| BareEvent {
        session,
        seq,
        text: format!("{{\"type\":\"event\",\"session\":\"{session}\",\"seq\":{seq},{members}"),
    };
    (1..=count).map(event).collect()
}

/// Writes events on a thread of its own; gives the seconds of CPU that this took.
pub(super) fn start(
    sink: SinkKind,
    port: u16,
    events: Vec<BareEvent>,
) -> oneshot::Receiver<Result<f64>> {
    let (telling, told) = oneshot::channel();
    std::thread::spawn(move || {
        let written = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")
            .and_then(|runtime| runtime.block_on(write(sink, port, &events)));
        // The bench may have given up.
        let _ = telling.send(written.map(|()| seconds(ClockId::ThreadCPUTime)));
    });
    told
}

async fn write(sink: SinkKind, port: u16, events: &[BareEvent]) -> Result<()> {
    match sink {
        SinkKind::Redis => to_redis(port, events).await,
        SinkKind::Mqtt => to_mqtt(port, events).await,
        SinkKind::Webhook => to_webhook(port, events).await,
    }
}

async fn to_redis(port: u16, events: &[BareEvent]) -> Result<()> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/0"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    for batch in events.chunks(BATCH) {
        let mut commands = redis::pipe();
        commands.atomic();
        for BareEvent { session, seq, text } in batch {
            let mut add = redis::cmd("XADD");
            add.arg(format!("ocelli:events:{session}"));
            add.arg("MAXLEN").arg("~").arg(STREAM_LENGTH).arg(format!("{seq}-0"));
            add.arg("seq").arg(seq).arg("kind").arg("zone_entered");
            add.arg("time").arg("2026-11-30T05:00:00.000Z").arg("origin").arg("pipeline");
            add.arg("deployment").arg("0123456789ab").arg("event").arg(text);
            commands.add_command(add).ignore();
        }
        commands.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

async fn to_mqtt(port: u16, events: &[BareEvent]) -> Result<()> {
    let mut options = MqttOptions::new("bench-bare", Broker::tcp("127.0.0.1", port));
    options.set_max_request_batch(WRITE_BATCH);
    options.set_outgoing_inflight_upper_limit(BATCH as u16);
    let (client, mut loops) = AsyncClient::builder(options).capacity(CHANNEL).try_build()?;
    while !matches!(loops.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    let polling = tokio::spawn(async move { while loops.poll().await.is_ok() {} });
    for batch in events.chunks(BATCH) {
        let mut sent = VecDeque::new();
        for BareEvent { session, text, .. } in batch {
            let topic = format!("ocelli/{HOST}/{session}/events");
            let options = PublishOptions::at_least_once();
            sent.push_back(client.publish_tracked(topic, text.clone(), options).await?);
        }
        for notice in sent {
            notice.wait_async().await?;
        }
    }
    polling.abort();
    Ok(())
}

async fn to_webhook(port: u16, events: &[BareEvent]) -> Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.set_nodelay(true)?;
    let mut answer = Vec::new();
    for batch in events.chunks(REQUEST) {
        let texts: Vec<&str> = batch.iter().map(|event| event.text.as_str()).collect();
        let session = batch.first().map_or("", |event| event.session);
        let body = format!(
            "{{\"type\":\"ocelli.events\",\"timestamp\":\"2026-11-30T05:00:00.000Z\",\
             \"data\":{{\"session\":\"{session}\",\"events\":[{}]}}}}",
            texts.join(",")
        );
        let mut request = String::with_capacity(body.len() + 400);
        // A signature as long as the host's, which takes a hash of the body.
        write!(
            request,
            "POST / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: bench\r\n\
             content-type: application/json\r\nwebhook-id: msg_{:032}\r\n\
             webhook-timestamp: 1795313788\r\nwebhook-signature: v1,{:044}\r\n\
             content-length: {}\r\n\r\n{body}",
            0,
            0,
            body.len()
        )?;
        connection.write_all(request.as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(connection.read_buf(&mut answer).await? > 0, "the receiver is gone");
        }
        ensure!(answer.starts_with(b"HTTP/1.1 2"), "the receiver refuses a request");
    }
    Ok(())
}
