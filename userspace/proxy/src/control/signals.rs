//! Signals as events.
//!
//! | signal | meaning |
//! |---|---|
//! | SIGTERM, SIGINT | drain; a second one of either ends the process at once with exit code 1 |
//! | SIGHUP | read the configuration again |
//! | SIGUSR2 | for tests only, if the environment asked for it at start: one shard hangs; else as the system has it |
//! | SIGUSR1 | open the log file anew, if there is one (`mtproxy compat`): rotation scripts send it |
//!
//! SIGPIPE is ignored by Rust's runtime already.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam::channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::ControlEvent;
use crate::complaint::Complaint;

/// Ends with this when told to stop twice.
const EXIT_CODE_AT_ONCE: i32 = 1;

/// From now on signals become events; the thread that turns them sleeps until one comes. SIGUSR2 is one of them
/// only if `with_hold` says so.
///
/// # Errors
/// If the system has no pipe or thread left.
pub fn listen(events: Sender<ControlEvent>, with_hold: bool) -> Result<(), Complaint> {
    start(events, with_hold).map_err(|error| {
        Complaint::about_host(format!(
            "found no way to receive signals ({error}); expected a free \
            thread and two file descriptors; raise the limits of this service"
        ))
    })
}

fn start(events: Sender<ControlEvent>, with_hold: bool) -> io::Result<()> {
    let was_told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order the first signal finds the flag down, and the second finds it up. Both run inside
        // the handler, so the second one works even if every thread of ours hangs.
        flag::register_conditional_shutdown(signal, EXIT_CODE_AT_ONCE, was_told_to_stop.clone())?;
        flag::register(signal, was_told_to_stop.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    if with_hold {
        signals.add_signal(SIGUSR2)?;
    }
    let forward = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGTERM | SIGINT => ControlEvent::Drain,
                SIGHUP => ControlEvent::Reload,
                SIGUSR1 => ControlEvent::ReopenLog,
                SIGUSR2 => ControlEvent::Hold,
                _ => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(forward).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::time::Duration;

    // One test, since signals concern the whole test process; the second SIGTERM is tested from outside.
    #[test]
    fn hangup_reloads_usr1_reopens_the_log_and_the_first_term_drains() {
        let (sender, events) = crossbeam::channel::unbounded();
        listen(sender, false).unwrap();
        let next = || events.recv_timeout(Duration::from_secs(10)).unwrap();
        raise(SIGUSR1).unwrap();
        assert!(matches!(next(), ControlEvent::ReopenLog));
        raise(SIGHUP).unwrap();
        assert!(matches!(next(), ControlEvent::Reload));
        raise(SIGTERM).unwrap();
        assert!(matches!(next(), ControlEvent::Drain));
        assert!(events.try_recv().is_err());
    }
}
