//! What may change about an interface under a running proxy, read at the price of two small requests.
//!
//! Read every second, so it must stay cheap: everything else is [`Facts`](crate::Facts)' business.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::ethtool::Ethtool;
use crate::facts::Channels;
use crate::link::RawLink;
use crate::netlink::Netlink;

/// One interface at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its index: another one under the same name is another interface.
    pub index: u32,
    /// Receive queues in use.
    pub receive_queues: u32,
    /// The id of the XDP program that it runs.
    pub xdp_program: Option<u32>,
}

impl Glance {
    /// Looks at the interface `name` of this thread's network namespace; `None` if there is none.
    ///
    /// # Errors
    /// If netlink does not answer. An interface that goes away meanwhile may look like that, too.
    pub fn at(name: &str) -> io::Result<Option<Self>> {
        let links = RawLink::list(&mut Netlink::open(NETLINK_ROUTE)?)?;
        let Some(link) = links.iter().find(|link| link.name == name) else { return Ok(None) };
        let channels = Ethtool::open(link.index)?.channels()?;
        let receive_queues = channels.map_or(link.receive_queues_max, Channels::receive_queues);
        Ok(Some(Self { index: link.index, receive_queues, xdp_program: link.xdp_program }))
    }
}
