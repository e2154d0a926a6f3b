//! Finds the host's own control group in the file system.

use std::path::{Path, PathBuf};

use super::ControlGroupsUnavailable;

/// The host's own control group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnGroup {
    /// Its path in the file system.
    pub(super) folder: PathBuf,
    /// Whether the process sees it as the root of all groups.
    pub(super) is_view: bool,
    /// Whether cgroup v1 is mounted as well and has the memory or the cpu controller.
    pub(super) v1_controllers: bool,
}

/// Finds the process's group in the cgroup v2 hierarchy. `cgroup` is the text of
/// `/proc/self/cgroup`, `mountinfo` that of `/proc/self/mountinfo`; cgroups(7) and proc(5) describe
/// the two.
pub(super) fn own_group(
    cgroup: &str,
    mountinfo: &str,
) -> Result<OwnGroup, ControlGroupsUnavailable> {
    let path = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or(ControlGroupsUnavailable::NotMounted)?;
    let v1_controllers = cgroup.lines().any(|line| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        controllers.split(',').any(|name| name == "memory" || name == "cpu")
    });
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let first = mounts.first().ok_or(ControlGroupsUnavailable::NotMounted)?;
    // Some of several mounts may show another part: the first that shows the group counts.
    let folder = mounts.iter().find_map(|mount| mount.folder_of(path));
    let folder = folder.ok_or_else(|| ControlGroupsUnavailable::OutOfSight(first.point.clone()))?;
    Ok(OwnGroup { folder, is_view: path == "/", v1_controllers })
}

/// A mount of the cgroup v2 hierarchy.
struct Mount {
    /// The group that is mounted there.
    root: String,
    point: PathBuf,
}

impl Mount {
    /// `None` for a line about another file system.
    fn parse(line: &str) -> Option<Self> {
        // The fields before the dash differ in number, those behind it begin with the type.
        let (before, behind) = line.split_once(" - ")?;
        if behind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        Some(Self { root, point: point.into() })
    }

    fn folder_of(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        // `/../other` is a group beside the one that the process sees as the root.
        let visible = !below.components().any(|part| part == std::path::Component::ParentDir);
        visible.then(|| self.point.join(below).components().collect())
    }
}

/// Decodes blanks and backslashes, which are written as three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.split_at_checked(3).and_then(|(digits, rest)| {
            Some((char::from(u8::from_str_radix(digits, 8).ok()?), rest))
        });
        match code {
            Some((character, rest)) => {
                text.push(character);
                text.push_str(rest);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

    fn folder(cgroup: &str, mountinfo: &str) -> Result<PathBuf, String> {
        own_group(cgroup, mountinfo).map(|own| own.folder).map_err(|error| error.to_string())
    }

    #[test]
    fn the_group_of_a_service_lies_below_the_mount() {
        let found = own_group("0::/system.slice/ocelli.service\n", UNIFIED).unwrap();
        let folder = "/sys/fs/cgroup/system.slice/ocelli.service".into();
        assert_eq!(found, OwnGroup { folder, is_view: false, v1_controllers: false });
    }

    #[test]
    fn beside_cgroup_v1_the_second_version_is_mounted_elsewhere() {
        let cgroup = "4:memory:/a\n1:cpu,cpuacct:/a\n0::/a\n";
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                         35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:1 - cgroup2 \
                         cgroup2 rw\n";
        let found = own_group(cgroup, mountinfo).unwrap();
        assert_eq!(found.folder, Path::new("/sys/fs/cgroup/unified/a"));
        assert!(found.v1_controllers);
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_of_the_hierarchy() {
        // With a view of its own.
        let found = own_group("0::/\n", UNIFIED).unwrap();
        assert_eq!((found.folder.as_path(), found.is_view), (Path::new("/sys/fs/cgroup"), true));
        // Without.
        let part = "30 23 0:26 /docker/12ab /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert_eq!(folder("0::/docker/12ab/one\n", part).unwrap(), Path::new("/sys/fs/cgroup/one"));
        assert!(folder("0::/docker/12abc\n", part).unwrap_err().contains("not below"));
        assert!(folder("0::/../beside\n", UNIFIED).unwrap_err().contains("not below"));
    }

    #[test]
    fn without_the_second_version_there_are_no_groups() {
        let v1 = "31 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        for (cgroup, mountinfo) in [("4:memory:/a\n", v1), ("0::/a\n", v1), ("", "")] {
            assert!(folder(cgroup, mountinfo).unwrap_err().contains("no cgroup v2"), "{cgroup:?}");
        }
    }

    #[test]
    fn blanks_in_a_path_are_read_back() {
        let mountinfo = r"30 23 0:26 / /mnt/my\040groups\134x rw - cgroup2 cgroup2 rw";
        assert_eq!(folder("0::/\n", mountinfo).unwrap(), Path::new(r"/mnt/my groups\x"));
        assert_eq!(unescape(r"end\04"), r"end\04");
    }
}
