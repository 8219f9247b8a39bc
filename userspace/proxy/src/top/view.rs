//! Two pages as one screen: totals of the second, and rates between them.

use std::time::Duration;

use rustix::termios::tcgetwinsize;

use super::page::Page;
use super::table::{Table, amount, duration, share};

/// Of drops, exits and ends: the most frequent.
const FREQUENT: usize = 8;

/// What fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) lines: usize,
    pub(super) columns: usize,
}

impl Size {
    pub(super) const UNBOUNDED: Self = Self { lines: usize::MAX, columns: usize::MAX };

    /// Of the terminal at standard output, as far as it tells.
    pub(super) fn of_terminal() -> Self {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_row > 1 && size.ws_col > 0 => {
                Self { lines: size.ws_row.into(), columns: size.ws_col.into() }
            }
            _ => Self { lines: 24, columns: 80 },
        }
    }
}

/// The screen: two looks with so much time between them, the second at this Unix time.
pub(super) fn view(before: &Page, now: &Page, elapsed: Duration, unix_seconds: u64, size: Size) -> String {
    let looks = Looks { before, now, seconds: elapsed.as_secs_f64() };
    fit(&looks.lines(unix_seconds), size)
}

/// The lines that fit; what does not is said.
fn fit(lines: &[String], size: Size) -> String {
    let cut = |line: &String| line.chars().take(size.columns).collect::<String>();
    if lines.len() < size.lines {
        return lines.iter().map(|line| cut(line) + "\n").collect();
    }
    let shown = size.lines.saturating_sub(2);
    let left_off = lines.len() - shown;
    let shown: String = lines[..shown].iter().map(|line| cut(line) + "\n").collect();
    shown + &cut(&format!("... {left_off} lines more; all of them with --once")) + "\n"
}

/// Two looks at one proxy.
struct Looks<'a> {
    before: &'a Page,
    now: &'a Page,
    seconds: f64,
}

impl Looks<'_> {
    fn lines(&self, unix_seconds: u64) -> Vec<String> {
        let mut lines = self.head(unix_seconds);
        let tables =
            [self.workers(), self.queues(), self.buffers(), self.drops(), self.steering(), self.ends()];
        lines.extend(tables.iter().filter(|table| !table.is_empty()).flat_map(Table::lines));
        lines
    }

    /// How much a counter has grown in a second. One that has shrunk is another process's.
    fn rate(&self, series: &str) -> f64 {
        self.now.get(series).saturating_sub(self.before.get(series)) as f64 / self.seconds
    }

    fn per_second(&self, series: &str) -> String {
        amount(self.rate(series))
    }

    fn head(&self, unix_seconds: u64) -> Vec<String> {
        let now = self.now;
        let version = now.labels("mtproxy_build_info").next().unwrap_or("?");
        let up = duration(unix_seconds.saturating_sub(now.get("process_start_time_seconds")));
        let (open, most) = (now.get("mtproxy_sessions_open"), now.get("mtproxy_connections_limit"));
        let draining = if now.get("mtproxy_draining") == 1 { ", draining" } else { "" };
        let mut lines =
            vec![format!("mtproxy {version}, up {up}, {open} clients of {most} at most{draining}")];
        if now.labels("mtproxy_queue_mode").next().is_some() {
            let losses: Vec<String> = now
                .labels("mtproxy_xdp_lost_total")
                .map(|reason| (reason, now.one("mtproxy_xdp_lost_total", "reason", reason)))
                .filter(|(_, times)| *times > 0)
                .map(|(reason, times)| format!("{reason} {times}"))
                .collect();
            let lost = if losses.is_empty() {
                "never lost".to_owned()
            } else {
                format!("lost: {}", losses.join(", "))
            };
            lines.push(match now.get("mtproxy_xdp_queues") {
                0 => format!("AF_XDP is away, clients are served over epoll; {lost}"),
                queues => format!("AF_XDP serves {queues} queues; {lost}"),
            });
        }
        lines
    }

    fn workers(&self) -> Table {
        let mut table = Table::new(&[
            "worker",
            "clients",
            "opened/s",
            "secrets/s",
            "from clients B/s",
            "from upstream B/s",
            "busy",
        ]);
        for worker in self.now.labels("mtproxy_worker_sessions_open") {
            let of = |name: &str| format!("mtproxy_worker_{name}{{worker=\"{worker}\"}}");
            let bytes = |from: &str| {
                format!("mtproxy_worker_received_bytes_total{{worker=\"{worker}\",from=\"{from}\"}}")
            };
            table.push(vec![
                worker.to_owned(),
                amount(self.now.get(&of("sessions_open")) as f64),
                self.per_second(&of("sessions_opened_total")),
                self.per_second(&of("authenticated_total")),
                self.per_second(&bytes("client")),
                self.per_second(&bytes("upstream")),
                share(self.rate(&of("awake_microseconds_total")), 1e6),
            ]);
        }
        table
    }

    /// The mode's name, of those whose gauge is 1.
    fn mode(&self, queue: &str) -> &'static str {
        let is_it = |mode: &&str| {
            self.now.get(&format!("mtproxy_queue_mode{{queue=\"{queue}\",mode=\"{mode}\"}}")) == 1
        };
        ["zero_copy", "copy", "generic"].into_iter().find(is_it).unwrap_or("away")
    }

    fn queues(&self) -> Table {
        let mut table = Table::new(&[
            "queue",
            "mode",
            "rx/s",
            "tx/s",
            "rx B/s",
            "tx B/s",
            "open",
            "half open",
            "time wait",
            "resent/s",
            "dropped/s",
            "busy turns",
            "wakes/s",
        ]);
        for queue in self.now.labels("mtproxy_queue_mode") {
            let of = |name: &str| format!("mtproxy_queue_{name}{{queue=\"{queue}\"}}");
            let by = |name: &str, label: &str, value: &str| {
                format!("mtproxy_queue_{name}{{queue=\"{queue}\",{label}=\"{value}\"}}")
            };
            let state = |state| amount(self.now.get(&by("connections", "state", state)) as f64);
            let turns = |load| self.rate(&by("turns_total", "load", load));
            let (busy, idle) = (turns("busy"), turns("idle"));
            let reasons = self.now.labels("mtproxy_tcp_dropped_total");
            let dropped: f64 = reasons.map(|reason| self.rate(&by("dropped_total", "reason", reason))).sum();
            table.push(vec![
                queue.to_owned(),
                self.mode(queue).to_owned(),
                self.per_second(&by("packets_total", "direction", "received")),
                self.per_second(&by("packets_total", "direction", "sent")),
                self.per_second(&by("bytes_total", "direction", "received")),
                self.per_second(&by("bytes_total", "direction", "sent")),
                state("open"),
                state("half_open"),
                state("time_wait"),
                self.per_second(&of("retransmitted_segments_total")),
                amount(dropped),
                share(busy, busy + idle),
                self.per_second(&of("wake_ups_total")),
            ]);
        }
        table
    }

    fn buffers(&self) -> Table {
        let mut table = Table::new(&[
            "queue",
            "free",
            "fill ring",
            "ours",
            "in flight",
            "rx ring full/s",
            "tx ring full/s",
            "fill ring empty/s",
        ]);
        for queue in self.now.labels("mtproxy_queue_frames") {
            let frames = |state: &str| {
                amount(self.now.get(&format!("mtproxy_queue_frames{{queue=\"{queue}\",state=\"{state}\"}}"))
                    as f64)
            };
            let trouble = |ring: &str| {
                self.per_second(&format!(
                    "mtproxy_queue_ring_trouble_total{{queue=\"{queue}\",ring=\"{ring}\"}}"
                ))
            };
            table.push(vec![
                queue.to_owned(),
                frames("free"),
                frames("fill"),
                frames("ours"),
                frames("in_flight"),
                trouble("receive"),
                trouble("transmit"),
                trouble("fill"),
            ]);
        }
        table
    }

    /// The most frequent labels of a counter: of now, else of all time.
    fn frequent(&self, heading: &str, name: &str, more: impl Fn(&str) -> Option<String>) -> Vec<Vec<String>> {
        let label_name = heading;
        let mut rows: Vec<(f64, u64, &str)> = self
            .now
            .labels(name)
            .map(|label| {
                let series = format!("{name}{{{label_name}=\"{label}\"}}");
                (self.rate(&series), self.now.get(&series), label)
            })
            .filter(|(_, total, _)| *total > 0)
            .collect();
        rows.sort_by(|one, other| other.0.total_cmp(&one.0).then(other.1.cmp(&one.1)));
        let row = |(rate, total, label): (f64, u64, &str)| {
            let mut row = vec![label.to_owned(), amount(rate), amount(total as f64)];
            row.extend(more(label));
            row
        };
        rows.into_iter().take(FREQUENT).map(row).collect()
    }

    fn drops(&self) -> Table {
        let mut table = Table::new(&["dropped for", "per second", "in all", "by queue"]);
        let by_queue = |reason: &str| {
            let series =
                |queue: &str| format!("mtproxy_queue_dropped_total{{queue=\"{queue}\",reason=\"{reason}\"}}");
            let shares: Vec<String> = self
                .now
                .labels("mtproxy_queue_mode")
                .map(|queue| (queue, self.now.get(&series(queue))))
                .filter(|(_, total)| *total > 0)
                .take(FREQUENT)
                .map(|(queue, total)| format!("{queue}: {}", amount(total as f64)))
                .collect();
            Some(shares.join(", "))
        };
        self.frequent("reason", "mtproxy_tcp_dropped_total", by_queue)
            .into_iter()
            .for_each(|row| table.push(row));
        table
    }

    fn steering(&self) -> Table {
        let mut table = Table::new(&["steered", "per second", "in all"]);
        self.frequent("exit", "mtproxy_steering_total", |_| None).into_iter().for_each(|row| table.push(row));
        table
    }

    fn ends(&self) -> Table {
        let mut table = Table::new(&["clients dropped for", "per second", "in all"]);
        let rows = self.frequent("reason", "mtproxy_sessions_dropped_total", |_| None);
        rows.into_iter().for_each(|row| table.push(row));
        table
    }
}

#[cfg(test)]
mod tests;
