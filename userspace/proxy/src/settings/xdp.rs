//! Settings of the AF_XDP datapath: the section `[xdp]`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::cidr::Cidr;
use super::values::Choice;

/// How the AF_XDP datapath works. Only [`deny`](Self::deny) may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpSettings {
    /// How packets get to and from the sockets.
    pub mode: XdpMode,
    /// Source ports toward data centres and fronts.
    pub ports: PortRange,
    /// Packet buffers of each queue, [`FRAME_BYTES`] each.
    pub frames: u32,
    /// True to keep packet buffers in huge pages.
    pub huge_pages: bool,
    /// True to let the shards drive the device instead of its interrupts.
    pub busy_poll: bool,
    /// True to give each shard's thread a core of its own.
    pub pin: bool,
    /// True to take packets whose checksum their sender left to hardware that there is none of.
    pub trust_partial_checksums: bool,
    /// Most connections of each queue.
    pub connections: usize,
    /// How many SYNs one source may send; `None`: any number.
    pub syn_limit: Option<SynLimit>,
    /// Whose packets are dropped before anything looks at them.
    pub deny: Vec<Cidr>,
    /// How the sending rate follows losses.
    pub congestion: Congestion,
}

impl Default for XdpSettings {
    fn default() -> Self {
        Self {
            mode: XdpMode::Auto,
            ports: PortRange::DEFAULT,
            frames: 16_384,
            huge_pages: false,
            busy_poll: false,
            pin: true,
            trust_partial_checksums: false,
            connections: 100_000,
            syn_limit: None,
            deny: Vec::new(),
            congestion: Congestion::Cubic,
        }
    }
}

impl XdpSettings {
    /// Keys whose values differ in `newer` and take effect only at a restart.
    pub(super) fn needing_restart(&self, newer: &Self) -> impl Iterator<Item = &'static str> + use<> {
        let rate = |xdp: &Self| xdp.syn_limit.map(|limit| limit.per_second);
        let burst = |xdp: &Self| xdp.syn_limit.map(|limit| limit.burst);
        let fixed = [
            ("xdp.mode", self.mode != newer.mode),
            ("xdp.ports", self.ports != newer.ports),
            ("xdp.frames", self.frames != newer.frames),
            ("xdp.huge_pages", self.huge_pages != newer.huge_pages),
            ("xdp.busy_poll", self.busy_poll != newer.busy_poll),
            ("xdp.pin", self.pin != newer.pin),
            ("xdp.trust_partial_checksums", self.trust_partial_checksums != newer.trust_partial_checksums),
            ("xdp.connections", self.connections != newer.connections),
            ("xdp.syn_per_source", rate(self) != rate(newer)),
            ("xdp.syn_burst", burst(self) != burst(newer)),
            ("xdp.congestion", self.congestion != newer.congestion),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
    }
}

/// Size of a packet buffer: what fits two into a page, and an Ethernet packet of 1500 bytes with room before it.
pub const FRAME_BYTES: u32 = 2048;

/// Least and most of [`XdpSettings::frames`]: 8 MiB a queue, below which rings of 2048 descriptors leave next
/// to nothing for connections, and 2 GiB.
pub(super) const FRAMES_MIN: u64 = 4096;
pub(super) const FRAMES_MAX: u64 = 1 << 20;

/// Most of [`XdpSettings::connections`], as of `limits.connections`.
pub(super) const CONNECTIONS_MAX: u64 = 10_000_000;

/// Most of [`XdpSettings::deny`], and the room of the steering program's table.
pub const DENY_MAX: usize = 65_536;

/// Most SYNs a second or in a burst: the program counts the time between two in nanoseconds.
pub(super) const SYN_RATE_MAX: u64 = 1_000_000;

/// SYNs of one source at once unless the operator says otherwise: ten clients behind one address, each with
/// the eight connections that a client opens.
const SYN_BURST_DEFAULT: NonZeroU32 = NonZeroU32::new(80).expect("eighty is not zero");

/// How packets get to and from the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpMode {
    /// The first of the others that works; generic only if the datapath was asked for by name.
    #[default]
    Auto,
    /// The device reads and writes the packet buffers itself.
    ZeroCopy,
    /// The driver runs the program, and the kernel copies.
    Copy,
    /// The kernel runs the program, on packets that it has already taken in. Works everywhere, gains nothing.
    Generic,
}

impl Choice for XdpMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("zero-copy", Self::ZeroCopy),
        ("copy", Self::Copy),
        ("generic", Self::Generic),
    ];
}

/// How the sending rate follows losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 6582.
    NewReno,
}

impl Choice for Congestion {
    const NAMES: &'static [(&'static str, Self)] = &[("cubic", Self::Cubic), ("newreno", Self::NewReno)];
}

/// How many SYNs one source may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynLimit {
    /// Every second, in the long run.
    pub per_second: NonZeroU32,
    /// At once, after a while of silence.
    pub burst: NonZeroU32,
}

impl SynLimit {
    /// The limit for these two settings; 0 a second is none.
    pub(super) fn new(per_second: Option<u32>, burst: Option<NonZeroU32>) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second?)?;
        Some(Self { per_second, burst: burst.unwrap_or(SYN_BURST_DEFAULT) })
    }
}

/// Ports from the first to the last, both included: at least [`PortRange::PORTS_MIN`], none below 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Linux gives 32768 to 60999 to its own connections; behind them are the ports that nobody else takes.
    const DEFAULT: Self = Self { first: 61_000, last: 65_535 };

    /// A queue needs ports of its own, and data centres are few: fewer ports would be fewer clients.
    pub const PORTS_MIN: u32 = 64;

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports these are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// Reads `FIRST-LAST`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text.split_once('-').and_then(|(first, last)| {
            Some(Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
        });
        let Some(range) = bounds.filter(|range| range.first <= range.last) else {
            return Err(format!(
                "found {text:?}; expected the first and the last port, such as {}",
                Self::DEFAULT
            ));
        };
        if range.first < 1024 {
            return Err(format!(
                "found {text:?}, which begins with ports of well-known services; expected ports from 1024 on, \
                such as {}",
                Self::DEFAULT
            ));
        }
        if range.count() < Self::PORTS_MIN {
            return Err(format!(
                "found {text:?}, {} in all; expected at least {} ports, such as {}",
                range.count(),
                Self::PORTS_MIN,
                Self::DEFAULT
            ));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_enough_and_none_is_well_known() {
        let default: PortRange = "61000-65535".parse().unwrap();
        assert_eq!((default, default.count()), (PortRange::DEFAULT, 4536));
        assert_eq!(default.to_string(), "61000-65535");
        for (text, found) in [
            ("1024-1087", None),
            ("1024-1086", Some("63 in all; expected at least 64 ports")),
            ("1023-65535", Some("well-known services")),
            ("65535-65535", Some("1 in all")),
            ("61000-65536", Some("expected the first and the last port")),
            ("65535-61000", Some("expected the first and the last port")),
            ("61000", Some("expected the first and the last port")),
            ("-", Some("expected the first and the last port")),
        ] {
            let range = text.parse::<PortRange>();
            match found {
                None => assert!(range.is_ok(), "{range:?}"),
                Some(found) => assert!(range.as_ref().unwrap_err().contains(found), "{text}: {range:?}"),
            }
        }
    }

    #[test]
    fn no_rate_is_no_limit_whatever_the_burst() {
        let burst = NonZeroU32::new(5);
        assert_eq!(SynLimit::new(None, burst), None);
        assert_eq!(SynLimit::new(Some(0), burst), None);
        assert_eq!(SynLimit::new(Some(1), burst).unwrap().burst.get(), 5);
        assert_eq!(SynLimit::new(Some(1), None).unwrap().burst, SYN_BURST_DEFAULT);
    }

    #[test]
    fn a_mistyped_mode_is_answered_with_the_nearest_one() {
        assert_eq!(XdpMode::choose("zero-copy"), Ok(XdpMode::ZeroCopy));
        assert!(XdpMode::choose("zerocopy").unwrap_err().contains("did you mean \"zero-copy\"?"));
    }
}
