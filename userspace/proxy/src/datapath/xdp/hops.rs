//! Next hops of one shard: their Ethernet headers, and packets that wait for a neighbour to be found.
//!
//! ```text
//!   remote ── routes ──► gateway, VLAN ──► entry: header 14 or 18 bytes, or "asked for" and a few parked packets
//! ```
//! A connection keeps the number of its entry. What changes is the header behind a number, when the kernel learns of
//! a new neighbour or our own address becomes another. When all places are taken, an entry that nobody uses is
//! another's, with a new number; whoever still has the old one is told to ask again.
//!
//! A packet for a neighbour that is still being asked for is parked as a copy: the first packet to a new hop
//! would otherwise be lost each time, and a handshake wait for its retransmission. It waits as long as the kernel
//! asks.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use mtproxy_core::time::Instant;
use mtproxy_tcp::link::{Hop, VlanTag};

/// What a shard asks of the host's routes and neighbours.
pub trait Routes {
    /// True if something has changed since the last call.
    fn has_changed(&mut self) -> bool;

    /// Where packets from `local` to `remote` go next over our interface. `None`: no route there.
    fn next_hop(&mut self, local: IpAddr, remote: IpAddr, vlan: Option<VlanTag>) -> Option<NextHop>;

    /// Hardware address of a gateway, if it is known.
    fn neighbour(&mut self, gateway: IpAddr, vlan: Option<VlanTag>) -> Option<[u8; 6]>;

    /// Asks the kernel to find the neighbour, or to see that it is still there. Never waits.
    fn ask(&mut self, gateway: IpAddr, vlan: Option<VlanTag>);
}

/// A route's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Who is next: a router, or the remote itself.
    pub gateway: IpAddr,
    /// Our hardware address there.
    pub source: [u8; 6],
    /// Largest IP packet.
    pub mtu_bytes: u16,
}

/// Different gateways that a shard may know. Behind a router it is one or two; on a large shared segment each
/// client is its own. No more than 16 bits of a hop's number count.
const HOPS_MAX: usize = 65_536;
/// Entries looked at for one to use again: whoever floods pays no more than that for each packet.
const EVICTION_LOOKS: usize = 64;
/// After so long without a packet an entry may be another's, if its neighbour is known.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a packet waits for its neighbour: the kernel asks three times, a second apart (`mcast_solicit`,
/// `retrans_time_ms` of net.ipv4.neigh and net.ipv6.neigh). So long an entry without one is kept at least.
const RESOLUTION_MAX: Duration = Duration::from_secs(3);
/// Packets parked for one neighbour: a SYN, or an answer in two segments, and a retransmission.
const PARKED_PER_HOP: usize = 4;
/// Packets parked over all neighbours.
const PARKED_MAX: usize = 256;
/// Longest header: Ethernet with one VLAN tag.
const HEADER_BYTES_MAX: usize = 18;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;

/// A packet that waits for its neighbour.
#[derive(Debug)]
pub(super) struct Parked<F> {
    pub(super) hop: u32,
    pub(super) frame: F,
    pub(super) len: usize,
}

/// A packet was not parked: too many are, or its hop is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotParked;

/// Which entry it is. One gateway may be the next hop of both families (RFC 8950), with a header for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    gateway: IpAddr,
    vlan: Option<VlanTag>,
    is_ipv4: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// How many entries had this place before.
    generation: u16,
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    mtu_bytes: u16,
    is_known: bool,
    /// Packets went there since the last [`Hops::confirm`].
    is_in_use: bool,
    used_at: Instant,
    parked: u8,
}

impl Entry {
    fn hop(&self, place: usize) -> Hop {
        let place = u32::try_from(place).expect("HOPS_MAX is 16 bits");
        let id = u32::from(self.generation) << 16 | place;
        Hop { id, header_len: self.header_len, mtu_bytes: self.mtu_bytes }
    }

    /// True if nobody misses it.
    fn may_go(&self, now: Instant) -> bool {
        let kept = if self.is_known { IDLE_MAX } else { RESOLUTION_MAX };
        self.parked == 0 && self.used_at.plus(kept) <= now
    }
}

/// The next hops of one shard.
pub(super) struct Hops<R, F> {
    pub(super) routes: R,
    entries: Vec<Entry>,
    by_key: HashMap<Key, usize>,
    /// Since when each waits, oldest first.
    parked: VecDeque<(Instant, Parked<F>)>,
    /// Where entries to use again are looked for next.
    hand: usize,
    /// Somebody has asked for an entry that is another's by now.
    has_stale_users: bool,
    /// The time of this turn.
    now: Instant,
}

impl<R: Routes, F> Hops<R, F> {
    pub(super) fn new(routes: R) -> Self {
        Self {
            routes,
            entries: Vec::new(),
            by_key: HashMap::new(),
            parked: VecDeque::new(),
            hand: 0,
            has_stale_users: false,
            now: Instant::ORIGIN,
        }
    }

    /// The hop toward `remote`.
    pub(super) fn find(&mut self, local: IpAddr, remote: IpAddr, vlan: Option<VlanTag>) -> Option<Hop> {
        let next = self.routes.next_hop(local, remote, vlan)?;
        let key = Key { gateway: next.gateway, vlan, is_ipv4: remote.is_ipv4() };
        if let Some(&place) = self.by_key.get(&key) {
            let entry = &mut self.entries[place];
            entry.mtu_bytes = next.mtu_bytes;
            entry.header[6..12].copy_from_slice(&next.source);
            return Some(entry.hop(place));
        }
        let place = if self.entries.len() < HOPS_MAX { self.entries.len() } else { self.evict()? };
        let (header, header_len) = header(next.source, key);
        let mut entry = Entry {
            key,
            generation: self.entries.get(place).map_or(0, |before| before.generation.wrapping_add(1)),
            header,
            header_len,
            mtu_bytes: next.mtu_bytes,
            is_known: false,
            is_in_use: false,
            used_at: self.now,
            parked: 0,
        };
        learn(&mut entry, self.routes.neighbour(next.gateway, vlan));
        if !entry.is_known {
            self.routes.ask(next.gateway, vlan);
        }
        let hop = entry.hop(place);
        match self.entries.get_mut(place) {
            Some(before) => *before = entry,
            None => self.entries.push(entry),
        }
        self.by_key.insert(key, place);
        Some(hop)
    }

    /// A place whose entry nobody misses.
    fn evict(&mut self) -> Option<usize> {
        for _ in 0..EVICTION_LOOKS {
            let place = self.hand;
            self.hand = (place + 1) % HOPS_MAX;
            if self.entries[place].may_go(self.now) {
                self.by_key.remove(&self.entries[place].key);
                return Some(place);
            }
        }
        None
    }

    /// The entry of that number, unless its place is another's by now.
    fn entry(&mut self, hop: u32) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(place(hop));
        let entry = entry.filter(|entry| u32::from(entry.generation) == hop >> 16);
        self.has_stale_users |= entry.is_none();
        entry
    }

    /// The link header toward `hop`; `None` while its neighbour is asked for.
    pub(super) fn header(&mut self, hop: u32) -> Option<&[u8]> {
        let now = self.now;
        let entry = self.entry(hop)?;
        entry.is_in_use = true;
        entry.used_at = now;
        entry.is_known.then(|| &entry.header[..usize::from(entry.header_len)])
    }

    /// Parks a packet, and asks for the neighbour again.
    pub(super) fn park(&mut self, parked: Parked<F>) -> Result<(), (NotParked, F)> {
        let is_full = self.parked.len() == PARKED_MAX;
        let Some(entry) = self.entry(parked.hop) else { return Err((NotParked, parked.frame)) };
        let Key { gateway, vlan, .. } = entry.key;
        let has_room = usize::from(entry.parked) < PARKED_PER_HOP && !is_full;
        entry.parked += u8::from(has_room);
        self.routes.ask(gateway, vlan);
        if !has_room {
            return Err((NotParked, parked.frame));
        }
        self.parked.push_back((self.now, parked));
        Ok(())
    }

    /// A turn begins. Follows the routes, if they have changed. True if connections should ask for their hops again.
    pub(super) fn follow_routes(&mut self, now: Instant) -> bool {
        self.now = now;
        let has_stale_users = std::mem::take(&mut self.has_stale_users);
        if !self.routes.has_changed() {
            return has_stale_users;
        }
        for entry in &mut self.entries {
            learn(entry, self.routes.neighbour(entry.key.gateway, entry.key.vlan));
        }
        true
    }

    /// A parked packet whose neighbour is known by now.
    pub(super) fn take_ready(&mut self) -> Option<Parked<F>> {
        let at = self.parked.iter().position(|(_, parked)| self.entries[place(parked.hop)].is_known)?;
        self.unpark(at)
    }

    /// A parked packet that has waited for too long.
    pub(super) fn take_expired(&mut self) -> Option<Parked<F>> {
        let (since, _) = self.parked.front()?;
        if since.plus(RESOLUTION_MAX) > self.now {
            return None;
        }
        self.unpark(0)
    }

    /// Every parked packet, to be given up.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Parked<F>> + '_ {
        std::iter::from_fn(|| self.unpark(0))
    }

    fn unpark(&mut self, at: usize) -> Option<Parked<F>> {
        let (_, parked) = self.parked.remove(at)?;
        // An entry with parked packets is not evicted.
        self.entries[place(parked.hop)].parked -= 1;
        Some(parked)
    }

    /// How many packets are parked.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Tells the kernel which neighbours are in use: it sees none of this traffic, and would let them go stale.
    pub(super) fn confirm(&mut self) {
        for entry in &mut self.entries {
            if std::mem::take(&mut entry.is_in_use) {
                self.routes.ask(entry.key.gateway, entry.key.vlan);
            }
        }
    }
}

fn place(hop: u32) -> usize {
    (hop & 0xffff) as usize
}

/// A header without its destination.
fn header(source: [u8; 6], Key { vlan, is_ipv4, .. }: Key) -> ([u8; HEADER_BYTES_MAX], u8) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[6..12].copy_from_slice(&source);
    let ethertype = if is_ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let Some(VlanTag(tag)) = vlan else {
        header[12..14].copy_from_slice(&ethertype.to_be_bytes());
        return (header, 14);
    };
    header[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
    header[14..16].copy_from_slice(&tag.to_be_bytes());
    header[16..18].copy_from_slice(&ethertype.to_be_bytes());
    (header, 18)
}

/// A neighbour that the kernel has forgotten is kept: it was right a moment ago, and is asked for again when
/// packets go there.
fn learn(entry: &mut Entry, neighbour: Option<[u8; 6]>) {
    if let Some(address) = neighbour {
        entry.header[..6].copy_from_slice(&address);
        entry.is_known = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const REMOTE_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
    const UNROUTED: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[derive(Default)]
    struct FakeRoutes {
        neighbour: Option<[u8; 6]>,
        has_changed: bool,
        asked: usize,
        /// Every remote is its own next hop.
        is_on_link: bool,
        source: Option<[u8; 6]>,
    }

    impl Routes for FakeRoutes {
        fn has_changed(&mut self) -> bool {
            std::mem::take(&mut self.has_changed)
        }

        fn next_hop(&mut self, _: IpAddr, remote: IpAddr, _: Option<VlanTag>) -> Option<NextHop> {
            let gateway = if self.is_on_link { remote } else { GATEWAY };
            let is_routed = remote != UNROUTED;
            is_routed.then_some(NextHop { gateway, source: self.source.unwrap_or(OURS), mtu_bytes: 1500 })
        }

        fn neighbour(&mut self, _: IpAddr, _: Option<VlanTag>) -> Option<[u8; 6]> {
            self.neighbour
        }

        fn ask(&mut self, _: IpAddr, _: Option<VlanTag>) {
            self.asked += 1;
        }
    }

    fn hops(neighbour: Option<[u8; 6]>) -> Hops<FakeRoutes, u32> {
        Hops::new(FakeRoutes { neighbour, ..FakeRoutes::default() })
    }

    #[test]
    fn a_known_neighbour_makes_an_ethernet_header() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, None).unwrap();
        assert_eq!((hop.header_len, hop.mtu_bytes), (14, 1500));
        let expected = [&THEIRS[..], &OURS, &[0x08, 0x00]].concat();
        assert_eq!(hops.header(hop.id), Some(&expected[..]));
        assert_eq!(hops.routes.asked, 0);
    }

    #[test]
    fn a_tagged_flow_is_answered_with_its_tag() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, Some(VlanTag(0x2064))).unwrap();
        assert_eq!(hop.header_len, 18);
        assert_eq!(&hops.header(hop.id).unwrap()[12..], &[0x81, 0x00, 0x20, 0x64, 0x08, 0x00]);
        assert_ne!(hops.find(LOCAL, REMOTE, None).unwrap().id, hop.id);
    }

    #[test]
    fn remotes_behind_one_gateway_share_a_hop_and_without_a_route_there_is_none() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, None).unwrap();
        assert_eq!(hops.find(LOCAL, "203.0.113.9".parse().unwrap(), None), Some(hop));
        assert_eq!(hops.find(LOCAL, UNROUTED, None), None);
    }

    #[test]
    fn a_few_packets_wait_for_an_unknown_neighbour_and_leave_in_order_once_it_is_known() {
        let mut hops = hops(None);
        let hop = hops.find(LOCAL, REMOTE, None).unwrap().id;
        assert_eq!(hops.header(hop), None);
        for frame in 0..4 {
            assert!(hops.park(Parked { hop, frame, len: 60 }).is_ok());
        }
        assert!(hops.park(Parked { hop, frame: 4, len: 60 }).is_err(), "one more than may wait");
        assert!(hops.routes.asked >= 1 && hops.take_ready().is_none());

        hops.routes.neighbour = Some(THEIRS);
        assert!(!hops.follow_routes(Instant::ORIGIN), "nobody has said that anything changed");
        hops.routes.has_changed = true;
        assert!(hops.follow_routes(Instant::ORIGIN));
        let left: Vec<u32> = std::iter::from_fn(|| hops.take_ready()).map(|parked| parked.frame).collect();
        assert_eq!(left, [0, 1, 2, 3]);
        assert_eq!(hops.parked(), 0);
        assert!(hops.park(Parked { hop, frame: 5, len: 60 }).is_ok(), "there is room again");
    }

    #[test]
    fn a_neighbour_that_the_kernel_forgets_is_kept_and_a_new_address_is_learnt() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, None).unwrap().id;
        for (now_known, header) in [(None, THEIRS), (Some([9; 6]), [9; 6])] {
            hops.routes.neighbour = now_known;
            hops.routes.has_changed = true;
            hops.follow_routes(Instant::ORIGIN);
            assert_eq!(hops.header(hop).unwrap()[..6], header);
        }
    }

    #[test]
    fn only_neighbours_in_use_are_confirmed() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, None).unwrap().id;
        hops.confirm();
        assert_eq!(hops.routes.asked, 0);
        hops.header(hop);
        hops.confirm();
        hops.confirm();
        assert_eq!(hops.routes.asked, 1);
    }

    #[test]
    fn both_families_behind_one_gateway_have_headers_of_their_own() {
        let mut hops = hops(Some(THEIRS));
        let ethertypes = [REMOTE, REMOTE_V6, REMOTE].map(|remote| {
            let hop = hops.find(LOCAL, remote, None).unwrap();
            hops.header(hop.id).unwrap()[12..].to_vec()
        });
        assert_eq!(ethertypes, [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x00]]);
    }

    #[test]
    fn our_own_address_is_renewed_when_connections_ask_again() {
        let mut hops = hops(Some(THEIRS));
        let hop = hops.find(LOCAL, REMOTE, None).unwrap();
        hops.routes.source = Some([2, 0, 0, 0, 0, 9]);
        assert_eq!(hops.find(LOCAL, REMOTE, None), Some(hop));
        assert_eq!(hops.header(hop.id).unwrap()[6..12], [2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn a_packet_waits_three_seconds_for_its_neighbour_and_no_longer() {
        let mut hops = hops(None);
        let hop = hops.find(LOCAL, REMOTE, None).unwrap().id;
        let after = |millis| Instant::after_origin(Duration::from_millis(millis));
        for (millis, frame) in [(0, 1), (1_000, 2)] {
            hops.follow_routes(after(millis));
            assert!(hops.park(Parked { hop, frame, len: 60 }).is_ok());
        }
        for (millis, expired) in [(2_999, None), (3_000, Some(1)), (3_999, None), (4_000, Some(2))] {
            hops.follow_routes(after(millis));
            assert_eq!(hops.take_expired().map(|parked| parked.frame), expired, "after {millis} ms");
        }
        assert_eq!((hops.parked(), hops.entries[0].parked), (0, 0));
    }

    /// As many entries as there may be, one for each remote.
    fn full(neighbour: Option<[u8; 6]>) -> Hops<FakeRoutes, u32> {
        let mut hops = hops(neighbour);
        hops.routes.is_on_link = true;
        for index in 0..HOPS_MAX {
            assert!(hops.find(LOCAL, remote(index), None).is_some());
        }
        hops
    }

    fn remote(index: usize) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(index).unwrap()).into()
    }

    #[test]
    fn an_entry_whose_neighbour_never_answered_is_used_again_and_one_in_use_is_not() {
        for (neighbour, kept) in [(None, RESOLUTION_MAX), (Some(THEIRS), IDLE_MAX)] {
            let mut hops = full(neighbour);
            let nearly = Instant::after_origin(kept - Duration::from_millis(1));
            hops.follow_routes(nearly);
            assert_eq!(hops.find(LOCAL, REMOTE, None), None);
            hops.hand = 0;
            // The first is in use.
            let first = hops.find(LOCAL, remote(0), None).unwrap().id;
            hops.header(first);
            hops.follow_routes(Instant::after_origin(kept));
            let fresh = hops.find(LOCAL, REMOTE, None).unwrap();
            assert_eq!((place(fresh.id), fresh.id >> 16), (1, 1));
            assert_eq!(hops.entries.len(), HOPS_MAX);
        }
    }

    #[test]
    fn who_has_the_number_of_an_entry_that_is_gone_reaches_nobody_and_is_told_to_ask_again() {
        let mut hops = full(Some(THEIRS));
        let gone = hops.find(LOCAL, remote(0), None).unwrap().id;
        hops.follow_routes(Instant::after_origin(IDLE_MAX));
        let fresh = hops.find(LOCAL, REMOTE, None).unwrap().id;
        assert!(hops.header(fresh).is_some());
        assert!(!hops.follow_routes(Instant::after_origin(IDLE_MAX)));
        assert_eq!(hops.header(gone), None);
        assert!(hops.park(Parked { hop: gone, frame: 1, len: 60 }).is_err());
        assert!(hops.follow_routes(Instant::after_origin(IDLE_MAX)));
        assert!(!hops.follow_routes(Instant::after_origin(IDLE_MAX)));
    }
}
