//! Links toward middle proxies.

use std::time::Duration;

use mtproxy_core::policy::tcp_rpc_client::{
    HandshakeAnswer, HandshakeRefusal, Liveness, LivenessInput, NoPermission, NonceAnswer, NonceRefusal,
    NonceSent, Permissions, Progress, Readiness, StartOfCrypto, check_handshake, check_nonce, liveness,
    permissions_of, readiness, start_of_crypto,
};

/// The bits of `asked` that hold, or -1 if neither a cipher nor clear text is among them.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_permissions(asked: u32) -> i32 {
    permissions_of(asked).map_or_else(NoPermission::code, |kept| kept.bits().cast_signed())
}

/// The schema of the nonce that a link begins with: 0 for one of zeros; -1: it does not begin.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_start(permissions: u32) -> i32 {
    match start_of_crypto(Permissions::from_bits(permissions)) {
        StartOfCrypto::SendNonce { schema } => schema.cast_signed(),
        StartOfCrypto::FakeCrypto => 0,
        StartOfCrypto::Refuse => -1,
    }
}

/// A nonce of the peer beside our own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyNonce {
    /// First four bytes of our secret.
    pub our_selector: [u8; 4],
    /// Our clock in Unix seconds.
    pub our_time: i32,
    /// What the peer says for them.
    pub selector: [u8; 4],
    /// Its clock.
    pub time: i32,
    /// Its schema.
    pub schema: u32,
}

/// 0, or the code with which the link ends.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_check_nonce(nonce: MtproxyNonce) -> i32 {
    let answer = NonceAnswer { selector: nonce.selector, schema: nonce.schema, unix: nonce.time };
    let sent = NonceSent { selector: nonce.our_selector, unix: nonce.our_time };
    check_nonce(&answer, &sent).map_or_else(NonceRefusal::code, |()| 0)
}

/// 1 if CRC-32C is used from now on, 0 if not, or the code with which the link ends.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_check_handshake(is_for_us: bool, flags: u32, our_flags: u32) -> i32 {
    let accepted = check_handshake(&HandshakeAnswer { is_for_us, flags }, our_flags);
    accepted.map_or_else(HandshakeRefusal::code, |accepted| accepted.use_crc32c.into())
}

/// How a connection stands that is being set up (`working` false) since `since_ms`: 0 not yet, 1 ready, or the code with
/// which it has failed.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_readiness(working: bool, since_ms: u64) -> i32 {
    let progress =
        if working { Progress::Working } else { Progress::Beginning(Duration::from_millis(since_ms)) };
    match readiness(progress) {
        Readiness::NotYet | Readiness::Busy | Readiness::Stopped => 0,
        Readiness::Ok => 1,
        Readiness::Failed(code) => code,
    }
}

/// A ready link.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyLink {
    /// Since the last byte from the peer.
    pub since_received_ms: u64,
    /// Since our ping; negative: none is out.
    pub since_ping_ms: i64,
    /// The peer has answered one before.
    pub has_ponged: bool,
    /// A client waits for an answer.
    pub has_unanswered: bool,
    /// Silence after which we ask.
    pub ping_after_ms: u64,
    /// Silence after that which is the end.
    pub stalled_after_ms: u64,
}

/// 0: nothing to do, 1: ask, -1: give it up.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_tcp_rpc_client_liveness(link: MtproxyLink) -> i32 {
    let input = LivenessInput {
        since_received: Duration::from_millis(link.since_received_ms),
        since_ping: u64::try_from(link.since_ping_ms).ok().map(Duration::from_millis),
        has_ponged: link.has_ponged,
        has_unanswered: link.has_unanswered,
        ping_after: Duration::from_millis(link.ping_after_ms),
        stalled_after: Duration::from_millis(link.stalled_after_ms),
    };
    match liveness(input) {
        Liveness::Alive => 0,
        Liveness::Ping => 1,
        Liveness::Stalled => -1,
    }
}
