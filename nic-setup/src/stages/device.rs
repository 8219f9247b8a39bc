//! Stages about the interface as a device.

use super::Matter;
use crate::finding::{Finding, State};
use crate::survey::{Goals, Survey};

/// Largest packet that fits a frame of 2 KiB with the room that the kernel keeps before it.
pub const MTU_BYTES_MAX: u32 = 1500;

pub(super) fn kind(survey: &Survey, _: &Goals) -> Finding {
    let matter =
        Matter::known("kind", "the program must sit where packets show themselves as they were on the wire");
    let link = &survey.facts.link;
    let blocked =
        |found: String, how: String| matter.finding(found, "a device, or veth", State::Blocked(how));
    if let Some(controller) = &link.controller {
        let of = controller.kind.as_deref().unwrap_or("group");
        return blocked(
            format!("a port of the {of} {}", controller.name),
            format!(
                "addresses are those of {}, and it chooses the port that answers: use --datapath epoll, or take one \
                port out of it and give that an address",
                controller.name
            ),
        );
    }
    match link.kind.as_deref() {
        None if link.name == "lo" => blocked("loopback".to_owned(), "name the interface to the network".to_owned()),
        None => matter.fine("a device"),
        Some("veth") => matter.fine("veth"),
        Some(kind @ ("bond" | "team")) => blocked(
            format!("a {kind} of {}", link.ports.join(", ")),
            "the kernel spreads its packets after the program: use --datapath epoll, or take one port out of it and \
            give that an address"
                .to_owned(),
        ),
        Some("vlan") => blocked(
            format!("a VLAN on {}", link.lower.as_deref().unwrap_or("another interface")),
            format!(
                "the program belongs on {}, which answers with the tag that a client's packets had: name that, or use \
                --datapath epoll",
                link.lower.as_deref().unwrap_or("the interface below")
            ),
        ),
        Some(kind) => blocked(format!("a {kind}"), "use --datapath epoll".to_owned()),
    }
}

pub(super) fn xdp(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known(
        "xdp",
        "what a driver says is a hint: virtio_net says zero-copy and refuses it without iommu_platform; the proxy tries, \
        and shows what it got as mtproxy_xdp_mode",
    );
    let driver = survey.facts.driver.as_deref().unwrap_or("its driver");
    matter.of(&survey.facts.xdp, |hints| match (hints.is_native && hints.redirects, hints.has_zero_copy) {
        (true, true) => matter.fine(format!("{driver}: native, zero-copy by its own account")),
        (true, false) => matter.finding(
            format!("{driver}: native, copying"),
            "zero-copy",
            // Nothing is wrong with it; a newer kernel may do better.
            State::Fine,
        ),
        (false, _) => matter.finding(
            format!("{driver}: generic mode only"),
            "native",
            State::Blocked(
                "generic mode gains nothing over epoll: use --datapath epoll, or another card".to_owned(),
            ),
        ),
    })
}

pub(super) fn program(survey: &Survey, _: &Goals) -> Finding {
    let matter = Matter::known("program", "to replace it would break whoever put it there");
    let link = &survey.facts.link;
    match link.xdp_program {
        None => matter.fine("none"),
        Some(id) => matter.finding(
            format!("program {id}"),
            "none, or ours",
            State::Advice(format!(
                "if the proxy runs, it is its; else see whose with `bpftool net`, and remove it with `ip link set dev \
                {} xdp off`",
                link.name
            )),
        ),
    }
}

pub(super) fn mtu(survey: &Survey, _: &Goals) -> Finding {
    let matter =
        Matter::known("mtu", "a frame of 2 KiB holds no larger packet behind its headroom of 256 bytes");
    let link = &survey.facts.link;
    if link.mtu_bytes <= MTU_BYTES_MAX {
        return matter.fine(format!("{} bytes", link.mtu_bytes));
    }
    let how = format!("ip link set dev {} mtu {MTU_BYTES_MAX}, where nobody needs more", link.name);
    matter.finding(
        format!("{} bytes", link.mtu_bytes),
        format!("{MTU_BYTES_MAX} or less"),
        State::Blocked(how),
    )
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{goals, server};
    use super::*;
    use crate::facts::XdpHints;
    use crate::link::{Link, Neighbour};

    fn of_kind(change: impl Fn(&mut Link)) -> State {
        let mut survey = server();
        change(&mut survey.facts.link);
        kind(&survey, &goals()).state
    }

    #[test]
    fn devices_and_veth_will_do_and_everything_else_is_told_what_to_do() {
        assert_eq!(of_kind(|_| ()), State::Fine);
        assert_eq!(of_kind(|link| link.kind = Some("veth".to_owned())), State::Fine);
        let told = |state| match state {
            State::Blocked(how) => how,
            other => panic!("{other:?}"),
        };
        let bond = of_kind(|link| {
            link.kind = Some("bond".to_owned());
            link.ports = vec!["eth0".to_owned(), "eth1".to_owned()];
        });
        assert!(told(bond).contains("take one port out"));
        let port = of_kind(|link| {
            link.controller = Some(Neighbour { name: "bond0".to_owned(), kind: Some("bond".to_owned()) });
        });
        assert!(told(port).contains("bond0"));
        let vlan = of_kind(|link| {
            link.kind = Some("vlan".to_owned());
            link.lower = Some("eth7".to_owned());
        });
        assert!(told(vlan).contains("belongs on eth7"));
        assert!(told(of_kind(|link| link.name = "lo".to_owned())).contains("network"));
    }

    #[test]
    fn a_driver_without_native_xdp_is_no_help() {
        let with = |is_native, redirects, has_zero_copy| {
            let mut survey = server();
            survey.facts.xdp = Ok(XdpHints { is_native, redirects, has_zero_copy, ..XdpHints::default() });
            xdp(&survey, &goals())
        };
        assert_eq!(with(true, true, true).state, State::Fine);
        assert_eq!(with(true, true, false).wanted, "zero-copy");
        assert!(matches!(with(true, false, false).state, State::Blocked(_)));
        assert!(matches!(with(false, false, false).state, State::Blocked(_)));
    }

    #[test]
    fn a_program_that_is_there_is_mentioned() {
        let mut survey = server();
        assert_eq!(program(&survey, &goals()).state, State::Fine);
        survey.facts.link.xdp_program = Some(17);
        assert!(matches!(program(&survey, &goals()).state, State::Advice(_)));
    }

    #[test]
    fn packets_of_1500_bytes_fit_and_larger_ones_do_not() {
        let mut survey = server();
        assert_eq!(mtu(&survey, &goals()).state, State::Fine);
        survey.facts.link.mtu_bytes = 1501;
        assert!(matches!(mtu(&survey, &goals()).state, State::Blocked(_)));
    }
}
