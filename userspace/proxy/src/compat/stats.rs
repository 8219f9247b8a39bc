//! The page of statistics as the official proxy's users read it (protocol.md section 10): every name in order. A number
//! means here what it means there, or is 0 where nothing here could.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use mtproxy_core::error::DropReason;
use mtproxy_core::middle_proxy::LinkLoss;

use crate::control::middle_proxies::LoadedMiddleProxies;
use crate::settings::{Compat, Settings};
use crate::telemetry::metrics::Metrics;

/// What the page is made of, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsSnapshot {
    /// This process.
    pub pid: u64,
    /// When it was started.
    pub start_unix: u64,
    /// Now.
    pub now_unix: u64,
    /// The local port.
    pub port: u16,
    /// Seconds slept by all workers, over their number.
    pub idle_seconds: f64,
    /// … in percent of the time since the start.
    pub average_idle_percent: f64,
    /// … of the last minutes.
    pub recent_idle_percent: f64,
    /// Client connections now.
    pub clients: u64,
    /// … and at most.
    pub clients_max: u64,
    /// … accepted so far.
    pub accepted: u64,
    /// Times that accepting paused.
    pub accept_pauses: u64,
    /// Ports of clients.
    pub listeners: u64,
    /// Links now.
    pub links_open: u64,
    /// … that carry packets.
    pub links_ready: u64,
    /// … that became ready so far.
    pub links_made: u64,
    /// … that ended because nobody needed them.
    pub links_retired: u64,
    /// … that failed.
    pub connect_failures: u64,
    /// Middle proxies configured.
    pub targets: u64,
    /// … reached.
    pub targets_ready: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes that wait.
    pub buffered_bytes: u64,
    /// … at most.
    pub buffer_limit_bytes: u64,
    /// Packets forwarded, and so on.
    pub requests: u64,
    /// Answers given.
    pub answers: u64,
    /// Answers for nobody.
    pub answers_dropped: u64,
    /// Quick acknowledgements given.
    pub acks: u64,
    /// … for nobody.
    pub acks_dropped: u64,
    /// Mappings made.
    pub mappings: u64,
    /// Clients closed because memory was short.
    pub dropped_for_memory: u64,
    /// Clients closed because they did not read.
    pub dropped_for_slowness: u64,
    /// Workers asked for.
    pub slaves: u64,
    /// A proxy tag is set.
    pub has_tag: bool,
    /// proxy-multi.conf: its name.
    pub config_name: String,
    /// … its size.
    pub config_bytes: u64,
    /// … its MD5.
    pub config_md5: String,
    /// … when it was read.
    pub config_loaded_unix: u64,
    /// … its clusters.
    pub clusters: u64,
    /// MD5 of proxy-secret.
    pub secret_md5: String,
    /// Memory of the process.
    pub memory: Memory,
}

/// Memory of the process, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Addresses in use.
    pub virtual_bytes: u64,
    /// Pages in memory.
    pub resident_bytes: u64,
    /// Data and stack.
    pub data_bytes: u64,
}

impl Memory {
    /// Of this process now; nothing where /proc is not there.
    #[must_use]
    pub fn now() -> Self {
        let page = rustix::param::page_size() as u64;
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0_u64) * page);
        let mut next = || pages.next().unwrap_or_default();
        let (virtual_bytes, resident_bytes) = (next(), next());
        // shared, text, lib.
        let data_bytes = pages.nth(3).unwrap_or_default();
        Self { virtual_bytes, resident_bytes, data_bytes }
    }
}

impl StatsSnapshot {
    /// What the counters say now.
    #[must_use]
    pub fn read(metrics: &Metrics) -> Self {
        let dropped = |why: DropReason| metrics.sum(|worker| &worker.sessions_dropped[why as usize]);
        let retired = LinkLoss::Retired.index();
        let links_retired = metrics.sum(|worker| &worker.middle_proxy.links_lost[retired]);
        let links_lost: u64 = (0..LinkLoss::NAMES.len())
            .map(|why| metrics.sum(|worker| &worker.middle_proxy.links_lost[why]))
            .sum();
        let workers = metrics.workers_count().max(1) as f64;
        let (start_unix, now_unix) = (unix(metrics.started()), unix(SystemTime::now()));
        let idle_seconds = metrics.sum(|worker| &worker.idle_milliseconds) as f64 / 1000.0 / workers;
        let uptime = now_unix.saturating_sub(start_unix).max(1) as f64;
        Self {
            pid: std::process::id().into(),
            start_unix,
            now_unix,
            idle_seconds,
            average_idle_percent: (idle_seconds / uptime * 100.0).min(100.0),
            recent_idle_percent: metrics.sum_gauge(|worker| &worker.recent_idle_permille) as f64
                / 10.0
                / workers,
            clients: metrics.sessions_open(),
            clients_max: metrics.connections_limit() as u64,
            accepted: metrics.sum(|worker| &worker.sessions_opened),
            accept_pauses: metrics.sum(|worker| &worker.accept_pauses),
            links_open: metrics.sum_gauge(|worker| &worker.middle_proxy.links[0]),
            links_ready: metrics.sum_gauge(|worker| &worker.middle_proxy.links[1]),
            links_made: metrics.sum(|worker| &worker.middle_proxy.links_ready),
            links_retired,
            connect_failures: links_lost - links_retired,
            targets: metrics.sum_gauge(|worker| &worker.middle_proxy.targets[0]),
            targets_ready: metrics.sum_gauge(|worker| &worker.middle_proxy.targets[1]),
            received_bytes: metrics.sum(|worker| &worker.received_bytes[0])
                + metrics.sum(|worker| &worker.received_bytes[1]),
            buffered_bytes: metrics.sum_gauge(|worker| &worker.middle_proxy.buffered_bytes),
            requests: metrics.sum(|worker| &worker.middle_proxy.requests),
            answers: metrics.sum(|worker| &worker.middle_proxy.answers[0]),
            answers_dropped: metrics.sum(|worker| &worker.middle_proxy.answers[1]),
            acks: metrics.sum(|worker| &worker.middle_proxy.acks[0]),
            acks_dropped: metrics.sum(|worker| &worker.middle_proxy.acks[1]),
            mappings: metrics.sum(|worker| &worker.middle_proxy.mappings),
            dropped_for_memory: dropped(DropReason::MemoryPressure),
            dropped_for_slowness: dropped(DropReason::SlowReader),
            memory: Memory::now(),
            ..Self::default()
        }
    }

    /// The same with what the settings say, and what is known of middle proxies.
    #[must_use]
    pub fn describe(
        self,
        settings: &Settings,
        compat: &Compat,
        loaded: Option<&LoadedMiddleProxies>,
    ) -> Self {
        let middle_proxies = settings.middle_proxies.as_ref();
        let described = Self {
            listeners: settings.listen.len() as u64,
            slaves: compat.slaves.into(),
            has_tag: middle_proxies.is_some_and(|settings| settings.proxy_tag.is_some()),
            buffer_limit_bytes: middle_proxies.map_or(0, |settings| settings.buffer_bytes as u64),
            ..self
        };
        let Some(loaded) = loaded else { return described };
        Self {
            config_name: loaded.config_origin.name.clone(),
            config_bytes: loaded.config_origin.bytes as u64,
            config_md5: loaded.config_origin.md5_hex.clone(),
            config_loaded_unix: unix(loaded.config_origin.loaded_at),
            clusters: loaded.clusters.by_id.len() as u64,
            secret_md5: loaded.secret_origin.md5_hex.clone(),
            ..described
        }
    }

    fn uptime_seconds(&self) -> u64 {
        self.now_unix.saturating_sub(self.start_unix)
    }

    /// `[ip:port:pid:start]`; no address, since each link has its own.
    fn process(&self) -> String {
        format!("[0.0.0.0:{}:{}:{}]", self.port, self.pid, self.start_unix)
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::with_capacity(8 * 1024);
        for row in ROWS {
            row.write(self, &mut page);
        }
        page
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A line of the page.
#[derive(Debug)]
pub struct Row {
    /// Its first word.
    pub name: &'static str,
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// A section begins.
    Begin,
    /// A section ends.
    End,
    Number(fn(&StatsSnapshot) -> u64),
    Real(fn(&StatsSnapshot) -> f64),
    Text(fn(&StatsSnapshot) -> String),
    /// So many values that mean nothing here.
    Zeros(usize),
}

impl Row {
    fn write(&self, stats: &StatsSnapshot, page: &mut String) {
        let name = self.name;
        // Writing to a String does not fail.
        let _ = match &self.value {
            Value::Begin => writeln!(page, ">>>>>>{name}>>>>>>\tstart"),
            Value::End => writeln!(page, "<<<<<<{name}<<<<<<\tend"),
            Value::Number(read) => writeln!(page, "{name}\t{}", read(stats)),
            Value::Real(read) => writeln!(page, "{name}\t{:.3}", read(stats)),
            Value::Text(read) => writeln!(page, "{name}\t{}", read(stats)),
            Value::Zeros(count) => writeln!(page, "{name}\t{}", vec!["0"; *count].join(" ")),
        };
    }
}

/// Every line in order.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    Row { name: "pid", value: Value::Number(|stats| stats.pid) },
    Row { name: "start_time", value: Value::Number(|stats| stats.start_unix) },
    Row { name: "current_time", value: Value::Number(|stats| stats.now_unix) },
    Row { name: "uptime", value: Value::Number(StatsSnapshot::uptime_seconds) },
    Row { name: "tot_idle_time", value: Value::Real(|stats| stats.idle_seconds) },
    Row { name: "average_idle_percent", value: Value::Real(|stats| stats.average_idle_percent) },
    Row { name: "recent_idle_percent", value: Value::Real(|stats| stats.recent_idle_percent) },
    Row { name: "active_network_events", value: Value::Zeros(1) },
    Row { name: "time_after_epoll", value: Value::Zeros(1) },
    Row { name: "epoll_calls", value: Value::Zeros(1) },
    Row { name: "epoll_intr", value: Value::Zeros(1) },
    Row { name: "PID", value: Value::Text(StatsSnapshot::process) },
    Row { name: "connections", value: Value::Begin },
    Row { name: "active_connections", value: Value::Number(|stats| stats.clients + stats.links_ready) },
    Row { name: "active_dh_connections", value: Value::Zeros(1) },
    Row { name: "outbound_connections", value: Value::Number(|stats| stats.links_open) },
    Row { name: "ready_outbound_connections", value: Value::Number(|stats| stats.links_ready) },
    Row { name: "active_outbound_connections", value: Value::Number(|stats| stats.links_ready) },
    Row { name: "outbound_connections_created", value: Value::Number(|stats| stats.links_made) },
    Row { name: "total_connect_failures", value: Value::Number(|stats| stats.connect_failures) },
    Row { name: "inbound_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "active_inbound_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "inbound_connections_accepted", value: Value::Number(|stats| stats.accepted) },
    Row { name: "listening_connections", value: Value::Number(|stats| stats.listeners) },
    Row { name: "unused_connections_closed", value: Value::Number(|stats| stats.links_retired) },
    Row { name: "ready_targets", value: Value::Number(|stats| stats.targets_ready) },
    Row { name: "allocated_targets", value: Value::Number(|stats| stats.targets) },
    Row { name: "active_targets", value: Value::Number(|stats| stats.targets) },
    Row { name: "inactive_targets", value: Value::Zeros(1) },
    Row { name: "free_targets", value: Value::Zeros(1) },
    Row { name: "max_connections", value: Value::Number(|stats| stats.clients_max) },
    Row { name: "active_special_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "max_special_connections", value: Value::Number(|stats| stats.clients_max) },
    Row { name: "max_accept_rate", value: Value::Zeros(1) },
    Row { name: "cur_accept_rate_remaining", value: Value::Real(|_| 0.0) },
    Row { name: "max_connection", value: Value::Zeros(1) },
    Row { name: "conn_generation", value: Value::Zeros(1) },
    Row { name: "allocated_connections", value: Value::Number(|stats| stats.clients + stats.links_open) },
    Row { name: "allocated_outbound_connections", value: Value::Number(|stats| stats.links_open) },
    Row { name: "allocated_inbound_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "allocated_socket_connections", value: Value::Number(|stats| stats.clients + stats.links_open) },
    Row { name: "tcp_readv_calls", value: Value::Zeros(1) },
    Row { name: "tcp_readv_intr", value: Value::Zeros(1) },
    Row { name: "tcp_readv_bytes", value: Value::Number(|stats| stats.received_bytes) },
    Row { name: "tcp_writev_calls", value: Value::Zeros(1) },
    Row { name: "tcp_writev_intr", value: Value::Zeros(1) },
    Row { name: "tcp_writev_bytes", value: Value::Zeros(1) },
    Row { name: "free_later_size", value: Value::Zeros(1) },
    Row { name: "free_later_total", value: Value::Zeros(1) },
    Row { name: "accept_calls_failed", value: Value::Number(|stats| stats.accept_pauses) },
    Row { name: "accept_nonblock_set_failed", value: Value::Zeros(1) },
    Row { name: "accept_connection_limit_failed", value: Value::Zeros(1) },
    Row { name: "accept_rate_limit_failed", value: Value::Zeros(1) },
    Row { name: "accept_init_accepted_failed", value: Value::Zeros(1) },
    Row { name: "connections", value: Value::End },
    Row { name: "raw_msg", value: Value::Begin },
    Row { name: "rwm_total_msgs", value: Value::Zeros(1) },
    Row { name: "rwm_total_msg_parts", value: Value::Zeros(1) },
    Row { name: "raw_msg", value: Value::End },
    Row { name: "raw_msg_buffer", value: Value::Begin },
    Row { name: "total_used_buffers_size", value: Value::Number(|stats| stats.buffered_bytes) },
    Row { name: "total_used_buffers", value: Value::Zeros(1) },
    Row { name: "allocated_buffer_bytes", value: Value::Number(|stats| stats.buffered_bytes) },
    Row { name: "buffer_chunk_alloc_ops", value: Value::Zeros(1) },
    Row { name: "allocated_buffer_chunks", value: Value::Zeros(1) },
    Row { name: "max_allocated_buffer_chunks", value: Value::Zeros(1) },
    Row { name: "max_buffer_chunks", value: Value::Zeros(1) },
    Row { name: "max_allocated_buffer_bytes", value: Value::Number(|stats| stats.buffer_limit_bytes) },
    Row { name: "raw_msg_buffer", value: Value::End },
    Row { name: "tl_parse", value: Value::Begin },
    Row { name: "rpc_queries_received", value: Value::Zeros(1) },
    Row { name: "rpc_answers_error", value: Value::Zeros(1) },
    Row { name: "rpc_answers_received", value: Value::Zeros(1) },
    Row { name: "rpc_sent_errors", value: Value::Zeros(1) },
    Row { name: "rpc_sent_answers", value: Value::Zeros(1) },
    Row { name: "rpc_sent_queries", value: Value::Zeros(1) },
    Row { name: "tl_in_allocated", value: Value::Zeros(1) },
    Row { name: "tl_out_allocated", value: Value::Zeros(1) },
    Row { name: "rpc_qps", value: Value::Real(|_| 0.0) },
    Row { name: "default_rpc_flags", value: Value::Zeros(1) },
    Row { name: "tl_parse", value: Value::End },
    Row { name: "crypto_aes", value: Value::Begin },
    Row { name: "allocated_aes_crypto", value: Value::Zeros(1) },
    Row { name: "allocated_aes_crypto_temp", value: Value::Zeros(1) },
    Row { name: "aes_pwd_hash", value: Value::Text(|stats| stats.secret_md5.clone()) },
    Row { name: "crypto_aes", value: Value::End },
    Row { name: "crypto_dh", value: Value::Begin },
    Row { name: "tot_dh_rounds", value: Value::Zeros(3) },
    Row { name: "crypto_dh", value: Value::End },
    Row { name: "jobs", value: Value::Begin },
    Row { name: "thread_average_idle_percent", value: Value::Real(|_| 0.0) },
    Row { name: "thread_recent_idle_percent", value: Value::Real(|_| 0.0) },
    Row { name: "tot_threads", value: Value::Zeros(1) },
    Row { name: "thread_load_average_user", value: Value::Real(|_| 0.0) },
    Row { name: "thread_load_average_sys", value: Value::Real(|_| 0.0) },
    Row { name: "thread_load_average", value: Value::Real(|_| 0.0) },
    Row { name: "thread_load_recent_user", value: Value::Real(|_| 0.0) },
    Row { name: "thread_load_recent_sys", value: Value::Real(|_| 0.0) },
    Row { name: "thread_load_recent", value: Value::Real(|_| 0.0) },
    Row { name: "load_average_user", value: Value::Real(|_| 0.0) },
    Row { name: "load_average_sys", value: Value::Real(|_| 0.0) },
    Row { name: "load_average_total", value: Value::Real(|_| 0.0) },
    Row { name: "load_recent_user", value: Value::Real(|_| 0.0) },
    Row { name: "load_recent_sys", value: Value::Real(|_| 0.0) },
    Row { name: "load_recent_total", value: Value::Real(|_| 0.0) },
    Row { name: "max_average_user", value: Value::Real(|_| 0.0) },
    Row { name: "max_average_sys", value: Value::Real(|_| 0.0) },
    Row { name: "max_average_total", value: Value::Real(|_| 0.0) },
    Row { name: "max_recent_user", value: Value::Real(|_| 0.0) },
    Row { name: "max_recent_sys", value: Value::Real(|_| 0.0) },
    Row { name: "max_recent_total", value: Value::Real(|_| 0.0) },
    Row { name: "job_timers_allocated", value: Value::Zeros(1) },
    Row { name: "jobs_created", value: Value::Zeros(1) },
    Row { name: "jobs_active", value: Value::Zeros(1) },
    Row { name: "jobs_running", value: Value::Zeros(1) },
    Row { name: "jobs_allocated_memory", value: Value::Zeros(1) },
    Row { name: "timer_ops", value: Value::Zeros(1) },
    Row { name: "timer_ops_scheduler", value: Value::Zeros(1) },
    Row { name: "jobs", value: Value::End },
    Row { name: "mp_queue", value: Value::Begin },
    Row { name: "mpq_blocks_allocated", value: Value::Zeros(1) },
    Row { name: "mpq_blocks_allocated_max", value: Value::Zeros(1) },
    Row { name: "mpq_blocks_allocations", value: Value::Zeros(1) },
    Row { name: "mpq_blocks_true_allocations", value: Value::Zeros(1) },
    Row { name: "mpq_blocks_wasted", value: Value::Zeros(1) },
    Row { name: "mpq_blocks_prepared", value: Value::Zeros(1) },
    Row { name: "mpq_small_blocks_allocated", value: Value::Zeros(1) },
    Row { name: "mpq_small_blocks_allocated_max", value: Value::Zeros(1) },
    Row { name: "mpq_active", value: Value::Zeros(1) },
    Row { name: "mpq_allocated", value: Value::Zeros(1) },
    Row { name: "mp_queue", value: Value::End },
    Row { name: "timers", value: Value::Begin },
    Row { name: "event_timer_insert_ops", value: Value::Zeros(1) },
    Row { name: "event_timer_remove_ops", value: Value::Zeros(1) },
    Row { name: "event_timer_alarms", value: Value::Zeros(1) },
    Row { name: "total_timers", value: Value::Zeros(1) },
    Row { name: "timers", value: Value::End },
    Row { name: "rpc_targets", value: Value::Begin },
    Row { name: "total_rpc_targets", value: Value::Number(|stats| stats.targets) },
    Row { name: "total_connections_in_rpc_targets", value: Value::Number(|stats| stats.links_open) },
    Row { name: "rpc_targets", value: Value::End },
    Row { name: "stats_generate_time", value: Value::Real(|_| 0.0) },
    Row { name: "vmsize_bytes", value: Value::Number(|stats| stats.memory.virtual_bytes) },
    Row { name: "vmrss_bytes", value: Value::Number(|stats| stats.memory.resident_bytes) },
    Row { name: "vmdata_bytes", value: Value::Number(|stats| stats.memory.data_bytes) },
    Row { name: "config_filename", value: Value::Text(|stats| stats.config_name.clone()) },
    Row { name: "config_loaded_at", value: Value::Number(|stats| stats.config_loaded_unix) },
    Row { name: "config_size", value: Value::Number(|stats| stats.config_bytes) },
    Row { name: "config_md5", value: Value::Text(|stats| stats.config_md5.clone()) },
    Row { name: "config_auth_clusters", value: Value::Number(|stats| stats.clusters) },
    Row { name: "workers", value: Value::Number(|stats| stats.slaves) },
    Row { name: "queries_get", value: Value::Zeros(1) },
    Row { name: "qps_get", value: Value::Real(|_| 0.0) },
    Row { name: "tot_forwarded_queries", value: Value::Number(|stats| stats.requests) },
    Row { name: "expired_forwarded_queries", value: Value::Zeros(1) },
    Row { name: "dropped_queries", value: Value::Zeros(1) },
    Row { name: "tot_forwarded_responses", value: Value::Number(|stats| stats.answers) },
    Row { name: "dropped_responses", value: Value::Number(|stats| stats.answers_dropped) },
    Row { name: "tot_forwarded_simple_acks", value: Value::Number(|stats| stats.acks) },
    Row { name: "dropped_simple_acks", value: Value::Number(|stats| stats.acks_dropped) },
    Row { name: "active_rpcs_created", value: Value::Zeros(1) },
    Row { name: "active_rpcs", value: Value::Zeros(1) },
    Row { name: "rpc_dropped_answers", value: Value::Zeros(1) },
    Row { name: "rpc_dropped_running", value: Value::Zeros(1) },
    Row { name: "window_clamp", value: Value::Zeros(1) },
    Row { name: "total_ready_targets", value: Value::Number(|stats| stats.targets_ready) },
    Row { name: "total_allocated_targets", value: Value::Number(|stats| stats.targets) },
    Row { name: "total_declared_targets", value: Value::Number(|stats| stats.targets) },
    Row { name: "total_inactive_targets", value: Value::Zeros(1) },
    Row { name: "total_connections", value: Value::Number(|stats| stats.clients + stats.links_open) },
    Row { name: "total_encrypted_connections", value: Value::Number(|stats| stats.clients + stats.links_ready) },
    Row { name: "total_allocated_connections", value: Value::Number(|stats| stats.clients + stats.links_open) },
    Row { name: "total_allocated_outbound_connections", value: Value::Number(|stats| stats.links_open) },
    Row { name: "total_allocated_inbound_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "total_allocated_socket_connections", value: Value::Number(|stats| stats.clients + stats.links_open) },
    Row { name: "total_dh_connections", value: Value::Zeros(1) },
    Row { name: "total_dh_rounds", value: Value::Zeros(3) },
    Row { name: "total_special_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "total_max_special_connections", value: Value::Number(|stats| stats.clients_max) },
    Row { name: "total_accept_connections_failed", value: Value::Zeros(5) },
    Row { name: "ext_connections", value: Value::Number(|stats| stats.clients) },
    Row { name: "ext_connections_created", value: Value::Number(|stats| stats.mappings) },
    Row { name: "total_active_network_events", value: Value::Zeros(1) },
    Row { name: "total_network_buffers_used_size", value: Value::Number(|stats| stats.buffered_bytes) },
    Row { name: "total_network_buffers_allocated_bytes", value: Value::Number(|stats| stats.buffered_bytes) },
    Row { name: "total_network_buffers_used", value: Value::Zeros(1) },
    Row { name: "total_network_buffer_chunks_allocated", value: Value::Zeros(1) },
    Row { name: "total_network_buffer_chunks_allocated_max", value: Value::Zeros(1) },
    Row { name: "mtproto_proxy_errors", value: Value::Zeros(1) },
    Row { name: "connections_failed_lru", value: Value::Number(|stats| stats.dropped_for_memory) },
    Row { name: "connections_failed_flood", value: Value::Number(|stats| stats.dropped_for_slowness) },
    Row { name: "http_connections", value: Value::Zeros(1) },
    Row { name: "pending_http_queries", value: Value::Zeros(1) },
    Row { name: "http_queries", value: Value::Zeros(1) },
    Row { name: "http_bad_headers", value: Value::Zeros(1) },
    Row { name: "http_qps", value: Value::Real(|_| 0.0) },
    Row { name: "proxy_mode", value: Value::Zeros(2) },
    Row { name: "proxy_tag_set", value: Value::Number(|stats| stats.has_tag.into()) },
    Row { name: "version", value: Value::Text(|_| format!("mtproxy-{}", env!("CARGO_PKG_VERSION"))) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_behind_their_names_and_sections_are_marked() {
        let stats = StatsSnapshot {
            pid: 70_000,
            clients: 3,
            links_ready: 4,
            secret_md5: "70bc8f4b72a86921468bf8e8441dce51".to_owned(),
            average_idle_percent: 99.5,
            ..StatsSnapshot::default()
        };
        let page = stats.page();
        for line in [
            "pid\t70000",
            ">>>>>>connections>>>>>>\tstart",
            "<<<<<<connections<<<<<<\tend",
            "total_special_connections\t3",
            "active_outbound_connections\t4",
            "aes_pwd_hash\t70bc8f4b72a86921468bf8e8441dce51",
            "average_idle_percent\t99.500",
            "total_accept_connections_failed\t0 0 0 0 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn names_stand_in_the_order_in_which_tools_expect_them() {
        let at = |name: &str| ROWS.iter().position(|row| row.name == name).expect("the name is there");
        let order = [
            "pid",
            "uptime",
            "PID",
            "active_connections",
            "accept_init_accepted_failed",
            "rwm_total_msgs",
            "total_used_buffers_size",
            "rpc_qps",
            "aes_pwd_hash",
            "tot_dh_rounds",
            "jobs_created",
            "mpq_active",
            "total_timers",
            "total_rpc_targets",
            "stats_generate_time",
            "config_md5",
            "tot_forwarded_queries",
            "total_special_connections",
            "ext_connections",
            "connections_failed_flood",
            "proxy_tag_set",
            "version",
        ];
        assert!(order.map(at).is_sorted());
        assert_eq!(ROWS.iter().filter(|row| !matches!(row.value, Value::Begin | Value::End)).count(), NAMES);
    }

    /// Names in protocol.md section 10.
    const NAMES: usize = 179;

    #[test]
    fn this_process_has_memory() {
        let memory = Memory::now();
        assert!(memory.virtual_bytes >= memory.resident_bytes && memory.resident_bytes > 1 << 20);
        assert!(memory.data_bytes > 0);
    }
}
