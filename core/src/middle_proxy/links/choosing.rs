//! By which link a client's packets go (policies.md section 10.2).

use super::Links;
use crate::dc::DcId;
use crate::middle_proxy::link::LinkKey;
use crate::middle_proxy::target::TargetKey;
use crate::policy::forwarding::{TARGET_ATTEMPTS, choose_cluster};
use crate::policy::net_connections::pool::RandomPick;
use crate::random::Random;

impl Links {
    /// True if some cluster serves `dc`.
    pub(crate) fn serves(&self, dc: DcId) -> bool {
        self.cluster(dc).is_some_and(|targets| !targets.is_empty())
    }

    fn cluster(&self, dc: DcId) -> Option<&[TargetKey]> {
        let exact = self.clusters.get(&dc);
        let default = self.default_dc.and_then(|default| self.clusters.get(&default));
        choose_cluster(exact, default).map(Vec::as_slice)
    }

    /// A ready link for `dc`, at random. A few attempts at random find one nearly always; where most targets are
    /// down, all are looked at.
    pub(crate) fn choose(&self, dc: DcId, random: &mut Random) -> Option<LinkKey> {
        let targets = self.cluster(dc)?;
        let count = u32::try_from(targets.len()).ok().filter(|&count| count > 0)?;
        let at_random = (0..TARGET_ATTEMPTS).find_map(|_| {
            let target = targets[random.below(count) as usize];
            self.choose_of(target, random)
        });
        at_random.or_else(|| targets.iter().find_map(|&target| self.choose_of(target, random)))
    }

    /// One of a target's ready links, each as likely as the others.
    fn choose_of(&self, target: TargetKey, random: &mut Random) -> Option<LinkKey> {
        let mut pick = RandomPick::default();
        for &key in &self.targets.get(target)?.links {
            if self.table[key].is_ready() {
                pick.offer(key, |bound| random.below(bound));
            }
        }
        pick.chosen()
    }
}
