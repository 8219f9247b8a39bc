//! Names resolved many at a time, by a deadline.
//!
//! The system's resolver blocks for as long as it likes, so each question has a thread, and whoever asks waits for
//! his patience at most. Never on a thread that serves clients.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};

/// For all look-ups of one round together.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Look-ups at a time: each blocks a thread.
pub(crate) const AT_ONCE: usize = 16;

/// What one question came to.
pub(crate) type Answer = io::Result<Vec<SocketAddr>>;

/// The answers to all `questions` that come within `patience`, in the same order.
pub(crate) fn resolve_all<Q: Clone + Send + 'static>(
    questions: &[Q],
    lookup: impl Fn(&Q) -> Answer + Copy + Send + 'static,
    patience: Duration,
) -> Vec<Answer> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}")));
    let mut results: Vec<Answer> = questions.iter().map(|_| late()).collect();
    let (question, asked) = channel::unbounded();
    for numbered in questions.iter().cloned().enumerate() {
        let _ = question.send(numbered);
    }
    drop(question);
    let (answer, answers) = channel::unbounded();
    for _ in 0..questions.len().min(AT_ONCE) {
        let (asked, answer): (Receiver<(usize, Q)>, Sender<_>) = (asked.clone(), answer.clone());
        let ask = move || asked.iter().try_for_each(|(index, name)| answer.send((index, lookup(&name))));
        // A thread that cannot be had leaves its names unresolved, which is reported.
        let _ = thread::Builder::new().name("lookup".to_owned()).spawn(ask);
    }
    drop(answer);
    let deadline = Instant::now() + patience;
    while let Ok((index, result)) = answers.recv_deadline(deadline) {
        results[index] = result;
    }
    // Threads that still wait for an answer find nothing more to ask, and end by themselves.
    while asked.try_recv().is_ok() {}
    results
}

/// What the system's resolver says about `name`, at `port`.
pub(crate) fn of_system(name: &str, port: u16) -> Answer {
    let found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_look_up_delays_neither_the_round_beyond_its_patience_nor_the_other_names() {
        let lookup = |name: &&'static str| match *name {
            "slow.example" => {
                thread::sleep(Duration::from_secs(60));
                unreachable!("the test is over by now")
            }
            _ => Ok(vec![([192, 0, 2, 1], 443).into(), ([192, 0, 2, 2], 443).into()]),
        };
        let started = Instant::now();
        let found = resolve_all(&["slow.example", "both.example"], lookup, Duration::from_millis(500));
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert_eq!(found[0].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(found[1].as_ref().unwrap().len(), 2);
    }

    #[test]
    fn more_names_than_threads_are_all_resolved() {
        let names: Vec<String> = (0..3 * AT_ONCE).map(|n| format!("n{n}.example")).collect();
        let found = resolve_all(&names, |_| Ok(vec![([192, 0, 2, 1], 443).into()]), PATIENCE);
        assert!(found.iter().all(Result::is_ok) && found.len() == names.len());
    }
}
