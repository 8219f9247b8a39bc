//! From the facts of this host to shards that are ready to run, or to the reason why there are none.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use tracing::{info, warn};

use crate::complaint::Complaint;
use crate::datapath::choice::{Choice, choose};
use crate::settings::Settings;
use crate::settings::values::Datapath;
use crate::shards::{self, Shards};

/// What this host gets.
pub(super) enum BroughtUp {
    /// Kernel sockets alone, for this reason.
    Epoll(String),
    /// AF_XDP sockets on the interface of this name, for this reason.
    Xdp { shards: Box<Shards>, interface: String, reason: String },
}

/// Which datapath this host gets when the proxy starts, said in one line; with the interface's name, the shards, if it is
/// AF_XDP.
pub(super) fn bring_up_first(
    settings: &Settings,
    listening: &[SocketAddr],
) -> Result<Option<(String, Shards)>, Complaint> {
    let reason = match bring_up(settings, listening) {
        Ok(BroughtUp::Xdp { shards, interface, reason }) => {
            info!("datapath xdp: {reason}");
            return Ok(Some((interface, *shards)));
        }
        Ok(BroughtUp::Epoll(reason)) => reason,
        Err(Refused { interface: Some(interface), complaint }) if settings.datapath == Datapath::Auto => {
            warn!("{complaint}");
            format!("interface={interface} xdp_refused=yes")
        }
        Err(Refused { complaint, .. }) => return Err(complaint),
    };
    info!("datapath epoll: {reason}");
    Ok(None)
}

/// AF_XDP is wanted, and cannot be had.
pub(super) struct Refused {
    /// The interface that it was tried on.
    interface: Option<String>,
    /// What the operator must change.
    pub(super) complaint: Complaint,
}

/// Chooses, and brings up what was chosen. An attempt that fails leaves nothing behind.
pub(super) fn bring_up(settings: &Settings, listening: &[SocketAddr]) -> Result<BroughtUp, Refused> {
    if settings.datapath == Datapath::Epoll {
        return Ok(BroughtUp::Epoll("as configured".to_owned()));
    }
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let facts = shards::facts::read(settings.interface.as_deref(), settings.xdp.ports, listening, cores);
    let choice = choose(settings.datapath, settings.xdp.mode, &facts);
    match choice.map_err(|complaint| Refused { interface: None, complaint })? {
        Choice::Epoll { reason } => Ok(BroughtUp::Epoll(reason)),
        Choice::Xdp { interface, attach, reason, warnings } => {
            for warning in warnings {
                warn!("{warning}");
            }
            if settings.user.is_some() {
                return Err(Refused { interface: None, complaint: user_with_shards() });
            }
            match Shards::prepare(settings, &interface, attach, listening) {
                Ok(shards) => Ok(BroughtUp::Xdp { shards: Box::new(shards), interface, reason }),
                Err(complaint) => Err(Refused { interface: Some(interface), complaint }),
            }
        }
    }
}

fn user_with_shards() -> Complaint {
    Complaint::about_host(
        "found --user together with the datapath xdp; expected the rights to look after the interface to stay; start as \
        that user with the capabilities that docs/mtproxy.service gives, and leave --user out",
    )
}
