//! `ocelli probe`: what a camera or a file is, which reader plays it and why, or why it does not
//! play and what to do. It needs no running host, and reads the source as a host would.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;

use super::table::printable;
use crate::config::Config;
use crate::config::source::{
    ReaderSetting, RtspSource, Source, SourceError, SourceOptions, Transport,
};
use crate::discover::{CameraLogin, propose};
use crate::journal::Journal;
use crate::probe::{self, ProbeFault, ProbeReport, StillFormat};
use crate::source::Sources;
use crate::worker::Programs;

/// How long a camera may take to tell its other streams by ONVIF; one without drops the connection
/// or does not answer.
const ONVIF: Duration = Duration::from_secs(4);

/// See the module's documentation.
#[derive(Args)]
pub(super) struct ProbeCommand {
    /// An rtsp:// or rtsps:// URL, `file:PATH`, or a path. `-`: a line of standard input, so that a
    /// password does not stand in the list of processes.
    #[arg(value_name = "URL|FILE")]
    source: String,
    /// How long a camera is measured, in seconds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: u64,
    /// RTP packets come in datagrams: transport = "udp".
    #[arg(long)]
    udp: bool,
    /// This reader alone, instead of the strict one and where that fails the compatible one.
    #[arg(long, value_parser = ["strict", "compatible"])]
    reader: Option<String>,
    /// The authorities whose certificates are trusted, in PEM; for rtsps://.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// SHA-256 of the camera's certificate; for rtsps://.
    #[arg(long, value_name = "HEX")]
    certificate_sha256: Option<String>,
    /// Write a picture to this file, as PNG.
    #[arg(long, value_name = "FILE.png")]
    still: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl ProbeCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let source = self.source()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let (report, still) = runtime.block_on(probe(&source, self.seconds))?;
        let substream = match &source {
            Source::Rtsp(camera) if report.plays => {
                runtime.block_on(async { timeout(ONVIF, proposed(camera)).await.ok().flatten() })
            }
            _ => None,
        };
        if let (true, Some(path)) = (report.plays, &self.still) {
            std::fs::write(path, still).with_context(|| format!("writing {}", path.display()))?;
        }
        // The reader's processes end with this one.
        runtime.shutdown_background();
        if self.json {
            println!("{}", serde_json::to_string(&Printed { report: &report, substream })?);
        } else {
            print!("{}", text(&report));
            if let Some(substream) = substream {
                print!("{}", line(("substream", format!("{substream}: smaller, to be analysed"))));
            }
        }
        match (report.plays, &self.still) {
            (false, _) => bail!("{} does not play", report.source),
            (true, Some(file)) if !self.json => println!("still        {}", file.display()),
            _ => {}
        }
        Ok(())
    }

    fn source(&self) -> Result<Source, SourceError> {
        let mut line = String::new();
        let text = if self.source == "-" {
            // A line that cannot be read is an empty source.
            let _ = std::io::stdin().lock().read_line(&mut line);
            line.trim()
        } else {
            self.source.as_str()
        };
        let options = || SourceOptions {
            transport: self.udp.then_some(Transport::Udp),
            reader: self.reader.as_deref().map(|reader| match reader {
                "strict" => ReaderSetting::Strict,
                _ => ReaderSetting::Compatible,
            }),
            ca: self.ca.clone(),
            certificate_sha256: self.certificate_sha256.clone(),
            ..SourceOptions::default()
        };
        match Source::configured(text, options()) {
            Err(SourceError::Unrecognised) if Path::new(text).exists() => {
                Source::configured(&format!("file:{text}"), options())
            }
            source => source,
        }
    }
}

/// The report for programs.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    report: &'a ProbeReport,
    /// A smaller stream that the camera offers, without credentials.
    substream: Option<String>,
}

/// A smaller stream of the camera, if it tells of one by ONVIF.
async fn proposed(camera: &RtspSource) -> Option<String> {
    let mut addresses = tokio::net::lookup_host(camera.address()).await.ok()?;
    let login = camera.credentials.as_ref().map(|credentials| CameraLogin {
        user: credentials.user.clone(),
        password: credentials.password.clone(),
    });
    let proposal = propose(camera.url(), addresses.next()?.ip(), login.as_ref()).await?;
    Some(proposal.substream)
}

/// Reads a source as a host would, a camera for `seconds`. Also gives the picture of the report as
/// a PNG file, empty without one.
pub(super) async fn probe(source: &Source, seconds: u64) -> anyhow::Result<(ProbeReport, Vec<u8>)> {
    let programs = Programs::find()?;
    let config = Config::from_text(Path::new("probe.toml"), "", &[])?;
    // In memory: what a host has remembered of the camera plays no part.
    let sources = Sources::new(programs.readers.clone(), Journal::temporary()?, &config);
    let span = Duration::from_secs(seconds);
    probe::look(&sources, &programs.worker, source, span, StillFormat::Png).await
}

/// The report for a person.
fn text(report: &ProbeReport) -> String {
    let ProbeReport { source, plays, reader, transport, size, left_out, measured, fault } = report;
    let mut lines =
        vec![("source", source.clone()), ("plays", if *plays { "yes" } else { "no" }.to_owned())];
    if let Some(reader) = reader {
        lines.push(("reader", format!("{}: {}", reader.kind, reader.reason)));
    }
    if let Some(transport) = transport {
        let name = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        lines.push(("transport", name.to_owned()));
    }
    if let Some((width, height)) = size {
        lines.push(("size", format!("{width} x {height}")));
    }
    if !left_out.is_empty() {
        lines.push(("left out", left_out.join(", ")));
    }
    lines.extend(measured.lines());
    if let Some(ProbeFault { kind, step, message, advice }) = fault {
        let step = step.map(|step| format!(" at {step:?}").to_lowercase()).unwrap_or_default();
        lines.push(("fault", format!("{kind}{step}: {message}")));
        lines.push(("what to do", (*advice).to_owned()));
    }
    lines.into_iter().map(line).collect()
}

fn line((name, value): (&str, String)) -> String {
    format!("{name:<12} {}\n", printable(&value))
}
