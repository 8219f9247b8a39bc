//! Relays come about here as they do on the wire: handshakes of TCP and of MTProto, and a dial.

use std::time::Duration;

use mtproxy_tcp::wire::Flags;

use super::peers::{End, Side};
use super::{Burst, Scene, record_header};
use crate::rig::{self, Mode};

/// Clients that connect side by side.
const SIDE_BY_SIDE: u32 = 128;

/// What a turn takes meanwhile. Short, so that a million relays are there before the first of them is idle.
const TURN: Duration = Duration::from_micros(100);

/// Segments that each end sends, so that the first of a connection, which TCP acknowledges at once, are over.
const FIRST_SEGMENTS: usize = 17;

/// Text of a client's flight in one packet.
const SEGMENT_BYTES: usize = 1400;

impl Scene {
    /// Clients connect until there are `relays` relays, all of them quiet.
    ///
    /// # Panics
    /// If a relay does not come about.
    pub fn establish(&mut self, relays: u32) {
        while self.established < relays {
            let first = self.established;
            let last = relays.min(first + SIDE_BY_SIDE);
            self.establish_some(first, last);
            self.established = last;
        }
        self.quiesce();
        assert_eq!(self.engine.session_count(), relays as usize);
    }

    fn establish_some(&mut self, first: u32, last: u32) {
        let mut burst = Burst::new();
        for relay in first..last {
            self.say((Side::Client, relay), Flags::SYN, 0, &mut burst, |_| {});
        }
        self.exchange(&mut burst);
        // Dials leave in the order of what made them necessary, and so do their source ports.
        for relay in first..last {
            self.say_all((Side::Client, relay), &self.opening(relay), &mut burst);
        }
        self.exchange(&mut burst);
        if let Mode::Ee(_) = self.mode {
            for relay in first..last {
                let flight = rig::inner_init_frame(0, u64::from(relay));
                self.say_all((Side::Client, relay), &flight, &mut burst);
            }
            self.exchange(&mut burst);
        }
        while self.owing() > 0 {
            self.acknowledge(&mut burst);
            self.exchange(&mut burst);
        }
        self.send_first_segments(first, last);
    }

    fn opening(&self, relay: u32) -> Vec<u8> {
        rig::client(self.mode, 0, u64::from(relay)).opening()
    }

    fn say_all(&mut self, end: End, bytes: &[u8], burst: &mut Burst) {
        for part in bytes.chunks(SEGMENT_BYTES) {
            self.say(end, Flags::ACK | Flags::PSH, part.len(), burst, |text| text.copy_from_slice(part));
        }
    }

    /// A turn, and more while texts are left for the next one; SYN and SYN-ACK are answered at once.
    fn exchange(&mut self, burst: &mut Burst) {
        loop {
            self.pass(TURN);
            self.turn(burst);
            self.hear();
            if self.greeted.is_empty() && !self.relay.is_busy() {
                return;
            }
            while let Some(end) = self.greeted.pop() {
                let flags = match end.0 {
                    Side::Client => Flags::ACK,
                    Side::DataCentre => Flags::SYN | Flags::ACK,
                };
                self.say(end, flags, 0, burst, |_| {});
            }
        }
    }

    /// One message each way, a byte at a time.
    fn send_first_segments(&mut self, first: u32, last: u32) {
        let mut message = [0; FIRST_SEGMENTS];
        let mut burst = Burst::new();
        for side in [Side::Client, Side::DataCentre] {
            if let (Mode::Ee(_), Side::Client) = (self.mode, side) {
                let header = record_header(FIRST_SEGMENTS - super::RECORD_HEADER_BYTES);
                message[..header.len()].copy_from_slice(&header);
            }
            for relay in first..last {
                for byte in message {
                    self.say((side, relay), Flags::ACK, 1, &mut burst, |text| text[0] = byte);
                }
            }
            self.exchange(&mut burst);
            self.acknowledge(&mut burst);
            self.exchange(&mut burst);
        }
    }

    /// Lets acknowledgements that were delayed go out, and their timers with them.
    fn quiesce(&mut self) {
        let mut burst = Burst::new();
        self.pass(Duration::from_millis(50));
        self.exchange(&mut burst);
        assert_eq!(self.owing(), 0, "nothing is under way any more");
        assert_eq!(self.relay.streams().stack.frames_held(), 0, "and nothing is queued");
    }
}
