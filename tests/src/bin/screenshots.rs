//! Takes the pictures of the dashboard that the documentation shows: `./x ui --screenshots`.
//!
//! A host with four cameras, of real clips, and a browser; each picture is taken once what it is to
//! show is there.

#![allow(
    clippy::expect_used,
    reason = "a tool of developers, that ends with a message where it cannot go on"
)]

use std::path::{Path, PathBuf};

use clap::Parser;
use ocelli_testkit::browser::{Browser, Window};
use ocelli_testkit::{Cameras, Ocelli};

/// Takes pictures of the dashboard.
#[derive(Parser)]
struct Arguments {
    /// Where they are put.
    folder: PathBuf,
}

/// Camera, clip, and settings of its pipeline.
const CAMERAS: [(&str, &str, &str); 4] = [
    ("gate", "people-576-high.mp4", "max_results_per_second = 5"),
    ("yard", "people-576-baseline.mp4", "max_results_per_second = 3"),
    ("street", "bikes.mp4", "max_results_per_second = 3"),
    ("plaza", "people-1080-baseline.mp4", "max_results_per_second = 2"),
];

/// A zone for the camera `gate`, so that there are events of one.
const ZONE: &str = "zones = [{ name = \"door\", polygon = [[0.1, 0.3], [0.6, 0.3], [0.6, 0.95], \
                    [0.1, 0.95]] }]";

/// Name, path, scheme, width and height; a phone where it is narrow.
const SHOTS: [(&str, &str, &str, u32, u32); 6] = [
    ("wall-dark", "/", "dark", 1280, 600),
    ("wall-light", "/", "light", 1280, 600),
    ("wall-phone", "/", "dark", 390, 844),
    ("camera", "/cameras/gate", "dark", 1280, 960),
    ("events", "/events", "light", 1280, 860),
    ("zones", "/zones/gate", "dark", 1280, 860),
];

fn main() {
    let Arguments { folder } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(take(&folder));
}

async fn take(folder: &Path) {
    let mounts = CAMERAS.map(|(id, clip, _)| (format!("/{id}"), clip));
    let mounts: Vec<_> = mounts.iter().map(|(path, clip)| (path.as_str(), *clip)).collect();
    let cameras = Cameras::start(&[], &mounts);
    let table = |(id, _, settings): (&str, &str, &str)| {
        let source = cameras.url(&format!("/{id}"));
        let zone = if id == "gate" { format!(", {ZONE}") } else { String::new() };
        format!(
            "[[cameras]]\nid = {id:?}\nsource = {source:?}\npipeline = \"object-detect\"\n\
             settings = {{ {settings}{zone} }}\n"
        )
    };
    let config: String = CAMERAS.map(table).concat();
    let host = Ocelli::start(&config).await;
    let browser = Browser::start().await;
    std::fs::create_dir_all(folder).expect("a folder for the pictures");
    for (name, path, scheme, width, height) in SHOTS {
        let window = browser.person().await.window().await;
        window.prefer(&[("prefers-color-scheme", scheme)]).await;
        window.resize(width, height, width < 500).await;
        window.go(&format!("http://{}{path}", host.address())).await;
        until_shown(&window, path).await;
        let file = folder.join(name).with_extension("webp");
        std::fs::write(&file, window.screenshot("webp").await).expect("the picture is written");
        println!("{}", file.display());
        window.close().await;
    }
}

/// Waits until a page shows what it is for.
async fn until_shown(window: &Window, path: &str) {
    let shown = match path {
        "/" => "Object.values(__ocelli.players).filter(one => one.drawn > 8).length === 4",
        "/events" => "document.querySelectorAll('.event-row').length > 8",
        "/zones/gate" => "document.querySelector('.stage img')?.naturalWidth > 0",
        // Charts need some seconds of figures.
        _ => "__ocelli.players.gate?.drawn > 150",
    };
    window.until(shown).await;
    window.until("!document.body.innerText.includes('Loading')").await;
}
