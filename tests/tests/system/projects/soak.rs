//! What a pipeline costs on a live camera, minute after minute.

use std::time::{Duration, Instant};

use ocelli_testkit::Ocelli;

/// How many minutes where this variable does not say: five.
const MINUTES: &str = "OCELLI_SOAK_MINUTES";

/// Results between two looks at the memory: ten seconds of the cameras.
const LOOK: usize = 100;

/// Bytes at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemorySample {
    /// The component's linear memories.
    pub(super) linear: u64,
    /// What the worker has asked for itself, used or not.
    pub(super) private: u64,
    /// The worker's PSS.
    pub(super) proportional: u64,
}

/// What a soak has shown.
pub(super) struct Soak {
    minutes: u64,
    /// Milliseconds in the guest of each frame, the shortest first.
    guest_ms: Vec<f64>,
    /// In the order of time.
    samples: Vec<MemorySample>,
}

impl Soak {
    /// Follows a session whose pipeline runs no model. Fails where a frame fails, the worker is
    /// replaced, or a limit is met.
    pub(super) async fn of(host: &Ocelli, session: &str) -> Self {
        let minutes = std::env::var(MINUTES).map_or(5, |text| text.parse().unwrap());
        let before = host.session(session).await;
        let mut client = host.client().await;
        client.subscribe(session).await;
        let (mut guest_ms, mut samples) = (vec![], vec![]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(minutes * 60) {
            let result = client.detections(session).await;
            guest_ms.push(result["latency_ms"]["pipeline"].as_f64().unwrap());
            if guest_ms.len().is_multiple_of(LOOK) {
                samples.push(MemorySample::of(host, session).await);
            }
        }
        let after = host.session(session).await;
        for unchanged in ["deployment", "restarts", "pid", "last_error"] {
            assert_eq!(before[unchanged], after[unchanged], "{unchanged}: {after}");
        }
        let hits = "ocelli_session_limit_hits_total{";
        let metrics = host.get("/metrics").await;
        for line in metrics.lines().filter(|line| line.starts_with(hits)) {
            assert!(line.ends_with(" 0"), "{line}");
        }
        guest_ms.sort_by(f64::total_cmp);
        Self { minutes, guest_ms, samples }
    }

    /// A sample after a fifth of the time, when a pipeline has made what it keeps, and the last.
    pub(super) fn settled_and_last(&self) -> (MemorySample, MemorySample) {
        (self.samples[self.samples.len() / 5], *self.samples.last().unwrap())
    }

    /// The smallest time that as many in a hundred frames do not exceed, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        self.guest_ms[(self.guest_ms.len() * percent).div_ceil(100).max(1) - 1]
    }

    /// The figures for a person.
    pub(super) fn report(&self) -> String {
        let (settled, last) = self.settled_and_last();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let grown = |from: u64, to: u64| mb(to) - mb(from);
        format!(
            "{} minutes, {} frames: in the guest p50 {:.2} ms, p99 {:.2} ms; PSS {:.1} MB, \
             {:+.1} since a fifth of the time; linear memory {:.1} MB, {:+.1}",
            self.minutes,
            self.guest_ms.len(),
            self.percentile(50),
            self.percentile(99),
            mb(last.proportional),
            grown(settled.proportional, last.proportional),
            mb(last.linear),
            grown(settled.linear, last.linear),
        )
    }
}

impl MemorySample {
    async fn of(host: &Ocelli, session: &str) -> Self {
        let metrics = host.get("/metrics").await;
        let figure = |name: &str| {
            let start = format!("{name}{{session=\"{session}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
            value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().unwrap() as u64
        };
        Self {
            linear: figure("ocelli_session_guest_memory_bytes"),
            private: figure("ocelli_worker_private_memory_bytes"),
            proportional: figure("ocelli_worker_proportional_memory_bytes"),
        }
    }
}
