//! `mtproxy check`: what each setting means for this deployment, in words.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtproxy_core::dc::PreferIp;
use mtproxy_core::secret::{Secret, SecretKind};

use super::middle_proxies::{DownloadUrl, MiddleProxyFiles, MiddleProxySettings, RefreshSettings};
use super::toml_section::KeyLines;
use super::values::{Datapath, Domain};
use super::xdp::{Congestion, FRAME_BYTES, XdpMode, XdpSettings};
use super::{Host, NamedSecret, Settings};

/// One line per setting: its name, where it comes from, what it means. Never a secret.
pub(super) fn explain(path: &Path, settings: &Settings, keys: &KeyLines, host: &Host) -> String {
    let mut text = format!("{} is valid. With it, `mtproxy run` will:\n\n", path.display());
    for (key, meaning) in meanings(settings, host) {
        let origin = match keys.get(key).copied().flatten() {
            Some(line) => format!("line {line}"),
            None => "default".to_owned(),
        };
        writeln!(text, "{key:35} {origin:10} {meaning}").expect("a String takes all that is written to it");
    }
    text
}

fn meanings(settings: &Settings, host: &Host) -> Vec<(&'static str, String)> {
    let mut meanings = vec![
        ("listen", format!("accept clients on {}", words(&settings.listen))),
        ("secrets", admit(settings)),
        ("domains", hide(&settings.domains)),
        ("dc.default", format!("send clients that name no known data centre to {}", settings.dc.default)),
        (
            "dc.prefer_ip",
            format!("try the {} addresses of a data centre or site first", family(settings.dc.prefer_ip)),
        ),
        ("dc.addresses", data_centres(settings)),
        ("datapath", datapath(settings.datapath)),
        ("interface", interface(settings)),
        (
            "workers",
            format!(
                "serve clients on {}; this host has {} for it",
                counted(settings.workers.get(), "thread"),
                counted(host.cores.get(), "core")
            ),
        ),
        (
            "metrics",
            settings.metrics.map_or("serve no metrics over HTTP".to_owned(), |address| {
                format!("serve http://{address}/metrics and /healthz")
            }),
        ),
        ("user", user(settings, host)),
        (
            "state_dir",
            settings.state_dir.as_ref().map_or("keep nothing on disk".to_owned(), |path| {
                format!("keep {} in {}", kept(settings), path.display())
            }),
        ),
        ("log.filter", format!("log {:?}", settings.log_filter.to_string())),
        ("log.format", format!("write log lines as {:?}", settings.log_format).to_lowercase()),
    ];
    meanings.extend(middle_proxies(settings.middle_proxies.as_ref()));
    meanings.extend(times_and_limits(settings));
    meanings.extend(xdp(&settings.xdp).into_iter().map(|(key, meaning)| match settings.datapath {
        Datapath::Xdp => (key, meaning),
        Datapath::Auto => (key, format!("with AF_XDP, {meaning}")),
        Datapath::Epoll => (key, "make no use of it: only the xdp datapath does".to_owned()),
    }));
    meanings
}

fn times_and_limits(settings: &Settings) -> Vec<(&'static str, String)> {
    let (timeouts, limits) = (&settings.timeouts, &settings.limits);
    vec![
        (
            "timeouts.first_byte_seconds",
            format!("wait {} for a client's first byte", seconds(timeouts.first_byte)),
        ),
        (
            "timeouts.handshake_seconds",
            format!("wait {} for a client to show its secret", seconds(timeouts.handshake)),
        ),
        (
            "timeouts.dial_seconds",
            format!("try each address of a data centre or site for {}", seconds(timeouts.dial)),
        ),
        ("timeouts.idle_seconds", format!("close a session after {} without a byte", seconds(timeouts.idle))),
        (
            "timeouts.linger_seconds",
            format!("give what is still queued at the end of a session {}", seconds(timeouts.linger)),
        ),
        ("timeouts.drain_seconds", format!("give open sessions {} after SIGTERM", seconds(settings.drain))),
        (
            "limits.connections",
            limits.connections.map_or(
                "serve as many clients at a time as the limit of open files allows".to_owned(),
                |most| format!("serve at most {} at a time", counted(most, "client")),
            ),
        ),
        (
            "limits.relay_window_bytes",
            format!("hold at most {} for a slow side", counted(limits.relay_window_bytes, "byte")),
        ),
        (
            "limits.replay_entries",
            format!("remember the last {} to recognise a replay", counted(limits.replay_entries, "hello")),
        ),
    ]
}

fn kept(settings: &Settings) -> &'static str {
    match settings.middle_proxies.as_ref().and_then(|middle_proxies| middle_proxies.refresh.as_ref()) {
        Some(_) => "a generated secret and the files of middle proxies",
        None => "a generated secret",
    }
}

fn middle_proxies(settings: Option<&MiddleProxySettings>) -> Vec<(&'static str, String)> {
    let Some(settings) = settings else {
        let unused = || "make no use of it: there are no middle proxies".to_owned();
        let mut all: Vec<_> = MIDDLE_PROXY_KEYS.into_iter().map(|key| (key, unused())).collect();
        all[0].1 =
            "go straight to the data centres; without middle proxies, no channel can be shown".to_owned();
        return all;
    };
    let file = |path: fn(&MiddleProxyFiles) -> &PathBuf, what: &str| match &settings.files {
        Some(files) => format!("read {what} from {}, again whenever it changes", path(files).display()),
        None => format!("download {what}"),
    };
    let download = |url: fn(&RefreshSettings) -> Option<&DownloadUrl>, what: &str| {
        let url = settings.refresh.as_ref().and_then(url);
        url.map_or_else(|| format!("not download {what}"), |url| format!("download {what} from {url}"))
    };
    let refreshing = |meaning: fn(&RefreshSettings) -> String| {
        settings.refresh.as_ref().map_or("make no use of it: nothing is downloaded".to_owned(), meaning)
    };
    let meanings = [
        file(|files| &files.config, "where middle proxies are"),
        file(|files| &files.secret, "what they know"),
        settings.proxy_tag.map_or("show clients no channel".to_owned(), |tag| {
            format!("have clients shown the channel of the tag {tag}")
        }),
        match settings.nat.len() {
            0 => "take this host's addresses for those that middle proxies see".to_owned(),
            rules => {
                format!("tell middle proxies of {} by the address that they see", counted(rules, "address"))
            }
        },
        either(settings.refresh.is_some(), "keep the files current itself", "leave the files to you"),
        download(|refresh| Some(&refresh.config_url), "IPv4 addresses of middle proxies"),
        download(|refresh| refresh.config_url_v6.as_ref(), "IPv6 addresses of middle proxies"),
        download(|refresh| Some(&refresh.secret_url), "what they know"),
        refreshing(|refresh| {
            format!("look for newer files about every {}", counted(hours(refresh.every), "hour"))
        }),
        refreshing(|refresh| {
            format!("look again after {} before it believes a change", seconds(refresh.confirm_after))
        }),
        format!("link to middle proxies over {} where there is a choice", family(settings.prefer_ip)),
        format!(
            "hold at most {} of answers for one client, and close it beyond that",
            counted(settings.client_buffer_bytes, "byte")
        ),
        format!("hold at most {} for all of them in one worker", counted(settings.buffer_bytes, "byte")),
        format!("ask a link that was silent for {} whether it still works", seconds(settings.ping)),
    ];
    MIDDLE_PROXY_KEYS.into_iter().zip(meanings).collect()
}

/// In the order of the example.
const MIDDLE_PROXY_KEYS: [&str; 14] = [
    "middle_proxies.config",
    "middle_proxies.secret",
    "middle_proxies.proxy_tag",
    "middle_proxies.nat",
    "middle_proxies.refresh",
    "middle_proxies.config_url",
    "middle_proxies.config_url_v6",
    "middle_proxies.secret_url",
    "middle_proxies.refresh_hours",
    "middle_proxies.confirm_seconds",
    "middle_proxies.prefer_ip",
    "middle_proxies.client_buffer_bytes",
    "middle_proxies.buffer_bytes",
    "middle_proxies.ping_seconds",
];

fn hours(duration: Duration) -> usize {
    usize::try_from(duration.as_secs() / 3600).unwrap_or(usize::MAX)
}

fn xdp(xdp: &XdpSettings) -> Vec<(&'static str, String)> {
    let mib = (u64::from(xdp.frames) * u64::from(FRAME_BYTES)).div_ceil(1 << 20);
    let frames = counted(xdp.frames as usize, "packet buffer");
    vec![
        ("xdp.mode", mode(xdp.mode).to_owned()),
        (
            "xdp.ports",
            format!(
                "reach data centres and sites from {} ports, {}, less reserved ones",
                xdp.ports.count(),
                xdp.ports
            ),
        ),
        ("xdp.frames", format!("give each queue {frames}: {mib} MiB")),
        ("xdp.huge_pages", either(xdp.huge_pages, "keep them in huge pages", "keep them in ordinary pages")),
        (
            "xdp.busy_poll",
            either(xdp.busy_poll, "poll the device instead of being interrupted", "wait for interrupts"),
        ),
        (
            "xdp.pin",
            either(xdp.pin, "give each queue's thread a core of its own", "let threads change cores"),
        ),
        (
            "xdp.trust_partial_checksums",
            either(
                xdp.trust_partial_checksums,
                "take packets with unfinished checksums from the interface, and so also packets that were \
                corrupted: the two cannot be told apart",
                "drop every packet whose checksum is wrong",
            ),
        ),
        ("xdp.connections", format!("keep at most {} in each queue", counted(xdp.connections, "connection"))),
        (
            "xdp.syn_per_source",
            xdp.syn_limit.map_or("take any number of SYNs from one source".to_owned(), |limit| {
                format!("take {} a second from one source", counted(limit.per_second.get() as usize, "SYN"))
            }),
        ),
        (
            "xdp.syn_burst",
            xdp.syn_limit.map_or("make no use of it: there is no rate".to_owned(), |limit| {
                format!("take {} of it at once", counted(limit.burst.get() as usize, "SYN"))
            }),
        ),
        (
            "xdp.deny",
            match xdp.deny.len() {
                0 => "drop nobody's packets unseen".to_owned(),
                networks => format!("drop the packets of {} unseen", counted(networks, "network")),
            },
        ),
        (
            "xdp.congestion",
            match xdp.congestion {
                Congestion::Cubic => "send as fast as CUBIC allows",
                Congestion::NewReno => "send as fast as NewReno allows",
            }
            .to_owned(),
        ),
    ]
}

fn mode(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Auto => "let the device use the packet buffers if it can, else copy",
        XdpMode::ZeroCopy => "let the device use the packet buffers, or fail",
        XdpMode::Copy => "let the driver run the program and the kernel copy, or fail",
        XdpMode::Generic => "leave all to the kernel: it works everywhere and gains nothing",
    }
}

fn either(is_set: bool, yes: &str, no: &str) -> String {
    if is_set { yes } else { no }.to_owned()
}

fn admit(settings: &Settings) -> String {
    if settings.secrets.is_empty() {
        return "admit clients with a secret that the first start generates".to_owned();
    }
    let each = settings.secrets.iter().map(|NamedSecret { name, secret, direct }| {
        let way = match &settings.middle_proxies {
            Some(_) if *direct => "; straight to the data centres",
            Some(_) | None => "",
        };
        format!("{name} ({}{way})", modes(secret, settings.domains.len()))
    });
    format!("admit {}: {}", counted(settings.secrets.len(), "secret"), each.collect::<Vec<_>>().join(", "))
}

fn modes(secret: &Secret, domains: usize) -> String {
    match secret.kind() {
        SecretKind::Plain if domains == 0 => "plain and dd clients; no fake TLS without a domain".to_owned(),
        SecretKind::Plain => format!("plain, dd, and fake-TLS clients of {}", counted(domains, "domain")),
        SecretKind::Padded => "dd clients only".to_owned(),
        SecretKind::FakeTls(domain) => format!("fake-TLS clients of {domain} only"),
    }
}

fn hide(domains: &[Domain]) -> String {
    let Some(first) = domains.first() else {
        return "hide behind no site: strangers are met with silence, and there is no fake TLS".to_owned();
    };
    let place = |domain: &Domain| match domain.address {
        Some(address) => format!("{} at {address}", domain.name),
        None => format!("{} at its public address, port 443", domain.name),
    };
    let all: Vec<String> = domains.iter().map(place).collect();
    let stranger = if domains.len() > 1 {
        format!("; strangers who name none of them see {}", first.name)
    } else {
        String::new()
    };
    format!("show strangers {}{stranger}", all.join(", "))
}

fn data_centres(settings: &Settings) -> String {
    if settings.dc.overrides.is_empty() {
        return "reach the data centres at their public addresses".to_owned();
    }
    let each = settings.dc.overrides.iter().map(|(id, addresses)| format!("{id} at {}", words(addresses)));
    format!("reach data centre {}; the others at their public addresses", each.collect::<Vec<_>>().join(", "))
}

fn datapath(datapath: Datapath) -> String {
    match datapath {
        Datapath::Auto => "choose the datapath by what this host offers; the log says which one and why",
        Datapath::Epoll => "move bytes with epoll",
        Datapath::Xdp => "move bytes with AF_XDP",
    }
    .to_owned()
}

fn interface(settings: &Settings) -> String {
    match &settings.interface {
        None if settings.datapath == Datapath::Auto => {
            "look at the interface of the default route, should AF_XDP suit it".to_owned()
        }
        None => "need no interface by name".to_owned(),
        Some(name) if settings.datapath == Datapath::Epoll => {
            format!("make no use of interface {name}: only the xdp datapath needs one")
        }
        Some(name) => format!("take AF_XDP's packets from {name}"),
    }
}

fn user(settings: &Settings, host: &Host) -> String {
    match &settings.user {
        None => "stay the user that starts it".to_owned(),
        Some(name) if host.is_root => format!("become user {name} once the ports are open"),
        Some(name) => {
            format!("become user {name} once the ports are open; needs root, which this shell is not")
        }
    }
}

fn family(prefer_ip: PreferIp) -> &'static str {
    match prefer_ip {
        PreferIp::V4 => "IPv4",
        PreferIp::V6 => "IPv6",
    }
}

fn words<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(" and ")
}

fn seconds(duration: Duration) -> String {
    counted(usize::try_from(duration.as_secs()).unwrap_or(usize::MAX), "second")
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
