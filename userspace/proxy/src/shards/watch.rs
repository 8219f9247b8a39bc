//! What is watched while shards run: our addresses, the kernel's part of our clients, and the program's counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtproxy_xdp::{Error, KernelFlows, Steering, monotonic_ns};
use mtproxy_xdp_abi::Local;
use tracing::{debug, info, warn};

use super::advice::Advice;
use super::kernel_sockets;
use super::own_addresses::{OwnAddresses, Step, wanted};
use crate::routes::{Routes, Snapshot};
use crate::settings::Settings;
use crate::settings::cidr::Cidr;
use crate::telemetry::metrics::Metrics;

/// How often the kernel's sockets are looked through, which takes a tenth of a second where there are many.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The control thread's hold on the steering program.
pub struct Watch {
    steering: Steering,
    routes: Arc<Routes>,
    ours: Ours,
    deny: Vec<Cidr>,
    looked_at: Option<Instant>,
    advice: Advice,
}

/// What the program is told is ours.
pub(super) struct Ours {
    interface: u32,
    listening: Vec<SocketAddr>,
    upstream: RangeInclusive<u16>,
    addresses: OwnAddresses,
    /// Of that generation of routes and addresses.
    wanted: (u64, BTreeMap<IpAddr, bool>),
}

impl Ours {
    /// Nothing is declared yet. `interface` is the index of ours.
    pub(super) fn new(interface: u32, listening: &[SocketAddr], upstream: RangeInclusive<u16>) -> Self {
        let (listening, addresses) = (listening.to_vec(), OwnAddresses::default());
        Self { interface, listening, upstream, addresses, wanted: (0, BTreeMap::new()) }
    }

    /// Tells the program what it does not know yet. What it does not take is for the next time; the first error
    /// of them is answered.
    pub(super) fn declare(&mut self, steering: &mut Steering, snapshot: &Snapshot) -> Result<(), Error> {
        if self.wanted.0 != snapshot.generation {
            self.wanted = (snapshot.generation, wanted(snapshot, self.interface));
        }
        let mut outcome = Ok(());
        for step in self.addresses.steps(&self.wanted.1, Instant::now()) {
            let done = match step {
                Step::Declare { ip, is_source } => self.declare_one(steering, ip, is_source),
                Step::Leave(ip) => self.leave(steering, ip),
            };
            if done.is_ok() {
                self.addresses.did(step);
                debug!(?step, "an address of this host was declared or left");
            }
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Listeners at addresses that are not ours to serve.
    pub(super) fn left_to_kernel(&self) -> impl Iterator<Item = SocketAddr> {
        let is_left = |at: &&SocketAddr| !at.ip().is_unspecified() && !self.wanted.1.contains_key(&at.ip());
        self.listening.iter().filter(is_left).copied()
    }

    fn declare_one(&self, steering: &mut Steering, ip: IpAddr, is_source: bool) -> Result<(), Error> {
        let upstream = is_source.then(|| self.upstream.clone());
        steering.set_local(ip, &Local { upstream, dedicated: false })?;
        self.listeners_at(ip).try_for_each(|at| steering.add_listener(at))
    }

    fn leave(&self, steering: &mut Steering, ip: IpAddr) -> Result<(), Error> {
        steering.remove_local(ip)?;
        for at in self.listeners_at(ip) {
            // Without its address it means nothing; one that is left over only has a place.
            let _ = steering.remove_listener(at);
        }
        Ok(())
    }

    fn listeners_at(&self, ip: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let is_meant = move |at: &&SocketAddr| {
            at.ip() == ip || (at.ip().is_unspecified() && at.ip().is_ipv4() == ip.is_ipv4())
        };
        self.listening.iter().filter(is_meant).map(move |at| SocketAddr::new(ip, at.port()))
    }

    /// True if the kernel has a connection, or what is left of one, at a listener of ours.
    fn has_kernel_flows(&self) -> std::io::Result<bool> {
        let ports: BTreeSet<u16> = self.listening.iter().map(SocketAddr::port).collect();
        let sockets = kernel_sockets::list()?;
        Ok(sockets.iter().any(|it| !it.is_listening() && ports.contains(&it.local.port())))
    }
}

/// Tells a program that is not attached yet whom to drop.
pub(super) fn deny(steering: &mut Steering, settings: &Settings) -> Result<(), Error> {
    let all = &settings.xdp.deny;
    all.iter().try_for_each(|cidr| steering.add_deny(cidr.address(), cidr.prefix_bits()))
}

impl Watch {
    /// `deny` is what the program was told to drop.
    pub(super) fn new(steering: Steering, routes: Arc<Routes>, ours: Ours, deny: Vec<Cidr>) -> Self {
        let advice = Advice::default();
        Self { steering, routes, ours, deny, looked_at: None, advice }
    }

    /// Has these eventfds written when there are new routes or neighbours: a packet may wait for one.
    pub fn wake_on_new_routes(&self, shards: Vec<OwnedFd>) {
        self.routes.on_change(move || {
            for wake in &shards {
                // Fails only if the counter is at its maximum; then the shard is awake anyway.
                let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
            }
        });
    }

    /// Looks after everything.
    pub fn tick(&mut self, metrics: &Metrics) {
        let addresses = self.ours.declare(&mut self.steering, &self.routes.current().load());
        let steps = [addresses, self.forget_kernel_flows(metrics), self.publish(metrics)];
        for error in steps.into_iter().filter_map(Result::err) {
            warn!(%error, "the steering program could not be looked after");
        }
        self.advice.give(metrics);
    }

    /// New clients go to the kernel from now on; open connections stay.
    pub fn drain(&mut self) {
        if let Err(error) = self.steering.set_draining(true) {
            warn!(%error, "new clients may still reach the shards");
        }
    }

    /// Follows the settings that may change while it runs.
    pub fn reload(&mut self, settings: &Settings) {
        if let Err(error) = self.follow_deny(&settings.xdp.deny) {
            warn!(%error, "the deny list was taken over in part");
        }
    }

    fn follow_deny(&mut self, newer: &[Cidr]) -> Result<(), Error> {
        let (gone, new) = (missing(&self.deny, newer), missing(newer, &self.deny));
        for cidr in new {
            self.steering.add_deny(cidr.address(), cidr.prefix_bits())?;
        }
        for cidr in gone {
            self.steering.remove_deny(cidr.address(), cidr.prefix_bits())?;
        }
        self.deny = newer.to_vec();
        Ok(())
    }

    /// Spares clients' packets the look-up in the kernel's tables, once the kernel has none of our connections.
    /// Sessions alone would not tell: a connection that nobody has accepted has none yet, and one that was closed
    /// still sends what is queued, and then waits.
    fn forget_kernel_flows(&mut self, metrics: &Metrics) -> Result<(), Error> {
        // Read first: a SYN that goes to the kernel from here on is not covered.
        let Some(seen) = self.steering.kernel_flows()? else { return Ok(()) };
        let now_ns = monotonic_ns();
        if !seen.may_be_over(now_ns) || metrics.epoll_sessions_open() > 0 || !self.may_look() {
            return Ok(());
        }
        match self.ours.has_kernel_flows() {
            Ok(true) => Ok(()),
            Ok(false) => self.forget(seen, now_ns),
            Err(error) => {
                debug!(%error, "the kernel's sockets are not to be seen: each segment costs a look-up");
                Ok(())
            }
        }
    }

    fn may_look(&mut self) -> bool {
        let now = Instant::now();
        let may = self.looked_at.is_none_or(|last| now.duration_since(last) >= LOOK_EVERY);
        if may {
            self.looked_at = Some(now);
        }
        may
    }

    fn forget(&mut self, seen: KernelFlows, now_ns: u64) -> Result<(), Error> {
        if self.steering.clear_kernel_flows(seen, now_ns)? {
            info!("the kernel has none of our connections any more");
        }
        Ok(())
    }

    /// Shows the program's counts.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn publish(&self, metrics: &Metrics) -> Result<(), Error> {
        let counts = self.steering.counters()?;
        for ((_, count), counter) in counts.iter().zip(metrics.steering().iter()) {
            counter.publish(count);
        }
        Ok(())
    }
}

fn missing<'a>(these: &'a [Cidr], from: &[Cidr]) -> Vec<&'a Cidr> {
    let known: BTreeSet<(IpAddr, u8)> =
        from.iter().map(|cidr| (cidr.address(), cidr.prefix_bits())).collect();
    these.iter().filter(|cidr| !known.contains(&(cidr.address(), cidr.prefix_bits()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_has_flows_while_a_connection_is_not_accepted_or_not_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let ours = Ours::new(1, &[at], 61000..=65535);
        assert!(!ours.has_kernel_flows().unwrap(), "it only listens");
        let client = TcpStream::connect(at).unwrap();
        assert!(ours.has_kernel_flows().unwrap(), "it waits to be accepted, and is no session yet");
        // The side that closes first is the one in TIME-WAIT.
        drop(listener.accept().unwrap());
        drop(client);
        assert!(
            ours.has_kernel_flows().unwrap(),
            "no session is left, and yet its segments are the kernel's"
        );
    }

    #[test]
    fn a_listener_at_another_interfaces_address_is_left_to_the_kernel() {
        let listening = ["0.0.0.0:443", "192.0.2.9:443", "[2001:db8::9]:443"].map(|at| at.parse().unwrap());
        let mut ours = Ours::new(1, &listening, 61000..=65535);
        ours.wanted.1.insert("192.0.2.9".parse().unwrap(), true);
        assert_eq!(ours.left_to_kernel().collect::<Vec<_>>(), ["[2001:db8::9]:443".parse().unwrap()]);
        let at = |ip: &str| ours.listeners_at(ip.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(at("192.0.2.10"), ["192.0.2.10:443".parse().unwrap()], "of all addresses of the family");
        assert_eq!(at("2001:db8::10"), []);
    }
}
