//! Landlock: which files, addresses and processes a process reaches by name.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::profile::Profile;

/// The newest interface that the crate knows. The kernel enforces the part that it supports.
const NEWEST: ABI = ABI::V9;

/// Why a measure is not taken where drivers of devices work.
pub(crate) const DEVICES: &str = "models run on a device whose driver needs it";

/// Result of each measure.
pub(crate) struct Domain {
    pub(crate) files: Result<(), String>,
    pub(crate) network: Result<(), String>,
    pub(crate) scopes: Result<(), String>,
}

/// Restricts this thread, and those that it will start.
pub(crate) fn restrict(profile: &Profile<'_>) -> Domain {
    let abi = match apply(profile) {
        Ok(status) => enforced(&status),
        Err(error) => Err(format!("landlock: {error}")),
    };
    let since = |needed: ABI, what: &str| match &abi {
        Ok(abi) if *abi >= needed => Ok(()),
        Ok(abi) => Err(format!(
            "the kernel's landlock (version {}) does not cover {what}: version {} does",
            *abi as i32, needed as i32
        )),
        Err(reason) => Err(reason.clone()),
    };
    Domain {
        files: match profile.devices {
            false => since(ABI::V3, "truncating files"),
            true => Err(DEVICES.to_owned()),
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
    ruleset.restrict_self()
}

/// The version that is enforced.
fn enforced(status: &RestrictionStatus) -> Result<ABI, String> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi),
        LandlockStatus::NotEnabled => {
            Err("landlock is not enabled in this kernel (boot parameter lsm)".into())
        }
        LandlockStatus::NotImplemented => {
            Err("this kernel has no landlock (Linux 5.13 has)".into())
        }
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
