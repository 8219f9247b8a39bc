//! What one end of a conversation means to do.

use mtproxy_tests::dice::Dice;

/// How an end ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Shuts down behind its last byte, reads to the end, closes.
    AfterAll,
    /// The same, but shuts down only once the peer did.
    AfterPeer,
    /// Closes behind its last byte without waiting for anything.
    Closes,
    /// Resets once it has read or written so much.
    Aborts(u64),
    /// Stops reading after so much, and closes much later.
    StopsReading(u64),
}

/// One end.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Bytes to write.
    pub(crate) total: u64,
    /// Writes what it reads; `total` is the other end's.
    pub(crate) is_echo: bool,
    pub(crate) chunk_max: usize,
    /// Most microseconds between two chunks.
    pub(crate) write_pause_max: u64,
    /// Most bytes it reads at once; the rest of a frame is given back.
    pub(crate) takes_at_once: usize,
    pub(crate) read_pause_max: u64,
    /// Holds the last frame that it read until it reads again.
    pub(crate) holds: bool,
    pub(crate) ending: Ending,
}

impl Script {
    pub(crate) fn draw(dice: &mut Dice, bytes_max: usize) -> Self {
        let total = if dice.percent(10) { 0 } else { dice.size(bytes_max) as u64 };
        let ending = match dice.below(100) {
            0..62 => Ending::AfterAll,
            62..82 => Ending::AfterPeer,
            82..90 => Ending::Closes,
            90..96 => Ending::Aborts(dice.size(bytes_max) as u64 - 1),
            _ => Ending::StopsReading(dice.size(bytes_max) as u64 - 1),
        };
        let is_slow = dice.percent(15);
        // A pause every so many bytes: the whole takes seconds, not hours.
        let takes_at_once = if is_slow { (bytes_max / 40).max(100) } else { 1 << dice.between(10, 20) };
        Self {
            total,
            is_echo: false,
            chunk_max: dice.size(bytes_max).max(bytes_max / 50),
            write_pause_max: *dice.pick(&[0, 0, 1_000, 100_000]),
            takes_at_once,
            read_pause_max: if is_slow { 500_000 } else { *dice.pick(&[0, 0, 1_000]) },
            holds: dice.percent(20),
            ending,
        }
    }

    /// This end does nothing for which the other may lose bytes.
    pub(crate) fn is_peaceful_with(&self, other: &Self) -> bool {
        match self.ending {
            Ending::AfterAll | Ending::AfterPeer => true,
            // What the other sends would be answered with RST.
            Ending::Closes => other.total == 0 && !other.is_echo && !self.is_echo,
            Ending::Aborts(_) | Ending::StopsReading(_) => false,
        }
    }
}
