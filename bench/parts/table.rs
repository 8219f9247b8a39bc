//! Tables of numbers, in a form that can be pasted into Markdown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::spread::Spread;

/// A table with this header.
#[must_use]
pub fn begin(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

/// Columns of numbers are aligned once there are rows that make columns.
#[must_use]
pub fn finish(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Median, and both ends.
#[must_use]
pub fn spread(s: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}–{:.digits$})", s.median, s.min, s.max)
}

/// What is not there.
#[must_use]
pub fn dash() -> String {
    "–".to_owned()
}
