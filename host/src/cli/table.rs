//! Text for a terminal: tables, and text of others that must not move the cursor.

use std::io::{IsTerminal, stdout};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a backtrace begins in what a worker reports of a pipeline that it has lost.
const BACKTRACE: &str = "error while executing at wasm backtrace";

/// Columns below which a cell is not cut: a word of them is still one.
const SHORTEST_CELL: usize = 8;

/// Columns between two cells.
const GAP: usize = 2;

/// What text is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Columns of the terminal; `None`: as many as it takes.
    width: Option<usize>,
    colours: bool,
}

impl Look {
    /// For a file or a program.
    pub(super) const PLAIN: Self = Self { width: None, colours: false };

    /// For what standard output leads to. Colours go to a terminal alone, unless NO_COLOR or
    /// CLICOLOR_FORCE say otherwise.
    pub(super) fn stdout() -> Self {
        let out = stdout();
        let size = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
        // A terminal that does not say how wide it is has 0 columns.
        let width = size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Self { width, colours: AutoStream::choice(&out) != ColorChoice::Never }
    }

    /// Of so many columns.
    #[cfg(test)]
    pub(super) fn of(width: usize, colours: bool) -> Self {
        Self { width: Some(width), colours }
    }

    /// The text in a style, if there are any.
    pub(super) fn styled(self, style: Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// The text, cut at the terminal's edge.
    pub(super) fn cut(self, text: &str) -> String {
        self.width.map_or_else(|| text.to_owned(), |width| cut(text, width))
    }
}

/// The style of a heading.
pub(super) const HEADING: Style = Style::new().bold();

/// What stands behind something else.
pub(super) const FAINT: Style = Style::new().dimmed();

/// The style of a session's state, or of a deployment's.
pub(super) fn of_state(state: &str) -> Style {
    let colour = match state {
        "running" | "healthy" => AnsiColor::Green,
        "failed" | "refused" | "aborted" | "rolled_back" | "unverified" | "interrupted" => {
            AnsiColor::Red
        }
        "starting" | "degraded" | "restarting" | "pending" | "probation" => AnsiColor::Yellow,
        _ => return Style::new(),
    };
    colour.on_default()
}

/// Rows as lines, their columns as wide as the widest cell, or narrower where the terminal is.
pub(super) fn lines<R: AsRef<[String]>>(rows: &[R], look: Look) -> Vec<String> {
    styled_lines(rows, look, |_, _, _| Style::new())
}

/// As [`lines`], with the style of each cell by its row, column and text.
pub(super) fn styled_lines<R: AsRef<[String]>>(
    rows: &[R],
    look: Look,
    style: impl Fn(usize, usize, &str) -> Style,
) -> Vec<String> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.as_ref().iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if let Some(width) = look.width {
        fit(&mut widths, width);
    }
    let line = |(number, row): (usize, &Vec<String>)| {
        let mut line = String::new();
        // Blanks that something follows.
        let mut blanks = 0;
        for ((column, cell), width) in row.iter().enumerate().zip(&widths) {
            let shown = cut(cell, *width);
            if !shown.is_empty() {
                line.extend(std::iter::repeat_n(' ', blanks));
                line += &look.styled(style(number, column, cell), &shown);
                blanks = 0;
            }
            blanks += width.saturating_sub(shown.width()) + GAP;
        }
        line
    };
    rows.iter().enumerate().map(line).collect()
}

/// Makes the widest columns narrower until all fit, none of them below [`SHORTEST_CELL`].
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    while over > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > SHORTEST_CELL) else {
            return;
        };
        *widest -= 1;
        over -= 1;
    }
}

/// The text in so many columns, with `…` in place of what is left out.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let kept = text.chars().take_while(|character| {
        let taken = left.checked_sub(character.width().unwrap_or_default());
        left = taken.unwrap_or_default();
        taken.is_some()
    });
    kept.chain((width > 0).then_some('…')).collect()
}

/// JSON objects as a table with a heading. `columns` are headings and members; the member `note` of
/// an object follows its row on a line of its own.
pub(super) fn entries(
    entries: &[Value],
    columns: &[(&str, &str)],
    note: &str,
    look: Look,
) -> String {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let row = |entry| columns.iter().map(|(_, key)| cell(entry, key)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(entries.iter().map(row)).collect();
    let notes = entries.iter().map(|entry| entry.get(note).and_then(Value::as_str));
    let style = |row: usize, column: usize, text: &str| match columns.get(column) {
        _ if row == 0 => HEADING,
        Some((_, "state")) => of_state(text),
        _ => Style::new(),
    };
    let mut text = String::new();
    let lines = styled_lines(&rows, look, style);
    for (line, found) in lines.iter().zip(std::iter::once(None).chain(notes)) {
        text += &format!("{line}\n");
        if let Some(found) = found {
            // The session's log has the backtrace.
            let lines = found.lines().take_while(|line| !line.starts_with(BACKTRACE));
            let found = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
            let found = format!("  {}: {}", note.replace('_', " "), printable(&found));
            text += &format!("{}\n", look.styled(FAINT, &found));
        }
    }
    text
}

/// A member of an object as a cell.
fn cell(entry: &Value, key: &str) -> String {
    match entry.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if key == "uptime_s" => {
            duration(number.as_f64().unwrap_or_default())
        }
        Some(Value::Array(list)) if list.is_empty() => "-".to_owned(),
        Some(Value::Array(list)) => {
            let word = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            list.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// `3d04h`, `1h02m`, `1m01s` or `12s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, seconds) = (whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{seconds:02}s"),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// The text without control characters, which could move the terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn the_widest_columns_give_way_to_a_narrow_terminal_and_short_ones_stay() {
        let table =
            rows(&[&["ID", "STATE", "SOURCE"], &["gate", "running", "rtsp://192.0.2.10/a"]]);
        let said = lines(&table, Look::of(25, false));
        assert_eq!(said, ["ID    STATE    SOURCE", "gate  running  rtsp://19…"]);
        // Narrower than it can be: a word stays a word.
        let said = lines(&table, Look::of(5, false));
        assert_eq!(said[1], "gate  running  rtsp://…");
        assert_eq!(lines(&table, Look::PLAIN)[1], "gate  running  rtsp://192.0.2.10/a");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let table = rows(&[&["入口", "a"], &["door", "b"]]);
        assert_eq!(lines(&table, Look::PLAIN), ["入口  a", "door  b"]);
        assert_eq!(cut("入口の門", 5), "入口…");
        assert_eq!(cut("gate", 0), "");
    }

    #[test]
    fn colours_move_no_column_and_are_left_out_where_nobody_wants_them() {
        let found = [json!({"id": "a", "state": "failed", "x": 1, "why": "it\nbroke"})];
        let columns = [("ID", "id"), ("STATE", "state"), ("X", "x")];
        let plain = entries(&found, &columns, "why", Look::PLAIN);
        assert_eq!(plain, "ID  STATE   X\na   failed  1\n  why: it broke\n");
        let coloured = entries(&found, &columns, "why", Look { width: None, colours: true });
        assert!(coloured.contains("\u{1b}[31mfailed\u{1b}[0m  1"), "{coloured:?}");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
    }

    #[test]
    fn times_are_as_long_as_a_person_needs() {
        let said = [59.9, 61.0, 3725.5, 97_200.0].map(duration);
        assert_eq!(said, ["0m59s", "1m01s", "1h02m", "1d03h"]);
    }
}
