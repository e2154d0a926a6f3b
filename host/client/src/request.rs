//! A request to the API: its path, query and content.

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Response, body::Incoming};
use serde_json::{Map, Value};
use url::Url;

use crate::error::Error;
use crate::http::{Content, Endpoint};

/// A request to the API, for those that [`Client`](crate::Client) has no method for, or whose answer is wanted as
/// JSON.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
    content: Content,
    patient: bool,
}

/// A new version of a session's pipeline.
#[derive(Debug, Clone)]
pub struct Deploy {
    /// The component of the new version.
    pub component: Component,
    /// Frames on which both versions are compared before the change; 0: none.
    pub shadow: u32,
    /// Whether the comparison is all: the new version does not become active.
    pub shadow_only: bool,
    /// The agreement of the comparison, 0 to 1, below which the new version is given up.
    pub threshold: Option<f64>,
    /// What becomes of the old version's state. `None`: as the host's config says.
    pub state: Option<StateHandover>,
    /// The pipeline's settings. `None`: those that the session has; of another pipeline by name its
    /// defaults.
    pub settings: Option<Map<String, Value>>,
}

/// The component of a deployment.
#[derive(Debug, Clone)]
pub enum Component {
    /// A component that is sent.
    File {
        /// Its name in the history.
        name: Option<String>,
        /// The content of the `.wasm` file.
        bytes: Bytes,
    },
    /// The name of a pipeline on the host, or a reference to a component that the host fetches from
    /// a registry: `oci://HOST/REPOSITORY:TAG`.
    Named(String),
}

/// What becomes of the old version's state. Another pipeline never gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateHandover {
    /// The new version takes it over. If it refuses, the deployment fails, and the old version goes
    /// on.
    Keep,
    /// The new version starts without state.
    Fresh,
}

impl<'a> Request<'a> {
    /// `path` are the segments after `/v1`, which are percent-encoded.
    pub fn new(method: Method, path: &[&'a str]) -> Self {
        let path = ["v1"].iter().chain(path).copied().collect();
        let content = Content { media_type: None, bytes: Bytes::new(), ask_first: false };
        Self { method, path, query: Vec::new(), content, patient: false }
    }

    /// A `GET` request.
    pub fn get(path: &[&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// A `POST` request, without content unless it is [given](Self::content).
    pub fn post(path: &[&'a str]) -> Self {
        Self::new(Method::POST, path)
    }

    /// The request of [`Client::deploy`](crate::Client::deploy).
    pub fn deploy(session: &'a str, deploy: &Deploy) -> Self {
        let Deploy { component, shadow, shadow_only, threshold, state, settings } = deploy;
        let mut request = Self::new(Method::PUT, &["sessions", session, "pipeline"]).patient();
        match component {
            Component::Named(name) => request = request.query("pipeline", name.clone()),
            Component::File { name, bytes } => {
                request.query.extend(name.clone().map(|name| ("name", name)));
                // The host refuses one that is too large before it is sent.
                request.content =
                    Content { media_type: None, bytes: bytes.clone(), ask_first: true };
            }
        }
        if *shadow > 0 {
            request = request.query("shadow", shadow.to_string());
        }
        if *shadow_only {
            request = request.query("shadow_only", "true".to_owned());
        }
        request.query.extend(threshold.map(|threshold| ("threshold", threshold.to_string())));
        let state = state.map(|state| match state {
            StateHandover::Keep => "keep",
            StateHandover::Fresh => "fresh",
        });
        request.query.extend(state.map(|state| ("state", state.to_owned())));
        let settings = settings.as_ref().map(|settings| Value::from(settings.clone()).to_string());
        request.query.extend(settings.map(|settings| ("settings", settings)));
        request
    }

    /// The request of [`Client::rollback`](crate::Client::rollback).
    pub fn rollback(session: &'a str) -> Self {
        Self::post(&["sessions", session, "rollback"]).patient()
    }

    /// The request of [`Client::deployments`](crate::Client::deployments).
    pub fn deployments(session: &'a str, limit: u32) -> Self {
        Self::get(&["sessions", session, "deployments"]).query("limit", limit.to_string())
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, key: &'static str, value: String) -> Self {
        self.query.push((key, value));
        self
    }

    /// Adds a body with its media type.
    pub fn content(mut self, media_type: &'static str, bytes: Bytes) -> Self {
        self.content = Content { media_type: Some(media_type), bytes, ask_first: false };
        self
    }

    /// Waits for the answer without a limit: a shadow alone may take ten minutes.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// `GET /readyz`, which has no version.
    pub(crate) fn ready() -> Self {
        Self { path: vec!["readyz"], ..Self::get(&[]) }
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.patient
    }

    pub(crate) fn url(&self, host: &Endpoint) -> Result<Url, Error> {
        let mut url = host.url(&self.path)?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    /// Sends it. Returns the answer's head; its body is still to be read.
    pub(crate) async fn send(
        &self,
        host: &Endpoint,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Error> {
        host.send(self.method.clone(), &self.url(host)?, headers, self.content.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_says_what_differs_from_the_usual() {
        let component =
            Component::File { name: Some("eye".into()), bytes: Bytes::from_static(b"component") };
        let plain = Deploy {
            component,
            shadow: 0,
            shadow_only: false,
            threshold: None,
            state: None,
            settings: None,
        };
        let request = Request::deploy("display-001;cam-001", &plain);
        assert_eq!(request.path, ["v1", "sessions", "display-001;cam-001", "pipeline"]);
        assert_eq!(request.query, [("name", "eye".to_owned())]);
        assert!(request.content.ask_first && request.patient);

        let settings = serde_json::json!({"score": 0.5}).as_object().cloned();
        let component = Component::Named("nose".into());
        let full = Deploy {
            component,
            shadow: 5,
            shadow_only: true,
            threshold: Some(0.9),
            state: Some(StateHandover::Fresh),
            settings,
        };
        let request = Request::deploy("gate", &full);
        let query = [
            ("pipeline", "nose"),
            ("shadow", "5"),
            ("shadow_only", "true"),
            ("threshold", "0.9"),
            ("state", "fresh"),
            ("settings", r#"{"score":0.5}"#),
        ];
        assert_eq!(request.query, query.map(|(key, value)| (key, value.to_owned())));
        assert!(request.content.bytes.is_empty());
    }
}
