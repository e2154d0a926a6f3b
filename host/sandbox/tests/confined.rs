//! What a confined process can do and cannot do. The tests start this program once more as a child
//! that confines itself before it has a second thread, which a test in a harness of threads could
//! not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use ocelli_protocol::confinement::{Attempt, Confinement, Measure};
use ocelli_protocol::process::ingest;
use ocelli_sandbox::attempt::{EXECUTED, EXECUTED_STATUS, Limits, Targets, make_one, names};
use ocelli_sandbox::{Profile, confine, enter, limit, seal, seal_threads};
use ocelli_testkit::skip::skip;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// A test by its name.
type Test = (&'static str, fn() -> Result<(), Failed>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["child", role, rest @ ..] => {
            child(role, rest);
            ExitCode::SUCCESS
        }
        [EXECUTED] => EXECUTED_STATUS.into(),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in names() {
        for kind in ["worker", "reader"] {
            let title = format!("a_confined_{kind}_is_refused::{name}");
            trials.push(Trial::test(title, move || refused(kind, name)));
        }
        trials.push(Trial::test(
            format!("a_process_that_is_not_confined_succeeds::{name}"),
            move || succeeds(name),
        ));
    }
    let tests: [Test; 13] = [
        (
            "a_reader_cannot_free_the_numbers_that_it_inherited",
            a_reader_cannot_free_the_numbers_that_it_inherited,
        ),
        ("the_kernel_says_what_is_in_force", the_kernel_says_what_is_in_force),
        ("what_a_worker_needs_goes_on_working", what_a_worker_needs_goes_on_working),
        ("an_abort_still_ends_a_confined_process", an_abort_still_ends_a_confined_process),
        ("only_granted_folders_can_be_read", only_granted_folders_can_be_read),
        (
            "a_granted_folder_is_all_that_a_worker_opens",
            a_granted_folder_is_all_that_a_worker_opens,
        ),
        (
            "what_a_devices_driver_needs_is_left_and_reported_as_missing",
            what_a_devices_driver_needs_is_left_and_reported_as_missing,
        ),
        (
            "a_component_can_be_opened_once_more_until_the_door_is_closed",
            a_component_can_be_opened_once_more_until_the_door_is_closed,
        ),
        (
            "descriptors_that_were_not_promised_are_closed",
            descriptors_that_were_not_promised_are_closed,
        ),
        ("a_second_thread_that_escapes_is_reported", a_second_thread_that_escapes_is_reported),
        ("a_hidden_way_to_fork_does_not_exist", a_hidden_way_to_fork_does_not_exist),
        ("every_measure_is_reported_once", every_measure_is_reported_once),
        (
            "page_tables_of_memory_that_is_only_read_are_bounded",
            page_tables_of_memory_that_is_only_read_are_bounded,
        ),
    ];
    trials.extend(tests.map(|(name, test)| Trial::test(name, test)));
    trials
}

/// What a child does, and prints.
fn child(role: &str, rest: &[&str]) {
    match (role, rest) {
        ("free", [name]) => {
            let targets = Targets::new(Limits::CHECK).unwrap();
            report(&make_one(name, &targets).unwrap());
        }
        ("confined", [kind, name]) => {
            let targets = Targets::new(Limits::CHECK).unwrap();
            match *kind {
                "worker" => seal_threads(&confined_worker()).unwrap(),
                _ => drop(confined_reader()),
            }
            report(&make_one(name, &targets).unwrap());
        }
        ("shown", []) => {
            let confinement = confined_worker();
            println!("{confinement:?}");
            // Until the parent has looked.
            let _ = std::io::stdin().read(&mut [0]);
        }
        ("work", []) => work(),
        ("tables", []) => {
            confined_worker();
            println!("{}", read_all_addresses());
            // Until the parent has looked.
            let _ = std::io::stdin().read(&mut [0]);
        }
        ("abort", []) => {
            confined_worker();
            std::process::abort();
        }
        ("read", [granted, beside]) => {
            confine(&Profile::inference(vec![granted.into()]));
            let file = Path::new(granted).join("model.onnx");
            let writing = File::options().write(true).open(&file);
            let more = File::create_new(Path::new(granted).join("more"));
            println!("{}", outcome(std::fs::read_to_string(&file)));
            println!("{}", outcome(std::fs::read_to_string(beside)));
            println!("{} {}", outcome(writing), outcome(more));
        }
        ("directories", [read, write, beside]) => directories(read, write, beside),
        ("driver", [beside]) => {
            let confinement = confine(&Profile::inference(Vec::new()).with_devices());
            println!("{}", outcome(std::fs::read_to_string(beside)));
            println!("{confinement:?}");
        }
        ("component", [component, other]) => {
            let component = File::open(component).unwrap();
            let name = format!("/proc/self/fd/{}", component.as_raw_fd());
            let confinement = confine(&Profile::worker(Some(component.as_fd())));
            println!("{}", outcome(std::fs::read_to_string(&name)));
            println!("{}", outcome(File::open(other)));
            let (closed, wait) = std::sync::mpsc::channel::<()>();
            let early = std::thread::spawn({
                let name = name.clone();
                move || {
                    wait.recv().unwrap();
                    outcome(File::open(name))
                }
            });
            seal(&confinement, false).unwrap();
            closed.send(()).unwrap();
            println!("{} {}", outcome(File::open(name)), early.join().unwrap());
        }
        ("close", [promised, other]) => {
            let [promised, other] = [promised, other].map(|number| number.parse().unwrap());
            #[allow(unsafe_code)]
            // SAFETY: this program has opened nothing that it uses.
            let open = unsafe {
                enter(promised).unwrap();
                [promised, other]
                    .map(|number| rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)))
            };
            println!("{} {}", open[0].is_ok(), open[1] == Err(Errno::BADF));
        }
        ("threads", []) => {
            let (hold, held) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || held.recv());
            let confinement = confine(&Profile::worker(None));
            println!("{:?} {}", confinement.enforced, confinement.missing_text());
            drop(hold);
            let _ = thread.join().unwrap();
        }
        ("numbers", []) => {
            confined_reader();
            #[allow(unsafe_code)]
            // SAFETY: numbers alone; nothing here owns those that would be closed.
            let answers = unsafe {
                let network = ingest::NETWORK;
                [
                    libc::close(network),
                    libc::dup3(0, network, libc::O_CLOEXEC),
                    libc::dup2(0, network),
                    libc::syscall(libc::SYS_close_range, network, network, 0) as i32,
                ]
            };
            println!("{answers:?} {:?}", std::io::Error::last_os_error().raw_os_error());
        }
        ("clone3", []) => {
            confined_worker();
            #[allow(unsafe_code)]
            // SAFETY: the arguments are null and 0, so that nothing is started in any case.
            let answer = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
            println!("{answer} {:?}", std::io::Error::last_os_error().raw_os_error());
        }
        _ => panic!("no role {role} {rest:?}"),
    }
}

/// As `ocelli-worker` does it.
fn confined_worker() -> Confinement {
    let confinement = confine(&Profile::worker(None));
    Limits::CHECK.set().unwrap();
    seal(&confinement, false).unwrap();
    confinement
}

/// As a worker that was granted two folders and was taken over. Prints each attempt that the kernel
/// answers otherwise than it should.
fn directories(read: &str, write: &str, beside: &str) {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let folders = [read, write].map(|path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    });
    let [read_only, writable] = [folders[0].as_fd(), folders[1].as_fd()];
    let profile =
        Profile::worker(None).with_directories(vec![(read_only, false), (writable, true)]);
    let confinement = confine(&profile);
    Limits::CHECK.set().unwrap();
    limit::file_size(1 << 20).unwrap();
    seal(&confinement, true).unwrap();

    let in_folder = |folder, name: &str, flags: OFlags| {
        let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR } else { Mode::empty() };
        let flags = flags | OFlags::NONBLOCK;
        rustix::fs::openat2(folder, name, flags, mode, ResolveFlags::empty()).map(File::from)
    };
    let open = |folder, name, flags| in_folder(folder, name, flags).map(drop);
    let (reading, writing) = (OFlags::RDONLY, OFlags::WRONLY);
    let making = writing | OFlags::CREATE | OFlags::EXCL;
    let allowed = [
        ("read", open(read_only, "model.onnx", reading)),
        ("list", open(read_only, ".", reading | OFlags::DIRECTORY)),
        ("read there", open(writable, "old", reading)),
        ("write", open(writable, "old", writing | OFlags::TRUNC)),
        ("make", open(writable, "new", making)),
        ("make a folder", rustix::fs::mkdirat(writable, "sub", Mode::RWXU)),
        ("move", rustix::fs::renameat(writable, "new", writable, "sub/new")),
        ("remove", rustix::fs::unlinkat(writable, "sub/new", rustix::fs::AtFlags::empty())),
    ];
    for (what, answer) in allowed {
        if let Err(error) = answer {
            println!("{what}: {error:?}");
        }
    }
    let up = format!("../{}", Path::new(beside).file_name().unwrap().to_str().unwrap());
    let refused = [
        ("a file beside", open(CWD, beside, reading)),
        ("a file above", open(read_only, &up, reading)),
        ("a file behind a link", open(writable, "link", reading)),
        ("a program", open(CWD, "/bin/sh", reading)),
        ("its memory", open(CWD, "/proc/self/mem", OFlags::RDWR)),
        ("to write in the other", open(read_only, "model.onnx", writing)),
        ("to empty in the other", open(read_only, "model.onnx", reading | OFlags::TRUNC)),
        ("to make in the other", open(read_only, "new", making)),
        ("to move to the other", rustix::fs::renameat(writable, "old", read_only, "old")),
        ("to move out of the other", rustix::fs::renameat(read_only, "model.onnx", writable, "x")),
        ("to remove in the other", {
            rustix::fs::unlinkat(read_only, "model.onnx", rustix::fs::AtFlags::empty())
        }),
        ("a link", rustix::fs::symlinkat("/etc/passwd", writable, "passwd")),
        ("a second name", {
            rustix::fs::linkat(writable, "old", writable, "twice", rustix::fs::AtFlags::empty())
        }),
        ("a pipe", rustix::fs::mkfifoat(writable, "pipe", Mode::RWXU)),
        ("a mode", rustix::fs::chmodat(writable, "old", Mode::RWXU, rustix::fs::AtFlags::empty())),
    ];
    for (what, answer) in refused {
        if !matches!(answer, Err(Errno::PERM | Errno::ACCESS | Errno::XDEV)) {
            println!("{what}: {answer:?}");
        }
    }
    // A file may not grow beyond its bound, and the process hears of it.
    let mut file = in_folder(writable, "old", writing).unwrap();
    let full = file.write_all(&vec![0; (1 << 20) + 1]).map_err(|error| error.raw_os_error());
    println!("{full:?} {}", file.metadata().unwrap().len());
}

/// As `ocelli-ingest` does it.
fn confined_reader() -> Confinement {
    let confinement = confine(&Profile::ingest());
    Limits::CHECK.set().unwrap();
    confinement
}

/// Maps memory that is only read, as much as there may be, and reads of each page table a page.
/// Gives how much it was, in GiB; a process that is not limited gets 64.
#[allow(unsafe_code)]
fn read_all_addresses() -> usize {
    const STEP: usize = 1 << 30;
    let (protection, flags) = (ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE);
    (0..64)
        .take_while(|_| {
            // SAFETY: a new mapping, which stays, at an address of the kernel's choice; each byte
            // that is read lies in it.
            unsafe {
                let Ok(memory) = mmap_anonymous(std::ptr::null_mut(), STEP, protection, flags)
                else {
                    return false;
                };
                (0..STEP).step_by(2 << 20).for_each(|place| {
                    memory.cast::<u8>().add(place).read_volatile();
                });
            }
            true
        })
        .count()
}

/// Threads, memory, sockets, random numbers, waiting and time.
fn work() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    confined_worker();
    let ours = ours.try_clone().unwrap();
    let (mut writer, mut reader) = (ours.try_clone().unwrap(), theirs.try_clone().unwrap());
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let builder = std::thread::Builder::new().name(format!("worker {number}"));
            builder.spawn(move || vec![number; 1 << 20].iter().sum::<u64>()).unwrap()
        })
        .collect();
    let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(sum, 6 << 20);
    writer.write_all(b"unit").unwrap();
    let mut received = [0; 4];
    reader.read_exact(&mut received).unwrap();
    let mut descriptors = [rustix::event::PollFd::new(&theirs, rustix::event::PollFlags::IN)];
    let soon = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    assert_eq!(rustix::event::poll(&mut descriptors, Some(&soon)).unwrap(), 0);
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let data = rustix::event::epoll::EventData::new_u64(1);
    rustix::event::epoll::add(&epoll, &theirs, data, rustix::event::epoll::EventFlags::IN).unwrap();
    // Random keys; the clock of this thread, by which calls are limited.
    assert!(std::collections::HashMap::from([(1, 2)]).contains_key(&1));
    assert!(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_nsec > 0);
    println!("{}", String::from_utf8_lossy(&received));
}

fn report(attempt: &Attempt) {
    println!("{} {}", attempt.refused, attempt.error.as_deref().unwrap_or("none"));
}

/// What was read, or the error.
fn outcome<T: std::fmt::Debug>(result: std::io::Result<T>) -> String {
    result.map_or_else(
        |error| format!("error {:?}", error.raw_os_error()),
        |value| format!("{value:?}"),
    )
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("child").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// What a child printed that ended well.
fn printed(arguments: &[&str]) -> Vec<String> {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn refused(kind: &str, name: &str) -> Result<(), Failed> {
    let expected = match name {
        "allocate_past_limit" | "map_past_limit" => "true ENOMEM",
        "open_past_limit" => "true EMFILE",
        _ => "true EPERM",
    };
    assert_eq!(printed(&["confined", kind, name]), [expected]);
    Ok(())
}

fn succeeds(name: &str) -> Result<(), Failed> {
    if name == "trace_process" && !rustix::process::geteuid().is_root() {
        skip("without confinement too the kernel may forbid to trace a parent; root may");
        return Ok(());
    }
    let output = run(&["free", name]);
    if name == "execute" {
        assert_eq!(output.status.code(), Some(EXECUTED_STATUS.into()));
    } else {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "false none\n");
    }
    Ok(())
}

/// Whether the kernel has landlock in the version that covers everything.
fn has_landlock() -> bool {
    let lines = printed(&["shown"]);
    let complete = Measure::ALL.iter().all(|measure| lines[0].contains(&format!("{measure:?}")))
        && lines[0].contains("missing: []");
    if !complete {
        skip(&format!("in part: this kernel lacks measures: {}", lines[0]));
    }
    complete
}

fn the_kernel_says_what_is_in_force() -> Result<(), Failed> {
    let mut child: Child = command(&["shown"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    // The host takes its memory figures from there, root or not.
    let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("Seccomp:"), "2");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&value(set), 16).unwrap(), 0, "{set}");
    }
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["1", "1"]);
    assert!(memory.contains("Pss:"));
    Ok(())
}

fn what_a_worker_needs_goes_on_working() -> Result<(), Failed> {
    assert_eq!(printed(&["work"]), ["unit"]);
    Ok(())
}

fn an_abort_still_ends_a_confined_process() -> Result<(), Failed> {
    let status = run(&["abort"]).status;
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    assert!(!status.core_dumped());
    Ok(())
}

/// A folder to grant with a file in it, and a file beside.
fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (granted, beside) = (folder.path().join("models"), folder.path().join("beside"));
    std::fs::create_dir(&granted).unwrap();
    std::fs::write(granted.join("model.onnx"), "model").unwrap();
    std::fs::write(&beside, "secret").unwrap();
    (folder, granted, beside)
}

fn only_granted_folders_can_be_read() -> Result<(), Failed> {
    let (_folder, granted, beside) = files();
    let lines = printed(&["read", granted.to_str().unwrap(), beside.to_str().unwrap()]);
    assert_eq!(lines[0], "\"model\"");
    assert_eq!(lines[2], "error Some(1) error Some(1)", "written to");
    if has_landlock() {
        assert_eq!(lines[1], "error Some(13)", "the file beside");
    }
    Ok(())
}

fn a_granted_folder_is_all_that_a_worker_opens() -> Result<(), Failed> {
    let (folder, granted, beside) = files();
    let writable = folder.path().join("writable");
    std::fs::create_dir(&writable).unwrap();
    std::fs::write(writable.join("old"), "old").unwrap();
    std::os::unix::fs::symlink(&beside, writable.join("link")).unwrap();
    if has_landlock() {
        let paths = [&granted, &writable, &beside].map(|path| path.to_str().unwrap());
        let lines = printed(&["directories", paths[0], paths[1], paths[2]]);
        assert_eq!(lines, [format!("Err(Some({})) {}", libc::EFBIG, 1 << 20)]);
    }
    Ok(())
}

fn what_a_devices_driver_needs_is_left_and_reported_as_missing() -> Result<(), Failed> {
    let (_folder, _granted, beside) = files();
    let lines = printed(&["driver", beside.to_str().unwrap()]);
    assert!(!lines[0].starts_with("error"), "{}", lines[0]);
    let (enforced, missing) = lines[1].split_once("missing").unwrap();
    for measure in ["Files", "SystemCalls"] {
        assert!(
            missing.contains(measure) && !enforced.contains(measure),
            "{measure}: {}",
            lines[1]
        );
    }
    assert!(missing.contains("driver") && enforced.contains("NoNewPrivileges"), "{}", lines[1]);
    Ok(())
}

fn a_component_can_be_opened_once_more_until_the_door_is_closed() -> Result<(), Failed> {
    let (_folder, granted, beside) = files();
    let component = granted.join("model.onnx");
    let lines = printed(&["component", component.to_str().unwrap(), beside.to_str().unwrap()]);
    assert_eq!(lines[0], "\"model\"");
    assert_eq!(
        lines[2], "error Some(1) error Some(1)",
        "opened after the door was closed, by any thread"
    );
    if has_landlock() {
        assert_eq!(lines[1], "error Some(13)", "another file");
    }
    Ok(())
}

fn descriptors_that_were_not_promised_are_closed() -> Result<(), Failed> {
    // Without the flag that closes them when a program starts, as by mistake.
    let file = File::open("/dev/null").unwrap();
    let [one, other] = [(); 2].map(|()| rustix::io::dup(&file).unwrap());
    let mut numbers = [&one, &other].map(|file| file.as_raw_fd());
    numbers.sort_unstable();
    let numbers = numbers.map(|number| number.to_string());
    assert_eq!(printed(&["close", &numbers[0], &numbers[1]]), ["true true"]);
    Ok(())
}

fn a_second_thread_that_escapes_is_reported() -> Result<(), Failed> {
    let line = &printed(&["threads"])[0];
    assert!(line.starts_with("[ParentDeath, CoreDumps] "), "{line}");
    assert!(line.contains("system_calls (2 threads were running already)"), "{line}");
    Ok(())
}

/// The one call whose address no filter sees is allowed for one of these numbers.
fn a_reader_cannot_free_the_numbers_that_it_inherited() -> Result<(), Failed> {
    assert_eq!(printed(&["numbers"]), [format!("[-1, -1, -1, -1] Some({})", libc::EPERM)]);
    Ok(())
}

fn a_hidden_way_to_fork_does_not_exist() -> Result<(), Failed> {
    assert_eq!(printed(&["clone3"]), [format!("-1 Some({})", libc::ENOSYS)]);
    Ok(())
}

fn page_tables_of_memory_that_is_only_read_are_bounded() -> Result<(), Failed> {
    let mut child: Child = command(&["tables"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let tables = status.lines().find_map(|line| line.strip_prefix("VmPTE:")).unwrap();
    let tables: u64 = tables.split_whitespace().next().unwrap().parse().unwrap();
    println!("{} GiB were read: {tables} KiB of page tables", line.trim());
    assert!(tables << 10 <= Limits::CHECK.address_space / 512 + (1 << 20), "{tables} KiB");
    Ok(())
}

fn every_measure_is_reported_once() -> Result<(), Failed> {
    let line = &printed(&["shown"])[0];
    for measure in Measure::ALL {
        assert_eq!(line.matches(&format!("{measure:?}")).count(), 1, "{measure:?} in {line}");
    }
    Ok(())
}
