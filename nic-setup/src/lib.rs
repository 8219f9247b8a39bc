//! What an interface and its host are like, as far as the AF_XDP datapath must know.
//!
//! ```text
//!   Facts::read("eth0") ─┬─ rtnetlink   links, addresses, default routes
//!                        ├─ ethtool     channels, RSS key and table
//!                        ├─ netdev      what the driver says of XDP
//!                        └─ /proc, /sys kernel, ports, driver
//!   rss::QueueOf::new(&facts) ── on which queue a packet of a flow will arrive
//! ```
//! Reading never changes anything, and needs no privilege. A fact that cannot be read is a value with its
//! reason, so that one old kernel or one odd driver does not hide all the others.
//!
//! Start with [`facts`]; [`rss`] is the only arithmetic here.

#![forbid(unsafe_code)]

mod ethtool;
pub mod facts;
mod generic;
pub mod link;
mod netdev;
pub mod netlink;
pub mod rss;
pub mod sysctl;

pub use facts::Facts;
