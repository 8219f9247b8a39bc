//! From what was written to settings that are complete and consistent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use mtproxy_core::config::Timeouts;
use mtproxy_core::dc::{DcId, PreferIp};
use mtproxy_core::secret::{Secret, SecretKind};
use zeroize::Zeroizing;

use super::cidr::Cidr;
use super::draft::{Draft, DraftLimits, DraftTimeouts, DraftXdp, SecretEntry};
use super::values::{Datapath, DcAddress, Domain, SecretText};
use super::xdp::{DENY_MAX, SynLimit, XdpSettings};
use super::{
    DRAIN_DEFAULT, DcSettings, Host, Limits, NamedSecret, Settings, default_listen, default_state_dir,
    middle_proxies,
};
use crate::complaint::{Complaint, Complaints, Place, Placed};

/// Fills in the defaults and checks what only shows when all is known.
pub(super) fn settle(draft: Draft, host: &Host) -> Result<Settings, Complaints> {
    let mut complaints = Complaints::default();
    let listen = draft.listen.map(|list| without_duplicates(list, &mut complaints));
    let secrets = secrets(draft.secrets.unwrap_or_default(), &mut complaints);
    let domains = domains(draft.domains.unwrap_or_default(), &secrets, &mut complaints);
    let dc = data_centres(
        draft.dc_default,
        draft.prefer_ip,
        draft.dc_addresses.unwrap_or_default(),
        &mut complaints,
    );
    let state_dir = draft.state_dir.or_else(|| default_state_dir(host));
    if secrets.is_empty() && state_dir.is_none() {
        complaints.push(Complaint::about_host(
            "found neither a secret nor a place to keep a generated one, since HOME is not set; \
             expected one of them: give --secret, or state_dir in the configuration file",
        ));
    }
    if let Some(Placed { value: Datapath::Xdp, place }) = &draft.datapath
        && draft.interface.is_none()
    {
        complaints.push(Complaint::at(
            place.clone(),
            "found the datapath xdp without the interface that it is for; expected --interface NAME, or \
            interface in the configuration file; `ip -brief link` lists the interfaces",
        ));
    }
    let middle_proxies = middle_proxies::settle(draft.middle_proxies, dc.prefer_ip, &mut complaints);
    let xdp = xdp(draft.xdp, &mut complaints);
    complaints.or(Settings {
        listen: listen.unwrap_or_else(|| default_listen(host)),
        secrets,
        domains,
        dc,
        middle_proxies,
        datapath: draft.datapath.map_or_else(Datapath::default, |datapath| datapath.value),
        interface: draft.interface,
        workers: draft.workers.and_then(NonZeroUsize::new).unwrap_or(host.cores),
        metrics: draft.metrics.map(|metrics| metrics.value),
        user: draft.user,
        state_dir,
        log_filter: draft.log_filter.unwrap_or_default(),
        log_format: draft.log_format.unwrap_or_default(),
        timeouts: timeouts(draft.timeouts),
        drain: draft.timeouts.drain.unwrap_or(DRAIN_DEFAULT),
        limits: limits(draft.limits),
        xdp,
    })
}

/// The secret that `text` is, or that the file it names holds.
///
/// # Errors
/// Why it is none; never with the text itself.
pub fn read_secret(text: &SecretText) -> Result<Secret, String> {
    let Some(path) = text.reveal().strip_prefix('@') else {
        return text.reveal().parse().map_err(|error: mtproxy_core::secret::SecretError| error.to_string());
    };
    let content = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "found no readable file {path:?} ({error}); expected one that holds a secret and nothing else"
        )
    })?;
    Zeroizing::new(content).trim().parse().map_err(|error| format!("in the file {path:?}: {error}"))
}

fn secrets(entries: Vec<SecretEntry>, complaints: &mut Complaints) -> Vec<NamedSecret> {
    let mut secrets: Vec<NamedSecret> = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let place = &entry.text.place;
        let secret = read_secret(&entry.text.value)
            .map_err(|error| Complaint::at(place.clone(), format!("secret {number}: {error}")));
        let (name, name_place) = match entry.name {
            Some(Placed { value, place }) => (value, place),
            None => (format!("secret-{number}"), place.clone()),
        };
        let Some(secret) = complaints.note(secret) else { continue };
        if let Some(NamedSecret { name: twin, .. }) = secrets.iter().find(|known| known.secret == secret) {
            let message = format!(
                "secret {number}: found the same secret as {twin:?}; expected each one once; \
                remove one of the two"
            );
            complaints.push(Complaint::at(place.clone(), message));
        } else if secrets.iter().any(|known| known.name == name) {
            let message = format!(
                "secret {number}: found the name {name:?} for the second time; expected a name of \
                its own; rename one of the two"
            );
            complaints.push(Complaint::at(name_place, message));
        } else {
            secrets.push(NamedSecret { name, secret, direct: entry.direct.unwrap_or(false) });
        }
    }
    secrets
}

fn domains(
    written: Vec<Placed<Domain>>,
    secrets: &[NamedSecret],
    complaints: &mut Complaints,
) -> Vec<Domain> {
    let mut domains: Vec<Domain> = Vec::new();
    for Placed { value, place } in written {
        if domains.iter().any(|known| known.name == value.name) {
            let message = format!(
                "found the domain {} for the second time; expected each one once; remove one of the two",
                value.name
            );
            complaints.push(Complaint::at(place, message));
        } else {
            domains.push(value);
        }
    }
    // Whoever has an ee secret greets its domain, so the proxy must be able to show that site.
    for NamedSecret { secret, .. } in secrets {
        if let SecretKind::FakeTls(name) = secret.kind()
            && domains.iter().all(|known| known.name != *name)
        {
            domains.push(Domain { name: name.clone(), address: None, flight_bytes: None });
        }
    }
    domains
}

fn data_centres(
    default: Option<DcId>,
    prefer_ip: Option<PreferIp>,
    addresses: Vec<DcAddress>,
    complaints: &mut Complaints,
) -> DcSettings {
    let mut overrides: BTreeMap<DcId, Vec<SocketAddr>> = BTreeMap::new();
    for DcAddress { id, address } in addresses {
        overrides.entry(id).or_default().push(address);
    }
    let DcSettings { default: usual, prefer_ip: usual_prefer_ip, .. } = DcSettings::default();
    let dc = DcSettings {
        default: default.unwrap_or(usual),
        prefer_ip: prefer_ip.unwrap_or(usual_prefer_ip),
        overrides,
    };
    if dc.table().addresses(dc.default).is_empty() {
        let message = format!(
            "found the default data centre {}, which has no address; expected one of the built-in \
            ones or one with an address under [dc.addresses]",
            dc.default
        );
        complaints.push(Complaint::about_host(message));
    }
    dc
}

fn without_duplicates(list: Vec<Placed<SocketAddr>>, complaints: &mut Complaints) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for Placed { value, place } in list {
        // Port 0 is a port of the kernel's choice, another one each time.
        if value.port() != 0 && unique.contains(&value) {
            complaints.push(already_listed(place, value));
        } else {
            unique.push(value);
        }
    }
    unique
}

fn already_listed(place: Place, address: SocketAddr) -> Complaint {
    Complaint::at(
        place,
        format!(
            "found the address {address} for the second time; expected each one once; remove one of the two"
        ),
    )
}

fn timeouts(written: DraftTimeouts) -> Timeouts {
    let usual = Timeouts::default();
    Timeouts {
        first_byte: written.first_byte.unwrap_or(usual.first_byte),
        handshake: written.handshake.unwrap_or(usual.handshake),
        dial: written.dial.unwrap_or(usual.dial),
        idle: written.idle.unwrap_or(usual.idle),
        linger: written.linger.unwrap_or(usual.linger),
    }
}

fn limits(written: DraftLimits) -> Limits {
    let usual = Limits::default();
    Limits {
        connections: written.connections,
        relay_window_bytes: written.relay_window_bytes.unwrap_or(usual.relay_window_bytes),
        replay_entries: written.replay_entries.unwrap_or(usual.replay_entries),
    }
}

fn xdp(written: DraftXdp, complaints: &mut Complaints) -> XdpSettings {
    let usual = XdpSettings::default();
    XdpSettings {
        mode: written.mode.unwrap_or(usual.mode),
        ports: written.ports.unwrap_or(usual.ports),
        frames: written.frames.unwrap_or(usual.frames),
        huge_pages: written.huge_pages.unwrap_or(usual.huge_pages),
        busy_poll: written.busy_poll.unwrap_or(usual.busy_poll),
        pin: written.pin.unwrap_or(usual.pin),
        trust_partial_checksums: written.trust_partial_checksums.unwrap_or(usual.trust_partial_checksums),
        connections: written.connections.unwrap_or(usual.connections),
        syn_limit: SynLimit::new(written.syn_per_source, written.syn_burst),
        deny: denied(written.deny.unwrap_or_default(), complaints),
        congestion: written.congestion.unwrap_or(usual.congestion),
    }
}

fn denied(list: Vec<Placed<Cidr>>, complaints: &mut Complaints) -> Vec<Cidr> {
    if let Some(first_too_many) = list.get(DENY_MAX) {
        let message = format!(
            "xdp.deny: found {} networks; expected at most {DENY_MAX}; put neighbours together",
            list.len()
        );
        complaints.push(Complaint::at(first_too_many.place.clone(), message));
    }
    list.into_iter().map(|network| network.value).collect()
}
