//! Pushing a component: its blobs first, then the manifest that makes them one artifact. What fails
//! on the way leaves the tag as it was.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use ocelli_protocol::digest::Digest;

use super::error::RegistryFault;
use super::http::{ANSWER, Call, TRANSFER, refusal};
use super::manifest::{
    ArtifactConfig, ArtifactManifest, CONFIG, Descriptor, Interfaces, LAYER, MANIFEST,
    SCHEMA_VERSION,
};
use super::{Registry, RegistryError, limited};

/// What a manifest says that a component runs on.
const ARCHITECTURE: &str = "wasm";
const SYSTEM: &str = "wasip2";

impl Registry {
    /// Stores a component under the reference's tag. Returns the digest of the manifest, by which
    /// it can be asked for whatever the tag will mean.
    pub(crate) async fn push(
        mut self,
        component: Bytes,
        interfaces: &Interfaces,
    ) -> Result<Digest, RegistryError> {
        self.actions = "pull,push";
        let pushed = self.push_all(component, interfaces).await;
        pushed.map_err(|fault| self.error(fault))
    }

    async fn push_all(
        &mut self,
        component: Bytes,
        interfaces: &Interfaces,
    ) -> Result<Digest, RegistryFault> {
        let tag = self.reference.tag.clone().filter(|_| self.reference.digest.is_none());
        let tag = tag.ok_or_else(|| {
            RegistryFault::Setting("a component is pushed to a tag, without a digest".to_owned())
        })?;
        let layer = Descriptor::of(LAYER, &component);
        let config = ArtifactConfig {
            created: Timestamp::now().to_string(),
            architecture: ARCHITECTURE,
            os: SYSTEM,
            layer_digests: vec![layer.digest.clone()],
            component: interfaces,
        };
        let config = json(&config)?;
        let described = Descriptor::of(CONFIG, &config);
        let pushing = self.push_blob(&layer.digest, component);
        limited(TRANSFER, "sending the component", pushing).await?;
        let pushing = self.push_blob(&described.digest, config);
        limited(ANSWER, "sending the config", pushing).await?;
        let manifest = json(&ArtifactManifest {
            schema_version: SCHEMA_VERSION,
            media_type: Some(MANIFEST.to_owned()),
            config: described,
            layers: vec![layer],
        })?;
        let digest = Digest::of(&manifest);
        let pushing = self.push_manifest(&tag, manifest);
        limited(ANSWER, "sending the manifest", pushing).await?;
        Ok(digest)
    }

    async fn push_blob(&mut self, digest: &str, bytes: Bytes) -> Result<(), RegistryFault> {
        const WHAT: &str = "storing a blob";
        let url = self.url(&format!("blobs/{digest}"))?;
        let asked = self.ask(Call { method: Method::HEAD, ..Call::get(WHAT, url) }).await?;
        if asked.status() == StatusCode::OK {
            return Ok(());
        }
        let mut begin =
            Call { method: Method::POST, ..Call::get(WHAT, self.url("blobs/uploads/")?) };
        let begun = self.ask(begin.clone()).await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(refusal(WHAT, begun, self.login.is_some()).await);
        }
        let place = begun.headers().get(LOCATION);
        let place = place.ok_or_else(|| RegistryFault::strange(WHAT, "no Location"))?;
        let mut url = self.http.resolve(&begin, place)?;
        url.query_pairs_mut().append_pair("digest", digest);
        begin.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let call = Call { method: Method::PUT, url, body: bytes, ..begin };
        let stored = self.ask(call).await?;
        match stored.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(refusal(WHAT, stored, self.login.is_some()).await),
        }
    }

    async fn push_manifest(&mut self, tag: &str, manifest: Bytes) -> Result<(), RegistryFault> {
        const WHAT: &str = "storing the manifest";
        let url = self.url(&format!("manifests/{tag}"))?;
        let mut call = Call { method: Method::PUT, body: manifest, ..Call::get(WHAT, url) };
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(MANIFEST));
        let stored = self.ask(call).await?;
        match stored.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(refusal(WHAT, stored, self.login.is_some()).await),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<Bytes, RegistryFault> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from).map_err(|error| RegistryFault::Setting(error.to_string()))
}
