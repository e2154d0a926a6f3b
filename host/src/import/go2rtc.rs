//! go2rtc's config: `streams`, a name and its sources for each.

use serde_json::{Map, Value};

use super::stream::{self, ImportedStream};
use super::{Import, ImportError, ImportedCamera, LeftOut, Variables};

/// The sections with cameras behind them that `streams` does not hold.
const OTHER_SECTIONS: [&str; 2] = ["homekit", "hass"];

pub(super) fn read(
    document: &Value,
    pipeline: &str,
    variables: &Variables,
) -> Result<Import, ImportError> {
    // Frigate has the same section within its own.
    let streams = streams(document).or_else(|| document.get("go2rtc").and_then(streams));
    let streams = streams.filter(|streams| !streams.is_empty());
    let streams = streams.ok_or(ImportError::Empty { section: "streams" })?;
    let mut import = Import::default();
    for (name, sources) in streams {
        match stream::first_of(sources, variables) {
            Ok(ImportedStream { mut keys, mut notes }) => {
                keys.insert("pipeline".to_owned(), pipeline.into());
                if let Some(main) = main_stream(name, streams) {
                    notes.push(format!(
                        "by its name a smaller stream of the camera {main}, whose `substream` it may be"
                    ));
                }
                import.cameras.push(ImportedCamera { id: name.clone(), table: keys, notes });
            }
            Err(reason) => import.left_out.push(LeftOut::new(name, &reason)),
        }
    }
    for section in OTHER_SECTIONS {
        if document.get(section).is_some_and(|value| !value.is_null()) {
            import.notes.push(format!("the section `{section}` has no entry here"));
        }
    }
    Ok(import)
}

/// The streams of a config of go2rtc's.
pub(super) fn streams(document: &Value) -> Option<&Map<String, Value>> {
    document.get("streams")?.as_object()
}

/// The stream of which this is, by its name, the smaller one.
fn main_stream<'a>(name: &str, streams: &'a Map<String, Value>) -> Option<&'a str> {
    let stem = ["_sub", "-sub", "_low", "_lq"].iter().find_map(|end| name.strip_suffix(end))?;
    let mains = ["", "_main", "-main", "_hd", "_hq"];
    let names = mains.iter().map(|end| format!("{stem}{end}"));
    names.into_iter().find_map(|main| Some(streams.get_key_value(&main)?.0.as_str()))
}
