//! Holds the names in the pages of operators to what has them: metrics and codes to the reference,
//! alerts to their rules, keys to the schema, commands to the command line, messages to the code.

use std::collections::BTreeSet;

use super::{GUIDE, REFERENCE, RUNBOOK, SECURITY, SIZING, SUBSCRIBER, anchor, files, in_one_line};
use super::{pages, prose, read};

/// The pages whose names are looked at.
const PAGES: &[&str] = &[
    GUIDE,
    REFERENCE,
    RUNBOOK,
    SIZING,
    SECURITY,
    "docs/install.md",
    "docs/backup.md",
    "docs/versions.md",
    "docs/reverse-proxy.md",
    "docs/dashboard.md",
    "docs/cameras.md",
    "docs/benchmarks.md",
    RULES,
];

/// The pages whose codes are looked at: the others are where codes come from.
const OF_CODES: &[&str] = &[RUNBOOK, SIZING, SECURITY];

const RULES: &str = "config/monitoring/ocelli.rules.yml";

const SCHEMA: &str = "config/ocelli.schema.json";

/// With which words in code begin that are no message of the host.
const NO_MESSAGES: &[&str] = &[
    "--state",
    ":",
    "Authorization:",
    "GET",
    "INFO",
    "chronyc",
    "df",
    "du",
    "etcdctl",
    "iostat",
    "journalctl",
    "mosquitto_sub",
    "nats",
    "ocelli",
    "redis-cli",
    "ss",
    "systemctl",
];

/// Messages of the system, of Rust and of SQLite.
const OF_OTHERS: &[&str] =
    &["database or disk is full", "memory allocation of", "signal: 9 (SIGKILL)"];

/// What a page says in code, each on one line.
fn in_code(page: &str) -> Vec<String> {
    let text = read(page);
    let lines: Vec<&str> = prose(&text).map(|(_, line)| line).collect();
    let text = lines.join("\n");
    text.split('`').skip(1).step_by(2).map(in_one_line).collect()
}

/// The words of a text that begin so, of letters, digits and `_`.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part(c)).filter(move |word| word.starts_with(prefix))
}

/// Whether it is of small letters and digits, with a `_` in it.
fn is_code(word: &str) -> bool {
    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.chars().all(small) && word.trim_matches('_').contains('_')
}

#[test]
fn metrics_on_the_pages_are_those_of_the_reference() {
    let reference = read(REFERENCE);
    let mut unknown = BTreeSet::new();
    for page in PAGES {
        let text = read(page);
        for name in words(&text, "ocelli_").filter(|name| is_code(name)) {
            let endings = ["_bucket", "_count", "_sum"];
            let family = endings.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let listed =
                ["`", "{"].iter().any(|end| reference.contains(&format!("`{family}{end}")));
            if !listed {
                unknown.insert(format!("{page}: {name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_alert_has_its_section_of_the_runbook_and_pages_name_no_others() {
    let (rules, runbook) = (read(RULES), read(RUNBOOK));
    let sections: Vec<(String, &str)> = runbook
        .split("\n## ")
        .skip(1)
        .map(|section| (anchor(section.lines().next().unwrap_or_default()), section))
        .collect();
    let mut alerts = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let alert = rule.lines().next().unwrap().trim();
        let link = rule.split("runbook_url: \"").nth(1).and_then(|rest| rest.split('"').next());
        let link = link.unwrap_or_else(|| panic!("{alert} has no runbook_url"));
        let fragment = link.strip_prefix(RUNBOOK).and_then(|rest| rest.strip_prefix('#'));
        let section = sections.iter().find(|(heading, _)| Some(heading.as_str()) == fragment);
        let (_, section) = section.unwrap_or_else(|| panic!("{alert}: no section for {link}"));
        assert!(section.contains(&format!("`{alert}`")), "{link} does not name {alert}");
        alerts.insert(alert);
    }
    for page in PAGES {
        for name in words(&read(page), "Ocelli") {
            let is_alert = name.len() > "Ocelli".len();
            assert!(!is_alert || alerts.contains(name), "{page}: there is no alert {name}");
        }
    }
}

#[test]
fn keys_and_codes_on_the_pages_are_those_of_the_product() {
    let schema = read(SCHEMA);
    let parsed: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let files = files();
    let sources = [REFERENCE, SUBSCRIBER, GUIDE, "docs/built-in-pipelines.md"].map(read).concat();
    let mut unknown = BTreeSet::new();
    for page in PAGES {
        let codes = OF_CODES.contains(page);
        for name in in_code(page) {
            let known = match name.split_once('.') {
                // `events.db` is a file of the store.
                Some((section, key)) if is_key(section) && is_key(key) && key != "db" => {
                    let properties = &parsed["properties"][section]["properties"];
                    !properties.is_object()
                        || !properties[key].is_null()
                        || files.iter().any(|file| file.ends_with(&name))
                }
                None if codes && is_code(&name) && !name.starts_with("ocelli_") => {
                    sources.contains(&format!("`{name}`"))
                        || schema.contains(&format!("\"{name}\""))
                }
                _ => true,
            };
            if !known {
                unknown.insert(format!("{page}: {name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn commands_on_the_pages_are_those_of_the_command_line() {
    let reference = read(REFERENCE);
    let files = files();
    let command_line: String = files
        .iter()
        .filter(|path| path.starts_with("host/src/cli/") && path.ends_with(".rs"))
        .map(|path| read(path))
        .collect();
    let mut unknown = BTreeSet::new();
    for page in PAGES {
        let text = read(page);
        let shown = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned);
        for line in in_code(page).into_iter().chain(shown) {
            let Some(arguments) = line.strip_prefix("ocelli ") else { continue };
            let mut arguments = arguments.split(" #").next().unwrap_or_default().split(' ');
            let command = arguments.clone().next().unwrap_or_default();
            let named = reference.contains(&format!("`ocelli {command}"));
            if !named && command.starts_with(|c: char| c.is_ascii_lowercase()) {
                unknown.insert(format!("{page}: ocelli {command}"));
            }
            let options = arguments.by_ref().filter_map(|word| word.strip_prefix("--"));
            for option in options.filter(|option| *option != "version") {
                let name: String = option.chars().take_while(|c| is_of_option(*c)).collect();
                if !command_line.contains(&format!("{}: ", name.replace('-', "_"))) {
                    unknown.insert(format!("{page}: ocelli {command} --{name}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

fn is_of_option(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

#[test]
fn messages_in_the_runbook_are_those_of_the_code() {
    let code: Vec<String> = files()
        .iter()
        .filter(|path| {
            let of_dashboard = path.starts_with("host/ui/src/");
            let is_script = [".ts", ".tsx"].iter().any(|ending| path.ends_with(ending));
            path.starts_with("host/") && path.ends_with(".rs") || of_dashboard && is_script
        })
        .map(|path| in_one_line(&read(path).replace("\\\n", "")))
        .collect();
    let is_message = |words: &String| {
        let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
        !rest.is_empty()
            && !NO_MESSAGES.contains(&first)
            && ![" = ", " * "].iter().any(|sign| words.contains(sign))
    };
    let messages: Vec<String> = in_code(RUNBOOK).into_iter().filter(is_message).collect();
    assert!(messages.len() > 40, "{messages:?}");
    let mut unknown = Vec::new();
    for message in messages.iter().filter(|message| !OF_OTHERS.contains(&message.as_str())) {
        // Shorter ones are everywhere.
        let parts = message.split("...").map(str::trim).filter(|part| part.len() > 4);
        for part in parts {
            if !code.iter().any(|text| text.contains(part)) {
                unknown.push(format!("{part:?} of {message:?}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_page_is_reached_from_the_first() {
    let files = files();
    let pages = pages(&files);
    let mut reached = BTreeSet::from(["README.md"]);
    let mut open = vec!["README.md"];
    while let Some(page) = open.pop() {
        let text = &pages.iter().find(|(path, _)| *path == page).unwrap().1;
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(['#', ')']).next()) {
            let mut target: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            for part in link.split('/') {
                if part == ".." {
                    target.pop();
                } else {
                    target.push(part);
                }
            }
            let target = target.join("/");
            if let Some((path, _)) = pages.iter().find(|(path, _)| *path == target)
                && reached.insert(path)
            {
                open.push(path);
            }
        }
    }
    let own = |path: &&str| path.starts_with("docs/");
    let missed: Vec<&str> = pages
        .iter()
        .map(|(path, _)| *path)
        .filter(own)
        .filter(|path| !reached.contains(path))
        .collect();
    assert!(missed.is_empty(), "no link leads to {missed:?}");
}
