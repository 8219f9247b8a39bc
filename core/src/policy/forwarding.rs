//! Packets between clients and middle proxies: which are taken, by which way they go, and what becomes of their client
//! when something ends (policies.md section 10).
//!
//! Used by `session/proxied.rs`, `engine/middle_proxies.rs` and `middle_proxy/links`.

use std::time::Duration;

use super::net_connections::connection::CloseCode;
use crate::transport::packet::PacketKind;

/// What becomes of a client's packet (section 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes to a middle proxy.
    Forward {
        /// It belongs to the handshake of MTProto.
        is_unencrypted: bool,
    },
    /// We answer it ourselves.
    Pong(i64),
    /// It is passed over; the client stays.
    Ignore,
}

/// Section 10.1. The bound on what a client may have in our memory is the window of its route: it is not read beyond it,
/// where the C proxy closes it (-429).
#[must_use]
pub fn admit(kind: PacketKind) -> Admission {
    match kind {
        PacketKind::Encrypted => Admission::Forward { is_unencrypted: false },
        PacketKind::Handshake => Admission::Forward { is_unencrypted: true },
        PacketKind::Ping(id) => Admission::Pong(id),
        PacketKind::Ignored(_) => Admission::Ignore,
    }
}

/// How often a target is drawn at random before all are looked at (section 10.2).
pub const TARGET_ATTEMPTS: u32 = 5;

/// The data centre's own cluster, else the default one (section 10.2).
#[must_use]
pub fn choose_cluster<T>(exact: Option<T>, default: Option<T>) -> Option<T> {
    exact.or(default)
}

/// How a client stands with the links (section 10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingState {
    /// Its packets go by a link that lives.
    Alive,
    /// They went by one that is gone.
    Lost,
    /// It has sent none yet.
    None,
}

/// What its next packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// It goes the way of those before: order is kept on one link only.
    Reuse,
    /// It goes by a new link, under a new name if it had one.
    Create,
    /// It waits for a link. The C proxy drops it, and closes the client when there is a link again.
    Wait,
}

/// Section 10.3.
#[must_use]
pub fn mapping(state: MappingState, has_ready_link: bool) -> Mapping {
    match (state, has_ready_link) {
        (MappingState::Alive, _) => Mapping::Reuse,
        (MappingState::Lost | MappingState::None, true) => Mapping::Create,
        (MappingState::Lost | MappingState::None, false) => Mapping::Wait,
    }
}

/// What a middle proxy says of a client (section 10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A packet for it.
    Answer,
    /// One of its packets has arrived.
    Acknowledgement,
    /// Its conversation is over.
    Close,
}

/// What that leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It is for a client of this link.
    Deliver,
    /// It is for nobody: say so.
    Refuse,
    /// It is for nobody, and that is what it says.
    Ignore,
}

/// Section 10.4. `is_its_client`: the name is that of a client whose packets go by this very link.
#[must_use]
pub fn react(said: Said, is_its_client: bool) -> Reaction {
    match (is_its_client, said) {
        (true, _) => Reaction::Deliver,
        (false, Said::Answer | Said::Acknowledgement) => Reaction::Refuse,
        (false, Said::Close) => Reaction::Ignore,
    }
}

/// Whether what is for a client is queued (section 10.4, "check buffers"). One answer always is, however long: it was
/// asked for.
#[must_use]
pub fn takes_answer(queued_bytes: usize, answer_bytes: usize, limit_bytes: usize) -> bool {
    queued_bytes == 0 || queued_bytes.saturating_add(answer_bytes) <= limit_bytes
}

/// A client whose link is gone (section 10.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostLink {
    /// Since its last packet went by it; `None`: none has.
    pub since_forwarded: Option<Duration>,
    /// Something has come for it since.
    pub is_answered: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFate {
    /// It is closed, so that its app asks again.
    Close(CloseCode),
    /// It stays, and its next packet goes by another link.
    Keep,
}

/// Silence after which nothing of a client is on its way: servers acknowledge within seconds.
pub const QUIET_AFTER: Duration = Duration::from_secs(15);

/// Section 10.5 closes every client of a link that is lost (section 11, item 7). One that has nothing on its way has
/// nothing to lose: it stays.
#[must_use]
pub fn on_link_lost(client: LostLink) -> ClientFate {
    match client.since_forwarded {
        None => ClientFate::Keep,
        Some(since) if client.is_answered && since >= QUIET_AFTER => ClientFate::Keep,
        Some(_) => ClientFate::Close(CloseCode::MappingClosed),
    }
}

/// A client by which memory may be freed (section 10.6): in the order of closing. The C proxy counts only what clients
/// say as activity, so that those who listen go first; and never closes those without a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Burden<T> {
    /// When it was last active, in either direction: the longest ago first.
    pub active_at: Option<crate::time::Instant>,
    /// Among equals, whoever has less waiting stays longer.
    pub bytes: std::cmp::Reverse<usize>,
    /// Who it is.
    pub client: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;
    use crate::transport::packet::IgnoredPacket;
    use std::cmp::Reverse;

    #[test]
    fn messages_are_forwarded_pings_answered_and_all_else_passed_over() {
        for (kind, expected) in [
            (PacketKind::Encrypted, Admission::Forward { is_unencrypted: false }),
            (PacketKind::Handshake, Admission::Forward { is_unencrypted: true }),
            (PacketKind::Ping(7), Admission::Pong(7)),
            (PacketKind::Ignored(IgnoredPacket::Length), Admission::Ignore),
        ] {
            assert_eq!(admit(kind), expected);
        }
    }

    #[test]
    fn the_exact_cluster_comes_before_the_default() {
        assert_eq!(choose_cluster(Some(1), Some(2)), Some(1));
        assert_eq!(choose_cluster(None, Some(2)), Some(2));
        assert_eq!(choose_cluster::<u8>(None, None), None);
    }

    #[test]
    fn a_client_stays_on_its_link_and_waits_where_there_is_none() {
        for (state, has_ready_link, expected) in [
            (MappingState::Alive, true, Mapping::Reuse),
            (MappingState::Alive, false, Mapping::Reuse),
            (MappingState::Lost, true, Mapping::Create),
            (MappingState::Lost, false, Mapping::Wait),
            (MappingState::None, true, Mapping::Create),
            (MappingState::None, false, Mapping::Wait),
        ] {
            assert_eq!(mapping(state, has_ready_link), expected, "{state:?} {has_ready_link}");
        }
    }

    #[test]
    fn words_for_nobody_are_refused_unless_they_are_a_farewell() {
        for said in [Said::Answer, Said::Acknowledgement, Said::Close] {
            assert_eq!(react(said, true), Reaction::Deliver);
        }
        assert_eq!(react(Said::Answer, false), Reaction::Refuse);
        assert_eq!(react(Said::Acknowledgement, false), Reaction::Refuse);
        assert_eq!(react(Said::Close, false), Reaction::Ignore);
    }

    #[test]
    fn answers_are_queued_up_to_the_limit_and_the_first_in_any_case() {
        assert!(takes_answer(0, 5000, 1000));
        assert!(takes_answer(400, 600, 1000) && !takes_answer(400, 601, 1000));
        assert!(!takes_answer(usize::MAX, 1, usize::MAX - 1));
    }

    #[test]
    fn only_a_client_with_nothing_on_its_way_survives_its_link() {
        let client = |since_forwarded, is_answered| LostLink { since_forwarded, is_answered };
        let closed = ClientFate::Close(CloseCode::MappingClosed);
        let just_short = QUIET_AFTER - Duration::from_nanos(1);
        for (lost, expected) in [
            (client(None, false), ClientFate::Keep),
            (client(Some(QUIET_AFTER), true), ClientFate::Keep),
            (client(Some(just_short), true), closed),
            (client(Some(QUIET_AFTER), false), closed),
            (client(Some(Duration::from_secs(9999)), false), closed),
        ] {
            assert_eq!(on_link_lost(lost), expected, "{lost:?}");
        }
    }

    #[test]
    fn memory_is_freed_by_those_who_were_quiet_longest_and_among_them_by_the_largest() {
        let at = |seconds| Some(Instant::after_origin(Duration::from_secs(seconds)));
        let burden = |active_at, bytes, client| Burden { active_at, bytes: Reverse(bytes), client };
        let mut all =
            [burden(at(9), 99, 'd'), burden(at(5), 1, 'c'), burden(at(5), 50, 'b'), burden(None, 1, 'a')];
        all.sort_unstable();
        assert_eq!(all.map(|burden| burden.client), ['a', 'b', 'c', 'd']);
    }
}
