//! The versions of the catalog and their loaded models. A model that stands in two versions
//! unchanged is loaded once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ocelli_protocol::inference::{LoadedModel, Model};
use parking_lot::Mutex;

use crate::error::EngineError;
use crate::model::{Catalog, ModelVersion};

/// Versions that are retained. People edit the folder of models: a session older than so many edits
/// cannot be attached again.
const MAX_VERSIONS: usize = 256;

/// All catalog versions by their number.
pub(crate) struct CatalogVersions {
    versions: Mutex<BTreeMap<u32, CatalogVersion>>,
    /// Loaded models reported to the host.
    reported: Mutex<Vec<(Weak<ModelVersion>, LoadedModel)>>,
}

struct CatalogVersion {
    catalog: Arc<Catalog>,
    /// Whether a client ever had it. Before that its models are preloaded for clients to come.
    attached: bool,
}

impl CatalogVersions {
    /// The catalog versions of a process, which starts with version 0.
    pub(crate) fn new(models: Vec<Model>) -> Result<Self, EngineError> {
        let versions = Self { versions: Mutex::default(), reported: Mutex::default() };
        versions.add(0, models)?;
        Ok(versions)
    }

    pub(crate) fn add(&self, version: u32, models: Vec<Model>) -> Result<(), EngineError> {
        let mut versions = self.versions.lock();
        if versions.contains_key(&version) {
            let message = format!("version {version} of the catalog was offered twice");
            return Err(EngineError::Configuration(message));
        }
        let known: Vec<_> =
            versions.values().flat_map(|known| known.catalog.entries()).cloned().collect();
        let catalog = Arc::new(Catalog::new(models, &known)?);
        versions.insert(version, CatalogVersion { catalog, attached: false });
        while versions.len() > MAX_VERSIONS {
            versions.pop_first();
        }
        Ok(())
    }

    /// A version, if it is retained.
    pub(crate) fn get(&self, version: u32) -> Option<Arc<Catalog>> {
        self.versions.lock().get(&version).map(|known| Arc::clone(&known.catalog))
    }

    /// A version for a client, which holds it by keeping the result.
    pub(crate) fn attach(&self, version: u32) -> Option<Arc<Catalog>> {
        let mut versions = self.versions.lock();
        let known = versions.get_mut(&version)?;
        known.attached = true;
        Some(Arc::clone(&known.catalog))
    }

    /// Whether a session has this version of a model, or may get it.
    pub(crate) fn in_use(&self, entry: &Arc<ModelVersion>) -> bool {
        let versions = self.versions.lock();
        let newest = versions.last_key_value().map(|(number, _)| *number);
        versions.iter().any(|(number, CatalogVersion { catalog, attached })| {
            (Some(*number) == newest || !attached || Arc::strong_count(catalog) > 1)
                && catalog.entries().any(|known| Arc::ptr_eq(known, entry))
        })
    }

    /// Notes what a version really runs on: whether that is news for the host.
    pub(crate) fn note_loaded(&self, entry: &Arc<ModelVersion>, runs: &LoadedModel) -> bool {
        let mut reported = self.reported.lock();
        reported.retain(|(known, _)| known.strong_count() > 0);
        let same = |known: &Weak<ModelVersion>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(entry));
        match reported.iter_mut().find(|(known, _)| same(known)) {
            Some((_, known)) => std::mem::replace(known, runs.clone()) != *runs,
            None => {
                reported.push((Arc::downgrade(entry), runs.clone()));
                true
            }
        }
    }

    /// All that has been loaded.
    pub(crate) fn loaded(&self) -> Vec<LoadedModel> {
        let reported = self.reported.lock();
        reported.iter().map(|(_, runs)| runs.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::inference::{Device, Element, TensorDeclaration};

    use super::*;

    fn model(name: &str, sha256: &str) -> Model {
        let tensor = |name: &str| {
            vec![TensorDeclaration { name: name.to_owned(), element: Element::F32, shape: vec![1] }]
        };
        Model {
            name: name.to_owned(),
            path: format!("/models/{sha256}.onnx"),
            sha256: sha256.to_owned(),
            inputs: tensor("x"),
            outputs: tensor("y"),
            device: Device::Cpu,
            fallback: false,
            batching: None,
        }
    }

    #[test]
    fn a_version_is_shared_between_generations() {
        let versions =
            CatalogVersions::new(vec![model("faces", "aa"), model("cars", "bb")]).unwrap();
        versions.add(1, vec![model("faces", "cc"), model("cars", "bb")]).unwrap();
        let entry = |version, name| {
            let catalog = versions.get(version).unwrap();
            Arc::clone(catalog.find(name).unwrap())
        };
        assert!(Arc::ptr_eq(&entry(0, "cars"), &entry(1, "cars")));
        assert!(!Arc::ptr_eq(&entry(0, "faces"), &entry(1, "faces")));
        let elsewhere = Model { device: Device::Cuda(0), ..model("cars", "bb") };
        versions.add(2, vec![elsewhere]).unwrap();
        assert!(!Arc::ptr_eq(&entry(0, "cars"), &entry(2, "cars")));
    }

    #[test]
    fn a_version_is_in_use_while_a_session_has_it_or_may_get_it() {
        let versions = CatalogVersions::new(vec![model("faces", "aa")]).unwrap();
        let entry = Arc::clone(versions.get(0).unwrap().find("faces").unwrap());
        versions.add(1, vec![]).unwrap();
        assert!(versions.in_use(&entry), "no session had it yet");
        let session = versions.attach(0).unwrap();
        assert!(versions.in_use(&entry), "a session has it");
        drop(session);
        assert!(!versions.in_use(&entry));
    }

    #[test]
    fn no_generation_is_replaced() {
        let versions = CatalogVersions::new(vec![]).unwrap();
        let error = versions.add(0, vec![model("faces", "aa")]).unwrap_err().to_string();
        assert!(error.contains("version 0"), "{error}");
        assert!(versions.get(0).unwrap().find("faces").is_err());
        assert!(versions.get(1).is_none());
    }

    #[test]
    fn the_host_is_told_once_what_a_version_runs_on() {
        let versions = CatalogVersions::new(vec![model("faces", "aa")]).unwrap();
        let entry = Arc::clone(versions.get(0).unwrap().find("faces").unwrap());
        let runs = |fell_back: Option<&str>| LoadedModel {
            name: "faces".into(),
            sha256: "aa".into(),
            nodes: vec![("CPUExecutionProvider".into(), 7)],
            fell_back: fell_back.map(str::to_owned),
        };
        assert!(versions.note_loaded(&entry, &runs(None)));
        assert!(!versions.note_loaded(&entry, &runs(None)));
        assert!(versions.note_loaded(&entry, &runs(Some("no memory"))));
        assert_eq!(versions.loaded(), [runs(Some("no memory"))]);
    }
}
