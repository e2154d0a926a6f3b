//! Folders that a camera grants its pipeline.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ocelli_protocol::process::{GrantedDirectory, MAX_DIRECTORIES};
use rustix::fs::{Mode, OFlags, open};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;

/// Longest path in a component, in bytes.
const MAX_GUEST_BYTES: usize = 200;

/// Folders of the kernel, through which a process reaches others and devices.
const KERNELS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A folder that a camera grants its pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The folder on this machine, which has to be there. Relative to the working directory.
    #[schemars(length(min = 1))]
    pub host: PathBuf,
    /// Where the pipeline finds it: absolute, such as "/zones".
    #[schemars(length(min = 2, max = 200))]
    pub guest: String,
    /// Whether the pipeline may change what is in it.
    #[serde(default)]
    pub write: bool,
}

/// Why a folder is not granted.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be opened.
    #[error("{folder}: {source}; `directories` grants folders that are there")]
    Unusable {
        /// As the config has it.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds what no pipeline may see, or lies in it.
    #[error("{folder} and {secret} share files: a pipeline would reach what is the host's own")]
    Shared {
        /// As the config has it.
        folder: PathBuf,
        /// The host's own folder or file.
        secret: PathBuf,
    },
    /// It belongs to the kernel.
    #[error("{folder} is the kernel's: no pipeline gets processes or devices")]
    Kernels {
        /// As the config has it.
        folder: PathBuf,
    },
}

impl Directory {
    /// Opens the folder for a worker, unless it shares files with one of `secrets`. Whatever
    /// becomes of its path afterwards, the worker has the folder that was looked at.
    pub fn open(&self, secrets: &[PathBuf]) -> Result<OwnedFd, DirectoryError> {
        let folder = self.host.clone();
        let unusable = |source| DirectoryError::Unusable { folder: folder.clone(), source };
        // Of the folder itself nothing is read here.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(&folder, flags, Mode::empty());
        let opened = opened.map_err(|error| unusable(error.into()))?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let real = real.map_err(&unusable)?;
        if KERNELS.iter().any(|kernels| real.starts_with(kernels)) {
            return Err(DirectoryError::Kernels { folder });
        }
        for secret in secrets {
            // One that is not there yet has no files to share; its parent may be granted by mistake
            // all the same.
            let place = real_path(secret);
            if real.starts_with(&place) || place.starts_with(&real) {
                return Err(DirectoryError::Shared { folder, secret: secret.clone() });
            }
        }
        Ok(opened)
    }

    /// As a worker gets it.
    pub fn granted(&self) -> GrantedDirectory {
        GrantedDirectory { guest: self.guest.clone(), write: self.write }
    }
}

/// Where a path leads, as far as it is there.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in absolute.ancestors() {
        if let Ok(real) = existing.canonicalize() {
            return match absolute.strip_prefix(existing) {
                Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
                _ => real,
            };
        }
    }
    absolute
}

impl Config {
    /// Files and folders that no pipeline may be granted. The config file itself is another one,
    /// whose path its reader knows.
    pub fn secrets(&self) -> Vec<PathBuf> {
        let mut secrets =
            vec![self.store.directory.clone(), self.store.compiled(), self.logs.directory.clone()];
        secrets.extend(self.server.tls.iter().map(|tls| tls.key.clone()));
        secrets.extend(self.server.cameras_file.clone());
        secrets.extend(self.mqtt.iter().filter_map(|mqtt| mqtt.key.clone()));
        secrets
    }
}

/// What is wrong with the folders of one camera, without a look at them: each fault with its index
/// and key.
pub(super) fn faults(directories: &[Directory]) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    if directories.len() > MAX_DIRECTORIES {
        let count = directories.len();
        faults.push((
            String::new(),
            format!("{count} folders; at most {MAX_DIRECTORIES} are granted"),
        ));
    }
    for (index, Directory { guest, .. }) in directories.iter().enumerate() {
        let mut report = |message| faults.push((format!("[{index}].guest"), message));
        let mut parts = guest.split('/');
        let absolute = parts.next() == Some("");
        let ordinary = |part: &str| !["", ".", ".."].contains(&part);
        let printable = !guest.chars().any(char::is_control);
        if !absolute
            || guest.len() < 2
            || !parts.all(ordinary)
            || !printable
            || guest.len() > MAX_GUEST_BYTES
        {
            report(format!(
                "{guest:?} is not a path such as \"/zones\": absolute, without \"..\" and a slash \
                 at its end, at most {MAX_GUEST_BYTES} bytes"
            ));
        } else if let Some(other) = directories.iter().take(index).find(|other| {
            Path::new(guest).starts_with(&other.guest) || Path::new(&other.guest).starts_with(guest)
        }) {
            report(format!("{guest:?} and {:?} are one in the other", other.guest));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory(host: impl Into<PathBuf>, guest: &str) -> Directory {
        Directory { host: host.into(), guest: guest.to_owned(), write: false }
    }

    #[test]
    fn paths_in_a_component_are_absolute_and_apart() {
        let wrong = |guests: &[&str]| -> Vec<String> {
            let directories: Vec<_> = guests.iter().map(|guest| directory("x", guest)).collect();
            faults(&directories).into_iter().map(|(key, _)| key).collect()
        };
        assert!(wrong(&["/zones", "/zone", "/a/b", "/a/c d"]).is_empty());
        for guest in ["", "/", "zones", "/a/../b", "/a//b", "/a/", "/./a", "/a\n", "//a"] {
            assert_eq!(wrong(&[guest]), ["[0].guest"], "{guest:?}");
        }
        assert_eq!(wrong(&["/a", "/a"]), ["[1].guest"]);
        assert_eq!(wrong(&["/a", "/b", "/b/c", "/"]), ["[2].guest", "[3].guest"]);
        let many: Vec<String> = (0..9).map(|number| format!("/{number}")).collect();
        assert_eq!(wrong(&many.iter().map(String::as_str).collect::<Vec<_>>()), [""]);
    }

    #[test]
    fn a_folder_is_granted_unless_it_shares_files_with_the_hosts_own() {
        let site = tempfile::tempdir().unwrap();
        let at = |name: &str| site.path().join(name);
        for folder in ["data/models", "zones/day", "config"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("config/key.pem"), "").unwrap();
        symlink(at("data"), at("link")).unwrap();
        let secrets = [at("data"), at("config/key.pem"), at("later/logs")];
        let open = |host: PathBuf| directory(host, "/x").open(&secrets);
        for good in ["zones", "zones/day", "zones/../zones"] {
            assert!(open(at(good)).is_ok(), "{good}");
        }
        for shared in ["data", "data/models", "link", "link/models", "config", ".", "zones/.."] {
            assert!(matches!(open(at(shared)), Err(DirectoryError::Shared { .. })), "{shared}");
        }
        assert!(matches!(open("/".into()), Err(DirectoryError::Shared { .. })));
        for kernels in ["/proc", "/dev/shm", "/proc/self/fd"] {
            let error = open(kernels.into()).unwrap_err();
            assert!(matches!(error, DirectoryError::Kernels { .. }), "{kernels}: {error}");
        }
        for unusable in ["none", "config/key.pem", "later"] {
            let error = open(at(unusable)).unwrap_err();
            assert!(matches!(error, DirectoryError::Unusable { .. }), "{unusable}: {error}");
        }
        // Other parts of a name are no folders.
        std::fs::create_dir(at("data2")).unwrap();
        assert!(open(at("data2")).is_ok());
    }
}
