//! TIME-WAIT's rules.

use super::*;
use crate::wire::{Options, Timestamps};

const SND_NXT: SeqNumber = SeqNumber(1000);
const RCV_NXT: SeqNumber = SeqNumber(5000);
const TS_RECENT: u32 = 700;

fn secs(n: u64) -> Instant {
    Instant::from_micros(n * 1_000_000)
}

fn local() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

fn remote(port: u16) -> SocketAddr {
    SocketAddr::new("198.51.100.2".parse().unwrap(), port)
}

fn closed(port: u16) -> Closed {
    Closed {
        local: local(),
        remote: remote(port),
        snd_nxt: SND_NXT,
        rcv_nxt: RCV_NXT,
        window: 512,
        timestamps: None,
        vlan: Some(VlanTag(5)),
    }
}

fn with_timestamps(port: u16) -> Closed {
    Closed { timestamps: Some(ClosedTimestamps { recent: TS_RECENT, offset: 90 }), ..closed(port) }
}

fn waiting(closed: &Closed) -> TimeWait {
    let mut waiting = TimeWait::new(4, [3; 16]);
    waiting.insert(secs(0), closed);
    waiting
}

fn segment(flags: Flags, seq: SeqNumber, text: usize, tsval: Option<u32>) -> Segment {
    Segment {
        remote_port: 1,
        local_port: 443,
        seq,
        ack: SND_NXT,
        flags,
        window: 100,
        urgent: 0,
        options: Options {
            timestamps: tsval.map(|value| Timestamps { value, echo: 0 }),
            ..Options::default()
        },
        payload: 54..54 + text,
    }
}

fn is_acknowledgement(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Acknowledge { .. })
}

#[test]
fn a_record_is_64_bytes() {
    assert_eq!(size_of::<Record>(), 64);
}

#[test]
fn a_retransmitted_fin_is_acknowledged_and_the_wait_starts_anew() {
    let mut waiting = waiting(&with_timestamps(1));
    let fin = segment(Flags::FIN | Flags::ACK, RCV_NXT.minus(1), 0, Some(TS_RECENT));
    let Verdict::Acknowledge { segment, vlan } = waiting.receive(secs(30), local(), remote(1), &fin) else {
        panic!("acknowledged");
    };
    assert_eq!(vlan, Some(VlanTag(5)));
    assert_eq!((segment.seq, segment.ack, segment.flags), (SND_NXT, RCV_NXT, Flags::ACK));
    assert_eq!((segment.local, segment.remote, segment.window), (local(), remote(1), 512));
    assert_eq!(segment.options.timestamps, Some(Timestamps { value: 30_090, echo: TS_RECENT }));
    assert_eq!(waiting.expire(secs(60)), None);
    assert_eq!(waiting.expire(secs(89)), None);
    assert_eq!(waiting.expire(secs(90)), Some((local(), remote(1))));
    assert!(waiting.is_empty());
}

#[test]
fn what_must_wait_again_does_not_hold_up_the_others() {
    let mut waiting = waiting(&closed(1));
    waiting.insert(secs(1), &closed(2));
    let fin = segment(Flags::FIN | Flags::ACK, RCV_NXT.minus(1), 0, None);
    waiting.receive(secs(50), local(), remote(1), &fin);
    assert_eq!(waiting.expire(secs(61)), Some((local(), remote(2))));
    assert_eq!(waiting.expire(secs(61)), None);
    assert!(waiting.contains(local(), remote(1)));
    assert_eq!(waiting.next(secs(61)), Some(secs(110)));
}

#[test]
fn resets_are_ignored_and_end_nothing() {
    let mut waiting = waiting(&closed(1));
    for flags in [Flags::RST, Flags::RST | Flags::ACK, Flags::RST | Flags::SYN] {
        let verdict = waiting.receive(secs(1), local(), remote(1), &segment(flags, RCV_NXT, 0, None));
        assert_eq!(verdict, Verdict::Ignore);
    }
    assert!(waiting.contains(local(), remote(1)));
}

#[test]
fn a_bare_acceptable_acknowledgement_is_not_answered_and_others_are() {
    let mut waiting = waiting(&closed(1));
    let mut verdict =
        |flags, seq, text| waiting.receive(secs(1), local(), remote(1), &segment(flags, seq, text, None));
    assert_eq!(verdict(Flags::ACK, RCV_NXT, 0), Verdict::Ignore);
    assert!(is_acknowledgement(verdict(Flags::ACK, RCV_NXT.minus(1), 0)));
    assert!(is_acknowledgement(verdict(Flags::ACK, RCV_NXT + 1, 0)));
    assert!(is_acknowledgement(verdict(Flags::ACK, RCV_NXT, 1)));
    assert!(is_acknowledgement(verdict(Flags::SYN | Flags::ACK, RCV_NXT + 1, 0)));
}

#[test]
fn we_dial_again_only_what_has_timestamps_and_has_waited_a_tenth_of_a_second_since_the_last_fin() {
    let millis = |n: u64| Instant::from_micros(n * 1000);
    let mut plain = waiting(&closed(1));
    assert_eq!(plain.standing(secs(59), local(), remote(1)), Standing::InUse);
    assert_eq!(plain.reopen(secs(59), local(), remote(1)), None);

    let mut waiting = waiting(&with_timestamps(1));
    assert_eq!(waiting.standing(millis(99), local(), remote(1)), Standing::InUse);
    assert_eq!(waiting.standing(millis(100), local(), remote(1)), Standing::MayReopen);
    let fin = segment(Flags::FIN | Flags::ACK, RCV_NXT.minus(1), 0, Some(TS_RECENT));
    waiting.receive(millis(150), local(), remote(1), &fin);
    assert_eq!(waiting.reopen(millis(249), local(), remote(1)), None);
    assert_eq!(waiting.reopen(millis(250), local(), remote(1)), Some(SND_NXT.plus(REOPEN_DISTANCE)));
    assert_eq!(waiting.standing(millis(250), local(), remote(1)), Standing::Free);
    assert_eq!((waiting.len(), waiting.next(millis(250))), (0, None));
}

#[test]
fn other_tuples_are_unknown() {
    let mut waiting = waiting(&closed(1));
    let ack = segment(Flags::ACK, RCV_NXT, 0, None);
    assert_eq!(waiting.receive(secs(1), local(), remote(2), &ack), Verdict::Unknown);
    assert_eq!(waiting.receive(secs(1), remote(1), local(), &ack), Verdict::Unknown);
}

#[test]
fn a_syn_reopens_by_the_rules_of_rfc_6191() {
    let old = RCV_NXT;
    let new = RCV_NXT + 1;
    for (record, seq, tsval, reopens) in [
        (closed(1), new, None, true),
        (closed(1), old, None, false),
        (closed(1), old, Some(1), true),
        (with_timestamps(1), old, Some(TS_RECENT + 1), true),
        (with_timestamps(1), old, Some(TS_RECENT), false),
        (with_timestamps(1), new, Some(TS_RECENT), true),
        (with_timestamps(1), new, Some(TS_RECENT - 1), false),
        (with_timestamps(1), new, None, true),
        (with_timestamps(1), old, None, false),
    ] {
        let mut waiting = waiting(&record);
        let verdict = waiting.receive(secs(1), local(), remote(1), &segment(Flags::SYN, seq, 0, tsval));
        if reopens {
            assert_eq!(verdict, Verdict::Reopen { iss: SND_NXT.plus(REOPEN_DISTANCE) });
        } else {
            assert!(is_acknowledgement(verdict), "{record:?} {seq:?} {tsval:?}");
        }
        assert_eq!(waiting.contains(local(), remote(1)), !reopens);
        assert_eq!(waiting.next(secs(1)).is_none(), reopens, "what is gone wakes nobody");
    }
}

#[test]
fn with_timestamps_an_old_segment_restarts_nothing_and_one_without_is_dropped() {
    let mut waiting = waiting(&with_timestamps(1));
    let fin = |tsval| segment(Flags::FIN | Flags::ACK, RCV_NXT.minus(1), 0, tsval);
    let old = waiting.receive(secs(30), local(), remote(1), &fin(Some(TS_RECENT - 1)));
    assert!(is_acknowledgement(old));
    assert_eq!(waiting.receive(secs(30), local(), remote(1), &fin(None)), Verdict::Ignore);
    assert_eq!(waiting.expire(secs(60)), Some((local(), remote(1))));
}

#[test]
fn a_full_ring_lets_the_oldest_go_and_counts_it() {
    let mut waiting = TimeWait::new(2, [3; 16]);
    for port in 1..=3 {
        waiting.insert(secs(0), &closed(port));
    }
    assert_eq!((waiting.len(), waiting.evicted()), (2, 1));
    assert!(!waiting.contains(local(), remote(1)));
    let syn = segment(Flags::SYN, RCV_NXT + 1, 0, None);
    assert!(matches!(waiting.receive(secs(0), local(), remote(2), &syn), Verdict::Reopen { .. }));
    // The place of the reopened one is taken, and nobody was evicted for it.
    waiting.insert(secs(0), &closed(4));
    assert_eq!((waiting.len(), waiting.evicted()), (2, 1));
    assert!(waiting.contains(local(), remote(3)) && waiting.contains(local(), remote(4)));
}

#[test]
fn waits_end_in_order_also_where_the_clock_and_the_names_wrap() {
    // 2^32 milliseconds, less 30 s.
    let start = u64::from(u32::MAX) / 1000 - 30;
    let mut waiting = TimeWait::new(1000, [3; 16]);
    waiting.front = u32::MAX - 2;
    for port in 0..10 {
        let v6 = Closed {
            local: "[2001:db8::1]:443".parse().unwrap(),
            remote: SocketAddr::new("2001:db8::2".parse().unwrap(), port),
            ..closed(0)
        };
        waiting.insert(secs(start + u64::from(port)), &v6);
    }
    for port in 0..10 {
        let end = start + u64::from(port) + 60;
        assert_eq!(waiting.expire(secs(end - 1)), None);
        assert_eq!(waiting.next(secs(end - 1)), Some(secs(end)));
        let (_, remote) = waiting.expire(secs(end)).expect("expires");
        assert_eq!(remote.port(), port);
    }
    assert_eq!(waiting.next(secs(start)), None);
}
