//! What a doctor has seen: plain values, so that patients can also be made up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mtproxy_core::dc::DcId;

use crate::complaint::Complaints;
use crate::datapath::choice::Choice;

/// Everything that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What the operator wrote, or what is wrong with it: then nothing else was looked at.
    pub(crate) settings: Result<Settings, Complaints>,
    /// The datapath that `mtproxy run` would take, or why it would not start.
    pub(crate) datapath: Result<Choice, String>,
    /// What `mtproxy nic check` would say of the interface of that datapath. `None`: there is none.
    pub(crate) card: Option<Card>,
    /// Each listening address, and whether it can be had.
    pub(crate) listening: Vec<(SocketAddr, Port)>,
    /// Files that a process of this user may have open.
    pub(crate) descriptors: u64,
    /// What was asked of the network. `None`: it was not to be asked.
    pub(crate) network: Option<Network>,
}

/// What of the settings matters here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Clients that there may be at a time.
    pub(crate) connections: u64,
    /// Descriptors that as many clients take.
    pub(crate) descriptors_wanted: u64,
    /// Names of secrets that admit clients without fake TLS.
    pub(crate) recognisable_secrets: Vec<String>,
    /// True if a secret stands on the command line.
    pub(crate) has_secret_on_command_line: bool,
    /// True with a domain to hide behind.
    pub(crate) has_domains: bool,
    /// True if clients go through middle proxies.
    pub(crate) has_middle_proxies: bool,
    /// True with a rule that says what middle proxies see instead of our address.
    pub(crate) has_nat_rules: bool,
}

/// What the stages of a card say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Card {
    /// Its name.
    pub(crate) interface: String,
    /// Changes that `mtproxy nic apply` would make.
    pub(crate) changes: usize,
    /// What keeps AF_XDP from working.
    pub(crate) blocked: Vec<String>,
}

/// Whether a port can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// It can.
    Free,
    /// Somebody listens there.
    Taken,
    /// This user may not.
    Forbidden,
    /// It is no address of this host.
    NotOurs,
}

/// What was asked of the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Where this host would send from, by family: IPv4, IPv6. `None` without a route.
    pub(crate) sources: [Option<IpAddr>; 2],
    /// Every address of a data centre.
    pub(crate) data_centres: Vec<Probe>,
    /// Every domain.
    pub(crate) fronts: Vec<Front>,
}

/// An address of a data centre, and what became of a connection to it.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// The data centre.
    pub(crate) dc: DcId,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// How long it took, or why there is none.
    pub(crate) outcome: Result<Duration, String>,
}

/// A site behind which the proxy hides.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    /// Its name.
    pub(crate) domain: String,
    /// Where strangers are connected to, or why that is not known.
    pub(crate) addresses: Result<Vec<SocketAddr>, String>,
    /// Where the world finds the name: what a censor would compare with our address.
    pub(crate) published: Result<Vec<IpAddr>, String>,
    /// What it answers to a greeting, or why nothing.
    pub(crate) tls: Result<Tls, String>,
}

/// A TLS handshake with a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// True for TLS 1.3, which is what fake TLS looks like.
    pub(crate) is_1_3: bool,
    /// The key exchange that it chose.
    pub(crate) key_exchange: String,
    /// Size of its certificates.
    pub(crate) certificate_bytes: usize,
    /// Whether browsers would believe the certificate, and if not, why.
    pub(crate) certificate: Result<(), String>,
    /// How far our clock is ahead of its own, seconds. `None`: it did not say.
    pub(crate) clock_ahead_seconds: Option<i64>,
}
