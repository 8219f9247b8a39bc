//! Which datapath a host gets: a decision over facts, made without touching the host.
//!
//! `epoll` is obeyed as it is. `auto` takes AF_XDP only where every one of these holds, because nobody has
//! asked for the risk:
//!
//! | condition | why |
//! |---|---|
//! | the interface is known: named, or the only one with a default route | the program must sit where clients arrive |
//! | it is a device: no loopback, bond, VLAN, bridge, tunnel, nor a port of a bond or bridge | packets must show themselves where the program is, as they were on the wire |
//! | it is up, and has an address to connect from | without, there is neither neighbour nor source |
//! | its driver runs XDP programs itself | generic mode takes packets after the kernel has, and gains nothing |
//! | it has no XDP program of another | to replace it would break whoever put it there |
//! | MTU of 1500 bytes at most | a frame of 2 KiB holds no larger packet behind its headroom |
//! | it is not both the only way in and of a single queue | attaching resets some devices, and nobody could come to help |
//! | Linux 5.15 or later | the first long-term release with preferred busy polling (5.11), the latest thing used |
//! | CAP_NET_ADMIN, CAP_NET_RAW, and CAP_BPF or CAP_SYS_ADMIN | to load, to attach, to open sockets |
//! | source ports that the kernel does not give out | or it and we take each other's connections |
//! | no socket of another program at one of these ports | all packets to them are ours from then on |
//! | no forwarding of IPv4 | replies to guests behind this host's address come to ports of its choice, ours perhaps |
//! | two cores or more | a shard at work leaves no room on its core for the kernel's datapath and the control thread |
//!
//! A fact that could not be read does not hold. `xdp` is obeyed, with a warning for what is doubtful, and
//! refused where it cannot work at all.

use mtproxy_nic::stages::device::MTU_BYTES_MAX;
use mtproxy_nic::stages::host;

use super::facts::{Facts, Interface, InterfaceKind, KernelVersion, NoInterface};
use crate::complaint::Complaint;
use crate::settings::values::Datapath;
use crate::settings::xdp::XdpMode;

/// The oldest kernel that `auto` trusts.
const KERNEL_MIN: KernelVersion = KernelVersion(host::KERNEL_MIN.0, host::KERNEL_MIN.1);
/// Fewest cores that `auto` shares between shards and everything else.
const CORES_MIN: usize = 2;

/// What was decided. `reason` is one line of fields for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Kernel sockets.
    Epoll {
        /// Why.
        reason: String,
    },
    /// AF_XDP sockets.
    Xdp {
        /// The interface they are on.
        interface: String,
        /// Who is to run the program.
        attach: Attach,
        /// Why.
        reason: String,
        /// What the operator should know, a sentence each.
        warnings: Vec<String>,
    },
}

/// Who is to run the steering program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The driver.
    Native,
    /// The driver or, if it refuses, the kernel.
    NativeElseGeneric,
    /// The kernel.
    Generic,
}

/// The datapath for this host.
///
/// # Errors
/// If AF_XDP was asked for by name and cannot work here.
pub fn choose(wanted: Datapath, mode: XdpMode, facts: &Facts) -> Result<Choice, Complaint> {
    match wanted {
        Datapath::Epoll => Ok(Choice::Epoll { reason: "as configured".to_owned() }),
        Datapath::Auto => Ok(weigh(mode, facts)),
        Datapath::Xdp => obey(mode, facts),
    }
}

/// `auto`: AF_XDP if nothing speaks against it.
fn weigh(mode: XdpMode, facts: &Facts) -> Choice {
    let interface = match &facts.interface {
        Ok(interface) => interface,
        Err(why) => return Choice::Epoll { reason: fields_of_missing(why) },
    };
    let mut against = against_interface(interface);
    against.extend(against_host(facts));
    if mode == XdpMode::Generic {
        // It would cost what epoll costs, and more; whoever wants it says datapath xdp.
        against.push("xdp_mode=generic".to_owned());
    }
    let name = &interface.name;
    if against.is_empty() {
        let reason = format!("interface={name} native_xdp=yes {}", fields_of_size(interface, facts));
        let attach = Attach::Native;
        Choice::Xdp { interface: name.clone(), attach, reason, warnings: Vec::new() }
    } else {
        Choice::Epoll { reason: format!("interface={name} {}", against.join(" ")) }
    }
}

fn fields_of_missing(why: &NoInterface) -> String {
    match why {
        NoInterface::Unknown(name) => format!("interface={name} exists=no"),
        NoInterface::NoDefaultRoute => "interface=none default_routes=0".to_owned(),
        NoInterface::SeveralDefaultRoutes => "interface=none default_routes=several".to_owned(),
        NoInterface::Unreadable => "interface=none default_routes=unknown".to_owned(),
    }
}

fn fields_of_size(interface: &Interface, facts: &Facts) -> String {
    let kernel = facts.kernel.map_or("unknown".to_owned(), |version| version.to_string());
    let queues = interface.receive_queues.map_or("unknown".to_owned(), |queues| queues.to_string());
    format!("queues={queues} mtu_bytes={} kernel={kernel} cores={}", interface.mtu_bytes, facts.cores)
}

/// The field `name` unless the fact is known and as it must be.
fn unless(must_be: bool, fact: Option<bool>, name: &str) -> Option<String> {
    match fact {
        Some(is) if is == must_be => None,
        Some(true) => Some(format!("{name}=yes")),
        Some(false) => Some(format!("{name}=no")),
        None => Some(format!("{name}=unknown")),
    }
}

/// The conditions on the interface that do not hold; the head of this file has their reasons.
fn against_interface(interface: &Interface) -> Vec<String> {
    let kind = interface.kind;
    let could_lock_out = match (interface.has_only_default_route, interface.receive_queues) {
        (Some(false), _) | (_, Some(2..)) => None,
        (None, _) => Some("only_default_route=unknown queues=1".to_owned()),
        (_, None) => Some("only_default_route=yes queues=unknown".to_owned()),
        (Some(true), Some(queues)) => Some(format!("only_default_route=yes queues={queues}")),
    };
    [
        (!kind.is_an_end_of_the_wire()).then(|| format!("kind={}", kind.name())),
        unless(true, Some(interface.is_up), "up"),
        unless(true, interface.has_source_address, "source_address"),
        unless(true, interface.has_native_xdp, "native_xdp"),
        unless(false, interface.has_foreign_program, "foreign_program"),
        (interface.mtu_bytes > MTU_BYTES_MAX)
            .then(|| format!("mtu_bytes={} most={MTU_BYTES_MAX}", interface.mtu_bytes)),
        could_lock_out,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The conditions on the host that do not hold.
fn against_host(facts: &Facts) -> Vec<String> {
    let kernel = match facts.kernel {
        Some(version) if version >= KERNEL_MIN => None,
        Some(version) => Some(format!("kernel={version} least={KERNEL_MIN}")),
        None => Some("kernel=unknown".to_owned()),
    };
    let cores = facts.cores.get();
    [
        kernel,
        unless(true, Some(facts.may_use_xdp), "capabilities"),
        unless(true, facts.source_ports_are_ours, "source_ports_free"),
        match facts.sockets_at_source_ports.as_deref() {
            Some([]) => None,
            Some([at, ..]) => Some(format!("source_port_taken={}", at.port())),
            None => Some("source_port_taken=unknown".to_owned()),
        },
        unless(false, facts.forwards_ipv4, "ip_forward"),
        (cores < CORES_MIN).then(|| format!("cores={cores} least={CORES_MIN}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `xdp`: AF_XDP if it can work at all.
fn obey(mode: XdpMode, facts: &Facts) -> Result<Choice, Complaint> {
    let interface = match &facts.interface {
        Ok(interface) => interface,
        Err(why) => return Err(refused(&sentence_of_missing(why))),
    };
    if let Some(sentence) = impossible(interface, facts) {
        return Err(refused(&sentence));
    }
    let attach = attach(mode, interface)?;
    let mut warnings = Vec::new();
    if attach == Attach::Generic && mode != XdpMode::Generic {
        warnings.push(format!(
            "the driver of {} runs no XDP programs; generic mode works, but gains nothing over epoll",
            interface.name
        ));
    }
    warnings.extend(doubts(interface, facts));
    let reason = format!("as configured interface={} {}", interface.name, fields_of_size(interface, facts));
    Ok(Choice::Xdp { interface: interface.name.clone(), attach, reason, warnings })
}

fn attach(mode: XdpMode, interface: &Interface) -> Result<Attach, Complaint> {
    match (mode, interface.has_native_xdp) {
        (XdpMode::Generic, _) | (XdpMode::Auto, Some(false)) => Ok(Attach::Generic),
        (XdpMode::Auto, None) => Ok(Attach::NativeElseGeneric),
        (XdpMode::Auto, Some(true)) | (XdpMode::ZeroCopy | XdpMode::Copy, Some(true) | None) => {
            Ok(Attach::Native)
        }
        (XdpMode::ZeroCopy | XdpMode::Copy, Some(false)) => Err(refused(&format!(
            "{}, whose driver runs no XDP programs, and a mode that needs it to; expected another \
            interface, or --xdp-mode auto or generic",
            interface.name
        ))),
    }
}

fn refused(sentence: &str) -> Complaint {
    Complaint::about_host(format!("the datapath xdp: found {sentence}; or use --datapath epoll"))
}

fn sentence_of_missing(why: &NoInterface) -> String {
    match why {
        NoInterface::Unknown(name) => {
            format!("no interface {name}; expected one that `ip -brief link` lists; give it with --interface")
        }
        NoInterface::NoDefaultRoute | NoInterface::SeveralDefaultRoutes | NoInterface::Unreadable => {
            "no interface to use; expected --interface NAME".to_owned()
        }
    }
}

/// What keeps AF_XDP from working at all.
fn impossible(interface: &Interface, facts: &Facts) -> Option<String> {
    let name = &interface.name;
    if interface.kind == InterfaceKind::Loopback {
        // What the kernel sends over it has neither neighbour nor finished checksum.
        return Some(format!(
            "the loopback interface {name}; expected one to the network; give it with --interface"
        ));
    }
    if !facts.may_use_xdp {
        return Some(
            "too few capabilities; expected CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF; give them to the unit with \
            AmbientCapabilities=, or start as root"
                .to_owned(),
        );
    }
    if interface.has_foreign_program == Some(true) {
        return Some(format!(
            "an XDP program of another on {name}; expected none; see whose with `bpftool net`, and remove it \
            with `ip link set dev {name} xdp off`"
        ));
    }
    if facts.source_ports_are_ours == Some(false) {
        return Some(
            "source ports that the kernel gives out itself; expected ports outside of \
            net.ipv4.ip_local_port_range, or kept by net.ipv4.ip_local_reserved_ports; change one of them, or \
            [xdp] ports"
                .to_owned(),
        );
    }
    if let Some([at, ..]) = facts.sockets_at_source_ports.as_deref() {
        let port = at.port();
        return Some(format!(
            "another program's socket at {at}, a port that [xdp] ports would take; see whose with `ss -tanp 'sport = \
            :{port}'`; expected [xdp] ports that nobody uses; stop it, choose others, or leave this one out by sysctl -w \
            net.ipv4.ip_local_reserved_ports={port}"
        ));
    }
    None
}

/// What may work, but not as well as asked for.
fn doubts(interface: &Interface, facts: &Facts) -> impl Iterator<Item = String> {
    let name = &interface.name;
    let kind = interface.kind;
    [
        (!kind.is_an_end_of_the_wire()).then(|| {
            format!("{name} is of the kind {}: packets may never show themselves there", kind.name())
        }),
        (!interface.is_up).then(|| format!("{name} is down: clients arrive once it is up")),
        (interface.has_source_address == Some(false))
            .then(|| format!("{name} has no address: data centres are dialled with sockets of the kernel")),
        (interface.mtu_bytes > MTU_BYTES_MAX).then(|| {
            format!(
                "the MTU of {name} is {} bytes: packets above {MTU_BYTES_MAX} are lost",
                interface.mtu_bytes
            )
        }),
        facts
            .kernel
            .filter(|&version| version < KERNEL_MIN)
            .map(|version| format!("Linux {version} is older than {KERNEL_MIN}, the oldest that is tested")),
        facts.source_ports_are_ours.is_none().then(|| {
            "the kernel does not say which source ports it gives out: see that [xdp] ports are none of them"
                .to_owned()
        }),
        facts.sockets_at_source_ports.is_none().then(|| {
            "the kernel does not list its sockets: see that no other program uses [xdp] ports".to_owned()
        }),
        (facts.forwards_ipv4 == Some(true)).then(|| {
            "this host forwards packets: where it translates addresses (masquerade), keep its translations off [xdp] \
            ports (--to-ports), or replies to guests are lost"
                .to_owned()
        }),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    /// A host for which `auto` takes AF_XDP: a server with a card of eight queues.
    fn server() -> Facts {
        Facts {
            interface: Ok(Interface {
                name: "eth0".to_owned(),
                kind: InterfaceKind::Physical,
                is_up: true,
                has_source_address: Some(true),
                has_native_xdp: Some(true),
                has_foreign_program: Some(false),
                mtu_bytes: 1500,
                receive_queues: Some(8),
                has_only_default_route: Some(true),
            }),
            kernel: Some(KernelVersion(6, 8)),
            may_use_xdp: true,
            source_ports_are_ours: Some(true),
            sockets_at_source_ports: Some(Vec::new()),
            forwards_ipv4: Some(false),
            cores: NonZeroUsize::new(8).unwrap(),
        }
    }

    /// That server with another interface.
    fn with(change: impl Fn(&mut Interface)) -> Facts {
        let mut facts = server();
        change(facts.interface.as_mut().unwrap());
        facts
    }

    fn without_interface(why: NoInterface) -> Facts {
        Facts { interface: Err(why), ..server() }
    }

    fn auto(facts: &Facts) -> Choice {
        choose(Datapath::Auto, XdpMode::Auto, facts).unwrap()
    }

    /// Hosts on each side of every condition, and the reason for which `auto` takes epoll, if it does.
    fn hosts() -> Vec<(&'static str, Facts, Option<&'static str>)> {
        let cores = |cores| Facts { cores: NonZeroUsize::new(cores).unwrap(), ..server() };
        let kernel = |kernel| Facts { kernel, ..server() };
        let ports = |source_ports_are_ours| Facts { source_ports_are_ours, ..server() };
        let sockets = |sockets_at_source_ports| Facts { sockets_at_source_ports, ..server() };
        let forwards = |forwards_ipv4| Facts { forwards_ipv4, ..server() };
        let kind = |kind| with(move |it| it.kind = kind);
        let single_queue =
            |only| with(move |it| (it.receive_queues, it.has_only_default_route) = (Some(1), only));
        vec![
            ("server", server(), None),
            ("namespace with a veth", kind(InterfaceKind::Veth), None),
            (
                "mistyped name",
                without_interface(NoInterface::Unknown("eht0".into())),
                Some("interface=eht0 exists=no"),
            ),
            (
                "no network",
                without_interface(NoInterface::NoDefaultRoute),
                Some("interface=none default_routes=0"),
            ),
            (
                "two uplinks",
                without_interface(NoInterface::SeveralDefaultRoutes),
                Some("interface=none default_routes=several"),
            ),
            (
                "sandbox without netlink",
                without_interface(NoInterface::Unreadable),
                Some("interface=none default_routes=unknown"),
            ),
            ("loopback", kind(InterfaceKind::Loopback), Some("interface=eth0 kind=loopback")),
            ("bond", kind(InterfaceKind::Bond), Some("interface=eth0 kind=bond")),
            ("VLAN", kind(InterfaceKind::Vlan), Some("interface=eth0 kind=vlan")),
            ("hypervisor", kind(InterfaceKind::Bridge), Some("interface=eth0 kind=bridge")),
            ("port of a bridge", kind(InterfaceKind::Port), Some("interface=eth0 kind=port")),
            ("tunnel", kind(InterfaceKind::OtherVirtual), Some("interface=eth0 kind=other_virtual")),
            ("down", with(|it| it.is_up = false), Some("interface=eth0 up=no")),
            (
                "no address",
                with(|it| it.has_source_address = Some(false)),
                Some("interface=eth0 source_address=no"),
            ),
            ("old driver", with(|it| it.has_native_xdp = Some(false)), Some("interface=eth0 native_xdp=no")),
            ("silent driver", with(|it| it.has_native_xdp = None), Some("interface=eth0 native_xdp=unknown")),
            (
                "load balancer of another",
                with(|it| it.has_foreign_program = Some(true)),
                Some("interface=eth0 foreign_program=yes"),
            ),
            ("jumbo frames", with(|it| it.mtu_bytes = 1501), Some("interface=eth0 mtu_bytes=1501 most=1500")),
            (
                "virtual machine with one queue",
                single_queue(Some(true)),
                Some("interface=eth0 only_default_route=yes queues=1"),
            ),
            ("one queue beside a way in", single_queue(Some(false)), None),
            (
                "one queue, routes unread",
                single_queue(None),
                Some("interface=eth0 only_default_route=unknown queues=1"),
            ),
            (
                "queues unread",
                with(|it| it.receive_queues = None),
                Some("interface=eth0 only_default_route=yes queues=unknown"),
            ),
            ("two queues", with(|it| it.receive_queues = Some(2)), None),
            ("Linux 5.14", kernel(Some(KernelVersion(5, 14))), Some("interface=eth0 kernel=5.14 least=5.15")),
            ("Linux 5.15", kernel(Some(KernelVersion(5, 15))), None),
            ("Linux 4.19", kernel(Some(KernelVersion(4, 19))), Some("interface=eth0 kernel=4.19 least=5.15")),
            ("nameless kernel", kernel(None), Some("interface=eth0 kernel=unknown")),
            (
                "ordinary user",
                Facts { may_use_xdp: false, ..server() },
                Some("interface=eth0 capabilities=no"),
            ),
            ("ports shared", ports(Some(false)), Some("interface=eth0 source_ports_free=no")),
            ("ports unread", ports(None), Some("interface=eth0 source_ports_free=unknown")),
            (
                "message broker",
                sockets(Some(vec!["192.0.2.9:61616".parse().unwrap()])),
                Some("interface=eth0 source_port_taken=61616"),
            ),
            ("sockets unread", sockets(None), Some("interface=eth0 source_port_taken=unknown")),
            ("container host", forwards(Some(true)), Some("interface=eth0 ip_forward=yes")),
            ("forwarding unread", forwards(None), Some("interface=eth0 ip_forward=unknown")),
            ("one core", cores(1), Some("interface=eth0 cores=1 least=2")),
            ("two cores", cores(2), None),
            (
                "small container",
                Facts { may_use_xdp: false, cores: NonZeroUsize::MIN, ..with(|it| it.mtu_bytes = 9000) },
                Some("interface=eth0 mtu_bytes=9000 most=1500 capabilities=no cores=1 least=2"),
            ),
        ]
    }

    #[test]
    fn auto_takes_xdp_only_where_every_condition_holds_and_says_which_does_not() {
        for (host, facts, expected) in hosts() {
            match (auto(&facts), expected) {
                (Choice::Epoll { reason }, Some(expected)) => assert_eq!(reason, expected, "{host}"),
                (Choice::Xdp { interface, attach, warnings, .. }, None) => {
                    assert_eq!(
                        (interface.as_str(), attach, warnings.len()),
                        ("eth0", Attach::Native, 0),
                        "{host}"
                    );
                }
                (choice, _) => panic!("{host}: {choice:?}"),
            }
        }
    }

    #[test]
    fn the_reason_for_xdp_is_one_line_of_fields() {
        let Choice::Xdp { reason, .. } = auto(&server()) else { panic!("the server is made for it") };
        assert_eq!(reason, "interface=eth0 native_xdp=yes queues=8 mtu_bytes=1500 kernel=6.8 cores=8");
    }

    #[test]
    fn auto_never_takes_generic_mode() {
        let choice = choose(Datapath::Auto, XdpMode::Generic, &server()).unwrap();
        assert_eq!(choice, Choice::Epoll { reason: "interface=eth0 xdp_mode=generic".to_owned() });
    }

    #[test]
    fn epoll_is_obeyed_whatever_the_host() {
        for (host, facts, _) in hosts() {
            let choice = choose(Datapath::Epoll, XdpMode::Auto, &facts).unwrap();
            assert_eq!(choice, Choice::Epoll { reason: "as configured".to_owned() }, "{host}");
        }
    }

    #[test]
    fn xdp_by_name_is_refused_only_where_it_cannot_work() {
        let refusal = |facts: &Facts| {
            choose(Datapath::Xdp, XdpMode::Auto, facts).err().map(|complaint| complaint.to_string())
        };
        for (host, facts, _) in hosts() {
            let expected = match host {
                "mistyped name" => "found no interface eht0; expected one that `ip -brief link` lists",
                "no network" | "two uplinks" | "sandbox without netlink" => "expected --interface NAME",
                "loopback" => "found the loopback interface eth0",
                "ordinary user" | "small container" => "found too few capabilities",
                "load balancer of another" => "found an XDP program of another on eth0",
                "message broker" => "found another program's socket at 192.0.2.9:61616",
                "ports shared" => "found source ports that the kernel gives out itself",
                _ => {
                    assert_eq!(refusal(&facts), None, "{host}");
                    continue;
                }
            };
            let message = refusal(&facts).unwrap_or_default();
            assert!(
                message.contains(expected) && message.ends_with("or use --datapath epoll"),
                "{host}: {message}"
            );
        }
    }

    #[test]
    fn who_runs_the_program_follows_from_the_mode_and_the_driver() {
        use {Attach::*, XdpMode as Mode};
        for (mode, has_native_xdp, expected) in [
            (Mode::Auto, Some(true), Some(Native)),
            (Mode::Auto, None, Some(NativeElseGeneric)),
            (Mode::Auto, Some(false), Some(Generic)),
            (Mode::ZeroCopy, Some(true), Some(Native)),
            (Mode::ZeroCopy, None, Some(Native)),
            (Mode::ZeroCopy, Some(false), None),
            (Mode::Copy, Some(true), Some(Native)),
            (Mode::Copy, Some(false), None),
            (Mode::Generic, Some(true), Some(Generic)),
            (Mode::Generic, Some(false), Some(Generic)),
        ] {
            let facts = with(|it| it.has_native_xdp = has_native_xdp);
            match (choose(Datapath::Xdp, mode, &facts), expected) {
                (Ok(Choice::Xdp { attach, warnings, .. }), Some(expected)) => {
                    assert_eq!(attach, expected, "{mode:?} {has_native_xdp:?}");
                    let falls_back = mode == Mode::Auto && attach == Generic;
                    assert_eq!(!warnings.is_empty(), falls_back, "{mode:?} {has_native_xdp:?}: {warnings:?}");
                }
                (Err(complaint), None) => assert!(complaint.message().contains("--xdp-mode"), "{complaint}"),
                (choice, _) => panic!("{mode:?} {has_native_xdp:?}: {choice:?}"),
            }
        }
    }

    #[test]
    fn what_is_doubtful_is_obeyed_with_a_warning() {
        let kernel = |kernel| Facts { kernel, ..server() };
        for (facts, word) in [
            (with(|it| it.kind = InterfaceKind::Vlan), "kind vlan"),
            (with(|it| it.is_up = false), "down"),
            (with(|it| it.has_source_address = Some(false)), "no address"),
            (with(|it| it.mtu_bytes = 9000), "9000 bytes"),
            (kernel(Some(KernelVersion(5, 4))), "Linux 5.4"),
            (Facts { source_ports_are_ours: None, ..server() }, "[xdp] ports"),
            (Facts { sockets_at_source_ports: None, ..server() }, "does not list its sockets"),
            (Facts { forwards_ipv4: Some(true), ..server() }, "masquerade"),
        ] {
            let Ok(Choice::Xdp { warnings, .. }) = choose(Datapath::Xdp, XdpMode::Auto, &facts) else {
                panic!("{word} is no reason to refuse")
            };
            assert!(warnings.len() == 1 && warnings[0].contains(word), "{word}: {warnings:?}");
        }
    }
}
