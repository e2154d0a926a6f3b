//! Budget mode: when the model is to run, and what a run is worth.
//!
//! Where something moves it runs so many times a second as the settings say. What moves and is
//! none of the tracks is news: it need not wait for its turn if turns were left out. What the
//! model has looked at and did not know, a tree in the wind, gets fewer runs. In a picture in which
//! nothing moves nothing is expected, and a run now and then finds what moved unseen.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::track::{Footing, Sight};

/// Nanoseconds from run to run in a picture in which nothing moves.
const IDLE: u64 = 8_000_000_000;

/// Runs that are made up for at most, where turns were left out: an object is confirmed by a second
/// look soon after the first.
const CREDIT: f64 = 2.0;

/// Least time from run to run, in that of the settings' pace.
const LEAST_WAIT: f64 = 0.5;

/// The same where all that moves was there at the last run and is nothing that the model knows.
const KNOWN_WAIT: f64 = 3.0;

/// Nanoseconds by which a frame may come early: streams round their timestamps to a millisecond.
const SLACK: u64 = 1_000_000;

/// Nanoseconds from frame to frame, at least: where a source's time stands still the model runs all
/// the same.
const LEAST_STEP: u64 = 10_000_000;

/// Tracks cover what moves in and around their boxes: legs, shadows, what the change of pixels is
/// widened by.
const AROUND: f32 = 1.3;

/// The part of a region that is covered at least where it is none of its own.
const COVERED: f32 = 0.5;

/// What each thing adds to the doubt about the last results.
const FOLLOWED: f32 = 0.1;
const PREDICTED: f32 = 0.3;
const LOST: f32 = 0.2;
const NEWS: f32 = 0.4;
const KNOWN: f32 = 0.05;
const CHANGED: f32 = 0.3;

/// What the host is asked with in a picture that gives no doubt.
const LEAST_WANT: f32 = 0.05;

/// What is known of a frame before a model sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The tracks in sight.
    pub(crate) sights: &'a [Sight],
    /// Tracks out of sight, which a run may find again.
    pub(crate) lost: usize,
    /// Rectangles around what changes.
    pub(crate) moving: &'a [BBox],
    /// Most of the picture changes.
    pub(crate) calibrating: bool,
}

/// When the model ran, and where it saw nothing.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Runs a second.
    rate: f64,
    /// Runs that are due.
    credit: f64,
    /// Presentation time of the last frame, in nanoseconds.
    time: u64,
    /// The same of the last run.
    last_run: Option<u64>,
    /// Nanoseconds since then, with at least [`LEAST_STEP`] for each frame.
    since: u64,
    /// What moved then and was none of the tracks.
    known: Vec<BBox>,
}

impl Pace {
    /// At most `rate` runs a second.
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, credit: CREDIT, time: 0, last_run: None, since: 0, known: Vec::new() }
    }

    /// Forgets the last run: the next is due at once.
    pub(crate) fn begin(&mut self) {
        *self = Self { time: self.time, ..Self::new(self.rate) };
    }

    /// Presentation time since the last run, in nanoseconds; none before the first.
    pub(crate) fn age(&self, time: u64) -> Option<u64> {
        self.last_run.map(|run| time.saturating_sub(run))
    }

    /// How much a run at `time` is worth, above 0 and up to 1; none where none is due.
    pub(crate) fn want(&mut self, time: u64, scene: &Scene<'_>) -> Option<f32> {
        let passed = time.checked_sub(self.time);
        self.time = time;
        let (Some(passed), Some(_)) = (passed, self.last_run) else {
            *self = Self { time, ..Self::new(self.rate) };
            return Some(1.0);
        };
        let passed = passed.max(LEAST_STEP);
        self.since = self.since.saturating_add(passed);
        self.credit = (self.credit + passed as f64 / 1e9 * self.rate).min(CREDIT);
        let covered = around(scene.sights);
        let uncovered = scene.moving.iter().filter(|region| !is_covered(region, &covered));
        let is_new = |region: &&BBox| !is_covered(region, &self.known);
        let (uncovered, news) = (uncovered.clone().count(), uncovered.filter(is_new).count());
        let doubtful = |sight: &&Sight| sight.moves || sight.track.is_none();
        let tracks = scene.sights.iter().filter(doubtful).map(|sight| match sight.footing {
            Footing::Predicted => PREDICTED,
            _ if sight.track.is_none() => PREDICTED,
            _ => FOLLOWED,
        });
        let tracks = tracks.sum::<f32>() + LOST * scene.lost as f32;

        let interval = 1e9 / self.rate;
        let wait = if tracks > 0.0 || news > 0 {
            (interval * LEAST_WAIT) as u64
        } else if uncovered > 0 || scene.calibrating {
            ((interval * KNOWN_WAIT) as u64).min(IDLE)
        } else {
            IDLE
        };
        let early = SLACK as f64 / 1e9 * self.rate;
        if self.since.saturating_add(SLACK) < wait || self.credit + early < 1.0 {
            return None;
        }
        let changed = if scene.calibrating { CHANGED } else { 0.0 };
        let known = uncovered - news;
        let doubt = tracks + NEWS * news as f32 + KNOWN * known as f32 + changed;
        Some((1.0 - (-doubt).exp()).max(LEAST_WANT))
    }

    /// Takes in that the model ran for the frame of the last [`Pace::want`]. `sights` are what it
    /// saw.
    pub(crate) fn ran(&mut self, sights: &[Sight], moving: &[BBox]) {
        self.credit = (self.credit - 1.0).max(0.0);
        self.last_run = Some(self.time);
        self.since = 0;
        let covered = around(sights);
        let unknown = moving.iter().filter(|region| !is_covered(region, &covered));
        self.known = unknown.map(|region| region.expanded(AROUND)).collect();
    }
}

fn around(sights: &[Sight]) -> Vec<BBox> {
    sights.iter().map(|sight| sight.bbox.expanded(AROUND)).collect()
}

/// Whether boxes cover a region for the greater part.
fn is_covered(region: &BBox, boxes: &[BBox]) -> bool {
    let overlap = |b: &BBox| {
        let (left, top) = (region.left.max(b.left), region.top.max(b.top));
        BBox { left, top, right: region.right.min(b.right), bottom: region.bottom.min(b.bottom) }
            .area()
    };
    boxes.iter().map(overlap).sum::<f32>() >= COVERED * region.area()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const FRAME: u64 = SECOND / 10;
    const NOTHING: Scene<'static> = Scene { sights: &[], lost: 0, moving: &[], calibrating: false };

    fn place(x: f32) -> BBox {
        BBox::from_xywh(x, 100.0, 40.0, 80.0)
    }

    fn sight(footing: Footing, moves: bool) -> Sight {
        Sight { track: Some(1), class: 0, score: 0.8, bbox: place(100.0), footing, moves }
    }

    /// When the model runs in frames at 10 a second of scenes that stay as `scene` says, if a run
    /// is granted whenever it is asked for; the model sees nothing but the scene's tracks.
    fn runs(pace: &mut Pace, frames: std::ops::Range<u64>, scene: &Scene<'_>) -> Vec<u64> {
        let run = |n: &u64| {
            let wanted = pace.want(n * FRAME, scene).is_some();
            wanted.then(|| pace.ran(scene.sights, scene.moving)).is_some()
        };
        frames.filter(run).collect()
    }

    #[test]
    fn where_something_moves_the_model_runs_at_the_pace_of_the_settings() {
        for rate in [0.5, 1.0, 2.0, 3.3, 7.0, 10.0, 100.0] {
            let walks = Scene { sights: &[sight(Footing::Followed, true)], ..NOTHING };
            let count = runs(&mut Pace::new(rate), 0..600, &walks).len() as f64;
            let expected = rate.min(10.0) * 60.0;
            assert!((count - expected).abs() <= CREDIT + 1.0, "{count} runs at {rate} a second");
        }
    }

    #[test]
    fn in_a_still_picture_the_model_runs_now_and_then() {
        let parked = Scene { sights: &[sight(Footing::Followed, false)], ..NOTHING };
        for scene in [NOTHING, parked] {
            assert_eq!(runs(&mut Pace::new(3.3), 0..200, &scene), [0, 80, 160]);
        }
    }

    #[test]
    fn news_in_a_still_picture_is_looked_at_at_once_and_soon_again() {
        let mut pace = Pace::new(2.0);
        runs(&mut pace, 0..50, &NOTHING);
        let came = Scene { moving: &[place(300.0)], ..NOTHING };
        assert!(pace.want(50 * FRAME, &came).is_some());
        pace.ran(
            &[Sight { track: None, bbox: place(300.0), ..sight(Footing::Detected, true) }],
            came.moving,
        );
        let there = Sight { track: None, bbox: place(300.0), ..sight(Footing::Followed, true) };
        let again = runs(&mut pace, 51..60, &Scene { sights: &[there], ..came });
        assert_eq!(again.first(), Some(&53), "half a turn later: {again:?}");
    }

    #[test]
    fn what_moves_and_is_nothing_that_the_model_knows_gets_fewer_runs() {
        let tree = Scene { moving: &[place(300.0)], ..NOTHING };
        let found = runs(&mut Pace::new(2.0), 0..100, &tree);
        assert_eq!(found[..4], [0, 15, 30, 45]);
        let mut pace = Pace::new(2.0);
        runs(&mut pace, 0..100, &tree);
        let behind = Scene { moving: &[place(300.0), place(500.0)], ..NOTHING };
        let known = pace.clone().want(103 * FRAME, &tree);
        assert_eq!(known, None);
        assert!(pace.want(103 * FRAME, &behind).is_some(), "someone beside the tree");
    }

    #[test]
    fn a_run_is_worth_the_more_the_less_is_known() {
        let want = |scene: &Scene<'_>| {
            let mut pace = Pace::new(3.3);
            runs(&mut pace, 0..1, &NOTHING);
            pace.want(10 * SECOND, scene).unwrap()
        };
        let still = want(&NOTHING);
        let followed = want(&Scene { sights: &[sight(Footing::Followed, true)], ..NOTHING });
        let predicted = want(&Scene { sights: &[sight(Footing::Predicted, true)], ..NOTHING });
        let news = want(&Scene { moving: &[place(300.0)], ..NOTHING });
        let both = want(&Scene { moving: &[place(300.0), place(500.0)], lost: 3, ..NOTHING });
        let all = [still, followed, predicted, news, both];
        assert!(
            all.is_sorted_by(|a, b| a < b) && all.iter().all(|w| *w > 0.0 && *w <= 1.0),
            "{all:?}"
        );
        // Legs and a shadow are the track's own.
        let legs =
            Scene { sights: &[sight(Footing::Followed, true)], moving: &[place(104.0)], ..NOTHING };
        assert_eq!(want(&legs), followed);
    }

    #[test]
    fn what_is_denied_stays_due() {
        let mut pace = Pace::new(3.3);
        let walks = Scene { sights: &[sight(Footing::Followed, true)], ..NOTHING };
        runs(&mut pace, 0..10, &walks);
        let asked: Vec<_> = (10..100).filter(|n| pace.want(n * FRAME, &walks).is_some()).collect();
        assert!(asked.windows(2).all(|n| n[1] == n[0] + 1) && asked.len() > 85, "{asked:?}");
        let then = runs(&mut pace, 100..110, &walks);
        assert!(then.len() <= 5, "what was denied is not made up for: {then:?}");
        assert_eq!(pace.age(111 * FRAME), Some((111 - then[then.len() - 1]) * FRAME));
    }

    #[test]
    fn a_picture_that_changes_as_a_whole_is_looked_at_without_haste() {
        let pans = Scene { calibrating: true, ..NOTHING };
        assert_eq!(runs(&mut Pace::new(2.0), 0..50, &pans), [0, 15, 30, 45]);
    }

    #[test]
    fn where_time_stands_still_the_model_runs_all_the_same() {
        let mut pace = Pace::new(2.0);
        let run = |_: &u32| {
            let wanted = pace.want(FRAME, &NOTHING).is_some();
            wanted.then(|| pace.ran(&[], &[])).is_some()
        };
        assert_eq!((0..2000).filter(run).count(), 3, "every 8 s of 10 ms a frame");
    }

    #[test]
    fn time_that_begins_anew_or_leaps_does_not_silence_the_camera() {
        let mut pace = Pace::new(3.3);
        runs(&mut pace, 1000..1010, &NOTHING);
        assert_eq!(runs(&mut pace, 0..5, &NOTHING), [0]);
        assert!(pace.want(u64::MAX, &NOTHING).is_some());
    }
}
