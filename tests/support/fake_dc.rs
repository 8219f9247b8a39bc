//! A data centre on a real socket.
//!
//! One thread serves any number of connections ([`Server`]); what is said is [`DcCodec`]'s business.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;

use mtproxy_core::dc::DcId;
use mtproxy_core::random::Random;
use mtproxy_core::transport::Transport;

use crate::dc_codec::{DcCodec, DcMode, Ending};
use crate::error::PeerError;
use crate::server::{Conversation, Server};

/// What a data centre saw of one connection, besides what every [`Session`](crate::server::Session) has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DcReport {
    /// The data centre and transport in the init frame, once it has come.
    pub init: Option<(DcId, Transport)>,
    /// Bytes behind the init frame.
    pub payload_len: u64,
}

impl Conversation for DcCodec {
    type Report = DcReport;

    fn receive(&mut self, bytes: &[u8], report: &mut DcReport) -> Result<(), PeerError> {
        let result = Self::receive(self, bytes);
        *report = DcReport { init: self.init(), payload_len: self.payload_len() };
        result
    }

    fn end_of_input(&mut self) {
        Self::end_of_input(self);
    }

    fn has_output(&self) -> bool {
        Self::has_output(self)
    }

    fn fill(&mut self, wire: &mut Vec<u8>, len_min: usize) {
        Self::fill(self, wire, len_min);
    }

    fn take_ending(&mut self) -> Option<Ending> {
        Self::take_ending(self)
    }
}

/// A data centre, until dropped. Everything else it can do is [`Server`]'s.
#[derive(Debug)]
pub struct FakeDc {
    server: Server<DcReport>,
}

impl FakeDc {
    /// A data centre on a free port of `127.0.0.1`.
    #[must_use]
    pub fn start(mode: DcMode) -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), mode)
    }

    /// A data centre on a free port of `::1`.
    #[must_use]
    pub fn start_v6(mode: DcMode) -> Self {
        Self::start_on(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), mode)
    }

    /// A data centre on `address`; port 0 is a free one.
    #[must_use]
    pub fn start_on(address: SocketAddr, mode: DcMode) -> Self {
        let mut connections = 0u64;
        let converse = move |_| {
            connections += 1;
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&connections.to_le_bytes());
            DcCodec::new(mode, Random::from_seed(seed))
        };
        Self { server: Server::start(address, converse) }
    }
}

impl Deref for FakeDc {
    type Target = Server<DcReport>;

    fn deref(&self) -> &Server<DcReport> {
        &self.server
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_codec::ClientOptions;
    use crate::command::{self, Command};
    use crate::framing::{Packet, PacketOptions};
    use crate::server::InputEnd;
    use crate::socket::ReadEnd;
    use crate::test_client::TestClient;
    use sha2::{Digest, Sha256};

    fn client(dc: &FakeDc, transport: Transport) -> TestClient {
        TestClient::connect(dc.address(), ClientOptions::without_proxy(transport, DcId(2)))
    }

    #[test]
    fn a_client_without_a_proxy_is_answered_in_every_transport_and_family() {
        for dc in [FakeDc::start(DcMode::Packets), FakeDc::start_v6(DcMode::Packets)] {
            for transport in [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate] {
                let mut client = client(&dc, transport);
                client.ask_for_pq();
                client.exchange_confirmed_echo(b"to be said twice");
                client.download(1_000_001);
                let seen = dc.sessions().pop().unwrap();
                assert_eq!(seen.report.init, Some((DcId(2), transport)));
            }
        }
    }

    #[test]
    fn bytes_are_echoed_and_counted_and_the_end_is_passed_back() {
        let dc = FakeDc::start(DcMode::EchoBytes);
        let mut client = client(&dc, Transport::Abridged);
        client.exchange_echo(0, 3_000_000, 1 << 20);
        client.exchange_echo(3_000_000, 100, 1);
        client.half_close();
        assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof));
        let session = dc.wait_until("the session's end", |s| s[0].closed).remove(0);
        assert_eq!((session.report.payload_len, session.sent), (3_000_100, 3_000_100));
        assert_eq!(session.input_end, Some(InputEnd::Eof));
    }

    #[test]
    fn commands_close_reset_and_half_close() {
        let dc = FakeDc::start(DcMode::Packets);
        for (command, end) in [(Command::Close, ReadEnd::Eof), (Command::Reset, ReadEnd::Reset)] {
            let mut client = client(&dc, Transport::Intermediate);
            client.send_command(&command);
            assert_eq!(client.read_to_end().1, end);
        }
        let mut client = client(&dc, Transport::Intermediate);
        client.send_command(&Command::HalfClose);
        assert_eq!(client.read_to_end().1, ReadEnd::Eof);
        let body = Command::Sink(vec![1; 5000]).body();
        client.send_packet(&body, PacketOptions::default());
        dc.wait_until("what is sent after the half-close", |s| s[2].report.payload_len > 5000);
        client.reset();
        dc.wait_until("the reset", |s| s[2].input_end == Some(InputEnd::Reset));
    }

    #[test]
    fn sunk_bytes_come_back_as_a_digest() {
        let dc = FakeDc::start(DcMode::Packets);
        let mut client = client(&dc, Transport::PaddedIntermediate);
        client.send_command(&Command::Sink(vec![3; 100_000]));
        client.send_command(&Command::Digest);
        let Packet::Message { body, .. } = client.receive_packet() else { panic!("a quick ack") };
        let sha256 = Sha256::digest(vec![3; 100_000]).into();
        assert_eq!(command::parse_digest(&body), Some((100_000, sha256)));
    }

    #[test]
    fn a_paused_data_centre_reads_nothing_until_it_is_resumed() {
        let dc = FakeDc::start(DcMode::EchoBytes);
        let mut client = client(&dc, Transport::Abridged);
        client.exchange_echo(0, 10, 10);
        dc.pause_reading();
        client.send(&[1; 1000], crate::socket::Pace::WHOLE);
        let (silence, _) = client.socket().listen_for(std::time::Duration::from_millis(50));
        assert!(silence.is_empty());
        dc.resume_reading();
        assert_eq!(client.receive(1000), [1; 1000]);
    }
}
