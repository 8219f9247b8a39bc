//! The handshake of a link, encrypted: who both sides are, and which checksum frames have from then on (protocol.md
//! section 7.4).
//!
//! ```text
//!  0       4        8                 20                32
//!  ├ op ───┼ flags ─┼ sender ─────────┼ peer ───────────┤    a process: ip ‖ port ‖ pid ‖ start time
//!  ├ op ───┼ code ──┼ sender ─────────┤                      instead, from a peer that refuses
//! ```

/// RPC_HANDSHAKE.
const OP: u32 = 0x7682_eef5;
/// A handshake that is refused.
const ERROR_OP: u32 = 0x6a27_beda;

/// Flag: frames may have CRC-32C.
pub const CAN_CRC32C: u32 = 0x800;

/// A process as RPC names it. Zero stands for anything, where one is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessId {
    /// Its IPv4 address as a number; zero for loopback and IPv6.
    pub ip: u32,
    /// Its port.
    pub port: u16,
    /// The low half of its process number.
    pub pid: u16,
    /// When it was started, in Unix seconds.
    pub start_unix: u32,
}

/// Bytes of a process on the wire.
const PROCESS_LEN: usize = 12;

impl ProcessId {
    /// `u32 ip ‖ u16 port ‖ u16 pid ‖ u32 start`, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PROCESS_LEN] {
        let mut bytes = [0; PROCESS_LEN];
        bytes[..4].copy_from_slice(&self.ip.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.port.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..].copy_from_slice(&self.start_unix.to_le_bytes());
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; PROCESS_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            ip: u32::from_le_bytes([a, b, c, d]),
            port: u16::from_le_bytes([e, f]),
            pid: u16::from_le_bytes([g, h]),
            start_unix: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// True if this process is one that `pattern` means.
    #[must_use]
    pub fn matches(&self, pattern: &Self) -> bool {
        (pattern.ip == 0 || pattern.ip == self.ip)
            && (pattern.port == 0 || pattern.port == self.port)
            && (pattern.pid == 0 || pattern.pid == self.pid)
            && (pattern.start_unix == 0 || pattern.start_unix == self.start_unix)
    }
}

/// What both sides say second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeMessage {
    /// [`CAN_CRC32C`]; the low byte must be zero.
    pub flags: u32,
    /// Who speaks.
    pub sender: ProcessId,
    /// Who is spoken to.
    pub peer: ProcessId,
}

/// Why a payload is no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeParseError {
    /// Another operation.
    Op(u32),
    /// This many bytes.
    Length(usize),
}

impl HandshakeMessage {
    const LEN: usize = 8 + 2 * PROCESS_LEN;

    /// As it is sent.
    #[must_use]
    pub fn payload(&self) -> [u8; Self::LEN] {
        let mut payload = [0; Self::LEN];
        payload[..4].copy_from_slice(&OP.to_le_bytes());
        payload[4..8].copy_from_slice(&self.flags.to_le_bytes());
        payload[8..20].copy_from_slice(&self.sender.to_bytes());
        payload[20..].copy_from_slice(&self.peer.to_bytes());
        payload
    }

    /// Reads what a peer says.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeParseError> {
        let payload: &[u8; Self::LEN] =
            payload.try_into().map_err(|_| HandshakeParseError::Length(payload.len()))?;
        let op = word(payload, 0);
        if op != OP {
            return Err(HandshakeParseError::Op(op));
        }
        Ok(Self { flags: word(payload, 4), sender: process(payload, 8), peer: process(payload, 20) })
    }
}

/// What a peer says that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeError {
    /// -3 length, -4 we are not who it expected, -6 it is not whom we meant, -7 flags, -8 CRC-32C.
    pub code: i32,
    /// Who refuses.
    pub sender: ProcessId,
}

impl HandshakeError {
    const LEN: usize = 8 + PROCESS_LEN;

    /// As it is sent.
    #[must_use]
    pub fn payload(&self) -> [u8; Self::LEN] {
        let mut payload = [0; Self::LEN];
        payload[..4].copy_from_slice(&ERROR_OP.to_le_bytes());
        payload[4..8].copy_from_slice(&self.code.to_le_bytes());
        payload[8..].copy_from_slice(&self.sender.to_bytes());
        payload
    }

    /// Reads what a peer says; `None` if it is something else.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; Self::LEN] = payload.try_into().ok()?;
        let code = i32::from_le_bytes(word(payload, 4).to_le_bytes());
        (word(payload, 0) == ERROR_OP).then(|| Self { code, sender: process(payload, 8) })
    }
}

fn word(payload: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]])
}

fn process(payload: &[u8], at: usize) -> ProcessId {
    let mut bytes = [0; PROCESS_LEN];
    bytes.copy_from_slice(&payload[at..at + PROCESS_LEN]);
    ProcessId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_known_handshake_is_composed_and_read() {
        // protocol.md section 7.4, observed of the official proxy.
        let message = HandshakeMessage {
            flags: CAN_CRC32C,
            sender: ProcessId { ip: 0xc000_0202, port: 0x49c8, pid: 0x236d, start_unix: 0x6b03_c41c },
            peer: ProcessId { ip: 0, port: 0x4a3a, pid: 0, start_unix: 0 },
        };
        let expected = "f5ee827600080000020200c0c8496d231cc4036b000000003a4a000000000000";
        assert_eq!(data_encoding::HEXLOWER.encode(&message.payload()), expected);
        assert_eq!(HandshakeMessage::parse(&message.payload()), Ok(message));
    }

    #[test]
    fn zero_stands_for_anything_and_everything_else_for_itself() {
        let process = ProcessId { ip: 1, port: 2, pid: 3, start_unix: 4 };
        assert!(process.matches(&ProcessId::default()) && process.matches(&process));
        for other in [
            ProcessId { ip: 9, ..process },
            ProcessId { port: 9, ..process },
            ProcessId { pid: 9, ..process },
            ProcessId { start_unix: 9, ..process },
        ] {
            assert!(!process.matches(&other), "{other:?}");
        }
    }

    #[test]
    fn a_refusal_is_read_with_its_code() {
        let refusal = HandshakeError { code: -4, sender: ProcessId { port: 5, ..ProcessId::default() } };
        assert_eq!(HandshakeError::parse(&refusal.payload()), Some(refusal));
        assert_eq!(HandshakeMessage::parse(&refusal.payload()), Err(HandshakeParseError::Length(20)));
        let mut other = refusal.payload();
        other[0] ^= 1;
        assert_eq!(HandshakeError::parse(&other), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(payload: Vec<u8>) {
            let _ = (HandshakeMessage::parse(&payload), HandshakeError::parse(&payload));
        }

        #[test]
        fn a_process_is_read_as_it_was_written(bytes: [u8; 12]) {
            prop_assert_eq!(ProcessId::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}
