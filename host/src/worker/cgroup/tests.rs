//! Against a folder of plain files that imitates the kernel's, and as far as this machine goes
//! against the kernel itself.

use std::process::{Command, Stdio};

use ocelli_testkit::skip::skip;
use tempfile::TempDir;

use super::*;

const LIMITS: GroupLimits =
    GroupLimits { memory: 2048 << 20, cpu: CpuLimit::Percent(150), threads: 8 };

/// A delegated group as the kernel shows it.
struct FakeCgroup(TempDir);

impl FakeCgroup {
    fn new(controllers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files =
            [("cgroup.type", "domain"), ("cgroup.procs", ""), ("cgroup.subtree_control", "")];
        for (name, text) in files.into_iter().chain([("cgroup.controllers", controllers)]) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn own(&self) -> locate::OwnGroup {
        locate::OwnGroup { folder: self.0.path().to_owned(), is_view: false, v1_controllers: false }
    }

    fn take(&self) -> Result<ControlGroups, ControlGroupsUnavailable> {
        ControlGroups::claim(&self.own(), true)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    fn children(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.starts_with(CHILD));
        names.sort();
        names
    }
}

/// Takes the kernel's files away, which a folder of plain files has to lose one by one.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn the_host_moves_into_a_leaf_and_hands_the_controllers_down() {
    let imitation = FakeCgroup::new("cpuset cpu io memory pids\n");
    let groups = imitation.take().unwrap();
    assert_eq!(imitation.read("host/cgroup.procs"), "0");
    assert_eq!(imitation.read("cgroup.subtree_control"), "+memory +cpu +pids");
    assert_eq!(groups.folder(), imitation.0.path());
    assert!(groups.missing_controllers().is_empty() && groups.bound_memory());
}

#[test]
fn a_worker_is_bounded_before_it_enters_its_group() {
    let imitation = FakeCgroup::new("cpu memory pids");
    let group = imitation.take().unwrap().create(LIMITS).unwrap();
    assert_eq!(imitation.read("child-0/pids.max"), "8");
    assert_eq!(imitation.read("child-0/memory.max"), ((2048_u64 + 64) << 20).to_string());
    assert_eq!(imitation.read("child-0/cpu.max"), "150000 100000");
    assert!(!imitation.0.path().join("child-0/cgroup.procs").exists());
    group.admit(4711).unwrap();
    assert_eq!(imitation.read("child-0/cgroup.procs"), "4711");
}

#[test]
fn the_smallest_share_of_the_processor_is_one_that_the_kernel_takes() {
    let imitation = FakeCgroup::new("cpu memory");
    let _group = imitation
        .take()
        .unwrap()
        .create(GroupLimits { cpu: CpuLimit::Percent(1), ..LIMITS })
        .unwrap();
    // The kernel refuses less than a millisecond.
    assert_eq!(imitation.read("child-0/cpu.max"), "1000 100000");
}

#[test]
fn a_controller_that_was_not_handed_down_is_named_and_the_other_one_used() {
    for (controllers, enabled, lacks, there, missing) in [
        ("memory pids", "+memory +pids", vec!["cpu"], "memory.max", "cpu.max"),
        ("cpu", "+cpu", vec!["memory", "pids"], "cpu.max", "memory.max"),
        ("cpu memory", "+memory +cpu", vec!["pids"], "memory.max", "pids.max"),
    ] {
        let imitation = FakeCgroup::new(controllers);
        let groups = imitation.take().unwrap();
        assert_eq!(imitation.read("cgroup.subtree_control"), enabled);
        assert_eq!(groups.bound_memory(), !lacks.contains(&"memory"));
        assert_eq!(groups.missing_controllers(), lacks);
        let _group = groups.create(LIMITS).unwrap();
        let folder = imitation.0.path().join("child-0");
        assert!(folder.join(there).exists() && !folder.join(missing).exists());
    }
}

#[test]
fn a_compiler_has_what_the_others_leave() {
    let imitation = FakeCgroup::new("cpu memory");
    let limits = GroupLimits { cpu: CpuLimit::Weight(30), ..LIMITS };
    let _group = imitation.take().unwrap().create(limits).unwrap();
    assert_eq!(imitation.read("child-0/cpu.weight"), "30");
    assert!(!imitation.0.path().join("child-0/cpu.max").exists());
}

#[test]
fn a_worker_that_the_kernel_killed_for_its_memory_is_told_from_others() {
    let imitation = FakeCgroup::new("cpu memory");
    let group = imitation.take().unwrap().create(LIMITS).unwrap();
    assert!(!group.is_out_of_memory(), "no file");
    let events =
        |kills| format!("low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\noom_group_kill {kills}\n");
    let file = imitation.0.path().join("child-0/memory.events");
    fs::write(&file, events(0)).unwrap();
    assert!(!group.is_out_of_memory());
    fs::write(&file, events(1)).unwrap();
    assert!(group.is_out_of_memory());
}

#[test]
fn every_worker_has_a_group_of_its_own_which_goes_with_it() {
    let imitation = FakeCgroup::new("cpu memory");
    let groups = imitation.take().unwrap();
    let (one, two) = (groups.create(LIMITS).unwrap(), groups.create(LIMITS).unwrap());
    assert_eq!(imitation.children(), ["child-0", "child-1"]);
    empty(&one.folder);
    drop(one);
    assert_eq!(imitation.children(), ["child-1"]);
    empty(&two.folder);
    drop(two);
    assert!(imitation.children().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_worker_still_ends_is_removed_later() {
    let imitation = FakeCgroup::new("cpu memory");
    let mut group = imitation.take().unwrap().create(LIMITS).unwrap();
    let folder = group.folder.clone();
    let mut removal = group.remove().unwrap();
    let early = tokio::time::timeout(WAITS.first * 5, &mut removal).await;
    assert!(early.is_err(), "a folder with files is as busy as a group with processes");
    assert!(folder.exists());
    empty(&folder);
    removal.await.unwrap();
    assert!(!folder.exists());
}

#[test]
fn what_an_earlier_host_left_is_removed_and_what_is_in_use_is_not() {
    let imitation = FakeCgroup::new("cpu memory");
    for folder in ["child-0", "child-1", "child-1/busy", "other"] {
        fs::create_dir(imitation.0.path().join(folder)).unwrap();
    }
    let groups = imitation.take().unwrap();
    assert_eq!(imitation.children(), ["child-1"]);
    assert!(imitation.0.path().join("other").exists());
    let _groups = [groups.create(LIMITS).unwrap(), groups.create(LIMITS).unwrap()];
    assert_eq!(imitation.children(), ["child-0", "child-1", "child-2"]);
}

#[test]
fn why_there_are_no_groups_is_said() {
    let told =
        |result: Result<ControlGroups, ControlGroupsUnavailable>| result.unwrap_err().to_string();

    let imitation = FakeCgroup::new("cpu memory");
    assert!(told(ControlGroups::claim(&imitation.own(), false)).contains("not delegated"));
    assert!(!imitation.0.path().join("host").exists(), "nothing was touched");

    let imitation = FakeCgroup::new("pids io");
    let text = told(imitation.take());
    assert!(
        text.contains("neither the memory nor the cpu controller") && !text.contains("v1"),
        "{text}"
    );
    let own = locate::OwnGroup { v1_controllers: true, ..imitation.own() };
    assert!(told(ControlGroups::claim(&own, true)).contains("cgroup v1 holds them"));

    let imitation = FakeCgroup::new("cpu memory");
    fs::remove_file(imitation.0.path().join("cgroup.type")).unwrap();
    assert!(told(imitation.take()).contains("root control group"));

    let imitation = FakeCgroup::new("cpu memory");
    fs::remove_file(imitation.0.path().join("cgroup.procs")).unwrap();
    let text = told(imitation.take());
    assert!(text.contains("cgroup.procs cannot be written"), "{text}");
}

#[test]
fn a_half_done_set_up_is_undone() {
    let imitation = FakeCgroup::new("cpu memory");
    // Not a file: writing it fails.
    let control = imitation.0.path().join("cgroup.subtree_control");
    fs::remove_file(&control).unwrap();
    fs::create_dir(&control).unwrap();
    let text = imitation.take().unwrap_err().to_string();
    assert!(text.contains("cgroup.subtree_control cannot be written"), "{text}");
    assert_eq!(imitation.read("cgroup.procs"), "0", "the host is back where it was");
}

/// The kernel's own part: entering a group, a group in use, and its end. Controllers are not needed
/// for that.
#[tokio::test]
async fn the_kernel_keeps_a_group_while_a_process_is_in_it() {
    let texts =
        ["/proc/self/cgroup", "/proc/self/mountinfo"].map(|path| fs::read_to_string(path).unwrap());
    let own = match locate::own_group(&texts[0], &texts[1]) {
        Ok(own) => own,
        Err(reason) => return skip(&reason.to_string()),
    };
    let folder = own.folder.join(format!("ocelli-test-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&folder) {
        return skip(&format!("no group can be made here: {}: {error}", folder.display()));
    }
    let mut group = ControlGroup { folder: folder.clone() };
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let admitted = group.admit(child.id());
    let members = fs::read_to_string(folder.join("cgroup.procs"));
    let removed = fs::remove_dir(&folder);
    let removal = group.remove();
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(removal) = removal {
        removal.await.unwrap();
    }
    admitted.unwrap();
    assert_eq!(members.unwrap().trim(), child.id().to_string());
    assert!(is_busy(&removed.unwrap_err()));
    assert!(!folder.exists(), "{} stays", folder.display());
}

/// The whole of it, where this machine's tests run in a delegated group.
#[test]
fn a_delegated_group_of_this_machine_bounds_its_workers() {
    let groups = match ControlGroups::set_up() {
        Ok(groups) => groups,
        Err(reason) => {
            return skip(&format!("no control groups here: {reason}; to have them {REMEDY}"));
        }
    };
    let group = groups.create(LIMITS).unwrap();
    let read = |file: &str| fs::read_to_string(group.folder.join(file)).unwrap();
    let lacks = groups.missing_controllers();
    if !lacks.contains(&"memory") {
        assert_eq!(read("memory.max").trim(), (LIMITS.memory + UNCOUNTED_MEMORY).to_string());
    }
    if !lacks.contains(&"pids") {
        assert_eq!(read("pids.max").trim(), "8");
    }
    if !lacks.contains(&"cpu") {
        assert_eq!(read("cpu.max").trim(), "150000 100000");
    }
}
