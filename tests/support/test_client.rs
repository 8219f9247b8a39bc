//! A Telegram client on a real socket: [`ClientCodec`] with bounded waits.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mtproxy_core::random::Random;

use crate::client_codec::{ClientCodec, ClientOptions, Progress};
use crate::command::{self, Command};
use crate::dc_codec::quick_ack_token;
use crate::framing::{Packet, PacketOptions, PacketReader, Reader, frame_packet};
use crate::mtproto;
use crate::pattern;
use crate::socket::{Interest, PATIENCE, Pace, Read1, ReadEnd, Socket};

/// Bytes per read.
const BUFFER_LEN: usize = 64 * 1024;

/// The machine's clock, as clients put it into their hello.
///
/// # Panics
/// If the machine believes to be before 1970 or after 2106.
#[must_use]
pub fn unix_seconds() -> u32 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u32::try_from(since_epoch.as_secs()).expect("it is before 2106")
}

/// A generator that no other client of this process has.
#[must_use]
pub fn fresh_random() -> Random {
    static CLIENTS: AtomicU64 = AtomicU64::new(0);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&CLIENTS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    seed[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seed[12..28].copy_from_slice(&since_epoch.as_nanos().to_le_bytes());
    Random::from_seed(seed)
}

/// A connected client.
#[derive(Debug)]
pub struct TestClient {
    socket: Socket,
    codec: ClientCodec,
    /// Decrypted and not yet asked for.
    payload: Vec<u8>,
    packets: PacketReader,
    end: Option<ReadEnd>,
}

impl TestClient {
    /// Connects and completes the handshake, as fast as it goes.
    #[must_use]
    #[track_caller]
    pub fn connect(proxy: SocketAddr, options: ClientOptions) -> Self {
        Self::connect_paced(proxy, options, Pace::WHOLE)
    }

    /// Connects, sending every byte of the handshake at `pace`.
    #[must_use]
    #[track_caller]
    pub fn connect_paced(proxy: SocketAddr, options: ClientOptions, pace: Pace) -> Self {
        Self::open(Socket::connect(proxy), ClientCodec::new(options, fresh_random()), pace)
    }

    /// Completes the handshake of `codec`, which has not opened yet, on `socket`.
    #[must_use]
    #[track_caller]
    pub fn open(socket: Socket, codec: ClientCodec, pace: Pace) -> Self {
        let mut client = Self::adopt(socket, codec);
        let opening = client.codec.opening();
        client.socket.send(&opening, pace);
        client.complete_handshake(pace);
        client
    }

    /// Takes over a connection at any point of its handshake; nothing is sent.
    #[must_use]
    pub fn adopt(socket: Socket, codec: ClientCodec) -> Self {
        let packets = PacketReader::new(codec.transport(), Reader::Client);
        Self { socket, codec, payload: Vec::new(), packets, end: None }
    }

    /// Waits for the server's flight, if there is one to come, and answers it at `pace`.
    #[track_caller]
    pub fn complete_handshake(&mut self, pace: Pace) {
        let deadline = Instant::now() + PATIENCE;
        while !self.codec.is_established() {
            if let Some(progress) = self.read(deadline, "the server's flight") {
                self.socket.send(&progress.to_send, pace);
            }
            assert!(self.end.is_none(), "awaiting the server's flight: found {:?}", self.end);
        }
    }

    /// The codec: what it knows of the handshake.
    #[must_use]
    pub fn codec(&self) -> &ClientCodec {
        &self.codec
    }

    /// The codec, for a client adopted before its opening.
    pub fn codec_mut(&mut self) -> &mut ClientCodec {
        &mut self.codec
    }

    /// Our end's address.
    ///
    /// # Panics
    /// If the kernel does not know it, which a connected socket does not do.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_address()
    }

    /// The connection below.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Sends payload, reading nothing meanwhile.
    #[track_caller]
    pub fn send(&mut self, payload: &[u8], pace: Pace) {
        let wire = self.codec.encode(payload);
        self.socket.send(&wire, pace);
    }

    /// Sends payload, or says why it could not: for a connection that may be ending.
    ///
    /// # Errors
    /// Those of [`Socket::try_send`].
    pub fn try_send(&mut self, payload: &[u8], pace: Pace) -> io::Result<()> {
        let wire = self.codec.encode(payload);
        self.socket.try_send(&wire, pace)
    }

    /// Sends one packet.
    #[track_caller]
    pub fn send_packet(&mut self, body: &[u8], options: PacketOptions<'_>) {
        let mut packet = Vec::new();
        frame_packet(self.codec.transport(), body, options, &mut packet);
        self.send(&packet, Pace::WHOLE);
    }

    /// Sends a command.
    #[track_caller]
    pub fn send_command(&mut self, command: &Command) {
        self.send_packet(&command.body(), PacketOptions::default());
    }

    /// The next `len` bytes of payload.
    #[must_use]
    #[track_caller]
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.payload.len() < len {
            let found = self.payload.len();
            assert!(self.end.is_none(), "awaiting {len} bytes: found {found} and {:?}", self.end);
            self.read(deadline, "payload");
        }
        self.payload.drain(..len).collect()
    }

    /// The next packet or quick ack.
    #[must_use]
    #[track_caller]
    pub fn receive_packet(&mut self) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.packets.push(&std::mem::take(&mut self.payload));
            match self.packets.next_packet() {
                Ok(Some(packet)) => return packet,
                Ok(None) => {}
                Err(error) => panic!("awaiting a packet: {error}"),
            }
            assert!(self.end.is_none(), "awaiting a packet: found {:?}", self.end);
            self.read(deadline, "a packet");
        }
    }

    /// The body of the next packet; `None` if the connection ends first, in whatever way.
    #[must_use]
    #[track_caller]
    pub fn try_receive_body(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.packets.push(&std::mem::take(&mut self.payload));
            match self.packets.next_packet() {
                Ok(Some(Packet::Message { body, .. })) => return Some(body),
                Ok(Some(Packet::QuickAck(token))) => {
                    panic!("awaiting a packet: found the quick ack {token:08x}")
                }
                Ok(None) if self.end.is_some() => return None,
                Ok(None) => drop(self.read(deadline, "a packet, or the end")),
                Err(error) => panic!("awaiting a packet: {error}"),
            }
        }
    }

    /// The body of the next packet.
    #[must_use]
    #[track_caller]
    pub fn receive_body(&mut self) -> Vec<u8> {
        match self.receive_packet() {
            Packet::Message { body, .. } => body,
            Packet::QuickAck(token) => panic!("awaiting a packet: found the quick ack {token:08x}"),
        }
    }

    /// The token of the next quick ack, bit 31 set.
    #[must_use]
    #[track_caller]
    pub fn receive_quick_ack(&mut self) -> u32 {
        match self.receive_packet() {
            Packet::QuickAck(token) => token,
            Packet::Message { body, .. } => {
                panic!("awaiting a quick ack: found a packet of {} bytes", body.len())
            }
        }
    }

    /// Has `payload` echoed and the request for it confirmed at once, and checks both.
    #[track_caller]
    pub fn exchange_confirmed_echo(&mut self, payload: &[u8]) {
        let echo = Command::Echo(payload.to_vec());
        let body = echo.body();
        self.send_packet(&body, PacketOptions { wants_quick_ack: true, padding: &[] });
        assert_eq!(self.receive_quick_ack(), quick_ack_token(&body), "the quick ack confirms this packet");
        assert_eq!(Command::parse(&self.receive_body()), Some(echo), "the echo is this packet");
    }

    /// Asks a data centre in [`DcMode::Packets`](crate::DcMode::Packets) for a `resPQ` and checks it.
    #[track_caller]
    pub fn ask_for_pq(&mut self) {
        let nonce: [u8; 16] = fresh_random().bytes();
        self.send_packet(&mtproto::req_pq_multi(4, &nonce), PacketOptions::default());
        let body = self.receive_body();
        let answered = mtproto::parse_res_pq(&body).map(|(client_nonce, _)| client_nonce);
        assert_eq!(answered, Some(nonce), "the resPQ answers this client's question");
    }

    /// Has a data centre in [`DcMode::Packets`](crate::DcMode::Packets) stream `len` bytes, and checks
    /// each.
    #[track_caller]
    pub fn download(&mut self, len: u64) {
        self.send_command(&Command::Bulk { len });
        self.receive_bulk(len);
    }

    /// Checks each byte of a bulk answer of `len` bytes that has been asked for.
    #[track_caller]
    pub fn receive_bulk(&mut self, len: u64) {
        let mut position = 0;
        while position < len {
            let body = self.receive_body();
            let Some((at, bytes)) = command::parse_bulk(&body, len) else {
                panic!("awaiting the bulk answer from byte {position}: found another packet");
            };
            assert_eq!(at, position, "the packets of the bulk answer are in order");
            assert_eq!(pattern::first_difference(at, bytes), None, "the bulk answer is intact");
            position += bytes.len() as u64;
        }
    }

    /// Sends bytes `position..position + len` of the pattern to a data centre in
    /// [`DcMode::EchoBytes`](crate::DcMode::EchoBytes), `piece_len` per write, while reading them back
    /// and checking each. Nothing of it is kept.
    #[track_caller]
    pub fn exchange_echo(&mut self, position: u64, len: u64, piece_len: usize) {
        let end = position + len;
        let (mut sent, mut checked) = (position, position);
        let mut outgoing = Vec::new();
        let mut written = 0;
        let mut deadline = Instant::now() + PATIENCE;
        while checked < end {
            if written == outgoing.len() && sent < end {
                let piece_len = usize::try_from(end - sent).map_or(piece_len, |left| left.min(piece_len));
                outgoing = self.codec.encode(&pattern::bytes(sent, piece_len));
                sent += piece_len as u64;
                written = 0;
            }
            let wrote = match self.socket.write_some(&outgoing[written..]) {
                Ok(count) => count,
                Err(error) => panic!("sending byte {sent}, echoed up to {checked}: {error}"),
            };
            written += wrote;
            let read = self.read_now().is_some();
            let echoed = std::mem::take(&mut self.payload);
            assert_eq!(pattern::first_difference(checked, &echoed), None, "the echo is intact");
            checked += echoed.len() as u64;
            assert!(checked <= end, "{} bytes more than were sent came back", checked - end);
            assert!(checked == end || self.end.is_none(), "echoed up to {checked}: {:?}", self.end);
            if wrote > 0 || read {
                deadline = Instant::now() + PATIENCE;
                continue;
            }
            let interest = if written < outgoing.len() { Interest::Both } else { Interest::Read };
            let is_ready = self.socket.is_ready(interest, deadline);
            assert!(is_ready, "nothing moved: sent up to {sent}, echoed up to {checked} of {end}");
        }
    }

    /// True if something comes from the proxy within `duration`, or has come: payload or an end.
    #[must_use]
    #[track_caller]
    pub fn hears_within(&mut self, duration: Duration) -> bool {
        let is_ready = self.socket.is_ready(Interest::Read, Instant::now() + duration);
        if is_ready {
            self.read_now();
        }
        !self.payload.is_empty() || self.end.is_some()
    }

    /// True as long as no end has been read.
    #[must_use]
    pub fn has_not_ended(&self) -> bool {
        self.end.is_none()
    }

    /// Sends FIN; reading goes on.
    pub fn half_close(&mut self) {
        self.socket.half_close();
    }

    /// Sends RST.
    pub fn reset(self) {
        self.socket.reset();
    }

    /// All payload up to the end of the connection.
    #[must_use]
    #[track_caller]
    pub fn read_to_end(&mut self) -> (Vec<u8>, ReadEnd) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.end {
                let records = self.codec.records();
                let is_cut = end == ReadEnd::Eof && records.is_some_and(|r| !r.is_between_records());
                assert!(!is_cut, "the last TLS record is complete when the proxy closes");
                return (std::mem::take(&mut self.payload), end);
            }
            self.read(deadline, "the end of the connection");
        }
    }

    /// Reads once, waiting if there is nothing. `None` if the connection has ended.
    #[track_caller]
    fn read(&mut self, deadline: Instant, awaited: &str) -> Option<Progress> {
        loop {
            if let Some(progress) = self.read_now() {
                return Some(progress);
            }
            if self.end.is_some() {
                return None;
            }
            let found = self.payload.len() + self.packets.buffered_len();
            let is_ready = self.socket.is_ready(Interest::Read, deadline);
            assert!(is_ready, "awaiting {awaited} in vain; {found} bytes had come");
        }
    }

    /// Reads what is there; its payload is kept. `None` if there is nothing.
    #[track_caller]
    fn read_now(&mut self) -> Option<Progress> {
        let mut buffer = vec![0; BUFFER_LEN];
        match self.socket.read_some(&mut buffer) {
            Read1::WouldBlock => None,
            Read1::End(end) => {
                self.end = Some(end);
                None
            }
            Read1::Bytes(count) => match self.codec.receive(&buffer[..count]) {
                Ok(mut progress) => {
                    self.payload.append(&mut progress.payload);
                    Some(progress)
                }
                Err(error) => panic!("the proxy broke the protocol: {error}"),
            },
        }
    }
}
