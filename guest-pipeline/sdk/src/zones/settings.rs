//! Zones as settings have them.

use super::polygon::{CORNERS, check_polygon};
use super::{MAX_ZONE_NAME, MAX_ZONES, Zone, check_name};
use crate::labels::{self, Classes};

crate::settings! {
    /// A part of the picture.
    pub struct ZoneSettings {
        /// What events and counts call it. No other zone is called so.
        pub name: String, count(1..=MAX_ZONE_NAME) => |name, path| check_name(name, path);
        /// The corners in turn, x and y in parts of the picture: [0,0] is its upper left.
        pub polygon: Vec<[f32; 2]>, count(*CORNERS.start()..=*CORNERS.end())
            .each(each(at_least(0).up_to(1)))
            => |polygon, path| check_polygon(polygon, path);
        /// What it is about. None: all that is looked for.
        pub labels: Vec<String> = Vec::new();
    }
}

impl Zone {
    /// The zones of settings that have been read. `labels` are those of the model's classes, in
    /// order; `path` is where the zones stand: `settings.zones`.
    ///
    /// # Errors
    /// More than [`MAX_ZONES`], two of one name, a label that the model has not.
    pub fn of_settings<T: AsRef<str>>(
        zones: &[ZoneSettings],
        labels: &[T],
        path: &str,
    ) -> Result<Vec<Self>, String> {
        if zones.len() > MAX_ZONES {
            return Err(format!("{path}: {} are more than {MAX_ZONES}", zones.len()));
        }
        let mut made: Vec<Self> = Vec::new();
        for (n, ZoneSettings { name, polygon, labels: asked }) in zones.iter().enumerate() {
            if made.iter().any(|zone| zone.name == *name) {
                return Err(format!("{path}[{n}].name: another zone is called {name:?} too"));
            }
            labels::check(asked, labels, &format!("{path}[{n}].labels"))?;
            let classes = Classes::named(asked, labels);
            made.push(Self { name: name.clone(), polygon: polygon.clone(), classes });
        }
        Ok(made)
    }
}
