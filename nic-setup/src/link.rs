//! An interface as a link, and how it stands to other links.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};

use crate::netlink::Netlink;

/// An interface as a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address, if that has the length of Ethernet's.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes.
    pub mtu_bytes: u32,
    /// True if it was set up.
    pub is_up: bool,
    /// True if the other end is there.
    pub has_carrier: bool,
    /// `veth`, `vlan`, `bond`, `bridge` and so on. `None`: hardware, or loopback.
    pub kind: Option<String>,
    /// The bond, bridge or team that it is a port of.
    pub controller: Option<Neighbour>,
    /// Its ports, if it is a bond, bridge or team.
    pub ports: Vec<String>,
    /// What a VLAN or another stacked device is on, if that is in this network namespace.
    pub lower: Option<String>,
    /// Receive queues that exist, in use or not.
    pub receive_queues_max: u32,
    /// The number of the XDP program on it.
    pub xdp_program: Option<u32>,
}

/// A link next to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// As in [`Link::kind`].
    pub kind: Option<String>,
}

/// A link as the kernel tells it, other links by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLink {
    /// As in [`Link`].
    pub index: u32,
    /// As in [`Link`].
    pub name: String,
    /// As in [`Link`].
    pub mac: Option<[u8; 6]>,
    /// As in [`Link`].
    pub mtu_bytes: u32,
    /// As in [`Link`].
    pub is_up: bool,
    /// As in [`Link`].
    pub has_carrier: bool,
    /// As in [`Link`].
    pub kind: Option<String>,
    /// As in [`Link`].
    pub controller: Option<u32>,
    /// As in [`Link`]; the number may be of another network namespace, see `lower_is_elsewhere`.
    pub lower: Option<u32>,
    /// True if the link below, or the other end of a pair, is in another network namespace.
    pub lower_is_elsewhere: bool,
    /// The identifier, if it is a VLAN.
    pub vlan_id: Option<u16>,
    /// As in [`Link`].
    pub receive_queues_max: u32,
    /// As in [`Link`].
    pub xdp_program: Option<u32>,
}

impl Link {
    /// Finds the link `name`, and those around it.
    pub(crate) fn find(netlink: &mut Netlink, name: &str) -> io::Result<Self> {
        let all = RawLink::list(netlink)?;
        Self::among(&all, name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("found no interface {name}")))
    }

    fn among(all: &[RawLink], name: &str) -> Option<Self> {
        let raw = all.iter().find(|link| link.name == name)?.clone();
        let by_index = |index| all.iter().find(|link| link.index == index);
        let controller = raw.controller.and_then(by_index);
        let lower = raw.lower.filter(|_| !raw.lower_is_elsewhere).and_then(by_index);
        let ports = all.iter().filter(|link| link.controller == Some(raw.index));
        Some(Self {
            index: raw.index,
            name: raw.name,
            mac: raw.mac,
            mtu_bytes: raw.mtu_bytes,
            is_up: raw.is_up,
            has_carrier: raw.has_carrier,
            kind: raw.kind,
            controller: controller.map(|it| Neighbour { name: it.name.clone(), kind: it.kind.clone() }),
            ports: ports.map(|port| port.name.clone()).collect(),
            lower: lower.map(|lower| lower.name.clone()),
            receive_queues_max: raw.receive_queues_max,
            xdp_program: raw.xdp_program,
        })
    }
}

impl RawLink {
    /// All links of the socket's network namespace.
    ///
    /// # Errors
    /// As [`Netlink::dump`] has them.
    pub fn list(netlink: &mut Netlink) -> io::Result<Vec<Self>> {
        let answer = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answer.messages.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Self::from(link)),
            _ => None,
        });
        Ok(links.collect())
    }
}

impl From<&LinkMessage> for RawLink {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            is_up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(bytes) => link.mtu_bytes = *bytes,
                LinkAttribute::Carrier(carrier) => link.has_carrier = *carrier != 0,
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::Link(index) => link.lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => link.lower_is_elsewhere = true,
                LinkAttribute::NumRxQueues(queues) => link.receive_queues_max = *queues,
                LinkAttribute::LinkInfo(infos) => link.note_infos(infos),
                LinkAttribute::Xdp(attributes) => {
                    link.xdp_program = attributes.iter().find_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl RawLink {
    fn note_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vlan(attributes)) => {
                    self.vlan_id = attributes.iter().find_map(|attribute| match attribute {
                        InfoVlan::Id(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(index: u32, name: &str, kind: Option<&str>) -> RawLink {
        RawLink { index, name: name.to_owned(), kind: kind.map(str::to_owned), ..RawLink::default() }
    }

    #[test]
    fn a_bond_knows_its_ports_and_a_port_its_bond() {
        let port = RawLink { controller: Some(3), ..raw(2, "eth0", None) };
        let all = [raw(1, "lo", None), port, raw(3, "bond0", Some("bond"))];
        let port = Link::among(&all, "eth0").unwrap();
        let bond = Neighbour { name: "bond0".to_owned(), kind: Some("bond".to_owned()) };
        assert_eq!(port.controller, Some(bond));
        assert!(port.ports.is_empty());
        assert_eq!(Link::among(&all, "bond0").unwrap().ports, ["eth0"]);
        assert_eq!(Link::among(&all, "eth1"), None);
    }

    #[test]
    fn a_vlan_knows_what_it_is_on_unless_that_is_elsewhere() {
        let mut vlan = RawLink { lower: Some(2), ..raw(4, "eth0.5", Some("vlan")) };
        let all = [raw(2, "eth0", None), vlan.clone()];
        assert_eq!(Link::among(&all, "eth0.5").unwrap().lower, Some("eth0".to_owned()));
        vlan.lower_is_elsewhere = true;
        assert_eq!(Link::among(&[raw(2, "eth0", None), vlan], "eth0.5").unwrap().lower, None);
    }
}
