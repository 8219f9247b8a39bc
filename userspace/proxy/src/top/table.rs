//! Numbers that a person reads, in columns.

use crate::columns::{Align, aligned};

/// Rows under a heading; all cells but the first of a row are numbers, and stand to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|word| (*word).to_owned()).collect()] }
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// True without rows below the heading.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, with a blank one in front.
    pub(super) fn lines(&self) -> Vec<String> {
        std::iter::once(String::new()).chain(aligned(&self.rows, Align::RightButFirst)).collect()
    }
}

/// A number with three digits that count, and k, M, G or T.
pub(super) fn amount(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    if number < 99.95 {
        // Of few, also the tenths.
        let text = format!("{number:.1}");
        return text.strip_suffix(".0").unwrap_or(&text).to_owned();
    }
    let (mut scaled, mut unit) = (number, "");
    for next in ["k", "M", "G", "T"] {
        if scaled < 9999.5 {
            break;
        }
        (scaled, unit) = (scaled / 1000.0, next);
    }
    if unit.is_empty() || scaled >= 99.95 {
        format!("{scaled:.0}{unit}")
    } else {
        format!("{scaled:.1}{unit}")
    }
}

/// How much of a whole, in percent; a dash of nothing.
pub(super) fn share(part: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return "-".to_owned();
    }
    format!("{:.0} %", (part / whole * 100.0).clamp(0.0, 100.0))
}

/// A length of time in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (99.94, "99.9"),
            (99.95, "100"),
            (9999.0, "9999"),
            (9999.5, "10.0k"),
            (12_345.0, "12.3k"),
            (999_949.0, "1000k"),
            (12_345_678.0, "12.3M"),
            (1e13, "10.0T"),
        ] {
            assert_eq!(amount(number), text, "{number}");
        }
    }

    #[test]
    fn shares_are_percent_and_of_nothing_a_dash() {
        assert_eq!([share(1.0, 4.0), share(5.0, 4.0), share(0.0, 0.0)], ["25 %", "100 %", "-"]);
    }

    #[test]
    fn times_are_in_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (90_061, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
