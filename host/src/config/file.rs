//! A config with the places of its values.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cameras;
use super::check;
use super::document::{Config, Document};
use super::error::{ConfigError, ConfigProblem, ValueOrigin};
use super::schema::Schema;
use super::tree::{self, Node};

/// A config that was read, and where each of its values stands. Without `Debug`: it holds
/// credentials.
pub struct ConfigFile {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its text, without cameras of another file.
    pub text: Arc<str>,
    /// What it says, the cameras of its file of cameras behind its own.
    pub config: Config,
    /// Whether there is a file of cameras.
    pub has_cameras_file: bool,
    tree: Node,
}

/// Where cameras stand that are not the config's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CamerasPlace<'a> {
    /// In this file.
    File(&'a Path),
    /// In the site that the host belongs to.
    Site,
}

/// In problems, the place of a camera of the site.
const SITE: &str = "the site";

impl ConfigFile {
    /// Reads a config file, the environment's overrides of it, and its file of cameras.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::with_environment(path, &Self::read(path)?, Self::read_cameras)
    }

    /// The text of a config file.
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })
    }

    /// The text of a file of cameras; `None`: it is not there. A site's cameras come later.
    pub fn read_cameras(place: CamerasPlace<'_>) -> Result<Option<String>, ConfigError> {
        let CamerasPlace::File(path) = place else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// A config from the text of a file with the environment's overrides. `cameras` gives the text
    /// of its other cameras, if it has such; no file is read besides.
    pub fn with_environment(
        path: &Path,
        text: &str,
        cameras: impl FnOnce(CamerasPlace<'_>) -> Result<Option<String>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut unreadable = Vec::new();
        // Sorted, so that the same environment gives the same result each time.
        let mut variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(tree::PREFIX))
            .filter_map(|(name, value)| match value.into_string() {
                Ok(value) => Some((name, value)),
                Err(_) => {
                    let origin = ValueOrigin::Environment(name);
                    unreadable.push(ConfigProblem::at(&origin, "", "the value is not valid UTF-8"));
                    None
                }
            })
            .collect();
        variables.sort_unstable();
        if unreadable.is_empty() {
            Self::with_cameras(path, text, &variables, cameras)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems: unreadable })
        }
    }

    /// A config from the text of a file, overridden by variables given as name and value. The
    /// ending of `path` selects TOML or JSON; without one the text decides. `path` also stands in
    /// errors. No file is read, nor is one of cameras.
    pub fn from_text(
        path: &Path,
        text: &str,
        variables: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        Self::with_cameras(path, text, variables, |_| Ok(None))
    }

    /// As [`from_text`](Self::from_text); `cameras` gives the text of the file of cameras.
    pub fn with_cameras(
        path: &Path,
        text: &str,
        variables: &[(String, String)],
        cameras: impl FnOnce(CamerasPlace<'_>) -> Result<Option<String>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let json = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => true,
            Some("toml") => false,
            // No TOML document begins with a brace.
            _ => text.trim_start().starts_with('{'),
        };
        let (format, parsed) =
            if json { ("JSON", Node::from_json(text)) } else { ("TOML", Node::from_toml(text)) };
        let mut tree = parsed.map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            format,
            position: error.position,
            message: error.message,
        })?;
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let schema = Schema::of_config().map_err(|error| {
            invalid(vec![ConfigProblem::whole(format!("the built-in schema is broken: {error}"))])
        })?;
        let mut problems = Vec::new();
        tree.overlay(variables, |path| schema.wants_string(path), &mut problems);
        let named = cameras::named(path, &tree).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let is_of_site = cameras::is_of_site(&tree);
        let place = match &named {
            _ if is_of_site => Some(CamerasPlace::Site),
            named => named.as_deref().map(CamerasPlace::File),
        };
        let more = place.map(cameras).transpose()?.flatten();
        if let (Some(place), Some(text)) = (place, &more) {
            let file = if let CamerasPlace::File(file) = place { file } else { Path::new(SITE) };
            cameras::append(&mut tree, file, text, &mut problems)?;
        }
        schema.check(&tree, "", &mut problems);
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        let document: Document = serde_json::from_value(tree.to_json())
            .map_err(|error| invalid(check::type_problems(&tree, &error)))?;
        let mut config = check::into_config(document, &tree, path).map_err(invalid)?;
        config.server.cameras_file = named;
        let has_cameras_file = more.is_some() && !is_of_site;
        Ok(Self { path: path.to_owned(), text: text.into(), config, has_cameras_file, tree })
    }

    /// The file in which a camera stands, and the line of its name, where lines are known.
    pub fn camera_place(&self, id: &str) -> Option<(&Path, Option<usize>)> {
        let index = self.config.cameras.iter().position(|camera| camera.id == id)?;
        Some(match &self.tree.nearest(&format!("cameras[{index}].id")).origin {
            ValueOrigin::Cameras(place) => (&*place.file, Some(place.line)),
            ValueOrigin::Line(line) => (self.path.as_path(), Some(*line)),
            ValueOrigin::File | ValueOrigin::Environment(_) => (self.path.as_path(), None),
        })
    }

    /// A problem of what is written at a key, such as `cameras[0].source`.
    pub fn problem(&self, key: impl Into<String>, message: impl Into<String>) -> ConfigProblem {
        let key = key.into();
        ConfigProblem::at(&self.tree.nearest(&key).origin, key, message)
    }
}
