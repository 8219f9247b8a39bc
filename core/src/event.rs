//! What happened, as values. Core emits them; only telemetry turns them into lines and counters.

use std::net::SocketAddr;
use std::time::Duration;

use crate::credentials::SecretId;
use crate::dc::DcId;
use crate::error::{DropReason, PeerMisbehaved};
use crate::transport::Transport;

/// Number of a session within its engine, counted from 1; in every event and log line of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNumber(pub u64);

/// Something worth counting or logging about one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The session it happened to.
    pub session: SessionNumber,
    /// What happened.
    pub what: What,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A client was accepted.
    Opened,
    /// A fake-TLS hello was authentic and has been answered.
    Greeted {
        /// Whose secret it was.
        secret: SecretId,
    },
    /// The init frame was authentic; the data centre is being dialled.
    Authenticated {
        /// Whose secret it was, in the configuration in force.
        secret: SecretId,
        /// The client's framing.
        transport: Transport,
        /// Inside fake TLS or not.
        fake_tls: bool,
        /// The data centre asked for.
        dc: DcId,
    },
    /// A stranger is being connected to the real site.
    Fronted(PeerMisbehaved),
    /// A stranger is met with silence, because no front is configured.
    Discarding(PeerMisbehaved),
    /// An authenticated client broke the protocol; its session closes.
    Misbehaved(PeerMisbehaved),
    /// An address did not answer; the next one is tried, if there is one.
    DialFailed {
        /// The address dialled.
        address: SocketAddr,
        /// Why it failed.
        why: DialError,
    },
    /// The data centre or front answered.
    Connected {
        /// The address dialled.
        address: SocketAddr,
    },
    /// The session is over.
    Ended {
        /// `Ok` if both sides finished.
        outcome: Result<(), DropReason>,
        /// Bytes received from the client, framing included.
        from_client_bytes: u64,
        /// Bytes received from the data centre or front.
        from_upstream_bytes: u64,
        /// From accept until now.
        lasted: Duration,
    },
}

/// Why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialError {
    /// Nobody listens there.
    Refused,
    /// No route, or an ICMP error.
    Unreachable,
    /// No answer within the dial timeout.
    TimedOut,
    /// This host has no socket, port or buffer left.
    NoResources,
    /// Anything else.
    Other,
}
