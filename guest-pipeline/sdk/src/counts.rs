//! Counts of objects that entered and left, by label: of each zone or line and, if wanted, of the
//! whole picture.
//!
//! The numbers have one owner, the session's [store](crate::store): they outlive swaps, restarts
//! and crashes. They are read and written in the call that reports the events, so after a crash
//! events and numbers still agree. The number of objects inside *now* is not among them: the tracks
//! give it.
//!
//! ```
//! use ocelli_sdk::counts::{Counter, Step};
//! # use ocelli_sdk::labels::Classes;
//! # use ocelli_sdk::zones::Zone;
//!
//! # let door = Zone {
//! #     name: "door".into(),
//! #     polygon: vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]],
//! #     classes: Classes::all(),
//! # };
//! // One bucket for each pipeline: the store belongs to the session.
//! let counter = Counter::new("my-pipeline").zone(&door);
//! counter.add(&[Step { place: Some("door"), label: "person", entered: true }])?;
//! let answer = counter.read()?.answer(&[]);
//! assert_eq!(answer["zones"][0]["labels"]["person"]["entered"], 1);
//! # Ok::<(), String>(())
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::lines::Line;
use crate::log;
use crate::store::Bucket;
use crate::zones::Zone;

/// The key in the bucket.
const KEY: &str = "counts";

/// Keeps the counts of one camera.
#[derive(Debug, Clone)]
pub struct Counter {
    bucket: String,
    places: Vec<Place>,
    picture: bool,
}

/// A zone with its corners, or a line with its ends.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    name: String,
    shape: Vec<[f32; 2]>,
}

/// An object that entered or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The zone's or line's name; none for the picture.
    pub place: Option<&'a str>,
    /// What it is.
    pub label: &'a str,
    /// Whether it entered, rather than left. For a line: whether it came to the right side of it.
    pub entered: bool,
}

/// Objects of one label that are in a place now, or in the picture: their entry has been reported
/// and their exit has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy<'a> {
    /// The zone's name; none for the picture.
    pub place: Option<&'a str>,
    /// What they are.
    pub label: &'a str,
    /// How many there are.
    pub count: u64,
}

/// Objects of one label that entered and left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCounts {
    /// What they are.
    pub label: String,
    /// How many have entered.
    pub entered: u64,
    /// How many have left.
    pub left: u64,
}

/// The counts of one zone or line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceCounts {
    /// Its name.
    #[serde(rename = "zone")]
    pub name: String,
    #[serde(rename = "polygon")]
    shape: Vec<[f32; 2]>,
    /// By label, in the order in which they first came.
    pub labels: Vec<LabelCounts>,
}

/// All counts, as they stand in the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Of each zone and line, in the order of the settings.
    #[serde(rename = "zones")]
    pub places: Vec<PlaceCounts>,
    /// Of the picture, where they are wanted.
    #[serde(rename = "objects", skip_serializing_if = "Option::is_none")]
    pub picture: Option<Vec<LabelCounts>>,
}

impl Counter {
    /// Counts nothing yet. `bucket` is the bucket in the session's store, named after the pipeline.
    #[must_use]
    pub fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), places: Vec::new(), picture: false }
    }

    /// Counts what enters and leaves a zone.
    #[must_use]
    pub fn zone(mut self, zone: &Zone) -> Self {
        self.places.push(Place { name: zone.name.clone(), shape: zone.polygon.clone() });
        self
    }

    /// Counts what crosses a line: to its right as entered, to its left as left.
    #[must_use]
    pub fn line(mut self, line: &Line) -> Self {
        self.places.push(Place { name: line.name.clone(), shape: vec![line.from, line.to] });
        self
    }

    /// Counts what enters and leaves the picture, if `wanted`.
    #[must_use]
    pub fn picture(mut self, wanted: bool) -> Self {
        self.picture = wanted;
        self
    }

    /// Whether anything is counted.
    fn is_wanted(&self) -> bool {
        self.picture || !self.places.is_empty()
    }

    /// The counts so far. Those of another version of the pipeline go on; places with another shape
    /// begin at 0. An unreadable value is logged and replaced.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self) -> Result<Counts, String> {
        let mut stored = Counts::default();
        if self.is_wanted()
            && let Some(value) = Bucket::open(&self.bucket)?.get(KEY)?
        {
            let text = str::from_utf8(&value).map_err(|error| error.to_string());
            match text
                .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
            {
                Ok(counts) => stored = counts,
                Err(error) => {
                    log::warn("counts", &format!("unreadable, counting begins anew: {error}"))
                }
            }
        }
        let places = self.places.iter().map(|Place { name, shape }| {
            let is_same = |stored: &&PlaceCounts| stored.name == *name && stored.shape == *shape;
            let same = stored.places.iter().find(is_same);
            let labels = same.map(|same| same.labels.clone()).unwrap_or_default();
            PlaceCounts { name: name.clone(), shape: shape.clone(), labels }
        });
        let picture = self.picture.then(|| stored.picture.unwrap_or_default());
        Ok(Counts { places: places.collect(), picture })
    }

    fn write(&self, counts: &Counts) -> Result<(), String> {
        Bucket::open(&self.bucket)?.set_json(KEY, counts)
    }

    /// Counts what happened, in the call that reports it. If nothing of it is counted, the store is
    /// not touched.
    ///
    /// # Errors
    /// The store cannot be read or is full; nothing is counted then.
    pub fn add(&self, steps: &[Step<'_>]) -> Result<(), String> {
        let counted = |step: &&Step<'_>| step.place.is_some() || self.picture;
        let mut counted = steps.iter().filter(counted).peekable();
        if counted.peek().is_none() {
            return Ok(());
        }
        let mut counts = self.read()?;
        for step in counted {
            let labels = counts.of(step.place);
            if let Some(counts) = labels.and_then(|labels| of_label(labels, step.label)) {
                let number = if step.entered { &mut counts.entered } else { &mut counts.left };
                *number = number.saturating_add(1);
            }
        }
        self.write(&counts)
    }

    /// Begins anew: objects inside now count as entered.
    ///
    /// # Errors
    /// The store cannot be read or is full.
    pub fn reset(&self, inside: &[Occupancy<'_>]) -> Result<(), String> {
        if !self.is_wanted() {
            return Ok(());
        }
        let mut counts = self.read()?;
        counts.places.iter_mut().for_each(|place| place.labels.clear());
        counts.picture.iter_mut().for_each(Vec::clear);
        for &Occupancy { place, label, count: entered } in inside {
            if let Some(labels) = counts.of(place) {
                labels.push(LabelCounts { label: label.into(), entered, left: 0 });
            }
        }
        self.write(&counts)
    }
}

impl Counts {
    /// The counts of a place, or of the picture. `None` if they are not wanted.
    fn of(&mut self, place: Option<&str>) -> Option<&mut Vec<LabelCounts>> {
        match place {
            Some(name) => self
                .places
                .iter_mut()
                .find(|place| place.name == name)
                .map(|place| &mut place.labels),
            None => self.picture.as_mut(),
        }
    }

    /// The counts as a pipeline answers with them:
    /// `{"zones":[{"zone":"door","labels":{"person":{"entered":2,"left":1,"inside":1}}}],
    /// "objects":{...}}`, with `inside` from what is there now. `objects` is the picture.
    #[must_use]
    pub fn answer(self, inside: &[Occupancy<'_>]) -> Map<String, Value> {
        let numbers = |place: Option<&str>, mut labels: Vec<LabelCounts>| {
            let inside = inside.iter().filter(|inside| inside.place == place);
            let mut now = Map::new();
            for &Occupancy { label, count, .. } in inside {
                of_label(&mut labels, label);
                now.insert(label.into(), count.into());
            }
            let number = |LabelCounts { label, entered, left }| {
                let inside = now.get(&label).and_then(Value::as_u64).unwrap_or(0);
                (label, json!({ "entered": entered, "left": left, "inside": inside }))
            };
            labels.into_iter().map(number).collect::<Map<_, _>>()
        };
        let place = |PlaceCounts { name, labels, .. }: PlaceCounts| {
            let labels = numbers(Some(&name), labels);
            json!({ "zone": name, "labels": labels })
        };
        let places: Vec<_> = self.places.into_iter().map(place).collect();
        let mut answer = Map::new();
        answer.insert("zones".into(), places.into());
        if let Some(picture) = self.picture {
            answer.insert("objects".into(), numbers(None, picture).into());
        }
        answer
    }
}

/// The counts of a label, added if missing.
fn of_label<'a>(counts: &'a mut Vec<LabelCounts>, label: &str) -> Option<&'a mut LabelCounts> {
    if !counts.iter().any(|counts| counts.label == label) {
        counts.push(LabelCounts { label: label.into(), ..LabelCounts::default() });
    }
    counts.iter_mut().find(|counts| counts.label == label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Classes;

    fn door() -> Zone {
        let polygon = vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]];
        Zone { name: "door".into(), polygon, classes: Classes::all() }
    }

    fn gate() -> Line {
        Line { name: "gate".into(), from: [0.0; 2], to: [1.0; 2], classes: Classes::all() }
    }

    fn step<'a>(place: Option<&'a str>, label: &'a str, entered: bool) -> Step<'a> {
        Step { place, label, entered }
    }

    #[test]
    fn each_place_counts_what_enters_and_leaves_it_by_label() {
        let counter = Counter::new("one").zone(&door()).line(&gate()).picture(true);
        let steps = [
            step(None, "person", true),
            step(Some("door"), "person", true),
            step(Some("door"), "person", false),
            step(Some("gate"), "car", false),
            step(Some("yard"), "car", true),
        ];
        counter.add(&steps).unwrap();
        counter.add(&steps[..2]).unwrap();
        let inside = [Occupancy { place: Some("door"), label: "dog", count: 3 }];
        let numbers =
            |entered, left, inside| json!({ "entered": entered, "left": left, "inside": inside });
        let expected = json!({
            "zones": [
                {
                    "zone": "door",
                    "labels": { "person": numbers(2, 1, 0), "dog": numbers(0, 0, 3) }
                },
                { "zone": "gate", "labels": { "car": numbers(0, 1, 0) } },
            ],
            "objects": { "person": numbers(2, 0, 0) },
        });
        assert_eq!(Value::from(counter.read().unwrap().answer(&inside)), expected);
    }

    #[test]
    fn counts_go_on_where_name_and_shape_are_the_same() {
        let entered = |counter: &Counter| {
            let counts = counter.read().unwrap();
            counts.places[0].labels.first().map(|counts| counts.entered)
        };
        let counter = Counter::new("one").zone(&door());
        counter.add(&[step(Some("door"), "person", true)]).unwrap();
        assert_eq!(entered(&Counter::new("one").zone(&door()).picture(true)), Some(1));
        let moved = Zone { polygon: vec![[0.1; 2]; 3], ..door() };
        assert_eq!(entered(&Counter::new("one").zone(&moved)), None);
        assert_eq!(entered(&Counter::new("two").zone(&door())), None, "another pipeline's");
    }

    #[test]
    fn a_reset_begins_with_what_is_inside() {
        let counter = Counter::new("one").zone(&door());
        counter.add(&[step(Some("door"), "person", false)]).unwrap();
        counter.reset(&[Occupancy { place: Some("door"), label: "person", count: 2 }]).unwrap();
        let labels = counter.read().unwrap().places.remove(0).labels;
        assert_eq!(labels, [LabelCounts { label: "person".into(), entered: 2, left: 0 }]);
    }

    #[test]
    fn what_is_not_counted_does_not_touch_the_store() {
        let value = || Bucket::open("one").unwrap().get(KEY).unwrap();
        let counter = Counter::new("one");
        counter.add(&[step(None, "person", true)]).unwrap();
        counter.reset(&[]).unwrap();
        assert_eq!(value(), None);
        counter.picture(true).add(&[step(None, "person", true)]).unwrap();
        assert!(value().is_some());
    }
}
