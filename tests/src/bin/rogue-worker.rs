//! A worker that breaks every rule: what its host is tested against. It takes the place of
//! `ocelli-worker`.
//!
//! The session's name, `RULE-NUMBER`, says which rule it breaks. The number and the count of the
//! session's workers so far are the seed of all chance, so that a run can be had again; the count
//! is kept in a file beside the program. One name, `honest`, becomes the real worker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a rogue that fails is a rogue all the same"
)]

use std::fs::OpenOptions;
use std::io::{Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::Duration;

use fastrand::Rng;
use ocelli_protocol::confinement::{Confinement, Measure, MissingMeasure};
use ocelli_protocol::limit::MAX_DESCRIPTION;
use ocelli_protocol::process::{die_with_parent, inherited, worker};
use ocelli_protocol::wire::{self, MAX_MESSAGE, MAX_PAYLOAD};
use ocelli_protocol::worker::{
    Attribute, CaptureClock, Counters, Description, Detection, Event, FrameResult, FromWorker,
    LogLevel, Rect, StoreChange, Timestamps, WorkerStage,
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// What fits into a message beside a text or a list: names, numbers, lengths.
const ROOM: usize = 1 << 10;

/// Bytes and threads that a rogue takes: more than the test's config allows.
const HOARD: usize = 512 << 20;
const CROWD: usize = 500;

/// Access units that one says it has taken in: more than it is ever sent.
const PROGRESS: u64 = 1 << 40;

fn main() {
    let _ = die_with_parent();
    let session = std::env::args().nth(1).unwrap();
    let (rule, number) = session.rsplit_once('-').unwrap();
    // What is no session is a question to the program, about what the kernel can do.
    if rule == "honest" || session.starts_with("--") {
        let mut honest = Command::new(beside("ocelli-worker-honest"));
        panic!("{}", honest.arg0("ocelli-worker").args(std::env::args_os().skip(1)).exec());
    }
    let seed = number.parse::<u64>().unwrap() << 32 | life(&session);
    // SAFETY: the host passes this descriptor, and nothing in this program has taken it.
    #[allow(unsafe_code)]
    let host = unsafe { inherited(worker::HOST) };
    let mut rogue = Rogue { host: host.into(), random: Rng::with_seed(seed), seed };
    // The host hangs up on a rogue, sooner or later.
    let _ = rogue.breaks(rule);
    exit(0);
}

/// A file beside this program.
fn beside(name: &str) -> std::path::PathBuf {
    std::env::current_exe().unwrap().with_file_name(name)
}

/// Workers that the session has had before this one.
fn life(session: &str) -> u64 {
    let mut lives = OpenOptions::new().append(true).create(true).open(beside(session)).unwrap();
    let before = lives.metadata().unwrap().len();
    lives.write_all(b".").unwrap();
    before
}

struct Rogue {
    host: UnixStream,
    random: Rng,
    seed: u64,
}

impl Rogue {
    /// Breaks a rule for as long as the host bears it.
    fn breaks(&mut self, rule: &str) -> Result<()> {
        match rule {
            "noise" => self.noise(),
            "lengths" => self.lengths(),
            "order" => self.order(),
            "finished" => self.finished(),
            "absurd" => self.absurd(),
            "stored" => self.stored(),
            "again" => self.again(),
            "heavy" => self.heavy(),
            "deaf" => self.deaf(),
            "mute" => self.mute(),
            "stiff" => hang(),
            "pulse" => self.pulse(),
            "closing" => self.closing(),
            "leaving" => Ok(()),
            "answers" => self.answers(),
            "flood" => self.flood(),
            "stderr" => self.stderr(),
            "hoard" => self.hoard(),
            "crowd" => self.crowd(),
            _ => panic!("there is no rule {rule:?}"),
        }
    }

    /// Random bytes; every other time behind a good beginning.
    fn noise(&mut self) -> Result<()> {
        if self.random.bool() {
            self.greet()?;
        }
        loop {
            let mut bytes = vec![0; self.random.usize(1..ROOM)];
            self.random.fill(&mut bytes);
            self.host.write_all(&bytes)?;
        }
    }

    /// Headers that announce too much, nothing, or what never comes.
    fn lengths(&mut self) -> Result<()> {
        let (message, payload) = match self.seed % 5 {
            0 => (u32::MAX, u32::MAX),
            1 => (MAX_MESSAGE as u32 + 1, 0),
            2 => (0, MAX_PAYLOAD as u32 + 1),
            3 => (0, 0),
            _ => (MAX_MESSAGE as u32, MAX_PAYLOAD as u32),
        };
        self.host.write_all(&message.to_le_bytes())?;
        self.host.write_all(&payload.to_le_bytes())?;
        loop {
            // A byte now and then is no sign of life: messages are.
            self.host.write_all(&[0])?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Good messages, shuffled.
    fn order(&mut self) -> Result<()> {
        let counters = Counters::default();
        let mut messages = [
            confined(),
            described(),
            FromWorker::Ready,
            FromWorker::Ready,
            FromWorker::Snapshot { last_frame: None, counters: Counters::default() },
            FromWorker::Restored(Ok(())),
            FromWorker::Finished { counters, damage: None },
            FromWorker::Result { result: empty(), counters },
            FromWorker::FrameFailed { frame: 7, message: "seven".into(), counters },
            FromWorker::Heartbeat { counters, guest_memory: 0, damage: None },
            FromWorker::Failed {
                stage: WorkerStage::Setup,
                limit: None,
                counters,
                message: "or so".into(),
            },
        ];
        self.random.shuffle(&mut messages);
        messages.iter().try_for_each(|message| self.say(message))?;
        hang()
    }

    /// Says that it is at the end of what has none.
    fn finished(&mut self) -> Result<()> {
        self.greet()?;
        self.say(&FromWorker::Finished { counters: Counters::default(), damage: None })?;
        hang()
    }

    /// Changes of the store without a call, as large as a message: of bytes, or of nothings.
    fn stored(&mut self) -> Result<()> {
        match self.seed % 3 {
            0 => {
                self.say(&confined())?;
                self.say(&described())?;
            }
            1 => self.greet()?,
            _ => {}
        }
        let value = Some(vec![7; MAX_MESSAGE - ROOM]);
        let change = StoreChange { bucket: String::new(), key: String::new(), value };
        let changes = if self.random.bool() {
            vec![change]
        } else {
            vec![StoreChange { value: None, ..change }; (MAX_MESSAGE - ROOM) / 3]
        };
        let message = wire::encode(&FromWorker::StoreCommit(changes), 0).unwrap();
        loop {
            self.host.write_all(&message)?;
        }
    }

    /// One message of the opening again and again, as large as it may be.
    fn again(&mut self) -> Result<()> {
        let reason = "r".repeat(ROOM);
        let missing = MissingMeasure { measure: Measure::Files, reason };
        let report = Confinement {
            enforced: Measure::ALL.to_vec(),
            missing: vec![missing; Measure::ALL.len()],
        };
        let settings_schema = " ".repeat(MAX_DESCRIPTION - ROOM);
        let FromWorker::Described(description) = described() else { unreachable!() };
        let description = Description { settings_schema, ..description };
        let message = match self.seed % 3 {
            0 => FromWorker::SandboxReport(report),
            1 => {
                self.say(&confined())?;
                FromWorker::Described(description)
            }
            _ => {
                self.greet()?;
                FromWorker::Ready
            }
        };
        loop {
            self.say(&message)?;
        }
    }

    /// Results that no camera can have.
    fn absurd(&mut self) -> Result<()> {
        self.greet()?;
        let result = match self.seed % 7 {
            0 => self.not_numbers(),
            // As many as a message holds.
            1 => FrameResult { detections: Some(vec![thing(""); MAX_MESSAGE / 32]), ..empty() },
            2 => FrameResult { detections: Some(vec![thing(&long_text())]), ..empty() },
            3 => FrameResult { events: vec![event("", ""); MAX_MESSAGE / 5], ..empty() },
            4 => FrameResult { events: vec![event(&long_text(), "{}")], ..empty() },
            5 => FrameResult { detections: Some(vec![many_sided()]), ..empty() },
            _ => FrameResult {
                events: vec![event("nested", &"[".repeat(MAX_MESSAGE - ROOM))],
                ..empty()
            },
        };
        for frame in 0..20 {
            let counters = Counters { received: u64::MAX - frame, ..Counters::default() };
            self.say(&FromWorker::Result { result: result.clone(), counters })?;
        }
        Ok(())
    }

    fn not_numbers(&mut self) -> FrameResult {
        let number =
            self.random.choice([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX]).unwrap();
        let area = Rect { x: number, y: -number, width: number, height: 0.0 };
        let detection =
            Detection { score: number, area, embedding: Some(vec![number; 512]), ..thing("x") };
        FrameResult {
            frame: u64::MAX,
            presentation_ns: 0,
            capture_ns: u64::MAX,
            capture_clock: CaptureClock::Host,
            width: 0,
            height: u32::MAX,
            detections: Some(vec![detection]),
            events: vec![event("", "no JSON")],
            basis: None,
            // The last before the first.
            timestamps: Timestamps { received: u64::MAX, emitted: 0, ..Timestamps::default() },
        }
    }

    /// Payloads where none belongs.
    fn heavy(&mut self) -> Result<()> {
        self.greet()?;
        let message = FromWorker::Result { result: empty(), counters: Counters::default() };
        let payload = vec![7; MAX_PAYLOAD];
        for _ in 0..20 {
            wire::write(&mut self.host, &message, &payload).map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    /// Takes no frame in, and says that it is well.
    fn deaf(&mut self) -> Result<()> {
        self.greet()?;
        self.heartbeats()
    }

    /// Says nothing more when it is ready.
    fn mute(&mut self) -> Result<()> {
        self.greet()?;
        std::io::copy(&mut self.host, &mut std::io::sink())?;
        hang()
    }

    /// Reads everything, does nothing with it, and says that it is well.
    fn pulse(&mut self) -> Result<()> {
        self.greet()?;
        let mut frames = self.host.try_clone()?;
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while frames.read(&mut bytes).is_ok_and(|read| read > 0) {}
        });
        self.heartbeats()
    }

    fn heartbeats(&mut self) -> Result<()> {
        loop {
            self.heartbeat(0)?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Says that it is well: its host is to find what it takes.
    fn busy(&mut self) -> Result<()> {
        loop {
            self.heartbeat(PROGRESS)?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn heartbeat(&mut self, received: u64) -> Result<()> {
        self.say(&FromWorker::Heartbeat {
            counters: Counters { received, ..Counters::default() },
            guest_memory: u64::MAX,
            damage: None,
        })
    }

    /// Hangs up and stays; every other time in the middle of a message.
    fn closing(&mut self) -> Result<()> {
        if self.random.bool() {
            self.host.write_all(&[ROOM as u8])?;
        }
        self.host.shutdown(std::net::Shutdown::Both)?;
        hang()
    }

    /// Answers questions that nobody has asked.
    fn answers(&mut self) -> Result<()> {
        self.greet()?;
        let id = self.random.u64(..);
        self.say(&FromWorker::Answer { id, answer: Ok("{}".into()) })?;
        hang()
    }

    /// Short lines, long lines, or heartbeats, as fast as they go.
    fn flood(&mut self) -> Result<()> {
        self.greet()?;
        let line = |message| FromWorker::Log {
            level: LogLevel::Error,
            context: "flood".into(),
            message,
            frame: None,
        };
        let message = match self.seed % 3 {
            0 => line("short".into()),
            1 => line(long_text()),
            _ => FromWorker::Heartbeat {
                counters: Counters::default(),
                guest_memory: 0,
                damage: None,
            },
        };
        let message = wire::encode(&message, 0).unwrap();
        loop {
            self.host.write_all(&message)?;
        }
    }

    /// Megabytes of standard error, all in one line every other time, and an exit status.
    fn stderr(&mut self) -> Result<()> {
        let text = if self.random.bool() { "rogue\n" } else { "rogue " }.repeat(ROOM);
        for _ in 0..1 << 11 {
            std::io::stderr().write_all(text.as_bytes())?;
        }
        exit(3)
    }

    /// Shared memory, of which a process's own limit knows nothing, in steps, for as long as it gets
    /// some.
    #[allow(unsafe_code)]
    fn hoard(&mut self) -> Result<()> {
        const STEP: usize = 16 << 20;
        self.greet()?;
        for _ in 0..HOARD / STEP {
            let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            // SAFETY: a new mapping, which stays, at an address of the kernel's choice.
            let memory = unsafe {
                let memory = mmap_anonymous(std::ptr::null_mut(), STEP, protection, flags)?;
                std::slice::from_raw_parts_mut(memory.cast::<u8>(), STEP)
            };
            memory.fill(1);
            // On a busy machine all of it takes longer than a health check waits.
            self.heartbeat(PROGRESS)?;
        }
        self.busy()
    }

    /// Hundreds of threads.
    fn crowd(&mut self) -> Result<()> {
        self.greet()?;
        for _ in 0..CROWD {
            std::thread::Builder::new().stack_size(1 << 16).spawn(std::thread::park)?;
        }
        self.busy()
    }

    fn say(&mut self, message: &FromWorker) -> Result<()> {
        wire::write(&mut self.host, message, &[]).map_err(std::io::Error::other)
    }

    /// What a good worker says before its first frame.
    fn greet(&mut self) -> Result<()> {
        self.say(&confined())?;
        self.say(&described())?;
        self.say(&FromWorker::Ready)
    }
}

/// Lives on, whatever the host does.
fn hang() -> Result<()> {
    loop {
        std::thread::park();
    }
}

fn confined() -> FromWorker {
    FromWorker::SandboxReport(Confinement { enforced: Measure::ALL.to_vec(), missing: Vec::new() })
}

fn described() -> FromWorker {
    FromWorker::Described(Description {
        name: "rogue".into(),
        version: "0.0.0".into(),
        models: Vec::new(),
        settings_schema: "{}".into(),
    })
}

fn empty() -> FrameResult {
    FrameResult {
        frame: 0,
        presentation_ns: 0,
        capture_ns: 0,
        capture_clock: CaptureClock::Host,
        width: 768,
        height: 576,
        detections: None,
        events: Vec::new(),
        basis: None,
        timestamps: Timestamps::default(),
    }
}

fn thing(label: &str) -> Detection {
    Detection {
        label: label.into(),
        score: 0.5,
        area: Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 },
        track: None,
        attributes: Vec::new(),
        embedding: None,
    }
}

/// With as many attributes as a message holds, each of another name.
fn many_sided() -> Detection {
    let attribute =
        |number| Attribute { name: format!("{number:x}"), value: String::new(), score: 0.5 };
    Detection { attributes: (0..MAX_MESSAGE / 16).map(attribute).collect(), ..thing("") }
}

fn event(kind: &str, data: &str) -> Event {
    Event { kind: kind.into(), detections: Vec::new(), data: data.into(), attachments: Vec::new() }
}

/// As long as a message allows.
fn long_text() -> String {
    "long".repeat((MAX_MESSAGE - ROOM) / 4)
}
