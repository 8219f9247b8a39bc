//! Everything that is known about one interface and its host, read at one moment.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::ethtool::Ethtool;
use crate::link::{Link, RawLink};
use crate::netdev;
use crate::netlink::Netlink;
use crate::sysctl::{self, PortRange};

/// A fact, or why it could not be read.
pub type Fact<T> = Result<T, Unreadable>;

/// Why a fact could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// What is known about one interface and its host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The interface as a link.
    pub link: Link,
    /// The driver's name. A device of software alone has none in `/sys`; its kind stands for it then.
    pub driver: Fact<String>,
    /// Receive queues in use.
    pub receive_queues: Fact<u32>,
    /// Addresses on it, with the lengths of their prefixes.
    pub addresses: Fact<Vec<(IpAddr, u8)>>,
    /// True if it has a default route and no other interface has one.
    pub has_only_default_route: Fact<bool>,
    /// How packets are spread over its queues. `None`: the driver does not say.
    pub rss: Fact<Option<Rss>>,
    /// What the driver says of XDP.
    pub xdp: Fact<XdpHints>,
    /// The kernel's release, such as `6.18.2-generic`.
    pub kernel: Fact<String>,
    /// Ports that the kernel gives to its own connections.
    pub ephemeral_ports: Fact<PortRange>,
    /// Ports that it keeps off, though they may be among those.
    pub reserved_ports: Fact<Vec<PortRange>>,
    /// True if it forwards IPv4 packets, as it must for guests and containers behind its address.
    pub forwards_ipv4: Fact<bool>,
}

/// Channels in use: what serves interrupts, with the queues it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) receive_only: u32,
    pub(crate) transmit_only: u32,
    pub(crate) combined: u32,
}

impl Channels {
    pub(crate) fn receive_queues(self) -> u32 {
        self.receive_only + self.combined
    }
}

/// How a device spreads packets over its receive queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rss {
    /// True if the hash is Toeplitz'.
    pub is_toeplitz: bool,
    /// True if the input is folded, so that both directions of a flow hash alike.
    pub is_symmetric: bool,
    /// False if the driver says that TCP is hashed over other fields than addresses and ports.
    pub hashes_four_tuple: bool,
    /// The key of the hash.
    pub key: Vec<u8>,
    /// The queue for each value of the hash's low bits.
    pub table: Vec<u32>,
}

/// What a driver says of XDP. Hints only: what a socket got is known when it is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpHints {
    /// True if the driver runs XDP programs itself.
    pub is_native: bool,
    /// True if it redirects packets, which AF_XDP needs.
    pub redirects: bool,
    /// True if AF_XDP may do without copying.
    pub has_zero_copy: bool,
    /// Most frames a packet may have without copying.
    pub zero_copy_segments_max: Option<u32>,
    /// `xsk-features` as the kernel encodes them: 1 transmit timestamps, 2 transmit checksums.
    pub xsk_features: u64,
}

impl Facts {
    /// Reads all facts about the interface `name` of this thread's network namespace.
    ///
    /// # Errors
    /// If there is no such interface, or no netlink at all.
    pub fn read(name: &str) -> io::Result<Self> {
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        let link = Link::find(&mut netlink, name)?;
        let index = link.index;
        let channels = Ethtool::open(index).and_then(|mut ethtool| ethtool.channels());
        let rss = Ethtool::open(index).and_then(|mut ethtool| ethtool.rss());
        Ok(Self {
            driver: driver(&link),
            receive_queues: match channels {
                // Without channels, such as on loopback, the queues are as many as were made.
                Ok(None) => Ok(link.receive_queues_max),
                Ok(Some(channels)) => Ok(channels.receive_queues()),
                Err(error) => Err(error.into()),
            },
            addresses: addresses_on(&mut netlink, index).map_err(Unreadable::from),
            has_only_default_route: default_routes(&mut netlink)
                .map(|interfaces| !interfaces.is_empty() && interfaces.iter().all(|&other| other == index))
                .map_err(Unreadable::from),
            rss: rss.map_err(Unreadable::from),
            xdp: netdev::xdp_hints(index).map_err(Unreadable::from),
            kernel: kernel_release().map_err(Unreadable::from),
            ephemeral_ports: sysctl::ephemeral_ports().map_err(Unreadable::from),
            reserved_ports: sysctl::reserved_ports().map_err(Unreadable::from),
            forwards_ipv4: sysctl::forwards_ipv4().map_err(Unreadable::from),
            link,
        })
    }
}

/// Major and minor number of a kernel.
pub type KernelVersion = (u32, u32);

/// The version of a kernel's release: that of `6.18.44-something` is (6, 18).
#[must_use]
pub fn kernel_version(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel_release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// The link's directory below `/sys/class/net`. A mount of `/sys` shows one network namespace for ever, which need not be
/// this thread's.
pub(crate) fn in_sys(link: &Link) -> Option<PathBuf> {
    let directory = Path::new("/sys/class/net").join(&link.name);
    let index = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse();
    (index == Ok(link.index)).then_some(directory)
}

/// Why what is below `/sys` cannot be read.
pub(crate) fn not_in_sys() -> Unreadable {
    Unreadable("/sys shows another network namespace".to_owned())
}

fn driver(link: &Link) -> Fact<String> {
    let in_sys = in_sys(link).map(|directory| fs::read_link(directory.join("device/driver")));
    match (in_sys, &link.kind) {
        (Some(Ok(driver)), _) => driver
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .ok_or_else(|| Unreadable(format!("{} names no driver", driver.display()))),
        (_, Some(kind)) => Ok(kind.clone()),
        (Some(Err(error)), None) => Err(error.into()),
        (None, None) => Err(not_in_sys()),
    }
}

fn addresses_on(netlink: &mut Netlink, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
    let answer = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let on_it = answer.messages.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) if address.header.index == index => Some(address),
        _ => None,
    });
    Ok(on_it.filter_map(|address| Some((local_address(&address)?, address.header.prefix_len))).collect())
}

/// The address itself, which on a point-to-point link is not the one of the prefix.
#[must_use]
pub fn local_address(address: &AddressMessage) -> Option<IpAddr> {
    let local = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(local) => Some(*local),
        _ => None,
    });
    local.or_else(|| {
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// Names of the interfaces with a default route, each once.
///
/// # Errors
/// If routes or links cannot be read.
pub fn interfaces_with_default_route() -> io::Result<Vec<String>> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let indices = default_routes(&mut netlink)?;
    let links = RawLink::list(&mut netlink)?;
    Ok(links.into_iter().filter(|link| indices.contains(&link.index)).map(|link| link.name).collect())
}

/// The interface of each default route in the main table, once for each route and family.
fn default_routes(netlink: &mut Netlink) -> io::Result<Vec<u32>> {
    let answer = netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let routes = answer.messages.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    let default = routes.filter(|RouteMessage { header, .. }| {
        header.destination_prefix_length == 0
            && header.table == RouteHeader::RT_TABLE_MAIN
            && header.kind == RouteType::Unicast
    });
    Ok(default.flat_map(|route| route.attributes.iter().flat_map(interfaces)).collect())
}

fn interfaces(attribute: &RouteAttribute) -> Vec<u32> {
    match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => vec![],
    }
}
