//! The Helm chart, as Helm itself takes it. No cluster runs it here.

use std::path::{Path, PathBuf};
use std::process::Command;

use ocelli_testkit::skip::skip;
use ocelli_testkit::{program, root};

/// Where `./x test` has put Helm.
const HELM: &str = "OCELLI_HELM";

/// Two hosts: one with its config, one with a Secret that is there.
const TWO_HOSTS: &str = r#"
hosts:
  - name: north
    nodeSelector: { kubernetes.io/hostname: north }
    config: |
      [server]
      listen = "0.0.0.0:8001"
      [[cameras]]
      id = "gate"
  - name: a-host-with-a-name-of-forty-characters-x
    existingSecret: theirs
storage:
  className: fast
"#;

fn helm() -> Option<PathBuf> {
    let tool = std::env::var_os(HELM).map_or_else(|| "helm".into(), PathBuf::from);
    let runs = Command::new(&tool).arg("version").output().is_ok_and(|run| run.status.success());
    if !runs {
        skip("needs Helm");
    }
    runs.then_some(tool)
}

/// Runs a command of Helm on the chart with these values: whether it succeeds, and what it says.
fn run(tool: &Path, arguments: &[&str], values: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let mut command = Command::new(tool);
    // What a user has set up is not asked for.
    for (name, below) in [("HELM_CONFIG_HOME", "config"), ("HELM_CACHE_HOME", "cache")] {
        command.env(name, folder.path().join(below));
    }
    let chart = root().join("config/helm/ocelli");
    let run = command.args(arguments).arg(chart).arg("--values").arg(file).output().unwrap();
    (run.status.success(), String::from_utf8([run.stdout, run.stderr].concat()).unwrap())
}

#[test]
fn helm_finds_nothing_to_complain_of_and_refuses_wrong_values() {
    let Some(tool) = helm() else { return };
    for values in ["", TWO_HOSTS] {
        let (good, said) = run(&tool, &["lint", "--strict"], values);
        assert!(good, "{said}");
    }
    for wrong in ["hosts: [{}]", "hosts: [{name: A_B}]", "hosts: [{name: north, cofnig: x}]"] {
        let (good, said) = run(&tool, &["template", "site"], wrong);
        assert!(!good && said.contains("values don't meet"), "{wrong}: {said}");
    }
}

#[test]
fn each_host_is_one_pod_of_this_version_that_writes_to_its_volumes_alone() {
    let Some(tool) = helm() else { return };
    let (good, said) = run(&tool, &["template", "site"], TWO_HOSTS);
    assert!(good, "{said}");
    let documents: Vec<&str> = said.split("\n---\n").collect();
    let of = |kind: &str| {
        let line = format!("\nkind: {kind}\n");
        documents.iter().filter(move |text| text.contains(&line)).copied().collect::<Vec<_>>()
    };
    assert_eq!((of("Secret").len(), of("Service").len()), (1, 2), "{said}");
    assert!(of("Secret")[0].contains("    id = \"gate\"\n"), "{said}");
    let hosts = of("StatefulSet");
    assert_eq!(hosts.len(), 2, "{said}");
    let version = Command::new(program("ocelli")).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let version = version.trim().strip_prefix("ocelli ").unwrap();
    for host in &hosts {
        for line in [
            "  replicas: 1\n",
            "            readOnlyRootFilesystem: true\n",
            "        runAsNonRoot: true\n",
            "        storageClassName: fast\n",
            &format!("          image: \"localhost/ocelli:{version}\"\n"),
        ] {
            assert!(host.contains(line), "{line:?} is not in {host}");
        }
        let name = host.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap();
        assert!(name.len() <= 52 && !name.ends_with('-'), "{name}");
    }
    assert!(hosts.iter().any(|host| host.contains("secretName: theirs\n")), "{said}");
    // Without hosts there is nothing.
    let (good, said) = run(&tool, &["template", "site"], "");
    assert!(good && !said.contains("kind:"), "{said}");
}
