//! What a host is asked over HTTP.

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

/// A host, and what is needed to be let in. Clones are cheap. Its requests need a Tokio runtime
/// with time and network.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) host: Endpoint,
}

/// A request of the API. Made for those that [`Client`] has no method for, or whose answer is
/// wanted as it came.
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
    /// What is to run.
    pub component: Component,
    /// Compare it with the running one on so many frames before it takes over.
    pub shadow: u32,
    /// What happens when it refuses the state of the running one. None: as the host's config says.
    pub state: Option<RefusedState>,
    /// The pipeline's settings. None: those that the session has.
    pub settings: Option<Map<String, Value>>,
}

/// What a session is to run.
#[derive(Debug, Clone)]
pub enum Component {
    /// A component that is sent.
    File {
        /// What the history calls it.
        name: Option<String>,
        /// The component.
        bytes: Bytes,
    },
    /// A pipeline that the host has.
    Named(String),
}

/// What becomes of a deployment whose new version refuses the state of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedState {
    /// The old one goes on.
    Keep,
    /// The new one begins without a state.
    Fresh,
}

impl Client {
    /// Of the host at this `http://` or `https://` URL; a path in it is that of a proxy. Who
    /// vouches for an `https://` host is one of the well-known certificate authorities.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut host = Endpoint::new(url)?;
        let name = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        host.set_header(WHO, HeaderValue::from_static(name));
        // A URL that no path can be added to is none of a host.
        host.url(&[])?;
        Ok(Self { host })
    }

    /// With this token.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        self.host.set_header(AUTHORIZATION, value.map_err(|_| Error::Header("the token"))?);
        Ok(self)
    }

    /// With these certificates, in PEM, in the place of the well-known authorities.
    pub fn with_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.host.trust(pem)?;
        Ok(self)
    }

    /// Under this name, `PRODUCT/VERSION`, which the host writes into its records of deployments.
    pub fn with_user_agent(mut self, name: &str) -> Result<Self, Error> {
        self.host
            .set_header(WHO, HeaderValue::from_str(name).map_err(|_| Error::Header("the name"))?);
        Ok(self)
    }

    /// The sessions that the token sees, by name.
    pub async fn sessions(&self) -> Result<Vec<Session>, Error> {
        self.list(&Request::get(&["sessions"]), "sessions").await
    }

    /// A session.
    pub async fn session(&self, id: &str) -> Result<Session, Error> {
        self.typed(&Request::get(&["sessions", id])).await
    }

    /// Has a session started anew, whatever its state; the session as it was when it was asked.
    pub async fn restart(&self, id: &str) -> Result<Session, Error> {
        self.typed(&Request::post(&["sessions", id, "restart"])).await
    }

    /// Ends a session. Returns when its process is gone.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.ask(&Request::new(Method::DELETE, &["sessions", id]).patient()).await.map(drop)
    }

    /// Changes the pipeline of a session. Returns when the new version speaks; where it does not,
    /// the problem has the step and all that is wrong.
    pub async fn deploy(&self, session: &str, deploy: &Deploy) -> Result<Deployment, Error> {
        self.typed(&Request::deploy(session, deploy)).await
    }

    /// Goes back to the version before, as [`deploy`](Self::deploy) goes on to another.
    pub async fn rollback(&self, session: &str) -> Result<Deployment, Error> {
        self.typed(&Request::rollback(session)).await
    }

    /// What was deployed to a session, the newest first.
    pub async fn deployments(&self, session: &str, limit: u32) -> Result<Vec<Deployment>, Error> {
        self.list(&Request::deployments(session, limit), "deployments").await
    }

    /// The events of a session that follow number `after`, oldest first: up to `limit` (1 to 1000),
    /// or fewer where they are large. The page says where the next begins.
    pub async fn events(&self, session: &str, after: u64, limit: u32) -> Result<EventPage, Error> {
        let request = Request::get(&["sessions", session, "events"]);
        self.typed(&request.query("after", after.to_string()).query("limit", limit.to_string()))
            .await
    }

    /// The models, and what really runs them.
    pub async fn models(&self) -> Result<Models, Error> {
        self.typed(&Request::get(&["models"])).await
    }

    /// Whether the host serves. An error: it does not answer.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        match self.ask(&Request { path: vec!["readyz"], ..Request::get(&[]) }).await {
            Ok(_) => Ok(true),
            Err(Error::Problem(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A WebSocket, which is opened when it is first needed.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.clone())
    }

    /// Where a request goes.
    pub fn url(&self, request: &Request<'_>) -> Result<String, Error> {
        self.target(request).map(String::from)
    }

    /// Sends any request; the JSON of its answer, null where it has none.
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

    /// A list that stands under `key` in the answer.
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
    /// `path` is what follows `/v1`, part by part; names are encoded.
    pub fn new(method: Method, path: &[&'a str]) -> Self {
        let path = ["v1"].iter().chain(path).copied().collect();
        let content = Content { media_type: None, bytes: Bytes::new(), ask_first: false };
        Self { method, path, query: Vec::new(), content, patient: false }
    }

    /// `GET`.
    pub fn get(path: &[&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST`, without content unless it is [given](Self::content).
    pub fn post(path: &[&'a str]) -> Self {
        Self::new(Method::POST, path)
    }

    /// What [`Client::deploy`] sends.
    pub fn deploy(session: &'a str, deploy: &Deploy) -> Self {
        let Deploy { component, shadow, state, settings } = deploy;
        let mut request = Self::new(Method::PUT, &["sessions", session, "pipeline"]).patient();
        match component {
            Component::Named(name) => request = request.query("pipeline", name.clone()),
            Component::File { name, bytes } => {
                request.query.extend(name.clone().map(|name| ("name", name)));
                // One that is too large is refused before it is sent.
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

    /// What [`Client::rollback`] sends.
    pub fn rollback(session: &'a str) -> Self {
        Self::post(&["sessions", session, "rollback"]).patient()
    }

    /// What [`Client::deployments`] sends.
    pub fn deployments(session: &'a str, limit: u32) -> Self {
        Self::get(&["sessions", session, "deployments"]).query("limit", limit.to_string())
    }

    /// Adds a parameter.
    pub fn query(mut self, key: &'static str, value: String) -> Self {
        self.query.push((key, value));
        self
    }

    /// Gives it content.
    pub fn content(mut self, media_type: &'static str, bytes: Bytes) -> Self {
        self.content = Content { media_type: Some(media_type), bytes, ask_first: false };
        self
    }

    /// The answer may take as long as it takes: a shadow alone may be ten minutes.
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
