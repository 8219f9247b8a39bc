//! A metric as a row of the list, and as lines of the page: Prometheus text exposition 0.0.4.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{LabelledValue, Metrics};

/// How a metric's values relate over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One row of the list.
#[derive(Debug)]
pub struct Metric {
    /// Its name on the page.
    pub name: &'static str,
    /// How its values relate over time.
    pub kind: Kind,
    /// What it says, in a sentence without full stop.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its values now. Without any, the page does not mention the metric.
    pub(super) read: fn(&Metrics) -> Vec<Sample>,
}

/// One value, with the values of the metric's labels in their order.
pub(super) struct Sample {
    labels: Vec<Cow<'static, str>>,
    value: u64,
}

impl Sample {
    /// For a metric with one label.
    pub(super) fn new(label: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Self { labels: vec![label.into()], value }
    }

    /// The same, or for a metric without one, if it is empty.
    pub(super) fn labelled(label: &'static str, value: u64) -> Self {
        if label.is_empty() { Self { labels: Vec::new(), value } } else { Self::new(label, value) }
    }

    /// For a metric whose first label is that of a thread or queue.
    pub(super) fn below(first: String, values: Vec<LabelledValue>) -> impl Iterator<Item = Self> {
        values.into_iter().map(move |(label, value)| {
            let mut sample = Self::new(first.clone(), value);
            sample.labels.extend(label.map(Cow::Borrowed));
            sample
        })
    }
}

impl Metric {
    pub(super) fn render(&self, metrics: &Metrics, page: &mut String) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let samples = (self.read)(metrics);
        if samples.is_empty() {
            return Ok(());
        }
        writeln!(page, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name)?;
        for Sample { labels, value } in samples {
            page.push_str(self.name);
            for (index, (name, value)) in self.labels.iter().zip(&labels).enumerate() {
                let before = if index == 0 { '{' } else { ',' };
                write!(page, "{before}{name}=\"{}\"", escaped(value))?;
            }
            let end = if labels.is_empty() { "" } else { "}" };
            writeln!(page, "{end} {value}")?;
        }
        Ok(())
    }
}

pub(super) fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value }]
}

/// A label's value as the exposition format has it between quotation marks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
