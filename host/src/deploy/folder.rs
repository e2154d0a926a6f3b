//! The watched folder of pipelines in the data directory: a file that has changed is deployed to
//! the sessions that use its name.
//!
//! A change counts once the file has rested ([`Debounce`]). So a file that is written in steps, and
//! one that is renamed into its place, is one change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backend::HostBackend;
use super::components;
use super::execute::Executor;
use super::pipelines::PipelineFolders;
use super::plan::Origin;
use crate::util::watch::{Debounce, FileStamp, Watch};

/// The folder's files, and when each has changed.
#[derive(Debug, Default)]
struct WatchedFolder {
    files: BTreeMap<String, Debounce<FileStamp>>,
    /// Whether it was polled before: the files of the first poll have not changed.
    known: bool,
}

impl WatchedFolder {
    /// Takes a poll in. Returns the names of files that have changed and been left alone since.
    fn take_poll(&mut self, seen: &BTreeMap<String, FileStamp>) -> Vec<String> {
        let first = !std::mem::replace(&mut self.known, true);
        for name in seen.keys() {
            self.files.entry(name.clone()).or_default();
        }
        let mut changed = Vec::new();
        for (name, debounce) in &mut self.files {
            let stamp = seen.get(name).copied().unwrap_or(FileStamp::Missing);
            if first {
                // Observed twice, it has rested.
                debounce.observe(stamp);
            }
            if debounce.observe(stamp) && !first && stamp != FileStamp::Missing {
                changed.push(name.clone());
            }
        }
        changed
    }
}

fn stamps(pipelines: &PipelineFolders) -> BTreeMap<String, FileStamp> {
    let files = pipelines.in_data().into_iter();
    files.map(|(name, source)| (name, FileStamp::of(&source.place()))).collect()
}

/// See [`super::Deployer::watch_pipelines`].
pub(super) async fn watch(executor: &Arc<Executor<HostBackend>>) {
    let mut watch = Watch::new({
        let pipelines = executor.state.pipelines.clone();
        move || stamps(&pipelines)
    });
    let mut folder = WatchedFolder::default();
    loop {
        let changed = folder.take_poll(&watch.poll().await);
        if executor.state.config().deploy.watch {
            for name in changed {
                deploy_changed(executor, &name).await;
            }
        }
    }
}

/// Deploys a pipeline's file to the sessions that use it and run something else, each in a task of
/// its own.
async fn deploy_changed(executor: &Arc<Executor<HostBackend>>, name: &str) {
    let source = executor.state.pipelines.named(name);
    let read = tokio::task::spawn_blocking(move || {
        components::digest(source.map_err(std::io::Error::other)?.open()?)
    })
    .await;
    let digest = match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok((digest, _)) => digest,
        Err(error) => {
            return tracing::warn!(
                target: "ocelli::deploy", pipeline = name, "the changed file: {error}"
            );
        }
    };
    let users = executor.state.sessions.users(name);
    let sessions = users.len();
    tracing::info!(
        target: "ocelli::deploy", pipeline = name, sessions, "the pipeline's file has changed"
    );
    for (session, _) in users.into_iter().filter(|(_, running)| running.digest != digest) {
        let (executor, pipeline) = (Arc::clone(executor), name.to_owned());
        tokio::spawn(async move {
            // The record and the log say what becomes of a deployment that has begun.
            let deployed = executor.deploy(&session, Origin::Folder { pipeline }).await;
            if let Err(error) = deployed {
                tracing::error!(
                    target: "ocelli::deploy", session, "the changed file is not deployed: {error}"
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_left_alone_and_what_was_there_is_none() {
        let site = tempfile::tempdir().unwrap();
        let mut config = crate::config::Config::default();
        config.store.directory = site.path().to_owned();
        let pipelines = PipelineFolders::new(&config);
        let folder = site.path().join("pipelines");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("eye.wasm");
        std::fs::write(&file, "one").unwrap();
        let mut watched = WatchedFolder::default();
        let mut changed = || watched.take_poll(&stamps(&pipelines));
        assert_eq!((changed(), changed(), changed()), (vec![], vec![], vec![]), "as it is found");

        std::fs::write(&file, "in steps").unwrap();
        assert_eq!(changed(), [""; 0]);
        std::fs::write(&file, "in steps, the second").unwrap();
        assert_eq!(changed(), [""; 0]);
        assert_eq!(changed(), ["eye"]);
        assert_eq!(changed(), [""; 0]);

        let draft = folder.join(".eye.wasm.swp");
        std::fs::write(&draft, "by rename").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec![]), "an editor's own file is none");
        std::fs::rename(&draft, &file).unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["eye".to_owned()]));

        std::fs::write(folder.join("new.wasm"), "hides the built-in one").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["new".to_owned()]));
        std::fs::remove_file(&file).unwrap();
        assert_eq!((changed(), changed()), (vec![], vec![]), "gone: what runs goes on");
        std::fs::write(&file, "back").unwrap();
        assert_eq!((changed(), changed()), (vec![], vec!["eye".to_owned()]));
    }
}
