//! The dashboard in headless Chromium, which decodes and draws without a GPU: joining, latency by
//! rung, whether boxes are on their own picture, and what a tile costs.

use std::fmt::{self, Display, Formatter};

use anyhow::{Context, Result};
use ocelli_testkit::browser::{Browser, Window};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};
use crate::machine::Role;
use crate::statistics::percentile;
use crate::table::Table;

/// The ways of showing H.264, as `?rung=` names them.
const RUNGS: [&str; 3] = ["webcodecs", "mse", "jpeg"];

/// Tiles of the walls. More than one means key pictures, of which the clip has one every two
/// seconds.
const WALLS: [usize; 3] = [1, 4, 20];

/// Results of a wall's sessions in a second, so that the machine is the browser's.
const RATE: f64 = 0.5;

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct PageCost {
    /// Bytes of the wall's first load as they are sent: compressed.
    pub first_load_bytes: f64,
    /// One camera, every picture drawn.
    pub rungs: Vec<RungCost>,
    /// Walls.
    pub walls: Vec<WallCost>,
}

/// One camera of 10 pictures a second on its own page.
#[derive(Debug, Serialize)]
pub struct RungCost {
    /// Which way.
    pub rung: String,
    /// Milliseconds from asking for pictures to the first that is drawn.
    pub join_ms: Moments,
    /// Milliseconds from the host's receipt of a picture to its decoded one.
    pub decode_ms: Shares,
    /// Milliseconds from its arrival in the page to being drawn, its boxes awaited.
    pub draw_ms: Shares,
    /// Pictures a second.
    pub drawn_per_second: f64,
    /// Of the pictures with boxes, those whose boxes were found in another picture, in percent.
    pub other_boxes_percent: f64,
    /// Milliseconds of CPU of the whole browser for a drawn picture.
    pub browser_ms: f64,
}

/// A wall of cameras, all of them visible.
#[derive(Debug, Serialize)]
pub struct WallCost {
    /// How many.
    pub tiles: usize,
    /// Pictures a second, of all tiles together.
    pub drawn_per_second: f64,
    /// CPU of the whole browser in percent of a core.
    pub browser_percent: f64,
    /// What the host's CPU grew by, in percent of a core.
    pub host_percent: f64,
}

/// Two percentiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Shares {
    /// The median.
    pub p50: f64,
    /// One in twenty is larger.
    pub p95: f64,
}

impl Shares {
    fn of(samples: &[f64]) -> Self {
        Self { p50: percentile(samples, 0.5), p95: percentile(samples, 0.95) }
    }
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<PageCost> {
    let server = Cameras::start(&environment.paths, 1).await?;
    let camera = Camera::live(0, server.url(0));
    let chain = start(environment, vec![camera]).await?;
    let browser = Browser::start().await;
    let mut rungs = Vec::new();
    for rung in RUNGS {
        rungs.push(one(environment, &chain, &browser, rung).await.context(rung)?);
    }
    let window = browser.open(&format!("http://{}/", chain.address())).await;
    window.until("document.readyState === 'complete' && document.querySelector('h1')").await;
    let sizes = "['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind))
        .filter(one => !one.name.includes('/v1/'))
        .reduce((sum, one) => sum + one.encodedBodySize, 0)";
    let first_load_bytes = window.evaluate(sizes).await.as_f64().unwrap_or(f64::NAN);
    drop((window, browser));
    chain.stop().await?;
    server.stop().await?;
    let mut walls = Vec::new();
    for tiles in WALLS {
        walls.push(wall(environment, tiles).await.with_context(|| format!("{tiles} tiles"))?);
    }
    Ok(PageCost { first_load_bytes, rungs, walls })
}

async fn start(environment: &Environment, cameras: Vec<Camera>) -> Result<Chain> {
    let chain = Chain::start(&environment.paths, &environment.workplace, &cameras).await?;
    let mut subscriber = chain.subscriber().await?;
    for camera in &cameras {
        subscriber.subscribe(&camera.id).await?;
        subscriber.result(&camera.id).await?;
        subscriber.unsubscribe(&camera.id).await?;
    }
    Ok(chain)
}

async fn one(
    environment: &Environment,
    chain: &Chain,
    browser: &Browser,
    rung: &str,
) -> Result<RungCost> {
    let url = format!("http://{}/cameras/cam-0?rung={rung}", chain.address());
    let player = "__ocelli.players['cam-0']";
    let mut joins = Vec::new();
    for _ in 1..environment.repeats {
        let window = browser.open(&url).await;
        let join = window.until(&format!("{player}.joinMs")).await;
        joins.extend(join.as_f64());
        window.close().await;
    }
    let window = browser.open(&url).await;
    joins.extend(window.until(&format!("{player}.joinMs")).await.as_f64());
    tokio::time::sleep(SETTLE).await;
    let before = look(&window, player).await?;
    let cpu = browser.cpu_seconds().await;
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(environment.segment).await;
    let spent = browser.cpu_seconds().await - cpu;
    let seconds = begun.elapsed().as_secs_f64();
    let mut after = look(&window, player).await?;
    // A picture whose own boxes came after it is there once more, with those.
    after.boxes.dedup_by(|next, one| next.picture == one.picture);
    window.close().await;
    let drawn = after.drawn - before.drawn;
    anyhow::ensure!(drawn > 0.0, "no picture is drawn");
    let others = after.boxes.iter().filter(|one| one.picture != one.result).count();
    Ok(RungCost {
        rung: rung.to_owned(),
        join_ms: Moments::of(&joins),
        decode_ms: Shares::of(after.decode_ms.get(before.decode_ms.len()..).unwrap_or_default()),
        draw_ms: Shares::of(after.draw_ms.get(before.draw_ms.len()..).unwrap_or_default()),
        drawn_per_second: drawn / seconds,
        other_boxes_percent: 100.0 * others as f64 / after.boxes.len().max(1) as f64,
        browser_ms: spent * 1e3 / drawn,
    })
}

/// What the page has counted of a camera's pictures.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Player {
    drawn: f64,
    decode_ms: Vec<f64>,
    draw_ms: Vec<f64>,
    boxes: Vec<Drawn>,
}

/// A picture that was drawn, and the one whose result its boxes are.
#[derive(Debug, Deserialize)]
struct Drawn {
    picture: f64,
    result: f64,
}

async fn look(window: &Window, player: &str) -> Result<Player> {
    Ok(Player::deserialize(window.evaluate(&format!("({{...{player}}})")).await)?)
}

async fn wall(environment: &Environment, tiles: usize) -> Result<WallCost> {
    let server = Cameras::start(&environment.paths, tiles).await?;
    let slow = json!({"max_results_per_second": RATE});
    let cameras =
        (0..tiles).map(|index| Camera::live(index, server.url(index)).with(slow.clone())).collect();
    let chain = start(environment, cameras).await?;
    let before = chain.snapshot()?;
    tokio::time::sleep(environment.segment).await;
    let alone = chain.snapshot()?.since(&before);
    let browser = Browser::start().await;
    let window = browser.open(&format!("http://{}/", chain.address())).await;
    // Higher than any wall, so that all tiles are visible.
    window.resize(1920, 2400, false).await;
    let players = "Object.values(__ocelli.players)";
    window.until(&format!("{players}.filter(one => one.drawn > 1).length === {tiles}")).await;
    tokio::time::sleep(SETTLE).await;
    let sum = format!("{players}.reduce((sum, one) => sum + one.drawn, 0)");
    let drawn = window.evaluate(&sum).await;
    let (cpu, before) = (browser.cpu_seconds().await, chain.snapshot()?);
    tokio::time::sleep(environment.segment).await;
    let spent = browser.cpu_seconds().await - cpu;
    let watched = chain.snapshot()?.since(&before);
    let drawn = window.evaluate(&sum).await.as_f64().unwrap_or_default()
        - drawn.as_f64().unwrap_or_default();
    drop((window, browser));
    chain.stop().await?;
    server.stop().await?;
    let percent = |seconds: f64| 100.0 * seconds / watched.wall_s;
    let host = |spent: &crate::machine::Spent| {
        spent.by_role.get(&Role::Host).copied().unwrap_or_default() / spent.wall_s
    };
    Ok(WallCost {
        tiles,
        drawn_per_second: drawn / watched.wall_s,
        browser_percent: percent(spent),
        host_percent: 100.0 * (host(&watched) - host(&alone)),
    })
}

/// A rung that asks for finished pictures has none of these times.
fn both(times: &Shares) -> String {
    if times.p50.is_nan() {
        return "-".to_owned();
    }
    format!("{:.1} / {:.1} ms", times.p50, times.p95)
}

impl Display for PageCost {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { first_load_bytes, rungs, walls } = self;
        writeln!(f, "\n## The dashboard in a browser\n")?;
        let first = first_load_bytes / 1e3;
        writeln!(f, "Headless Chromium without a GPU; the first load has {first:.1} kB.")?;
        let mut ways = Table::new([
            "way",
            "joining: median, largest",
            "decoded p50 / p95",
            "drawn p50 / p95",
            "other boxes",
            "CPU",
            "pictures/s",
        ]);
        for row in rungs {
            ways.row([
                row.rung.clone(),
                format!("{:.0}, {:.0} ms", row.join_ms.median, row.join_ms.max),
                both(&row.decode_ms),
                both(&row.draw_ms),
                format!("{:.1} %", row.other_boxes_percent),
                format!("{:.1} ms", row.browser_ms),
                format!("{:.1}", row.drawn_per_second),
            ]);
        }
        let mut tiles = Table::new(["wall", "pictures/s", "browser", "host, for the pictures"]);
        for row in walls {
            tiles.row([
                format!("{} cameras", row.tiles),
                format!("{:.1}", row.drawn_per_second),
                format!("{:.1} % of a core", row.browser_percent),
                format!("{:.2} %", row.host_percent),
            ]);
        }
        write!(f, "{ways}{tiles}")
    }
}
