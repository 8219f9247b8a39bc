//! Which downloads are believed, and when the next one is due.
//!
//! # The stable-snapshot rule
//! A download that is whole (its status is 200, it parses, it fits its size) is judged against the document in use:
//!
//! 1. The same bytes: the document is current.
//! 2. No document in use, as at a first start: it is taken at once. There is nothing to compare it with, and nothing
//!    would work without it.
//! 3. It has lost more than half of the data centres, or is a page of HTML in place of a secret: refused, with a
//!    warning, at every download until the source mends or the operator removes the cached copy.
//! 4. New: it becomes the *candidate*, and the source is asked again after [`confirm_after`]. If it sends the same
//!    bytes then, they are taken. If it sends others, those become the candidate. [`LOOKS_MAX`] different ones in a
//!    row are refused until the next ordinary download.
//!
//! So a source whose servers do not agree yet, or one that was broken for minutes, moves nobody.
//!
//! [`confirm_after`]: Schedule::confirm_after

use std::time::{Duration, Instant};

use mtproxy_core::random::Random;

use super::document::{Content, Document};

/// Different files in a row after which a source is left alone until the next ordinary download.
const LOOKS_MAX: u32 = 4;

/// Before the first retry of a failed download; doubled up to [`RETRY_AT_MOST`]. At boot the network is late.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// A source that is blocked stays blocked; asking it more often only draws attention.
const RETRY_AT_MOST: Duration = Duration::from_secs(6 * 3600);

/// What a download came to.
#[derive(Debug)]
pub(super) enum Verdict<T> {
    /// Nothing new.
    Current,
    /// Something new, to be looked at again.
    Candidate,
    /// To be used from now on.
    Accepted(Document<T>),
    /// Not to be believed, and why.
    Refused(String),
}

/// What the downloads of one file have come to.
#[derive(Debug)]
pub(super) struct StableSnapshot<T> {
    /// The last new download, and when it was first seen.
    candidate: Option<(Document<T>, Instant)>,
    /// Different candidates in a row.
    looks: u32,
}

impl<T: Content> StableSnapshot<T> {
    pub(super) fn new() -> Self {
        Self { candidate: None, looks: 0 }
    }

    /// Judges `downloaded` by the rule above.
    pub(super) fn judge(
        &mut self,
        downloaded: Document<T>,
        in_use: Option<&Document<T>>,
        confirm_after: Duration,
        now: Instant,
    ) -> Verdict<T> {
        let candidate = self.candidate.take();
        let Some(in_use) = in_use else { return self.settle(Verdict::Accepted(downloaded)) };
        if downloaded.is_same_as(in_use) {
            return self.settle(Verdict::Current);
        }
        if let Some(reason) = in_use.content.refuses(&downloaded.content) {
            return self.settle(Verdict::Refused(reason));
        }
        let first_seen = match candidate {
            Some((candidate, first_seen)) if candidate.is_same_as(&downloaded) => first_seen,
            Some(_) | None => {
                self.looks += 1;
                now
            }
        };
        if now.duration_since(first_seen) >= confirm_after {
            return self.settle(Verdict::Accepted(downloaded));
        }
        if self.looks > LOOKS_MAX {
            return self.settle(Verdict::Refused(format!(
                "found another file at each of {LOOKS_MAX} looks; expected its source to settle"
            )));
        }
        self.candidate = Some((downloaded, first_seen));
        Verdict::Candidate
    }

    fn settle(&mut self, verdict: Verdict<T>) -> Verdict<T> {
        self.looks = 0;
        verdict
    }
}

/// When to download one file.
#[derive(Debug)]
pub(super) struct Schedule {
    every: Duration,
    confirm_after: Duration,
    random: Random,
    /// Failed ones in a row.
    failures: u32,
    next_at: Instant,
}

impl Schedule {
    /// The first download is due `first_in` after `now`.
    pub(super) fn new(every: Duration, confirm_after: Duration, random: Random, first_at: Instant) -> Self {
        Self { every, confirm_after, random, failures: 0, next_at: first_at }
    }

    /// When the next download is due.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Between a first and a second look at something new.
    pub(super) fn confirm_after(&self) -> Duration {
        self.confirm_after
    }

    /// Plans the next one after a download was judged. Deployments that started together should not all ask
    /// together, so an ordinary one comes up to a tenth earlier or later.
    pub(super) fn judged<T>(&mut self, verdict: &Verdict<T>, now: Instant) {
        self.failures = 0;
        let wait = match verdict {
            Verdict::Candidate => self.confirm_after,
            Verdict::Current | Verdict::Accepted(_) | Verdict::Refused(_) => {
                spread(self.every, &mut self.random)
            }
        };
        self.next_at = now + wait;
    }

    /// Forgets failures so far: those of a start, which tries again at its own pace.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
    }

    /// Plans the next one after a download failed. Returns how long that is.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let doubled = RETRY_AFTER.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        let wait = spread(doubled.min(RETRY_AT_MOST).min(self.every), &mut self.random);
        self.next_at = now + wait;
        wait
    }
}

/// `around`, up to a tenth more or less.
fn spread(around: Duration, random: &mut Random) -> Duration {
    around * (900 + random.below(201)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_core::middle_proxy::cluster_file::ClusterFile;
    use std::time::SystemTime;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    fn document(text: &str) -> Document<ClusterFile> {
        Document::read("name", text.as_bytes(), SystemTime::now()).unwrap()
    }

    fn with_host(number: u32) -> Document<ClusterFile> {
        document(&format!("proxy_for 2 192.0.2.{number}:8888;"))
    }

    /// Judges each of `numbers`, a download every ten minutes, against the document 0.
    fn judged(numbers: &[u32]) -> Vec<Verdict<ClusterFile>> {
        let (in_use, start) = (with_host(0), Instant::now());
        let mut snapshot = StableSnapshot::new();
        let times = (0..).map(|round| start + TEN_MINUTES * round);
        let judge = |(&number, now)| snapshot.judge(with_host(number), Some(&in_use), TEN_MINUTES, now);
        numbers.iter().zip(times).map(judge).collect()
    }

    #[test]
    fn the_first_document_of_all_is_taken_at_once() {
        let verdict = StableSnapshot::new().judge(with_host(1), None, TEN_MINUTES, Instant::now());
        assert!(matches!(verdict, Verdict::Accepted(_)));
    }

    #[test]
    fn what_is_in_use_already_is_current() {
        assert!(matches!(judged(&[0])[..], [Verdict::Current]));
    }

    #[test]
    fn something_new_is_taken_when_it_is_seen_again_after_the_wait() {
        assert!(matches!(judged(&[1, 1])[..], [Verdict::Candidate, Verdict::Accepted(_)]));
        let (in_use, start) = (with_host(0), Instant::now());
        let mut snapshot = StableSnapshot::new();
        let mut judge = |after| snapshot.judge(with_host(1), Some(&in_use), TEN_MINUTES, start + after);
        assert!(matches!(judge(Duration::ZERO), Verdict::Candidate));
        assert!(matches!(judge(TEN_MINUTES - Duration::from_millis(1)), Verdict::Candidate), "too early");
        assert!(matches!(judge(TEN_MINUTES), Verdict::Accepted(_)), "the time of the first look counts");
    }

    #[test]
    fn a_source_that_changes_its_mind_starts_anew() {
        let verdicts = judged(&[1, 2, 1, 1]);
        assert!(matches!(
            verdicts[..],
            [Verdict::Candidate, Verdict::Candidate, Verdict::Candidate, Verdict::Accepted(_)]
        ));
        let verdicts = judged(&[1, 0, 1]);
        assert!(matches!(verdicts[..], [Verdict::Candidate, Verdict::Current, Verdict::Candidate]));
    }

    #[test]
    fn a_source_that_never_settles_is_left_alone() {
        let verdicts = judged(&[1, 2, 3, 4, 5, 6]);
        assert!(matches!(verdicts[3], Verdict::Candidate));
        assert!(matches!(&verdicts[4], Verdict::Refused(reason) if reason.contains("4 looks")));
        assert!(matches!(verdicts[5], Verdict::Candidate), "the next ordinary download starts anew");
    }

    #[test]
    fn a_file_without_most_data_centres_is_refused_however_often_it_comes() {
        let in_use = document("proxy_for 1 192.0.2.1:1; proxy_for 2 192.0.2.1:1; proxy_for 3 192.0.2.1:1;");
        let mut snapshot = StableSnapshot::new();
        for round in 0..3 {
            let now = Instant::now() + TEN_MINUTES * round;
            let verdict =
                snapshot.judge(document("proxy_for 1 192.0.2.1:1;"), Some(&in_use), TEN_MINUTES, now);
            assert!(matches!(verdict, Verdict::Refused(_)));
        }
    }

    fn schedule(every: Duration) -> (Schedule, Instant) {
        let start = Instant::now();
        (Schedule::new(every, TEN_MINUTES, Random::from_seed([7; 32]), start), start)
    }

    #[test]
    fn ordinary_downloads_come_once_a_period_give_or_take_a_tenth() {
        const DAY: Duration = Duration::from_secs(86_400);
        let (mut schedule, start) = schedule(DAY);
        let mut waits = Vec::new();
        for _ in 0..100 {
            schedule.judged(&Verdict::<ClusterFile>::Current, start);
            waits.push(schedule.next_at() - start);
        }
        assert!(waits.iter().all(|wait| *wait >= DAY * 9 / 10 && *wait <= DAY * 11 / 10));
        assert!(waits.iter().max().unwrap().abs_diff(*waits.iter().min().unwrap()) > DAY / 10, "they differ");
        schedule.judged(&Verdict::<ClusterFile>::Candidate, start);
        assert_eq!(schedule.next_at() - start, TEN_MINUTES);
    }

    #[test]
    fn failures_are_retried_ever_more_slowly_until_a_success_or_the_end_of_the_start() {
        let (mut schedule, start) = schedule(Duration::from_secs(86_400));
        let first = schedule.failed(start);
        assert!(first >= RETRY_AFTER * 9 / 10 && first <= RETRY_AFTER * 11 / 10);
        for _ in 0..40 {
            schedule.failed(start);
        }
        assert!(schedule.failed(start) >= RETRY_AT_MOST * 9 / 10);
        assert!(schedule.failed(start) <= RETRY_AT_MOST * 11 / 10);
        schedule.judged(&Verdict::<ClusterFile>::Current, start);
        assert!(schedule.failed(start) <= RETRY_AFTER * 11 / 10);
        assert!(schedule.failed(start) > RETRY_AFTER * 11 / 10);
        schedule.forgive();
        assert!(schedule.failed(start) <= RETRY_AFTER * 11 / 10);
    }

    #[test]
    fn no_retry_waits_longer_than_an_ordinary_download() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (mut schedule, start) = schedule(HOUR);
        for _ in 0..40 {
            assert!(schedule.failed(start) <= HOUR * 11 / 10);
        }
    }
}
