//! Fake TLS: an MTProto stream that looks like TLS 1.3 (protocol.md section 6).
//!
//! The client's hello carries an HMAC under the secret where a browser has randomness. Ours is answered
//! with a flight that looks like the real site's; everybody else is connected to the real site. After
//! that, both directions are application-data records around the obfuscated2 stream.
//!
//! There is no TLS here: nothing in this module encrypts, and no certificate exists.

mod client_hello;
mod key_share;
mod reassembly;
mod record;
mod server_hello;

pub use client_hello::{ClientHello, awaits_name, greeted_name};
pub(crate) use key_share::KeyShares;
pub use reassembly::{HelloProgress, HelloReassembly, MESSAGE_LEN_MAX, RECEIVED_LEN_MAX};
pub use record::{CHANGE_CIPHER_SPEC, RECORD_HEADER_LEN, RecordReader, RecordWriter};
pub(crate) use server_hello::append_server_flight;
