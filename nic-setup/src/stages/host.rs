//! Stages about the host: kernel, rights, memory, ports.

use super::Matter;
use crate::facts::{KernelVersion, kernel_version};
use crate::finding::{Finding, State};
use crate::knob::{Change, Knob};
use crate::survey::{Goals, Survey};
use crate::sysctl::PortRange;

/// The first long-term kernel with preferred busy polling (5.11), the latest thing that the datapath cannot do without.
pub const KERNEL_MIN: KernelVersion = (5, 15);
/// Size of a huge page on x86-64.
const HUGE_PAGE_BYTES: u64 = 2 << 20;
/// Where reserved ports are kept.
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

pub(super) fn kernel(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "kernel",
        "preferred busy polling, bpf_link and the statistics of AF_XDP sockets came until then",
    );
    matter.of(&survey.facts.kernel, |release| match kernel_version(release) {
        Some(version) if version >= KERNEL_MIN => matter.fine(release.clone()),
        _ => matter.finding(
            release.clone(),
            format!("{}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1),
            State::Blocked("install a newer kernel, or use --datapath epoll".to_owned()),
        ),
    })
}

pub(super) fn capabilities(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known("capabilities", "to load and attach the program, and to open AF_XDP sockets");
    if survey.may_use_xdp {
        return matter.fine("enough, as this user");
    }
    let how = "give the unit AmbientCapabilities= with these (docs/mtproxy-xdp.conf), or start as root";
    matter.finding("too few", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF", State::Advice(how.to_owned()))
}

pub(super) fn huge_pages(survey: &Survey, goals: &Goals) -> Finding {
    let matter =
        Matter::rule_of_thumb("huge-pages", "packet memory of fewer pages costs fewer misses of the TLB");
    if !goals.huge_pages {
        return matter.finding(
            "not asked for",
            "xdp.huge_pages = true, then again with --huge-pages",
            State::Fine,
        );
    }
    matter.of(&survey.huge_pages, |&present| {
        let queues = u64::from(survey.facts.receive_queues.as_ref().copied().unwrap_or(1));
        let wanted = (goals.umem_bytes * queues).div_ceil(HUGE_PAGE_BYTES);
        if present >= wanted {
            return matter.finding(present.to_string(), format!("{wanted} or more"), State::Fine);
        }
        let change = Change {
            knob: Knob::File(HUGE_PAGES.to_owned()),
            from: present.to_string(),
            to: wanted.to_string(),
        };
        matter.finding(present.to_string(), format!("{wanted} or more"), State::Change(vec![change]))
    })
}

pub(super) fn memlock(survey: &Survey, goals: &Goals) -> Finding {
    let matter = Matter::known(
        "memlock",
        "the kernel pins packet memory, and refuses the socket beyond the limit (xdp_umem_account_pages)",
    );
    let queues = u64::from(survey.facts.receive_queues.as_ref().copied().unwrap_or(1));
    let wanted = goals.umem_bytes * queues;
    match survey.memlock_bytes {
        None => matter.fine("no limit, as this user"),
        Some(limit) if limit >= wanted => matter.finding(mib(limit), mib(wanted), State::Fine),
        Some(limit) => {
            let how = "LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK; the limit meant is that of the service, not of this shell";
            matter.finding(mib(limit), mib(wanted), State::Advice(how.to_owned()))
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

pub(super) fn ports(survey: &Survey, goals: &Goals) -> Finding {
    let matter = Matter::known(
        "ports",
        "what comes to these ports is taken before the kernel sees it: its own connections may have none of them",
    );
    let ours = goals.ports;
    let wanted = format!("{ours} kept for us");
    matter.of(&survey.facts.ephemeral_ports, |&ephemeral| {
        if ephemeral.last < ours.first || ours.last < ephemeral.first {
            return matter.finding(format!("the kernel gives out {ephemeral}"), wanted, State::Fine);
        }
        let reserved = match &survey.facts.reserved_ports {
            Ok(reserved) => reserved,
            Err(why) => return matter.unknown(why),
        };
        let shared =
            PortRange { first: ours.first.max(ephemeral.first), last: ours.last.min(ephemeral.last) };
        if (shared.first..=shared.last).all(|port| reserved.iter().any(|range| range.contains(port))) {
            return matter.finding(format!("{ephemeral}, ours reserved"), wanted, State::Fine);
        }
        let list =
            |ranges: &[PortRange]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let change = Change {
            knob: Knob::File(RESERVED_PORTS.to_owned()),
            from: list(reserved),
            to: list(&[reserved.as_slice(), &[shared]].concat()),
        };
        matter.finding(format!("the kernel gives out {ephemeral}"), wanted, State::Change(vec![change]))
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{goals, server};
    use super::*;

    #[test]
    fn kernels_from_5_15_on_will_do() {
        for (release, is_fine) in
            [("5.14.21-500.el9", false), ("5.15.0", true), ("6.1.0-9-amd64", true), ("x", false)]
        {
            let mut survey = server();
            survey.facts.kernel = Ok(release.to_owned());
            assert_eq!(kernel(&survey, &goals()).state == State::Fine, is_fine, "{release}");
        }
    }

    #[test]
    fn huge_pages_are_counted_for_all_queues_where_they_are_asked_for() {
        let asked = Goals { huge_pages: true, ..goals() };
        let with = |pages| Survey { huge_pages: Ok(pages), ..server() };
        assert_eq!(huge_pages(&with(0), &goals()).state, State::Fine);
        // Eight queues of 32 MiB.
        assert_eq!(huge_pages(&with(128), &asked).state, State::Fine);
        let finding = huge_pages(&with(127), &asked);
        assert_eq!(finding.changes()[0].command("eth0"), "sysctl -w vm.nr_hugepages='128'");
    }

    #[test]
    fn memory_for_all_queues_must_be_pinnable() {
        let with = |limit| Survey { memlock_bytes: limit, ..server() };
        assert_eq!(memlock(&with(None), &goals()).state, State::Fine);
        assert_eq!(memlock(&with(Some(256 << 20)), &goals()).state, State::Fine);
        assert!(matches!(memlock(&with(Some((256 << 20) - 1)), &goals()).state, State::Advice(_)));
    }

    #[test]
    fn only_what_overlaps_and_is_not_reserved_yet_becomes_reserved() {
        let with = |first, last, reserved: &[(u16, u16)]| {
            let mut survey = server();
            survey.facts.ephemeral_ports = Ok(PortRange { first, last });
            let range = |&(first, last): &(u16, u16)| PortRange { first, last };
            survey.facts.reserved_ports = Ok(reserved.iter().map(range).collect());
            ports(&survey, &goals())
        };
        assert_eq!(with(32768, 60999, &[]).state, State::Fine);
        assert_eq!(with(32768, 61000, &[(61000, 61000)]).state, State::Fine);
        assert_eq!(with(1024, 65535, &[]).changes()[0].to, "61000-65535");
        let beside_others = with(1024, 62000, &[(8080, 8080), (61500, 61501)]);
        assert_eq!(beside_others.changes()[0].to, "8080,61500-61501,61000-62000");
        assert_eq!(beside_others.changes()[0].from, "8080,61500-61501");
    }
}
