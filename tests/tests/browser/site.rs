//! A host with cameras, and how its page is reached.

use std::fmt::Write;
use std::net::Ipv4Addr;

use ocelli_testkit::{Cameras, ClosedPort, Ocelli, PipelineFolder};

/// A camera of a site: its name, its clip, its pipeline, and further lines of its table.
#[derive(Clone, Copy)]
pub(crate) struct Camera<'a>(
    pub(crate) &'a str,
    pub(crate) &'a str,
    pub(crate) &'a str,
    pub(crate) &'a str,
);

/// The white square, and the pipeline that finds it.
pub(crate) const SPOT: Camera<'_> = Camera("spot", "spot.mp4", "spot", "");

/// People, and the built-in pipeline at a rate that leaves the processor to the browser.
pub(crate) const GATE: Camera<'_> = Camera(
    "gate",
    "people-576-high.mp4",
    "object-detect",
    "settings = { max_results_per_second = 2 }",
);

pub(crate) struct Site {
    pub(crate) cameras: Cameras,
    pub(crate) host: Ocelli,
    config: String,
    pub(crate) store: PipelineFolder,
    // Keeps the host's port while it is restarted.
    _place: ClosedPort,
}

impl Site {
    /// Starts the cameras and a host with sessions of them. `server` are further lines of the
    /// host's section of that name, and sections after it.
    pub(crate) async fn start(server: &str, cameras: &[Camera<'_>]) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, server, cameras).await
    }

    /// As [`start`](Self::start), with a host at this address of the machine.
    pub(crate) async fn start_on(at: Ipv4Addr, server: &str, cameras: &[Camera<'_>]) -> Self {
        let own = ["changeling", "spot", "motion", "asker"];
        let store = PipelineFolder::with(&own);
        let mounts: Vec<(String, &str)> =
            cameras.iter().map(|Camera(id, clip, ..)| (format!("/{id}"), *clip)).collect();
        let mounts: Vec<(&str, &str)> =
            mounts.iter().map(|(path, clip)| (path.as_str(), *clip)).collect();
        let server_of_cameras = Cameras::start(&[], &mounts);
        let place = ClosedPort::on(at);
        let mut config = format!("[server]\nlisten = \"{}\"\n{server}\n", place.address);
        config += &store.section();
        for Camera(id, _, pipeline, more) in cameras {
            let source = server_of_cameras.url(&format!("/{id}"));
            write!(config, "[[cameras]]\nid = {id:?}\nsource = {source:?}\n").unwrap();
            write!(config, "pipeline = {pipeline:?}\n{more}\n").unwrap();
        }
        let host = Ocelli::start(&config).await;
        Self { cameras: server_of_cameras, host, config, store, _place: place }
    }

    /// The address of a page of the dashboard.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host.address())
    }

    /// The host's config.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }
}

/// What finds the picture of a camera, large or in a tile.
pub(crate) fn picture(session: &str) -> String {
    format!("[role=img][aria-label='Picture of {session}']")
}

/// The counters of a camera's pictures in the page.
pub(crate) fn player(session: &str) -> String {
    format!("__ocelli.players[{session:?}]")
}
