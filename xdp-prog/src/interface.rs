//! What an interface says about itself: its index, and which XDP program it runs in which mode.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// IFNAMSIZ without the end of the string; the kernel refuses longer ones, but as out of range.
const NAME_MAX: usize = 15;

/// An interface, as the kernel described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) xdp: Option<Xdp>,
}

/// The XDP program of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xdp {
    pub(crate) mode: XdpAttached,
    pub(crate) program: u32,
}

impl Interface {
    pub(crate) fn look_up(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of an interface"));
        }
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&request(name), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        read(&answer)
    }
}

fn request(name: &str) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn read(answer: &[u8]) -> io::Result<Interface> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let message =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(|e| invalid(e.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            let xdp = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => read_xdp(xdp),
                _ => None,
            });
            Ok(Interface { index: link.header.index, xdp })
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(invalid(format!("netlink answered {other:?}"))),
    }
}

fn read_xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(mode) if *mode != XdpAttached::None => Some(*mode),
        _ => None,
    })?;
    // With programs in several modes at once there is one id for each, and no common one.
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    });
    Some(Xdp { mode, program: program.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_number_one_and_runs_no_program() {
        assert_eq!(Interface::look_up("lo").expect("there is one"), Interface { index: 1, xdp: None });
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error_and_not_another_interface() {
        for name in ["", "no-such-link", "a-name-that-is-much-too-long"] {
            assert!(Interface::look_up(name).is_err(), "{name}");
        }
    }
}
