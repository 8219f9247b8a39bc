//! TCP options: read leniently, written as Linux lays them out.
//!
//! The layout is part of how a host looks from outside; ours is to look ordinary.
//!
//! ```text
//!   SYN    MSS ∙ SACK-permitted, timestamps ∙ NOP, window scale          (RFC 9293, 2018, 7323)
//!   later  NOP, NOP, timestamps ∙ NOP, NOP, SACK                         (RFC 7323 appendix A)
//! ```

use std::ops::Deref;

use super::array_at;
use crate::seq::SeqNumber;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Largest shift (RFC 7323 section 2.3): with 15 or more the window could not be told from its past.
pub const WINDOW_SCALE_MAX: u8 = 14;

/// Room for options behind the fixed header: the data offset counts to 15 words.
pub const OPTIONS_LEN_MAX: usize = 40;

/// What the options of a segment say. Those that mean something on a SYN only are set on a SYN only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment that the sender takes; never 0. SYN only (MUST-65).
    pub mss: Option<u16>,
    /// Shift of the sender's windows, at most [`WINDOW_SCALE_MAX`]. SYN only.
    pub window_scale: Option<u8>,
    /// The sender understands SACK. SYN only.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Selective acknowledgements. Not on a SYN.
    pub sack: SackBlocks,
}

/// The timestamps option (RFC 7323 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr: meaningful only with ACK.
    pub echo: u32,
}

/// Text that arrived out of order, from its first octet to the one behind its last. As the peer said
/// it: whether it makes sense, the scoreboard decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// First octet.
    pub left: SeqNumber,
    /// The octet behind the last.
    pub right: SeqNumber,
}

/// At most four blocks: no more fit (RFC 2018 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [SackBlock; Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// Blocks that fit into an option.
    pub const MAX: usize = 4;

    /// Adds a block; false if there are four already.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(free) = self.blocks.get_mut(usize::from(self.len)) else {
            return false;
        };
        *free = block;
        self.len += 1;
        true
    }
}

impl Deref for SackBlocks {
    type Target = [SackBlock];

    fn deref(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.len)]
    }
}

impl Options {
    /// Reads the bytes between the fixed header and the text. An illegal length ends the reading and
    /// what came before it holds (MUST-7); unknown options, and known ones of a wrong length, are
    /// skipped (MUST-6). Of a repeated option the last counts, as on Linux.
    #[must_use]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        // On most segments of most connections.
        if let [NOP, NOP, TIMESTAMPS, 10, data @ ..] = bytes
            && data.len() == 8
        {
            return Self { timestamps: read_timestamps(data), ..Self::default() };
        }
        let mut options = Self::default();
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            match *kind {
                END => break,
                NOP => rest = tail,
                kind => {
                    let len = tail.first().map_or(0, |len| usize::from(*len));
                    let (Some(data), Some(next)) = (rest.get(2..len), rest.get(len..)) else {
                        break;
                    };
                    options.read(kind, data, syn);
                    rest = next;
                }
            }
        }
        options
    }

    fn read(&mut self, kind: u8, data: &[u8], syn: bool) {
        match (kind, data) {
            // Zero is no size; Linux ignores it too.
            (MSS, [high, low]) if syn && (*high, *low) != (0, 0) => {
                self.mss = Some(u16::from_be_bytes([*high, *low]));
            }
            // Larger ones are to be taken as 14 (RFC 7323 section 2.3).
            (WINDOW_SCALE, [shift]) if syn => self.window_scale = Some((*shift).min(WINDOW_SCALE_MAX)),
            (SACK_PERMITTED, []) if syn => self.sack_permitted = true,
            (TIMESTAMPS, data) if data.len() == 8 => self.timestamps = read_timestamps(data),
            (SACK, data) if !syn && !data.is_empty() && data.len() % 8 == 0 => {
                self.sack = SackBlocks::default();
                for block in data.as_chunks::<8>().0 {
                    let [l0, l1, l2, l3, r0, r1, r2, r3] = *block;
                    let left = SeqNumber(u32::from_be_bytes([l0, l1, l2, l3]));
                    let right = SeqNumber(u32::from_be_bytes([r0, r1, r2, r3]));
                    self.sack.push(SackBlock { left, right });
                }
            }
            _ => {}
        }
    }

    /// Bytes that [`write`](Self::write) needs: a multiple of four, at most [`OPTIONS_LEN_MAX`].
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let sack = self.blocks_that_fit();
        self.len_without_sack() + if sack.is_empty() { 0 } else { 4 + 8 * sack.len() }
    }

    fn len_without_sack(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = if self.timestamps.is_some() { 12 } else { 0 };
        let sack_permitted = if self.sack_permitted && self.timestamps.is_none() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        mss + timestamps + sack_permitted + window_scale
    }

    /// Beside timestamps three blocks fit (RFC 2018 section 3).
    fn blocks_that_fit(&self) -> &[SackBlock] {
        let room = (OPTIONS_LEN_MAX - self.len_without_sack()).saturating_sub(4) / 8;
        &self.sack[..self.sack.len().min(room)]
    }

    /// Writes the options into the first [`encoded_len`](Self::encoded_len) bytes of `out`. Blocks that
    /// do not fit are left out: the first ones are the newest and matter most.
    ///
    /// # Panics
    /// If `out` is shorter.
    pub fn write(&self, out: &mut [u8]) {
        let mut at = 0;
        let mut put = |word: [u8; 4]| {
            out[at..at + 4].copy_from_slice(&word);
            at += 4;
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put([MSS, 4, high, low]);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            let [first, second] = if self.sack_permitted { [SACK_PERMITTED, 2] } else { [NOP, NOP] };
            put([first, second, TIMESTAMPS, 10]);
            put(value.to_be_bytes());
            put(echo.to_be_bytes());
        } else if self.sack_permitted {
            put([NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            put([NOP, WINDOW_SCALE, 3, shift]);
        }
        let blocks = self.blocks_that_fit();
        if !blocks.is_empty() {
            let len = u8::try_from(2 + 8 * blocks.len()).expect("at most four blocks");
            put([NOP, NOP, SACK, len]);
        }
        for block in blocks {
            put(block.left.0.to_be_bytes());
            put(block.right.0.to_be_bytes());
        }
    }
}

fn read_timestamps(data: &[u8]) -> Option<Timestamps> {
    let value = u32::from_be_bytes(array_at(data, 0)?);
    let echo = u32::from_be_bytes(array_at(data, 4)?);
    Some(Timestamps { value, echo })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS_1460: [u8; 4] = [MSS, 4, 0x05, 0xb4];

    fn on_syn(bytes: &[u8]) -> Options {
        Options::parse(bytes, true)
    }

    fn block(left: u32, right: u32) -> SackBlock {
        SackBlock { left: SeqNumber(left), right: SeqNumber(right) }
    }

    #[test]
    fn an_illegal_length_ends_the_reading_and_what_came_before_holds() {
        for illegal in [&[77][..], &[77, 0], &[77, 1], &[77, 3], &[TIMESTAMPS, 10, 0, 0, 0, 0, 0, 0, 0]] {
            let bytes = [&MSS_1460[..], illegal].concat();
            assert_eq!(on_syn(&bytes), Options { mss: Some(1460), ..Options::default() });
        }
        assert_eq!(on_syn(&[77, 1, MSS, 4, 5, 0xb4]), Options::default());
    }

    #[test]
    fn unknown_options_and_known_ones_of_a_wrong_length_are_skipped() {
        for odd in
            [&[77, 2][..], &[254, 5, 1, 2, 3], &[MSS, 3, 9], &[TIMESTAMPS, 4, 1, 2], &[SACK_PERMITTED, 3, 0]]
        {
            let bytes = [odd, &MSS_1460].concat();
            assert_eq!(on_syn(&bytes), Options { mss: Some(1460), ..Options::default() });
        }
    }

    #[test]
    fn nothing_behind_the_end_of_the_list_counts() {
        assert_eq!(on_syn(&[END, MSS, 4, 5, 0xb4]), Options::default());
    }

    #[test]
    fn a_window_scale_above_14_is_taken_as_14() {
        for (stated, taken) in [(0, 0), (14, 14), (15, 14), (255, 14)] {
            assert_eq!(on_syn(&[WINDOW_SCALE, 3, stated]).window_scale, Some(taken));
        }
    }

    #[test]
    fn an_mss_of_zero_is_none_and_of_two_the_last_counts() {
        assert_eq!(on_syn(&[MSS, 4, 0, 0]).mss, None);
        assert_eq!(on_syn(&[MSS, 4, 0, 1]).mss, Some(1));
        assert_eq!(on_syn(&[MSS, 4, 0, 1, MSS, 4, 0, 2]).mss, Some(2));
    }

    #[test]
    fn what_belongs_on_a_syn_counts_only_there() {
        let bytes = [&MSS_1460[..], &[WINDOW_SCALE, 3, 7, SACK_PERMITTED, 2]].concat();
        assert_eq!(Options::parse(&bytes, false), Options::default());
        let sack = [SACK, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        assert!(on_syn(&sack).sack.is_empty());
        assert_eq!(*Options::parse(&sack, false).sack, [block(1, 2)]);
    }

    #[test]
    fn unaligned_options_are_read() {
        let bytes = [NOP, TIMESTAMPS, 10, 0, 0, 0, 1, 0, 0, 0, 2, NOP, SACK, 10, 0, 0, 0, 3, 0, 0, 0, 4];
        let options = Options::parse(&bytes, false);
        assert_eq!(options.timestamps, Some(Timestamps { value: 1, echo: 2 }));
        assert_eq!(*options.sack, [block(3, 4)]);
    }

    #[test]
    fn sack_options_hold_whole_blocks_only() {
        for len in 0..=40_u8 {
            let mut bytes = vec![0; usize::from(len)];
            if len >= 2 {
                bytes[..2].copy_from_slice(&[SACK, len]);
            }
            let whole = len >= 10 && len % 8 == 2;
            let blocks = if whole { usize::from(len) / 8 } else { 0 };
            assert_eq!(Options::parse(&bytes, false).sack.len(), blocks, "{len}");
        }
    }

    #[test]
    fn a_fifth_block_is_not_taken() {
        let mut blocks = SackBlocks::default();
        for n in 0..4 {
            assert!(blocks.push(block(n, n)));
        }
        assert!(!blocks.push(block(4, 4)));
        assert_eq!(blocks.len(), 4);
    }

    #[test]
    fn a_syn_looks_as_linux_writes_it() {
        let syn = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 0x0102_0304, echo: 0 }),
            sack: SackBlocks::default(),
        };
        let mut bytes = [0xee; 20];
        assert_eq!(syn.encoded_len(), 20);
        syn.write(&mut bytes);
        // As tcpdump shows it of Linux 6: mss 1460,sackOK,TS val 16909060 ecr 0,nop,wscale 7.
        assert_eq!(bytes, [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        let without_timestamps = Options { timestamps: None, ..syn };
        let mut bytes = [0xee; 12];
        without_timestamps.write(&mut bytes);
        // mss 1460,nop,nop,sackOK,nop,wscale 7.
        assert_eq!(bytes, [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]);
    }

    #[test]
    fn beside_timestamps_three_blocks_fit() {
        let mut options = Options::default();
        for n in 0..4 {
            options.sack.push(block(n, n + 1));
        }
        assert_eq!(options.encoded_len(), 36);
        options.timestamps = Some(Timestamps::default());
        assert_eq!(options.encoded_len(), 40);
        let mut bytes = [0; 40];
        options.write(&mut bytes);
        assert_eq!(Options::parse(&bytes, false).sack[..], options.sack[..3]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..=40), syn: bool) {
            let options = Options::parse(&bytes, syn);
            // And what was understood can be said again.
            let mut out = [0; OPTIONS_LEN_MAX];
            options.write(&mut out[..options.encoded_len()]);
            let again = Options::parse(&out[..options.encoded_len()], syn);
            prop_assert_eq!(again.mss, options.mss);
            prop_assert_eq!(again.timestamps, options.timestamps);
            prop_assert_eq!(again.window_scale, options.window_scale);
        }
    }
}
