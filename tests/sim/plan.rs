//! Who takes part in a run and how it behaves: all of it drawn from the seed before the first moment.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mtproxy_core::config::{Config, Front, Fronts, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::secret::{Key, Secret, SecretKind};

use crate::character::Character;
use mtproxy_tests::dice::Dice;

/// The wall clock when a run begins.
pub(crate) const UNIX_SECONDS: u32 = 1_700_000_000;
/// The domains behind which the proxy hides, where it does.
pub(crate) const DOMAINS: [&str; 2] = ["front.example", "other.example"];
/// A key that is nobody's.
pub(crate) const STRANGE_KEY: Key = [0xbd; 16];
/// The data centres that clients ask for: known, media, unknown, and not said.
pub(crate) const DCS: [DcId; 7] = [DcId(1), DcId(2), DcId(3), DcId(4), DcId(-4), DcId(77), DcId(0)];

/// How an address answers dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Refuses,
    /// Nothing ever comes back.
    Silent,
    /// One of the above, each time anew.
    Fickle,
}

/// Everything about a run that is fixed in advance.
pub(crate) struct Plan {
    pub(crate) config: Config,
    /// What the operator loads later, and when: the last one first.
    pub(crate) reloads: Vec<(Duration, Config)>,
    pub(crate) stop_at: Option<Duration>,
    pub(crate) replay_entries_max: usize,
    pub(crate) moods: Vec<(SocketAddr, Mood)>,
    pub(crate) clients: Vec<(Duration, IpAddr, Character)>,
    /// The least relay window of all configurations.
    pub(crate) narrowest_window: usize,
}

/// The proxy's users: the kinds of secret in turn.
pub(crate) fn users() -> Vec<(String, Secret)> {
    let domain = |index: usize| SecretKind::FakeTls(DOMAINS[index].parse().expect("a host name"));
    let user = |name: &str, key: u8, kind| (name.to_owned(), Secret::new([key; 16], kind));
    vec![
        user("amy", 1, SecretKind::Plain),
        user("bob", 2, SecretKind::Padded),
        user("cleo", 3, domain(0)),
        user("dan", 4, SecretKind::Plain),
        user("eve", 5, domain(1)),
    ]
}

pub(crate) fn front_addresses(front: usize) -> Vec<SocketAddr> {
    (0..=1).map(|host| SocketAddr::from(([198, 51, 100, 10 * front as u8 + host], 443))).collect()
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let has_fronts = dice.percent(85);
        let config = draw_config(dice, has_fronts);
        let reload_count = if dice.percent(40) { dice.between(1, 4) } else { 0 };
        let mut reloads: Vec<(Duration, Config)> = (0..reload_count)
            .map(|_| {
                let mut later = Config { dc_table: config.dc_table.clone(), ..draw_config(dice, has_fronts) };
                let mut users = users();
                users.rotate_left(dice.between(0, 4));
                later.credentials = Credentials::new(users);
                (Duration::from_millis(dice.between(0, 40_000) as u64), later)
            })
            .collect();
        reloads.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let moods = draw_moods(dice, &config.dc_table);
        let replay_entries_max = if dice.percent(80) { 1000 } else { dice.between(1, 4) };
        let narrowest = reloads.iter().map(|(_, later)| later).chain([&config]);
        let narrowest_window = narrowest.map(|config| config.relay_window_bytes).min().unwrap_or_default();
        let clients = (0..dice.between(3, 28))
            .map(|_| {
                let at = Duration::from_millis(dice.between(0, 30_000) as u64);
                let source = IpAddr::from([203, 0, 113, dice.below(6) as u8]);
                let is_cache_small = replay_entries_max < 1000;
                (at, source, Character::draw(dice, has_fronts, at, is_cache_small, narrowest_window))
            })
            .collect();
        let stop_at = dice.percent(15).then(|| Duration::from_millis(dice.between(5_000, 60_000) as u64));
        Self { config, reloads, stop_at, replay_entries_max, moods, clients, narrowest_window }
    }
}

fn draw_config(dice: &mut Dice, has_fronts: bool) -> Config {
    let relay_window_bytes = match dice.below(6) {
        0 => dice.between(1, 20),
        1 => dice.size(4096),
        2 | 3 => dice.between(1000, 20_000),
        _ => 64 * 1024,
    };
    let millis = |dice: &mut Dice, low, high| Duration::from_millis(dice.between(low, high) as u64);
    let timeouts = Timeouts {
        first_byte: millis(dice, 500, 10_000),
        handshake: millis(dice, 500, 10_000),
        dial: millis(dice, 200, 5_000),
        idle: millis(dice, 3_000, 60_000),
        linger: millis(dice, 500, 10_000),
    };
    let front = |index: usize| Front {
        domain: DOMAINS[index].parse().expect("a host name"),
        addresses: front_addresses(index),
        flight_len: [1000, 3000][index],
    };
    let fronts = if has_fronts { Fronts::new([front(0), front(1)]) } else { Fronts::default() };
    Config {
        credentials: Credentials::new(users()),
        fronts,
        dc_table: draw_dc_table(dice),
        middle_proxies: None,
        timeouts,
        relay_window_bytes,
    }
}

/// Data centres with one to three addresses each; 2 is the default.
fn draw_dc_table(dice: &mut Dice) -> DcTable {
    let mut table = DcTable::builtin(PreferIp::V4);
    for id in [1, 2, 3, 4, -4_i16] {
        let last = id.to_le_bytes()[0];
        let addresses =
            (1..=dice.between(1, 3) as u8).map(|host| SocketAddr::from(([192, 0, host, last], 443)));
        table.set(DcId(id), addresses.collect());
    }
    table
}

fn draw_moods(dice: &mut Dice, dc_table: &DcTable) -> Vec<(SocketAddr, Mood)> {
    let dcs = dc_table.iter().flat_map(|(_, addresses)| addresses.to_vec());
    let fronts = (0..DOMAINS.len()).flat_map(front_addresses);
    let draw = |address| {
        let mood = match dice.below(100) {
            0..80 => Mood::Answers,
            80..88 => Mood::Refuses,
            88..93 => Mood::Silent,
            _ => Mood::Fickle,
        };
        (address, mood)
    };
    dcs.chain(fronts).map(draw).collect()
}
