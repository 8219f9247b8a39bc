//! TCP headers (RFC 9293 section 3.1).

use std::fmt;
use std::ops::{BitOr, Range};

use super::array_at;
use super::checksum::Sum;
use super::options::Options;
use super::packet::Checksums;
use crate::drop_reason::DropReason;
use crate::seq::SeqNumber;

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;

/// A segment as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub remote_port: u16,
    /// Destination port.
    pub local_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK: meaningful only with [`Flags::ACK`].
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, not yet scaled.
    pub window: u16,
    /// Urgent pointer: meaningful only with [`Flags::URG`].
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Where the text lies in the frame.
    pub payload: Range<usize>,
}

impl Segment {
    /// SEG.LEN: octets of sequence space, so that SYN and FIN count one each.
    #[must_use]
    pub fn len(&self) -> u32 {
        let text = u32::try_from(self.payload.len()).expect("IP carries at most 65535 bytes");
        text + u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN))
    }

    /// True if the segment occupies no sequence space: a bare acknowledgement, or a reset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Control bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion was met (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    const NAMES: [(Self, &str); 8] = [
        (Self::SYN, "SYN"),
        (Self::FIN, "FIN"),
        (Self::RST, "RST"),
        (Self::PSH, "PSH"),
        (Self::ACK, "ACK"),
        (Self::URG, "URG"),
        (Self::ECE, "ECE"),
        (Self::CWR, "CWR"),
    ];

    /// True if every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if a bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.into_iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name);
        f.write_str(&names.collect::<Vec<_>>().join("|"))
    }
}

/// Reads the segment that `frame[range]` holds, all of it. `pseudo` is the sum of its pseudo-header.
pub(super) fn parse(
    frame: &[u8],
    range: Range<usize>,
    pseudo: Sum,
    checksums: Checksums,
) -> Result<Segment, DropReason> {
    let bytes = frame.get(range.clone()).ok_or(DropReason::Runt)?;
    let fixed: [u8; HEADER_LEN] = array_at(bytes, 0).ok_or(DropReason::BadTcpHeader)?;
    let header_len = usize::from(fixed[12] >> 4) * 4;
    // The offset first: a header that overruns its packet says nothing, whatever its sum.
    let options = bytes.get(HEADER_LEN..header_len).ok_or(DropReason::BadTcpHeader)?;
    verify(bytes, u16::from_be_bytes([fixed[16], fixed[17]]), pseudo, checksums)?;
    let flags = Flags(fixed[13]);
    Ok(Segment {
        remote_port: u16::from_be_bytes([fixed[0], fixed[1]]),
        local_port: u16::from_be_bytes([fixed[2], fixed[3]]),
        seq: SeqNumber(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
        ack: SeqNumber(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
        flags,
        window: u16::from_be_bytes([fixed[14], fixed[15]]),
        urgent: u16::from_be_bytes([fixed[18], fixed[19]]),
        options: Options::parse(options, flags.contains(Flags::SYN)),
        payload: range.start + header_len..range.end,
    })
}

/// MUST-3. A virtual peer that believes in offload leaves the pseudo-header's sum in the field; such a
/// packet never crossed a real wire, and tells of a misconfiguration rather than of damage.
fn verify(bytes: &[u8], field: u16, pseudo: Sum, checksums: Checksums) -> Result<(), DropReason> {
    if pseudo.bytes(bytes).is_good() {
        return Ok(());
    }
    match (field == pseudo.folded(), checksums) {
        (true, Checksums::TrustPartial) => Ok(()),
        (true, Checksums::Verify) => Err(DropReason::PartialTcpChecksum),
        (false, _) => Err(DropReason::BadTcpChecksum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_by_name() {
        assert_eq!(format!("{:?}", Flags::SYN | Flags::ACK | Flags::ECE), "SYN|ACK|ECE");
        assert_eq!(format!("{:?}", Flags::default()), "");
    }

    #[test]
    fn a_set_contains_all_or_intersects_with_any() {
        let set = Flags::SYN | Flags::ACK;
        assert!(set.contains(Flags::SYN) && !set.contains(Flags::SYN | Flags::FIN));
        assert!(set.intersects(Flags::SYN | Flags::FIN) && !set.intersects(Flags::FIN));
    }
}
