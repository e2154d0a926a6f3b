//! The labels of common data sets, in the order of their models' classes, and the check of labels
//! in settings.

use crate::settings::{listed, nearest};

/// The 80 labels of COCO (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014).
pub const COCO_80: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// Checks that all `names`, the array at `path` of the settings, are among the `known` labels.
///
/// # Errors
/// Names the place, the label, and the nearest known one:
/// `settings.labels[1]: no label "persn", did you mean "person"?`
pub fn check<T: AsRef<str>>(names: &[String], known: &[T], path: &str) -> Result<(), String> {
    for (position, name) in names.iter().enumerate() {
        let labels = || known.iter().map(AsRef::<str>::as_ref);
        if !labels().any(|label| label == name) {
            let hint = nearest(name, labels()).map(|n| format!(", did you mean {n:?}?"));
            let hint = hint.unwrap_or_else(|| format!("; there are {}", listed(labels())));
            return Err(format!("{path}[{position}]: no label {name:?}{hint}"));
        }
    }
    Ok(())
}

/// Some classes of a model, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Class by class; empty means all.
    wanted: Vec<bool>,
}

impl Classes {
    /// All classes.
    #[must_use]
    pub fn all() -> Self {
        Self { wanted: Vec::new() }
    }

    /// Those of these `names`, or all without one. `labels` are the model's, in the order of its
    /// classes; [`check`] tells whether every name is among them.
    #[must_use]
    pub fn named<T: AsRef<str>>(names: &[String], labels: &[T]) -> Self {
        if names.is_empty() {
            return Self::all();
        }
        let wants = |label: &T| names.iter().any(|name| name == label.as_ref());
        Self { wanted: labels.iter().map(wants).collect() }
    }

    /// Whether the class is one of them.
    #[must_use]
    pub fn wants(&self, class: u32) -> bool {
        self.wanted.is_empty() || self.wanted.get(class as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_names_or_all() {
        let wanted = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let classes = Classes::named(&names, &["person", "bicycle", "car"]);
            [0, 1, 2, 3].map(|class| classes.wants(class))
        };
        assert_eq!(wanted(&["car", "person"]), [true, false, true, false]);
        assert_eq!(wanted(&[]), [true; 4]);
        assert_eq!(wanted(&["none"]), [false; 4]);
    }
}
