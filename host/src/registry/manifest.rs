//! What a registry says of a component: the artifact that `wkg` and others write for WebAssembly,
//! an OCI manifest with a config of a media type of its own and the component as its one layer
//! (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/).

use ocelli_protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use super::error::words;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(super) const LAYER: &str = "application/wasm";

/// Media types that are asked for: lists too, and those of Docker, so that what is served instead
/// of a component can be named.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The version of the manifest's form, which has been this one from the beginning.
pub(super) const SCHEMA_VERSION: u32 = 2;

/// The manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArtifactManifest {
    pub(super) schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// A blob of the registry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
}

/// The config of the artifact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArtifactConfig<'a> {
    /// RFC 3339.
    pub(super) created: String,
    pub(super) architecture: &'static str,
    pub(super) os: &'static str,
    pub(super) layer_digests: Vec<String>,
    pub(super) component: &'a Interfaces,
}

/// The interfaces that a component names, as the artifact's config lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Interfaces {
    /// Those that it offers: "ocelli:pipeline/pipeline@0.2.0".
    pub(crate) exports: Vec<String>,
    /// Those that it takes.
    pub(crate) imports: Vec<String>,
}

impl Descriptor {
    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        let (digest, size) = (written(&Digest::of(bytes)), bytes.len() as u64);
        Self { media_type: media_type.to_owned(), digest, size }
    }
}

/// A digest as registries write it.
pub(super) fn written(digest: &Digest) -> String {
    format!("sha256:{digest}")
}

/// Why a manifest is that of no component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It is no manifest.
    #[error("its manifest is not understood")]
    Unreadable,
    /// It names other manifests, as images for several platforms do.
    #[error("it is a list of manifests")]
    List,
    /// It has another form than the one that there is.
    #[error("its schemaVersion is {0}")]
    SchemaVersion(u32),
    /// A part has another media type.
    #[error("its {part} is {found:?}, not {expected:?}")]
    MediaType { part: &'static str, found: String, expected: &'static str },
    /// It has another number of layers.
    #[error("it has {0} layers, and a component is one")]
    Layers(usize),
    /// The layer's digest is none, or of another kind.
    #[error("its layer has no SHA-256")]
    Digest,
}

/// The digest and the size of a manifest's component.
pub(super) fn component(manifest: &[u8]) -> Result<(Digest, u64), ManifestError> {
    #[derive(Deserialize)]
    struct Any {
        manifests: Option<serde::de::IgnoredAny>,
    }
    let is_list =
        || serde_json::from_slice::<Any>(manifest).is_ok_and(|any| any.manifests.is_some());
    let Ok(manifest) = serde_json::from_slice::<ArtifactManifest>(manifest) else {
        return Err(if is_list() { ManifestError::List } else { ManifestError::Unreadable });
    };
    let other = |part, found: &str, expected| {
        let found = words(found);
        ManifestError::MediaType { part, found, expected }
    };
    if manifest.schema_version != SCHEMA_VERSION {
        return Err(ManifestError::SchemaVersion(manifest.schema_version));
    }
    if manifest.config.media_type != CONFIG {
        return Err(other("config", &manifest.config.media_type, CONFIG));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(ManifestError::Layers(manifest.layers.len()));
    };
    if layer.media_type != LAYER {
        return Err(other("layer", &layer.media_type, LAYER));
    }
    let digest = layer.digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
    Ok((digest.ok_or(ManifestError::Digest)?, layer.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As wkg 0.16 writes it.
    fn manifest(config: &str, layers: &str) -> String {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{{\"mediaType\":\
             \"{config}\",\"digest\":\"sha256:00\",\"size\":3}},\"layers\":[{layers}],\
             \"annotations\":{{\"a\":\"b\"}}}}"
        )
    }

    fn layer(media_type: &str, digest: &str) -> String {
        format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":7}}")
    }

    #[test]
    fn a_component_is_one_layer_of_its_own_type_and_nothing_else_is_one() {
        let digest = Digest::of("component");
        let good = layer(LAYER, &format!("sha256:{digest}"));
        assert_eq!(component(manifest(CONFIG, &good).as_bytes()), Ok((digest, 7)));
        let image = "application/vnd.oci.image.config.v1+json";
        let tar = layer("application/vnd.oci.image.layer.v1.tar+gzip", "sha256:00");
        for (text, cause) in [
            (manifest(image, &good), "its config is \"application/vnd.oci.image.config.v1+json\""),
            (manifest(CONFIG, ""), "it has 0 layers"),
            (manifest(CONFIG, &format!("{good},{good}")), "it has 2 layers"),
            (manifest(CONFIG, &tar), "its layer is \"application/vnd.oci.image.layer"),
            (manifest(CONFIG, &layer(LAYER, "sha256:00")), "its layer has no SHA-256"),
            (manifest(CONFIG, &layer(LAYER, "sha512:00")), "its layer has no SHA-256"),
            ("{\"schemaVersion\":2,\"manifests\":[]}".into(), "it is a list of manifests"),
            ("<html>".into(), "its manifest is not understood"),
            (manifest(CONFIG, &good).replace(":2,", ":1,"), "its schemaVersion is 1"),
        ] {
            let said = component(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(cause), "{said}");
        }
    }
}
