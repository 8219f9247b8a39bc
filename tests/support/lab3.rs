//! Three hosts and the router between them: the smallest network in which a proxy is what it is outside.
//!
//! ```text
//!  client namespace                router namespace                      proxy namespace
//!  cl0 10.77.1.2–17 ────────── rc0 10.77.1.1
//!      fd77:0:0:1::2               forwards         px1 10.77.0.1 ══════════ px0 10.77.0.2
//!  dc namespace                                         fd77::1                  fd77::2
//!  dc0 10.77.2.2 ───────────── rd0 10.77.2.1
//!      fd77:0:0:2::2
//! ```
//! The proxy has one interface, and reaches clients and data centres alike through a gateway on it, as a
//! server with one network card does. The AF_XDP datapath binds to that interface. Neighbours and routes
//! are the kernel's: nothing is configured that a real host would have to learn.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use crate::net_ns::{ConfigurationError, NetNs};
use crate::socket::PATIENCE;
use crate::veth_pair::{ETHERNET_MTU, Offloads, VethEnd, VethPair};

/// The proxy's only interface.
pub const PROXY_INTERFACE: &str = "px0";
/// Addresses that the client namespace has: each is another 28,000 ports toward the proxy before one in
/// TIME-WAIT must be used again.
pub const CLIENT_ADDRESSES: u8 = 16;

/// What can differ from one lab to the next.
#[derive(Clone, Copy, Debug)]
pub struct Lab3Options {
    /// Receive and transmit queues of the proxy's interface.
    pub queues: u32,
    /// How many of them are in use, if not all.
    pub channels: Option<u32>,
    /// MTU everywhere.
    pub mtu: u32,
    /// Of the proxy's own interface.
    pub proxy_offloads: Offloads,
    /// Of all others.
    pub offloads: Offloads,
}

impl Default for Lab3Options {
    /// One queue, Ethernet, and packets as a wire carries them.
    fn default() -> Self {
        Self {
            queues: 1,
            channels: None,
            mtu: ETHERNET_MTU,
            proxy_offloads: Offloads::Off,
            offloads: Offloads::Off,
        }
    }
}

/// The hosts, until dropped.
#[derive(Debug)]
pub struct Lab3 {
    /// Where clients are.
    pub client: NetNs,
    /// Where the proxy is.
    pub proxy: NetNs,
    /// Where data centres and fronts are.
    pub dc: NetNs,
    /// What forwards between them.
    pub router: NetNs,
    options: Lab3Options,
}

impl Lab3 {
    /// Builds it.
    ///
    /// # Errors
    /// Those of [`NetNs::new`], and whatever the tools say.
    pub fn new(options: Lab3Options) -> Result<Self, ConfigurationError> {
        let [client, proxy, dc, router] = [NetNs::new()?, NetNs::new()?, NetNs::new()?, NetNs::new()?];
        let lab = Self { client, proxy, dc, router, options };
        lab.router.set("net.ipv4.ip_forward", "1")?;
        lab.router.set("net.ipv6.conf.all.forwarding", "1")?;
        for host in [&lab.client, &lab.proxy, &lab.dc] {
            // What most hosts have, or its simpler ancestor where the host keeps namespaces from having it
            // (tcp_allowed_congestion_control). Not BBR, which paces: a lab of a few microseconds' round
            // trips would measure its timers.
            let algorithm = "net.ipv4.tcp_congestion_control";
            host.set(algorithm, "cubic").or_else(|_| host.set(algorithm, "reno"))?;
            // A closed connection's port is free again after a second, where timestamps prove its age.
            host.set("net.ipv4.tcp_tw_reuse", "1")?;
        }
        let Lab3Options { mtu, offloads, .. } = options;
        lab.plug_in_proxy()?;
        lab.wire(&lab.client, ["cl0", "rc0"], 1, 1, [offloads; 2], mtu)?;
        lab.wire(&lab.dc, ["dc0", "rd0"], 2, 1, [offloads; 2], mtu)?;
        for address in Self::client_addresses().skip(1) {
            lab.client.ip(&format!("address add {address}/24 dev cl0"))?;
        }
        lab.await_neighbours();
        Ok(lab)
    }

    /// Lays the proxy's cable, at first or after [`unplug_proxy`](Self::unplug_proxy).
    ///
    /// # Errors
    /// Whatever the tools say.
    pub fn plug_in_proxy(&self) -> Result<(), ConfigurationError> {
        let Lab3Options { queues, channels, mtu, proxy_offloads, offloads } = self.options;
        self.wire(&self.proxy, [PROXY_INTERFACE, "px1"], 0, queues, [proxy_offloads, offloads], mtu)?;
        channels.map_or(Ok(()), |channels| self.set_channels(channels))
    }

    /// Has so many queues of the proxy's interface be in use, and as many at the other end: a veth takes no program while
    /// its peer has more queues to send by.
    ///
    /// # Errors
    /// Whatever the tools say.
    pub fn set_channels(&self, channels: u32) -> Result<(), ConfigurationError> {
        let set = |host: &NetNs, interface| {
            host.run(&format!("ethtool -L {interface} rx {channels} tx {channels}"))
        };
        set(&self.proxy, PROXY_INTERFACE)?;
        set(&self.router, "px1")
    }

    /// Takes the proxy's cable away, and with it the interfaces at both ends.
    ///
    /// # Errors
    /// Whatever the tools say.
    pub fn unplug_proxy(&self) -> Result<(), ConfigurationError> {
        self.proxy.ip(&format!("link delete {PROXY_INTERFACE}"))
    }

    /// Waits until every host and the router have found each other in both families. On a link that has just come up the kernel's
    /// first solicitation may stay unanswered, and it asks again only after a second: until then a client would send
    /// its SYN once more, by another queue, since a veth chooses queues by a number that changes with it.
    fn await_neighbours(&self) {
        for (network, host) in [(0, &self.proxy), (1, &self.client), (2, &self.dc)] {
            let router_ends: [IpAddr; 2] = [v4(network, 1).into(), v6(network, 1).into()];
            host.enter(|| {
                for ip in router_ends {
                    // Nobody listens there: the answer is a reset, and shows that packets come and go.
                    let refused = TcpStream::connect_timeout(&SocketAddr::new(ip, 1), PATIENCE);
                    assert_eq!(
                        refused.map_err(|error| error.kind()).err(),
                        Some(ErrorKind::ConnectionRefused)
                    );
                }
            });
        }
    }

    /// As [`new`](Self::new); without root it says that the test at hand is skipped, and why.
    ///
    /// # Panics
    /// If there is root and it still cannot be built.
    #[must_use]
    pub fn or_skip(options: Lab3Options) -> Option<Self> {
        NetNs::permitted_or_skipped()
            .then(|| Self::new(options).unwrap_or_else(|error| panic!("building a lab: {error}")))
    }

    /// The proxy's addresses.
    #[must_use]
    pub fn proxy_ip(v6: bool) -> IpAddr {
        host_ip(0, v6)
    }

    /// The data centre's addresses.
    #[must_use]
    pub fn dc_ip(v6: bool) -> IpAddr {
        host_ip(2, v6)
    }

    /// The clients' addresses.
    pub fn client_addresses() -> impl Iterator<Item = Ipv4Addr> {
        (2..2 + CLIENT_ADDRESSES).map(|last| Ipv4Addr::new(10, 77, 1, last))
    }

    /// Lays the cable between `host` and the router, and points the host's default routes at it.
    fn wire(
        &self,
        host: &NetNs,
        [near, far]: [&str; 2],
        network: u8,
        queues: u32,
        [near_offloads, far_offloads]: [Offloads; 2],
        mtu: u32,
    ) -> Result<(), ConfigurationError> {
        let end = |namespace, interface, last, offloads| VethEnd {
            namespace,
            interface,
            v4: v4(network, last),
            v6: v6(network, last),
            offloads,
        };
        let ends = [end(host, near, 2, near_offloads), end(&self.router, far, 1, far_offloads)];
        VethPair { ends, queues, mtu }.connect()?;
        host.ip(&format!("route add default via {}", v4(network, 1)))?;
        host.ip(&format!("route add default via {}", v6(network, 1)))
    }
}

fn host_ip(network: u8, is_v6: bool) -> IpAddr {
    if is_v6 { v6(network, 2).into() } else { v4(network, 2).into() }
}

fn v4(network: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, network, last)
}

fn v6(network: u8, last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, u16::from(network), 0, 0, 0, u16::from(last))
}
