//! `ocelli clip`: the seconds of video around an event, as a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ocelli_client::{Client, Error, Request};
use serde_json::json;

use super::host::{Asked, HostArgs, block_on};
use super::pipeline::DraftFile;
use super::table::printable;

/// Between two requests for a clip that is being recorded.
const AGAIN: Duration = Duration::from_secs(1);

/// Requests for one: a clip that events share is whole some three minutes after the first of them,
/// at the longest.
const REQUESTS: u32 = 240;

#[derive(Args)]
pub(super) struct ClipCommand {
    /// The event's session.
    session: String,
    /// The event's number.
    seq: u64,
    /// The file that the clip is written to, as MP4.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    host: HostArgs,
}

impl ClipCommand {
    /// Waits for a clip that is being recorded.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut file = DraftFile::new(&self.out)?;
        let client = self.host.client()?;
        let asked = Asked::nothing();
        let clip = match block_on(self.download(&client))? {
            Ok(clip) => clip,
            Err(error) => return Err(block_on(self.host.explained(&client, error, asked))?),
        };
        file.write(&clip)?;
        let path = file.finish()?;
        let path = path.display().to_string();
        if self.host.json {
            println!("{}", json!({"file": path, "bytes": clip.len()}));
        } else {
            println!("{}", printable(&path));
        }
        Ok(())
    }

    async fn download(&self, client: &Client) -> Result<bytes::Bytes, Error> {
        let id = format!("{}:{}", self.session, self.seq);
        let path = ["events", &id, "clip.mp4"];
        for _ in 1..REQUESTS {
            match client.download(&Request::get(&path).patient()).await {
                Err(Error::Problem(problem)) if problem.code == "clip_pending" => {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
        client.download(&Request::get(&path).patient()).await
    }
}
