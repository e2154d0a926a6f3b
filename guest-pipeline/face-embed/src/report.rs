//! The detection that a face becomes.

use ocelli_sdk::centerface::Face;
use ocelli_sdk::faceres::FaceReading;
use ocelli_sdk::{Attribute, Detection};

use crate::settings::Alignment;

/// The label of every detection.
pub const LABEL: &str = "face";

/// The detection of a face: its embedding, and the attributes `dimension`, `alignment`, `landmarks`
/// (a JSON array of five [x, y] in frame pixels) and, where asked for, `gender` and `age` in whole
/// years. An attribute about the face as it was found has the detection's score; `dimension` and
/// `alignment` are certain.
#[must_use]
pub fn detection(
    face: &Face,
    alignment: Alignment,
    reading: FaceReading,
    gender_and_age: bool,
) -> Detection {
    let FaceReading { embedding, gender, age } = reading;
    let attribute =
        |name: &str, value: String, score| Attribute { name: name.into(), value, score };
    let mut attributes = vec![
        attribute("dimension", embedding.len().to_string(), 1.0),
        attribute("alignment", alignment.name().into(), 1.0),
        attribute("landmarks", landmarks(face), face.score),
    ];
    if gender_and_age {
        attributes.push(attribute("gender", gender.label.into(), gender.score));
        attributes.push(attribute("age", age.years.round().to_string(), age.score));
    }
    Detection {
        attributes,
        embedding: Some(embedding),
        ..Detection::new(LABEL, face.score, face.bbox)
    }
}

/// Hundredths of a pixel, as boxes have them.
fn landmarks(face: &Face) -> String {
    let points: Vec<_> = face.landmarks.iter().map(|(x, y)| format!("[{x:.2},{y:.2}]")).collect();
    format!("[{}]", points.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::faceres::{Age, DIMENSION, Gender};
    use ocelli_sdk::geometry::BBox;

    fn report(gender_and_age: bool) -> Detection {
        let face = Face {
            bbox: BBox::from_xywh(10.0, 20.0, 30.0, 40.0),
            score: 0.9,
            landmarks: [(15.0, 30.125), (30.0, 30.0), (22.0, 40.0), (16.0, 50.0), (29.0, 50.0)],
        };
        let gender = Gender { label: "female", score: 0.8 };
        let age = Age { years: 41.6, score: 0.7 };
        let reading = FaceReading { embedding: vec![0.03125; DIMENSION], gender, age };
        detection(&face, Alignment::FivePoint, reading, gender_and_age)
    }

    fn said<'a>(detection: &'a Detection, name: &str) -> Option<(&'a str, f32)> {
        let found = detection.attributes.iter().find(|attribute| attribute.name == name);
        found.map(|attribute| (attribute.value.as_str(), attribute.score))
    }

    #[test]
    fn every_face_carries_its_embedding_and_the_dimension() {
        let detection = report(false);
        assert_eq!(
            (detection.label.as_str(), detection.score, detection.box_.x),
            ("face", 0.9, 10.0)
        );
        assert_eq!(detection.embedding.as_ref().map(Vec::len), Some(1024));
        assert_eq!(said(&detection, "dimension"), Some(("1024", 1.0)));
        assert_eq!(said(&detection, "alignment"), Some(("five-point", 1.0)));
    }

    #[test]
    fn landmarks_are_json() {
        let detection = report(false);
        let (text, score) = said(&detection, "landmarks").unwrap();
        let points: Vec<[f32; 2]> = serde_json::from_str(text).unwrap();
        assert_eq!((points.len(), points[2], score), (5, [22.0, 40.0], 0.9));
    }

    #[test]
    fn gender_and_age_are_said_where_asked_for_alone() {
        assert_eq!(said(&report(false), "age"), None);
        assert_eq!(said(&report(true), "age"), Some(("42", 0.7)));
        assert_eq!(said(&report(true), "gender"), Some(("female", 0.8)));
    }
}
