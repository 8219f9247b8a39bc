//! Eight hosts as their kernels describe them, from there to what `auto` does, and why: what an expert would do there.
//!
//! Each side of every single condition is tested in [`choice`](crate::datapath::choice). Here whole hosts are, with all that
//! goes together on them.

use std::num::NonZeroUsize;

use mtproxy_nic::Facts as NicFacts;
use mtproxy_nic::facts::XdpHints;
use mtproxy_nic::link::{Link, Neighbour};
use mtproxy_nic::sysctl::PortRange as NicPortRange;
use mtproxy_xdp::AttachMode;
use mtproxy_xsk::{ChunkSize, ModeLadder};

use super::facts::gather;
use super::kernel_sockets::KernelSocket;
use super::queues::Rungs;
use crate::datapath::choice::{Attach, Choice, choose};
use crate::settings::values::Datapath;
use crate::settings::xdp::{XdpMode, XdpSettings};

/// A host, and what an expert would do there.
struct Case {
    /// What it is.
    host: &'static str,
    nic: NicFacts,
    cores: usize,
    /// Local ports of other programs' connections.
    ports_taken: &'static [u16],
    expected: Expected,
}

enum Expected {
    /// AF_XDP, with these packet buffers, for this reason.
    Xdp(ChunkSize, &'static str),
    /// The kernel's sockets, for this reason.
    Epoll(&'static str),
}

/// A machine with one card, which has the only default route and XDP in its driver.
fn machine(name: &str, driver: &str, kernel: &str, queues: u32) -> NicFacts {
    NicFacts {
        link: Link {
            index: 2,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu_bytes: 1500,
            is_up: true,
            has_carrier: true,
            receive_queues_max: queues,
            ..Link::default()
        },
        driver: Ok(driver.to_owned()),
        receive_queues: Ok(queues),
        addresses: Ok(vec![("192.0.2.10".parse().unwrap(), 24)]),
        has_only_default_route: Ok(true),
        rss: Ok(None),
        xdp: Ok(XdpHints { is_native: true, redirects: true, has_zero_copy: true, ..XdpHints::default() }),
        kernel: Ok(kernel.to_owned()),
        ephemeral_ports: Ok(NicPortRange { first: 32768, last: 60999 }),
        reserved_ports: Ok(Vec::new()),
        forwards_ipv4: Ok(false),
    }
}

fn with(mut nic: NicFacts, change: impl FnOnce(&mut NicFacts)) -> NicFacts {
    change(&mut nic);
    nic
}

fn hosts() -> [Case; 8] {
    use Expected::{Epoll, Xdp};
    [
        Case {
            host: "server of an ISP: Intel E810, Ubuntu 24.04, clients on one card and the management on another",
            nic: with(machine("ens1f0", "ice", "6.8.0-45-generic", 32), |nic| {
                nic.has_only_default_route = Ok(false);
            }),
            cores: 32,
            ports_taken: &[40000],
            expected: Xdp(
                ChunkSize::Bytes2048,
                "interface=ens1f0 native_xdp=yes queues=32 mtu_bytes=1500 kernel=6.8 cores=32",
            ),
        },
        Case {
            host: "small server: Intel I210, whose driver needs buffers of a page each",
            nic: machine("enp3s0", "igb", "6.18.15+deb13-amd64", 4),
            cores: 4,
            ports_taken: &[],
            expected: Xdp(
                ChunkSize::Bytes4096,
                "interface=enp3s0 native_xdp=yes queues=4 mtu_bytes=1500 kernel=6.18 cores=4",
            ),
        },
        Case {
            host: "virtual machine of several queues, whose driver does not even say zero-copy",
            nic: with(machine("eth0", "virtio_net", "6.1.0-28-cloud-amd64", 4), |nic| {
                nic.xdp = Ok(XdpHints { is_native: true, redirects: true, ..XdpHints::default() });
            }),
            cores: 4,
            ports_taken: &[],
            expected: Xdp(
                ChunkSize::Bytes2048,
                "interface=eth0 native_xdp=yes queues=4 mtu_bytes=1500 kernel=6.1 cores=4",
            ),
        },
        Case {
            host: "cheap virtual machine: one queue, one core, and no other way in",
            nic: machine("eth0", "virtio_net", "6.1.0-28-cloud-amd64", 1),
            cores: 1,
            ports_taken: &[],
            expected: Epoll("interface=eth0 only_default_route=yes queues=1 cores=1 least=2"),
        },
        Case {
            host: "server with two ConnectX-6 in a bond: packets show themselves at its ports, not at the bond",
            nic: with(machine("bond0", "bonding", "6.12.9-amd64", 16), |nic| {
                nic.link.kind = Some("bond".to_owned());
                nic.link.ports = vec!["ens3f0np0".to_owned(), "ens3f1np1".to_owned()];
            }),
            cores: 32,
            ports_taken: &[],
            expected: Epoll("interface=bond0 kind=bond"),
        },
        Case {
            host: "rented server whose public address is on a VLAN: the card takes the tag off before the program looks",
            nic: with(machine("eno1.4000", "802.1Q VLAN Support", "6.12.9-amd64", 1), |nic| {
                nic.link.kind = Some("vlan".to_owned());
                nic.link.lower = Some("eno1".to_owned());
                nic.link.mtu_bytes = 1400;
                nic.xdp = Ok(XdpHints::default());
            }),
            cores: 16,
            ports_taken: &[],
            expected: Epoll("interface=eno1.4000 kind=vlan native_xdp=no only_default_route=yes queues=1"),
        },
        Case {
            host: "desktop as a server: Realtek, no XDP in the driver, one queue",
            nic: with(machine("enp4s0", "r8169", "6.12.9-amd64", 1), |nic| {
                nic.xdp = Ok(XdpHints::default());
            }),
            cores: 8,
            ports_taken: &[],
            expected: Epoll("interface=enp4s0 native_xdp=no only_default_route=yes queues=1"),
        },
        Case {
            host: "node of a Kubernetes cluster: Cilium has its program there, packets are forwarded, a port of ours is in use",
            nic: with(machine("ens5", "ena", "6.8.0-1021-aws", 8), |nic| {
                nic.link.xdp_program = Some(41);
                nic.link.mtu_bytes = 9001;
                nic.forwards_ipv4 = Ok(true);
            }),
            cores: 8,
            ports_taken: &[61_616],
            expected: Epoll(
                "interface=ens5 foreign_program=yes mtu_bytes=9001 most=1500 source_port_taken=61616 ip_forward=yes",
            ),
        },
    ]
}

#[test]
fn auto_does_what_an_expert_would_on_eight_hosts_and_says_why() {
    const ESTABLISHED: u8 = 1;
    for Case { host, nic, cores, ports_taken, expected } in hosts() {
        let socket =
            |port: &u16| KernelSocket::new(format!("192.0.2.10:{port}").parse().unwrap(), ESTABLISHED);
        let sockets: Vec<KernelSocket> = ports_taken.iter().map(socket).collect();
        let cores = NonZeroUsize::new(cores).unwrap();
        let facts = gather(Ok(nic.clone()), true, Some(&sockets), cores, XdpSettings::default().ports, &[]);
        match (choose(Datapath::Auto, XdpMode::Auto, &facts).unwrap(), expected) {
            (Choice::Xdp { reason, attach, warnings, .. }, Expected::Xdp(chunk, expected)) => {
                assert_eq!((reason.as_str(), attach), (expected, Attach::Native), "{host}");
                assert!(warnings.is_empty(), "{host}: {warnings:?}");
                let rungs = Rungs::of(XdpMode::Auto, AttachMode::Native, &nic);
                assert_eq!(rungs, Rungs { modes: ModeLadder::ZeroCopyThenCopy, chunk }, "{host}");
            }
            (Choice::Epoll { reason }, Expected::Epoll(expected)) => assert_eq!(reason, expected, "{host}"),
            (choice, _) => panic!("{host}: {choice:?}"),
        }
    }
}

/// What `auto` leaves alone because nobody has asked for the risk, `xdp` takes, each with the mode it can have there.
#[test]
fn on_hosts_that_auto_leaves_to_the_kernel_xdp_by_name_warns_or_is_refused() {
    let decide = |nic: NicFacts| {
        let cores = NonZeroUsize::new(8).unwrap();
        choose(
            Datapath::Xdp,
            XdpMode::Auto,
            &gather(Ok(nic), true, Some(&[]), cores, XdpSettings::default().ports, &[]),
        )
    };
    let realtek =
        with(machine("enp4s0", "r8169", "6.12.9-amd64", 1), |nic| nic.xdp = Ok(XdpHints::default()));
    let Ok(Choice::Xdp { attach, warnings, .. }) = decide(realtek.clone()) else { panic!("it is a card") };
    assert_eq!((attach, warnings.len()), (Attach::Generic, 1), "{warnings:?}");
    let rungs = Rungs::of(XdpMode::Auto, AttachMode::Generic, &realtek);
    assert_eq!(rungs.modes, ModeLadder::Copy, "zero-copy says nothing behind a program that the kernel runs");

    let port_of_a_bond = with(machine("ens3f0np0", "mlx5_core", "6.12.9-amd64", 16), |nic| {
        nic.link.controller = Some(Neighbour { name: "bond0".to_owned(), kind: Some("bond".to_owned()) });
    });
    let Ok(Choice::Xdp { warnings, .. }) = decide(port_of_a_bond) else { panic!("it can be tried") };
    assert!(warnings.len() == 1 && warnings[0].contains("kind port"), "{warnings:?}");

    let cilium = with(machine("ens5", "ena", "6.8.0-1021-aws", 8), |nic| nic.link.xdp_program = Some(41));
    assert!(decide(cilium).unwrap_err().to_string().contains("an XDP program of another on ens5"));
}
