//! What `mtproxy run` was told, by its own command line or by the official one, before it means anything.
//!
//! A secret is taken as text here, because an error of the parser would print it.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mtproxy_core::middle_proxy::nat::NatRule;
use mtproxy_core::middle_proxy::proxy_req::ProxyTag;

use super::values::{Datapath, DcAddress, Domain, LogFilter, LogFormat, SecretText, socket_address};
use super::xdp::XdpMode;

/// Every option of `mtproxy run`. What is given here replaces what the configuration file says for the
/// same option; lists are replaced whole.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Configuration file (TOML; docs/mtproxy.example.toml shows every key)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address to accept clients on; repeatable [default: port 443 of every address, or 8443 where
    /// this user may not use 443]
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    pub listen: Vec<SocketAddr>,

    /// Secret that admits clients, or @FILE that holds one; repeatable. A secret given here shows in
    /// the list of processes; @FILE and the configuration file do not [default: generated once and kept]
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<SecretText>,

    /// Site behind which the proxy hides, and where it really is; repeatable, the first is the default
    #[arg(long, value_name = "HOST[=ADDR:PORT]")]
    pub domain: Vec<Domain>,

    /// Address of a data centre, instead of the built-in ones; repeatable, also for one ID
    #[arg(long, value_name = "ID=ADDR:PORT", allow_hyphen_values = true)]
    pub dc: Vec<DcAddress>,

    /// Reach the data centres through the middle proxies of this file (Telegram's proxy-multi.conf); needs
    /// --middle-proxy-secret. All secrets then go that way but those with direct = true in the configuration file
    #[arg(long, value_name = "FILE")]
    pub middle_proxy_config: Option<PathBuf>,

    /// What the middle proxies know (Telegram's proxy-secret)
    #[arg(long, value_name = "FILE")]
    pub middle_proxy_secret: Option<PathBuf>,

    /// Show clients the channel that Telegram's @MTProxybot gave this tag for; through middle proxies only
    #[arg(long, value_name = "HEX32")]
    pub proxy_tag: Option<ProxyTag>,

    /// An address of this host and the one that middle proxies see instead, behind NAT; repeatable
    #[arg(long, value_name = "LOCAL:GLOBAL")]
    pub nat_info: Vec<NatRule>,

    /// How bytes move between the network and the sessions [default: auto]
    #[arg(long, value_name = "auto|xdp|epoll", hide_possible_values = true)]
    pub datapath: Option<Datapath>,

    /// Network interface for the xdp datapath
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// How packets get to and from the xdp datapath [default: auto]
    #[arg(long, value_name = "auto|zero-copy|copy|generic", hide_possible_values = true)]
    pub xdp_mode: Option<XdpMode>,

    /// Take packets whose checksum was left to hardware, as peers on veth and virtio send them; the xdp
    /// datapath then takes corrupted ones too
    #[arg(long)]
    pub trust_partial_checksums: bool,

    /// Threads that serve clients [default: one a core]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroU16>,

    /// Address of /metrics and /healthz over HTTP [default: none]
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    pub metrics: Option<SocketAddr>,

    /// User to become once the ports are open; needs root
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Which log lines to write, such as info or warn,mtproxy_core=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<LogFilter>,

    /// Set by `mtproxy compat` instead of a command line
    #[arg(skip)]
    pub compat: Option<Compat>,

    /// How log lines look [default: text]
    #[arg(long, value_name = "text|json", hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
}

/// What the official command line asks for that `mtproxy run` has no option for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// Ports of 127.0.0.1 of which the first that is free serves the statistics.
    pub stats_ports: Vec<u16>,
    /// The log.
    pub log_file: Option<PathBuf>,
    /// Standard streams go to /dev/null, or to the log.
    pub is_daemon: bool,
    /// Most clients at a time.
    pub clients_max: Option<usize>,
    /// Most bytes that wait in a worker.
    pub buffer_bytes: Option<usize>,
    /// Silence after which links are pinged.
    pub ping: Option<Duration>,
    /// Workers asked for, as the statistics say it.
    pub slaves: u16,
    /// The priority to take.
    pub nice: i32,
    /// What to say about options that have no effect here.
    pub notes: Vec<String>,
}
