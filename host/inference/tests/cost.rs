//! What a request costs beside its run: figures, not a promise. `cargo test --release -p ocelli-inference --test cost --
//! --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/onnx.rs"]
mod onnx;
#[path = "support/started.rs"]
mod started;
mod support;

use std::time::Instant;

use started::*;
use support::*;

#[test]
#[ignore = "prints figures"]
fn a_request_beside_its_run() {
    const COUNT: usize = 20_000;
    let (small, _file) = small("small", "Neg");
    let started = start(configure(1, vec![small], &["small"]));
    let mut worker = started.session(|_| {});
    worker.write(0, &[1.0; 4]);
    let cpu = rustix::time::ClockId::ProcessCPUTime;
    let used = || {
        let time = rustix::time::clock_gettime(cpu);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let mut took = Vec::with_capacity(COUNT);
    let before = used();
    for id in 1..=COUNT as u64 {
        let begun = Instant::now();
        worker.run(&run_small(id, "small")).unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let cpu_each = (used() - before) / COUNT as f64;
    took.sort_by(f64::total_cmp);
    eprintln!(
        "round trip: least {:.1} us, p10 {:.1} us, p50 {:.1} us; CPU of both sides {cpu_each:.1} us",
        took[0],
        took[COUNT / 10],
        took[COUNT / 2]
    );
}
