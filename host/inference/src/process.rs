//! The inference process: the engine on its own. The host starts it and passes one socket.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{
    Attach, FromHost, MAX_PACKET, PacketError, ToHost, receive_with, send,
};
use ocelli_protocol::process;
use ocelli_sandbox::{Profile, confine, limit};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::hook::Hook;
use crate::inspect::inspect;

/// Log levels. ONNX Runtime logs for its own developers. Its errors and the lines on execution
/// providers are for operators.
fn log_levels() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("ort", LevelFilter::ERROR)
        .with_target("ort::ep", LevelFilter::WARN)
}

/// Why the process ends with an error, which it also sends to the host.
#[derive(Debug, thiserror::Error)]
enum ProcessError {
    #[error("the host did not send `Configure` first")]
    NotConfigured,
    #[error("the host's first message: {0}")]
    FirstMessage(PacketError),
    #[error("the host sent no in-flight table")]
    NoTable,
    #[error("the in-flight table cannot be used: {0}")]
    Table(std::io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot bound the memory to {bytes} bytes: {source}")]
    MemoryLimit { bytes: u64, source: std::io::Error },
    #[error("cannot report to the host: {0}")]
    Report(PacketError),
    #[error("the host configured this process twice")]
    ConfiguredTwice,
    #[error("a message of the host: {0}")]
    Message(PacketError),
}

/// The program `ocelli-inference`: serves sessions until the host drains it or closes its socket.
/// With `--inspect FILE --library PATH [SHA256]` it prints a description of a model file as JSON.
/// `before_run` is `None` except in a program for tests.
///
/// To be the whole of `main`: it takes descriptor 3, closes all above it, and confines the process.
#[allow(unsafe_code)]
pub fn main(before_run: Hook) -> ExitCode {
    // SAFETY: the process has opened nothing yet, and the host passes no more than this.
    let entered = unsafe { ocelli_sandbox::enter(process::inference::HOST) };
    // SAFETY: no other thread runs yet, and nothing has read the environment.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(log_levels()).with(lines).init();
    // A dead thread would leave its requests unanswered; the host replaces a dead process.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        std::process::abort();
    }));
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    match arguments.as_slice() {
        [] => {}
        ["--inspect", file, "--library", library, sha256 @ ..] if sha256.len() <= 1 => {
            return print_inspection(file, library, sha256.first().copied());
        }
        _ => {
            tracing::error!("usage: ocelli-inference --inspect FILE --library PATH [SHA256]");
            return ExitCode::from(2);
        }
    }
    if let Err(error) = entered {
        tracing::error!(%error, "cannot ask to end with the host");
        return ExitCode::FAILURE;
    }
    // SAFETY: this is the start of the process, and nothing has opened a descriptor that stays
    // open.
    let host = unsafe { process::inherited(process::inference::HOST) };
    if rustix::io::fcntl_getfd(&host).is_err() {
        std::mem::forget(host);
        tracing::error!("this program is started by `ocelli serve`, not by hand");
        return ExitCode::FAILURE;
    }
    let host = Arc::new(host);
    match serve(&host, before_run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = error.to_string();
            tracing::error!("{message}");
            if let Err(error) = send(host.as_fd(), &ToHost::Failed { message }) {
                tracing::debug!(%error, "cannot tell the host");
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints the description of a model file, or the error.
fn print_inspection(file: &str, library: &str, sha256: Option<&str>) -> ExitCode {
    let inspected = inspect(Path::new(file), Path::new(library), sha256);
    let inspected = inspected.map_err(|error| error.to_string());
    let text = inspected
        .and_then(|inspected| serde_json::to_string(&inspected).map_err(|e| e.to_string()));
    let written =
        text.and_then(|text| writeln!(std::io::stdout(), "{text}").map_err(|e| e.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{file}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the host closes its end, or wants no more.
fn serve(host: &Arc<OwnedFd>, before_run: Hook) -> Result<(), ProcessError> {
    let mut buffer = vec![0; MAX_PACKET];
    let (configure, in_flight) = match receive_with(host.as_fd(), &mut buffer) {
        Ok((FromHost::Configure(configure), in_flight)) => (configure, in_flight),
        Ok(_) => return Err(ProcessError::NotConfigured),
        Err(PacketError::Closed) => return Ok(()),
        Err(error) => return Err(ProcessError::FirstMessage(error)),
    };
    let in_flight = in_flight.into_iter().next().ok_or(ProcessError::NoTable)?;
    let in_flight = InFlightTable::map(in_flight).map_err(ProcessError::Table)?;
    let memory = configure.memory;
    let prepared = Engine::prepare(configure, in_flight)?;
    let mut profile = Profile::inference(prepared.folders());
    match memory {
        // A driver reserves as much as the device and the machine have together.
        _ if prepared.uses_devices() => profile = profile.with_devices(),
        Some(bytes) => {
            limit::memory(bytes).map_err(|source| ProcessError::MemoryLimit { bytes, source })?
        }
        None => {}
    }
    let confinement = confine(&profile);
    let told = Arc::clone(host);
    let loaded = move |model| {
        if let Err(error) = send(told.as_fd(), &ToHost::Loaded(model)) {
            tracing::debug!(%error, "cannot tell the host what was loaded");
        }
    };
    let engine = prepared.start(loaded, before_run)?;
    let (version, models) = (engine.version().to_owned(), engine.loaded());
    report(host, &ToHost::Ready { version, confinement, models })?;
    loop {
        match receive_with(host.as_fd(), &mut buffer) {
            Ok((FromHost::Attach(session), descriptors)) => attach(&engine, session, descriptors),
            Ok((FromHost::Catalog { version, models }, _)) => {
                // Sessions of this catalog version will not be served; all others are.
                if let Err(error) = engine.offer(version, models) {
                    tracing::error!(version, %error, "models that cannot be offered");
                }
            }
            Ok((FromHost::Drain, _)) => {
                engine.drain();
                return report(host, &ToHost::Drained);
            }
            Ok((FromHost::Configure(_), _)) => return Err(ProcessError::ConfiguredTwice),
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(ProcessError::Message(error)),
        }
    }
}

/// Reports to the host. Where that has closed its end, the next message is the end.
fn report(host: &OwnedFd, message: &ToHost) -> Result<(), ProcessError> {
    match send(host.as_fd(), message) {
        Ok(()) | Err(PacketError::Closed) => Ok(()),
        Err(error) => Err(ProcessError::Report(error)),
    }
}

/// Takes on a session. One that cannot be taken on must not cost the others theirs.
fn attach(engine: &Engine, attach: Attach, descriptors: Vec<OwnedFd>) {
    let session = attach.session.clone();
    let mut descriptors = descriptors.into_iter();
    let (Some(socket), Some(memory), None) =
        (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        tracing::error!(session, "the host sent a session without its two descriptors");
        return;
    };
    match engine.attach(attach, socket, memory) {
        Ok(()) => tracing::debug!(session, "serving a session"),
        Err(error) => tracing::warn!(session, %error, "cannot serve a session"),
    }
}
