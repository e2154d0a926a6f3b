use super::*;

/// A scene of a test: a wall with some texture, and a noise that differs from frame to frame.
struct Scene {
    background: Background,
    time: u64,
    step: u64,
    random: u32,
}

const WIDTH: usize = 384;
const HEIGHT: usize = 288;
const SECOND: u64 = 1_000_000_000;

impl Scene {
    /// At so many frames a second.
    fn new(per_second: u64) -> Self {
        let step = SECOND / per_second;
        Self { background: Background::default(), time: 0, step, random: 1 }
    }

    fn noise(&mut self, most: i32) -> i32 {
        // Numerical Recipes' linear congruential generator.
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.random >> 16) as i32 % (2 * most + 1) - most
    }

    /// The next frame: what `paint` makes of the wall at x and y, with noise.
    fn frame(&mut self, noise: i32, paint: impl Fn(usize, usize, i32) -> i32) -> Motion {
        let mut samples = Vec::with_capacity(WIDTH * HEIGHT);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let noise = if noise > 0 { self.noise(noise) } else { 0 };
                samples.push((paint(x, y, wall(x, y)) + noise).clamp(0, 255) as u8);
            }
        }
        let grey = Grey { samples, width: WIDTH, height: HEIGHT };
        self.time += self.step;
        self.background.look(&grey, 2, self.time)
    }

    fn frames(&mut self, seconds: u64, paint: impl Fn(usize, usize, i32) -> i32) -> Motion {
        let mut last = Motion::default();
        for _ in 0..(seconds * SECOND).div_ceil(self.step) {
            last = self.frame(6, &paint);
        }
        last
    }
}

/// Patches of 24 samples between 60 and 180.
fn wall(x: usize, y: usize) -> i32 {
    let patch = (x / 24 * 7 + y / 24 * 13) % 16;
    60 + patch as i32 * 8
}

fn still(_: usize, _: usize, wall: i32) -> i32 {
    wall
}

/// A dark thing of 30 x 60 samples.
fn thing(left: usize, top: usize) -> impl Fn(usize, usize, i32) -> i32 {
    move |x, y, wall| {
        let inside = (left..left + 30).contains(&x) && (top..top + 60).contains(&y);
        if inside { 20 } else { wall }
    }
}

/// Whether one region, and no other, lies around the thing: in frame pixels, twice the samples.
#[track_caller]
fn is_around(motion: &Motion, left: usize, top: usize) {
    let [Rect { x, y, width, height }] = motion.regions[..] else { panic!("{motion:?}") };
    let near = |value: f32, wanted: usize| (value - 2.0 * wanted as f32).abs() <= 12.0;
    assert!(near(x, left) && near(y, top), "{motion:?}");
    assert!(near(x + width, left + 30) && near(y + height, top + 60), "{motion:?}");
    let share = 30.0 * 60.0 / (WIDTH * HEIGHT) as f32;
    assert!((motion.share - share).abs() < share / 2.0, "{motion:?}");
}

#[test]
fn what_is_not_known_yet_is_said_and_a_still_scene_does_not_move() {
    for per_second in [1, 10, 30] {
        let mut scene = Scene::new(per_second);
        assert!(scene.frame(6, still).calibrating);
        assert_eq!(scene.frames(3, still), Motion::default(), "at {per_second}");
    }
}

#[test]
fn what_appears_is_found_at_every_rate() {
    for per_second in [1, 5, 30] {
        let mut scene = Scene::new(per_second);
        scene.frames(5, still);
        is_around(&scene.frame(6, thing(100, 80)), 100, 80);
        is_around(&scene.frame(6, thing(140, 90)), 140, 90);
        assert_eq!(scene.frame(6, still), Motion::default(), "it leaves no trace, at {per_second}");
    }
}

#[test]
fn what_stops_is_background_after_a_while_at_every_rate() {
    for per_second in [1, 10] {
        let mut scene = Scene::new(per_second);
        scene.frames(5, still);
        is_around(&scene.frames(6, thing(100, 80)), 100, 80);
        assert_eq!(scene.frames(60, thing(100, 80)), Motion::default(), "at {per_second}");
        let gone = scene.frame(6, still);
        is_around(&gone, 100, 80);
    }
}

#[test]
fn a_light_that_flickers_moves_nothing_and_hides_nothing() {
    let mut scene = Scene::new(10);
    let lit = |frame: u64| {
        move |_: usize, _: usize, wall: i32| {
            let percent = [100, 112, 93, 84, 108][frame as usize % 5];
            wall * percent / 100
        }
    };
    scene.frames(3, still);
    for frame in 0..50 {
        assert_eq!(scene.frame(6, lit(frame)), Motion::default(), "frame {frame}");
    }
    let (lit, thing) = (lit(3), thing(200, 100));
    is_around(&scene.frame(6, |x, y, wall| lit(x, y, thing(x, y, wall))), 200, 100);
}

#[test]
fn rain_and_a_noisy_sensor_move_nothing() {
    let mut scene = Scene::new(10);
    scene.frames(3, still);
    for frame in 0..40_usize {
        // Streaks of 1 x 20 samples, one percent of the picture, elsewhere in each frame.
        let drops = |x: usize, y: usize, wall: i32| {
            let column = x * 31 + y / 20 * 57 + frame * 101;
            if column.is_multiple_of(97) { 230 } else { wall }
        };
        assert_eq!(scene.frame(6, drops).regions, [], "rain, frame {frame}");
    }
    for frame in 0..40 {
        assert_eq!(scene.frame(30, still).regions, [], "noise, frame {frame}");
    }
}

#[test]
fn a_picture_that_changes_as_a_whole_is_said_for_a_second_and_reports_nothing() {
    let dark = |x: usize, y: usize, _: i32| wall(y, x) / 8;
    let white = |_: usize, _: usize, _: i32| 250;
    let mut scene = Scene::new(10);
    scene.frames(3, still);
    for (what, paint) in [("blinded", &white as &dyn Fn(usize, usize, i32) -> i32), ("dark", &dark)]
    {
        for (which, paint) in [("on", paint), ("off", &still)] {
            let first = scene.frame(6, paint);
            assert!(first.calibrating && first.regions.is_empty(), "{what} {which}: {first:?}");
            let next = scene.frames(2, paint);
            assert_eq!(next, Motion::default(), "{what} {which}");
        }
    }
}

#[test]
fn a_camera_that_turns_reports_nothing_while_it_does_and_sees_soon_after() {
    // No two places alike, as out of doors.
    let place = |x: usize, y: usize| {
        let cell = (x / 7 * 7919) ^ (y / 7 * 104_729);
        30 + (cell.wrapping_mul(2_654_435_761) >> 7) as i32 % 196
    };
    let mut scene = Scene::new(10);
    scene.frames(3, |x, y, _| place(x, y));
    for frame in 1..=30 {
        let turned = scene.frame(6, |x, y, _| place(x + frame * 12, y));
        assert!(turned.calibrating && turned.regions.is_empty(), "frame {frame}: {turned:?}");
    }
    let held = |x: usize, y: usize, _: i32| place(x + 360, y);
    assert_eq!(scene.frames(2, held), Motion::default());
    let thing = thing(100, 100);
    is_around(&scene.frame(6, |x, y, wall| thing(x, y, held(x, y, wall))), 100, 100);
}

#[test]
fn a_camera_that_turns_over_a_road_and_a_sky_is_told_by_what_has_edges() {
    // Posts before a wall: few samples change when they pass by, but all that there is to see.
    let posts = |x: usize, _: usize, _: i32| if x % 36 < 6 { 180 } else { 90 };
    let mut scene = Scene::new(10);
    assert_eq!(scene.frames(3, posts), Motion::default());
    let turned = scene.frame(6, |x, y, wall| posts(x + 12, y, wall));
    assert!(turned.calibrating && turned.regions.is_empty(), "{turned:?}");
    assert!(turned.share < 0.5, "{turned:?}");
}

#[test]
fn a_light_that_changes_slowly_moves_nothing() {
    let mut scene = Scene::new(2);
    scene.frames(3, still);
    for frame in 0..120 {
        let dusk = scene.frame(6, |_, _, wall| wall * (240 - frame) / 240);
        assert_eq!(dusk, Motion::default(), "frame {frame}");
    }
}

#[test]
fn a_tree_in_the_wind_comes_to_rest_and_who_passes_now_and_then_does_not() {
    let mut scene = Scene::new(10);
    scene.frames(3, still);
    let mut wind = |seconds: usize| {
        let mut moved = 0;
        for frame in 0..seconds * 10 {
            let swings = frame % 3 == 0;
            let tree = |x: usize, y: usize, wall: i32| {
                let leaf = (40..120).contains(&x) && (40..140).contains(&y);
                if leaf && swings { wall - 25 } else { wall }
            };
            moved = usize::from(!scene.frame(6, tree).regions.is_empty())
                + if swings { 0 } else { moved };
        }
        moved
    };
    assert_ne!(wind(1), 0);
    wind(60);
    assert_eq!(wind(1), 0);
}

#[test]
fn time_that_stands_still_or_leaps_does_not_stop_it() {
    let mut scene = Scene::new(10);
    scene.step = 0;
    for _ in 0..150 {
        scene.frame(6, still);
    }
    is_around(&scene.frame(6, thing(100, 80)), 100, 80);
    scene.step = 3_600 * SECOND;
    scene.frame(6, still);
    is_around(&scene.frame(6, thing(100, 80)), 100, 80);
    // The source begins again.
    scene.time = 0;
    scene.step = SECOND / 10;
    is_around(&scene.frame(6, thing(200, 80)), 200, 80);
}

#[test]
fn another_size_is_another_picture() {
    let mut background = Background::default();
    let grey = |width, height| Grey { samples: vec![100; width * height], width, height };
    for (size, time) in [((64, 48), 1), ((48, 64), 2), ((1, 1), 3), ((0, 0), 4)] {
        let motion = background.look(&grey(size.0, size.1), 1, time);
        assert!(motion.calibrating && motion.regions.is_empty(), "{size:?}");
    }
}
