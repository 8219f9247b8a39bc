//! Packets between clients and middle proxies.

use std::time::Duration;

use mtproxy_core::policy::forwarding::{
    Admission, ClientFate, LostLink, Mapping, MappingState, Reaction, Said, admit, mapping, on_link_lost,
    react, takes_answer,
};
use mtproxy_core::transport::packet::classify;

use super::{MTPROXY_BAD_ARGUMENT, MTPROXY_NULL_POINTER};

/// What becomes of a client's packet: 0 it is passed over, 1 forwarded as encrypted, 2 forwarded as belonging to the
/// handshake, 3 answered with a pong.
///
/// # Safety
/// `packet` is null, or `len` bytes that nobody writes to meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mtproxy_forwarding_admit(packet: *const u8, len: usize) -> i32 {
    if packet.is_null() {
        return MTPROXY_NULL_POINTER;
    }
    // SAFETY: it is not null (above), and as long as this function's own contract says.
    let packet = unsafe { std::slice::from_raw_parts(packet, len) };
    match admit(classify(packet)) {
        Admission::Ignore => 0,
        Admission::Forward { is_unencrypted: false } => 1,
        Admission::Forward { is_unencrypted: true } => 2,
        Admission::Pong(_) => 3,
    }
}

/// What a client's next packet does whose link (0 lives, 1 is lost, 2 was never there): 0 it goes by the same, 1 by a new
/// one, 2 it waits.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_forwarding_mapping(state: i32, has_ready_link: bool) -> i32 {
    let state = match state {
        0 => MappingState::Alive,
        1 => MappingState::Lost,
        2 => MappingState::None,
        _ => return MTPROXY_BAD_ARGUMENT,
    };
    match mapping(state, has_ready_link) {
        Mapping::Reuse => 0,
        Mapping::Create => 1,
        Mapping::Wait => 2,
    }
}

/// What a middle proxy's word (0 answer, 1 acknowledgement, 2 close) leads to: 0 nothing, 1 it is delivered, 2 refused.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_forwarding_react(said: i32, is_its_client: bool) -> i32 {
    let said = match said {
        0 => Said::Answer,
        1 => Said::Acknowledgement,
        2 => Said::Close,
        _ => return MTPROXY_BAD_ARGUMENT,
    };
    match react(said, is_its_client) {
        Reaction::Ignore => 0,
        Reaction::Deliver => 1,
        Reaction::Refuse => 2,
    }
}

/// True if an answer is queued for a client.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_forwarding_takes_answer(queued: usize, answer: usize, limit: usize) -> bool {
    takes_answer(queued, answer, limit)
}

/// What becomes of a client whose link is lost: 0 it stays, or the code with which it is closed. `since_forwarded_ms` is
/// negative if none of its packets went by it.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_forwarding_on_link_lost(since_forwarded_ms: i64, is_answered: bool) -> i32 {
    let since_forwarded = u64::try_from(since_forwarded_ms).ok().map(Duration::from_millis);
    match on_link_lost(LostLink { since_forwarded, is_answered }) {
        ClientFate::Keep => 0,
        ClientFate::Close(why) => why.code(),
    }
}
