use proptest::prelude::*;

use super::*;

const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// Hills of several sizes, no two places alike: a texture that is known between samples too.
fn texture(x: f32, y: f32) -> f32 {
    let hills = [(5.0, 110.0), (11.0, 80.0), (37.0, 60.0)];
    128.0 + hills.iter().map(|&(wide, high)| high * (hill(x / wide, y / wide) - 0.5)).sum::<f32>()
}

/// A height of 0 to 1 at each whole place, and smoothly from one to the next.
fn hill(x: f32, y: f32) -> f32 {
    let height = |x: f32, y: f32| {
        let place = (x as i32 as u32).wrapping_mul(0x9E37_79B1)
            ^ (y as i32 as u32).wrapping_mul(0x85EB_CA77);
        let mixed = (place ^ place >> 15).wrapping_mul(0x2C1B_3C6D);
        (mixed ^ mixed >> 13) as f32 / u32::MAX as f32
    };
    let smooth = |share: f32| share * share * (3.0 - 2.0 * share);
    let between = |one: f32, other: f32, share: f32| one + (other - one) * smooth(share);
    let (left, top) = (x.floor(), y.floor());
    let row = |y: f32| between(height(left, y), height(left + 1.0, y), x - left);
    between(row(top), row(top + 1.0), y - top)
}

fn grey(sample: impl Fn(f32, f32) -> f32) -> Grey {
    let place = |at: usize| ((at % WIDTH) as f32 + 0.5, (at / WIDTH) as f32 + 0.5);
    let level = |at| {
        let (x, y) = place(at);
        sample(x, y).clamp(0.0, 255.0).round() as u8
    };
    Grey { samples: (0..WIDTH * HEIGHT).map(level).collect(), width: WIDTH, height: HEIGHT }
}

fn pyramid(base: Grey) -> Pyramid {
    let mut pyramid = Pyramid { base, ..Pyramid::default() };
    pyramid.build(&mut Averager::default());
    pyramid
}

fn of(sample: impl Fn(f32, f32) -> f32) -> Pyramid {
    pyramid(grey(sample))
}

fn points() -> impl Iterator<Item = Point> {
    let at = |n: usize| Point { x: 60.3 + (n % 9) as f32 * 25.0, y: 55.6 + (n / 9) as f32 * 21.0 };
    (0..63).map(at)
}

/// The share of the points that are found within a third of a sample of where they went.
fn found(before: &Pyramid, after: &Pyramid, to: impl Fn(Point) -> Point) -> f32 {
    let near = |point: &Point| {
        let wanted = to(*point);
        let found = before.follow(after, *point);
        found.is_some_and(|found| (found.x - wanted.x).hypot(found.y - wanted.y) < 0.33)
    };
    points().filter(near).count() as f32 / points().count() as f32
}

#[test]
fn points_go_where_the_picture_goes_to_a_third_of_a_sample() {
    let before = of(texture);
    // Of a long way, what comes in between looks like it here and there.
    for (x, y, least) in [
        (0.0, 0.0, 0.95),
        (0.5, -0.25, 0.95),
        (-3.2, 1.7, 0.95),
        (7.6, 4.4, 0.95),
        (-14.5, 9.5, 0.7),
    ] {
        let after = of(|at_x, at_y| texture(at_x - x, at_y - y));
        let share = found(&before, &after, |point| point.plus(x, y));
        assert!(share > least, "{x} {y}: {share}");
    }
}

#[test]
fn a_point_of_a_picture_that_stays_stays() {
    let before = of(texture);
    // Noise of two levels either way, another in each sample.
    let after = of(|x, y| texture(x, y) + (x * 12.9 + y * 78.2).sin() * 2.0);
    for point in points() {
        let found = before.follow(&after, point).unwrap();
        let away = (found.x - point.x).hypot(found.y - point.y);
        assert!(away < 0.15, "{point:?} {found:?}");
    }
}

#[test]
fn light_that_changes_moves_no_point() {
    let before = of(texture);
    for (gain, more) in [(1.0, 25.0), (0.9, 0.0), (1.1, -20.0)] {
        let after = of(|x, y| (texture(x - 2.5, y + 1.5) * gain + more).clamp(0.0, 255.0));
        let share = found(&before, &after, |point| point.plus(2.5, -1.5));
        assert!(share > 0.9, "{gain} {more}: {share}");
    }
}

#[test]
fn a_thing_that_moves_before_a_wall_takes_its_points_along_and_leaves_those_of_the_wall() {
    let scene = |left: f32| {
        move |x: f32, y: f32| {
            let inside = (left..left + 40.0).contains(&x) && (60.0..140.0).contains(&y);
            if inside { texture((x - left) * 1.3 + 900.0, y * 1.3) } else { texture(x, y) }
        }
    };
    let (before, after) = (of(scene(100.0)), of(scene(106.0)));
    let moved =
        (0..16).map(|n| Point { x: 108.0 + (n % 4) as f32 * 8.0, y: 70.0 + (n / 4) as f32 * 18.0 });
    let mut shifts: Vec<_> =
        moved.filter_map(|point| Some(before.follow(&after, point)?.x - point.x)).collect();
    shifts.sort_by(f32::total_cmp);
    assert!(shifts.len() >= 12, "{shifts:?}");
    assert!((shifts[shifts.len() / 2] - 6.0).abs() < 0.3, "{shifts:?}");
    let wall = Point { x: 220.0, y: 180.0 };
    let stays = before.follow(&after, wall).unwrap();
    assert!((stays.x - wall.x).hypot(stays.y - wall.y) < 0.1, "{stays:?}");
}

#[test]
fn what_cannot_be_told_or_is_gone_is_lost() {
    let middle = Point { x: 160.0, y: 120.0 };
    let wall = of(|_, _| 90.0);
    assert_eq!(wall.follow(&of(|_, _| 90.0), middle), None, "a wall is alike everywhere");
    let edge = of(|x, _| if x < 160.0 { 60.0 } else { 180.0 });
    assert_eq!(edge.follow(&edge, middle), None, "along an edge all is alike");
    let before = of(texture);
    assert_eq!(before.follow(&wall, middle), None, "the later picture is a wall");
    let other = of(|x, y| texture(y * 1.7 + 300.0, 500.0 - x * 2.1));
    let lost = points().filter(|&point| before.follow(&other, point).is_none()).count();
    assert!(lost > 56, "another picture: {lost} of 63");
    let away = of(|x, y| texture(x - 20.0, y));
    assert_eq!(before.follow(&away, Point { x: 310.0, y: 120.0 }), None, "it left the picture");
    assert!(before.follow(&before, Point { x: 1.0, y: 1.0 }).is_some(), "a corner is in it");
}

#[test]
fn a_point_beside_the_picture_or_of_a_picture_of_another_size_is_lost() {
    let before = of(texture);
    for (x, y) in [
        (-0.1, 5.0),
        (5.0, 240.0),
        (320.0, 5.0),
        (f32::NAN, 5.0),
        (5.0, f32::INFINITY),
        (-1e30, 1e30),
    ] {
        assert_eq!(before.follow(&before, Point { x, y }), None, "{x} {y}");
    }
    for (width, height) in [(240, 320), (0, 0), (1, 76_800)] {
        let samples = vec![0; width * height];
        let other = pyramid(Grey { samples, width, height });
        assert_eq!(before.follow(&other, Point { x: 9.0, y: 9.0 }), None);
        assert_eq!(other.follow(&other, Point { x: 0.5, y: 0.5 }), None);
    }
}

proptest! {
    // A case paints two pictures.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever two pictures show: what is found lies in the picture.
    #[test]
    fn what_is_found_lies_in_the_picture(
        (width, height) in (1usize..40, 1usize..40),
        samples in prop::collection::vec(any::<u8>(), 3200),
        x in -5.0f32..45.0,
        y in -5.0f32..45.0,
    ) {
        let grey = |from: usize| {
            let samples = samples[from..from + width * height].to_vec();
            pyramid(Grey { samples, width, height })
        };
        if let Some(found) = grey(0).follow(&grey(1600), Point { x, y }) {
            prop_assert!(found.lies_in(&grey(0).base), "{found:?}");
        }
    }

    /// A texture that is shifted by any small amount is followed by it, in the middle.
    #[test]
    fn any_small_shift_is_found(x in -8.0f32..8.0, y in -8.0f32..8.0) {
        let after = of(|at_x, at_y| texture(at_x - x, at_y - y));
        let share = found(&of(texture), &after, |point| point.plus(x, y));
        prop_assert!(share > 0.9, "{share}");
    }
}
