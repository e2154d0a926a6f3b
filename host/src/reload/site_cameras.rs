//! Cameras of the site that the API asks about and changes.
//!
//! An entry is checked as a change of the config's file is: it is parsed together with this host's
//! config. What it names is looked at where this host could get the camera: others may have files
//! and pipelines that this one has not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::timeout;

use super::editor::{blocking, check_findings, digest};
use crate::cluster::{CameraNeeds, Cluster, ClusterError};
use crate::config::edit::{self, ConfigChange, ConfigEdit, ConfigEntry, EditError};
use crate::config::{CamerasPlace, ClusterConfig, ConfigFile};
use crate::deploy::Deployer;
use crate::preflight;

/// How long a change waits until this host has heard of it from the site: within milliseconds,
/// unless the site's servers elect a leader.
const HEARD: Duration = Duration::from_secs(3);

/// The key that the path of a request has, not the table.
const ID: &str = "id";

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SiteCameras {
    /// This host's config.
    pub(super) path: Arc<Path>,
    pub(super) cluster: Cluster,
}

impl SiteCameras {
    pub(super) fn new(path: Arc<Path>, cluster: Cluster) -> Self {
        Self { path, cluster }
    }

    /// A camera's entry, with its secrets hidden.
    pub(crate) fn entry(&self, id: &str) -> Result<ConfigEntry, EditError> {
        let table = self.table(id)?.ok_or_else(|| EditError::NotInSite(id.to_owned()))?;
        let digest = digest(&text(id, &table));
        let camera = edit::without_secrets(table);
        let toml = text(id, &camera);
        let file = format!("site {}", self.cluster.member().options().site);
        let mut camera = camera;
        camera.insert(ID.to_owned(), id.into());
        Ok(ConfigEntry { id: id.to_owned(), camera, toml, file, digest, not_editable: None })
    }

    /// Changes the site, and returns once this host has heard of it.
    pub(crate) async fn edit(
        &self,
        edit: ConfigEdit,
        deployer: &Deployer,
    ) -> Result<(), EditError> {
        let ConfigEdit { change, of, by } = edit;
        let Some(id) = change.camera().map(str::to_owned) else { return Ok(()) };
        let before = match self.table(&id) {
            Ok(table) => table,
            // What cannot be read can be written anew.
            Err(_) if of.is_none() => None,
            Err(error) => return Err(error),
        };
        let before = before.map(|table| text(&id, &table)).unwrap_or_default();
        if of.is_some_and(|of| of != digest(&before)) {
            return Err(EditError::Changed);
        }
        match &change {
            ConfigChange::PutCamera { .. } => {
                let new = edit::changed_cameras(&before, &change)?;
                let wanted = edit::camera_with_secrets(&new, &id)?.unwrap_or_default();
                let wanted = without_id(wanted);
                self.check(&new, &needs(&wanted), &change, deployer).await?;
                let put = self.cluster.put_camera(&id, wanted.clone(), needs(&wanted)).await;
                put.map_err(refused)?;
                self.heard(|| self.table(&id).is_ok_and(|now| now.as_ref() == Some(&wanted))).await;
            }
            _ => {
                let removed = self.cluster.member().remove_camera(&id).await;
                if !removed.map_err(|error| refused(error.into()))? {
                    return Err(EditError::NotInSite(id));
                }
                self.heard(|| self.table(&id).is_ok_and(|now| now.is_none())).await;
            }
        }
        tracing::info!(target: "ocelli::cluster", camera = id, by, "changed in the site");
        Ok(())
    }

    /// A camera's table, with its secrets.
    pub(super) fn table(&self, id: &str) -> Result<Option<Map<String, Value>>, EditError> {
        let table = self.cluster.camera(id).transpose();
        table.map_err(|error| EditError::Site(error.into())).map(|table| table.map(without_id))
    }

    /// Whether this host's config bears the camera, and where it could get it, whether all is there
    /// that the camera names.
    async fn check(
        &self,
        lines: &str,
        needs: &CameraNeeds,
        change: &ConfigChange,
        deployer: &Deployer,
    ) -> Result<(), EditError> {
        let (path, lines) = (Arc::clone(&self.path), lines.to_owned());
        let fits = deployer.config().cluster.as_ref().is_some_and(|own| fits(own, needs));
        let (file, findings) = blocking(move || {
            let file = parsed(&path, lines)?;
            let findings = if fits { preflight::files(&file) } else { Vec::new() };
            Ok((file, findings))
        })
        .await?;
        check_findings(&file, findings, change)?;
        if fits {
            check_findings(&file, super::components(&file, deployer).await, change)?;
        }
        Ok(())
    }

    /// Waits until the site, as this host sees it, is as wanted.
    pub(super) async fn heard(&self, mut is_so: impl FnMut() -> bool) {
        let mut site = self.cluster.member().site();
        let heard = async {
            loop {
                site.borrow_and_update();
                if is_so() || site.changed().await.is_err() {
                    return;
                }
            }
        };
        // The change is made; this host hears of it later.
        let _ = timeout(HEARD, heard).await;
    }
}

/// The config at `path` with these lines as the site's cameras.
pub(super) fn parsed(path: &Path, lines: String) -> Result<ConfigFile, EditError> {
    let wrong = |error: crate::config::ConfigError| EditError::Wrong(error.problems());
    let config = ConfigFile::read(path).map_err(wrong)?;
    ConfigFile::with_environment(path, &config, |place| {
        Ok(matches!(place, CamerasPlace::Site).then_some(lines))
    })
    .map_err(wrong)
}

/// The lines of a config for a camera.
pub(super) fn text(id: &str, table: &Map<String, Value>) -> String {
    ConfigChange::PutCamera { id: id.to_owned(), table: table.clone() }.toml().unwrap_or_default()
}

fn without_id(mut table: Map<String, Value>) -> Map<String, Value> {
    table.remove(ID);
    table
}

/// What a camera's table asks of its host.
fn needs(table: &Map<String, Value>) -> CameraNeeds {
    let list = |key: &str| {
        let items = table.get(key).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    CameraNeeds { labels: list("labels"), networks: list("networks") }
}

/// Whether a host has what a camera asks for.
fn fits(host: &ClusterConfig, needs: &CameraNeeds) -> bool {
    let all = |wanted: &[String], there: &[String]| {
        let there: BTreeSet<&String> = there.iter().collect();
        wanted.iter().all(|one| there.contains(one))
    };
    all(&needs.labels, &host.labels) && all(&needs.networks, &host.networks)
}

fn refused(error: ClusterError) -> EditError {
    EditError::Site(error.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SITE: &str = "[cluster]\nsite = \"hall\"\nhost = \"a\"\naddress = \"http://127.0.0.1:1\"\n\
                        etcd = [\"http://127.0.0.1:2\"]\nnats = [\"nats://127.0.0.1:3\"]\n\
                        labels = [\"gpu\"]\n";

    fn table(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn checked(camera: Value) -> Result<ConfigFile, EditError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        std::fs::write(&path, SITE).unwrap();
        parsed(&path, text("gate", &table(camera)))
    }

    #[test]
    fn a_camera_of_the_site_is_checked_with_this_hosts_config() {
        let camera = json!({"source": "rtsp://h/1", "pipeline": "eye", "labels": ["gpu"],
            "networks": ["hall-a"]});
        let file = checked(camera).unwrap();
        assert_eq!(file.config.cameras[0].id, "gate");
        for (wrong, said) in [
            (json!({"source": "rtsp://h/1"}), "pipeline"),
            (json!({"source": "x://h/1", "pipeline": "eye"}), "source"),
            (json!({"source": "rtsp://h/1", "pipeline": "eye", "labels": [""]}), "labels"),
            (json!({"source": "rtsp://h/1", "pipeline": "eye", "redis_prefix": "a"}), "redis"),
        ] {
            let error = checked(wrong).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_a_camera_needs_of_its_host_stands_in_its_table() {
        let wanted = table(json!({"source": "s", "labels": ["gpu"], "networks": ["hall-a"]}));
        let needed = needs(&wanted);
        assert_eq!(
            (&*needed.labels, &*needed.networks),
            (&["gpu".into()][..], &["hall-a".into()][..])
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        std::fs::write(&path, SITE).unwrap();
        let own = parsed(&path, String::from("# none\n")).unwrap().config.cluster.unwrap();
        assert!(!fits(&own, &needed) && fits(&own, &needs(&table(json!({"labels": ["gpu"]})))));
        assert!(fits(&own, &CameraNeeds::default()));
    }
}
