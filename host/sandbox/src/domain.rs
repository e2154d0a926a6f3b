//! Landlock: which files, addresses and processes a process reaches by name.

use std::path::PathBuf;
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::error::{LandlockError, MeasureError};
use crate::profile::Profile;

/// The newest interface that the crate knows. The kernel enforces the part that it supports.
const NEWEST: ABI = ABI::V9;

/// Result of each measure.
pub(crate) struct Domain {
    pub(crate) files: Result<(), MeasureError>,
    pub(crate) network: Result<(), MeasureError>,
    pub(crate) scopes: Result<(), MeasureError>,
}

/// Restricts this thread, and those that it will start.
pub(crate) fn restrict(profile: &Profile<'_>) -> Domain {
    let abi = match apply(profile) {
        Ok(status) => enforced(&status),
        Err(error) => Err(LandlockError::Ruleset(Arc::new(error))),
    };
    let since = |needed: ABI, subject: &'static str| -> Result<(), MeasureError> {
        let (has, needs) = (abi.clone()?, needed as i32);
        match has >= needed {
            true => Ok(()),
            false => Err(LandlockError::TooOld { has: has as i32, needs, subject }.into()),
        }
    };
    Domain {
        files: match profile.devices {
            false => since(ABI::V3, "truncating files"),
            true => Err(MeasureError::Devices),
        },
        network: since(ABI::V4, "TCP"),
        scopes: since(ABI::V6, "signals and abstract sockets"),
    }
}

fn apply(profile: &Profile<'_>) -> Result<RestrictionStatus, RulesetError> {
    let ruleset = match profile.devices {
        false => Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?,
        true => Ruleset::default(),
    };
    let mut ruleset = ruleset
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    // Unrestricted access takes no rules.
    let readable: &[PathBuf] = if profile.devices { &[] } else { &profile.readable };
    for folder in readable.iter().filter_map(|path| PathFd::new(path).ok()) {
        ruleset = ruleset.add_rule(PathBeneath::new(folder, AccessFs::ReadFile))?;
    }
    if let Some(file) = profile.reopened {
        ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
    }
    for (folder, write) in &profile.directories {
        ruleset = ruleset.add_rule(PathBeneath::new(folder, of_directory(*write)))?;
    }
    ruleset.restrict_self()
}

/// What a process may do in a folder that it was granted.
fn of_directory(write: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match write {
        false => read,
        true => {
            read | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
    }
}

/// The version that is enforced.
fn enforced(status: &RestrictionStatus) -> Result<ABI, LandlockError> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi),
        LandlockStatus::NotEnabled => Err(LandlockError::NotEnabled),
        LandlockStatus::NotImplemented => Err(LandlockError::NotImplemented),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};

    /// Without seccomp before it, landlock has to refuse by itself. It takes effect on a thread, so
    /// a thread is enough.
    #[test]
    fn landlock_alone_refuses_files_connections_and_signals() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let attempts = std::thread::spawn(move || {
            let domain = restrict(&Profile::worker(None));
            let parent = rustix::process::getppid().unwrap();
            (
                (domain.files, File::open(std::env::current_exe().unwrap()).map(drop)),
                (domain.network, TcpStream::connect(address).map(drop)),
                (
                    domain.scopes,
                    rustix::process::test_kill_process(parent).map_err(std::io::Error::from),
                ),
            )
        });
        let (files, network, scopes) = attempts.join().unwrap();
        for (what, (enforced, attempt)) in
            [("files", files), ("network", network), ("scopes", scopes)]
        {
            if let Err(reason) = enforced {
                ocelli_testkit::skip::skip(&format!(
                    "in part: landlock does not cover {what} here: {reason}"
                ));
                continue;
            }
            let errno = Errno::from_io_error(&attempt.unwrap_err()).unwrap();
            assert!([Errno::ACCESS, Errno::PERM].contains(&errno), "{what}: {errno}");
        }
        // This thread was left alone.
        assert!(TcpStream::connect(address).is_ok());
    }
}
