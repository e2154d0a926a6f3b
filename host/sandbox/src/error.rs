//! Why a measure of confinement is not in force.

use std::io;
use std::sync::Arc;

use landlock::RulesetError;
use rustix::io::Errno;

/// Why a measure is not in force. The host shows the text to its operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Kernel(#[from] Errno),
    #[error("capabilities are kept: {0}")]
    Capabilities(Errno),
    #[error(transparent)]
    Seccomp(#[from] seccompiler::Error),
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// The threads that ran before the process confined itself: the measure misses them.
    #[error("{0} threads were running already")]
    Threads(usize),
    #[error("models run on a device whose driver needs it")]
    Devices,
    /// What the kernel reports when asked for the measure.
    #[error("the kernel says {0}")]
    NotInForce(String),
}

/// Why landlock does not restrict this process.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LandlockError {
    #[error("landlock: {0}")]
    Ruleset(Arc<RulesetError>),
    #[error("landlock is not enabled in this kernel (boot parameter lsm)")]
    NotEnabled,
    #[error("this kernel has no landlock (Linux 5.13 has)")]
    NotImplemented,
    #[error("the kernel's landlock (version {has}) does not cover {subject}: version {needs} does")]
    TooOld { has: i32, needs: i32, subject: &'static str },
}
