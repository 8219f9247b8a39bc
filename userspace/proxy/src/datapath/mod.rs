//! Datapaths: what moves ordered bytes between the network and the engine.
//!
//! A datapath knows connections and bytes, never sessions, secrets or policies; the engine knows those,
//! never a socket. A worker drives one datapath in turns of *wait, receive, time out, transmit*.
//!
//! ```text
//!   Epoll<Nowhere>   every stream is a socket of the kernel
//!   Xdp              streams over AF_XDP frames; those that the interface does not lead to are sockets of an
//!                    Epoll that has the frames as its Elsewhere: a front on this very host, for instance
//! ```

pub mod buffers;
pub mod choice;
pub mod epoll;
pub mod facts;
pub mod xdp;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use mtproxy_core::action::Action;
use mtproxy_core::engine::Engine;
use mtproxy_core::event::{DialError, Event};
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Instant, Now};

use crate::telemetry::metrics::WorkerCounters;
use buffers::OutputQueue;

/// What a worker drives. One reading of the clock serves a whole turn.
pub trait Datapath {
    /// Sleeps until something happens, at most for `timeout`.
    ///
    /// # Errors
    /// Only for what makes the datapath useless; interruptions are absorbed.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Handles everything that has come in.
    fn receive(&mut self, now: Now, engine: &mut Engine);

    /// Lets the engine handle its deadlines.
    fn time_out(&mut self, now: Now, engine: &mut Engine);

    /// Sends what the turn has gathered.
    fn transmit(&mut self, now: Now, engine: &mut Engine) {
        let _ = (now, engine);
    }

    /// When the datapath itself has something to do.
    fn next_timeout(&self) -> Option<Instant>;

    /// Takes no more clients. Open connections stay.
    fn stop_accepting(&mut self);

    /// True while connections whose sessions are over still have to tell their peers. What the kernel does behind
    /// a closed socket is a datapath's own business where there is no socket.
    fn has_last_words(&self) -> bool {
        false
    }

    /// True if nobody else needs this datapath any more. Asked while draining, when it has neither sessions nor last
    /// words.
    fn may_end(&mut self) -> bool {
        true
    }

    /// Ends every session at once. Called once, at the end, also when the datapath is broken.
    fn stop(&mut self, now: Now, engine: &mut Engine);

    /// What the engine has reported since the last call.
    fn drain_reports(&mut self) -> std::vec::Drain<'_, Event>;

    /// Shows what the datapath counts.
    fn publish(&self, counters: &WorkerCounters);
}

/// What is said for an address that the kernel would not tell: of a connection that was gone at once.
const UNKNOWN_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// Something that happened while actions were carried out, to be told to the engine behind them.
#[derive(Debug)]
pub enum Outcome {
    /// So many queued bytes are sent.
    Sent(StreamId, usize),
    /// A dial came to nothing.
    DialFailed(StreamId, DialError),
    /// The peer is gone.
    Broken(StreamId),
}

/// Outcomes in their order.
pub type Outcomes = VecDeque<Outcome>;

/// What waits for a stream that is being dialled: it survives a second dial.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Bytes to send.
    pub queue: OutputQueue,
    /// FIN behind them.
    pub fin: bool,
}

/// Where the input is that `Relay` actions point into.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// In this buffer.
    Here(&'a [u8]),
    /// In the frame that [`Elsewhere`] has at hand.
    Elsewhere,
}

/// What carries those streams of an engine that are no sockets. Streams it does not know are ignored: one
/// that has just been lost may still be spoken of.
pub trait Elsewhere {
    /// Dials, if the address is reached from here. False: it is a socket's business.
    fn dial(&mut self, stream: StreamId, address: SocketAddr, outcomes: &mut Outcomes) -> bool;

    /// Gives up a stream that is to be dialled by a socket after all, with what waits for it.
    fn surrender(&mut self, stream: StreamId) -> Waiting;

    /// Sends `outputs`, all to this stream.
    fn send(
        &mut self,
        to: StreamId,
        outputs: &[Action],
        bytes: &[u8],
        input: Payload<'_>,
        outcomes: &mut Outcomes,
    );

    /// The input at hand.
    fn payload(&self) -> &[u8];

    /// True if there is memory for so many more bytes.
    fn can_take(&self, len: usize) -> bool;

    /// Carries out [`Action::Shutdown`].
    fn shut_down(&mut self, stream: StreamId);

    /// Carries out [`Action::Close`].
    fn close(&mut self, stream: StreamId);

    /// Carries out [`Action::Abort`].
    fn abort(&mut self, stream: StreamId);

    /// Carries out [`Action::Resume`].
    fn resume(&mut self, stream: StreamId);
}

/// Every stream is a socket.
#[derive(Debug)]
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn dial(&mut self, _: StreamId, _: SocketAddr, _: &mut Outcomes) -> bool {
        false
    }

    fn surrender(&mut self, _: StreamId) -> Waiting {
        Waiting::default()
    }

    fn send(&mut self, _: StreamId, _: &[Action], _: &[u8], _: Payload<'_>, _: &mut Outcomes) {}

    fn payload(&self) -> &[u8] {
        &[]
    }

    fn can_take(&self, _: usize) -> bool {
        true
    }

    fn shut_down(&mut self, _: StreamId) {}

    fn close(&mut self, _: StreamId) {}

    fn abort(&mut self, _: StreamId) {}

    fn resume(&mut self, _: StreamId) {}
}
