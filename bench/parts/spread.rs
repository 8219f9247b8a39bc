//! Many measurements in few numbers.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Median of the rounds, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min, max })
    }
}

/// Percentiles, microseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// One in a hundred was slower.
    pub p99: f64,
    /// One in a thousand was slower.
    pub p99_9: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// `None` if nothing was recorded.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a minute in nanoseconds fits a double's 53 bits")]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        let latency = Self { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: us(histogram.max()) };
        (!histogram.is_empty()).then_some(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
