//! What new projects are made of. All of it is in the program, so that a project is made without a
//! network and without Ocelli's repository.

use std::borrow::Cow;

use super::project::Language;

/// Paths and contents; `build.rs` makes the table.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/project_files.rs"));

/// Names that begin with a dot in a project. In the repository they would work on the template
/// itself.
const DOTTED: &[&str] = &["cargo", "gitignore", "npmrc"];

/// What every project has: the test on the clip.
const COMMON: &str = "all/";

/// The clip that every project has.
const CLIP: (&str, &str) = ("clips/", "clips/");

/// A file of a new project.
#[derive(Debug)]
pub(super) struct TemplateFile {
    /// Relative to the project.
    pub(super) path: String,
    pub(super) content: Cow<'static, [u8]>,
}

/// The files of a new project; empty where this program has no template of the language.
pub(super) fn files(language: Language, name: &str) -> Vec<TemplateFile> {
    // Parts of the table, and where they lie in the project.
    let (own, vendored): (&str, &[(&str, &str)]) = match language {
        Language::Rust => ("rust/", &[("sdk/", "vendor/ocelli-sdk/"), CLIP]),
        Language::Python => {
            ("python/", &[("sdk-python/", "vendor/ocelli-sdk/"), ("wit/", "wit/"), CLIP])
        }
        Language::Js => ("js/", &[("sdk-js/", "vendor/ocelli-sdk/"), CLIP]),
        Language::Ts => ("ts/", &[("sdk-js/", "vendor/ocelli-sdk/"), CLIP]),
    };
    if of(own).next().is_none() {
        return vec![];
    }
    let mut files: Vec<TemplateFile> = of(own)
        .chain(of(COMMON))
        .map(|(path, content)| TemplateFile {
            path: dotted(&filled(path, name)),
            content: match std::str::from_utf8(content) {
                Ok(text) if text.contains("{{") => Cow::Owned(filled(text, name).into_bytes()),
                _ => Cow::Borrowed(content),
            },
        })
        .collect();
    for (part, folder) in vendored {
        files.extend(of(part).map(|(path, content)| TemplateFile {
            path: format!("{folder}{path}"),
            content: Cow::Borrowed(content),
        }));
    }
    files
}

/// The files of a part of the table, by their paths in it.
fn of(part: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    EMBEDDED.iter().filter_map(move |(path, content)| Some((path.strip_prefix(part)?, *content)))
}

/// A text with the project's name in its places.
fn filled(text: &str, name: &str) -> String {
    text.replace("{{name}}", name).replace("{{crate}}", &name.replace('-', "_"))
}

/// A path with the dots that the template's lacks.
fn dotted(path: &str) -> String {
    let parts = path
        .split('/')
        .map(|part| if DOTTED.contains(&part) { format!(".{part}") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::digest::Digest;

    use super::*;

    const LANGUAGES: [Language; 4] = [Language::Rust, Language::Python, Language::Js, Language::Ts];

    fn paths(files: &[TemplateFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_project_in_rust_has_the_sdk_and_the_contract_in_it() {
        let files = files(Language::Rust, "gate-watch");
        let paths = paths(&files);
        for path in [
            "Cargo.toml",
            ".cargo/config.toml",
            ".gitignore",
            "README.md",
            "src/lib.rs",
            "clips/spot.mp4",
            "vendor/ocelli-sdk/Cargo.toml",
            "vendor/ocelli-sdk/src/lib.rs",
            "vendor/ocelli-sdk/settings/Cargo.toml",
            "vendor/ocelli-sdk/wit/pipeline.wit",
            "vendor/ocelli-sdk/wit/deps/wasi-nn/wasi-nn.wit",
        ] {
            assert!(paths.contains(&path), "{path} is not in {paths:?}");
        }
        let manifest = files.iter().find(|file| file.path == "Cargo.toml").unwrap();
        let manifest = std::str::from_utf8(&manifest.content).unwrap();
        assert!(manifest.contains("name = \"gate-watch\""), "{manifest}");
    }

    #[test]
    fn a_project_in_every_language_has_its_test_its_sdk_and_the_contract() {
        const SDK: &str = "vendor/ocelli-sdk/";
        for (language, paths_of, of_sdk, contract) in [
            (Language::Python, ["src/app.py", "tests/test_app.py"], "README.md", "wit/"),
            (
                Language::Js,
                ["src/app.js", "tests/app.test.js"],
                "package.json",
                "vendor/ocelli-sdk/wit/",
            ),
            (
                Language::Ts,
                ["src/app.ts", "tests/app.test.ts"],
                "src/index.d.ts",
                "vendor/ocelli-sdk/wit/",
            ),
        ] {
            let files = files(language, "a");
            let (of_sdk, contract) = (format!("{SDK}{of_sdk}"), format!("{contract}pipeline.wit"));
            let more = ["README.md", ".gitignore", &of_sdk, &contract];
            for path in paths_of.into_iter().chain(more) {
                assert!(paths(&files).contains(&path), "{language}: no {path}");
            }
            let of_the_sdk = |path: &&str| path.starts_with("vendor/ocelli-sdk/tests/");
            assert!(!paths(&files).iter().any(of_the_sdk), "{language}");
        }
    }

    #[test]
    fn the_golden_file_of_every_project_is_of_its_pipeline_and_of_its_clip() {
        for language in LANGUAGES {
            let files = files(language, "gate-watch");
            let content = |path| &files.iter().find(|file| file.path == path).unwrap().content;
            let golden = std::str::from_utf8(content("tests/spot.golden.jsonl")).unwrap();
            let header = golden.lines().next().unwrap();
            let header: serde_json::Value = serde_json::from_str(header).unwrap();
            assert_eq!(header["pipeline"], "gate-watch");
            assert_eq!(header["footage"], Digest::of(content("clips/spot.mp4")).to_string());
            let test = std::str::from_utf8(content("tests/spot.toml")).unwrap();
            assert!(test.contains("video = \"../clips/spot.mp4\""), "{test}");
        }
    }

    #[test]
    fn what_a_tool_has_left_behind_is_in_no_project() {
        for language in LANGUAGES {
            let files = files(language, "a");
            for path in paths(&files) {
                let mut folders = path.split('/');
                let left = |part: &str| matches!(part, "target" | "node_modules" | "__pycache__");
                assert!(!folders.any(left), "{path}");
            }
            let bytes: usize = files.iter().map(|file| file.content.len()).sum();
            assert!(bytes < 2 << 20, "{language}: {bytes} bytes");
        }
    }

    #[test]
    fn no_place_for_a_name_is_left_over() {
        for language in LANGUAGES {
            for file in files(language, "gate-watch") {
                let text = String::from_utf8_lossy(&file.content);
                for place in ["{{name}}", "{{crate}}"] {
                    assert!(!text.contains(place), "{language}: {}: {place}", file.path);
                }
            }
        }
        assert_eq!(filled("{{name}} {{crate}} {{other}}", "a-b"), "a-b a_b {{other}}");
    }

    #[test]
    fn a_path_gets_its_dots() {
        assert_eq!(dotted("cargo/config.toml"), ".cargo/config.toml");
        assert_eq!(dotted("src/gitignore.rs"), "src/gitignore.rs");
        assert_eq!(dotted("gitignore"), ".gitignore");
    }
}
