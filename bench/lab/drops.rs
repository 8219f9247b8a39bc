//! What the proxy says it has thrown away: its page of metrics, as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use mtproxy_tests::NetNs;

/// Where the proxy has its page, in its own namespace.
pub(crate) const METRICS_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9100);
/// Longer than a proxy takes that is as busy as it can be.
const PATIENCE: Duration = Duration::from_secs(2);

/// The page at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Asks for it.
    pub(crate) fn fetch(namespace: &NetNs) -> Result<Self> {
        let text = namespace.enter(|| -> Result<String> {
            let mut stream = TcpStream::connect_timeout(&METRICS_ADDRESS, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        Ok(Self { text: text.context("asking the proxy for its metrics")? })
    }

    /// The value of a metric without labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Every counter with `drop` in its name, by a short form of name and reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let samples = self.text.lines().filter(|line| !line.starts_with('#'));
        let drops = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let (metric, labels) = name.split_once('{').unwrap_or((name, ""));
            let metric = metric.contains("drop").then_some(metric)?;
            let labels: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
            let kind = metric.trim_start_matches("mtproxy_").trim_end_matches("_total").replace('_', " ");
            // No counter of a run this short needs more than 53 bits.
            Some((format!("{kind} {}", labels.join(" ")).trim().to_owned(), value.parse::<u64>().ok()?))
        });
        drops.fold(BTreeMap::new(), |mut sums, (name, count)| {
            *sums.entry(name).or_default() += count;
            sums
        })
    }

    /// What was dropped since `earlier`.
    pub(crate) fn drops_since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let before = earlier.drops();
        let grown = self.drops().into_iter().map(|(name, count)| {
            let grown = count.saturating_sub(before.get(&name).copied().unwrap_or_default());
            (name, grown)
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

/// In one line.
pub(crate) fn describe(drops: &BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return "–".to_owned();
    }
    let words: Vec<String> = drops.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_what_has_grown_under_each_reason() {
        let page = |idle, frames| Page {
            text: format!(
                "HTTP/1.0 200 OK\r\n\r\n# HELP mtproxy_sessions_dropped_total Sessions\nmtproxy_sessions_open 7\n\
                 mtproxy_sessions_dropped_total{{reason=\"idle\"}} {idle}\n\
                 mtproxy_xdp_drops_total{{queue=\"0\",reason=\"bad_checksum\"}} {frames}\n"
            ),
        };
        let later = page(3, 5);
        assert_eq!(later.value("mtproxy_sessions_open"), Some(7.0));
        let drops = later.drops_since(&page(3, 1));
        assert_eq!(describe(&drops), "xdp drops 0 bad_checksum: 4");
        assert_eq!(describe(&later.drops_since(&later)), "–");
    }
}
