//! The stage about offloads that merge packets before XDP sees them.

use super::Matter;
use crate::finding::{Finding, State};
use crate::knob::{Change, Knob};
use crate::survey::{Feature, Goals, Survey};

/// What makes one packet of several. The first two are done by the device: a merged packet fits no frame, virtio_net
/// refuses a program while they are on, others attach and then drop. The others merge on the way to the kernel's own
/// sockets, and corrupt what a program has touched.
const MERGING: [&str; 4] = ["rx-lro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding"];

pub(super) fn merging(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "merging",
        "a packet made of several fits no frame, and is lost, or the program is refused",
    );
    matter.of(&survey.features, |features| {
        let on: Vec<&Feature> =
            features.iter().filter(|it| it.is_on && MERGING.contains(&it.name.as_str())).collect();
        let names = |of: &[&Feature]| of.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        if on.is_empty() {
            return matter.fine("off");
        }
        let found = format!("on: {}", names(&on));
        let (fixed, free): (Vec<&Feature>, Vec<&Feature>) = on.into_iter().partition(|it| it.is_fixed);
        if free.is_empty() {
            // virtio_net clears what it must when a program is attached, if the host lets it.
            let how = format!(
                "{} cannot be switched off here; if the program is refused, the host of this virtual machine must do it",
                names(&fixed)
            );
            return matter.finding(found, "off", State::Advice(how));
        }
        let off = |it: &Feature| Change {
            knob: Knob::Feature(it.name.clone()),
            from: "on".to_owned(),
            to: "off".to_owned(),
        };
        matter.finding(found, "off", State::Change(free.into_iter().map(off).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{goals, server};
    use super::*;

    fn with(features: &[(&str, bool, bool)]) -> State {
        let feature = |&(name, is_on, is_fixed): &(&str, bool, bool)| Feature {
            name: name.to_owned(),
            is_on,
            is_fixed,
        };
        let survey = Survey { features: Ok(features.iter().map(feature).collect()), ..server() };
        merging(&survey, &goals()).state
    }

    #[test]
    fn what_merges_is_switched_off_and_what_does_not_is_left_alone() {
        assert_eq!(with(&[("rx-gro", true, false), ("rx-lro", false, false)]), State::Fine);
        let State::Change(changes) = with(&[("rx-lro", true, false), ("rx-gro-hw", true, false)]) else {
            panic!()
        };
        let commands: Vec<String> = changes.iter().map(|change| change.command("e0")).collect();
        assert_eq!(commands, ["ethtool -K e0 rx-lro off", "ethtool -K e0 rx-gro-hw off"]);
    }

    #[test]
    fn what_is_fixed_is_not_tried() {
        assert!(
            matches!(with(&[("rx-gro-hw", true, true)]), State::Advice(how) if how.contains("rx-gro-hw"))
        );
        let State::Change(changes) = with(&[("rx-gro-hw", true, true), ("rx-lro", true, false)]) else {
            panic!()
        };
        assert_eq!(changes.len(), 1);
    }
}
