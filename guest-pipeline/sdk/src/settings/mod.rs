//! Typed settings with errors that a person can act on. [`settings!`](crate::settings!) declares
//! them: type, defaults, limits and schema at once; [`read`] reads and checks them, [`schema`] is
//! what a pipeline describes.

mod declare;
pub mod limits;
#[doc(hidden)]
pub mod object;
mod value;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use value::Setting;

/// Reads settings of a type that [`settings!`](crate::settings!) declares, and checks them; an
/// empty text counts as `{}`.
///
/// # Errors
/// Names the setting, its value and what would be right:
/// `settings.score: 1.5 is not above 0 and up to 1`.
pub fn read<T: Setting>(json: &str) -> Result<T, String> {
    let settings: T = parse(json)?;
    settings.check(&limits::any(), "settings")?;
    Ok(settings)
}

/// The JSON Schema of settings, for [`Description`](crate::Description). The comment of the type
/// is its title.
#[must_use]
pub fn schema<T: Setting>() -> Value {
    let mut schema = T::describe(&limits::any());
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    if let Some(Value::String(title)) = schema.remove("description") {
        schema.insert("title".into(), title.trim_end_matches('.').into());
    }
    schema.into()
}

/// Reads settings of a type with `Deserialize`, a JSON object; an empty text counts as `{}`. Derive
/// `Deserialize` with `#[serde(default, deny_unknown_fields)]`, so that every setting is optional
/// and a misspelt one is an error.
///
/// # Errors
/// Names the field that is wrong: `settings.score: invalid type: string "high", expected f32`.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    // serde would take an array for a struct too, field by field.
    if !json.trim_start().starts_with('{') {
        return Err("settings: not a JSON object".into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let settings = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!(".{path}") };
        format!("settings{field}: {}", error.into_inner())
    })?;
    deserializer.end().map_err(|error| format!("settings: {error}"))?;
    Ok(settings)
}

/// A setting of the session before [`Pipeline::new`](crate::Pipeline::new), for what
/// [`Pipeline::describe`](crate::Pipeline::describe) says of models: a text as it is, anything else
/// as JSON. `None` where it is left out, and natively.
#[must_use]
pub fn given(key: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::wasi::config::store::get(key).ok().flatten();
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = key;
        None
    }
}

/// The known name most like `name`, for "did you mean". `None` when no name is at all alike.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let alike = known.into_iter().map(|k| (strsim::jaro_winkler(&name, &k.to_lowercase()), k));
    // 0.7 takes transposed and missing letters and leaves out words that merely share a letter or
    // two.
    alike.filter(|(score, _)| *score >= 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}

/// How many names an error lists before it says how many more there are.
const LISTED: usize = 8;

/// The first names, and how many more there are.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let first: Vec<_> = names.take(LISTED).map(|name| format!("{name:?}")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        score: f32,
        labels: Vec<String>,
    }

    #[test]
    fn settings_left_out_take_their_defaults() {
        assert_eq!(parse::<Example>("{}").unwrap(), Example::default());
        assert_eq!(parse::<Example>("").unwrap(), Example::default());
        assert_eq!(parse::<Example>(r#"{"score":0.5}"#).unwrap().score, 0.5);
    }

    #[test]
    fn an_error_names_the_field() {
        let wrong_type = parse::<Example>(r#"{"score":"high"}"#).unwrap_err();
        assert!(wrong_type.starts_with("settings.score: invalid type"), "{wrong_type}");
        let nested = parse::<Example>(r#"{"labels":["person",7]}"#).unwrap_err();
        assert!(nested.starts_with("settings.labels[1]: "), "{nested}");
        let unknown = parse::<Example>(r#"{"scor":0.5}"#).unwrap_err();
        assert!(
            unknown.contains("unknown field `scor`") && unknown.contains("`score`"),
            "{unknown}"
        );
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for json in ["[]", "7", "{", "{} {}", "null"] {
            assert!(parse::<Example>(json).is_err_and(|e| e.starts_with("settings")), "{json}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_or_none() {
        let known = ["person", "parking meter", "bicycle"];
        assert_eq!(nearest("persn", known), Some("person"));
        assert_eq!(nearest("Bycicle", known), Some("bicycle"));
        assert_eq!(nearest("xyzzy", known), None);
    }

    crate::settings! {
        /// What is seen.
        enum Kind {
            Near = "near-by",
            Far = "far",
        }
    }

    crate::settings! {
        /// A spot.
        struct Spot {
            /// Its name.
            name: String, count(1..=4);
            place as "at": [f32; 2], each(at_least(0).up_to(1));
            kind?: Kind = Kind::Near;
        }
    }

    crate::settings! {
        /// Settings of
        /// nothing.
        struct Declared {
            /// How sure
            /// it is.
            score: f32 = 0.4, above(0).up_to(1);
            rate: Option<f64> = None, above(0);
            side: u32 = 64, multiples_of(32);
            model: String = "a-1".into(), one_of(["a-1", "b-2"]);
            words: Vec<String> = vec!["x".into()], count(0..=2)
                => |words, path| crate::labels::check(words, &["x", "y"], path);
            kind: Kind = Kind::Far;
            most?: u8, at_least(2);
            spots: Vec<Spot> = Vec::new();
        }
    }

    fn refused(json: &str) -> String {
        read::<Declared>(json).unwrap_err()
    }

    #[test]
    fn what_is_left_out_has_its_declared_default() {
        let default = read::<Declared>("").unwrap();
        assert_eq!(default, Declared::default());
        assert_eq!((default.score, default.rate, default.most), (0.4, None, None));
        assert_eq!((default.model.as_str(), default.kind), ("a-1", Kind::Far));
        let given = r#"{"score":1,"rate":0.5,"kind":"near-by","most":2,
            "spots":[{"name":"é","at":[0,1],"kind":"far"},{"name":"b","at":[1,1]}]}"#;
        let given = read::<Declared>(given).unwrap();
        assert_eq!((given.score, given.rate, given.kind), (1.0, Some(0.5), Kind::Near));
        assert_eq!((given.most, given.words), (Some(2), vec!["x".to_owned()]));
        let spots: Vec<_> =
            given.spots.iter().map(|s| (s.name.as_str(), s.place, s.kind)).collect();
        assert_eq!(spots, [("é", [0.0, 1.0], Some(Kind::Far)), ("b", [1.0, 1.0], None)]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path_with_what_would_be_right() {
        let cases = [
            (r#"{"score":0}"#, "settings.score: 0 is not above 0 and up to 1"),
            (r#"{"score":"a"}"#, "settings.score: invalid type: string"),
            (r#"{"score":null}"#, "settings.score: invalid type: null"),
            (r#"{"rate":0}"#, "settings.rate: 0 is not above 0"),
            (r#"{"side":48}"#, "settings.side: 48 is not 32 or more in steps of 32"),
            (r#"{"model":"a-2"}"#, "settings.model: there is no \"a-2\", did you mean \"a-1\"?"),
            (r#"{"model":"?"}"#, "settings.model: there is no \"?\"; there are \"a-1\", \"b-2\""),
            (r#"{"words":["x","x","x"]}"#, "settings.words: 3 are more than 2"),
            (r#"{"words":["z"]}"#, "settings.words[0]: no label \"z\"; there are \"x\", \"y\""),
            (r#"{"kind":"wide"}"#, "settings.kind: unknown variant `wide`, expected `near-by` or"),
            (r#"{"most":1}"#, "settings.most: 1 is not 2 or more"),
            (r#"{"most":256}"#, "settings.most: invalid value: integer `256`"),
            (r#"{"spots":[{"name":"a"}]}"#, "settings.spots[0]: missing field `at`"),
            (r#"{"spots":[{"name":"","at":[0,0]}]}"#, "settings.spots[0].name: 0 are fewer than 1"),
            (r#"{"spots":[{"name":"a","at":[0,2]}]}"#, "settings.spots[0].at[1]: 2 is not 0 to 1"),
            (r#"{"spots":[{"place":1}]}"#, "settings.spots[0].place: unknown field `place`"),
            (r#"{"spots":[[1]]}"#, "settings.spots[0]: invalid type: sequence, expected an object"),
            (r#"{"scor":1}"#, "settings.scor: unknown field `scor`"),
            (r#"{"score":1,"score":1}"#, "duplicate field `score`"),
        ];
        for (json, expected) in cases {
            let error = refused(json);
            assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn the_schema_says_all_that_is_declared() {
        let expected = serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Settings of nothing",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "score": {
                    "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.4,
                    "description": "How sure it is."
                },
                "rate": { "type": ["number", "null"], "exclusiveMinimum": 0, "default": null },
                "side": { "type": "integer", "minimum": 32, "maximum": 4_294_967_295_u32,
                    "multipleOf": 32, "default": 64 },
                "model": { "enum": ["a-1", "b-2"], "default": "a-1" },
                "words": {
                    "type": "array", "items": { "type": "string" }, "maxItems": 2, "default": ["x"]
                },
                "kind": { "enum": ["near-by", "far"], "default": "far" },
                "most": { "type": "integer", "minimum": 2, "maximum": 255 },
                "spots": {
                    "type": "array",
                    "default": [],
                    "items": {
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["name", "at"],
                        "description": "A spot.",
                        "properties": {
                            "name": {
                                "type": "string", "minLength": 1, "maxLength": 4,
                                "description": "Its name."
                            },
                            "at": {
                                "type": "array",
                                "items": { "type": "number", "minimum": 0, "maximum": 1 },
                                "minItems": 2, "maxItems": 2
                            },
                            "kind": { "enum": ["near-by", "far"], "default": "near-by" }
                        }
                    }
                }
            }
        });
        assert_eq!(schema::<Declared>(), expected);
        assert_eq!(schema::<Declared>()["properties"]["score"]["default"].to_string(), "0.4");
    }

    #[test]
    fn a_value_goes_back_to_the_json_that_it_came_from() {
        let spot = serde_json::json!({ "name": "a", "at": [0.5, 1.0], "kind": "far" });
        let read: Spot = serde_json::from_value(spot.clone()).unwrap();
        assert_eq!(read.to_json(), spot);
    }
}
