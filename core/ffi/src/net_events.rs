//! Readiness and waiting.

use std::time::Duration;

use mtproxy_core::policy::net_events::{
    IdleDecay, Interest, Registration, from_epoll, registration, to_epoll, wait_for,
};

use super::answer;

/// What to hear of a descriptor, as flags of epoll.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_events_to_epoll(read: bool, write: bool, special: bool, level: bool) -> u32 {
    to_epoll(Interest { read, write, special, level })
}

/// What flags of epoll mean.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyReported {
    /// Reading is worth a try.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// A short read does not mean that nothing is left.
    pub more_behind: bool,
    /// The connection has failed.
    pub failed: bool,
    /// Nothing more will come or go.
    pub hung_up: bool,
}

/// What flags of epoll mean.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_events_from_epoll(flags: u32) -> MtproxyReported {
    let reported = from_epoll(flags);
    MtproxyReported {
        readable: reported.readable,
        writable: reported.writable,
        more_behind: reported.more_behind,
        failed: reported.failed,
        hung_up: reported.hung_up,
    }
}

/// What to do with a registration: 0 nothing, 1 add, 2 modify, 3 remove.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_events_registration(is_registered: bool, registered: u32, wanted: u32) -> i32 {
    match registration(is_registered.then_some(registered), wanted) {
        Registration::Keep => 0,
        Registration::Add => 1,
        Registration::Modify => 2,
        Registration::Remove => 3,
    }
}

/// How long to sleep, in milliseconds, rounded up; -1 for ever. `next_due_ms` is negative if nothing waits for time.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_events_wait(next_due_ms: i64) -> i64 {
    let next_due = u64::try_from(next_due_ms).ok().map(Duration::from_millis);
    let timeout = wait_for(next_due).timeout();
    timeout.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// The share of time that was slept, of a loop with turns of `turn_ms` of which `idle_ms` are slept, `turns` of them:
/// writes the recent percentage to `percent`.
///
/// # Safety
/// `percent` is null, or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mtproxy_net_events_idle_percent(
    turns: u32,
    turn_ms: u64,
    idle_ms: u64,
    percent: *mut f64,
) -> i32 {
    let mut decay = IdleDecay::default();
    for _ in 0..turns {
        decay.turned(Duration::from_millis(turn_ms), Duration::from_millis(idle_ms));
    }
    // SAFETY: by this function's own contract.
    unsafe { answer(percent, decay.recent_idle_percent()) }
}
