//! Tables in Markdown, as the pages have them.

use std::fmt::{self, Display, Formatter};

/// A table that is written as Markdown, ready to be pasted into a page.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no row yet.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

/// An empty line, then the table.
impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (index, row) in self.rows.iter().enumerate() {
            // A bar would begin another cell, a line another row.
            let cells = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
            if index == 0 {
                writeln!(f, "| {} |", vec!["---"; row.len()].join(" | "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(["cameras", "CPU"]);
        table.row(["1", "a | b\nc"]);
        assert_eq!(table.to_string(), "\n| cameras | CPU |\n| --- | --- |\n| 1 | a \\| b c |\n");
    }
}
