//! The store's folder of pipelines, watched: a file that has changed is deployed to the sessions
//! that use its name.
//!
//! It is looked at as the config is ([`crate::config::WatchCommand`]): once a second, and what has
//! changed counts when it has been left alone since. So a file that is written in steps, and one
//! that is renamed into its place, is one change.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::time::{MissedTickBehavior, interval};

use super::execute::Ordered;
use super::pipelines::{named_in, stored};
use super::record::Cause;
use super::request::{Component, DeployRequest};
use super::{Deployer, components};
use crate::config::{Debounce, FileStamp, POLL_INTERVAL};

/// What is known of the folder.
#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<String, Debounce<FileStamp>>,
    /// Whether it has been looked at: what is found first is no change.
    known: bool,
}

impl Folder {
    /// Takes in what is seen. The names whose files have changed and been left alone since.
    fn look(&mut self, seen: &BTreeMap<String, FileStamp>) -> Vec<String> {
        let first = !std::mem::replace(&mut self.known, true);
        for name in seen.keys() {
            self.files.entry(name.clone()).or_default();
        }
        let mut changed = Vec::new();
        for (name, settling) in &mut self.files {
            let look = seen.get(name).copied().unwrap_or(FileStamp::Missing);
            if first {
                // Seen twice, it is settled.
                settling.observe(look);
            }
            if settling.observe(look) && !first && look != FileStamp::Missing {
                changed.push(name.clone());
            }
        }
        changed
    }
}

fn look(folder: &Path) -> BTreeMap<String, FileStamp> {
    let files = named_in(folder).into_iter();
    files.map(|(name, path)| (name, std::fs::metadata(path).into())).collect()
}

impl Deployer {
    /// Watches the folder, for as long as the config says so. Never returns; may be dropped at any
    /// time. What lies there when it is called is no change.
    pub async fn watch_pipelines(self) {
        let mut looks = interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut folder = Folder::default();
        loop {
            looks.tick().await;
            let config = self.config();
            let path = stored(&config);
            // On a thread of its own: a network file system may take its time.
            let Ok(seen) = tokio::task::spawn_blocking(move || look(&path)).await else { continue };
            let changed = folder.look(&seen);
            if !config.deploy.watch {
                continue;
            }
            for name in changed {
                self.deploy_changed(&name).await;
            }
        }
    }

    /// Deploys a pipeline's file to the sessions that use it and run something else. Nobody waits
    /// for it.
    async fn deploy_changed(&self, name: &str) {
        let path = stored(&self.config()).join(format!("{name}.wasm"));
        let read =
            tokio::task::spawn_blocking(move || components::digest(std::fs::File::open(path)?))
                .await;
        let digest = match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok((digest, _)) => digest,
            Err(error) => {
                return tracing::warn!(target: "ocelli::deploy", pipeline = name, "the changed \
                    file: {error}");
            }
        };
        let users = self.inner.deployments.lives.users(name);
        tracing::info!(target: "ocelli::deploy", pipeline = name, sessions = users.len(), "the pipeline's file has changed");
        for (session, _) in users.into_iter().filter(|(_, running)| running.digest != digest) {
            let order = DeployRequest {
                session,
                component: Component::Pipeline(name.to_owned()),
                settings: None,
                shadow: 0,
                refused_state: None,
                cause: Cause::File,
                by: format!("pipelines/{name}.wasm"),
            };
            let deployer = self.clone();
            tokio::spawn(async move {
                let session = order.session.clone();
                let entry = deployer.entry_of(&session).filter(
                    |(pipeline, _)| matches!(&order.component, Component::Pipeline(name) if name == pipeline),
                );
                let ordered = Ordered { order, rollback: false, entry };
                // What becomes of a deployment is told by itself.
                if let Err(error) = deployer.inner.deployments.deploy(ordered).await {
                    tracing::error!(target: "ocelli::deploy", session, "the changed file is not \
                        deployed: {error}");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_left_alone_and_what_was_there_is_none() {
        let site = tempfile::tempdir().unwrap();
        let file = site.path().join("eye.wasm");
        std::fs::write(&file, "one").unwrap();
        let mut folder = Folder::default();
        let mut changed = || folder.look(&look(site.path()));
        assert_eq!((changed(), changed(), changed()), (vec![], vec![], vec![]), "as it is found");

        std::fs::write(&file, "in steps").unwrap();
        assert_eq!(changed(), [""; 0]);
        std::fs::write(&file, "in steps, the second").unwrap();
        assert_eq!(changed(), [""; 0]);
        assert_eq!(changed(), ["eye"]);
        assert_eq!(changed(), [""; 0]);

        let draft = site.path().join(".eye.wasm.swp");
        std::fs::write(&draft, "by rename").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec![]), "an editor's own file is none");
        std::fs::rename(&draft, &file).unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["eye".to_owned()]));

        std::fs::write(site.path().join("new.wasm"), "hides the gallery's").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["new".to_owned()]));
        std::fs::remove_file(&file).unwrap();
        assert_eq!((changed(), changed()), (vec![], vec![]), "gone: what runs goes on");
        std::fs::write(&file, "back").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["eye".to_owned()]));
    }
}
