//! Stages about who is interrupted when packets come, where, and how late.

use super::Matter;
use crate::finding::{Finding, State};
use crate::knob::{Change, Knob};
use crate::survey::{Goals, Napi, Survey};

/// A receive interrupt that waits longer than this is felt by users: a packet may wait twice on its way.
const RECEIVE_US_MAX: u32 = 100;
const RECEIVE_US: u32 = 50;
/// With preferred busy polling: how often interrupts stay off although a poll found nothing, and how long then. The
/// shard polls again long before (`Documentation/networking/napi.rst`, "IRQ suspension and deferral").
const DEFER_HARD_IRQS: u32 = 2;
const GRO_FLUSH_TIMEOUT_NS: u64 = 200_000;

/// The file of a NAPI setting of the interface `name`.
#[must_use]
pub fn napi_file(name: &str, setting: &str) -> String {
    format!("/sys/class/net/{name}/{setting}")
}

pub(super) fn coalescing(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::rule_of_thumb("coalescing", "the wait is part of every user's round trip");
    let wanted = format!("{RECEIVE_US_MAX} µs at most");
    matter.of(&survey.coalescing, |coalescing| {
        let Some((coalescing, us)) = coalescing.and_then(|it| Some((it, it.receive_us?))) else {
            return matter.absent("the driver tells none");
        };
        let found = format!("{us} µs{}", if coalescing.is_adaptive { ", adaptive" } else { "" });
        if coalescing.is_adaptive || us <= RECEIVE_US_MAX {
            return matter.finding(found, wanted, State::Fine);
        }
        let change =
            Change { knob: Knob::ReceiveCoalescing, from: us.to_string(), to: RECEIVE_US.to_string() };
        matter.finding(found, wanted, State::Change(vec![change]))
    })
}

pub(super) fn napi(survey: &Survey, goals: &Goals) -> Finding {
    let matter = Matter::known(
        "napi",
        "with xdp.busy_poll the shard polls the device, and an interrupt in between would only take turns with it",
    );
    let name = &survey.facts.link.name;
    matter.of(&survey.napi, |&napi| {
        let Napi { defer_hard_irqs, gro_flush_timeout_ns, .. } = napi;
        let found = format!("defer {defer_hard_irqs}, timeout {} µs", gro_flush_timeout_ns / 1000);
        if !goals.busy_poll {
            return matter.finding(found, "whatever it is, without busy polling", State::Fine);
        }
        let wanted = format!("defer {DEFER_HARD_IRQS} or more, timeout {} µs", GRO_FLUSH_TIMEOUT_NS / 1000);
        let change = |setting, from: u64, to: u64| Change {
            knob: Knob::File(napi_file(name, setting)),
            from: from.to_string(),
            to: to.to_string(),
        };
        let mut changes = Vec::new();
        if defer_hard_irqs < DEFER_HARD_IRQS {
            changes.push(change("napi_defer_hard_irqs", defer_hard_irqs.into(), DEFER_HARD_IRQS.into()));
        }
        if gro_flush_timeout_ns == 0 {
            changes.push(change("gro_flush_timeout", 0, GRO_FLUSH_TIMEOUT_NS));
        }
        let state = if changes.is_empty() { State::Fine } else { State::Change(changes) };
        matter.finding(found, wanted, state)
    })
}

pub(super) fn threaded(survey: &Survey, goals: &Goals) -> Finding {
    let matter = Matter::rule_of_thumb(
        "threaded-napi",
        "a thread of the kernel and a shard that polls for itself would fight for the queue",
    );
    matter.of(&survey.napi, |napi| match napi.is_threaded {
        None => matter.absent("not in this kernel"),
        Some(false) => matter.fine("off"),
        Some(true) if !goals.busy_poll => matter.finding("on", "off with xdp.busy_poll", State::Fine),
        Some(true) => {
            let file = napi_file(&survey.facts.link.name, "threaded");
            let change = Change { knob: Knob::File(file), from: "1".to_owned(), to: "0".to_owned() };
            matter.finding("on", "off", State::Change(vec![change]))
        }
    })
}

pub(super) fn affinity(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::rule_of_thumb(
        "irq-affinity",
        "a shard sits on the core of its queue's number: where the interrupt is served there, packets are in its cache",
    );
    matter.of(&survey.interrupts, |interrupts| {
        if interrupts.is_empty() {
            return matter.absent("no interrupts of its own");
        }
        let core = |queue: usize| (queue % survey.cores.max(1)).to_string();
        let strays = interrupts.iter().filter(|it| it.cores != core(it.queue));
        let changes: Vec<Change> = strays
            .map(|it| Change {
                knob: Knob::File(format!("/proc/irq/{}/smp_affinity_list", it.number)),
                from: it.cores.clone(),
                to: core(it.queue),
            })
            .collect();
        let found = interrupts.iter().map(|it| format!("{} on {}", it.queue, it.cores)).collect::<Vec<_>>();
        let found = format!("queue {}", found.join(", "));
        let state = if changes.is_empty() { State::Fine } else { State::Change(changes) };
        matter.finding(found, "queue 0 on core 0, and so on", state)
    })
}

pub(super) fn irqbalance(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known("irqbalance", "it moves interrupts away from where they were put");
    if !survey.has_irqbalance || survey.interrupts.as_ref().is_ok_and(Vec::is_empty) {
        return matter.fine(if survey.has_irqbalance {
            "runs, but there are no interrupts to move"
        } else {
            "does not run"
        });
    }
    let how = "systemctl disable --now irqbalance, or IRQBALANCE_BANNED_CPULIST for the shards' cores";
    matter.finding("runs", "not here", State::Advice(how.to_owned()))
}

pub(super) fn numa(survey: &Survey, _: &Goals) -> Finding {
    let matter =
        Matter::known("numa", "packet memory on another node costs a way between the sockets for every line");
    match (survey.numa_nodes, survey.numa_node) {
        (..=1, _) => matter.fine("one node"),
        (nodes, None) => matter.finding(format!("{nodes} nodes; the device is at none"), "–", State::Fine),
        (nodes, Some(node)) => matter.finding(
            format!("{nodes} nodes; the device is at node {node}"),
            format!("shards on node {node}"),
            State::Advice(format!("CPUAffinity=numa and NUMAPolicy=bind with NUMAMask={node} in the unit")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{goals, interrupt, server};
    use super::*;
    use crate::survey::Coalescing;

    #[test]
    fn interrupts_may_wait_a_tenth_of_a_millisecond_or_as_the_driver_thinks() {
        let to = |receive_us, is_adaptive| {
            let survey = Survey { coalescing: Ok(Some(Coalescing { receive_us, is_adaptive })), ..server() };
            coalescing(&survey, &goals()).changes().first().map(|change| change.to.clone())
        };
        assert_eq!(to(Some(100), false), None);
        assert_eq!(to(Some(101), false), Some("50".to_owned()));
        assert_eq!(to(Some(101), true), None);
        assert_eq!(to(None, false), None);
    }

    #[test]
    fn interrupts_are_deferred_only_for_busy_polling() {
        let survey = server();
        assert_eq!(napi(&survey, &goals()).state, State::Fine);
        let busy = Goals { busy_poll: true, ..goals() };
        let finding = napi(&survey, &busy);
        let commands: Vec<String> = finding.changes().iter().map(|change| change.command("eth0")).collect();
        assert_eq!(
            commands,
            [
                "echo 2 > /sys/class/net/eth0/napi_defer_hard_irqs",
                "echo 200000 > /sys/class/net/eth0/gro_flush_timeout"
            ]
        );
        let set = Napi { defer_hard_irqs: 2, gro_flush_timeout_ns: 1, is_threaded: Some(false) };
        assert_eq!(napi(&Survey { napi: Ok(set), ..server() }, &busy).state, State::Fine);
    }

    #[test]
    fn threads_of_the_kernel_give_way_to_busy_polling() {
        let busy = Goals { busy_poll: true, ..goals() };
        let with = |is_threaded| {
            let napi = Napi { is_threaded, ..server().napi.unwrap() };
            Survey { napi: Ok(napi), ..server() }
        };
        assert_eq!(threaded(&with(Some(true)), &goals()).state, State::Fine);
        assert_eq!(threaded(&with(Some(true)), &busy).changes().len(), 1);
        assert_eq!(threaded(&with(None), &busy).state, State::Absent);
    }

    #[test]
    fn each_queues_interrupt_goes_to_the_core_of_its_number() {
        let with = |interrupts| Survey { interrupts: Ok(interrupts), cores: 2, ..server() };
        let right = with(vec![interrupt(0, "0"), interrupt(1, "1"), interrupt(2, "0")]);
        assert_eq!(affinity(&right, &goals()).state, State::Fine);
        let finding = affinity(&with(vec![interrupt(0, "0-1"), interrupt(1, "1")]), &goals());
        let [change] = finding.changes() else { panic!("{finding:?}") };
        assert_eq!(change.command("eth0"), "echo 0 > /proc/irq/100/smp_affinity_list");
        assert_eq!(affinity(&with(Vec::new()), &goals()).state, State::Absent);
    }

    #[test]
    fn irqbalance_matters_where_there_are_interrupts() {
        let runs = Survey { has_irqbalance: true, ..server() };
        assert!(matches!(irqbalance(&runs, &goals()).state, State::Advice(_)));
        assert_eq!(irqbalance(&Survey { interrupts: Ok(Vec::new()), ..runs }, &goals()).state, State::Fine);
    }

    #[test]
    fn the_devices_node_is_named_where_there_are_several() {
        let with =
            |numa_nodes, numa_node| numa(&Survey { numa_nodes, numa_node, ..server() }, &goals()).state;
        assert_eq!(with(1, Some(0)), State::Fine);
        assert_eq!(with(2, None), State::Fine);
        assert!(matches!(with(2, Some(1)), State::Advice(how) if how.contains("NUMAMask=1")));
    }
}
