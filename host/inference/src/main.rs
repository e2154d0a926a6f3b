//! The inference process. Started by the host, which passes one socket and says all else over it.
//!
//! `ocelli-inference --inspect FILE --library PATH [SHA256]` tells what a model file has instead, as JSON.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use ocelli_inference::{Engine, inspect};
use ocelli_protocol::inference::{FromHost, MAX_PACKET, PacketError, ToHost, receive_with, send};
use ocelli_protocol::process;
use ocelli_sandbox::{Profile, confine};
use tracing_subscriber::EnvFilter;

/// ONNX Runtime's own lines are for its developers, apart from errors and what concerns execution providers.
const LOG_FILTER: &str = "info,ort=error,ort::ep=warn";

#[allow(unsafe_code)]
fn main() -> ExitCode {
    // SAFETY: the process has opened nothing yet, and the host passes no more than this.
    let entered = unsafe { ocelli_sandbox::enter(process::inference::HOST) };
    // SAFETY: no other thread runs yet, and nothing has read the environment.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(LOG_FILTER))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // A thread that is gone would leave its requests unanswered; the host replaces a process that is gone.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        std::process::abort();
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
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
    // SAFETY: this is the start of the process, and nothing has opened a descriptor that stays open.
    let host = unsafe { process::inherited(process::inference::HOST) };
    if rustix::io::fcntl_getfd(&host).is_err() {
        std::mem::forget(host);
        tracing::error!("this program is started by `ocelli serve`, not by hand");
        return ExitCode::FAILURE;
    }
    match serve(&host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            if let Err(error) = send(host.as_fd(), &ToHost::Failed { message }) {
                tracing::debug!(%error, "cannot tell the host");
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints what a model file has, or why it cannot be told.
fn print_inspection(file: &str, library: &str, sha256: Option<&str>) -> ExitCode {
    let inspected = inspect(Path::new(file), Path::new(library), sha256);
    let inspected = inspected.map_err(|error| error.to_string());
    let text = inspected.and_then(|inspected| serde_json::to_string(&inspected).map_err(|e| e.to_string()));
    let written = text.and_then(|text| writeln!(std::io::stdout(), "{text}").map_err(|e| e.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{file}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the host closes its end.
fn serve(host: &OwnedFd) -> Result<(), String> {
    let mut buffer = vec![0; MAX_PACKET];
    let configure = match receive_with(host.as_fd(), &mut buffer) {
        Ok((FromHost::Configure(configure), _)) => configure,
        Ok(_) => return Err("the host did not send `Configure` first".to_owned()),
        Err(PacketError::Closed) => return Ok(()),
        Err(error) => return Err(format!("the host's first message: {error}")),
    };
    let prepared = Engine::prepare(configure).map_err(|error| error.to_string())?;
    let mut profile = Profile::inference(prepared.folders());
    if prepared.uses_devices() {
        profile = profile.with_devices();
    }
    let confinement = confine(&profile);
    let engine = prepared.start().map_err(|error| error.to_string())?;
    let ready = ToHost::Ready { version: engine.version().to_owned(), confinement, models: Vec::new() };
    match send(host.as_fd(), &ready) {
        Ok(()) => {}
        Err(PacketError::Closed) => return Ok(()),
        Err(error) => return Err(format!("cannot report to the host: {error}")),
    }
    loop {
        match receive_with(host.as_fd(), &mut buffer) {
            Ok((FromHost::Attach(session), descriptors)) => attach(&engine, session.session, descriptors),
            Ok((FromHost::Configure(_), _)) => {
                return Err("the host configured this process twice".to_owned());
            }
            Ok((FromHost::Offer { .. } | FromHost::Drain, _)) => {}
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(format!("a message of the host: {error}")),
        }
    }
}

/// Takes on a session. One that cannot be taken on must not cost the others theirs.
fn attach(engine: &Engine, session: String, descriptors: Vec<OwnedFd>) {
    let mut descriptors = descriptors.into_iter();
    let (Some(socket), Some(memory), None) = (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        tracing::error!(session, "the host sent a session without its two descriptors");
        return;
    };
    match engine.attach(session.clone(), socket, memory) {
        Ok(()) => tracing::debug!(session, "serving a session"),
        Err(error) => tracing::warn!(session, %error, "cannot serve a session"),
    }
}
