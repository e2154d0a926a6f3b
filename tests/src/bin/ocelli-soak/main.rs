//! `./x soak`: what a host holds of the machine does not grow, however often cameras drop out,
//! sessions come and go, workers die, and pipelines change. Prints a table of figures, and fails
//! where one has grown beyond its allowance.
//!
//! Ten RTSP cameras, each behind a relay, lose their connection 500 times in all. Subscribers make
//! 300 sessions and leave them: by unsubscribing, by closing the socket, by vanishing. 100 workers
//! are killed, the RTSP server is gone for a minute, and a pipeline changes 1,000 times
//! (`ocelli-soak --swaps`: that part alone). After each step the soak waits for recovery.
//!
//! Allowed growth: 8 MiB of the host and 16 MiB of the inference process (arenas of the allocator
//! and of ONNX Runtime; a leak of one access unit for each reconnect would be ten times as much),
//! two threads (the runtime keeps idle ones for ten seconds), else none.
//!
//! `./x soak --chaos` is another run, of an hour: see [`chaos`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the soak, with the end of the host's log"
)]

mod chaos;
mod figures;
mod strain;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ocelli_testkit::Ocelli;
use tokio::time::{Instant, sleep};

use crate::figures::Figures;
use crate::strain::Strain;

/// Rows of the table for each part.
const STEPS: usize = 5;

/// Before the first figures are taken: longer than the ten seconds for which the runtime keeps an
/// idle thread.
const REST: Duration = Duration::from_secs(15);

/// How long the last figures may take to come to rest.
const LAST_REST: Duration = Duration::from_secs(60);

/// Strains one host with cameras that drop out, sessions that come and go, workers that are killed,
/// and pipelines that change, and compares what it holds in the end with what it held after a
/// warm-up.
#[derive(Parser)]
#[command(name = "ocelli-soak", version)]
struct Arguments {
    /// A tenth of everything
    #[arg(long)]
    quick: bool,
    /// Change pipelines alone
    #[arg(long)]
    swaps: bool,
    /// Faults at random beside twelve cameras, for an hour
    #[arg(long, conflicts_with = "swaps")]
    chaos: bool,
    /// Chooses the faults of the chaos; by default another one each time
    #[arg(long, requires = "chaos")]
    seed: Option<u64>,
}

/// How long the chaos lasts.
const CHAOS: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.chaos {
        // Before the runtime has threads.
        chaos::confine();
    }
    run(arguments)
}

// The host and the cameras end with the thread that starts them: this one.
#[tokio::main]
async fn run(Arguments { quick, swaps, chaos, seed }: Arguments) -> ExitCode {
    let share = if quick { 10 } else { 1 };
    if chaos {
        let seed = seed.unwrap_or_else(|| ocelli_testkit::Random::new().u64(..1_000_000));
        return chaos::run(seed, CHAOS / share as u32).await;
    }
    let table = Table { begun: Instant::now() };
    let mut strain = Strain::start().await;
    table.heading();
    table.row("started", strain.host());
    // Everything once: what is made at its first use is there from now on.
    if !swaps {
        strain.reconnect(20).await;
        strain.sessions(12).await;
        strain.kill(20).await;
        strain.outage(Duration::from_secs(2)).await;
    }
    strain.swap(40).await;
    sleep(REST).await;
    let before = table.row("warm", strain.host());
    for step in 1..=STEPS {
        strain.swap(1000 / share / STEPS).await;
        table.row(&format!("{} swaps", 1000 / share / STEPS * step), strain.host());
    }
    if !swaps {
        drop_out(&mut strain, &table, share).await;
    }
    strain.all_give_results().await;
    let grown = at_rest(strain.host(), &before).await;
    table.row("in the end", strain.host());
    for what in &grown {
        println!("GROWN  {what}");
    }
    println!(
        "{}",
        if grown.is_empty() { "nothing has grown" } else { "the host holds more than before" }
    );
    ExitCode::from(u8::from(!grown.is_empty()))
}

/// Cameras, sessions, workers and the server go and come back.
async fn drop_out(strain: &mut Strain, table: &Table, share: usize) {
    for step in 1..=STEPS {
        strain.reconnect(500 / share / STEPS).await;
        table.row(&format!("{} reconnects", 500 / share / STEPS * step), strain.host());
    }
    for step in 1..=STEPS {
        strain.sessions(300 / share / STEPS).await;
        table.row(&format!("{} sessions", 300 / share / STEPS * step), strain.host());
    }
    for step in 1..=STEPS {
        strain.kill(100 / share / STEPS).await;
        table.row(&format!("{} kills", 100 / share / STEPS * step), strain.host());
    }
    let outage = Duration::from_secs(60 / share as u64);
    strain.outage(outage).await;
    table.row(&format!("server gone {} s", outage.as_secs()), strain.host());
}

/// Looks until nothing has grown, or for as long as things may take to come to rest.
async fn at_rest(host: &Ocelli, before: &Figures) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let grown = Figures::of(host).grown_since(before);
        if grown.is_empty() || begun.elapsed() > LAST_REST {
            return grown;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

struct Table {
    begun: Instant,
}

impl Table {
    fn heading(&self) {
        println!("{:>6}  {:<18}{}", "s", "after", Figures::heading());
    }

    fn row(&self, after: &str, host: &Ocelli) -> Figures {
        let figures = Figures::of(host);
        println!("{:>6.0}  {after:<18}{figures}", self.begun.elapsed().as_secs_f64());
        figures
    }
}
