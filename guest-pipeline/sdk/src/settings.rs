//! Typed settings with errors that a person can act on.

use serde::de::DeserializeOwned;

/// Reads settings, a JSON object; an empty text counts as `{}`. Derive `Deserialize` with
/// `#[serde(default, deny_unknown_fields)]`, so that every setting is optional and a misspelt one
/// is an error.
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

/// The known name most like `name`, for "did you mean". `None` when no name is at all alike.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let alike = known.into_iter().map(|k| (strsim::jaro_winkler(&name, &k.to_lowercase()), k));
    // 0.7 takes transposed and missing letters and leaves out words that merely share a letter or
    // two.
    alike.filter(|(score, _)| *score >= 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
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
}
