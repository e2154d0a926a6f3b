//! A request that was taken from a worker's socket, until it is answered.

use std::sync::Arc;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::in_flight::RunningRequest;
use ocelli_protocol::inference::{
    Batching, ErrorCode, InferenceRequest, InferenceResponse, PlacedTensor,
};

use crate::batch::batching;
use crate::client::Client;
use crate::error::RequestError;
use crate::fair::QueuedRequest;
use crate::model::{ModelSession, ModelVersion};
use crate::request::Layout;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// A request. Times are nanoseconds on the monotonic clock.
pub(crate) struct Job {
    pub(crate) client: Arc<Client>,
    pub(crate) request: InferenceRequest,
    /// The version of the model that it asks for, if the client's catalog has it.
    entry: Result<Arc<ModelVersion>, RequestError>,
    /// When it was taken.
    pub(crate) taken_ns: u64,
    /// When it has to be answered.
    pub(crate) deadline_ns: u64,
    /// Whether the host suspects it of a crash: it runs alone.
    pub(crate) suspect: bool,
}

impl Job {
    pub(crate) fn new(session: Arc<Client>, request: InferenceRequest, now_ns: u64) -> Self {
        let terms = session.terms();
        let deadline_ns = now_ns.saturating_add(u64::from(terms.service.timeout_ms) * MS);
        let suspect = terms.suspect == Some(request.id());
        let entry = match &request {
            InferenceRequest::Open { model, .. } | InferenceRequest::Run { model, .. } => {
                session.catalog().find(model).cloned()
            }
            InferenceRequest::Load { .. } | InferenceRequest::Ask { .. } => {
                Err(RequestError::argument("it asks for no model of the catalog"))
            }
        };
        Self { client: session, request, entry, taken_ns: now_ns, deadline_ns, suspect }
    }

    /// The version of the model that it asks for.
    pub(crate) fn entry(&self) -> Result<&Arc<ModelVersion>, RequestError> {
        self.entry.as_ref().map_err(RequestError::clone)
    }

    /// Where its tensors lie, checked.
    pub(crate) fn layout(&self, loaded: &ModelSession) -> Result<Layout, RequestError> {
        let InferenceRequest::Run { inputs, output_offset, output_length, .. } = &self.request
        else {
            return Err(RequestError::argument("this is no request to run a model"));
        };
        let length = self.client.memory().len();
        Layout::check(&loaded.signature, length, inputs, *output_offset, *output_length)
    }

    /// How it may be joined with others.
    pub(crate) fn batching(&self) -> Option<Batching> {
        let entry = self.entry.as_ref().ok().filter(|_| !self.suspect)?;
        matches!(self.request, InferenceRequest::Run { .. }).then(|| batching(&entry.model))?
    }

    /// Whether another can run as one with this one, which may be joined: the same version of a
    /// model, and the same shapes but for the first side.
    pub(crate) fn joins(&self, other: &Self) -> bool {
        let (Ok(entry), Ok(others)) = (&self.entry, &other.entry) else { return false };
        let (InferenceRequest::Run { inputs, .. }, InferenceRequest::Run { inputs: theirs, .. }) =
            (&self.request, &other.request)
        else {
            return false;
        };
        let same = |(input, theirs): (&PlacedTensor, &PlacedTensor)| {
            input.name == theirs.name && input.shape.get(1..) == theirs.shape.get(1..)
        };
        Arc::ptr_eq(entry, others)
            && inputs.len() == theirs.len()
            && inputs.iter().zip(theirs).all(same)
    }

    /// The job as an entry of the queue.
    pub(crate) fn waiting(self) -> QueuedRequest<Self> {
        let service = self.client.terms().service;
        // A frame grows old. A model that is asked for does not.
        let stale_ms =
            service.stale_ms.filter(|_| matches!(self.request, InferenceRequest::Run { .. }));
        let stale_ns =
            stale_ms.map_or(u64::MAX, |ms| self.taken_ns.saturating_add(u64::from(ms) * MS));
        QueuedRequest {
            share: service.share,
            weight: service.priority.weight(),
            alone: self.suspect,
            late_ns: self.deadline_ns.min(stale_ns),
            item: self,
        }
    }

    /// Its entry in the in-flight table while it runs.
    pub(crate) fn running(&self) -> RunningRequest {
        RunningRequest {
            attachment: self.client.terms().number,
            request: self.request.id(),
            deadline_ns: self.deadline_ns,
        }
    }

    /// Answers it as one that has waited too long.
    pub(crate) fn answer_late(&self) {
        let now_ns = monotonic_ns();
        if now_ns >= self.deadline_ns {
            return self.answer(Err(self.timeout(now_ns, now_ns)));
        }
        let waited_ms = u32::try_from((now_ns - self.taken_ns) / MS).unwrap_or(u32::MAX);
        self.answer(Ok(InferenceResponse::Stale { id: self.request.id(), waited_ms }));
    }

    pub(crate) fn answer(&self, answer: Result<InferenceResponse, RequestError>) {
        let id = self.request.id();
        let answer = answer.unwrap_or_else(|error| {
            tracing::debug!(session = self.client.name(), id, %error, "a request failed");
            InferenceResponse::Failed { id, code: error.code, message: error.message }
        });
        self.client.answer(&answer);
    }

    /// The error of a late request. For a run that did not begin, `begun_ns` is `now_ns`.
    pub(crate) fn timeout(&self, begun_ns: u64, now_ns: u64) -> RequestError {
        let message = format!(
            "{}: not done within {} ms; it waited {} ms and ran {} ms",
            self.subject(),
            self.client.terms().service.timeout_ms,
            begun_ns.saturating_sub(self.taken_ns) / MS,
            now_ns.saturating_sub(begun_ns) / MS
        );
        RequestError::new(ErrorCode::Timeout, message)
    }

    fn subject(&self) -> String {
        match &self.request {
            InferenceRequest::Run { model, .. } => format!("model \"{model}\""),
            InferenceRequest::Open { model, .. } => format!("opening model \"{model}\""),
            InferenceRequest::Load { .. } => "loading a model of the pipeline's own".to_owned(),
            InferenceRequest::Ask { .. } => "asking for a run".to_owned(),
        }
    }
}
