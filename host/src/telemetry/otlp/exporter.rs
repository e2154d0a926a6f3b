//! The task that sends spans to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{
    ExportRequest, KeyValue, ResourceSpans, ScopeSpans, Span, TraceScope, TracedResource,
};
use super::{EVERY, MAX_WAITING, TRACER, Tracer};
use crate::config::{Config, OtlpConfig};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::http_client::{HttpClient, HttpFault, read, request};

/// Most spans of one request: about 100 KB.
const MAX_SPANS: usize = 512;

/// How long a span waits for others to go with it.
const GATHER: Duration = Duration::from_secs(2);

/// Times that spans are sent in all until they are dropped.
const TRIES: u32 = 4;

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 16 << 10;

/// Between two tries. OTLP wants it to grow, with chance in it.
const WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(10),
    jitter: -0.5,
};

/// What the spans are said to be of.
const SERVICE: &str = "ocelli";

/// Why spans are not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Http(#[from] HttpFault),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("HTTP status {}", .0.as_u16())]
    Status(StatusCode),
}

impl ExportError {
    /// Whether the same may be taken in a moment (OTLP, "Failures"): all but an answer that says
    /// no.
    fn is_passing(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => true,
        }
    }
}

/// Starts the tracer of this process: spans are made and sent by the config in force, until the
/// value is dropped. To be called once; a later call gives a task that does nothing.
pub(crate) fn start(config: watch::Receiver<Arc<Config>>) -> AbortOnDropHandle<()> {
    let (queue, spans) = mpsc::channel(MAX_WAITING);
    let tracer = Tracer {
        frames: 0.into(),
        deployments: false.into(),
        queue,
        sent: 0.into(),
        dropped: 0.into(),
        errors: 0.into(),
        fault: Default::default(),
    };
    let first = TRACER.set(tracer).is_ok();
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Some(tracer) = TRACER.get().filter(|_| first) {
            serve(tracer, config, spans).await;
        }
    }))
}

async fn serve(
    tracer: &Tracer,
    mut config: watch::Receiver<Arc<Config>>,
    mut spans: mpsc::Receiver<Vec<Span>>,
) {
    loop {
        let wanted = config.borrow_and_update().otlp.clone();
        let share = wanted.as_ref().map_or(0.0, |otlp| otlp.frames);
        tracer.frames.store((share * EVERY as f64) as u64, Ordering::Relaxed);
        let deployments = wanted.as_ref().is_some_and(|otlp| otlp.deployments);
        tracer.deployments.store(deployments, Ordering::Relaxed);
        *tracer.fault.lock() = None;
        let exporting = async {
            match wanted.clone().map(Collector::new) {
                Some(collector) => collector.export(tracer, &mut spans).await,
                None => std::future::pending().await,
            }
        };
        let other = async { config.wait_for(|config| config.otlp != wanted).await.is_err() };
        tokio::select! {
            () = exporting => return,
            ended = other => if ended { return },
        }
    }
}

struct Collector {
    settings: OtlpConfig,
    client: HttpClient,
}

impl Collector {
    fn new(settings: OtlpConfig) -> Self {
        let client = HttpClient::new(settings.ca.clone());
        Self { settings, client }
    }

    /// Sends spans until there are none any more.
    async fn export(&self, tracer: &Tracer, queue: &mut mpsc::Receiver<Vec<Span>>) {
        while let Some(first) = queue.recv().await {
            let mut spans = first;
            let until = Instant::now() + GATHER;
            while spans.len() < MAX_SPANS
                && let Ok(Some(more)) = timeout_at(until, queue.recv()).await
            {
                spans.extend(more);
            }
            let count = spans.len() as u64;
            let taken = self.deliver(tracer, spans).await;
            let counter = if taken { &tracer.sent } else { &tracer.dropped };
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Sends spans until they are taken, or given up. Whether they are taken.
    async fn deliver(&self, tracer: &Tracer, spans: Vec<Span>) -> bool {
        let body = encoded(spans);
        let mut backoff = Backoff::new(WAITS);
        for attempt in 1..=TRIES {
            let Err(error) = self.post(body.clone()).await else {
                if tracer.fault.lock().take().is_some() {
                    tracing::info!(target: "ocelli::otlp", "the collector takes spans again");
                }
                return true;
            };
            tracer.errors.fetch_add(1, Ordering::Relaxed);
            let before = tracer.fault.lock().replace(error.to_string());
            if before.is_none() {
                tracing::warn!(target: "ocelli::otlp", "the collector takes no spans: {error}");
            }
            if attempt == TRIES || !error.is_passing() {
                return false;
            }
            sleep(backoff.fail(rand::random())).await;
        }
        false
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), ExportError> {
        let limit = Duration::from_millis(self.settings.timeout_ms.into());
        let answered = timeout(limit, self.exchange(body, limit)).await;
        let status = answered.unwrap_or(Err(ExportError::Late(limit)))?;
        status.is_success().then_some(()).ok_or(ExportError::Status(status))
    }

    async fn exchange(&self, body: Vec<u8>, limit: Duration) -> Result<StatusCode, ExportError> {
        let url = self.settings.endpoint.url();
        // The operator has named it, and it is led to nowhere else.
        let mut connection = self.client.connect(url, limit, |_| Ok(())).await?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let none = |_| HttpFault::Setting("authorization is no value of a header".to_owned());
        if let Some(text) = &self.settings.authorization {
            let mut value = HeaderValue::from_str(text).map_err(none)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let request = request(Method::POST, url, headers, body.into());
        let request = request.ok_or_else(|| HttpFault::Setting("no URL for HTTP".to_owned()))?;
        let sent = connection.send_request(request).await;
        let answer = sent.map_err(|error| HttpFault::broken(&error))?;
        let status = answer.status();
        // Its words are read so that it is not cut off in them.
        let _ = read(answer.into_body(), MAX_ANSWER).await;
        Ok(status)
    }
}

fn encoded(spans: Vec<Span>) -> Vec<u8> {
    let attributes = vec![
        KeyValue::text("service.name", SERVICE),
        KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::text("service.instance.id", instance()),
    ];
    let scope =
        TraceScope { name: SERVICE.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    let resource = Some(TracedResource { attributes });
    let request = ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] };
    request.encode_to_vec()
}

/// Tells the runs of hosts apart.
fn instance() -> &'static str {
    use std::sync::LazyLock;
    static INSTANCE: LazyLock<String> = LazyLock::new(|| {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        format!("{}-{}", std::process::id(), started.unwrap_or_default().as_millis())
    });
    &INSTANCE
}
