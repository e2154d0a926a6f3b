//! `ocelli probe`: what a camera or a file is, which reader plays it and why, or why it does not
//! play and what to do. It needs no running host, and reads the source as a host would.

mod measure;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::table::printable;
use crate::config::Config;
use crate::config::source::{ReaderSetting, Source, SourceError, SourceOptions, Transport};
use crate::journal::Journal;
use crate::source::{ReaderStatus, SourceFault, SourceFaultKind, SourceStep, Sources};
use crate::worker::{Programs, still};
use measure::{Measured, ProbeOutcome, measure};

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

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct ProbeReport {
    /// Without credentials.
    source: String,
    /// Whether a picture of it could be decoded.
    plays: bool,
    /// Of a camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    reader: Option<ReaderStatus>,
    /// Of a camera: how RTP packets came.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
    /// Width and height in pixels, as shown.
    size: Option<(u32, u32)>,
    /// Streams that are not read: "audio aac".
    left_out: Vec<String>,
    #[serde(flatten)]
    measured: Measured,
    fault: Option<Fault>,
}

#[derive(Debug, Serialize)]
struct Fault {
    /// The kind of the fault, as in the log of a host; `damaged` where no picture can be decoded.
    kind: &'static str,
    /// The step that failed.
    step: Option<SourceStep>,
    message: String,
    /// What to do.
    advice: &'static str,
}

impl ProbeCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let source = self.source()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let (report, still) = runtime.block_on(probe(&source, self.seconds))?;
        if let (true, Some(path)) = (report.plays, &self.still) {
            std::fs::write(path, still).with_context(|| format!("writing {}", path.display()))?;
        }
        // The reader's processes end with this one.
        runtime.shutdown_background();
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", text(&report));
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

impl ProbeReport {
    /// Whether a picture of it could be decoded.
    pub(super) fn plays(&self) -> bool {
        self.plays
    }

    /// What it is, or why it does not play and what to do, on one line.
    pub(super) fn summary(&self) -> String {
        if let (false, Some(Fault { kind, message, advice, .. })) = (self.plays, &self.fault) {
            return format!("does not play: {kind}: {message}; {advice}");
        }
        let measured =
            self.measured.lines().into_iter().map(|(name, value)| format!("{name} {value}"));
        let size = self.size.map(|(width, height)| format!("{width} x {height}"));
        let plays = if self.plays { "plays" } else { "does not play" };
        let parts = std::iter::once(plays.to_owned()).chain(size).chain(measured);
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Reads a source as a host would, a camera for `seconds`. Also gives the picture of the report as
/// a PNG file, empty without one.
pub(super) async fn probe(source: &Source, seconds: u64) -> anyhow::Result<(ProbeReport, Vec<u8>)> {
    let programs = Programs::find()?;
    let config = Config::from_text(Path::new("probe.toml"), "", &[])?;
    // In memory: what a host has remembered of the camera plays no part.
    let sources = Sources::new(programs.readers.clone(), Journal::temporary()?, &config);
    let mut subscription = sources.subscribe(source);
    let reader = subscription.reader();
    let ProbeOutcome { measured, units, fault } =
        measure(&mut subscription, source.is_live(), Duration::from_secs(seconds)).await;
    let mut report = ProbeReport {
        source: source.to_string(),
        plays: false,
        reader: reader.status(),
        transport: match source {
            Source::Rtsp(source) => Some(source.transport),
            Source::File(_) => None,
        },
        size: None,
        left_out: subscription.other_streams(),
        measured,
        fault: fault.map(|fault| Fault::of_source(&fault)),
    };
    if units.is_empty() {
        return Ok((report, Vec::new()));
    }
    let (still, file) = still(&programs.worker, &units).await?;
    report.size = still.size;
    report.plays = still.size.is_some();
    if !report.plays {
        report.fault.get_or_insert_with(|| Fault {
            kind: "damaged",
            step: None,
            message: still.fault.unwrap_or_else(|| "the decoder makes no picture".to_owned()),
            advice: "no picture of the first GOP is sound: set another codec or profile in the \
                     camera, or try the other transport",
        });
    }
    Ok((report, file))
}

impl Fault {
    fn of_source(fault: &SourceFault) -> Self {
        let (step, message) = (Some(fault.step), fault.message.clone());
        Self { kind: fault.kind.code(), step, message, advice: advice(fault.kind) }
    }
}

/// What an operator does about a fault.
fn advice(kind: SourceFaultKind) -> &'static str {
    match kind {
        SourceFaultKind::Unauthorized => {
            "check the user name and password, and that this account may see the stream; in a URL \
             : / ? # @ % are written as %3A %2F %3F %23 %40 %25"
        }
        SourceFaultKind::Unreachable => {
            "check the address and the port, and that a firewall lets this machine reach it"
        }
        SourceFaultKind::NotRtsp => "check the port: RTSP has 554 on most cameras",
        SourceFaultKind::NoVideo => "the path has no video: look for another one in the manual",
        SourceFaultKind::UnsupportedCodec => {
            "set the camera to H.264, H.265 or Motion JPEG, or encode the file anew"
        }
        SourceFaultKind::Silent => {
            "restart the camera, lower the number of its viewers, or try the other transport"
        }
        SourceFaultKind::Timeout => "try again; if it stays, restart the camera",
        SourceFaultKind::Closed => {
            "lower the number of the camera's viewers: many take no more than a few"
        }
        SourceFaultKind::Protocol => {
            "check the path; try the other transport, or the reader `compatible`"
        }
        SourceFaultKind::Certificate => {
            "name the authority with --ca, or the certificate with --certificate-sha256"
        }
        SourceFaultKind::Reader => "see the lines above: `./x build` makes the readers",
        SourceFaultKind::TooLarge => {
            "set the camera to a lower resolution or rate of bits; if it is no camera, leave it out"
        }
        SourceFaultKind::File => "check the path, and that the file is whole and of a known kind",
    }
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
    if let Some(Fault { kind, step, message, advice }) = fault {
        let step = step.map(|step| format!(" at {step:?}").to_lowercase()).unwrap_or_default();
        lines.push(("fault", format!("{kind}{step}: {message}")));
        lines.push(("what to do", (*advice).to_owned()));
    }
    let line = |(name, value): (&str, String)| format!("{name:<12} {}\n", printable(&value));
    lines.into_iter().map(line).collect()
}
