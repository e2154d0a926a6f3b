//! The alert rules and the dashboard of `config/monitoring`, as Prometheus itself takes them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ocelli_testkit::root;
use ocelli_testkit::skip::skip;
use serde_json::Value;

/// Where `./x test` has put Prometheus's tool for rules.
const PROMTOOL: &str = "OCELLI_PROMTOOL";

fn folder() -> PathBuf {
    root().join("config/monitoring")
}

/// The tool, if there is one.
fn promtool() -> Option<PathBuf> {
    let tool = std::env::var_os(PROMTOOL).map_or_else(|| "promtool".into(), PathBuf::from);
    let runs = Command::new(&tool).arg("--version").output().is_ok_and(|run| run.status.success());
    if !runs {
        skip("needs promtool, of Debian's package prometheus");
    }
    runs.then_some(tool)
}

fn passes(tool: &Path, arguments: [&str; 2], file: &Path) {
    let run = Command::new(tool).args(arguments).arg(file).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_alert_rules_are_raised_and_cleared_as_their_tests_say() {
    let Some(tool) = promtool() else { return };
    passes(&tool, ["check", "rules"], &folder().join("ocelli.rules.yml"));
    passes(&tool, ["test", "rules"], &folder().join("ocelli.rules.test.yml"));
}

#[test]
fn every_alert_has_a_test_and_one_line_that_says_what_to_do() {
    let read = |name: &str| fs::read_to_string(folder().join(name)).unwrap();
    let (rules, tests) = (read("ocelli.rules.yml"), read("ocelli.rules.test.yml"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 25, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(tests.contains(&format!("alertname: {name}")), "{name} has no test");
        for line in ["summary: \"", "runbook: \"", "runbook_url: \""] {
            assert_eq!(alert.matches(line).count(), 1, "{name}: {line}");
        }
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let text = fs::read_to_string(folder().join("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut numbers: Vec<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), panels.len(), "each panel has a number of its own");
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    for (number, target) in targets.enumerate() {
        // What Grafana puts in the place of its variables.
        let asked = target["expr"].as_str().unwrap();
        let asked = asked.replace("$__rate_interval", "1m").replace("$instance", ".*");
        let asked = asked.replace("$session", ".*");
        assert!(!asked.contains('$'), "{asked}");
        // JSON's strings are YAML's.
        let asked = serde_json::to_string(&asked).unwrap();
        writeln!(rules, "      - {{record: \"panel:{number}\", expr: {asked}}}").unwrap();
    }
    let Some(tool) = promtool() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    passes(&tool, ["check", "rules"], file.path());
}
