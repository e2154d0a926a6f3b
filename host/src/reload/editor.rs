//! Changes of the config file that the API asks for. [`ConfigReloader`](super::ConfigReloader)
//! makes them: one owner reads, writes and applies the file, so that no two changes meet.
//!
//! The new text is checked as a reload checks it before it takes the place of the old one, whole or
//! not at all: it is written beside the file, with its mode and owner, and gets its name when the
//! disk has it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::MetadataExt;
use ocelli_protocol::digest::Digest;
use rustix::fs::{Access, Mode, access, fchmod, fchown};
use rustix::process::{Gid, Uid};
use tokio::sync::{mpsc, oneshot};

use crate::config::edit::{self, ConfigChange, ConfigEdit, ConfigEntry, EditError};
use crate::config::{Config, ConfigFile, ShownProblem};
use crate::deploy::Deployer;
use crate::preflight::{self, Finding};
use crate::util::folder::Folder;

/// Edits that may wait: people make them.
const WAITING: usize = 16;

/// Bytes of a config: a thousand cameras with zones of their own.
const MAX_BYTES: u64 = 16 << 20;

/// The bits of a mode that are a file's permissions.
const PERMISSIONS: u32 = 0o7777;

/// An edit, and where its outcome goes.
pub(super) type EditRequest = (ConfigEdit, oneshot::Sender<Result<(), EditError>>);

/// Asks for changes of the config file. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ConfigEditor {
    path: Arc<Path>,
    requests: mpsc::Sender<EditRequest>,
}

impl ConfigEditor {
    /// With the end that the owner of the file takes requests from.
    pub(super) fn new(path: &Path) -> (Self, mpsc::Receiver<EditRequest>) {
        let (requests, inbox) = mpsc::channel(WAITING);
        (Self { path: path.into(), requests }, inbox)
    }

    /// Changes the file, and returns once the change is applied.
    pub(crate) async fn edit(&self, edit: ConfigEdit) -> Result<(), EditError> {
        let (reply, done) = oneshot::channel();
        self.requests.send((edit, reply)).await.map_err(|_| EditError::Stopping)?;
        done.await.map_err(|_| EditError::Stopping)?
    }

    /// A camera's table in the file; `allowed`: whether the config lets the host change it.
    pub(crate) async fn camera(&self, id: &str, allowed: bool) -> Result<ConfigEntry, EditError> {
        let (path, id) = (Arc::clone(&self.path), id.to_owned());
        let read = move || {
            let place = Place::of(&path)?;
            let text = place.text()?;
            let not_editable = match check_allowed(allowed).and_then(|()| place.check(&text)) {
                Ok(()) => None,
                Err(EditError::NotEditable { reason, .. }) => Some(reason),
                Err(error) => return Err(error),
            };
            let camera = edit::camera(&text, &id)?;
            let camera = camera.ok_or_else(|| edit::ChangeError::Unknown("camera", id.clone()))?;
            let change = ConfigChange::PutCamera { id: id.clone(), table: camera.clone() };
            let (toml, digest) = (change.toml().unwrap_or_default(), digest(&text));
            Ok(ConfigEntry { id, camera, toml, digest, not_editable })
        };
        blocking(read).await
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
        error => error,
    };
    check_allowed(deployer.config().server.edit_config).map_err(with_toml)?;
    let owned = path.to_owned();
    let (place, text) = blocking(move || {
        let place = Place::of(&owned)?;
        let text = place.text()?;
        place.check(&text)?;
        Ok((place, text))
    })
    .await
    .map_err(with_toml)?;
    if edit.of.as_ref().is_some_and(|of| *of != digest(&text)) {
        return Err(EditError::Changed);
    }
    let new = edit::changed(&text, change)?;
    if new == text {
        return Ok(());
    }
    let (path, concerned) = (path.to_owned(), change.camera().map(str::to_owned));
    let (file, findings, new) = blocking(move || {
        let file = checked(&path, &text, &new, concerned.as_deref())?;
        let findings = preflight::files(&file);
        Ok((file, findings, (place, text, new)))
    })
    .await
    .map_err(with_toml)?;
    check_findings(&file, findings, change)?;
    check_findings(&file, super::components(&file, deployer).await, change)?;
    let (place, text, new) = new;
    blocking(move || place.replace(&text, &new)).await.map_err(with_toml)
}

fn check_allowed(allowed: bool) -> Result<(), EditError> {
    let reason = "the host does not change its config file: `[server] edit_config` is not true";
    if allowed { Ok(()) } else { Err(not_editable(reason)) }
}

fn not_editable(reason: impl Into<String>) -> EditError {
    EditError::NotEditable { reason: reason.into(), toml: None }
}

fn digest(text: &str) -> String {
    Digest::of(text).to_string()
}

/// The new config, if it is a valid one that differs from the old one in what it should alone.
fn checked(
    path: &Path,
    text: &str,
    new: &str,
    concerned: Option<&str>,
) -> Result<ConfigFile, EditError> {
    let wrong = |error: crate::config::ConfigError| EditError::Wrong(error.problems());
    let before = ConfigFile::with_environment(path, text).map_err(wrong)?;
    let file = ConfigFile::with_environment(path, new).map_err(wrong)?;
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

/// Refuses what is wrong with the host, or with the camera that a change concerns. Other cameras
/// are as they were.
fn check_findings(
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
async fn blocking<T: Send + 'static>(
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
        let folder = Folder::open(parent.unwrap_or(Path::new(".")))?;
        Ok(Self { folder, name: name.to_owned(), path: path.to_owned() })
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
        let about = self.folder.about(&self.name)?;
        let shown = self.path.display();
        if about.is_symlink() {
            return Err(not_editable(format!("{shown} is a link: the host does not exchange it")));
        }
        if about.nlink() > 1 {
            return Err(not_editable(format!("{shown} has other names: they would go apart")));
        }
        let is_json = self.path.extension().is_some_and(|ending| ending == "json");
        if is_json || text.trim_start().starts_with('{') {
            return Err(not_editable("the config is JSON: the host changes TOML alone"));
        }
        let parent = self.folder.path();
        for (path, rights, what) in [
            (self.path.as_path(), Access::WRITE_OK, "file"),
            (parent, Access::WRITE_OK | Access::EXEC_OK, "folder"),
        ] {
            access(path, rights).map_err(|error| {
                let shown = path.display();
                not_editable(format!("the host's user cannot write the {what} {shown}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Puts another text in the place of the file's, unless the file has changed.
    fn replace(&self, text: &str, new: &str) -> Result<(), EditError> {
        let about = self.folder.about(&self.name)?;
        let mut draft = self.folder.draft()?;
        let own = draft.file.metadata()?;
        {
            use std::os::unix::fs::MetadataExt as _;
            if (own.uid(), own.gid()) != (about.uid(), about.gid()) {
                let (owner, group) = (Uid::from_raw(about.uid()), Gid::from_raw(about.gid()));
                fchown(&draft.file, Some(owner), Some(group)).map_err(|error| {
                    let shown = self.path.display();
                    not_editable(format!("{shown} belongs to another user: {error}"))
                })?;
            }
        }
        let mode = Mode::from_raw_mode(about.mode() & PERMISSIONS);
        fchmod(&draft.file, mode).map_err(io::Error::from)?;
        draft.file.write_all(new.as_bytes())?;
        draft.file.sync_all()?;
        if self.text()? != text {
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
        let path = Path::new("ocelli.toml");
        let before = "[[cameras]]\nid = \"a\"\nsource = \"file:a\"\npipeline = \"p\"\n";
        let refused = checked(path, before, "[[cameras]]\nid = \"a\"\nsorce = \"x\"\n", Some("a"));
        let Err(EditError::Wrong(problems)) = refused else { panic!("it is taken") };
        assert!(problems.iter().any(|one| one.message.contains("source")), "{problems:?}");
        let other = before.replace("id = \"a\"", "id = \"b\"");
        let more = checked(path, before, &other, Some("a"));
        assert!(matches!(more, Err(EditError::NotEditable { .. })));
        assert!(checked(path, before, &before.replace("file:a", "file:b"), Some("a")).is_ok());
    }
}
