//! Rights of the process: fewer of them once the ports are open, and as many files as it may have.

use nix::unistd::{Uid, User, setgid, setgroups, setuid};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::complaint::Complaint;
use crate::datapath::epoll::PIPES_MAX;

/// Makes the whole process user `name`, with that user's primary group and no other. There is no way
/// back, so everything that needs root comes before.
///
/// The C library changes all threads of the process; a bare system call would change one.
///
/// # Errors
/// If there is no such user, or this process may not become it.
pub fn become_user(name: &str) -> Result<(), Complaint> {
    let user = User::from_name(name).map_err(|error| {
        Complaint::about_host(format!(
            "found no way to look up user {name:?} ({error}); expected \
            an entry in /etc/passwd or another source of users"
        ))
    })?;
    let Some(user) = user else {
        return Err(Complaint::about_host(format!(
            "found no user {name:?} on this host; expected one that exists; create it with \
            `useradd --system {name}`, or name another with --user"
        )));
    };
    if user.uid == Uid::effective() {
        return Ok(());
    }
    let refused = |error: nix::Error| {
        Complaint::about_host(format!(
            "found no right to become user {name:?} ({error}); expected to be started as root; \
            start as root, or leave --user out"
        ))
    };
    setgroups(&[user.gid]).map_err(refused)?;
    setgid(user.gid).map_err(refused)?;
    setuid(user.uid).map_err(refused)?;
    assert!(
        user.uid.is_root() || setuid(Uid::from_raw(0)).is_err(),
        "rights that were given up cannot be had back"
    );
    Ok(())
}

/// Files, sockets included, that the process may have open after raising its limit as far as it may.
/// Never fatal: a proxy for fewer clients is better than none.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let unlimited = |value: Option<u64>| value.unwrap_or(u64::MAX);
    if limit.current == limit.maximum {
        return unlimited(limit.current);
    }
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => unlimited(limit.maximum),
        Err(error) => {
            warn!(%error, soft = limit.current, hard = limit.maximum, "cannot raise the limit of open files");
            unlimited(limit.current)
        }
    }
}

/// Clients that so many descriptors are enough for: each session has two sockets, each worker its epoll
/// instance, wake-up, listeners and pipes, and the rest of the process needs some for itself.
#[must_use]
pub fn connections_for(descriptors: u64, workers: usize, listeners: usize) -> usize {
    /// Standard streams, signals, logs, the metrics page, look-ups, and clients in between.
    const KEPT_BACK: u64 = 64;
    const EACH: u64 = 2;
    /// epoll, and both ends of the wake-up.
    const EACH_WORKER: usize = 3;
    let of_workers = workers * (EACH_WORKER + listeners + 2 * PIPES_MAX);
    let connections = descriptors.saturating_sub(KEPT_BACK + of_workers as u64) / EACH;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_named_with_what_to_do() {
        let message = become_user("no-such-user-here").unwrap_err().to_string();
        assert!(
            message.contains("found no user \"no-such-user-here\"") && message.contains("--user"),
            "{message}"
        );
    }

    #[test]
    fn staying_who_one_is_needs_no_rights() {
        let me = User::from_uid(Uid::effective()).unwrap().unwrap();
        assert!(become_user(&me.name).is_ok());
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        let raised = raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.maximum.unwrap_or(u64::MAX));
    }

    #[test]
    fn a_client_needs_two_descriptors_and_the_process_some() {
        let of_one_worker = 64 + 3 + 1 + 16;
        assert_eq!(connections_for(0, 1, 1), 1, "never none");
        assert_eq!(connections_for(of_one_worker + 3, 1, 1), 1);
        assert_eq!(connections_for(of_one_worker + 4, 1, 1), 2);
        assert_eq!(connections_for(1024, 4, 2), (1024 - 64 - 4 * 21) / 2);
    }
}
