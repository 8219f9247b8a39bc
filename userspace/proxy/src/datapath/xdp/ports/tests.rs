//! The port space against a stack that is a table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mtproxy_nic::rss::Toeplitz;
use proptest::prelude::*;

use super::*;

fn shards(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

fn local() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn dc() -> SocketAddr {
    "149.154.167.51:443".parse().unwrap()
}

fn space(ports: std::ops::RangeInclusive<u16>, shard: u16, count: u16, queue_of: QueueOf) -> PortSpace {
    let ports: Vec<u16> = ports.collect();
    let place = ShardPlace { shard, shards: shards(count), queue: u32::from(shard) };
    PortSpace::new(&ports, place, queue_of, [7; 16])
}

fn toeplitz(queues: u32) -> QueueOf {
    let key: Vec<u8> = (0..40u8).map(|place| place.wrapping_mul(151).wrapping_add(13)).collect();
    let table: Vec<u32> = (0..128).map(|entry| entry % queues).collect();
    QueueOf::Toeplitz(Arc::new(Toeplitz::new(&key, &table).unwrap()))
}

/// What the stack knows; all else is free.
#[derive(Default)]
struct Tuples(HashMap<(SocketAddr, SocketAddr), Standing>);

impl Tuples {
    fn all(standing: Standing) -> impl Fn(SocketAddr, SocketAddr) -> Standing {
        move |_, _| standing
    }

    fn set(&mut self, remote: SocketAddr, port: u16, standing: Standing) {
        self.0.insert((SocketAddr::new(local(), port), remote), standing);
    }

    fn ask(&self, local: SocketAddr, remote: SocketAddr) -> Standing {
        self.0.get(&(local, remote)).copied().unwrap_or(Standing::Free)
    }
}

impl PortSpace {
    /// Takes a port while the stack holds on to whatever lingers.
    fn take_free(&mut self, remote: SocketAddr) -> Result<u16, Exhausted> {
        self.take(local(), remote, &Tuples::all(Standing::InUse))
    }

    /// Lets a port go, and the stack has nothing of it.
    fn free(&mut self, remote: SocketAddr, port: u16) {
        self.let_go(local(), remote, port);
        self.reclaim(&Tuples::all(Standing::Free));
    }
}

#[test]
fn every_port_is_given_once_and_then_none() {
    let mut space = space(61000..=61099, 0, 1, QueueOf::Single);
    let given: HashSet<u16> = (0..100).map(|_| space.take_free(dc()).unwrap()).collect();
    assert_eq!(given, (61000..=61099).collect());
    assert_eq!(space.take_free(dc()), Err(Exhausted));
    assert_eq!(space.counts(), PortCounts { exhausted: 1, taken: 100, ..PortCounts::default() });
    space.free(dc(), 61042);
    assert_eq!(space.take_free(dc()), Ok(61042));
}

#[test]
fn another_remote_end_has_all_ports_again() {
    let mut space = space(61000..=61000, 0, 1, QueueOf::Single);
    let other = "149.154.167.51:80".parse().unwrap();
    assert_eq!(space.take_free(dc()), Ok(61000));
    assert_eq!(space.take_free(other), Ok(61000));
    assert_eq!(space.take_free(dc()), Err(Exhausted));
}

#[test]
fn a_port_comes_again_last_also_when_the_pair_was_idle() {
    let mut space = space(61000..=61099, 0, 1, QueueOf::Single);
    let mut given = HashSet::new();
    for _ in 0..100 {
        let port = space.take_free(dc()).unwrap();
        assert!(given.insert(port), "{port} came again too early");
        space.free(dc(), port);
        assert_eq!(space.counts().taken, 0);
    }
    assert!(!given.insert(space.take_free(dc()).unwrap()));
}

#[test]
fn a_port_stays_taken_until_the_stack_has_forgotten_the_tuple() {
    let mut space = space(61000..=61000, 0, 1, QueueOf::Single);
    space.take_free(dc()).unwrap();
    space.let_go(local(), dc(), 61000);
    for standing in [Standing::InUse, Standing::MayReopen] {
        space.reclaim(&Tuples::all(standing));
        assert_eq!((space.counts().taken, space.counts().lingering), (1, 1), "{standing:?}");
    }
    space.reclaim(&Tuples::all(Standing::Free));
    assert_eq!((space.counts().taken, space.counts().lingering), (0, 0));
}

/// Ports of the first shard of four to which the device brings replies on the shard's own queue.
fn on_queue(queue_of: &QueueOf) -> HashSet<u16> {
    let comes_here = |port: &u16| queue_of.queue(SocketAddr::new(local(), *port), dc()) == Some(0);
    (61000..=65535).filter(|port| port % 4 == 0).filter(comes_here).collect()
}

#[test]
fn ports_in_time_wait_make_dials_go_on_from_other_queues_ports_and_then_from_their_own() {
    let queue_of = toeplitz(4);
    let good = on_queue(&queue_of);
    let mut space = space(61000..=65535, 0, 4, queue_of);
    let mut closed = HashSet::new();
    for dial in 0..1134 {
        let port = space.take_free(dc()).unwrap();
        assert_eq!(good.contains(&port), dial < good.len(), "the {dial}th from {port}");
        assert!(closed.insert(port));
        space.let_go(local(), dc(), port);
    }
    assert_eq!(space.take_free(dc()), Err(Exhausted));
    // Now all are in TIME-WAIT; those of this queue come first again.
    for _ in 0..good.len() {
        let port = space.take(local(), dc(), &Tuples::all(Standing::MayReopen)).unwrap();
        assert!(good.contains(&port));
    }
    let counts = space.counts();
    assert_eq!((counts.exhausted, counts.reopened), (1, good.len() as u64));
    assert_eq!((counts.off_queue, counts.taken), (1134 - good.len() as u64, 1134));
}

#[test]
fn ports_that_cannot_be_had_do_not_hide_one_that_can() {
    let mut space = space(61000..=61999, 0, 1, QueueOf::Single);
    for _ in 0..1000 {
        let port = space.take_free(dc()).unwrap();
        space.let_go(local(), dc(), port);
    }
    for good in [61000, 61500, 61999] {
        let mut tuples = Tuples::default();
        for port in 61000..=61999 {
            tuples.set(dc(), port, if port == good { Standing::MayReopen } else { Standing::InUse });
        }
        let taken = (0..1000 / 16 + 1)
            .find_map(|_| space.take(local(), dc(), &|local, remote| tuples.ask(local, remote)).ok());
        assert_eq!(taken, Some(good));
        space.let_go(local(), dc(), good);
    }
}

#[test]
fn known_rss_gives_ports_that_come_back_first_and_counts_the_others() {
    let queue_of = toeplitz(2);
    let mut space = space(61000..=61199, 1, 2, queue_of.clone());
    let comes_back = |port| queue_of.queue(SocketAddr::new(local(), port), dc()) == Some(1);
    let good = (61000..=61199).filter(|port| port % 2 == 1 && comes_back(*port)).count();
    assert!((32..100).contains(&good), "the key splits the range: {good}");
    for taken in 0..100 {
        let port = space.take_free(dc()).unwrap();
        assert_eq!(owner(port, shards(2)), 1);
        assert_eq!(comes_back(port), taken < good, "port {port}, the {taken}th");
    }
    assert_eq!(space.counts().off_queue, 100 - good as u64);
}

#[test]
fn unknown_rss_counts_nothing_as_off_queue_before_a_reply_has_come() {
    let mut space = space(61000..=61009, 1, 2, QueueOf::Unknown);
    for _ in 0..5 {
        space.take_free(dc()).unwrap();
    }
    assert_eq!(space.counts().off_queue, 0);
}

#[test]
fn where_the_device_does_not_tell_replies_teach_which_ports_come_back() {
    let mut space = space(61000..=61511, 0, 2, QueueOf::Unknown);
    let comes_back = |port: u16| port.is_multiple_of(6);
    let mut round = |dials: usize| -> (usize, HashSet<u16>) {
        let mut given = HashSet::new();
        let mut wrong = 0;
        for _ in 0..dials {
            let port = space.take_free(dc()).unwrap();
            space.learn(local(), dc(), port, comes_back(port));
            wrong += usize::from(!comes_back(port));
            given.insert(port);
            space.free(dc(), port);
        }
        (wrong, given)
    };
    // 32 of them are known after about three times as many dials, and a round of those is long enough.
    round(100);
    let (wrong, given) = round(200);
    assert_eq!(wrong, 0);
    assert!(given.len() >= 32, "a round of {}", given.len());
    assert_eq!(space.counts().off_queue, 0, "no port was given against better knowledge");
    // Ports of which nothing is known come before those that are known to be wrong.
    let all: Vec<u16> = (0..256).map(|_| space.take_free(dc()).unwrap()).collect();
    let off_queue = space.counts().off_queue as usize;
    assert!(off_queue > 60 && all[256 - off_queue..].iter().all(|&port| !comes_back(port)));
}

#[test]
fn replies_that_come_otherwise_than_the_device_told_are_believed() {
    let mut space = space(61000..=61199, 0, 2, toeplitz(2));
    let first = space.take_free(dc()).unwrap();
    space.learn(local(), dc(), first, false);
    space.free(dc(), first);
    let again: Vec<u16> = (0..100).map(|_| space.take_free(dc()).unwrap()).collect();
    let place = again.iter().position(|port| *port == first).unwrap();
    let wrong_from = 100 - space.counts().off_queue as usize;
    assert!(place >= wrong_from, "it is the {place}th, and the wrong ones begin at {wrong_from}");
    // What is of no pair or no port of ours teaches nothing.
    space.learn(local(), "198.51.100.1:443".parse().unwrap(), first, true);
    space.learn(local(), dc(), 1, true);
}

#[test]
fn an_address_is_the_same_in_all_the_forms_a_configuration_or_a_name_may_give_it() {
    let mut space = space(61000..=61001, 0, 1, QueueOf::Single);
    let mapped = "[::ffff:149.154.167.51]:443".parse().unwrap();
    let port = space.take(local(), mapped, &Tuples::all(Standing::Free)).unwrap();
    space.let_go(local(), dc(), port);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let IpAddr::V6(front) = "2001:db8::2".parse().unwrap() else { unreachable!() };
    let labelled = SocketAddr::V6(std::net::SocketAddrV6::new(front, 443, 7, 3));
    let port = space.take(v6, labelled, &Tuples::all(Standing::Free)).unwrap();
    space.let_go(v6, "[2001:db8::2]:443".parse().unwrap(), port);
    assert_eq!(space.counts().lingering, 2);
}

#[test]
fn a_shard_without_ports_is_exhausted_from_the_start() {
    let mut space = space(61000..=61000, 1, 2, QueueOf::Single);
    assert_eq!(space.take_free(dc()), Err(Exhausted));
}

#[test]
fn idle_pairs_make_room_and_busy_ones_are_bounded() {
    let mut space = space(61000..=61001, 0, 1, QueueOf::Single);
    let remote = |number: usize| SocketAddr::new(dc().ip(), number as u16);
    let given: Vec<u16> = (0..PAIRS_MAX).map(|number| space.take_free(remote(number)).unwrap()).collect();
    assert_eq!(space.take_free(remote(PAIRS_MAX)), Err(Exhausted));
    space.free(remote(0), given[0]);
    assert!(space.take_free(remote(PAIRS_MAX)).is_ok());
    assert_eq!(space.pairs.len(), PAIRS_MAX);
}

#[test]
#[should_panic(expected = "let go of once")]
fn letting_go_twice_is_a_defect() {
    let mut space = space(61000..=61001, 0, 1, QueueOf::Single);
    let port = space.take_free(dc()).unwrap();
    space.let_go(local(), dc(), port);
    space.let_go(local(), dc(), port);
}

/// A step of a driver, a stack, or the world.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    LetGo(u8),
    /// What the stack makes of a tuple that was let go of.
    Become(u8, Standing),
    Reclaim,
    Learn(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let standing = prop_oneof![Just(Standing::Free), Just(Standing::MayReopen), Just(Standing::InUse)];
    prop_oneof![
        4 => Just(Step::Take),
        3 => any::<u8>().prop_map(Step::LetGo),
        3 => (any::<u8>(), standing).prop_map(|(which, standing)| Step::Become(which, standing)),
        1 => Just(Step::Reclaim),
        1 => any::<(u8, bool)>().prop_map(|(which, is_here)| Step::Learn(which, is_here)),
    ]
}

proptest! {
    /// The model: who holds a port, and what the stack says of each tuple that it knows.
    #[test]
    fn no_port_is_given_whose_tuple_is_in_use_and_none_is_refused_that_is_free(
        count in 1u16..5, shard in 0u16..5, size in 1u16..40, kind in 0u8..3,
        steps in proptest::collection::vec((0u8..3, step()), 0..400),
    ) {
        let shard = shard % count;
        let queue_of = [QueueOf::Single, QueueOf::Unknown, toeplitz(u32::from(count))][usize::from(kind)].clone();
        let mut space = space(60000..=60000 + size, shard, count, queue_of);
        let ports = space.ports.len();
        let mut held: Vec<(SocketAddr, u16)> = vec![];
        let mut lingering: Vec<(SocketAddr, u16)> = vec![];
        let mut tuples = Tuples::default();
        for (remote, step) in steps {
            let remote = SocketAddr::new(dc().ip(), u16::from(remote));
            let standing = |tuples: &Tuples, (remote, port)| tuples.ask(SocketAddr::new(local(), port), remote);
            match step {
                Step::Take => match space.take(local(), remote, &|local, remote| tuples.ask(local, remote)) {
                    Ok(port) => {
                        prop_assert_eq!(owner(port, shards(count)), usize::from(shard));
                        prop_assert!(standing(&tuples, (remote, port)) != Standing::InUse, "{port} is in use");
                        prop_assert!(!held.contains(&(remote, port)), "{port} is held twice");
                        lingering.retain(|other| *other != (remote, port));
                        held.push((remote, port));
                        tuples.set(remote, port, Standing::InUse);
                    }
                    Err(Exhausted) => {
                        let of_pair = |list: &[(SocketAddr, u16)]| list.iter().filter(|(other, _)| *other == remote).count();
                        prop_assert_eq!(of_pair(&held) + of_pair(&lingering), ports);
                        // So few ports are all asked about.
                        let in_use = lingering.iter().all(|&port| port.0 != remote || standing(&tuples, port) == Standing::InUse);
                        prop_assert!(in_use || ports > 16);
                    }
                },
                Step::LetGo(which) if !held.is_empty() => {
                    let (remote, port) = held.swap_remove(usize::from(which) % held.len());
                    space.let_go(local(), remote, port);
                    lingering.push((remote, port));
                }
                Step::Become(which, standing) if !lingering.is_empty() => {
                    let (remote, port) = lingering[usize::from(which) % lingering.len()];
                    tuples.set(remote, port, standing);
                }
                Step::Reclaim => {
                    space.reclaim(&|local, remote| tuples.ask(local, remote));
                    lingering.retain(|&port| standing(&tuples, port) != Standing::Free);
                }
                Step::Learn(which, is_here) if !held.is_empty() => {
                    let (remote, port) = held[usize::from(which) % held.len()];
                    space.learn(local(), remote, port, is_here);
                }
                Step::LetGo(_) | Step::Become(..) | Step::Learn(..) => {}
            }
            let counts = space.counts();
            prop_assert_eq!((counts.taken, counts.lingering), (held.len() + lingering.len(), lingering.len()));
        }
    }
}
