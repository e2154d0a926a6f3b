//! The pipeline's settings.

use ocelli_sdk::centerface::{self, Face, MAX_PIXELS};
use ocelli_sdk::settings;

/// Most faces of a frame that the settings may ask for. With embeddings, a result of that many has
/// half the bytes that a frame may give.
const MOST_FACES: usize = 256;

// The description of `detector_size` has the figure as text.
const _: () = assert!(MAX_PIXELS == 524_288);

settings! {
    /// How a face is cut from the frame.
    pub enum Alignment {
        /// Turned and scaled so that eyes, nose and mouth lie where they lie in every face.
        FivePoint = "five-point",
        /// A square about the box.
        Box = "box",
    }
}

settings! {
    /// Settings of face-embed.
    pub struct Settings {
        /// Width and height of the detector's input, at most 524288 pixels in all. Larger: smaller
        /// faces, more time.
        pub detector_size: [u32; 2] = [416, 416], each(multiples_of(centerface::SIDE_STEP))
            => |size, path| centerface::check_size(*size, path);
        /// Faces of this score and more are reported.
        pub score: f32 = 0.5, above(0).up_to(1);
        /// Of two boxes that overlap by more than this, the better stands.
        pub iou: f32 = 0.3, above(0).up_to(1);
        /// Most faces of a frame, the best first.
        pub max_faces: usize = 16, at_least(1).up_to(MOST_FACES);
        /// Faces whose box has a side shorter than this are left out.
        pub min_face_pixels: f32 = 32.0, at_least(0);
        /// five-point: turned and scaled by the landmarks. box: a square about the box.
        pub alignment: Alignment = Alignment::FivePoint;
        /// Whether the attributes gender and age are reported.
        pub gender_and_age: bool = false;
        /// Look at no more frames than this a second of the stream. Null: at every frame that
        /// comes.
        pub max_results_per_second: Option<f64> = None, above(0);
    }
}

impl Settings {
    /// Whether a face, in frame pixels, is to be embedded.
    #[must_use]
    pub fn is_large_enough(&self, face: &Face) -> bool {
        face.bbox.width().min(face.bbox.height()) >= self.min_face_pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::settings::{Setting, read, schema};
    use ocelli_sdk::testing::Schema;
    use serde_json::Value;

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        let cases = [
            (r#"{"score":0}"#, "settings.score: 0 "),
            (r#"{"iou":1.5}"#, "settings.iou: 1.5 "),
            (r#"{"detector_size":[400,416]}"#, "settings.detector_size: [400, 416] "),
            (r#"{"detector_size":416}"#, "settings.detector_size: "),
            (r#"{"max_faces":0}"#, "settings.max_faces: 0 "),
            (r#"{"min_face_pixels":-1}"#, "settings.min_face_pixels: -1 "),
            (
                r#"{"alignment":"eyes"}"#,
                "settings.alignment: unknown variant `eyes`, expected `five-point` or `box`",
            ),
            (r#"{"max_results_per_second":0}"#, "settings.max_results_per_second: 0 "),
            (r#"{"detector":416}"#, "unknown field `detector`"),
        ];
        for (json, expected) in cases {
            let error = read::<Settings>(json).unwrap_err();
            assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn the_schema_knows_the_settings_and_its_defaults_are_sound() {
        let schema = schema::<Settings>();
        let properties = schema["properties"].as_object().unwrap();
        let defaults: serde_json::Map<_, _> = properties
            .iter()
            .map(|(name, property)| (name.clone(), property["default"].clone()))
            .collect();
        let settings = read::<Settings>(&Value::Object(defaults.clone()).to_string()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings, read::<Settings>("").unwrap());
        assert_eq!(defaults["iou"].to_string(), "0.3");
        assert_eq!(defaults["alignment"], Alignment::FivePoint.name());
        assert_eq!(Settings::default().to_json(), Value::Object(defaults));
    }

    #[test]
    fn the_schema_takes_what_the_settings_take_and_refuses_the_rest() {
        let schema = Schema::read(&schema::<Settings>().to_string()).unwrap();
        let every_key = r#"{"detector_size":[960,544],"score":0.6,"iou":0.4,"max_faces":256,"min_face_pixels":0,
            "alignment":"box","gender_and_age":true,"max_results_per_second":0.5}"#;
        for settings in ["{}", r#"{"score":1,"max_results_per_second":null}"#, every_key] {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(read::<Settings>(settings).is_ok(), "{settings}");
        }
        let wrong = [
            (r#"{"score":0}"#, ".score"),
            (r#"{"iou":1.5}"#, ".iou"),
            (r#"{"detector_size":[400,416]}"#, ".detector_size[0]"),
            (r#"{"detector_size":[416]}"#, ".detector_size"),
            (r#"{"max_faces":257}"#, ".max_faces"),
            (r#"{"min_face_pixels":-1}"#, ".min_face_pixels"),
            (r#"{"alignment":"eyes"}"#, ".alignment"),
            (r#"{"gender_and_age":1}"#, ".gender_and_age"),
            (r#"{"detector":416}"#, "detector"),
        ];
        for (settings, place) in wrong {
            assert!(schema.check(settings).is_err_and(|error| error.contains(place)), "{settings}");
            assert!(read::<Settings>(settings).is_err(), "{settings}");
        }
    }
}
