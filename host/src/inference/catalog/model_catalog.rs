//! The models for sessions: read at start, after a change of their folder, and on SIGHUP.
//!
//! A reading without changes is dropped. A good one is a new version of the catalog for sessions
//! that start from then on; running ones keep theirs. A faulty one is logged and dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Catalog, CatalogError, VersionStore};
use crate::config::{Config, InferenceConfig};
use crate::inference::InferenceHandle;
use crate::util::watch::{FileStamp, Watch};

/// The models of the newest version. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ModelCatalog {
    directory: PathBuf,
    settings: Arc<InferenceConfig>,
    versions: Arc<VersionStore>,
    newest: Arc<Mutex<(u32, Arc<Catalog>)>>,
}

impl ModelCatalog {
    /// Reads and copies the models, and deletes unused copies of earlier runs.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let (directory, settings) =
            (config.models.directory.clone(), Arc::new(config.inference.clone()));
        let catalog = Catalog::load(&directory, &settings)?;
        let versions = Arc::new(VersionStore::new(&config.store.directory)?);
        let catalog = versions.store_copies(catalog)?;
        versions.clean(&catalog);
        for doubt in catalog.entries().filter_map(|entry| {
            let doubt = entry.manifest.warning()?;
            Some(format!("model {}: {doubt}", entry.model.name))
        }) {
            tracing::warn!("{doubt}");
        }
        Ok(Self {
            directory,
            settings,
            versions,
            newest: Arc::new(Mutex::new((0, Arc::new(catalog)))),
        })
    }

    /// The newest version: its number, counted from 0, and its models.
    pub(crate) fn newest(&self) -> (u32, Arc<Catalog>) {
        let (version, catalog) = &*self.newest.lock();
        (*version, Arc::clone(catalog))
    }

    /// Reads the folder again. If it has changed: the catalog and a line for each change.
    fn read_again(&self) -> Result<Option<(Catalog, Vec<String>)>, CatalogError> {
        let catalog = Catalog::load(&self.directory, &self.settings)?;
        let changes = catalog.changes_since(&self.newest().1);
        if changes.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.versions.store_copies(catalog)?, changes)))
    }

    fn replace(&self, catalog: Catalog) -> u32 {
        let mut newest = self.newest.lock();
        *newest = (newest.0.saturating_add(1), Arc::new(catalog));
        newest.0
    }
}

/// Waits for changes of the models' folder and for SIGHUP.
pub(crate) struct CatalogWatcher {
    offer: ModelCatalog,
    hangup: Signal,
}

impl CatalogWatcher {
    pub(crate) fn new(offer: ModelCatalog) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        Ok(Self { offer, hangup })
    }

    /// Offers the models after each change and each SIGHUP. Never returns. Cancel-safe.
    pub(crate) async fn run(mut self, inference: InferenceHandle) {
        let mut watch = Watch::new({
            let directory = self.offer.directory.clone();
            move || stamps(&directory)
        });
        loop {
            let cause = tokio::select! {
                _ = self.hangup.recv() => "SIGHUP",
                () = watch.changed() => "edited",
            };
            self.offer_again(&inference, cause).await;
        }
    }

    async fn offer_again(&self, inference: &InferenceHandle, cause: &str) {
        const KEPT: &str = "the models are not offered, those of before stay";
        let offer = self.offer.clone();
        let (catalog, changes) = match tokio::task::spawn_blocking(move || offer.read_again()).await
        {
            Ok(Ok(Some(changed))) => changed,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return tracing::error!(cause, "{KEPT}: {error}"),
            Err(error) => return tracing::error!(cause, "{KEPT}: {error}"),
        };
        if let Err(error) = inference.offer(&catalog).await {
            return tracing::error!(cause, "{KEPT}: {error:#}");
        }
        let catalog_version = self.offer.replace(catalog);
        for change in changes {
            tracing::info!(
                cause,
                catalog_version,
                "{change}; sessions that run keep what they have"
            );
        }
    }
}

/// Stamps of the files in each model's folder. Empty if the models' folder cannot be read.
fn stamps(directory: &Path) -> BTreeMap<PathBuf, FileStamp> {
    let listed = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    };
    let folders = listed(directory).into_iter().filter(|folder| folder.is_dir());
    let files = folders.flat_map(|folder| listed(&folder));
    files.map(|file| (file.clone(), FileStamp::of(&file))).collect()
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::digest::Digest;

    use super::*;
    use crate::config::ModelOptions;

    /// A model of no graph that any runtime would read: the host does not look into it.
    fn write(models: &Path, name: &str, graph: &[u8]) {
        let folder = models.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), graph).unwrap();
        let manifest = format!(
            "name = \"{name}\"\ndescription = \"\"\nfile = \"model.onnx\"\nsha256 = \
                \"{}\"\nlicence = \"MIT\"\n\
             source = \"here\"\ninputs = [{{ name = \"x\", element = \"f32\", shape = [-1, 4] }}]\n\
             outputs = [{{ name = \"y\", element = \"f32\", shape = [-1, 4] }}]\n",
            Digest::of(graph)
        );
        std::fs::write(folder.join("model.toml"), manifest).unwrap();
    }

    struct Site {
        folder: tempfile::TempDir,
        config: Config,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            config.models.directory = folder.path().join("models");
            config.store.directory = folder.path().join("data");
            write(&config.models.directory, "eye", b"one");
            Self { folder, config }
        }

        fn models(&self) -> &Path {
            &self.config.models.directory
        }

        fn kept(&self) -> usize {
            std::fs::read_dir(self.folder.path().join("data/models")).unwrap().count()
        }
    }

    fn path(catalog: &Catalog, name: &str) -> PathBuf {
        catalog.get(name).unwrap().model.path.clone().into()
    }

    #[test]
    fn a_version_in_use_stays_what_it_was_when_its_file_is_written_in_place_or_removed() {
        let site = Site::new();
        let offer = ModelCatalog::new(&site.config).unwrap();
        let kept = path(&offer.newest().1, "eye");
        assert!(kept.is_absolute() && !kept.starts_with(site.models()));
        std::fs::write(site.models().join("eye/model.onnx"), b"two").unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), b"one");
        write(site.models(), "eye", b"two");
        let (newer, changes) = offer.read_again().unwrap().unwrap();
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert!(change.starts_with("model eye changed: ") && change.contains(" -> "), "{change}");
        assert_eq!(offer.replace(newer), 1);
        assert_eq!(std::fs::read(path(&offer.newest().1, "eye")).unwrap(), b"two");
        std::fs::remove_dir_all(site.models().join("eye")).unwrap();
        let (none, changes) = offer.read_again().unwrap().unwrap();
        assert!(
            none.names().next().is_none()
                && changes.iter().any(|line| line.contains("eye removed"))
        );
        assert_eq!(std::fs::read(&kept).unwrap(), b"one", "sessions may still run it");
    }

    #[test]
    fn a_folder_that_is_wrong_leaves_what_is_offered() {
        let site = Site::new();
        let offer = ModelCatalog::new(&site.config).unwrap();
        assert!(offer.read_again().unwrap().is_none(), "nothing has changed");
        std::fs::write(site.models().join("eye/model.onnx"), b"damaged").unwrap();
        let error = offer.read_again().unwrap_err().to_string();
        assert!(error.contains("eye") && error.contains("sha256"), "{error}");
        write(site.models(), "nose", b"three");
        assert!(offer.read_again().is_err(), "a good model beside it changes nothing");
        assert_eq!(offer.newest().1.names().collect::<Vec<_>>(), ["eye"]);
    }

    #[test]
    fn what_no_model_needs_is_deleted_at_start_unless_another_host_has_the_store() {
        let site = Site::new();
        let first = ModelCatalog::new(&site.config).unwrap();
        write(site.models(), "eye", b"two");
        let (newer, _) = first.read_again().unwrap().unwrap();
        first.replace(newer);
        assert_eq!(site.kept(), 2);
        let second = ModelCatalog::new(&site.config).unwrap();
        assert_eq!(site.kept(), 2, "the first host's sessions may use the older one");
        drop((first, second));
        let _third = ModelCatalog::new(&site.config).unwrap();
        assert_eq!(site.kept(), 1);
    }

    #[test]
    fn a_copy_that_is_damaged_is_made_again() {
        let site = Site::new();
        let kept = path(&ModelCatalog::new(&site.config).unwrap().newest().1, "eye");
        std::fs::write(&kept, b"on").unwrap();
        let offer = ModelCatalog::new(&site.config).unwrap();
        assert_eq!(std::fs::read(path(&offer.newest().1, "eye")).unwrap(), b"one");
    }

    #[test]
    fn every_change_of_the_folder_is_seen() {
        let site = Site::new();
        let mut before = stamps(site.models());
        let mut changed = || {
            let now = stamps(site.models());
            std::mem::replace(&mut before, now.clone()) != now
        };
        assert!(!changed());
        write(site.models(), "nose", b"two");
        assert!(changed(), "added");
        std::fs::write(site.models().join("nose/model.onnx"), b"longer").unwrap();
        assert!(changed(), "in place");
        std::fs::remove_dir_all(site.models().join("nose")).unwrap();
        assert!(changed(), "removed");
    }

    #[test]
    fn options_of_a_model_are_applied_and_impossible_ones_named() {
        let mut site = Site::new();
        let options = |name: &str, max_batch| ModelOptions {
            name: name.into(),
            device: Some("cuda:1".parse().unwrap()),
            fallback: Some(crate::config::DeviceFallback::Cpu),
            max_batch,
            batch_delay_ms: 3,
        };
        site.config.inference.models = vec![options("eye", 8)];
        let model = Catalog::load(site.models(), &site.config.inference).unwrap();
        let model = &model.get("eye").unwrap().model;
        assert_eq!((model.device.to_string().as_str(), model.fallback), ("cuda:1", true));
        assert_eq!(model.batching.map(|batching| (batching.max, batching.delay_ms)), Some((8, 3)));

        site.config.inference.models.push(options("ear", 1));
        let error = Catalog::load(site.models(), &site.config.inference).unwrap_err().to_string();
        for text in ["inference.models[1].name", "\"ear\"", "eye"] {
            assert!(error.contains(text), "{error:?} lacks {text:?}");
        }
        let toml = site.models().join("eye/model.toml");
        let fixed = std::fs::read_to_string(&toml).unwrap().replace("[-1, 4]", "[1, 4]");
        std::fs::write(toml, fixed).unwrap();
        let error = Catalog::load(site.models(), &site.config.inference).unwrap_err().to_string();
        for text in ["inference.models[0].max_batch", "\"x\"", "[1, 4]"] {
            assert!(error.contains(text), "{error:?} lacks {text:?}");
        }
    }
}
