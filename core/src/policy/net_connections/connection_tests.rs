//! Section 1 of policies.md, row by row.

use super::*;

fn at(milliseconds: u64) -> Instant {
    Instant::after_origin(Duration::from_millis(milliseconds))
}

#[test]
fn every_reason_has_the_number_of_the_c_proxy() {
    let all = [
        (CloseCode::Protocol, -1),
        (CloseCode::NotReady, -6),
        (CloseCode::Unexpected, -7),
        (CloseCode::Refused, -8),
        (CloseCode::Unused, -17),
        (CloseCode::OtherHalf, -23),
        (CloseCode::SpliceNotOpened, -27),
        (CloseCode::MappingClosed, -33),
        (CloseCode::PacketsDropped, -35),
        (CloseCode::SpliceNotAllocated, -37),
        (CloseCode::SocketAborted, -200),
        (CloseCode::SocketFreed, -201),
        (CloseCode::ClientBuffers, -429),
        (CloseCode::MemoryPressure, -500),
    ];
    for (reason, code) in all {
        assert_eq!(reason.code(), code, "{reason:?}");
    }
}

#[test]
fn the_first_reason_to_fail_wins() {
    assert_eq!((fail(false), fail(true)), (Fail::Begin, Fail::Ignore));
}

#[test]
fn an_end_is_counted_as_what_it_was() {
    let closed = Closed { is_unused: false, was_active: true, has_target: false, clients: None };
    let plain = account(closed);
    assert!(plain.failed && !plain.connect_failed && !plain.unused && !plain.refill && !plain.accept_again);
    assert!(account(Closed { was_active: false, ..closed }).connect_failed);
    let unused = account(Closed { is_unused: true, was_active: false, ..closed });
    assert!(unused.unused && !unused.failed && !unused.connect_failed);
    assert!(account(Closed { has_target: true, ..closed }).refill);
    for (before, accept_again) in [(9, false), (10, true), (11, false)] {
        assert_eq!(account(Closed { clients: Some((before, 10)), ..closed }).accept_again, accept_again);
    }
}

#[test]
fn the_limit_of_clients_lets_others_wait_and_the_limit_of_rate_turns_them_away() {
    assert_eq!(accept(9, 10, true), Accept::Take);
    assert_eq!(accept(9, 10, false), Accept::Turn);
    assert_eq!(accept(10, 10, true), Accept::LetWait);
    assert_eq!(accept(10, 10, false), Accept::LetWait, "whoever waits keeps its token");
}

#[test]
fn a_bucket_gives_its_rate_and_saves_a_second_at_most() {
    let mut bucket = AcceptBucket::new(2, at(0));
    assert!(bucket.take(at(0)) && bucket.take(at(0)) && !bucket.take(at(0)));
    assert!(!bucket.take(at(499)));
    assert!(bucket.take(at(500)) && !bucket.take(at(500)));
    let taken = (0..10).filter(|_| bucket.take(at(60_000))).count();
    assert_eq!(taken, 2, "a minute of silence saves one second's tokens");
    assert!(bucket.tokens() < 1.0);
}

#[test]
fn reads_lead_to_what_is_left_in_the_socket() {
    let calm = ReadContext::default();
    let failed = ReadContext { has_failed: true, ..calm };
    let ending = ReadContext { more_behind: true, ..calm };
    for (read, context, expected) in [
        (Io::Moved(10, 10), calm, AfterRead::Bytes { may_have_more: true }),
        (Io::Moved(9, 10), calm, AfterRead::Bytes { may_have_more: false }),
        (Io::Moved(9, 10), ending, AfterRead::Bytes { may_have_more: true }),
        (Io::Moved(9, 10), failed, AfterRead::Bytes { may_have_more: false }),
        (Io::Again, calm, AfterRead::Wait),
        (Io::Again, failed, AfterRead::Broken),
        (Io::Interrupted, failed, AfterRead::Retry),
        (Io::End, calm, AfterRead::End),
        (Io::End, ending, AfterRead::End),
        (Io::End, failed, AfterRead::Broken),
        (Io::Failed, calm, AfterRead::Broken),
    ] {
        assert_eq!(after_read(read, context), expected, "{read:?} {context:?}");
    }
}

#[test]
fn a_full_buffer_is_waited_for_however_often_it_is_full() {
    for _ in 0..1000 {
        assert_eq!(after_write(Io::Again), AfterWrite::Wait);
    }
    assert_eq!(after_write(Io::Moved(5, 5)), AfterWrite::Goes { has_room: true });
    assert_eq!(after_write(Io::Moved(4, 5)), AfterWrite::Goes { has_room: false });
    assert_eq!(after_write(Io::Interrupted), AfterWrite::Retry);
    assert_eq!((after_write(Io::End), after_write(Io::Failed)), (AfterWrite::Failed, AfterWrite::Failed));
}

#[test]
fn only_a_connection_that_works_closes_behind_its_queue() {
    let all = [Status::Connecting, Status::Working, Status::Error, Status::WriteClose];
    assert_eq!(all.map(begins_write_close), [false, true, false, false]);
}

#[test]
fn timers_are_armed_for_a_time_and_disarmed_by_zero() {
    let second = Duration::from_secs(1);
    assert_eq!(timer(Status::Working, second, at(5)), Timer::Arm(at(1005)));
    assert_eq!(timer(Status::Working, Duration::ZERO, at(5)), Timer::Disarm);
    assert_eq!(timer(Status::Error, second, at(5)), Timer::Ignore);
}

#[test]
fn signals_to_a_connection_are_dispatched_by_its_state() {
    let calm = JobState::default();
    let failed = JobState { has_error: true, ..calm };
    let closed = JobState { has_closed: true, ..failed };
    let ready = JobState { is_ready_pending: true, ..calm };
    let stale = JobState { is_timer_stale: true, ..calm };
    for (signal, job, expected) in [
        (Signal::Run, failed, Dispatch::Nothing),
        (Signal::Run, ready, Dispatch::Connected),
        (Signal::Run, JobState { has_error: true, ..ready }, Dispatch::Nothing),
        (Signal::Run, calm, Dispatch::ReadWrite),
        (Signal::Alarm, stale, Dispatch::Nothing),
        (Signal::Alarm, failed, Dispatch::Nothing),
        (Signal::Alarm, calm, Dispatch::Alarm),
        (Signal::Abort, calm, Dispatch::Error),
        (Signal::Abort, failed, Dispatch::Close),
        (Signal::Abort, closed, Dispatch::End),
        (Signal::Finish, closed, Dispatch::Free),
        (Signal::Aux, calm, Dispatch::Error),
    ] {
        assert_eq!(dispatch(signal, job), expected, "{signal:?} {job:?}");
    }
}

#[test]
fn signals_to_a_listener_accept_or_listen_again() {
    assert_eq!(listener_dispatch(Signal::Run), ListenerDispatch::Accept);
    assert_eq!(listener_dispatch(Signal::Aux), ListenerDispatch::ListenAgain);
    for signal in [Signal::Alarm, Signal::Abort, Signal::Finish] {
        assert_eq!(listener_dispatch(signal), ListenerDispatch::Error);
    }
}

#[test]
fn signals_to_a_socket_stop_mattering_when_it_has_failed() {
    for (signal, has_error, expected) in [
        (Signal::Abort, false, SocketDispatch::Fail(CloseCode::SocketAborted)),
        (Signal::Abort, true, SocketDispatch::Fail(CloseCode::SocketAborted)),
        (Signal::Finish, true, SocketDispatch::Fail(CloseCode::SocketFreed)),
        (Signal::Run, false, SocketDispatch::ReadWrite),
        (Signal::Run, true, SocketDispatch::Nothing),
        (Signal::Aux, false, SocketDispatch::Register),
        (Signal::Aux, true, SocketDispatch::Nothing),
        (Signal::Alarm, false, SocketDispatch::Nothing),
    ] {
        assert_eq!(socket_dispatch(signal, has_error), expected, "{signal:?} {has_error}");
    }
}
