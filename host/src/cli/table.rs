//! Text for a terminal: tables, and text of others that must not move the cursor.

use serde_json::Value;

/// How a backtrace begins in what a worker reports of a pipeline that it has lost.
const BACKTRACE: &str = "error while executing at wasm backtrace";

/// Rows as lines, their columns as wide as the widest cell.
pub(super) fn lines<R: AsRef<[String]>>(rows: &[R]) -> impl Iterator<Item = String> {
    let mut widths = Vec::new();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.as_ref().iter().map(|cell| printable(cell)).collect()).collect();
    for row in &rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.into_iter().map(move |row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    })
}

/// JSON objects as a table with a heading. `columns` are headings and members; the member `note` of
/// an object follows its row on a line of its own.
pub(super) fn entries(entries: &[Value], columns: &[(&str, &str)], note: &str) -> String {
    let cell = |entry: &Value, key: &str| match entry.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if key == "uptime_s" => {
            duration(number.as_f64().unwrap_or_default())
        }
        Some(other) => other.to_string(),
    };
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let row = |entry| columns.iter().map(|(_, key)| cell(entry, key)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(entries.iter().map(row)).collect();
    let notes = entries.iter().map(|entry| entry.get(note).and_then(Value::as_str));
    let mut text = String::new();
    for (line, found) in lines(&rows).zip(std::iter::once(None).chain(notes)) {
        text += &format!("{line}\n");
        if let Some(found) = found {
            // The session's log has the backtrace.
            let lines = found.lines().take_while(|line| !line.starts_with(BACKTRACE));
            let found = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
            text += &format!("  {}: {}\n", note.replace('_', " "), printable(&found));
        }
    }
    text
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}h{minutes:02}m") } else { format!("{minutes}m{seconds:02}s") }
}

/// The text without control characters, which could move the terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}
