//! What the budget promises, with cameras that are played.

use proptest::prelude::*;

use super::*;

/// A camera that asks at each frame and runs its model when it may.
#[derive(Debug, Clone, Copy)]
struct Camera {
    weight: u32,
    want: u16,
    run_ns: u64,
    /// Nanoseconds between frames.
    frame_ns: u64,
    /// When its first frame comes.
    from_ns: u64,
}

const CAMERA: Camera =
    Camera { weight: 4, want: MAX_WANT, run_ns: 20 * MS, frame_ns: 100 * MS, from_ns: 0 };

/// What a camera had.
#[derive(Debug, Clone, Copy, Default)]
struct Had {
    time_ns: u64,
    runs: u64,
    /// The longest from a run, or from the first frame, to the next.
    longest_gap_ns: u64,
    /// The longest that a granted run waited for a runner.
    longest_wait_ns: u64,
}

/// Cameras whose frames come at moments that differ.
fn spread(cameras: &[Camera]) -> Vec<Camera> {
    let count = cameras.len() as u64;
    (0..).zip(cameras).map(|(n, c)| Camera { from_ns: c.frame_ns * n / count, ..*c }).collect()
}

/// Plays cameras on runners, frame by frame. Runs wait for a runner in their order.
fn play(millicores: u32, runners: usize, cameras: &[Camera], until_ns: u64) -> Vec<Had> {
    let mut budget = Budget::new(millicores);
    let mut had = vec![Had::default(); cameras.len()];
    let mut last: Vec<_> = cameras.iter().map(|camera| camera.from_ns).collect();
    let mut frames: Vec<_> = cameras.iter().map(|camera| camera.from_ns).collect();
    let mut free = vec![0_u64; runners];
    // Runs that end later, and whose they are.
    let mut ends: Vec<(u64, usize)> = Vec::new();
    loop {
        let (index, now) = frames.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
        if now >= until_ns {
            break;
        }
        ends.sort_unstable();
        while ends.first().is_some_and(|(at, _)| *at <= now) {
            let (_, of) = ends.remove(0);
            budget.charge(of as u64, cameras[of].run_ns);
        }
        let Camera { weight, want, run_ns, frame_ns, .. } = cameras[index];
        frames[index] = now + frame_ns;
        if budget.ask(index as u64, weight, want, now) {
            let runner = free.iter_mut().min().unwrap();
            let begins = now.max(*runner);
            *runner = begins + run_ns;
            ends.push((*runner, index));
            // The next frame that it asks for comes when it is done with this one.
            frames[index] = (now + frame_ns).max(*runner);
            let it = &mut had[index];
            it.longest_wait_ns = it.longest_wait_ns.max(begins - now);
            it.longest_gap_ns = it.longest_gap_ns.max(now - last[index]);
            it.runs += 1;
            it.time_ns += run_ns;
            last[index] = now;
        }
    }
    for (it, last) in had.iter_mut().zip(last) {
        it.longest_gap_ns = it.longest_gap_ns.max(until_ns - last);
    }
    had
}

fn total(had: &[Had]) -> u64 {
    had.iter().map(|had| had.time_ns).sum()
}

#[test]
fn time_is_divided_by_weight_and_want_where_it_is_short() {
    let kinds = [(1, 1000, 20), (4, 1000, 20), (4, 250, 20), (16, 500, 20), (4, 1000, 5)];
    let wanting = |(weight, want, ms): (u32, u16, u64)| Camera {
        weight,
        want,
        run_ns: ms * MS,
        frame_ns: 20 * MS,
        from_ns: 0,
    };
    // Four of each: where few share much, a turn that comes a frame late counts for more.
    let cameras = spread(&[kinds.map(wanting); 4].concat());
    let had = play(400, 2, &cameras, 300 * SECOND);
    let parts: u32 = cameras.iter().map(|it| it.weight * u32::from(it.want)).sum();
    let all = total(&had);
    for (camera, had) in cameras.iter().zip(&had) {
        let part = f64::from(camera.weight * u32::from(camera.want)) / f64::from(parts);
        let ratio = had.time_ns as f64 / all as f64 / part;
        assert!((0.8..1.2).contains(&ratio), "{ratio} of its part: {camera:?}, {had:?}");
    }
}

#[test]
fn a_web_on_the_lens_takes_no_more_than_its_part() {
    // One always wants all that there is, and asks five times as often.
    let web = Camera { frame_ns: 20 * MS, ..CAMERA };
    for others in [1000, 500] {
        let mut cameras = vec![Camera { want: others, ..CAMERA }; 19];
        cameras.push(web);
        let cameras = spread(&cameras);
        let had = play(500, 2, &cameras, 120 * SECOND);
        let part = f64::from(MAX_WANT) / (f64::from(MAX_WANT) + 19.0 * f64::from(others));
        let ratio = had[19].time_ns as f64 / total(&had) as f64 / part;
        assert!((0.8..1.2).contains(&ratio), "{ratio} of its part, others want {others}");
    }
}

#[test]
fn a_tenth_of_a_core_for_twenty_cameras_makes_results_old_and_no_queue() {
    let cameras = spread(&[CAMERA; 20]);
    let had = play(100, 1, &cameras, 120 * SECOND);
    let used = total(&had) as f64 / (120 * SECOND) as f64;
    assert!((0.09..0.105).contains(&used), "{used} cores");
    for had in &had {
        // 5 runs a second: each camera's turn comes every 4 seconds.
        assert!(had.longest_gap_ns < 6 * SECOND, "{had:?}");
        assert!(had.longest_wait_ns <= 20 * MS, "{had:?}");
    }
}

#[test]
fn who_wants_nothing_is_looked_at_now_and_then() {
    let idle = Camera { want: 0, ..CAMERA };
    let had = play(1000, 2, &spread(&[idle, CAMERA]), 81 * SECOND);
    assert_eq!(had[0].runs, 11, "at once, and every 8 seconds");
    assert!(had[0].longest_gap_ns <= FLOOR_NS + 200 * MS);
}

#[test]
fn whoever_asks_when_there_is_plenty_of_time_runs_at_each_frame() {
    let had = play(1000, 2, &spread(&[Camera { want: 1, ..CAMERA }; 4]), 10 * SECOND);
    assert!(had.iter().all(|had| had.runs == 100), "{had:?}");
}

#[test]
fn cameras_of_one_frame_a_second_leave_no_time_unused() {
    let slow = Camera { frame_ns: SECOND, ..CAMERA };
    let had = play(200, 2, &spread(&[slow; 20]), 120 * SECOND);
    let used = total(&had) as f64 / (24 * SECOND) as f64;
    assert!(used > 0.9, "{used} of the budget");
}

#[test]
fn a_grant_that_is_not_used_costs_nothing_and_a_run_without_one_neither() {
    let mut budget = Budget::new(1000);
    assert!(budget.ask(1, 4, 1000, SECOND));
    let held = budget.held_ns;
    budget.charge(2, SECOND);
    assert_eq!(budget.held_ns, held, "nobody has asked for that");
    budget.forget(1);
    assert_eq!(budget.held_ns, held + FIRST_COST_NS as i64);
    let mut now = SECOND;
    while budget.ask(1, 4, 1000, now) {
        // All at one moment: each keeps its turn and runs nothing.
        now += 1;
        assert!(now < SECOND + 100);
        budget.charge(1, 100 * MS);
    }
    let held = budget.held_ns;
    budget.charge(1, SECOND);
    assert_eq!(budget.held_ns, held, "a run that was refused is not charged");
}

#[test]
fn a_run_that_hangs_is_paid_for_within_seconds() {
    let mut budget = Budget::new(100);
    assert!(budget.ask(1, 4, 1000, 0));
    budget.charge(1, 60 * SECOND);
    let again = (1..).map(|n| n * 100 * MS).find(|&now| budget.ask(2, 4, 1000, now)).unwrap();
    assert!(again <= 7 * SECOND, "{again}");
}

prop_compose! {
    fn camera()(
        weight in prop_oneof![Just(1_u32), Just(4), Just(16)],
        want in 0..=MAX_WANT,
        run_ms in 1..80_u64,
        frame_ms in 20..1000_u64,
    ) -> Camera {
        Camera { weight, want, run_ns: run_ms * MS, frame_ns: frame_ms * MS, from_ns: 0 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nobody_starves_and_nothing_queues_and_no_more_is_used_than_there_is(
        cameras in prop::collection::vec(camera(), 1..24),
        millicores in 50..2000_u32,
    ) {
        let cameras = spread(&cameras);
        let until = 120 * SECOND;
        let had = play(millicores, 2, &cameras, until);
        // One run of each, at the budget's pace, is a round of those that come first.
        let round: u64 = cameras.iter().map(|it| it.run_ns).sum::<u64>() * 1000 / u64::from(millicores);
        let frame = cameras.iter().map(|it| it.frame_ns).max().unwrap();
        let bound = FLOOR_NS + 2 * round + 4 * frame + SECOND;
        for (camera, had) in cameras.iter().zip(&had) {
            prop_assert!(had.longest_gap_ns <= bound, "{camera:?} had {had:?}, bound {bound}");
        }
        let longest = cameras.iter().map(|it| it.run_ns).max().unwrap();
        let held = (u64::from(millicores) * FULL_NS / 1000).max(2 * longest.max(FIRST_COST_NS));
        let most = until / 1000 * u64::from(millicores) + held + 24 * longest;
        prop_assert!(total(&had) <= most, "{} of {most}", total(&had));
        for (camera, had) in cameras.iter().zip(&had) {
            // What the bucket holds, and first runs that cost more than was known of them.
            let wait = held + 24 * longest;
            prop_assert!(had.longest_wait_ns <= wait, "{camera:?} had {had:?}");
        }
    }
}
