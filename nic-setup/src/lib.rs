//! What an interface and its host are like, as far as the AF_XDP datapath must know, and how they can be made better.
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
//! ```text
//!   LiveHost ─ survey ─► Survey ─► stages ─► Findings ─► changes ─► apply ─► LiveHost
//!   (live.rs)                     (pure)                              │
//!                                              undo ◄──── journal ◄───┘  written before each change
//! ```
//! Only [`live`] touches the host, and only [`apply`] tells it to change anything.
//!
//! Start with [`facts`] and [`stages`]; [`rss`] is the only arithmetic here.

#![forbid(unsafe_code)]

pub mod apply;
mod ethtool;
pub mod facts;
pub mod finding;
mod generic;
mod glance;
pub mod host;
pub mod journal;
pub mod knob;
pub mod link;
pub mod live;
mod netdev;
pub mod netlink;
pub mod quirks;
pub mod rss;
pub mod stages;
pub mod survey;
pub mod sysctl;

pub use facts::Facts;
pub use glance::Glance;
