//! A config together with the site's cameras, as far as they go with it.
//!
//! Hosts of a site have configs of their own, so a camera that one host takes may ask for what
//! another one does not have, such as a section for Redis. It is left out there, and that is told;
//! the others are run.

use std::collections::BTreeMap;

use super::ConfigFiles;
use crate::config::{
    CamerasPlace, ConfigError, ConfigFile, ConfigProblem, ShownProblem, ValueOrigin,
};

/// Cameras of the site that do not go with this host's config, by name, and why.
pub(super) type Unfit = BTreeMap<String, Vec<ShownProblem>>;

/// See the module's documentation.
pub(super) struct Fitting<'a> {
    pub(super) known: &'a ConfigFiles,
    /// The config's own text.
    pub(super) text: &'a str,
    /// The cameras that may be left out. Any other makes the whole config wrong.
    pub(super) may_go: &'a dyn Fn(&str) -> bool,
}

impl Fitting<'_> {
    /// The config with the cameras that go with it. `others` reads its file of cameras.
    pub(super) fn read(
        &self,
        others: impl Fn(CamerasPlace<'_>) -> Result<Option<String>, ConfigError>,
    ) -> Result<(ConfigFile, Unfit), ConfigError> {
        let path = &self.known.config;
        let mut unfit = Unfit::new();
        loop {
            let site = self.known.site.without(&unfit);
            let read = ConfigFile::with_environment(path, self.text, |place| match place {
                CamerasPlace::Site => Ok(Some(site.text())),
                CamerasPlace::File(_) => others(place),
            });
            let problems = match read {
                Ok(file) => return Ok((file, unfit)),
                Err(ConfigError::Invalid { problems, .. }) => problems,
                Err(error) => return Err(error),
            };
            let camera = |problem: &ConfigProblem| match &problem.origin {
                ValueOrigin::Cameras(place) => site.camera_at(place.line).map(str::to_owned),
                _ => None,
            };
            let mut found = Unfit::new();
            for problem in &problems {
                // What is wrong with the config itself is told alone.
                let Some(id) = camera(problem).filter(|id| (self.may_go)(id)) else {
                    return Err(ConfigError::Invalid { path: path.clone(), problems });
                };
                let shown = problem.shown(path, Some(&id));
                found.entry(id).or_default().push(shown);
            }
            unfit.append(&mut found);
        }
    }
}

/// The config in force with the site's cameras as they are now.
pub(super) fn in_force(known: &ConfigFiles) -> Result<(ConfigFile, Unfit), ConfigError> {
    Fitting { known, text: &known.text, may_go: &|_| true }.read(ConfigFile::read_cameras)
}

/// What is wrong with them, for all who look at the config.
pub(super) fn shown(unfit: &Unfit) -> impl Iterator<Item = ShownProblem> + '_ {
    unfit.values().flatten().cloned()
}

/// Why each is not run.
pub(super) fn words(unfit: &Unfit) -> BTreeMap<String, String> {
    let words = |(camera, problems): (&String, &Vec<ShownProblem>)| {
        let all = problems.iter().map(|problem| problem.message.as_str());
        let all: Vec<&str> = all.collect();
        (camera.clone(), format!("does not go with this host's config: {}", all.join("; ")))
    };
    unfit.iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::OwnedCameras;

    const HOST: &str = "[cluster]\nsite = \"hall\"\nhost = \"a\"\naddress = \"http://127.0.0.1:1\"\n\
                        etcd = [\"http://127.0.0.1:2\"]\nnats = [\"nats://127.0.0.1:3\"]\n";
    const GATE: &str = "[[cameras]]\nid = \"gate\"\nsource = \"rtsp://h/1\"\npipeline = \"eye\"\n";
    const DOOR: &str = "[[cameras]]\nid = \"door\"\nsource = \"rtsp://h/2\"\npipeline = \"eye\"\n\
                        redis_prefix = \"hall\"\n";

    fn known(text: &str, unfit: Unfit) -> ConfigFiles {
        ConfigFiles {
            config: PathBuf::from("ocelli.toml"),
            cameras: None,
            has_cameras: false,
            faulty: None,
            text: text.into(),
            site: OwnedCameras::new(&[("door", DOOR, false), ("gate", GATE, false)]),
            unfit,
        }
    }

    fn ids(file: &ConfigFile) -> Vec<&str> {
        file.config.cameras.iter().map(|camera| &*camera.id).collect()
    }

    #[test]
    fn a_camera_that_does_not_go_with_the_config_is_left_out_and_told() {
        let (file, unfit) = in_force(&known(HOST, Unfit::new())).unwrap();
        assert_eq!(ids(&file), ["gate"]);
        assert!(words(&unfit)["door"].contains("redis"), "{unfit:?}");
        assert_eq!(shown(&unfit).next().unwrap().camera.as_deref(), Some("door"));

        let with_redis = format!("{HOST}[redis]\nurl = \"redis://127.0.0.1:4/\"\n");
        let (file, unfit) = in_force(&known(&with_redis, Unfit::new())).unwrap();
        assert_eq!((ids(&file), unfit), (vec!["door", "gate"], Unfit::new()));
    }

    #[test]
    fn a_change_of_the_config_ends_no_camera_that_goes_with_the_one_in_force() {
        let read = |known: &ConfigFiles, text: &str| {
            let may_go = |camera: &str| known.unfit.contains_key(camera);
            let fitting = Fitting { known, text, may_go: &may_go };
            fitting.read(ConfigFile::read_cameras).map(|(file, _)| file.config.cameras.len())
        };
        let error = read(&known(HOST, Unfit::new()), HOST).unwrap_err();
        assert!(error.to_string().contains("redis"), "{error}");
        let door = Unfit::from([("door".to_owned(), Vec::new())]);
        assert_eq!(read(&known(HOST, door.clone()), HOST).unwrap(), 1);
        let broken = format!("{HOST}unheard_of = 1\n");
        let error = read(&known(HOST, door), &broken).unwrap_err();
        assert!(error.to_string().contains("unheard_of"), "{error}");
    }
}
