//! The libraries for Python and TypeScript, by the examples of the pages that show them.

use std::path::{Path, PathBuf};
use std::process::Command;

use ocelli_testkit::{
    ClientProcess, DEADLINE, Ocelli, PipelineFolder, Relay, changeling, client_python, clip, root,
};
use serde_json::json;
use tokio::time::timeout;

/// Pages, from the root of the repository.
const PAGES: [&str; 4] =
    ["README.md", "docs/subscriber.md", "clients/python/README.md", "clients/typescript/README.md"];

/// The address in the examples.
const ADDRESS: &str = "http://127.0.0.1:8001";

/// An example of a page.
struct Example {
    page: &'static str,
    code: String,
}

impl Example {
    /// One that goes on for ever; the others end.
    fn is_endless(&self) -> bool {
        self.code.contains(".subscribe(")
    }
}

/// The blocks of code in this language that use `library`.
fn examples(language: &str, library: &str) -> Vec<Example> {
    let mut found = Vec::new();
    for page in PAGES {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let begin = format!("```{language}\n");
        let blocks = text.split(&begin).skip(1);
        let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
        let ours = blocks.filter(|code| code.contains(library));
        found.extend(ours.map(|code| Example { page, code: code.to_owned() }));
    }
    let (endless, ending): (Vec<_>, Vec<_>) = found.iter().partition(|it| it.is_endless());
    assert!(endless.len() >= 2 && !ending.is_empty(), "the pages show {library}");
    found
}

/// A host with the session of the examples, which makes an event with a picture of every second
/// frame.
async fn host() -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let source = format!("file:{}", clip("bikes.mp4").display());
    let config = format!(
        "{}[deploy]\nprobation_s = 1\n[[cameras]]\nid = \"gate\"\nsource = {source:?}\n\
         pace = \"realtime\"\nrepeat = true\npipeline = \"changeling\"\n\
         settings = {{ every = 2, attach = true }}\n",
        store.section()
    );
    let host = Ocelli::start(&config).await;
    host.wait_for_session("gate", |session| session["events"].as_u64() > Some(30)).await;
    (store, host)
}

/// The files that the examples name.
fn put_files(folder: &Path) {
    std::fs::copy(root().join("tests/faces/three.jpg"), folder.join("people.jpg")).unwrap();
    std::fs::write(folder.join("new.wasm"), changeling(&json!({"version": "9.0.0"}))).unwrap();
}

/// Runs an example. One without end goes through a connection that is cut again and again, and has
/// to print every event from the first on, once and in order.
async fn hold(host: &Ocelli, example: &Example, program: impl Fn(&str) -> Command) {
    const CUTS: usize = 4;
    let page = example.page;
    if !example.is_endless() {
        let ended = ClientProcess::start(&mut program(&format!("http://{}", host.address()))).end();
        let (good, said) = timeout(2 * DEADLINE, ended).await.expect("the example ends");
        assert!(good, "{page}: {said}");
        for part in ["gate running", "healthy", "404 unknown_session"] {
            assert!(said.contains(part), "{page}: {part:?} is not in {said}");
        }
        return;
    }
    let relay = Relay::to(host.address().port()).await;
    let mut process = ClientProcess::start(&mut program(&format!("http://{}", relay.address())));
    let mut seq = 0_u64;
    // Many of the first ones come at once, before the first cut.
    while relay.connections() <= CUTS {
        let line = process.find(|line| Some(line.to_owned())).await;
        let number = line.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        seq += 1;
        assert_eq!(number, Some(seq), "{page}: {line}");
        if seq.is_multiple_of(8) {
            relay.cut();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_in_python_does_what_it_says_and_loses_no_event_over_lost_connections() {
    let (_store, host) = host().await;
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path());
    let library = root().join("clients/python");
    let examples = examples("python", "ocelli_client");
    for (number, example) in examples.iter().enumerate() {
        hold(&host, example, |url| {
            let script = folder.path().join(format!("example{number}.py"));
            std::fs::write(&script, example.code.replace(ADDRESS, url)).unwrap();
            let mut command = Command::new(client_python());
            command.args(["-u", "-B"]).arg(script).env("PYTHONPATH", &library);
            command.current_dir(folder.path());
            command
        })
        .await;
    }
    let mut mypy = Command::new(client_python());
    mypy.args(["-m", "mypy", "--strict", "--no-error-summary", "--cache-dir=/dev/null"]);
    mypy.arg(library.join("ocelli_client")).current_dir(folder.path()).env("MYPYPATH", &library);
    mypy.args((0..examples.len()).map(|number| format!("example{number}.py")));
    let (good, said) = ClientProcess::start(&mut mypy).end().await;
    assert!(good, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_in_python_are_those_of_the_hosts_documents() {
    let schema = root().join("host/ui/schema");
    let mut python = Command::new(client_python());
    python.arg("-B").arg(root().join("tests/clients/conforms.py"));
    python.args(["openapi.json", "asyncapi.json"]).current_dir(schema);
    python.env("PYTHONPATH", root().join("clients/python"));
    let (good, said) = ClientProcess::start(&mut python).end().await;
    assert!(good, "{said}");
}

/// A file of what the dashboard is built with, which has the compiler.
fn node_module(path: &str) -> PathBuf {
    let path = root().join("host/ui/node_modules").join(path);
    assert!(path.exists(), "{} is missing: `./x test` installs it", path.display());
    path
}

/// Compiles a TypeScript project.
async fn tsc(project: &Path, more: &[&str]) {
    let mut tsc = Command::new("node");
    tsc.arg(node_module("typescript/bin/tsc")).arg("--project").arg(project).args(more);
    let (good, said) = ClientProcess::start(&mut tsc).end().await;
    assert!(good, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_in_typescript_does_what_it_says_and_loses_no_event_over_lost_connections() {
    let folder = tempfile::tempdir().unwrap();
    put_files(folder.path());
    let library = folder.path().join("node_modules/@ocelli/client");
    std::fs::create_dir_all(&library).unwrap();
    let source = root().join("clients/typescript");
    std::fs::copy(source.join("package.json"), library.join("package.json")).unwrap();
    tsc(&source, &["--outDir", &library.join("dist").display().to_string()]).await;

    let examples = examples("ts", "@ocelli/client");
    for (number, example) in examples.iter().enumerate() {
        std::fs::write(folder.path().join(format!("example{number}.mts")), &example.code).unwrap();
    }
    // The types that the dashboard has from the host's documents.
    let generated = root().join("host/ui/src/api/generated").display().to_string();
    let mut types = Command::new("node");
    types.arg("scripts/types.mjs").current_dir(root().join("host/ui"));
    let (good, said) = ClientProcess::start(&mut types).end().await;
    assert!(good, "{said}");
    let conforms = std::fs::read_to_string(root().join("tests/clients/conforms.mts")).unwrap();
    let conforms = conforms.replace("GENERATED", &generated);
    std::fs::write(folder.path().join("conforms.mts"), conforms).unwrap();
    let config = json!({"include": ["*.mts"], "compilerOptions": {
        "target": "ES2022", "module": "NodeNext", "lib": ["ES2022", "DOM"], "strict": true,
        "types": ["node"], "typeRoots": [node_module("@types")], "skipLibCheck": true}});
    std::fs::write(folder.path().join("tsconfig.json"), config.to_string()).unwrap();
    tsc(folder.path(), &[]).await;

    let (_store, host) = host().await;
    for (number, example) in examples.iter().enumerate() {
        hold(&host, example, |url| {
            let script = folder.path().join(format!("example{number}.mjs"));
            let compiled = std::fs::read_to_string(&script).unwrap();
            std::fs::write(&script, compiled.replace(ADDRESS, url)).unwrap();
            let mut command = Command::new("node");
            command.arg(script).current_dir(folder.path());
            command
        })
        .await;
    }
}
