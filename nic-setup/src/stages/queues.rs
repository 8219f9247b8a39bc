//! Stages about receive queues, and what chooses among them.

use super::Matter;
use crate::facts::{KernelVersion, kernel_version};
use crate::finding::{Finding, State};
use crate::knob::{Change, Knob};
use crate::survey::{Goals, Survey};

/// Receive descriptors below which a burst of a millisecond at a million packets a second is lost, and as many as we
/// would have: what an AF_XDP socket's own rings hold.
const RECEIVE_RING_MIN: u32 = 1024;
const RECEIVE_RING: u32 = 2048;
/// The first kernel whose netlink sets the table (`ETHTOOL_MSG_RSS_SET`).
const TABLE_BY_NETLINK: KernelVersion = (6, 17);
/// The offload that lets rules choose queues.
const STEERING_RULES: &str = "rx-ntuple-filter";

pub(super) fn channels(survey: &Survey, goals: &Goals) -> Finding {
    let matter = Matter::rule_of_thumb(
        "channels",
        "each receive queue has a shard, which is a thread: more than cores take time from each other, fewer leave cores idle",
    );
    matter.of(&survey.channels, |channels| {
        let Some(channels) = channels.filter(|channels| channels.combined_max > 0) else {
            return match &survey.facts.receive_queues {
                Ok(queues) => matter.absent(format!("{queues} queues, which cannot be changed")),
                Err(why) => matter.unknown(why),
            };
        };
        let cores = u32::try_from(survey.cores).unwrap_or(u32::MAX);
        // One core for everything else, where that leaves more than one.
        let (least, most) = goals.queues.map_or((cores.saturating_sub(1), cores), |queues| (queues, queues));
        let now = channels.combined;
        let wanted = now.clamp(least.clamp(1, channels.combined_max), most.clamp(1, channels.combined_max));
        let found = format!("{now} of {}", channels.combined_max);
        if now == wanted {
            return matter.finding(found, wanted.to_string(), State::Fine);
        }
        let change = Change { knob: Knob::CombinedChannels, from: now.to_string(), to: wanted.to_string() };
        matter.finding(found, format!("{wanted}, with {cores} cores"), State::Change(vec![change]))
    })
}

pub(super) fn rings(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::rule_of_thumb(
        "rings",
        "a short ring loses bursts; one longer than the socket's own only holds more packets that are late already",
    );
    matter.of(&survey.rings, |rings| {
        let Some(rings) = rings.filter(|rings| rings.receive_max > 0) else {
            return matter.absent("no ring sizes");
        };
        let found = format!("{} of {}", rings.receive, rings.receive_max);
        let wanted = RECEIVE_RING.min(rings.receive_max);
        if rings.receive >= RECEIVE_RING_MIN.min(rings.receive_max) {
            return matter.finding(found, format!("{RECEIVE_RING_MIN} or more"), State::Fine);
        }
        let change =
            Change { knob: Knob::ReceiveRing, from: rings.receive.to_string(), to: wanted.to_string() };
        matter.finding(found, wanted.to_string(), State::Change(vec![change]))
    })
}

pub(super) fn rss_table(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "rss-table",
        "each queue should get its share; virtio_net forgets a table that was set before a program was attached, so look \
        again while the proxy runs",
    );
    let (rss, queues) = match (&survey.facts.rss, &survey.facts.receive_queues) {
        (Ok(rss), Ok(queues)) => (rss, *queues),
        (Err(why), _) | (_, Err(why)) => return matter.unknown(why),
    };
    let Some(rss) = rss.as_ref().filter(|rss| !rss.table.is_empty()) else {
        return matter.absent("the driver tells no table");
    };
    let entries = rss.table.len();
    let wanted = format!("{entries} entries over {queues} queues evenly");
    let shares: Vec<usize> =
        (0..queues).map(|queue| rss.table.iter().filter(|&&entry| entry == queue).count()).collect();
    let (least, most) =
        (shares.iter().min().copied().unwrap_or_default(), shares.iter().max().copied().unwrap_or_default());
    let is_within = rss.table.iter().all(|&queue| queue < queues);
    if is_within && most - least <= 1 {
        return matter.finding(wanted.clone(), wanted, State::Fine);
    }
    let found = format!("{entries} entries, {least} to {most} a queue");
    let list = |table: &mut dyn Iterator<Item = u32>| {
        table.map(|queue| queue.to_string()).collect::<Vec<_>>().join(" ")
    };
    let change = Change {
        knob: Knob::RssTable,
        from: list(&mut rss.table.iter().copied()),
        to: list(&mut (0..queues).cycle().take(entries)),
    };
    let by_netlink =
        survey.facts.kernel.as_ref().is_ok_and(|release| kernel_version(release) >= Some(TABLE_BY_NETLINK));
    let state = match by_netlink {
        true => State::Change(vec![change]),
        false => State::Advice(change.command(&survey.facts.link.name)),
    };
    matter.finding(found, wanted, state)
}

pub(super) fn rss_hash(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "rss-hash",
        "with Toeplitz' hash over four fields and a known key, the proxy dials from ports whose answers come to the same \
        queue; else it learns from what comes, and some answers cost a copy",
    );
    let wanted = "Toeplitz, addresses and ports, key told";
    let name = &survey.facts.link.name;
    matter.of(&survey.facts.rss, |rss| {
        let Some(rss) = rss else { return matter.absent("the driver tells no hash") };
        if survey.facts.receive_queues == Ok(1) {
            return matter.finding("one queue: nothing to choose", wanted, State::Fine);
        }
        if !rss.hashes_four_tuple {
            let how = format!("ethtool -N {name} rx-flow-hash tcp4 sdfn; the same for tcp6");
            return matter.finding("fewer fields than addresses and ports", wanted, State::Advice(how));
        }
        if rss.is_symmetric {
            let how = format!("ethtool -X {name} xfrm none");
            return matter.finding("both directions folded into one", wanted, State::Advice(how));
        }
        if rss.is_toeplitz && !rss.key.is_empty() {
            return matter.finding(wanted, wanted, State::Fine);
        }
        // The driver has nothing better to offer, or does not say so: igb keeps its key to itself.
        matter.finding("a hash or key that the driver does not tell: learnt", wanted, State::Fine)
    })
}

pub(super) fn steering_rules(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "steering-rules",
        "a rule may send our clients to a queue of its choice, past the table",
    );
    matter.of(&survey.features, |features| {
        match features.iter().find(|feature| feature.name == STEERING_RULES) {
            None => matter.absent("no such rules"),
            Some(rules) if !rules.is_on => matter.fine("off"),
            Some(_) => matter.finding(
                "on",
                "no rule for our ports",
                State::Advice(format!("look at `ethtool -n {}`", survey.facts.link.name)),
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{goals, server};
    use super::*;
    use crate::survey::{ChannelCounts, Feature, Rings};

    fn with_channels(combined: u32, combined_max: u32, cores: usize, queues: Option<u32>) -> Option<String> {
        let channels = Ok(Some(ChannelCounts { combined, combined_max }));
        let survey = Survey { channels, cores, ..server() };
        let finding = channels_of(&survey, queues);
        finding.changes().first().map(|change| change.to.clone())
    }

    fn channels_of(survey: &Survey, queues: Option<u32>) -> Finding {
        channels(survey, &Goals { queues, ..goals() })
    }

    #[test]
    fn there_are_as_many_channels_as_cores_or_one_less() {
        let wanted = |to: u32| Some(to.to_string());
        for (combined, most, cores, expected) in [
            (8, 64, 8, None),
            (7, 64, 8, None),
            (6, 64, 8, wanted(7)),
            (9, 64, 8, wanted(8)),
            (1, 4, 8, wanted(4)),
            (4, 4, 8, None),
            (1, 8, 1, None),
            (2, 8, 1, wanted(1)),
        ] {
            assert_eq!(
                with_channels(combined, most, cores, None),
                expected,
                "{combined} of {most}, {cores} cores"
            );
        }
    }

    #[test]
    fn a_number_that_was_asked_for_is_the_number_as_far_as_the_device_goes() {
        assert_eq!(with_channels(8, 64, 8, Some(3)), Some("3".to_owned()));
        assert_eq!(with_channels(3, 64, 8, Some(3)), None);
        assert_eq!(with_channels(8, 16, 8, Some(40)), Some("16".to_owned()));
    }

    #[test]
    fn a_device_without_channels_keeps_its_queues() {
        let survey = Survey { channels: Ok(None), ..server() };
        assert_eq!(channels_of(&survey, None).state, State::Absent);
        let fixed = Survey { channels: Ok(Some(ChannelCounts { combined: 0, combined_max: 0 })), ..server() };
        assert_eq!(channels_of(&fixed, None).state, State::Absent);
    }

    #[test]
    fn short_rings_are_made_longer_as_far_as_they_go() {
        let to = |receive, receive_max| {
            let survey = Survey { rings: Ok(Some(Rings { receive, receive_max })), ..server() };
            rings(&survey, &goals()).changes().first().map(|change| change.to.clone())
        };
        assert_eq!(to(1024, 4096), None);
        assert_eq!(to(1023, 4096), Some("2048".to_owned()));
        assert_eq!(to(256, 256), None, "virtio_net's are as long as the host made them");
        assert_eq!(to(256, 512), Some("512".to_owned()));
    }

    #[test]
    fn an_uneven_table_is_made_even_where_the_kernel_lets_us() {
        let mut survey = server();
        survey.facts.rss.as_mut().unwrap().as_mut().unwrap().table = vec![0, 0, 1, 1];
        survey.facts.receive_queues = Ok(2);
        assert_eq!(rss_table(&survey, &goals()).state, State::Fine);
        survey.facts.receive_queues = Ok(4);
        let finding = rss_table(&survey, &goals());
        assert_eq!(finding.changes()[0].to, "0 1 2 3");
        assert_eq!(finding.changes()[0].from, "0 0 1 1");
        survey.facts.kernel = Ok("6.16.0".to_owned());
        assert_eq!(rss_table(&survey, &goals()).state, State::Advice("ethtool -X eth0 equal 4".to_owned()));
        survey.facts.receive_queues = Ok(1);
        survey.facts.kernel = Ok("6.17.0".to_owned());
        assert_eq!(rss_table(&survey, &goals()).changes()[0].to, "0 0 0 0", "a queue that is not in use");
    }

    #[test]
    fn what_is_hashed_must_be_what_the_proxy_computes() {
        let with = |change: fn(&mut crate::facts::Rss)| {
            let mut survey = server();
            change(survey.facts.rss.as_mut().unwrap().as_mut().unwrap());
            rss_hash(&survey, &goals()).state
        };
        assert_eq!(with(|_| ()), State::Fine);
        assert_eq!(with(|rss| rss.key.clear()), State::Fine, "learnt");
        assert!(
            matches!(with(|rss| rss.hashes_four_tuple = false), State::Advice(how) if how.contains("sdfn"))
        );
        assert!(matches!(with(|rss| rss.is_symmetric = true), State::Advice(how) if how.contains("xfrm")));
    }

    #[test]
    fn rules_that_choose_queues_are_pointed_out() {
        let with = |is_on| {
            let feature = Feature { name: STEERING_RULES.to_owned(), is_on, is_fixed: false };
            steering_rules(&Survey { features: Ok(vec![feature]), ..server() }, &goals()).state
        };
        assert_eq!(with(false), State::Fine);
        assert_eq!(with(true), State::Advice("look at `ethtool -n eth0`".to_owned()));
    }
}
