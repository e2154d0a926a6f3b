//! Changes of the config file that the API asks for. [`ConfigReloader`](super::ConfigReloader)
//! makes them: one owner reads, writes and applies the file, so that no two changes meet.
//!
//! Where the config names a file of cameras, changes of cameras are changes of that file, which is
//! made with the first one, and cameras of the config itself stay as they are.
//!
//! The new text is checked as a reload checks it before it takes the place of the old one, whole or
//! not at all: it is written beside the file, with its mode and owner, and gets its name when the
//! disk has it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Metadata, MetadataExt};
use ocelli_protocol::digest::Digest;
use rustix::fs::{Access, Mode, access, fchmod, fchown};
use rustix::process::{Gid, Uid};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::SiteCameras;
use crate::cluster::Cluster;
use crate::config::edit::{self, ChangeError, ConfigChange, ConfigEdit, ConfigEntry, EditError};
use crate::config::{Config, ConfigError, ConfigFile, ShownProblem};
use crate::deploy::{Deployer, ReloadReport};
use crate::preflight::{self, Finding};
use crate::util::folder::Folder;

/// Requests that may wait: people make them.
const WAITING: usize = 16;

/// Bytes of a config: a thousand cameras with zones of their own.
const MAX_BYTES: u64 = 16 << 20;

/// The bits of a mode that are a file's permissions.
const PERMISSIONS: u32 = 0o7777;

/// Mode of a new file of cameras: it holds passwords.
const PRIVATE: u32 = 0o600;

/// What the API asks for, and where the outcome goes.
pub(super) enum ConfigRequest {
    Edit(ConfigEdit, oneshot::Sender<Result<(), EditError>>),
    /// The name of who wants the config read again.
    Reload(String, oneshot::Sender<Result<ReloadReport, EditError>>),
}

/// Asks for changes of the config file. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ConfigEditor {
    path: Arc<Path>,
    requests: mpsc::Sender<ConfigRequest>,
}

impl ConfigEditor {
    /// With the end that the owner of the file takes requests from.
    pub(super) fn new(path: &Path) -> (Self, mpsc::Receiver<ConfigRequest>) {
        let (requests, inbox) = mpsc::channel(WAITING);
        (Self { path: path.into(), requests }, inbox)
    }

    /// Changes the file, and returns once the change is applied.
    pub(crate) async fn edit(&self, edit: ConfigEdit) -> Result<(), EditError> {
        self.ask(|reply| ConfigRequest::Edit(edit, reply)).await
    }

    /// Has the config read again and applied.
    pub(crate) async fn reload(&self, by: String) -> Result<ReloadReport, EditError> {
        self.ask(|reply| ConfigRequest::Reload(by, reply)).await
    }

    /// The cameras of the site that the host is a member of.
    pub(crate) fn of_site(&self, cluster: Cluster) -> SiteCameras {
        SiteCameras::new(Arc::clone(&self.path), cluster)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, EditError>>) -> ConfigRequest,
    ) -> Result<T, EditError> {
        let (reply, done) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| EditError::Stopping)?;
        done.await.map_err(|_| EditError::Stopping)?
    }

    /// A camera's table in the file where it stands, and whether the config in force lets the host
    /// change it.
    pub(crate) async fn camera(&self, id: &str, config: &Config) -> Result<ConfigEntry, EditError> {
        let (path, id, allowed) =
            (Arc::clone(&self.path), id.to_owned(), config.server.edit_config);
        let cameras = config.server.cameras_file.clone();
        let read = move || {
            let found = match &cameras {
                None => entry_of(&path, &id)?,
                Some(cameras) => entry_beside(&path, cameras, &id)?,
            };
            let found = found.ok_or_else(|| ChangeError::Unknown("camera", id.clone()))?;
            found.entry(id, allowed)
        };
        blocking(read).await
    }
}

/// A camera's table, and where it stands.
struct FoundEntry {
    place: Place,
    text: String,
    camera: Map<String, Value>,
    /// The file of cameras that the host changes instead.
    read_only_for: Option<PathBuf>,
}

/// A camera's table in the file of cameras, or in the config beside it.
fn entry_beside(path: &Path, cameras: &Path, id: &str) -> Result<Option<FoundEntry>, EditError> {
    match entry_of(cameras, id) {
        // There is no folder for it yet.
        Ok(None) | Err(EditError::NotEditable { .. }) => {}
        found => return found,
    }
    match entry_of(path, id) {
        // Tables of JSON are not shown.
        Err(EditError::Change(ChangeError::Syntax(_)))
            if path.extension().is_some_and(|ending| ending == "json") =>
        {
            Ok(None)
        }
        found => {
            Ok(found?.map(|found| FoundEntry { read_only_for: Some(cameras.to_owned()), ..found }))
        }
    }
}

/// A camera's table in a file, if it is there.
fn entry_of(path: &Path, id: &str) -> Result<Option<FoundEntry>, EditError> {
    let place = Place::of(path)?;
    let text = place.text_if_there()?;
    let found = edit::camera(&text, id)?;
    Ok(found.map(|camera| FoundEntry { place, text, camera, read_only_for: None }))
}

impl FoundEntry {
    /// As the API shows it.
    fn entry(self, id: String, allowed: bool) -> Result<ConfigEntry, EditError> {
        let Self { place, text, camera, read_only_for } = self;
        let file = place.path.display().to_string();
        let check = check_allowed(allowed).and_then(|()| match &read_only_for {
            None => place.check(&text),
            Some(cameras) => Err(read_only(&id, file.clone(), cameras)),
        });
        let not_editable = match check {
            Ok(()) => None,
            Err(EditError::NotEditable { reason, .. }) => Some(reason),
            Err(error @ EditError::ReadOnly { .. }) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let change = ConfigChange::PutCamera { id: id.clone(), table: camera.clone() };
        let (toml, digest) = (change.toml().unwrap_or_default(), digest(&text));
        Ok(ConfigEntry { id, camera, toml, file, digest, not_editable })
    }
}

/// The file that a change is of.
struct EditTarget {
    place: Place,
    text: String,
    /// `None`: it is the config. Else the config's text: it is its file of cameras.
    beside: Option<String>,
}

impl EditTarget {
    /// The file of a change, which the host can write. `cameras`: the file of cameras of the config
    /// in force.
    fn of(path: &Path, cameras: Option<&Path>, change: &ConfigChange) -> Result<Self, EditError> {
        let Some((cameras, id)) = cameras.zip(change.camera()) else {
            let place = Place::of(path)?;
            let text = place.text()?;
            place.check(&text)?;
            return Ok(Self { place, text, beside: None });
        };
        let config = Place::of(path)?.text()?;
        let place = Place::of(cameras)?;
        let text = place.text_if_there()?;
        let target = Self { place, text, beside: Some(config) };
        let before = target.parsed(path, &target.text)?;
        if before.config.server.cameras_file.as_deref() != Some(cameras) {
            // The config names another one by now, and that is not in force yet.
            return Err(EditError::Changed);
        }
        if let Some((file, line)) = before.camera_place(id)
            && file != cameras
        {
            let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
            return Err(read_only(id, format!("{}{line}", file.display()), cameras));
        }
        target.place.check(&target.text)?;
        Ok(target)
    }

    fn changed(&self, change: &ConfigChange) -> Result<String, EditError> {
        Ok(match &self.beside {
            None => edit::changed(&self.text, change)?,
            Some(_) => edit::changed_cameras(&self.text, change)?,
        })
    }

    /// The config at `path` with this text in the place of the file's.
    fn parsed(&self, path: &Path, text: &str) -> Result<ConfigFile, EditError> {
        let parsed = match &self.beside {
            None => ConfigFile::with_environment(path, text, ConfigFile::read_cameras),
            Some(config) => {
                ConfigFile::with_environment(path, config, |_| Ok(Some(text.to_owned())))
            }
        };
        parsed.map_err(|error: ConfigError| EditError::Wrong(error.problems()))
    }

    /// The new config, if it is a valid one that differs from the old one in what it should alone.
    fn checked(
        &self,
        path: &Path,
        new: &str,
        concerned: Option<&str>,
    ) -> Result<ConfigFile, EditError> {
        let before = self.parsed(path, &self.text)?;
        let file = self.parsed(path, new)?;
        let others = |config: &Config| {
            let mut config = config.clone();
            config.cameras.retain(|camera| Some(camera.id.as_str()) != concerned);
            if concerned.is_none() {
                config.server.tokens.clear();
            }
            config
        };
        if others(&before.config) != others(&file.config) {
            let reason = "the change would touch more than it should: make it by hand";
            return Err(not_editable(reason));
        }
        Ok(file)
    }
}

/// Makes a change of the file: checked, written, and not yet applied.
pub(super) async fn write(
    path: &Path,
    deployer: &Deployer,
    edit: &ConfigEdit,
) -> Result<(), EditError> {
    let change = &edit.change;
    let with_toml = |error: EditError| match error {
        EditError::NotEditable { reason, .. } => {
            EditError::NotEditable { reason, toml: change.toml() }
        }
        EditError::ReadOnly { id, place, cameras, .. } => {
            EditError::ReadOnly { id, place, cameras, toml: change.toml() }
        }
        error => error,
    };
    let config = deployer.config();
    check_allowed(config.server.edit_config).map_err(with_toml)?;
    let (owned, cameras) = (path.to_owned(), config.server.cameras_file.clone());
    let wanted = change.clone();
    let target = blocking(move || EditTarget::of(&owned, cameras.as_deref(), &wanted));
    let target = target.await.map_err(with_toml)?;
    if edit.of.as_ref().is_some_and(|of| *of != digest(&target.text)) {
        return Err(EditError::Changed);
    }
    let new = target.changed(change)?;
    if new == target.text {
        return Ok(());
    }
    let (path, concerned) = (path.to_owned(), change.camera().map(str::to_owned));
    let (file, findings, (target, new)) = blocking(move || {
        let file = target.checked(&path, &new, concerned.as_deref())?;
        let findings = preflight::files(&file);
        Ok((file, findings, (target, new)))
    })
    .await
    .map_err(with_toml)?;
    check_findings(&file, findings, change)?;
    check_findings(&file, super::components(&file, deployer).await, change)?;
    blocking(move || target.place.replace(&target.text, &new)).await.map_err(with_toml)
}

/// A camera that the API does not change, as it stands in the config.
fn read_only(id: &str, place: String, cameras: &Path) -> EditError {
    let cameras = cameras.display().to_string();
    EditError::ReadOnly { id: id.to_owned(), place, cameras, toml: None }
}

fn check_allowed(allowed: bool) -> Result<(), EditError> {
    let reason = "the host does not change its config file: `[server] edit_config` is not true";
    if allowed { Ok(()) } else { Err(not_editable(reason)) }
}

fn not_editable(reason: impl Into<String>) -> EditError {
    EditError::NotEditable { reason: reason.into(), toml: None }
}

pub(super) fn digest(text: &str) -> String {
    Digest::of(text).to_string()
}

/// Refuses what is wrong with the host, or with the camera that a change concerns. Other cameras
/// are as they were.
pub(super) fn check_findings(
    file: &ConfigFile,
    findings: Vec<Finding>,
    change: &ConfigChange,
) -> Result<(), EditError> {
    let concerns = |finding: &Finding| match &finding.camera {
        Some(camera) => Some(camera.as_str()) == change.camera(),
        None => finding.stops_start,
    };
    let wrong = findings.iter().filter(|finding| concerns(finding));
    let wrong: Vec<ShownProblem> = wrong.map(|finding| finding.shown(file)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(EditError::Wrong(wrong)) }
}

/// On a thread of its own: a network file system may take its time.
pub(super) async fn blocking<T: Send + 'static>(
    doing: impl FnOnce() -> Result<T, EditError> + Send + 'static,
) -> Result<T, EditError> {
    let done = tokio::task::spawn_blocking(doing).await;
    done.map_err(|error| EditError::File(io::Error::other(error)))?
}

/// Where the file lies.
struct Place {
    folder: Folder,
    name: String,
    path: PathBuf,
}

impl Place {
    fn of(path: &Path) -> Result<Self, EditError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| not_editable("the config file's name is not UTF-8"))?;
        let parent = parent.unwrap_or(Path::new("."));
        let folder = Folder::open(parent).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                not_editable(format!("there is no folder {}", parent.display()))
            }
            _ => EditError::File(error),
        })?;
        Ok(Self { folder, name: name.to_owned(), path: path.to_owned() })
    }

    /// The file's text, empty where it is not there yet.
    fn text_if_there(&self) -> Result<String, EditError> {
        match self.text() {
            Err(EditError::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(String::new())
            }
            text => text,
        }
    }

    /// The file's text, behind a link too.
    fn text(&self) -> Result<String, EditError> {
        let file = crate::util::folder::open_regular(&self.path)?;
        let mut text = String::new();
        if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(not_editable("the config file is too large to be changed by the host"));
        }
        Ok(text)
    }

    /// Refuses a file that cannot be exchanged, with the reason.
    fn check(&self, text: &str) -> Result<(), EditError> {
        let about = self.about()?;
        let shown = self.path.display();
        if about.as_ref().is_some_and(Metadata::is_symlink) {
            return Err(not_editable(format!("{shown} is a link: the host does not exchange it")));
        }
        if about.as_ref().is_some_and(|about| about.nlink() > 1) {
            return Err(not_editable(format!("{shown} has other names: they would go apart")));
        }
        let is_json = self.path.extension().is_some_and(|ending| ending == "json");
        if is_json || text.trim_start().starts_with('{') {
            return Err(not_editable("the config is JSON: the host changes TOML alone"));
        }
        let parent = (self.folder.path(), Access::WRITE_OK | Access::EXEC_OK, "folder");
        let file = about.map(|_| (self.path.as_path(), Access::WRITE_OK, "file"));
        for (path, rights, what) in file.into_iter().chain([parent]) {
            access(path, rights).map_err(|error| {
                let shown = path.display();
                not_editable(format!("the host's user cannot write the {what} {shown}: {error}"))
            })?;
        }
        Ok(())
    }

    /// What is known of the file; `None`: it is not there yet.
    fn about(&self) -> io::Result<Option<Metadata>> {
        match self.folder.about(&self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            about => about.map(Some),
        }
    }

    /// Gives a draft the owner of the file whose place it takes.
    fn hand_over(&self, draft: &File, about: &Metadata) -> Result<(), EditError> {
        use std::os::unix::fs::MetadataExt as _;
        let own = draft.metadata()?;
        if (own.uid(), own.gid()) == (about.uid(), about.gid()) {
            return Ok(());
        }
        let (owner, group) = (Uid::from_raw(about.uid()), Gid::from_raw(about.gid()));
        fchown(draft, Some(owner), Some(group)).map_err(|error| {
            let shown = self.path.display();
            not_editable(format!("{shown} belongs to another user: {error}"))
        })
    }

    /// Puts another text in the place of the file's, unless the file has changed.
    fn replace(&self, text: &str, new: &str) -> Result<(), EditError> {
        let about = self.about()?;
        let mut draft = self.folder.draft()?;
        if let Some(about) = &about {
            self.hand_over(&draft.file, about)?;
        }
        let mode = about.map_or(PRIVATE, |about| about.mode() & PERMISSIONS);
        fchmod(&draft.file, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
        draft.file.write_all(new.as_bytes())?;
        draft.file.sync_all()?;
        if self.text_if_there()? != text {
            return Err(EditError::Changed);
        }
        draft.persist(&self.name)?;
        Ok(self.folder.handle(".")?.sync_all()?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn reason(place: &Place) -> String {
        let text = place.text().unwrap();
        let Err(EditError::NotEditable { reason, .. }) = place.check(&text) else {
            panic!("it can be changed")
        };
        reason
    }

    #[test]
    fn a_file_is_exchanged_whole_with_its_mode_and_not_if_it_has_changed() {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("ocelli.toml");
        std::fs::write(&path, "# old\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let place = Place::of(&path).unwrap();
        place.check("# old\n").unwrap();
        place.replace("# old\n", "# new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let changed = place.replace("# old\n", "# newer\n");
        assert!(matches!(changed, Err(EditError::Changed)), "{changed:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# new\n");
        assert_eq!(place.folder.names().unwrap(), ["ocelli.toml"], "no draft is left");
    }

    #[test]
    fn a_file_that_cannot_be_exchanged_is_told_with_the_reason() {
        let site = tempfile::tempdir().unwrap();
        let at = |name: &str| site.path().join(name);
        std::fs::write(at("real.toml"), "# it\n").unwrap();
        symlink(at("real.toml"), at("link.toml")).unwrap();
        assert!(reason(&Place::of(&at("link.toml")).unwrap()).contains("is a link"));
        std::fs::write(at("a.json"), "{}").unwrap();
        assert!(reason(&Place::of(&at("a.json")).unwrap()).contains("JSON"));
        std::fs::hard_link(at("real.toml"), at("other.toml")).unwrap();
        assert!(reason(&Place::of(&at("real.toml")).unwrap()).contains("other names"));
    }

    #[test]
    fn a_change_that_the_config_does_not_bear_is_refused_with_all_problems() {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().join("ocelli.toml");
        let before = "[[cameras]]\nid = \"a\"\nsource = \"file:a\"\npipeline = \"p\"\n";
        std::fs::write(&path, before).unwrap();
        let change = ConfigChange::RemoveCamera { id: "a".to_owned() };
        let target = EditTarget::of(&path, None, &change).unwrap();
        let checked = |new: &str| target.checked(&path, new, Some("a"));
        let refused = checked("[[cameras]]\nid = \"a\"\nsorce = \"x\"\n");
        let Err(EditError::Wrong(problems)) = refused else { panic!("it is taken") };
        assert!(problems.iter().any(|one| one.message.contains("source")), "{problems:?}");
        let other = before.replace("id = \"a\"", "id = \"b\"");
        let more = checked(&other);
        assert!(matches!(more, Err(EditError::NotEditable { .. })));
        assert!(checked(&before.replace("file:a", "file:b")).is_ok());
    }

    /// A config with a file of cameras that is not there yet, and what changes it.
    struct Site {
        _folder: tempfile::TempDir,
        config: PathBuf,
        cameras: PathBuf,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let text = "[[cameras]]\nid = \"own\"\nsource = \"file:a\"\npipeline = \"p\"\n\n\
                        [server]\ncameras_file = \"cameras.toml\"\n";
            std::fs::write(at("ocelli.toml"), text).unwrap();
            Self { config: at("ocelli.toml"), cameras: at("cameras.toml"), _folder: folder }
        }

        fn change(&self, change: &ConfigChange) -> Result<(), EditError> {
            let target = EditTarget::of(&self.config, Some(&self.cameras), change)?;
            let new = target.changed(change)?;
            target.checked(&self.config, &new, change.camera())?;
            target.place.replace(&target.text, &new)
        }

        fn put(&self, id: &str, source: &str) -> Result<(), EditError> {
            let Value::Object(table) = serde_json::json!({"source": source, "pipeline": "p"})
            else {
                unreachable!()
            };
            self.change(&ConfigChange::PutCamera { id: id.to_owned(), table })
        }

        fn remove(&self, id: &str) -> Result<(), EditError> {
            self.change(&ConfigChange::RemoveCamera { id: id.to_owned() })
        }

        fn text(&self) -> String {
            std::fs::read_to_string(&self.cameras).unwrap()
        }

        fn cameras(&self) -> Vec<String> {
            let config = ConfigFile::load(&self.config).ok().unwrap().config;
            config.cameras.into_iter().map(|camera| camera.id).collect()
        }
    }

    #[test]
    fn cameras_come_to_a_file_of_their_own_and_the_config_stays_as_it_is() {
        let site = Site::new();
        let config = std::fs::read_to_string(&site.config).unwrap();
        site.put("gate", "rtsp://eye:hush@10.0.0.5/main").unwrap();
        let mode = std::fs::metadata(&site.cameras).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds a password");
        assert!(site.text().starts_with('#') && site.text().contains("hush"), "{}", site.text());
        site.put("yard", "file:b").unwrap();
        std::fs::set_permissions(&site.cameras, PermissionsExt::from_mode(0o640)).unwrap();
        site.put("gate", "rtsp://***:***@10.0.0.5/sub").unwrap();
        assert!(site.text().contains("rtsp://eye:hush@10.0.0.5/sub"), "{}", site.text());
        assert_eq!(site.cameras(), ["own", "gate", "yard"]);
        let mode = std::fs::metadata(&site.cameras).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "as the operator has set it");
        site.remove("gate").unwrap();
        site.remove("yard").unwrap();
        assert_eq!(site.cameras(), ["own"]);
        assert!(!site.text().trim().is_empty(), "an empty file would be taken for a damaged one");
        let unknown = site.remove("gate").unwrap_err();
        assert!(matches!(unknown, EditError::Change(ChangeError::Unknown(..))), "{unknown}");
        site.put("gate", "file:c").unwrap();
        assert_eq!(site.text().matches('#').count(), 1, "{}", site.text());
        assert_eq!(std::fs::read_to_string(&site.config).unwrap(), config);
    }

    #[test]
    fn a_camera_of_the_config_is_not_changed_and_its_place_is_told() {
        let site = Site::new();
        for refused in [site.put("own", "file:b"), site.remove("own")] {
            let error = refused.unwrap_err();
            assert!(matches!(error, EditError::ReadOnly { .. }), "{error}");
            let told = error.to_string();
            assert!(
                told.contains("ocelli.toml, line 2") && told.contains("cameras.toml"),
                "{told}"
            );
        }
        assert!(!site.cameras.exists());
        let found = entry_of(&site.config, "own").unwrap().unwrap();
        let found = FoundEntry { read_only_for: Some(site.cameras.clone()), ..found };
        let entry = found.entry("own".to_owned(), true).unwrap();
        assert!(entry.not_editable.unwrap().contains("ocelli.toml"));
        assert_eq!(entry.file, site.config.display().to_string());
    }

    #[test]
    fn a_broken_file_of_cameras_is_not_written_over() {
        let site = Site::new();
        std::fs::write(&site.cameras, "[[cameras]]\nid = \"ga").unwrap();
        let refused = site.put("gate", "file:c").unwrap_err();
        assert!(matches!(refused, EditError::Wrong(_)), "{refused}");
        assert!(refused.to_string().contains("cameras.toml"), "{refused}");
        assert_eq!(site.text(), "[[cameras]]\nid = \"ga");
        std::fs::write(&site.config, "[server]\ncameras_file = \"other.toml\"\n").unwrap();
        assert!(matches!(site.put("gate", "file:c"), Err(EditError::Wrong(_))), "broken still");
        std::fs::write(&site.cameras, "# none\n").unwrap();
        let refused = site.put("gate", "file:c").unwrap_err();
        assert!(matches!(refused, EditError::Changed), "another file is not in force yet");
    }
}
