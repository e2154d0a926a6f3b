//! From subscribing to the first result, for sessions that the subscriber makes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::time::Instant;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::bare;
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};

/// Sessions that nobody wants end after a grace of a second.
const GONE_LIMIT: Duration = Duration::from_secs(30);

/// The figures of this phase, in seconds from `subscribe` to the first result.
#[derive(Debug, Serialize)]
pub struct Joining {
    /// A camera that another session holds open. The host has its GOP.
    pub running: Moments,
    /// A camera that plays, but not for this host: it has to be connected to, and its next key
    /// frame awaited.
    pub cold: Moments,
    /// From one key frame to the next: what a cold camera may take longer than a running one.
    pub gop_s: f64,
    /// A file, which waits for nothing: the start of a worker and one frame's way.
    pub file: Moments,
    /// How often each was measured.
    pub repeats: usize,
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Joining> {
    let server = Cameras::start(&environment.paths, 2).await?;
    let held = Camera::live(0, server.url(0));
    let chain =
        Chain::start(&environment.paths, &environment.workplace, std::slice::from_ref(&held))
            .await?;
    let mut subscriber = chain.subscriber().await?;
    subscriber.subscribe(&held.id).await?;
    subscriber.result(&held.id).await?;
    subscriber.unsubscribe(&held.id).await?;
    tokio::time::sleep(SETTLE).await;
    let _playing = server.keep_playing(1).await?;
    let playing_since = Instant::now();
    let gop_s = bare::longest_gop_s(&environment.paths.clip).await?;
    let file = format!("file:{}", environment.paths.clip.display());
    let [mut running, mut cold, mut of_file] = [(); 3].map(|()| Vec::new());
    for repeat in 0..environment.repeats {
        for (kind, source, times) in [
            ("running", server.url(0), &mut running),
            ("cold", server.url(1), &mut cold),
            ("file", file.clone(), &mut of_file),
        ] {
            let session = format!("bench-{kind}-{repeat};{kind}");
            let mut subscriber = chain.subscriber().await?;
            // Spread evenly over a GOP: how long a cold camera's next key frame takes is up to the
            // moment.
            let phase = gop_s * repeat as f64 / environment.repeats as f64;
            let wait = (phase - playing_since.elapsed().as_secs_f64()).rem_euclid(gop_s);
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            let asked = Instant::now();
            subscriber.make(&session, &source).await?;
            let came =
                subscriber.result(&session).await.with_context(|| format!("a {kind} source"))?;
            times.push(came.duration_since(asked).as_secs_f64());
            drop(subscriber);
            until_gone(&chain, &session).await?;
        }
    }
    chain.stop().await?;
    server.stop().await?;
    Ok(Joining {
        running: Moments::of(&running),
        cold: Moments::of(&cold),
        gop_s,
        file: Moments::of(&of_file),
        repeats: environment.repeats,
    })
}

/// Waits until the host has forgotten a session, so that the next one finds the machine as this one
/// did.
async fn until_gone(chain: &Chain, session: &str) -> Result<()> {
    let gone = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            if !chain.sessions().await?.iter().any(|other| other.id == session) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(GONE_LIMIT, gone).await.unwrap_or_else(|_| {
        bail!(
            "session {session:?} is still there {} s after its last subscriber",
            GONE_LIMIT.as_secs()
        )
    })
}
