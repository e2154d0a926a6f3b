//! Registries of components, by the OCI distribution specification 1.1: what a host pulls to deploy
//! it, and what an author pushes.
//!
//! A registry is a stranger. Every answer has a bound on its bytes and its time, so that it neither
//! fills the memory of the process that all cameras depend on, nor keeps a deployment waiting; what
//! it says is cleaned before it is repeated; and a component is taken only if it has the digest
//! that was asked for. So the requests are made here, by the HTTP and TLS that the host has anyway:
//! a client library reads manifests, tokens and errors to their end, however far that is.
//!
//! A pull finds the component's digest first ([`Registry::find`]): one that is stored already is
//! not fetched again.

mod error;
mod http;
mod login;
mod manifest;
mod push;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Response, StatusCode};
use ocelli_protocol::digest::Digest;
use tokio::time::timeout;
use url::Url;

use crate::config::{OciReference, RegistryConfig};
use error::RegistryFault;
use http::{ANSWER, Call, Http, MAX_ANSWER, TRANSFER, read, refusal};

pub(crate) use error::RegistryError;
pub(crate) use login::RegistryUser;
pub(crate) use manifest::Interfaces;

/// How a registry is asked.
#[derive(Clone, Default)]
pub(crate) struct RegistryAccess {
    /// `None`: without login.
    pub(crate) login: Option<RegistryUser>,
    /// A PEM file of the certificate authorities that are trusted. `None`: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Whether without TLS. `None`: a registry at a loopback address is.
    pub(crate) plain_http: Option<bool>,
}

impl From<&RegistryConfig> for RegistryAccess {
    fn from(config: &RegistryConfig) -> Self {
        let RegistryConfig { user, password, ca, plain_http, .. } = config.clone();
        let login = user.zip(password).map(|(user, password)| RegistryUser { user, password });
        Self { login, ca, plain_http }
    }
}

/// A component that a registry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundComponent {
    /// Its SHA-256.
    pub(crate) digest: Digest,
    /// Its size in bytes, as the registry says it.
    pub(crate) size: u64,
}

/// A registry that is asked for one reference.
pub(crate) struct Registry {
    reference: OciReference,
    http: Http,
    login: Option<RegistryUser>,
    /// The header that the registry has asked for.
    authorization: Option<HeaderValue>,
    /// What a token is to be good for: "pull", or "pull,push".
    actions: &'static str,
}

impl Registry {
    /// For pulling. Asks nothing yet.
    pub(crate) fn new(
        reference: &OciReference,
        access: RegistryAccess,
    ) -> Result<Self, RegistryError> {
        let http = Http::new(&reference.registry, access.plain_http, access.ca);
        let http = http.map_err(|fault| RegistryError::new(&reference.registry, fault))?;
        let (reference, login) = (reference.clone(), access.login);
        Ok(Self { reference, http, login, authorization: None, actions: "pull" })
    }

    /// Asks which component the reference means now.
    pub(crate) async fn find(&mut self) -> Result<FoundComponent, RegistryError> {
        let found = limited(ANSWER, "finding the component", self.read_manifest()).await;
        found.map_err(|fault| self.error(fault))
    }

    /// Fetches a component of at most `most` bytes.
    pub(crate) async fn fetch(
        &mut self,
        component: FoundComponent,
        most: u64,
    ) -> Result<Bytes, RegistryError> {
        if component.size > most {
            let (what, size) = (self.reference.to_string(), component.size);
            return Err(self.error(RegistryFault::TooLarge { what, size, most }));
        }
        let fetched = limited(TRANSFER, "fetching the component", self.read_layer(component)).await;
        fetched.map_err(|fault| self.error(fault))
    }

    async fn read_manifest(&mut self) -> Result<FoundComponent, RegistryFault> {
        const WHAT: &str = "the manifest";
        let version = self.reference.version();
        let mut call = Call::get(WHAT, self.url(&format!("manifests/{version}"))?);
        call.headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPTED));
        let answer = self.ask(call).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(RegistryFault::Unknown(self.named())),
            _ => return Err(refusal(WHAT, answer, self.login.is_some()).await),
        }
        let manifest = read(answer, MAX_ANSWER).await?;
        let manifest = manifest.ok_or_else(|| RegistryFault::strange(WHAT, "it is too long"))?;
        let found = Digest::of(&manifest);
        if let Some(asked) = self.reference.digest.filter(|asked| *asked != found) {
            return Err(RegistryFault::OtherDigest { what: "manifest", asked, found });
        }
        let component = manifest::component(&manifest);
        let named = |cause| RegistryFault::NoComponent { what: self.reference.to_string(), cause };
        let (digest, size) = component.map_err(named)?;
        Ok(FoundComponent { digest, size })
    }

    async fn read_layer(&mut self, component: FoundComponent) -> Result<Bytes, RegistryFault> {
        const WHAT: &str = "the component";
        let FoundComponent { digest: asked, size } = component;
        let url = self.url(&format!("blobs/{}", manifest::written(&asked)))?;
        let answer = self.ask(Call::get(WHAT, url)).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(RegistryFault::Unknown(format!("component {}", self.named())));
            }
            _ => return Err(refusal(WHAT, answer, self.login.is_some()).await),
        }
        let bytes = read(answer, size).await?.map(Bytes::from);
        let bytes = bytes.filter(|bytes| bytes.len() as u64 == size);
        let cause = || format!("it has not the {size} bytes that its manifest says");
        let bytes = bytes.ok_or_else(|| RegistryFault::strange(WHAT, cause()))?;
        // 64 MiB take a quarter of a second.
        let hashed = bytes.clone();
        let found = tokio::task::spawn_blocking(move || Digest::of(&hashed)).await;
        let found = found.map_err(|error| RegistryFault::strange(WHAT, error.to_string()))?;
        if found != asked {
            return Err(RegistryFault::OtherDigest { what: "component", asked, found });
        }
        Ok(bytes)
    }

    /// Sends a request. Logs in if the registry asks for it.
    async fn ask(&mut self, call: Call) -> Result<Response<Incoming>, RegistryFault> {
        let answer = self.http.send(call.clone(), self.authorization.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let scope = format!("repository:{}:{}", self.reference.repository, self.actions);
        let (http, challenge) = (&mut self.http, answer.headers());
        let Some(header) = login::meet(http, challenge, self.login.as_ref(), &scope).await? else {
            return Ok(answer);
        };
        let header = self.authorization.insert(header);
        self.http.send(call, Some(&*header)).await
    }

    /// A place of the repository.
    fn url(&self, place: &str) -> Result<Url, RegistryFault> {
        let url = self.http.base.join(&format!("v2/{}/{place}", self.reference.repository));
        url.map_err(|error| RegistryFault::Setting(error.to_string()))
    }

    /// The reference as the registry itself knows it.
    fn named(&self) -> String {
        let sign = if self.reference.digest.is_some() { '@' } else { ':' };
        format!("{}{sign}{}", self.reference.repository, self.reference.version())
    }

    fn error(&self, fault: RegistryFault) -> RegistryError {
        RegistryError::new(&self.reference.registry, fault)
    }
}

/// What takes longer than its limit has failed.
async fn limited<T>(
    limit: Duration,
    what: &'static str,
    doing: impl Future<Output = Result<T, RegistryFault>>,
) -> Result<T, RegistryFault> {
    timeout(limit, doing).await.unwrap_or(Err(RegistryFault::Late { what, limit }))
}

#[cfg(test)]
mod tests;
