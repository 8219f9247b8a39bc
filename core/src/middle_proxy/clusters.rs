//! Which middle proxies serve which data centre: the addresses of a configuration file, resolved.
//!
//! ```text
//!   client's DcId ──exact──► cluster ──► targets ──► each a pool of links (links/pool.rs)
//!                 └─ else ──► the default cluster
//! ```
//! Two clusters that name the same address share one target (protocol.md section 9.2).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::dc::DcId;

/// One middle proxy and how many links there shall be to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Links kept in any case.
    pub min_connections: u16,
    /// Links at most, when some are stopped or broken.
    pub max_connections: u16,
}

/// All middle proxies by the data centre they lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    default: DcId,
    targets: Vec<TargetConfig>,
    by_dc: BTreeMap<DcId, Vec<usize>>,
}

impl Clusters {
    /// Clusters in any order. `default` serves data centres without one; it may be absent, then they have none.
    /// What is said of an address the last time counts.
    #[must_use]
    pub fn new(default: DcId, clusters: impl IntoIterator<Item = (DcId, Vec<TargetConfig>)>) -> Self {
        let mut all = Self { default, targets: Vec::new(), by_dc: BTreeMap::new() };
        for (dc, targets) in clusters {
            // Also one without targets: its clients must not end up at another data centre, the default one.
            let mut indices = all.by_dc.remove(&dc).unwrap_or_default();
            for target in targets {
                let index = all.index_of(target);
                if !indices.contains(&index) {
                    indices.push(index);
                }
            }
            all.by_dc.insert(dc, indices);
        }
        all
    }

    fn index_of(&mut self, target: TargetConfig) -> usize {
        let known = self.targets.iter().position(|other| other.address == target.address);
        let index = known.unwrap_or(self.targets.len());
        match known {
            Some(index) => self.targets[index] = target,
            None => self.targets.push(target),
        }
        index
    }

    /// The data centre whose cluster serves those without one.
    #[must_use]
    pub fn default_dc(&self) -> DcId {
        self.default
    }

    /// Every target once.
    #[must_use]
    pub fn targets(&self) -> &[TargetConfig] {
        &self.targets
    }

    /// Each cluster: its data centre, and which of [`targets`](Self::targets) are in it.
    pub fn iter(&self) -> impl Iterator<Item = (DcId, &[usize])> {
        self.by_dc.iter().map(|(&dc, targets)| (dc, targets.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16, min_connections: u16) -> TargetConfig {
        TargetConfig { address: ([192, 0, 2, 1], port).into(), min_connections, max_connections: 8 }
    }

    #[test]
    fn an_address_in_two_clusters_is_one_target_as_it_was_described_last() {
        let clusters = Clusters::new(
            DcId(2),
            [(DcId(1), vec![target(1, 4), target(2, 4)]), (DcId(-1), vec![target(2, 6), target(2, 6)])],
        );
        assert_eq!(clusters.targets(), [target(1, 4), target(2, 6)]);
        let by_dc: Vec<_> = clusters.iter().collect();
        assert_eq!(by_dc, [(DcId(-1), &[1][..]), (DcId(1), &[0, 1][..])]);
        assert_eq!(clusters.default_dc(), DcId(2));
    }

    #[test]
    fn a_cluster_none_of_whose_names_was_found_is_still_a_cluster() {
        let clusters = Clusters::new(DcId(2), [(DcId(4), Vec::new())]);
        assert_eq!(clusters.iter().collect::<Vec<_>>(), [(DcId(4), &[][..])]);
    }
}
