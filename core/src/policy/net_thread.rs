//! Who is told what when something happens to a connection (policies.md section 9).
//!
//! The C proxy has a queue of such notices between its network threads and its engine thread. Here one thread owns a
//! connection and whoever hears of it, so that a notice is a call, in the order of what happened. What remains is which
//! notices there are and what each leads to; the engine asks when a link becomes ready or ends.

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its hands are shaken. The C proxy's event 1.
    Ready,
    /// It is over: 2.
    Close,
    /// Its time is: 3.
    Alarm,
    /// It may go on: 4.
    WakeUp,
}

impl Notice {
    /// The C proxy's number.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Ready => 1,
            Self::Close => 2,
            Self::Alarm => 3,
            Self::WakeUp => 4,
        }
    }

    /// The notice with this number. The C proxy dies of any other.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        [Self::Ready, Self::Close, Self::Alarm, Self::WakeUp].into_iter().find(|notice| notice.code() == code)
    }
}

/// What a notice leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// Tell those who wait for a connection that there is one.
    ServeWaiting,
    /// Tell those whose packets went this way.
    TellClients,
    /// Look whether it lives.
    LookAfter,
    /// Let those who wait for room go on.
    ServeQueued,
}

/// Section 9, for a link.
#[must_use]
pub fn noticed(notice: Notice) -> Noticed {
    match notice {
        Notice::Ready => Noticed::ServeWaiting,
        Notice::Close => Noticed::TellClients,
        Notice::Alarm => Noticed::LookAfter,
        Notice::WakeUp => Noticed::ServeQueued,
    }
}

/// What the answer to a notice of readiness leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReady {
    /// The connection stays.
    Keep,
    /// It was refused: it is failed with the C proxy's -8.
    Fail,
}

/// Section 9: whoever is told that a connection is ready may refuse it.
#[must_use]
pub fn after_ready(answer: i32) -> AfterReady {
    if answer < 0 { AfterReady::Fail } else { AfterReady::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_have_the_numbers_of_the_c_proxy_and_no_other_number_is_one() {
        for code in 1..=4 {
            assert_eq!(Notice::from_code(code).map(Notice::code), Some(code));
        }
        for code in [i32::MIN, -1, 0, 5, i32::MAX] {
            assert_eq!(Notice::from_code(code), None, "and nobody dies of {code}");
        }
    }

    #[test]
    fn each_notice_reaches_those_whom_it_concerns() {
        for (notice, expected) in [
            (Notice::Ready, Noticed::ServeWaiting),
            (Notice::Close, Noticed::TellClients),
            (Notice::Alarm, Noticed::LookAfter),
            (Notice::WakeUp, Noticed::ServeQueued),
        ] {
            assert_eq!(noticed(notice), expected);
        }
    }

    #[test]
    fn only_a_negative_answer_refuses_a_connection() {
        assert_eq!([-1, 0, 1].map(after_ready), [AfterReady::Fail, AfterReady::Keep, AfterReady::Keep]);
    }
}
