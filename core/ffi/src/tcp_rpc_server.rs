//! The other side of RPC connections.

use mtproxy_core::policy::tcp_rpc_client::Permissions;
use mtproxy_core::policy::tcp_rpc_server::{
    HandshakeRefused, NonceVerdict, PeerNonce, Upgrade, check_handshake, judge_nonce, permissions_of_server,
    upgrade,
};

/// What a server allows, in the C proxy's bits.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_server_permissions(allows_skipping_dh: bool) -> u32 {
    permissions_of_server(allows_skipping_dh).bits()
}

/// What a peer says first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyPeerNonce {
    /// Which cipher it wants.
    pub schema: u32,
    /// It names no secret.
    pub selector_is_zero: bool,
    /// It names ours first.
    pub names_ours_first: bool,
    /// It names ours somewhere.
    pub names_ours: bool,
    /// Its group for Diffie-Hellman is ours.
    pub has_our_group: bool,
    /// How much later its clock is than ours.
    pub clock_skew_seconds: i64,
}

/// 0: clear text, 1: AES, 3: AES and Diffie-Hellman, or the code with which the connection ends.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_server_judge_nonce(nonce: MtproxyPeerNonce, permissions: u32) -> i32 {
    let peer = PeerNonce {
        schema: nonce.schema,
        selector_is_zero: nonce.selector_is_zero,
        names_ours_first: nonce.names_ours_first,
        names_ours: nonce.names_ours,
        has_our_group: nonce.has_our_group,
        clock_skew_seconds: nonce.clock_skew_seconds,
    };
    match judge_nonce(peer, Permissions::from_bits(permissions)) {
        NonceVerdict::Unencrypted => 0,
        NonceVerdict::Encrypted { with_dh: false } => 1,
        NonceVerdict::Encrypted { with_dh: true } => 3,
        NonceVerdict::Refused(why) => why.code(),
    }
}

/// 1 if CRC-32C is used from now on, 0 if not, or the code with which the connection ends.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_server_check_handshake(
    len: usize,
    is_for_us: bool,
    flags: u32,
    allows_crc32c: bool,
) -> i32 {
    let accepted = check_handshake(len, is_for_us, flags, allows_crc32c);
    accepted.map_or_else(HandshakeRefused::code, |accepted| accepted.use_crc32c.into())
}

/// A first word, least byte first: 0 it is a length, 1 the connection speaks HTTP, -1 it ends.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_server_upgrade(first_word: u32, is_first: bool, serves_http: bool) -> i32 {
    match upgrade(first_word.to_le_bytes(), is_first, serves_http) {
        Upgrade::No => 0,
        Upgrade::Http => 1,
        Upgrade::BadLength => -1,
    }
}
