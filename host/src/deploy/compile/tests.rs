//! The host's side, with programs in the compiler's place that do what a compiler may do.

use std::fs::FileTimes;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::config::Signatures;
use crate::session::rollout::Step;

/// What the program prints where nothing is wrong.
const GOOD: &str = r#"{"version":"0.1.0","supported":["0.1.0"],"signed_by":null,"problems":[],"check_ms":1,"compile_ms":2}"#;

const BAD: &str = r#"{"version":null,"supported":["0.1.0"],"signed_by":null,"problems":[{"kind":"not_wasm","item":null,"found":null,"expected":null,"message":"it is not WebAssembly"}],"check_ms":1,"compile_ms":null}"#;

/// A folder with a program in the place of `ocelli-compile`. It notes the arguments of each run,
/// and does `work` with the component and the output at their descriptors.
struct Site(TempDir);

impl Site {
    fn new(work: &str) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --compatibility ]; then echo 00112233; exit; fi\necho \
                \"$*\" >> {runs}\n{work}\n",
            runs = site.path("runs").display()
        );
        let program = site.path("compiler");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        site
    }

    /// "Compiles" by copying.
    fn copying() -> Self {
        Self::new(&format!("case \"$*\" in *--check*) ;; *) cat <&3 >&4 ;; esac\necho '{GOOD}'"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn compiler(&self, settings: &config::DeployConfig) -> Compiler {
        let cache = self.path("cache");
        let program = self.path("compiler");
        Compiler::new(program, &cache, Sandbox::BestEffort, None, settings).await.unwrap()
    }

    /// The arguments of each run.
    fn runs(&self) -> Vec<String> {
        let runs = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.path("cache")).unwrap();
        listed.map(|entry| entry.unwrap().path()).collect()
    }
}

fn bytes(text: &'static str) -> ComponentSource {
    ComponentSource::Bytes(Bytes::from_static(text.as_bytes()))
}

fn content(prepared: &PreparedComponent) -> String {
    let mut text = String::new();
    let mut file = File::from(prepared.compiled.try_clone().unwrap());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_component_is_compiled_once_and_then_found_also_by_the_next_host() {
    let site = Site::copying();
    let settings = config::DeployConfig::default();
    let compiler = site.compiler(&settings).await;
    let first = compiler.prepare("session one", "eye", bytes("code")).await.unwrap();
    assert_eq!((first.cached, first.size, first.report.compile_ms), (false, 4, Some(2)));
    assert_eq!(first.digest, "5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b");
    assert_eq!(first.compiled_pipeline("eye").id(), "5694d08a2e53");
    let again = compiler.prepare("session one", "eye", bytes("code")).await.unwrap();
    assert_eq!(
        (again.cached, content(&again), again.report.compile_ms),
        (true, "code".into(), None)
    );
    assert_eq!(site.runs().len(), 1);

    let next = site.compiler(&settings).await;
    assert!(next.prepare("session one", "eye", bytes("code")).await.unwrap().cached);
    let runs = site.runs();
    assert_eq!(runs.len(), 2);
    assert!(!runs[0].contains("--check") && runs[1].contains("--check"), "{runs:?}");
    assert!(runs[0].contains("--max-bytes 67108864"), "{runs:?}");
}

#[tokio::test]
async fn two_deployments_of_the_same_bytes_compile_once() {
    let site = Site::copying();
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    let (one, other) = tokio::join!(
        compiler.prepare("session one", "a", bytes("code")),
        compiler.prepare("session two", "b", bytes("code"))
    );
    assert!(one.unwrap().cached != other.unwrap().cached);
    assert_eq!(site.runs().iter().filter(|run| !run.contains("--check")).count(), 1);
}

#[tokio::test]
async fn a_small_component_goes_past_those_that_compile_for_minutes() {
    let work =
        format!("read -r kind <&3; case $kind in bomb*) exec sleep 600 ;; esac; echo '{GOOD}'");
    let site = Site::new(&work);
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    let bombs = ["bomb 1\n", "bomb 2\n", "bomb 3\n"];
    let bombs = bombs.map(|bomb| compiler.prepare("client eve", "bomb", bytes(bomb)));
    let small = async {
        while site.runs().is_empty() {
            tokio::task::yield_now().await;
        }
        compiler.prepare("client ann", "eye", bytes("small\n")).await
    };
    let passed = async {
        tokio::select! {
            bombs = futures_util::future::join_all(bombs) => panic!("they have ended: {bombs:?}"),
            small = small => small.unwrap(),
        }
    };
    let passed = tokio::time::timeout(Duration::from_secs(60), passed).await;
    assert!(!passed.expect("it waits for the others").cached);
    assert_eq!(site.runs().len(), 2, "one of eve's, and ann's");
}

#[tokio::test]
async fn an_entry_that_is_not_what_was_compiled_is_compiled_again() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 6] = [
        ("truncated", |entry| File::options().write(true).open(entry).unwrap().set_len(2).unwrap()),
        ("emptied", |entry| std::fs::write(entry, "").unwrap()),
        ("changed", |entry| std::fs::write(entry, "Code").unwrap()),
        ("a link", |entry| {
            std::fs::rename(entry, entry.with_extension("elsewhere")).unwrap();
            symlink(entry.with_extension("elsewhere"), entry).unwrap();
        }),
        ("open to others", |entry| {
            std::fs::set_permissions(entry, std::fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("of another engine", |entry| {
            let name = entry.file_name().unwrap().to_str().unwrap().replace("00112233", "99999999");
            std::fs::rename(entry, entry.with_file_name(name)).unwrap();
        }),
    ];
    for (how, spoil) in spoils {
        let site = Site::copying();
        let compiler = site.compiler(&config::DeployConfig::default()).await;
        compiler.prepare("session one", "eye", bytes("code")).await.unwrap();
        spoil(&site.entries()[0]);
        let again = compiler.prepare("session one", "eye", bytes("code")).await.unwrap();
        assert_eq!((again.cached, content(&again)), (false, "code".into()), "{how}");
        assert!(
            compiler.prepare("session one", "eye", bytes("code")).await.unwrap().cached,
            "{how}"
        );
    }
}

#[tokio::test]
async fn a_compiler_that_is_killed_midway_is_named_and_leaves_nothing() {
    let site = Site::new("echo half >&4; kill -9 $$");
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    let error = compiler.prepare("session one", "eye", bytes("code")).await.unwrap_err();
    assert!(
        matches!(&error, CompileError::Ended { signal, .. } if signal.starts_with("SIGKILL")),
        "{error}"
    );
    assert_eq!((site.entries(), error.step()), (vec![], Step::Compile));
}

#[tokio::test]
async fn a_compiler_that_hangs_is_ended() {
    let site = Site::new("echo half >&4; exec sleep 600");
    let settings = config::DeployConfig { compile_timeout_s: 1, ..config::DeployConfig::default() };
    let compiler = site.compiler(&settings).await;
    let error = compiler.prepare("session one", "eye", bytes("code")).await.unwrap_err();
    assert!(matches!(error, CompileError::Timeout { seconds: 1, .. }), "{error}");
    assert_eq!(site.entries(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_is_wrong_comes_back_whole_and_nothing_is_kept() {
    let site = Site::new(&format!("echo '{BAD}'; exit 1"));
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    let error = compiler.prepare("session one", "eye", bytes("code")).await.unwrap_err();
    assert_eq!(error.report().unwrap().problems.len(), 1);
    assert_eq!(
        (error.to_string().as_str(), error.step()),
        ("pipeline eye: it is not WebAssembly", Step::Check)
    );
    assert_eq!(site.entries(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_report_that_does_not_fit_the_exit_status_is_not_believed() {
    for work in [
        format!("echo '{GOOD}'; exit 1"),
        format!("echo '{BAD}'"),
        "exit 0".into(),
        "echo {}".into(),
    ] {
        let site = Site::new(&work);
        let compiler = site.compiler(&config::DeployConfig::default()).await;
        let error = compiler.prepare("session one", "eye", bytes("code")).await.unwrap_err();
        assert!(matches!(error, CompileError::Start { .. }), "{work}: {error}");
    }
}

#[tokio::test]
async fn signatures_are_looked_at_for_what_is_in_the_cache_too() {
    let site = Site::copying();
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    compiler.prepare("session one", "eye", bytes("code")).await.unwrap();
    let settings = config::DeployConfig {
        signatures: Signatures::Required,
        trusted_keys: vec!["ssh-ed25519 AAAA".into()],
        ..config::DeployConfig::default()
    };
    compiler.configure(&settings);
    assert!(compiler.prepare("session one", "eye", bytes("code")).await.unwrap().cached);
    assert!(compiler.prepare("session one", "eye", bytes("code")).await.unwrap().cached);
    let runs = site.runs();
    assert_eq!(runs.len(), 2);
    assert!(
        runs[1].ends_with("--require-signature --trusted-key ssh-ed25519 AAAA --check"),
        "{runs:?}"
    );
}

#[tokio::test]
async fn what_is_compiled_are_the_bytes_that_were_read_whatever_becomes_of_the_file() {
    let site = Site::copying();
    let file = site.path("eye.wasm");
    std::fs::write(&file, "code").unwrap();
    let script = std::fs::read_to_string(site.path("compiler")).unwrap();
    let changing =
        script.replace("case \"$*\"", &format!("echo other > {}\ncase \"$*\"", file.display()));
    std::fs::write(site.path("compiler"), changing).unwrap();
    let compiler = site.compiler(&config::DeployConfig::default()).await;
    let prepared =
        compiler.prepare("session one", "eye", ComponentSource::Path(file.clone())).await.unwrap();
    let pipeline = prepared.compiled_pipeline("eye");
    assert_eq!((content(&prepared).as_str(), pipeline.id()), ("code", "5694d08a2e53"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "other\n");
}

#[test]
fn the_cache_is_the_hosts_alone_and_rid_of_drafts_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("compiled");
    let cache = CompiledCache::open(&place, "e".into()).unwrap();
    let mut draft = cache.draft().unwrap();
    draft.file.write_all(b"half").unwrap();
    let left = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    // As a host that is killed leaves it: without its lock.
    draft.file.unlock().unwrap();
    std::mem::forget(draft);
    CompiledCache::open(&place, "e".into()).unwrap();
    assert!(!left.exists());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    cache.insert("d", cache.draft().unwrap()).unwrap();
    let entry = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&entry), 0o600);
}

#[test]
fn a_host_that_starts_leaves_the_drafts_and_entries_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let one = CompiledCache::open(folder.path(), "e".into()).unwrap();
    let mut draft = one.draft().unwrap();
    draft.file.write_all(b"code").unwrap();
    // As the compiler has it, which may outlive its host by a moment.
    let lent = draft.file.try_clone().unwrap();
    let other = CompiledCache::open(folder.path(), "e".into()).unwrap();
    let mut kept = one.insert("d", draft).unwrap();
    drop(lent);
    assert!(other.find("d").is_some());
    other.shrink(0);
    assert!(one.find("d").is_none());
    let mut content = String::new();
    kept.read_to_string(&mut content).unwrap();
    assert_eq!(content, "code", "it stays good for who has it");
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_stays_open_for_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let cache = CompiledCache::open(folder.path(), "e".into()).unwrap();
    let mut kept = Vec::new();
    for (age, digest) in [(300, "a"), (200, "b"), (100, "c")] {
        let mut draft = cache.draft().unwrap();
        draft.file.write_all(&[age as u8; 100]).unwrap();
        kept.push(cache.insert(digest, draft).unwrap());
        let entry = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let entry = entry
            .into_iter()
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(digest));
        let used = SystemTime::now() - Duration::from_secs(age);
        File::open(entry.unwrap()).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
    }
    // The oldest is used again.
    assert!(cache.find("a").is_some());
    cache.shrink(250);
    assert_eq!(["a", "b", "c"].map(|digest| cache.find(digest).is_some()), [true, false, true]);
    let mut gone = Vec::new();
    kept[1].read_to_end(&mut gone).unwrap();
    assert_eq!(gone.len(), 100);
}
