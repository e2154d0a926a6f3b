//! Worker processes: each runs one pipeline, confined and limited, on a stream or on single images.
//!
//! # Theory of operation
//!
//! A [`WorkerLauncher`] starts workers. It attaches the worker to the inference process, spawns it
//! with its descriptors ([`process`]), moves it into a control group ([`cgroup`]), and sends it the
//! `Start` message. The result is a [`WorkerHandle`], which owns the process, the connection, and
//! the attachment: dropping it kills the worker.
//!
//! A worker first reports its sandbox, then describes its pipeline, then says that it is ready.
//! [`WorkerHandle::handshake`] checks the three and their order; a [`StartError`] says why a worker
//! does not start. Nothing else may be asked of a worker before it is ready.
//!
//! [`WorkerHandle::next`] is the one way to a worker's messages. They are read where they are
//! handled, so that none wait in the host; the [`inbox`] asks the protocol's gate before it reads
//! one. `next` logs the worker's log lines, and has [`WorkerMonitor`](monitor::WorkerMonitor) count
//! messages and check the worker's health, and [`usage`] what its process uses. Its error, a
//! [`WorkerFault`], means that the worker is of no more use. A worker may be controlled by its
//! stream or by its pipeline, so [`validate`] bounds each text and each result that leaves this
//! module.
//!
//! `session` and `analyze` lie above and decide what a worker is for and what follows its end; this
//! module knows neither of them.

mod cgroup;
mod fault;
mod handle;
mod handshake;
mod health;
mod inbox;
mod launch;
mod limits;
mod monitor;
mod process;
mod sandbox;
mod still;
mod trial;
mod usage;
mod validate;

pub(crate) use cgroup::{ControlGroup, CpuLimit, GroupLimits};
pub use cgroup::{ControlGroups, ControlGroupsUnavailable, REMEDY as CONTROL_GROUPS_REMEDY};
pub(crate) use fault::{StartError, WorkerFault, check_inherited};
pub(crate) use handle::WorkerHandle;
pub(crate) use handshake::{Handshake, READY_TIMEOUT};
pub use launch::WorkerLauncher;
pub(crate) use launch::{WorkerLaunch, Workload};
pub(crate) use monitor::log_line;
pub use process::Programs;
pub(crate) use process::{WorkerExit, WorkerSender};
pub use sandbox::check_sandbox;
pub use still::StillFormat;
pub(crate) use still::still;
pub(crate) use trial::{Trial, try_settings};

#[cfg(test)]
pub(crate) use validate::tests;
