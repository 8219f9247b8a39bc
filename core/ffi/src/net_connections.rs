//! Connections, targets and pools.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mtproxy_core::policy::net_connections::connection::{
    Accept, Dispatch, JobState, Signal, accept, dispatch,
};
use mtproxy_core::policy::net_connections::pool::{Backoff, Counts, Pick, connections_needed, pick_basic};
use mtproxy_core::policy::net_connections::target::{
    Free, Looked, Lookup, RetiredLink, TargetFamily, TargetId, Tick, c_table_slot, create, free, looked,
    retired_link, tick,
};
use mtproxy_core::policy::tcp_rpc_client::Readiness;

use super::{MTPROXY_BAD_ARGUMENT, answer};

/// A connection's job when a signal comes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyJob {
    /// It has failed.
    pub has_error: bool,
    /// Closing has run.
    pub has_closed: bool,
    /// Its connect has succeeded, and nobody was told.
    pub is_ready_pending: bool,
    /// Its timer was armed anew meanwhile.
    pub is_timer_stale: bool,
}

/// What a signal of the C proxy (0 run, 1 aux, 4 alarm, 5 abort, 7 finish) does: 0 nothing, 1 tell that it is connected and
/// read and write, 2 read and write, 3 tell that its time is over, 4 close, 5 end, 6 free, -1 an error.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_dispatch(signal: i32, job: MtproxyJob) -> i32 {
    let signal = match signal {
        0 => Signal::Run,
        1 => Signal::Aux,
        4 => Signal::Alarm,
        5 => Signal::Abort,
        7 => Signal::Finish,
        _ => return MTPROXY_BAD_ARGUMENT,
    };
    let job = JobState {
        has_error: job.has_error,
        has_closed: job.has_closed,
        is_ready_pending: job.is_ready_pending,
        is_timer_stale: job.is_timer_stale,
    };
    match dispatch(signal, job) {
        Dispatch::Nothing => 0,
        Dispatch::Connected => 1,
        Dispatch::ReadWrite => 2,
        Dispatch::Alarm => 3,
        Dispatch::Close => 4,
        Dispatch::End => 5,
        Dispatch::Free => 6,
        Dispatch::Error => -1,
    }
}

/// Whether somebody is accepted: 0 let wait, 1 take, 2 take and close.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_accept(clients: usize, clients_max: usize, has_token: bool) -> i32 {
    match accept(clients, clients_max, has_token) {
        Accept::LetWait => 0,
        Accept::Take => 1,
        Accept::Turn => 2,
    }
}

/// A target's address: `is_v6` says which of the two counts. IPv4 in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MtproxyTarget {
    /// The number of its connection type.
    pub kind: u64,
    /// It has an IPv6 address.
    pub is_v6: bool,
    /// IPv4 address.
    pub ipv4: [u8; 4],
    /// IPv6 address.
    pub ipv6: [u8; 16],
    /// Port.
    pub port: u16,
}

impl MtproxyTarget {
    fn id(&self) -> TargetId {
        let ip = if self.is_v6 { Ipv6Addr::from(self.ipv6).into() } else { Ipv4Addr::from(self.ipv4).into() };
        TargetId::of(SocketAddr::new(ip, self.port))
    }
}

/// The slot of a target in the C proxy's table.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_slot(target: MtproxyTarget) -> u64 {
    c_table_slot(target.kind, target.id())
}

/// By which family a target is kept: 4 or 6.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_family(target: MtproxyTarget) -> i32 {
    match target.id().family() {
        TargetFamily::V4 => 4,
        TargetFamily::V6 => 6,
    }
}

/// What a look into the table (0 look up, 1 insert, -1 delete) leads to: 0 none, 1 found, 2 link, 3 unlink, -1 broken.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_lookup(mode: i32, is_there: bool) -> i32 {
    let lookup = match mode {
        0 => Lookup::Find,
        1 => Lookup::Insert,
        -1 => Lookup::Delete,
        _ => return MTPROXY_BAD_ARGUMENT,
    };
    match looked(lookup, is_there) {
        Looked::Missing => 0,
        Looked::Found => 1,
        Looked::Link => 2,
        Looked::Unlink => 3,
        Looked::Broken => -1,
    }
}

/// 0 used again, 1 allocated, 2 revived. `named_by` is negative if there is no such target.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_create(named_by: i64) -> i32 {
    create(usize::try_from(named_by).ok()).code()
}

/// 0 fill its pool, 1 close what is left of it, 2 forget it.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_tick(is_named: bool, connections: usize) -> i32 {
    match tick(is_named, connections) {
        Tick::Fill => 0,
        Tick::CleanUp => 1,
        Tick::Free => 2,
    }
}

/// -1 it stays, 4 or 6: it is taken out of the table as one of that family.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_target_free(
    named_by: usize,
    connections: usize,
    target: MtproxyTarget,
) -> i32 {
    match free(named_by, connections, target.id().family()) {
        Free::Reject => -1,
        Free::DeleteV4 => 4,
        Free::DeleteV6 => 6,
    }
}

/// For how many milliseconds more a connection to a target that nobody names may serve its clients; 0: it is closed.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_retired(since_ms: u64, clients: usize) -> u64 {
    match retired_link(Duration::from_millis(since_ms), clients) {
        RetiredLink::Close => 0,
        RetiredLink::KeepFor(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    }
}

/// How many connections a pool shall have.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_needed(min: u16, max: u16, stopped: u16, bad: u16) -> u16 {
    connections_needed(min, max, &Counts { good: 0, stopped, bad })
}

/// The pause after the `round`th round of dialling in which nobody answered, counted from 1, without chance: writes
/// seconds to `pause`.
///
/// # Safety
/// `pause` is null, or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mtproxy_net_connections_pause(round: u32, pause: *mut f64) -> i32 {
    let mut backoff = Backoff::new(0.0);
    let mut last = Duration::ZERO;
    for _ in 0..round {
        last = backoff.after_round(false, 0.0);
    }
    // SAFETY: by this function's own contract.
    unsafe { answer(pause, last.as_secs_f64()) }
}

/// What becomes of a candidate for a connection: 0 look on, 1 it is the choice, 2 the choice was made.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_connections_pick(has_chosen: bool, candidate_is_ready: bool) -> i32 {
    let readiness = if candidate_is_ready { Readiness::Ok } else { Readiness::NotYet };
    match pick_basic(has_chosen, readiness) {
        Pick::Keep => 0,
        Pick::Select => 1,
        Pick::Skip => 2,
    }
}
