//! What tells one version of this component from another: a text in its data that a test writes
//! into the finished file, so that every version has a digest of its own and none has to be built.

use serde::Deserialize;

/// What the text begins with. Stands nowhere else in the file.
const MARK: &[u8; 20] = b"CHANGELING-MANIFEST ";

/// Room for the JSON behind the mark; what it does not fill is blank.
const ROOM: usize = 256;

const DEFAULT: &[u8] = br#"{"version":"1.0.0"}"#;

static MANIFEST: [u8; MARK.len() + ROOM] = text();

const fn text() -> [u8; MARK.len() + ROOM] {
    let mut text = [b' '; MARK.len() + ROOM];
    let mut rest: &mut [u8] = &mut text;
    let mut from: &[u8] = MARK;
    let mut marked = false;
    while let ([to, others @ ..], [byte, more @ ..]) = (rest, from) {
        *to = *byte;
        (rest, from) = (others, more);
        if from.is_empty() && !marked {
            (from, marked) = (DEFAULT, true);
        }
    }
    text
}

/// A version of the component.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// What it calls its version.
    pub(crate) version: String,
    /// What is wrong with it.
    pub(crate) fault: Option<Fault>,
    /// A model that it says it needs, and loads.
    pub(crate) model: Option<String>,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// Where.
    pub(crate) at: FaultSite,
    /// What.
    pub(crate) does: FaultKind,
    /// For [`FaultKind::Slow`]: how long, in milliseconds.
    #[serde(default)]
    pub(crate) ms: u64,
    /// For [`FaultSite::Frame`]: on the first frame that lies this many seconds of the stream
    /// behind the instance's first.
    #[serde(default)]
    pub(crate) after_s: f64,
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultSite {
    Describe,
    Init,
    /// Once, on a frame of an instance: see [`Fault::after_s`].
    Frame,
    /// On the first frame of an instance that has taken over state: not in a rehearsal.
    RestoredFrame,
    Snapshot,
    Restore,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    Trap,
    /// Uses the processor and never returns.
    Hang,
    /// Returns an error where the call has one.
    Refuse,
    /// Takes its time.
    Slow,
}

impl Manifest {
    /// As it stands in the file. What is written there wrongly traps: the test is at fault.
    pub(crate) fn read() -> Self {
        // The compiler must not know what will stand there.
        let text = std::hint::black_box(&MANIFEST);
        let json = text.get(MARK.len()..).unwrap_or_default();
        match serde_json::from_slice(json) {
            Ok(manifest) => manifest,
            Err(error) => {
                ocelli_sdk::log::warn("manifest", &error.to_string());
                std::process::abort()
            }
        }
    }

    /// Does what is wrong here, if anything is.
    ///
    /// # Errors
    /// A refusal.
    pub(crate) fn meet(&self, place: FaultSite) -> Result<(), String> {
        match self.fault {
            Some(fault) if fault.at == place => fault.happen(),
            _ => Ok(()),
        }
    }
}

impl Fault {
    fn happen(self) -> Result<(), String> {
        match self.does {
            FaultKind::Trap => std::process::abort(),
            FaultKind::Hang => run_for_ever(),
            FaultKind::Refuse => return Err(format!("this version refuses at {:?}", self.at)),
            FaultKind::Slow => nap(self.ms),
        }
        Ok(())
    }
}

fn run_for_ever() {
    let mut number = 1u64;
    while !std::hint::black_box(number == 0) {
        number = number.wrapping_add(2);
    }
}

/// Sleeps a little at a time: a single call to the host may not be long.
fn nap(ms: u64) {
    /// Milliseconds.
    const NAP: u64 = 20;
    let mut left = ms;
    while left > 0 {
        let now = left.min(NAP);
        std::thread::sleep(std::time::Duration::from_millis(now));
        left -= now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_default_until_another_is_written_into_it() {
        let manifest = Manifest::read();
        assert_eq!(manifest.version, "1.0.0");
        assert!(manifest.fault.is_none() && manifest.model.is_none());
        assert!(MANIFEST.starts_with(MARK) && MANIFEST.ends_with(b"  "));
    }
}
