//! What runs came to: a line of JSON for each, and a table for all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checker::{self, Breach, BreachKind};
use crate::figures::{Figures, middle_and_most};
use crate::history::{History, Host};
use crate::scenario::Scenario;

/// Breaches that are shown of each run.
const SHOWN: usize = 10;

/// A run that was carried out.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
    pub(crate) breaches: Vec<Breach>,
    /// Breaches of a host that was made to commit them.
    pub(crate) provoked: Vec<Breach>,
    /// Why the run was not carried out to its end: mostly, that the site did not settle.
    pub(crate) error: Option<String>,
    pub(crate) events: usize,
    pub(crate) acked: usize,
    pub(crate) followed: usize,
    pub(crate) live: usize,
    pub(crate) stale: usize,
    pub(crate) refused: usize,
}

impl Outcome {
    pub(crate) fn new(
        (scenario, seed): (Scenario, u64),
        figures: Figures,
        breaches: Vec<Breach>,
        history: &History,
        refused: usize,
    ) -> Self {
        Self {
            scenario,
            seed,
            figures,
            breaches,
            provoked: Vec::new(),
            error: None,
            events: history.stored.len(),
            acked: history.acked.len(),
            followed: history.followed.len(),
            live: history.heard.len(),
            stale: checker::stale(&history.heard),
            refused,
        }
    }

    /// Sets the voices of hosts apart that were made to disobey.
    pub(crate) fn provoked_by(&mut self, disobeys: impl Fn(Host) -> bool) {
        let provoked = |breach: &Breach| {
            breach.kind() == BreachKind::Voice && breach.host().is_some_and(&disobeys)
        };
        (self.provoked, self.breaches) =
            std::mem::take(&mut self.breaches).into_iter().partition(provoked);
    }

    /// Whether the site did what it is to do.
    pub(crate) fn passes(&self) -> bool {
        let caught = !self.provoked.is_empty() && self.refused > 0;
        let whole = self.error.is_none() && self.breaches.is_empty();
        whole && (self.scenario != Scenario::Disobey || caught)
    }

    pub(crate) fn count(&self, kind: BreachKind) -> usize {
        self.breaches.iter().filter(|breach| breach.kind() == kind).count()
    }

    /// The line.
    pub(crate) fn json(&self) -> Value {
        let Figures { speaks, first_event, planned, others, late } = &self.figures;
        let shown = self.breaches.iter().take(SHOWN).map(ToString::to_string);
        json!({
            "scenario": self.scenario.name(),
            "seed": self.seed,
            "passes": self.passes(),
            "error": self.error,
            "moved": speaks.len(),
            "speaks_ms": milliseconds(speaks),
            "first_event_ms": milliseconds(first_event),
            "other_moves": planned.len(),
            "other_moves_ms": milliseconds(planned),
            "stayed": others.len(),
            "others_silent_ms": milliseconds(others),
            "others_event_ms": milliseconds(late),
            "events": self.events,
            "acked": self.acked,
            "followed": self.followed,
            "live": self.live,
            "stale": self.stale,
            "refused": self.refused,
            "broken_chains": self.count(BreachKind::Chain),
            "lost": self.count(BreachKind::Lost),
            "two_voices": self.count(BreachKind::Voice),
            "follower": self.count(BreachKind::Follower),
            "provoked_voices": self.provoked.len(),
            "breaches": shown.collect::<Vec<_>>(),
        })
    }
}

/// The middle one and the greatest; null of none.
fn milliseconds(durations: &[Duration]) -> Value {
    middle_and_most(durations)
        .map_or(Value::Null, |(middle, most)| json!({ "p50": whole(middle), "max": whole(most) }))
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The table of all runs, a row for each scenario, in Markdown.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut scenarios = BTreeMap::<Scenario, Vec<&Outcome>>::new();
    for outcome in outcomes {
        scenarios.entry(outcome.scenario).or_default().push(outcome);
    }
    let mut table = String::from(
        "| what happens | runs | cameras hit | heard again, p50 / max | first event, p50 / max | the \
         others silent, max | their events late, max | other moves: silent, max | broken, lost, two \
         voices |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (scenario, runs) in scenarios {
        let all = |of: fn(&Figures) -> &Vec<Duration>| -> Vec<Duration> {
            runs.iter().flat_map(|run| of(&run.figures)).copied().collect()
        };
        let sum = |kind| runs.iter().map(|run| run.count(kind)).sum::<usize>();
        let moved: Vec<usize> = runs.iter().map(|run| run.figures.speaks.len()).collect();
        // Writing to a text cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {}, {}, {} |",
            scenario.title(),
            runs.len(),
            range(&moved),
            both(&all(|figures| &figures.speaks)),
            both(&all(|figures| &figures.first_event)),
            most(&all(|figures| &figures.others)),
            most(&all(|figures| &figures.late)),
            most(&all(|figures| &figures.planned)),
            sum(BreachKind::Chain) + sum(BreachKind::Follower),
            sum(BreachKind::Lost),
            sum(BreachKind::Voice),
        );
    }
    table
}

fn range(counts: &[usize]) -> String {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least != most => format!("{least}-{most}"),
        (Some(one), _) => one.to_string(),
        _ => "-".to_owned(),
    }
}

fn both(durations: &[Duration]) -> String {
    middle_and_most(durations).map_or("-".to_owned(), |(middle, most)| {
        format!("{:.1} / {:.1} s", middle.as_secs_f64(), most.as_secs_f64())
    })
}

fn most(durations: &[Duration]) -> String {
    middle_and_most(durations)
        .map_or("-".to_owned(), |(_, most)| format!("{:.2} s", most.as_secs_f64()))
}
