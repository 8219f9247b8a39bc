//! What a server's `Date` header says about this host's clock.
//!
//! A wrong clock fails silently everywhere else: middle proxies refuse a nonce whose time is off (protocol.md
//! section 7.2), and fake-TLS clients seem to come from the future or the past. Downloads bring the time along, so
//! they are where it is noticed. The clock itself is the operator's.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{error, info, warn};

/// What fake TLS forgives a client whose clock is right, if this host's is slow (protocol.md section 6.5).
const TOLERATED_SECONDS: u64 = 3;
/// What a middle proxy forgives.
pub(crate) const REFUSED_SECONDS: u64 = 30;

/// When a server answered, by its clock and by ours. All in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockReading {
    pub(crate) server: u64,
    pub(crate) ours_when_asked: u64,
    pub(crate) ours_when_answered: u64,
}

impl ClockReading {
    /// Our clock less the server's, in seconds; zero if the server's reading may lie within the exchange.
    pub(crate) fn ahead_seconds(self) -> i64 {
        let apart = |later: u64, earlier: u64| i64::try_from(later - earlier).unwrap_or(i64::MAX);
        // The header has whole seconds, as have ours.
        if self.server + 1 < self.ours_when_asked {
            apart(self.ours_when_asked, self.server)
        } else if self.server > self.ours_when_answered + 1 {
            -apart(self.server, self.ours_when_answered)
        } else {
            0
        }
    }
}

/// Says once that the clock is wrong, and once that it is right again.
#[derive(Debug, Default)]
pub(super) struct SkewReport {
    is_wrong: bool,
}

impl SkewReport {
    /// Judges `reading`, taken from the server `host`.
    pub(super) fn judge(&mut self, reading: ClockReading, host: &str) {
        let ahead = reading.ahead_seconds();
        let was_wrong = std::mem::replace(&mut self.is_wrong, ahead.unsigned_abs() > TOLERATED_SECONDS);
        match (was_wrong, self.is_wrong) {
            (false, true) if ahead.unsigned_abs() >= REFUSED_SECONDS => error!("{}", diagnosis(ahead, host)),
            (false, true) => warn!("{}", diagnosis(ahead, host)),
            (true, false) => info!(server = host, "this host's clock is right again"),
            (true, true) | (false, false) => {}
        }
    }
}

fn diagnosis(ahead: i64, host: &str) -> String {
    let seconds = ahead.unsigned_abs();
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let consequence = if seconds >= REFUSED_SECONDS {
        "middle proxies refuse links, and fake-TLS clients stay at \"connecting\""
    } else {
        "fake-TLS clients may stay at \"connecting\""
    };
    format!(
        "found this host's clock {seconds} seconds {direction} that of {host}; expected at most \
        {TOLERATED_SECONDS}: {consequence}; set the clock (`timedatectl` shows it, an NTP service keeps it right)"
    )
}

/// Unix time now. Before 1970 the clock is so wrong that zero is as good as anything.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reads the form of a date that HTTP servers must send, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section
/// 5.6.7). The two obsolete forms are as good as none: no skew is seen then.
pub(crate) fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.trim().strip_suffix(" GMT")?.split_once(", ")?;
    let mut words = date.split(' ');
    let mut next = || words.next();
    let (day, month, year, time) = (next()?, next()?, next()?, next()?);
    if next().is_some() {
        return None;
    }
    let number = |digits: &str, len: usize, range: std::ops::RangeInclusive<u64>| {
        let is_plain = digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number| is_plain && range.contains(number))
    };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let days = days_since_1970(number(year, 4, 1970..=9999)?, month, number(day, 2, 1..=31)?);
    let mut parts = time.split(':');
    let mut part = |range| number(parts.next()?, 2, range);
    let seconds = part(0..=23)? * 3600 + part(0..=59)? * 60 + part(0..=60)?;
    parts.next().is_none().then_some(days * 86_400 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counting years from March so that the leap day is the
/// last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    /// From March of year 0 to 1970-01-01.
    const TO_1970: u64 = 719_468;
    let (year, months_after_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_months = (153 * months_after_march + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + of_months + day - 1 - TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read_as_rfc_9110_writes_them() {
        for (text, unix) in [
            // RFC 9110's own example; the others by `date -u -d … +%s`.
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800)),
            ("Fri, 31 Dec 2100 12:00:00 GMT", Some(4_133_937_600)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(text), unix, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = parse_http_date(&text);
        }
    }

    fn ahead(server: u64) -> i64 {
        ClockReading { server, ours_when_asked: 1000, ours_when_answered: 1010 }.ahead_seconds()
    }

    #[test]
    fn a_slow_answer_is_no_skew_and_the_rest_is_counted_from_the_nearer_end() {
        for within in [999, 1000, 1005, 1010, 1011] {
            assert_eq!(ahead(within), 0, "{within}");
        }
        assert_eq!((ahead(998), ahead(900)), (2, 100));
        assert_eq!((ahead(1012), ahead(1100)), (-2, -90));
    }

    #[test]
    fn a_wrong_clock_is_said_once_until_it_is_right_again() {
        let mut report = SkewReport::default();
        let mut wrong_after = |server| {
            report.judge(ClockReading { server, ours_when_asked: 1000, ours_when_answered: 1000 }, "h");
            report.is_wrong
        };
        assert!(!wrong_after(997), "three seconds are tolerated");
        assert!(wrong_after(996) && wrong_after(500));
        assert!(!wrong_after(1000));
        let text = diagnosis(-45, "core.telegram.org");
        for part in ["45 seconds behind that of core.telegram.org", "middle proxies refuse", "timedatectl"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!diagnosis(29, "h").contains("refuse") && diagnosis(30, "h").contains("refuse"));
    }
}
