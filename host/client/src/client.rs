//! Requests to a host over HTTP.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::answer::{Deployment, EventPage, Models, Session};
use crate::error::Error;
use crate::http::{Endpoint, PATIENCE, WHO, read, read_file};
use crate::request::{Deploy, Request};
use crate::subscriber::Subscriber;

/// A host with the credentials for it. Cheap to clone. Requests need a Tokio runtime with time and
/// network.
#[derive(Debug, Clone)]
pub struct Client {
    host: Endpoint,
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
        match self.ask(&Request::ready()).await {
            Ok(_) => Ok(true),
            Err(Error::Problem(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A subscriber, whose WebSocket opens when it is first needed.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.host.clone())
    }

    /// The URL of a request.
    pub fn url(&self, request: &Request<'_>) -> Result<String, Error> {
        request.url(&self.host).map(String::from)
    }

    /// Sends any request. Returns the answer's JSON, or null if it has none.
    pub async fn ask(&self, request: &Request<'_>) -> Result<Value, Error> {
        let asked = async { read(request.send(&self.host, HeaderMap::new()).await?).await };
        in_time(request, asked).await
    }

    /// Sends any request. Returns the answer's content, of at most 64 MiB: a picture, a clip.
    pub async fn download(&self, request: &Request<'_>) -> Result<Bytes, Error> {
        let asked = async { read_file(request.send(&self.host, HeaderMap::new()).await?).await };
        in_time(request, asked).await
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

/// Ends what takes too long, unless the request may.
async fn in_time<T>(
    request: &Request<'_>,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    if request.is_patient() {
        return asked.await;
    }
    timeout(PATIENCE, asked).await.unwrap_or(Err(Error::TimedOut(PATIENCE)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
