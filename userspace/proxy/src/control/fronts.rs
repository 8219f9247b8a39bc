//! Where the fronts are: their names resolved at start, and again every ten minutes.
//!
//! A look-up may take long, so it never happens on a thread that serves clients, and start-up waits for
//! [`PATIENCE`] at most. A front that cannot be resolved is tried again soon; one that could be before
//! keeps its last addresses. An address at which this proxy itself would answer is dropped: a stranger
//! would be connected to the proxy, as a stranger, for ever.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use mtproxy_core::config::{Front, Fronts};
use mtproxy_core::dc::PreferIp;
use mtproxy_core::secret::{DomainName, Key, Secret};
use siphasher::sip::SipHasher24;
use tracing::{error, info, warn};

use super::ControlEvent;
use super::lookup::{self, Answer, PATIENCE};
use super::source_address::is_of_this_host;
use crate::complaint::Complaint;
use crate::settings::Settings;
use crate::settings::values::Domain;

/// Between rounds: sites rarely move, and their names' records live minutes to hours.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// Before the first retry of an unresolved front; doubled up to [`REFRESH_EVERY`]. At boot the network
/// is often a few seconds late.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// More would only be tried in vain while a stranger waits.
const ADDRESSES_MAX: usize = 8;

/// What is to be known about the fronts, from the settings.
#[derive(Clone, Debug)]
pub struct FrontPlan {
    domains: Vec<Domain>,
    prefer_ip: PreferIp,
    /// Whose key gives the deployment its own first-flight sizes: the first secret.
    flight_secret: Option<Secret>,
    /// Where this proxy listens.
    listening: Vec<SocketAddr>,
}

impl FrontPlan {
    /// The plan of `settings`, for a proxy that listens on the addresses `listening`.
    #[must_use]
    pub fn new(settings: &Settings, listening: &[SocketAddr]) -> Self {
        Self {
            domains: settings.domains.clone(),
            prefer_ip: settings.dc.prefer_ip,
            flight_secret: settings.secrets.first().map(|entry| entry.secret.clone()),
            listening: listening.to_vec(),
        }
    }

    fn flight_key(&self) -> &Key {
        self.flight_secret.as_ref().map_or(&[0; 16], Secret::key)
    }

    fn has_names_to_resolve(&self) -> bool {
        self.domains.iter().any(|domain| domain.address.is_none())
    }
}

/// The fronts as they are known, and the thread that keeps them so.
#[derive(Debug)]
pub struct FrontWatch {
    plans: Sender<FrontPlan>,
}

impl FrontWatch {
    /// Looks the fronts of `plan` up, which takes [`PATIENCE`] at most, then watches them. Later changes
    /// go to `events`.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(plan: FrontPlan, events: Sender<ControlEvent>) -> Result<(Fronts, Self), Complaint> {
        let mut known = Known::new(plan);
        known.look_up(ask_system);
        let fronts = known.fronts();
        let (plans, new_plans) = channel::unbounded();
        let watch = move || watch(known, &new_plans, &events);
        thread::Builder::new().name("fronts".to_owned()).spawn(watch).map_err(|error| {
            Complaint::about_host(format!(
                "found no thread to resolve domains ({error}); expected one; raise the limit of processes"
            ))
        })?;
        Ok((fronts, Self { plans }))
    }

    /// Watches the fronts of `plan` from now on. They arrive as an event, always.
    pub fn follow(&self, plan: FrontPlan) {
        // The thread ends only when this sender is gone.
        let _ = self.plans.send(plan);
    }
}

fn watch(mut known: Known, plans: &Receiver<FrontPlan>, events: &Sender<ControlEvent>) {
    loop {
        let changed = match wait(&known, plans) {
            Ok(plan) => {
                known = known.replan(plan);
                known.look_up(ask_system);
                true
            }
            Err(RecvTimeoutError::Timeout) => known.look_up(ask_system),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if changed && events.send(ControlEvent::Fronts(known.fronts())).is_err() {
            return;
        }
    }
}

/// Waits for a new plan or for the next round. Without names to resolve there is no next round, and an
/// idle proxy stays asleep.
fn wait(known: &Known, plans: &Receiver<FrontPlan>) -> Result<FrontPlan, RecvTimeoutError> {
    if known.plan.has_names_to_resolve() {
        plans.recv_timeout(known.next_round_after)
    } else {
        plans.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }
}

/// What the rounds so far have found.
struct Known {
    plan: FrontPlan,
    /// Parallel to the plan's domains.
    addresses: Vec<Vec<SocketAddr>>,
    /// What was complained about already, so that each is said once.
    reported: BTreeSet<(DomainName, Option<SocketAddr>)>,
    next_round_after: Duration,
}

impl Known {
    fn new(plan: FrontPlan) -> Self {
        let addresses = vec![Vec::new(); plan.domains.len()];
        Self { plan, addresses, reported: BTreeSet::new(), next_round_after: RETRY_AFTER }
    }

    /// The same for another plan; what is known about a domain that stays is kept.
    fn replan(self, plan: FrontPlan) -> Self {
        let addresses_before = |domain: &Domain| {
            let before = self.plan.domains.iter().position(|old| old == domain);
            before.map(|index| self.addresses[index].clone()).unwrap_or_default()
        };
        let addresses = plan.domains.iter().map(addresses_before).collect();
        Self { addresses, ..Self::new(plan) }
    }

    /// One round: true if an address changed.
    fn look_up(&mut self, lookup: fn(&DomainName) -> Answer) -> bool {
        let found = resolve_all(&self.plan.domains, lookup);
        let before = self.addresses.clone();
        for (index, found) in found.into_iter().enumerate() {
            let domain = self.plan.domains[index].clone();
            match found {
                Ok(addresses) => self.addresses[index] = self.usable(&domain, &addresses),
                Err(error) => self.report_unresolved(&domain.name, &error, index),
            }
        }
        let all_known = self.addresses.iter().all(|addresses| !addresses.is_empty());
        self.next_round_after = if all_known {
            REFRESH_EVERY
        } else {
            (self.next_round_after * 2).clamp(RETRY_AFTER, REFRESH_EVERY)
        };
        self.addresses != before
    }

    fn fronts(&self) -> Fronts {
        Fronts::new(self.plan.domains.iter().zip(&self.addresses).map(|(domain, addresses)| Front {
            domain: domain.name.clone(),
            addresses: addresses.clone(),
            flight_len:
                domain.flight_bytes.unwrap_or_else(|| own_flight_len(self.plan.flight_key(), &domain.name)),
        }))
    }

    fn usable(&mut self, domain: &Domain, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let (own, others): (Vec<SocketAddr>, Vec<SocketAddr>) =
            addresses.iter().partition(|&&address| is_answered_by(&self.plan.listening, address));
        if self.reported.remove(&(domain.name.clone(), None)) {
            info!(front = %domain.name, "the front is resolved now");
        }
        for address in own {
            if self.reported.insert((domain.name.clone(), Some(address))) {
                error!(
                    front = %domain.name, %address,
                    "found a front that is this proxy itself, so strangers would be sent round in circles; \
                    expected the real site; give its own address with --domain {}=ADDR:PORT", domain.name
                );
            }
        }
        let mut usable = self.plan.prefer_ip.order(&others);
        usable.truncate(ADDRESSES_MAX);
        usable
    }

    fn report_unresolved(&mut self, name: &DomainName, error: &io::Error, index: usize) {
        if self.reported.insert((name.clone(), None)) {
            let consequence = if self.addresses[index].is_empty() {
                "strangers get no answer until it is"
            } else {
                "its last addresses stay in use"
            };
            warn!(
                front = %name, %error,
                "found no address for the front; {consequence}; check the name and this host's DNS, \
                or give the address with --domain {name}=ADDR:PORT"
            );
        }
    }
}

/// Resolves what needs resolving, within [`PATIENCE`]. Parallel to `domains`.
fn resolve_all(domains: &[Domain], lookup: fn(&DomainName) -> Answer) -> Vec<Answer> {
    let unknown: Vec<DomainName> =
        domains.iter().filter(|domain| domain.address.is_none()).map(|domain| domain.name.clone()).collect();
    let mut answers = lookup::resolve_all(&unknown, lookup, PATIENCE).into_iter();
    let mut next_answer = || answers.next().expect("each name without an address was asked for");
    domains
        .iter()
        .map(|domain| domain.address.map_or_else(&mut next_answer, |address| Ok(vec![address])))
        .collect()
}

fn ask_system(name: &DomainName) -> Answer {
    const HTTPS: u16 = 443;
    lookup::of_system(name.as_str(), HTTPS)
}

/// True if a connection to `address` would be accepted by a listener of this process.
fn is_answered_by(listening: &[SocketAddr], address: SocketAddr) -> bool {
    let reaches = |listener: &SocketAddr| {
        listener.port() == address.port()
            && listener.is_ipv4() == address.is_ipv4()
            && (listener.ip() == address.ip()
                || listener.ip().is_unspecified() && is_of_this_host(address.ip()))
    };
    listening.iter().any(reaches)
}

/// Size of the imitated first flight where the operator gave none: within the range of real sites, the
/// same after a restart, and different from one deployment to the next. A size shared by all deployments
/// would give each of them away (protocol.md 6.10).
fn own_flight_len(key: &Key, domain: &DomainName) -> u16 {
    const LEAST: u16 = 2500;
    const SPREAD: u64 = 1120;
    let hash = SipHasher24::new_with_key(key).hash(domain.as_str().as_bytes());
    LEAST + u16::try_from(hash % SPREAD).expect("a remainder of 1120 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(domains: &[&str], listening: &[&str]) -> FrontPlan {
        FrontPlan {
            domains: domains.iter().map(|text| text.parse().unwrap()).collect(),
            prefer_ip: PreferIp::V4,
            flight_secret: Some(Secret::new([7; 16], mtproxy_core::secret::SecretKind::Plain)),
            listening: listening.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A name server for tests: names say what they resolve to.
    fn fake_lookup(name: &DomainName) -> Answer {
        match name.as_str() {
            "both.example" => Ok(addresses(&["[2001:db8::1]:443", "192.0.2.1:443"])),
            "self.example" => Ok(addresses(&["127.0.0.1:443", "192.0.2.1:443"])),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn known_after_a_round(domains: &[&str], listening: &[&str]) -> Known {
        let mut known = Known::new(plan(domains, listening));
        known.look_up(fake_lookup);
        known
    }

    #[test]
    fn names_are_resolved_and_given_addresses_are_taken_as_they_are() {
        let known = known_after_a_round(&["both.example", "fixed.example=192.0.2.9:8443"], &[]);
        assert_eq!(
            known.addresses[0],
            addresses(&["192.0.2.1:443", "[2001:db8::1]:443"]),
            "IPv4 is preferred"
        );
        assert_eq!(known.addresses[1], addresses(&["192.0.2.9:8443"]));
        assert_eq!(known.next_round_after, REFRESH_EVERY);
    }

    #[test]
    fn an_unresolved_front_stays_without_addresses_and_is_tried_again_ever_more_slowly() {
        let mut known = known_after_a_round(&["none.example"], &[]);
        assert_eq!(known.fronts().iter().next().unwrap().addresses, []);
        assert_eq!(known.next_round_after, RETRY_AFTER * 2);
        for _ in 0..10 {
            assert!(!known.look_up(fake_lookup), "nothing changed");
        }
        assert_eq!(known.next_round_after, REFRESH_EVERY);
        assert_eq!(known.reported.len(), 1, "it is reported once");
    }

    #[test]
    fn a_front_that_fails_later_keeps_its_last_addresses() {
        let mut known = known_after_a_round(&["both.example"], &[]);
        assert!(!known.look_up(|_| Err(io::Error::other("server failure"))));
        assert_eq!(known.addresses[0].len(), 2);
    }

    #[test]
    fn the_address_at_which_the_proxy_itself_answers_is_dropped_and_the_others_are_kept() {
        let known = known_after_a_round(&["self.example"], &["0.0.0.0:443"]);
        assert_eq!(known.addresses[0], addresses(&["192.0.2.1:443"]));
        let known = known_after_a_round(&["given.example=127.0.0.1:443"], &["127.0.0.1:443"]);
        assert_eq!(known.addresses[0], []);
    }

    #[test]
    fn a_site_on_this_host_is_no_loop_if_somebody_else_listens_there() {
        for (listening, site, is_loop) in [
            ("0.0.0.0:443", "127.0.0.1:443", true),
            ("0.0.0.0:443", "127.0.0.1:8443", false),
            ("0.0.0.0:443", "[::1]:443", false),
            ("[::]:443", "[::1]:443", true),
            ("127.0.0.1:443", "127.0.0.1:443", true),
            ("192.0.2.1:443", "127.0.0.1:443", false),
            ("0.0.0.0:443", "0.0.0.0:443", true),
            ("0.0.0.0:443", "192.0.2.1:443", false),
        ] {
            assert_eq!(
                is_answered_by(&addresses(&[listening]), site.parse().unwrap()),
                is_loop,
                "{listening} {site}"
            );
        }
    }

    #[test]
    fn the_flight_size_is_stable_in_range_and_the_deployments_own() {
        let size = |key: u8, domain: &str| own_flight_len(&[key; 16], &domain.parse().unwrap());
        // A released value: another one would change the look of every deployment at its next update.
        assert_eq!(size(7, "example.com"), 2792);
        assert_eq!(size(7, "example.com"), size(7, "example.com"));
        assert_ne!(size(7, "example.com"), size(8, "example.com"));
        assert_ne!(size(7, "example.com"), size(7, "example.org"));
        assert!((0..=255).all(|key| (2500..3620).contains(&size(key, "example.com"))));
    }

    #[test]
    fn the_operators_flight_size_wins() {
        let mut plan = plan(&["a.example=192.0.2.1:443"], &[]);
        plan.domains[0].flight_bytes = Some(999);
        let mut known = Known::new(plan);
        known.look_up(fake_lookup);
        assert_eq!(known.fronts().iter().next().unwrap().flight_len, 999);
    }

    #[test]
    fn a_new_plan_is_answered_with_its_fronts_and_the_thread_ends_with_its_owner() {
        let (sender, events) = channel::unbounded();
        let (fronts, watch) = FrontWatch::start(plan(&["a.example=192.0.2.1:443"], &[]), sender).unwrap();
        assert_eq!(fronts.iter().count(), 1);
        watch.follow(plan(&["a.example=192.0.2.1:443", "b.example=192.0.2.2:443"], &[]));
        let Ok(ControlEvent::Fronts(fronts)) = events.recv_timeout(Duration::from_secs(10)) else {
            panic!("no fronts came")
        };
        assert_eq!(fronts.iter().count(), 2);
        drop(watch);
        assert_eq!(events.recv_timeout(Duration::from_secs(10)).unwrap_err(), RecvTimeoutError::Disconnected);
    }
}
