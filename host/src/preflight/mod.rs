//! Whether what a config names is there and usable: files, folders, certificates, pipelines and
//! their settings. `ocelli check`, the start of the host and each reload ask here, and get all
//! faults at once, each with its key and line.
//!
//! | who asks | [`files`] | [`components`] | a fault of a camera | any other fault |
//! | --- | --- | --- | --- | --- |
//! | `ocelli check` | all | all | is told | is told |
//! | the start | all | left out: each camera's start does it | its session fails | no start |
//! | a reload | all | of changed cameras | the camera goes on as it was | nothing is applied |
//!
//! A pipeline that cannot be found keeps the host from starting, too: a wrong name is seen at once.

mod components;
mod files;

use crate::config::{Camera, ConfigFile, ConfigProblem, ShownProblem};

pub(crate) use components::components;
pub(crate) use files::files;

/// A fault that a config leads to.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What is wrong, where it stands, and the way out.
    pub(crate) problem: ConfigProblem,
    /// The camera that it concerns; `None`: the host.
    pub(crate) camera: Option<String>,
    /// Whether the host does not start with it.
    pub(crate) stops_start: bool,
}

impl Finding {
    /// Of the host.
    fn of_host(problem: ConfigProblem) -> Self {
        Self { problem, camera: None, stops_start: true }
    }

    /// Of one camera.
    fn of_camera(problem: ConfigProblem, camera: &Camera) -> Self {
        Self { problem, camera: Some(camera.id.clone()), stops_start: false }
    }

    /// Of the host, which starts all the same.
    fn tolerable(problem: ConfigProblem) -> Self {
        Self { stops_start: false, ..Self::of_host(problem) }
    }

    /// As programs get it.
    pub(crate) fn shown(&self, file: &ConfigFile) -> ShownProblem {
        self.problem.shown(&file.path, self.camera.as_deref())
    }
}
