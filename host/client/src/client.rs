//! Requests to a host over HTTP.

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Method, Response, body::Incoming};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;
use url::Url;

use crate::answer::{Deployment, EventPage, Models, Session};
use crate::error::Error;
use crate::http::{Content, Endpoint, PATIENCE, WHO, read};
use crate::subscriber::Subscriber;

/// A host with the credentials for it. Cheap to clone. Requests need a Tokio runtime with time and
/// network.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) host: Endpoint,
}

/// A request to the API, for those that [`Client`] has no method for, or whose answer is wanted as
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
    /// What happens when the new version refuses the state of the old one. `None`: as the host's
    /// config says.
    pub state: Option<RefusedState>,
    /// The pipeline's settings. `None`: those that the session has.
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
    /// The name of a pipeline on the host.
    Named(String),
}

/// What happens when the new version refuses the state of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedState {
    /// The deployment fails, and the old version goes on.
    Keep,
    /// The new version starts without state.
    Fresh,
}

impl Client {
    /// A client of the host at this `http://` or `https://` URL, which may have the path of a
    /// proxy. An `https://` host needs a certificate of a well-known authority.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut host = Endpoint::new(url)?;
        let name = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        host.set_header(WHO, HeaderValue::from_static(name));
        // A URL that takes no path is refused.
        host.url(&[])?;
        Ok(Self { host })
    }

    /// Sends this token with every request.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        self.host.set_header(AUTHORIZATION, value.map_err(|_| Error::Header("the token"))?);
        Ok(self)
    }

    /// Trusts these certificates, in PEM, instead of the well-known authorities.
    pub fn with_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.host.trust(pem)?;
        Ok(self)
    }

    /// Sends this name, `PRODUCT/VERSION`, which the host writes into its records of deployments.
    pub fn with_user_agent(mut self, name: &str) -> Result<Self, Error> {
        self.host
            .set_header(WHO, HeaderValue::from_str(name).map_err(|_| Error::Header("the name"))?);
        Ok(self)
    }

    /// The sessions that the token sees, sorted by name.
    pub async fn sessions(&self) -> Result<Vec<Session>, Error> {
        self.list(&Request::get(&["sessions"]), "sessions").await
    }

    /// One session.
    pub async fn session(&self, id: &str) -> Result<Session, Error> {
        self.typed(&Request::get(&["sessions", id])).await
    }

    /// Restarts a session's worker, whatever its state. Returns the session's status after the
    /// request.
    pub async fn restart(&self, id: &str) -> Result<Session, Error> {
        self.typed(&Request::post(&["sessions", id, "restart"])).await
    }

    /// Ends a session. Returns when its process is gone.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.ask(&Request::new(Method::DELETE, &["sessions", id]).patient()).await.map(drop)
    }

    /// Changes the pipeline of a session. Returns once the new version is active. If it fails, the
    /// problem has the step and everything that is wrong.
    pub async fn deploy(&self, session: &str, deploy: &Deploy) -> Result<Deployment, Error> {
        self.typed(&Request::deploy(session, deploy)).await
    }

    /// Goes back to the previous version, like [`deploy`](Self::deploy).
    pub async fn rollback(&self, session: &str) -> Result<Deployment, Error> {
        self.typed(&Request::rollback(session)).await
    }

    /// The deployments of a session, newest first.
    pub async fn deployments(&self, session: &str, limit: u32) -> Result<Vec<Deployment>, Error> {
        self.list(&Request::deployments(session, limit), "deployments").await
    }

    /// The events of a session after number `after`, oldest first: up to `limit` (1 to 1000), or
    /// fewer large ones. [`EventPage::next`] leads to the next page.
    pub async fn events(&self, session: &str, after: u64, limit: u32) -> Result<EventPage, Error> {
        let request = Request::get(&["sessions", session, "events"]);
        self.typed(&request.query("after", after.to_string()).query("limit", limit.to_string()))
            .await
    }

    /// The models, with the execution providers that run them.
    pub async fn models(&self) -> Result<Models, Error> {
        self.typed(&Request::get(&["models"])).await
    }

    /// Whether the host serves. An error if it does not answer.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        match self.ask(&Request { path: vec!["readyz"], ..Request::get(&[]) }).await {
            Ok(_) => Ok(true),
            Err(Error::Problem(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A subscriber, whose WebSocket opens when it is first needed.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.clone())
    }

    /// The URL of a request.
    pub fn url(&self, request: &Request<'_>) -> Result<String, Error> {
        self.target(request).map(String::from)
    }

    /// Sends any request. Returns the answer's JSON, or null if it has none.
    pub async fn ask(&self, request: &Request<'_>) -> Result<Value, Error> {
        let asked = async { read(self.send(request, HeaderMap::new()).await?).await };
        if request.patient {
            return asked.await;
        }
        timeout(PATIENCE, asked).await.unwrap_or(Err(Error::TimedOut(PATIENCE)))
    }

    pub(crate) async fn send(
        &self,
        request: &Request<'_>,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Error> {
        let url = self.target(request)?;
        self.host.send(request.method.clone(), &url, headers, request.content.clone()).await
    }

    fn target(&self, request: &Request<'_>) -> Result<Url, Error> {
        let mut url = self.host.url(&request.path)?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        Ok(url)
    }

    async fn typed<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, Error> {
        T::deserialize(self.ask(request).await?)
            .map_err(|error| Error::InvalidAnswer(error.to_string()))
    }

    /// A list that is the member `key` of the answer.
    async fn list<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        key: &str,
    ) -> Result<Vec<T>, Error> {
        let mut answer = self.ask(request).await?;
        let list = answer.get_mut(key).map(Value::take).unwrap_or_default();
        Vec::deserialize(list).map_err(|error| Error::InvalidAnswer(error.to_string()))
    }
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

    /// The request of [`Client::deploy`].
    pub fn deploy(session: &'a str, deploy: &Deploy) -> Self {
        let Deploy { component, shadow, state, settings } = deploy;
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
        let state = state.map(|state| match state {
            RefusedState::Keep => "keep",
            RefusedState::Fresh => "fresh",
        });
        request.query.extend(state.map(|state| ("state", state.to_owned())));
        let settings = settings.as_ref().map(|settings| Value::from(settings.clone()).to_string());
        request.query.extend(settings.map(|settings| ("settings", settings)));
        request
    }

    /// The request of [`Client::rollback`].
    pub fn rollback(session: &'a str) -> Self {
        Self::post(&["sessions", session, "rollback"]).patient()
    }

    /// The request of [`Client::deployments`].
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_says_what_differs_from_the_usual() {
        let component =
            Component::File { name: Some("eye".into()), bytes: Bytes::from_static(b"component") };
        let plain = Deploy { component, shadow: 0, state: None, settings: None };
        let request = Request::deploy("display-001;cam-001", &plain);
        assert_eq!(request.path, ["v1", "sessions", "display-001;cam-001", "pipeline"]);
        assert_eq!(request.query, [("name", "eye".to_owned())]);
        assert!(request.content.ask_first && request.patient);

        let settings = serde_json::json!({"score": 0.5}).as_object().cloned();
        let component = Component::Named("nose".into());
        let full = Deploy { component, shadow: 5, state: Some(RefusedState::Fresh), settings };
        let request = Request::deploy("gate", &full);
        let query = [
            ("pipeline", "nose"),
            ("shadow", "5"),
            ("state", "fresh"),
            ("settings", r#"{"score":0.5}"#),
        ];
        assert_eq!(request.query, query.map(|(key, value)| (key, value.to_owned())));
        assert!(request.content.bytes.is_empty());
    }

    #[test]
    fn a_request_goes_below_the_hosts_own_path() {
        let client = Client::new("https://host.example/cams/").unwrap();
        let url = client.url(&Request::deployments("display-001;cam/001", 3)).unwrap();
        assert_eq!(
            url,
            "https://host.example/cams/v1/sessions/display-001;cam%2F001/deployments?limit=3"
        );
    }

    #[test]
    fn a_token_that_no_header_takes_is_refused() {
        let client = Client::new("http://127.0.0.1:8001").unwrap();
        assert!(matches!(client.with_token("a\nb"), Err(Error::Header(_))));
    }
}
