//! The labels of common data sets, in the order of their models' classes, and the check of labels
//! in settings.

use crate::settings::nearest;

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

/// How many labels an error lists before it says how many more there are.
const LISTED: usize = 8;

/// Checks that all `names`, the array at `path` of the settings, are among the `known` labels.
///
/// # Errors
/// Names the place, the label, and the nearest known one:
/// `settings.labels[1]: no label "persn", did you mean "person"?`
pub fn check<T: AsRef<str>>(names: &[String], known: &[T], path: &str) -> Result<(), String> {
    for (position, name) in names.iter().enumerate() {
        let labels = || known.iter().map(AsRef::as_ref);
        if !labels().any(|label| label == name) {
            let hint = nearest(name, labels()).map(|n| format!(", did you mean {n:?}?"));
            let hint = hint.unwrap_or_else(|| {
                let listed: Vec<_> =
                    labels().take(LISTED).map(|label| format!("{label:?}")).collect();
                let more = known.len().saturating_sub(LISTED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("; there are {}{more}", listed.join(", "))
            });
            return Err(format!("{path}[{position}]: no label {name:?}{hint}"));
        }
    }
    Ok(())
}
