//! Text in columns, each as wide as its widest cell.

/// Where cells stand in their columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// All to the left: words.
    Left,
    /// All but the first of a row to the right: numbers, with their name in front.
    RightButFirst,
}

/// The lines, without spaces at their ends. All rows have as many cells as the first.
#[must_use]
pub fn aligned(rows: &[impl AsRef<[String]>], align: Align) -> Vec<String> {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let width =
        |column: usize| rows.iter().map(|row| row.as_ref()[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let padded = |(column, (cell, width)): (usize, (&String, &usize))| match align {
        Align::RightButFirst if column > 0 => format!("{cell:>width$}"),
        Align::Left | Align::RightButFirst => format!("{cell:width$}"),
    };
    let line = |row: &[String]| {
        let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(padded).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(|row| line(row.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() {
        let rows = [["a", "bb", "c"], ["aaa", "b", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, Align::Left), ["a    bb  c", "aaa  b"]);
        assert_eq!(aligned(&rows, Align::RightButFirst), ["a    bb  c", "aaa   b"]);
        assert!(aligned(&[] as &[Vec<String>], Align::Left).is_empty());
    }
}
