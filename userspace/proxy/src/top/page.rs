//! A page of metrics, read back: Prometheus text exposition 0.0.4 as [`crate::telemetry::metrics`] writes it.

use std::collections::HashMap;

/// All samples of one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// By name and labels as they are written.
    values: HashMap<String, u64>,
    /// Those in the order of the page.
    order: Vec<String>,
}

impl Page {
    /// Reads a page. What is no sample with a whole number is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        // Labels may be anybody's, and must not speak to the terminal.
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains(char::is_control)) {
            let sample =
                line.rsplit_once(' ').and_then(|(series, value)| Some((series, value.parse().ok()?)));
            if let Some((series, value)) = sample {
                page.values.insert(series.to_owned(), value);
                page.order.push(series.to_owned());
            }
        }
        page
    }

    /// The value of a series, named with its labels; zero if there is none.
    pub(super) fn get(&self, series: &str) -> u64 {
        self.values.get(series).copied().unwrap_or(0)
    }

    /// The value for one label.
    pub(super) fn one(&self, name: &str, label: &str, value: &str) -> u64 {
        self.get(&format!("{name}{{{label}=\"{value}\"}}"))
    }

    /// The values that the first label of a metric has, in the order of the page.
    pub(super) fn labels<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let mut last = None;
        let first_label = move |series: &'a String| {
            let labels = series.strip_prefix(name)?.strip_prefix('{')?;
            labels.split('"').nth(1)
        };
        self.order.iter().filter_map(first_label).filter(move |label| last.replace(*label) != Some(*label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a b\n# TYPE a gauge\na 7\na_b{q=\"0\",r=\"x\"} 1\na_b{q=\"0\",r=\"y\"} 2\na_b{q=\"1\",r=\"x\"} 3\n\
        evil{l=\"\u{1b}[2J\"} 5\nbroken\nhalf 1.5\nc{d=\"e f\"} 9\n";

    #[test]
    fn samples_are_found_by_their_names_with_labels() {
        let page = Page::parse(TEXT);
        assert_eq!((page.get("a"), page.get("a_b{q=\"1\",r=\"x\"}")), (7, 3));
        assert_eq!(page.labels("evil").count(), 0);
        assert_eq!((page.one("c", "d", "e f"), page.get("half"), page.get("broken")), (9, 0, 0));
    }

    #[test]
    fn the_first_label_is_listed_once_in_the_order_of_the_page() {
        let page = Page::parse(TEXT);
        assert_eq!(page.labels("a_b").collect::<Vec<_>>(), ["0", "1"]);
        assert_eq!(page.labels("c").collect::<Vec<_>>(), ["e f"]);
        assert_eq!(page.labels("a").count(), 0);
    }
}
