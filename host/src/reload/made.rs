//! Cameras of the site that subscribers have made by a source.
//!
//! The host that is asked holds the source against its own config, as a host that stands alone
//! does, and so does the host that the plan gives the camera: it reads the source as one that a
//! subscriber has named.

use std::sync::Arc;

use ocelli_cluster::member::{CoordError, Making};
use serde_json::{Map, Value, json};

use super::SiteCameras;
use super::editor::blocking;
use super::fitting::Unfit;
use super::site_cameras::{parsed, text};
use crate::cluster::{ClusterError, OwnedCameras};
use crate::config::ConfigFile;
use crate::config::edit::{self, ConfigChange, EditError};
use crate::config::source::Source;
use crate::deploy::{DeployError, Deployer};

/// How often a camera is looked for that others make and remove at the same time.
const TRIES: usize = 4;

/// Why the site has no session for a subscriber.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// For a reason that a host alone would have, too.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The hosts take no more.
    #[error("the site has {0} cameras, as many as its hosts take")]
    Full(u64),
    /// The settings are none that a config can have.
    #[error("{0}")]
    Entry(EditError),
    /// The site's servers do not do what they are asked.
    #[error("the site: {0}")]
    Site(#[from] ClusterError),
    /// Others make and remove it all the time.
    #[error("the site: camera {0:?} has changed meanwhile")]
    Changed(String),
}

impl MakeError {
    /// A stable name for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Deploy(error) => error.code(),
            Self::Full(_) => "session_limit",
            Self::Entry(_) => "invalid_config",
            Self::Site(ClusterError::Coordination(CoordError::Denied(_))) => "site_refuses",
            Self::Site(ClusterError::Coordination(CoordError::TooLarge(_))) => "body_too_large",
            Self::Site(_) | Self::Changed(_) => "site_unavailable",
        }
    }
}

/// What a subscriber asks for.
struct AskedSession<'a> {
    id: &'a str,
    /// As it was written.
    text: &'a str,
    /// As a subscriber's.
    source: Source,
    pipeline: &'a str,
    settings: Map<String, Value>,
}

impl SiteCameras {
    /// Makes sure that the site has a camera with this pipeline and source, and that it stays while
    /// this host has subscribers of it; the caller holds it for one. Of hosts that are asked at the
    /// same time one makes it. One that is there already is left as it is.
    pub(crate) async fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
        deployer: &Deployer,
    ) -> Result<(), MakeError> {
        let parsed = Source::parse(source, None, None, false).map_err(DeployError::from)?;
        let (text, source) = (source, parsed.of_subscriber());
        let asked = AskedSession { id, text, source, pipeline, settings };
        for _ in 0..TRIES {
            if self.is_there(&asked, deployer).await? {
                let listens = !self.cluster.is_made(id)
                    || self.cluster.member().listen(id).await.map_err(ClusterError::from)?;
                if listens {
                    return Ok(());
                }
                // This host has not heard yet that it was removed.
                self.heard(|| self.table(id).is_ok_and(|table| table.is_none())).await;
                continue;
            }
            let table = self.checked(&asked, deployer).await?;
            let making = self.cluster.make_camera(id, table).await?;
            if let Making::Full(count) = making {
                return Err(MakeError::Full(count));
            }
            self.heard(|| !self.table(id).is_ok_and(|table| table.is_none())).await;
            if making == Making::Made {
                return Ok(());
            }
        }
        Err(MakeError::Changed(id.to_owned()))
    }

    /// Whether there is such a camera. An error where it has another source or pipeline.
    async fn is_there(
        &self,
        asked: &AskedSession<'_>,
        deployer: &Deployer,
    ) -> Result<bool, MakeError> {
        let differs = || DeployError::SessionDiffers(asked.id.to_owned());
        // Whatever it is that cannot be read, it is nothing that was asked for here.
        let Some(table) = self.table(asked.id).map_err(|_| differs())? else { return Ok(false) };
        let source = if self.cluster.is_made(asked.id) {
            let text = table.get("source").and_then(Value::as_str).unwrap_or_default();
            Source::parse(text, None, None, false).ok().map(Source::of_subscriber)
        } else {
            let (path, lines) = (Arc::clone(&self.path), text(asked.id, &table));
            let file = blocking(move || parsed(&path, lines)).await.ok();
            file.and_then(|file| file.config.cameras.into_iter().next()).map(|one| one.source)
        };
        let admitted = deployer.config().subscriptions.admitted(&asked.source);
        let same = source == admitted || source.as_ref() == Some(&asked.source);
        let pipeline = table.get("pipeline").and_then(Value::as_str);
        if source.is_some() && same && pipeline == Some(asked.pipeline) {
            Ok(true)
        } else {
            Err(differs().into())
        }
    }

    /// The entry of a camera that may be made.
    async fn checked(
        &self,
        asked: &AskedSession<'_>,
        deployer: &Deployer,
    ) -> Result<Map<String, Value>, MakeError> {
        let config = deployer.config();
        if config.subscriptions.admitted(&asked.source).is_none() {
            return Err(DeployError::SourceNotAllowed.into());
        }
        if asked.source.needs_compatible_reader() && !config.subscriptions.compatible {
            return Err(DeployError::ReaderNotAllowed.into());
        }
        // By its name alone: a path would be this host's.
        deployer.component(asked.pipeline).await?;
        let mut table = Map::new();
        table.insert("source".to_owned(), json!(asked.text));
        table.insert("pipeline".to_owned(), json!(asked.pipeline));
        if !asked.settings.is_empty() {
            table.insert("settings".to_owned(), Value::Object(asked.settings.clone()));
        }
        let change = ConfigChange::PutCamera { id: asked.id.to_owned(), table: table.clone() };
        let lines = edit::changed_cameras("", &change)
            .map_err(|error| MakeError::Entry(EditError::from(error)))?;
        let path = Arc::clone(&self.path);
        blocking(move || parsed(&path, lines)).await.map_err(MakeError::Entry)?;
        Ok(table)
    }
}

/// Has the sources that subscribers have named read as such. A camera whose source the config does
/// not let them name is left out.
pub(super) fn admit(file: &mut ConfigFile, site: &OwnedCameras) -> Unfit {
    let subscriptions = file.config.subscriptions.clone();
    let mut refused = Vec::new();
    for (index, camera) in file.config.cameras.iter_mut().enumerate() {
        if !site.is_made(&camera.id) {
            continue;
        }
        match subscriptions.admitted(&camera.source.clone().of_subscriber()) {
            Some(source) => camera.source = source,
            None => refused.push((index, camera.id.clone())),
        }
    }
    let why = |(index, id): (usize, String)| {
        let fault = DeployError::SourceNotAllowed.to_string();
        let problem = file.problem(format!("cameras[{index}].source"), fault);
        (id.clone(), vec![problem.shown(&file.path, Some(&id))])
    };
    let unfit: Unfit = refused.into_iter().map(why).collect();
    file.config.cameras.retain(|camera| !unfit.contains_key(&camera.id));
    unfit
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_source_that_a_subscriber_named_is_read_as_such_or_not_at_all() {
        let text = "[subscriptions]\nsources = [\"rtsp://10.0.0.1\", \"file:/clips\"]\n\
                    [[cameras]]\nid = \"own\"\nsource = \"rtsp://10.0.0.2/1\"\npipeline = \"eye\"\n\
                    [[cameras]]\nid = \"no\"\nsource = \"rtsp://10.0.0.2/1\"\npipeline = \"eye\"\n\
                    [[cameras]]\nid = \"yes\"\nsource = \"rtsp://10.0.0.1/1\"\npipeline = \"eye\"\n\
                    [[cameras]]\nid = \"file\"\nsource = \"file:/clips/a\"\npipeline = \"eye\"\n";
        let mut file = ConfigFile::from_text(Path::new("c.toml"), text, &[]).unwrap();
        let made = |id| (id, "", id != "own");
        let site = OwnedCameras::new(&["no", "yes", "file", "own"].map(made));
        let unfit = admit(&mut file, &site);
        assert!(unfit.keys().eq(["no"]), "{unfit:?}");
        assert_eq!(unfit["no"][0].camera.as_deref(), Some("no"));
        let ids: Vec<_> = file.config.cameras.iter().map(|camera| &*camera.id).collect();
        assert_eq!(ids, ["own", "yes", "file"]);
        let is_subscribers = |source: &Source| match source {
            Source::Rtsp(source) => source.is_subscribers,
            Source::File(source) => source.beneath.as_deref() == Some(Path::new("/clips")),
        };
        let read: Vec<_> =
            file.config.cameras.iter().map(|camera| is_subscribers(&camera.source)).collect();
        assert_eq!(read, [false, true, true]);
    }
}
