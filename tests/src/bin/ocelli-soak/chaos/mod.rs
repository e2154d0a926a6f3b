//! `./x soak --chaos`: faults at random, beside twelve cameras, for an hour. A seed chooses them,
//! so that what goes wrong can be run again.
//!
//! A round begins one to three faults at once, holds them for some seconds, ends them, and waits
//! until every session is running and has given a new result. What has to be true in the end is in
//! [`verdict`]: no event lost, no process left, nothing grown, no alert raised.
//!
//! The data directory is a file system of its own, which a fault fills to the last byte, so the
//! soak runs in a mount namespace of its own and needs root.

mod fault;
mod site;
mod verdict;
mod witness;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ocelli_testkit::Random;
use tokio::time::{Instant, sleep};

use crate::chaos::fault::Fault;
use crate::chaos::site::Site;
use crate::{REST, Table, at_rest};

/// Set for the process that has a mount namespace of its own.
const CONFINED: &str = "OCELLI_SOAK_CONFINED";

/// Seconds for which the faults of a round last together, from and to: from less than a worker's
/// watchdog waits for to more than an alert does.
const HOLD_S: std::ops::Range<u64> = 2..25;

/// Faults at the same time.
const TOGETHER: std::ops::RangeInclusive<usize> = 1..=3;

/// Runs this program again in a mount namespace of its own. Returns only if that fails, or if this
/// is that process.
pub(crate) fn confine() {
    if std::env::var_os(CONFINED).is_some() {
        return;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(CONFINED, "1")
        .exec();
    panic!("unshare (of util-linux) does not start: {error}");
}

/// Runs rounds for so long, and judges.
pub(crate) async fn run(seed: u64, duration: Duration) -> ExitCode {
    println!("seed {seed}: `./x soak --chaos --seed {seed}` chooses the same faults");
    let mut random = Random::with_seed(seed);
    let mut site = Site::start().await;
    site.recover().await;
    // The figures to compare with are those of a host that has seen every kind of fault once.
    for fault in Fault::one_of_each(&mut random) {
        round(&mut site, vec![fault], Duration::from_secs(HOLD_S.start)).await;
    }
    sleep(REST).await;
    let table = Table { begun: Instant::now() };
    table.heading();
    let before = table.row("warm", site.host());
    let mut rounds = 0;
    while table.begun.elapsed() < duration {
        rounds += 1;
        let faults = Fault::some(&mut random, TOGETHER);
        let hold = Duration::from_secs(random.u64(HOLD_S));
        let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
        println!("{rounds:>8}: {} for {} s", names.join(", "), hold.as_secs());
        round(&mut site, faults, hold).await;
        table.row(&format!("{rounds} rounds"), site.host());
    }
    let mut wrong = verdict::of(&mut site).await;
    wrong.extend(
        at_rest(site.host(), &before).await.into_iter().map(|grown| format!("grown: {grown}")),
    );
    table.row("in the end", site.host());
    println!("{rounds} rounds; {}", site.summary());
    wrong.extend(verdict::of_end(site).await);
    for what in &wrong {
        println!("WRONG  {what}");
    }
    println!("{}", if wrong.is_empty() { "nothing is wrong" } else { "see above" });
    ExitCode::from(u8::from(!wrong.is_empty()))
}

/// Begins faults, holds them, ends them, and waits for recovery.
async fn round(site: &mut Site, faults: Vec<Fault>, hold: Duration) {
    for fault in &faults {
        fault.begin(site).await;
    }
    sleep(hold).await;
    for fault in &faults {
        fault.end(site).await;
    }
    site.recover().await;
}
