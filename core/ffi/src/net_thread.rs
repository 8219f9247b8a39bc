//! Who is told what.

use mtproxy_core::policy::net_thread::{AfterReady, Notice, Noticed, after_ready, noticed};

use super::MTPROXY_BAD_ARGUMENT;

/// What the C proxy's event (1 ready, 2 close, 3 alarm, 4 wake-up) leads to: 1 serve those who wait for a connection, 2 tell
/// those who use it, 3 look after it, 4 serve those who wait for room.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_thread_noticed(event: i32) -> i32 {
    match Notice::from_code(event).map(noticed) {
        Some(Noticed::ServeWaiting) => 1,
        Some(Noticed::TellClients) => 2,
        Some(Noticed::LookAfter) => 3,
        Some(Noticed::ServeQueued) => 4,
        None => MTPROXY_BAD_ARGUMENT,
    }
}

/// 0, or -8: the connection is failed, since whoever was told that it is ready has answered with less than zero.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_thread_after_ready(answer: i32) -> i32 {
    match after_ready(answer) {
        AfterReady::Keep => 0,
        AfterReady::Fail => -8,
    }
}
