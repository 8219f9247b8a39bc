//! TCP-lite: what a relay at the Internet's edge needs of TCP, pure: segments and time in, segments and
//! ordered bytes out.
//!
//! There is no I/O, clock, thread or `unsafe` in this crate, and nothing here knows MTProto.
//!
//! Read first: RFC 9293 (above all section 3.10), then [`link`] (what the stack stands on), [`stack`] (how it is
//! driven) and docs/tcp.md (what it does, does otherwise and leaves out).
//!
//! Two stacks, and a wire that is a loop:
//! ```
//! use mtproxy_tcp::memory_link::MemoryLink;
//! use mtproxy_tcp::time::Instant;
//! use mtproxy_tcp::{Event, Secrets, Settings, Stack};
//!
//! let now = Instant::default();
//! let stack = |seed| Stack::<MemoryLink>::new(Settings::default(), Secrets::from_seed([seed; 32]), now);
//! let (mut client, mut server) = (stack(1), stack(2));
//! let (mut from_client, mut from_server) = (MemoryLink::new(64, 2048), MemoryLink::new(64, 2048));
//! let (here, there) = ("192.0.2.1:50000".parse()?, "192.0.2.2:443".parse()?);
//!
//! server.listen(there);
//! let id = client.connect(now, here, there, &mut from_client).expect("there is a route");
//! client.send(id, b"hello", &mut from_client);
//! while client.wants_transmit() || server.wants_transmit() {
//!     client.transmit(now, &mut from_client);
//!     while let Some(packet) = from_client.take_sent() {
//!         let (frame, range) = from_server.received(&packet).expect("frames are free");
//!         assert!(server.receive(now, frame, range, &mut from_server).is_none());
//!     }
//!     server.transmit(now, &mut from_server);
//!     while let Some(packet) = from_server.take_sent() {
//!         let (frame, range) = from_client.received(&packet).expect("frames are free");
//!         assert!(client.receive(now, frame, range, &mut from_client).is_none());
//!     }
//! }
//! let Some(Event::Accepted(peer, _)) = server.next_event() else { panic!("nobody was accepted") };
//! assert_eq!(server.next_event(), Some(Event::Readable(peer)));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
#![forbid(unsafe_code)]

mod answer_limit;
pub mod congestion;
mod connection;
mod connections;
pub mod cookie;
pub mod counters;
mod demultiplex;
pub mod drop_reason;
pub mod event;
pub mod flow_table;
pub mod four_tuple;
mod icmp_arrives;
pub mod link;
mod listen;
pub mod memory_link;
mod output;
mod pressure;
mod queues;
mod receive_queue;
mod receive_window;
mod recovery;
pub mod rto;
pub mod secrets;
mod segment_acknowledges;
mod segment_arrives;
mod send_queue;
pub mod seq;
pub mod settings;
mod shed;
pub mod stack;
mod syn_sent;
pub mod tcb;
mod text_arrives;
pub mod time;
pub mod time_wait;
mod timeouts;
#[cfg(test)]
mod traces;
mod tuple_bytes;
mod user_calls;
pub mod wheel;
pub mod wire;

pub use connections::ConnectionId;
pub use event::{ConnectError, ConnectFailure, Event, Read, ResetReason, Standing};
pub use secrets::Secrets;
pub use settings::Settings;
pub use stack::{Info, Stack, Unknown};
