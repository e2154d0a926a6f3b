//! Polygons in parts of the picture, and where an object stands.

use crate::geometry::BBox;

/// Corners of a polygon. Each object is compared with each edge in every frame.
pub const CORNERS: std::ops::RangeInclusive<usize> = 3..=32;

/// Twice the least area of a zone, as a share of the picture: about two pixels in 1080 lines.
const LEAST_AREA: f64 = 2e-6;

/// Least distance of a foot point from the edges of the picture, as a share of it: objects that the
/// lower edge cuts off stand on that edge, which is outside a polygon that ends there. Less than
/// half a pixel of any camera.
const EDGE: f32 = 1.0 / 65536.0;

/// The middle of the lower edge of a box in frame pixels, in parts of the picture of this size.
#[must_use]
pub fn foot(bbox: &BBox, (width, height): (u32, u32)) -> [f32; 2] {
    let x = (bbox.left + bbox.right) / 2.0 / width as f32;
    let y = bbox.bottom / height as f32;
    [x, y].map(|part| part.clamp(EDGE, 1.0 - EDGE))
}

/// Whether a point lies in a polygon: whether a ray from it to the right crosses an odd number of
/// its edges. Of two polygons that share an edge, a point on it is in one.
#[must_use]
pub fn contains(polygon: &[[f32; 2]], [x, y]: [f32; 2]) -> bool {
    let before = polygon.iter().cycle().skip(polygon.len().saturating_sub(1));
    polygon.iter().zip(before).fold(false, |inside, (&[ax, ay], &[bx, by])| {
        let crosses = (ay > y) != (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax;
        inside != crosses
    })
}

/// Checks the corners of a zone; `path` is where they stand in the settings.
///
/// # Errors
/// Names the corner that is not in the picture; too few or too many corners; no area.
pub fn check_polygon(polygon: &[[f32; 2]], path: &str) -> Result<(), String> {
    let corners = polygon.len();
    if !CORNERS.contains(&corners) {
        return Err(format!(
            "{path}: {corners} corners are not {} to {}",
            CORNERS.start(),
            CORNERS.end()
        ));
    }
    for (n, corner) in polygon.iter().enumerate() {
        check_point(*corner, &format!("{path}[{n}]"))?;
    }
    // Twice the area, by the shoelace formula.
    let next = polygon.iter().cycle().skip(1);
    let area: f64 = polygon.iter().zip(next).map(|(a, b)| cross(*a, *b)).sum();
    if area.abs() < LEAST_AREA {
        return Err(format!("{path}: has no area"));
    }
    Ok(())
}

/// Checks that a point lies in the picture; `path` is where it stands in the settings.
pub(crate) fn check_point(point: [f32; 2], path: &str) -> Result<(), String> {
    if point.iter().all(|part| (0.0..=1.0).contains(part)) {
        return Ok(());
    }
    Err(format!("{path}: {point:?} is not in parts of the picture, 0 to 1"))
}

/// Twice the area of the triangle of the origin and two points, below 0 where it goes round from
/// the first to the second against the clock; y points down.
pub(crate) fn cross([ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> f64 {
    f64::from(ax) * f64::from(by) - f64::from(bx) * f64::from(ay)
}
