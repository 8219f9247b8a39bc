//! What follows from what was seen: sentences, the worst first.
//!
//! Pure: the same facts, the same findings.

use std::net::{IpAddr, SocketAddr};

use mtproxy_core::policy::replay;

use super::facts::{Card, Facts, Front, Network, Port, Probe, Settings};
use crate::control::middle_proxies::clock_skew::REFUSED_SECONDS;
use crate::control::middle_proxies::nat::is_private;
use crate::datapath::choice::Choice;

/// How bad something is. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Clients, or some of them, cannot be served.
    Broken,
    /// It works, and may not for long, or not for everybody.
    Risky,
    /// Worth knowing.
    Note,
    /// As it should be.
    Good,
}

impl Severity {
    /// Every one, in the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Broken, Self::Risky, Self::Note, Self::Good];

    /// A word for the report.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Broken => "BROKEN",
            Self::Risky => "risky",
            Self::Note => "note",
            Self::Good => "good",
        }
    }
}

/// One sentence about this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What is the case.
    pub(crate) sentence: String,
    /// What to do about it; empty if nothing.
    pub(crate) fix: String,
}

/// A client whose clock is right seems ahead by as much as ours is behind; a second of it is the client's.
const CLOCK_BEHIND_SECONDS_MAX: i64 = replay::AHEAD_SECONDS_MAX.cast_signed() - 1;
/// The same where ours is ahead; half of it is the client's.
const CLOCK_AHEAD_SECONDS_MAX: i64 = replay::BEHIND_SECONDS_MAX.cast_signed() / 2;

/// All findings, the worst first.
#[must_use]
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::default();
    match &facts.settings {
        Err(complaints) => {
            for line in complaints.to_string().lines() {
                findings.add(Severity::Broken, line, "mend the configuration; nothing else was looked at");
            }
        }
        Ok(settings) => {
            datapath(facts, &mut findings);
            listening(&facts.listening, &mut findings);
            descriptors(facts.descriptors, settings, &mut findings);
            secrets(settings, &mut findings);
            match &facts.network {
                Some(network) => network_of(network, settings, &facts.listening, &mut findings),
                None => findings.add(Severity::Note, "the network was not asked", "leave out --offline"),
            }
        }
    }
    findings.0.sort_by_key(|finding| finding.severity);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, sentence: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { severity, sentence: sentence.into(), fix: fix.into() });
    }

    fn good(&mut self, sentence: impl Into<String>) {
        self.add(Severity::Good, sentence, "");
    }
}

fn datapath(facts: &Facts, findings: &mut Findings) {
    match &facts.datapath {
        Err(why) => findings.add(Severity::Broken, format!("the proxy would not start: {why}"), ""),
        Ok(Choice::Epoll { reason }) => findings.add(
            Severity::Note,
            format!("clients would be served over epoll ({reason})"),
            "nothing, if that is meant; docs/operations.md says what AF_XDP wants",
        ),
        Ok(Choice::Xdp { interface, reason, warnings, .. }) => {
            findings.good(format!("clients would be served over AF_XDP on {interface} ({reason})"));
            for warning in warnings {
                findings.add(Severity::Risky, warning, "");
            }
        }
    }
    let Some(Card { interface, changes, blocked }) = &facts.card else { return };
    for what in blocked {
        findings.add(Severity::Note, format!("{interface} is no place for AF_XDP"), what);
    }
    if *changes > 0 {
        findings.add(
            Severity::Note,
            format!("{interface} could be set up better in {changes} ways"),
            format!("mtproxy nic check {interface}"),
        );
    }
}

fn listening(ports: &[(SocketAddr, Port)], findings: &mut Findings) {
    for (address, port) in ports {
        let number = address.port();
        match port {
            Port::Free => findings.good(format!("{address} is free to listen on")),
            Port::Taken => findings.add(
                Severity::Risky,
                format!("somebody listens on {address} already"),
                format!("nothing, if it is this proxy; else see `ss -ltnp 'sport = :{number}'`"),
            ),
            Port::Forbidden => findings.add(
                Severity::Broken,
                format!("this user may not listen on {address}"),
                "start as root, give CAP_NET_BIND_SERVICE, or choose a port from 1024 on",
            ),
            Port::NotOurs => findings.add(
                Severity::Broken,
                format!("{address} is no address of this host"),
                "--listen with one that `ip -brief address` shows, or 0.0.0.0",
            ),
        }
    }
}

fn descriptors(limit: u64, settings: &Settings, findings: &mut Findings) {
    let Settings { connections, descriptors_wanted, .. } = *settings;
    if limit < descriptors_wanted {
        findings.add(
            Severity::Risky,
            format!("{connections} clients take {descriptors_wanted} open files, and {limit} are allowed"),
            "LimitNOFILE= in the unit, or ulimit -n; clients beyond the limit wait",
        );
    } else {
        findings.good(format!("{limit} open files are enough for {connections} clients"));
    }
}

fn secrets(settings: &Settings, findings: &mut Findings) {
    if settings.has_secret_on_command_line {
        findings.add(
            Severity::Risky,
            "a secret stands on the command line, where everybody on this host can read it",
            "--secret @FILE, or the configuration file",
        );
    }
    if !settings.has_domains {
        findings.add(
            Severity::Note,
            "there is no site to hide behind: strangers get silence, which is a sign, too",
            "--domain with a site of yours, and ee secrets for clients",
        );
    } else if !settings.recognisable_secrets.is_empty() {
        findings.add(
            Severity::Note,
            format!(
                "clients of {} may come without fake TLS, which deep packet inspection can tell from TLS",
                settings.recognisable_secrets.join(", ")
            ),
            "hand out links with ee secrets where that matters",
        );
    }
}

fn network_of(
    network: &Network,
    settings: &Settings,
    listening: &[(SocketAddr, Port)],
    findings: &mut Findings,
) {
    data_centres(&network.data_centres, network.sources, findings);
    for front in &network.fronts {
        front_of(front, network, findings);
    }
    clock(network, settings, findings);
    nat(network, settings, listening, findings);
}

/// By family: all unreachable is a matter of the network, one is a matter of that address.
fn data_centres(probes: &[Probe], sources: [Option<IpAddr>; 2], findings: &mut Findings) {
    let mut is_any_reachable = false;
    for (family, source) in ["IPv4", "IPv6"].into_iter().zip(sources) {
        let of_family = |probe: &&Probe| probe.address.is_ipv4() == (family == "IPv4");
        let probes: Vec<&Probe> = probes.iter().filter(of_family).collect();
        let mut times: Vec<_> = probes.iter().filter_map(|probe| probe.outcome.as_ref().ok()).collect();
        times.sort_unstable();
        is_any_reachable |= !times.is_empty();
        match (times.get(times.len() / 2), source) {
            _ if probes.is_empty() => {}
            (None, None) => findings.add(
                Severity::Note,
                format!("this host has no way to the Internet over {family}"),
                "nothing, if the other family works",
            ),
            (None, Some(_)) => {
                let why = probes.iter().find_map(|probe| probe.outcome.as_ref().err());
                findings.add(
                    Severity::Risky,
                    format!(
                        "no data centre answers over {family}, though there is a route ({})",
                        why.map_or("unknown", String::as_str)
                    ),
                    "look for a firewall, or a provider that blocks Telegram; dc.prefer_ip chooses the family tried first",
                );
            }
            (Some(median), _) => {
                let silent: Vec<String> = probes
                    .iter()
                    .filter(|probe| probe.outcome.is_err())
                    .map(|probe| format!("{} at {}", probe.dc.0, probe.address))
                    .collect();
                let sentence = format!(
                    "{} of {} data centres answer over {family}, half of them within {} ms",
                    times.len(),
                    probes.len(),
                    median.as_millis()
                );
                findings.good(sentence);
                if !silent.is_empty() {
                    findings.add(
                        Severity::Risky,
                        format!("data centres do not answer over {family}: {}", silent.join(", ")),
                        "their users wait for the next address; --dc sets another",
                    );
                }
            }
        }
    }
    if !is_any_reachable {
        findings.add(
            Severity::Broken,
            "no data centre can be reached: clients will stay at \"connecting\"",
            "see that this host may connect to port 443 of Telegram's networks",
        );
    }
}

fn front_of(front: &Front, network: &Network, findings: &mut Findings) {
    let Front { domain, addresses, published, tls } = front;
    match addresses {
        Err(why) => findings.add(
            Severity::Broken,
            format!("{domain} has no address here ({why}): strangers get silence instead of the site"),
            format!("mend DNS, or say where it is: --domain {domain}=ADDRESS:443"),
        ),
        Ok(addresses) => {
            let at = addresses.first().map(ToString::to_string).unwrap_or_default();
            match tls {
                Err(why) => findings.add(
                    Severity::Broken,
                    format!("{domain} at {at} speaks no TLS with us ({why}): strangers will see that it is no site"),
                    "name a site that answers at this address and port",
                ),
                Ok(tls) if !tls.is_1_3 => findings.add(
                    Severity::Risky,
                    format!("{domain} speaks TLS 1.2 at the most, and our clients' greetings look like 1.3"),
                    "choose a site with TLS 1.3",
                ),
                Ok(tls) => {
                    findings.good(format!(
                        "{domain} at {at} speaks TLS 1.3 ({}, certificates of {} bytes)",
                        tls.key_exchange, tls.certificate_bytes
                    ));
                    if let Err(why) = &tls.certificate {
                        findings.add(
                            Severity::Risky,
                            format!("browsers would not believe the certificate of {domain} ({why})"),
                            "a site that nobody could use is a strange thing to hide behind",
                        );
                    }
                }
            }
        }
    }
    let ours: Vec<IpAddr> = network.sources.into_iter().flatten().filter(|ip| !is_private(*ip)).collect();
    let Ok(published) = published else { return };
    if ours.is_empty() {
        return;
    }
    if published.iter().any(|ip| ours.contains(ip)) {
        findings.good(format!("{domain} leads to this host, as a censor would expect"));
    } else {
        let there = published.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        findings.add(
            Severity::Risky,
            format!("{domain} leads to {there}, and not to this host: whoever compares can tell"),
            "a name of yours that leads here is safest; few censors compare today",
        );
    }
}

fn clock(network: &Network, settings: &Settings, findings: &mut Findings) {
    let told = network
        .fronts
        .iter()
        .filter_map(|front| Some((front, front.tls.as_ref().ok()?.clock_ahead_seconds?)));
    // The clock that agrees best with ours: one site's may be wrong.
    let Some((front, ahead)) = told.min_by_key(|(_, ahead)| ahead.abs()) else { return };
    let is_right = (-CLOCK_BEHIND_SECONDS_MAX..=CLOCK_AHEAD_SECONDS_MAX).contains(&ahead);
    let is_right_for_links = ahead.unsigned_abs() < REFUSED_SECONDS;
    let fix = "timedatectl set-ntp true, or another NTP service";
    if !is_right {
        let sentence = format!(
            "this host's clock is {ahead} s ahead of that of {}: fake-TLS clients are refused",
            front.domain
        );
        findings.add(Severity::Broken, sentence, fix);
    } else if settings.has_middle_proxies && !is_right_for_links {
        let sentence = format!(
            "this host's clock is {ahead} s ahead of that of {}: middle proxies refuse us",
            front.domain
        );
        findings.add(Severity::Broken, sentence, fix);
    } else {
        findings.good(format!(
            "this host's clock agrees with that of {} within {} s",
            front.domain,
            ahead.abs()
        ));
    }
}

fn nat(network: &Network, settings: &Settings, listening: &[(SocketAddr, Port)], findings: &mut Findings) {
    let Some(source) = network.sources[0].filter(|ip| is_private(*ip)) else { return };
    let ports: Vec<String> = listening.iter().map(|(address, _)| address.port().to_string()).collect();
    if settings.has_middle_proxies && !settings.has_nat_rules {
        findings.add(
            Severity::Broken,
            format!("this host sends from {source}, which is not what middle proxies see, and the keys depend on it"),
            format!("--nat-info {source}:PUBLIC"),
        );
    } else {
        findings.add(
            Severity::Note,
            format!("this host is behind NAT: it sends from {source}"),
            format!("see that the router forwards port {} to it", ports.join(", ")),
        );
    }
}

#[cfg(test)]
mod tests;
