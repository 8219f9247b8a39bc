//! What everybody has said, and what has come of it at the other end.
//!
//! Payload is a function of who speaks, to whom, and position: a byte lost, doubled, exchanged or brought
//! to somebody else is found where it arrives. What strangers say is kept and compared.

use mtproxy_tests::pattern;

use crate::violation::{Checker, Violation, violation};

/// One direction of one client's conversation.
#[derive(Default)]
pub(crate) struct Track {
    base: u64,
    /// Payload handed to the speaker's codec.
    pub(crate) said: usize,
    /// Payload that the listener has decoded.
    pub(crate) heard: usize,
    /// Ends of pieces, in bytes on the speaker's wire and in payload.
    marks: Vec<(usize, usize)>,
}

impl Track {
    /// The next `len` bytes to say.
    pub(crate) fn say(&mut self, len: usize) -> Vec<u8> {
        let bytes = pattern::bytes(self.base + self.said as u64, len);
        self.said += len;
        bytes
    }

    /// All payload so far is within the first `wire_len` bytes of the speaker's wire.
    pub(crate) fn mark(&mut self, wire_len: usize) {
        self.marks.push((wire_len, self.said));
    }

    /// How much payload is certainly within the first `wire_len` bytes of the wire.
    pub(crate) fn payload_within(&self, wire_len: usize) -> usize {
        let within = self.marks.iter().take_while(|(end, _)| *end <= wire_len);
        within.last().map_or(0, |(_, payload_end)| *payload_end)
    }

    pub(crate) fn hear(&mut self, bytes: &[u8], who: &str) -> Result<(), Violation> {
        let position = self.base + self.heard as u64;
        if let Some(at) = pattern::first_difference(position, bytes) {
            let at = at - self.base;
            return violation(Checker::Content, format!("{who} heard a wrong byte at {at} of its payload"));
        }
        self.heard += bytes.len();
        if self.heard > self.said {
            return violation(Checker::Content, format!("{who} heard more than was said"));
        }
        Ok(())
    }
}

/// One client's conversation.
#[derive(Default)]
pub(crate) struct Account {
    /// Every byte that the client has put on its wire.
    pub(crate) client_wire: Vec<u8>,
    /// How many of them were its opening.
    pub(crate) opening_len: usize,
    /// Bytes that the upstream has put on its wire.
    pub(crate) upstream_wire_len: usize,
    pub(crate) to_upstream: Track,
    pub(crate) to_client: Track,
    /// Bytes of `client_wire` that the front has heard.
    pub(crate) front_heard: usize,
}

impl Account {
    pub(crate) fn of_client(client: usize) -> Self {
        let track =
            |direction: u64| Track { base: (2 * client as u64 + direction) << 32, ..Track::default() };
        Self { to_upstream: track(0), to_client: track(1), ..Self::default() }
    }

    /// The front hears bytes exactly as the client put them on its wire.
    pub(crate) fn front_hears(&mut self, bytes: &[u8], who: &str) -> Result<(), Violation> {
        let expected = self.client_wire.get(self.front_heard..self.front_heard + bytes.len());
        if expected != Some(bytes) {
            let at = self.front_heard;
            return violation(Checker::Content, format!("{who} heard other bytes than were sent, from {at}"));
        }
        self.front_heard += bytes.len();
        Ok(())
    }
}
