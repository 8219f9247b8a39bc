//! Settings as they were written, by the command line or the file, each with its place.
//!
//! `None` means that the option was not written. Nothing is filled in here.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use mtproxy_core::dc::{DcId, PreferIp};
use mtproxy_core::middle_proxy::nat::NatRule;
use mtproxy_core::middle_proxy::proxy_req::ProxyTag;

use super::RunArgs;
use super::cidr::Cidr;
use super::middle_proxies::DownloadUrl;
use super::values::{Datapath, DcAddress, Domain, LogFilter, LogFormat, SecretText};
use super::xdp::{Congestion, PortRange, XdpMode};
use crate::complaint::{Place, Placed};

/// A secret as it was written.
#[derive(Clone, Debug)]
pub(super) struct SecretEntry {
    pub(super) name: Option<Placed<String>>,
    pub(super) text: Placed<SecretText>,
    pub(super) direct: Option<bool>,
}

/// Everything an operator may write.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) listen: Option<Vec<Placed<SocketAddr>>>,
    pub(super) secrets: Option<Vec<SecretEntry>>,
    pub(super) domains: Option<Vec<Placed<Domain>>>,
    pub(super) dc_addresses: Option<Vec<DcAddress>>,
    pub(super) dc_default: Option<DcId>,
    pub(super) prefer_ip: Option<PreferIp>,
    pub(super) datapath: Option<Placed<Datapath>>,
    pub(super) interface: Option<String>,
    pub(super) workers: Option<usize>,
    pub(super) metrics: Option<Placed<SocketAddr>>,
    pub(super) user: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) log_filter: Option<LogFilter>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) timeouts: DraftTimeouts,
    pub(super) limits: DraftLimits,
    pub(super) xdp: DraftXdp,
    pub(super) middle_proxies: DraftMiddleProxies,
}

/// Times as written; see [`mtproxy_core::config::Timeouts`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DraftTimeouts {
    pub(super) first_byte: Option<Duration>,
    pub(super) handshake: Option<Duration>,
    pub(super) dial: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) linger: Option<Duration>,
    pub(super) drain: Option<Duration>,
}

/// Limits as written; see [`super::Limits`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DraftLimits {
    pub(super) connections: Option<usize>,
    pub(super) relay_window_bytes: Option<usize>,
    pub(super) replay_entries: Option<usize>,
}

/// The AF_XDP datapath as written; see [`super::xdp::XdpSettings`].
#[derive(Clone, Debug, Default)]
pub(super) struct DraftXdp {
    pub(super) mode: Option<XdpMode>,
    pub(super) ports: Option<PortRange>,
    pub(super) frames: Option<u32>,
    pub(super) huge_pages: Option<bool>,
    pub(super) busy_poll: Option<bool>,
    pub(super) pin: Option<bool>,
    pub(super) trust_partial_checksums: Option<bool>,
    pub(super) connections: Option<usize>,
    pub(super) syn_per_source: Option<u32>,
    pub(super) syn_burst: Option<NonZeroU32>,
    pub(super) deny: Option<Vec<Placed<Cidr>>>,
    pub(super) congestion: Option<Congestion>,
}

/// The way through middle proxies as written; see [`super::middle_proxies::MiddleProxySettings`].
#[derive(Clone, Debug, Default)]
pub(super) struct DraftMiddleProxies {
    pub(super) config: Option<Placed<PathBuf>>,
    pub(super) secret: Option<Placed<PathBuf>>,
    pub(super) proxy_tag: Option<Placed<ProxyTag>>,
    pub(super) nat: Option<Vec<Placed<NatRule>>>,
    pub(super) refresh: Option<Placed<bool>>,
    pub(super) config_url: Option<DownloadUrl>,
    pub(super) config_url_v6: Option<DownloadUrl>,
    pub(super) secret_url: Option<DownloadUrl>,
    pub(super) refresh_every: Option<Duration>,
    pub(super) confirm_after: Option<Duration>,
    pub(super) prefer_ip: Option<PreferIp>,
    pub(super) client_buffer_bytes: Option<usize>,
    pub(super) buffer_bytes: Option<usize>,
    pub(super) ping: Option<Duration>,
}

impl DraftMiddleProxies {
    /// These settings, and those of `file` where these say nothing.
    fn over(self, file: Self) -> Self {
        // The two files belong together: one given here does not go with the other's of the configuration file.
        let (config, secret) = match (self.config, self.secret) {
            (None, None) => (file.config, file.secret),
            given => given,
        };
        Self {
            config,
            secret,
            proxy_tag: self.proxy_tag.or(file.proxy_tag),
            nat: self.nat.or(file.nat),
            buffer_bytes: self.buffer_bytes.or(file.buffer_bytes),
            ping: self.ping.or(file.ping),
            // The command line has no words for the rest.
            ..file
        }
    }
}

impl DraftXdp {
    /// These settings, and those of `file` where these say nothing.
    fn over(self, file: Self) -> Self {
        Self {
            mode: self.mode.or(file.mode),
            trust_partial_checksums: self.trust_partial_checksums.or(file.trust_partial_checksums),
            // The command line has no words for the rest.
            ..file
        }
    }
}

impl Draft {
    /// What the command line says.
    pub(super) fn from_command_line(args: &RunArgs) -> Self {
        let secret = |text: &SecretText| SecretEntry {
            name: None,
            text: placed("--secret", text.clone()),
            direct: None,
        };
        let secrets: Vec<_> = args.secret.iter().map(secret).collect();
        Self {
            listen: placed_list("--listen", &args.listen),
            secrets: (!secrets.is_empty()).then_some(secrets),
            domains: placed_list("--domain", &args.domain),
            dc_addresses: (!args.dc.is_empty()).then(|| args.dc.clone()),
            datapath: args.datapath.map(|value| placed("--datapath", value)),
            interface: args.interface.clone(),
            workers: args.workers.map(|workers| usize::from(workers.get())),
            metrics: args.metrics.map(|value| placed("--metrics", value)),
            user: args.user.clone(),
            log_filter: args.log.clone(),
            log_format: args.log_format,
            xdp: DraftXdp {
                mode: args.xdp_mode,
                trust_partial_checksums: args.trust_partial_checksums.then_some(true),
                ..DraftXdp::default()
            },
            middle_proxies: DraftMiddleProxies {
                config: args.middle_proxy_config.clone().map(|path| placed("--middle-proxy-config", path)),
                secret: args.middle_proxy_secret.clone().map(|path| placed("--middle-proxy-secret", path)),
                proxy_tag: args.proxy_tag.map(|tag| placed("--proxy-tag", tag)),
                nat: placed_list("--nat-info", &args.nat_info),
                buffer_bytes: args.compat.as_ref().and_then(|compat| compat.buffer_bytes),
                ping: args.compat.as_ref().and_then(|compat| compat.ping),
                ..DraftMiddleProxies::default()
            },
            limits: DraftLimits {
                connections: args.compat.as_ref().and_then(|compat| compat.clients_max),
                ..DraftLimits::default()
            },
            // The official proxy ends without waiting for anybody.
            timeouts: DraftTimeouts {
                drain: args.compat.as_ref().map(|_| Duration::ZERO),
                ..DraftTimeouts::default()
            },
            ..Self::default()
        }
    }

    /// These settings, and those of `file` where these say nothing. A list is one setting.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            secrets: self.secrets.or(file.secrets),
            domains: self.domains.or(file.domains),
            dc_addresses: self.dc_addresses.or(file.dc_addresses),
            datapath: self.datapath.or(file.datapath),
            interface: self.interface.or(file.interface),
            workers: self.workers.or(file.workers),
            metrics: self.metrics.or(file.metrics),
            user: self.user.or(file.user),
            log_filter: self.log_filter.or(file.log_filter),
            log_format: self.log_format.or(file.log_format),
            xdp: self.xdp.over(file.xdp),
            middle_proxies: self.middle_proxies.over(file.middle_proxies),
            timeouts: DraftTimeouts { drain: self.timeouts.drain.or(file.timeouts.drain), ..file.timeouts },
            limits: DraftLimits {
                connections: self.limits.connections.or(file.limits.connections),
                ..file.limits
            },
            // The command line has no words for the rest.
            ..file
        }
    }
}

fn placed<T>(option: &'static str, value: T) -> Placed<T> {
    Placed { value, place: Place::CommandLine(option) }
}

fn placed_list<T: Clone>(option: &'static str, values: &[T]) -> Option<Vec<Placed<T>>> {
    (!values.is_empty()).then(|| values.iter().map(|value| placed(option, value.clone())).collect())
}
