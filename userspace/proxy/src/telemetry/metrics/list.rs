//! The one list of all metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use mtproxy_core::error::{DropReason, PeerMisbehaved};

use super::{BYTE_ORIGINS, BoundMode, DIAL_FAILURES, Kind, MODES, Metric, Sample, SecretCounters, one};

/// Every metric there is, in the order of the page.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "When the proxy was started, in Unix seconds",
        labels: &[],
        read: |metrics| one(metrics.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    },
    Metric {
        name: "mtproxy_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the label says which version runs",
        labels: &["version"],
        read: |_| vec![Sample::new(env!("CARGO_PKG_VERSION"), 1)],
    },
    Metric {
        name: "mtproxy_workers",
        kind: Kind::Gauge,
        help: "Threads that serve clients",
        labels: &[],
        read: |metrics| one(metrics.workers_count() as u64),
    },
    Metric {
        name: "mtproxy_draining",
        kind: Kind::Gauge,
        help: "1 once the proxy takes no new clients, else 0",
        labels: &[],
        read: |metrics| one(metrics.is_draining().into()),
    },
    Metric {
        name: "mtproxy_connections_limit",
        kind: Kind::Gauge,
        help: "Client connections that there may be at a time; beyond it new ones wait",
        labels: &[],
        read: |metrics| one(metrics.connections_limit as u64),
    },
    Metric {
        name: "mtproxy_accept_pauses_total",
        kind: Kind::Counter,
        help: "Times that a worker stopped accepting for a tenth of a second, at the limit or out of descriptors",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.accept_pauses)),
    },
    Metric {
        name: "mtproxy_sessions_open",
        kind: Kind::Gauge,
        help: "Client connections now, strangers included; one user has up to about eight",
        labels: &[],
        read: |metrics| one(metrics.sessions_open()),
    },
    Metric {
        name: "mtproxy_sessions_opened_total",
        kind: Kind::Counter,
        help: "Client connections accepted, strangers included",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.sessions_opened)),
    },
    Metric {
        name: "mtproxy_sessions_finished_total",
        kind: Kind::Counter,
        help: "Sessions that ended because both sides had finished",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.sessions_finished)),
    },
    Metric {
        name: "mtproxy_sessions_dropped_total",
        kind: Kind::Counter,
        help: "Sessions that ended otherwise, each under one reason",
        labels: &["reason"],
        read: |metrics| {
            metrics.sum_each(DropReason::ALL.map(DropReason::name), |worker| &worker.sessions_dropped)
        },
    },
    Metric {
        name: "mtproxy_authenticated_total",
        kind: Kind::Counter,
        help: "Clients that showed a valid secret, by how they talk",
        labels: &["mode"],
        read: |metrics| metrics.sum_each(MODES, |worker| &worker.authenticated),
    },
    Metric {
        name: "mtproxy_authenticated_by_secret_total",
        kind: Kind::Counter,
        help: "Clients that showed a valid secret, by its name",
        labels: &["secret"],
        read: |metrics| {
            let sample = |counters: &Arc<SecretCounters>| {
                Sample::new(counters.name.clone(), counters.authenticated.load(Relaxed))
            };
            metrics.known_secrets().values().map(sample).collect()
        },
    },
    Metric {
        name: "mtproxy_fronted_total",
        kind: Kind::Counter,
        help: "Strangers connected to the real site, by what gave them away",
        labels: &["reason"],
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.fronted)
        },
    },
    Metric {
        name: "mtproxy_discarded_total",
        kind: Kind::Counter,
        help: "Strangers met with silence because there is no site, by what gave them away",
        labels: &["reason"],
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.discarded)
        },
    },
    Metric {
        name: "mtproxy_misbehaved_total",
        kind: Kind::Counter,
        help: "Clients with a valid secret that then broke the protocol, by what they did",
        labels: &["reason"],
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.misbehaved)
        },
    },
    Metric {
        name: "mtproxy_dial_failures_total",
        kind: Kind::Counter,
        help: "Attempts to reach a data centre or site that failed",
        labels: &["reason"],
        read: |metrics| metrics.sum_each(DIAL_FAILURES, |worker| &worker.dial_failures),
    },
    Metric {
        name: "mtproxy_received_bytes_total",
        kind: Kind::Counter,
        help: "Bytes received in all sessions, by the side they came from",
        labels: &["from"],
        read: |metrics| metrics.sum_each(BYTE_ORIGINS, |worker| &worker.received_bytes),
    },
    Metric {
        name: "mtproxy_idle_milliseconds_total",
        kind: Kind::Counter,
        help: "Time that workers have slept; a worker that never does is at its limit",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.idle_milliseconds)),
    },
    Metric {
        name: "mtproxy_xdp_queues",
        kind: Kind::Gauge,
        help: "Queues that the AF_XDP datapath serves now; 0 while AF_XDP is lost and everybody is served over epoll",
        labels: &[],
        read: |metrics| metrics.shards_running(),
    },
    Metric {
        name: "mtproxy_xdp_lost_total",
        kind: Kind::Counter,
        help: "Times that the AF_XDP datapath was given up until it could be had again",
        labels: &["reason"],
        read: |metrics| metrics.xdp_losses(),
    },
    Metric {
        name: "mtproxy_xdp_mode",
        kind: Kind::Gauge,
        help: "Queues of the AF_XDP datapath, by how their packets come and go",
        labels: &["mode"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("zero_copy", |shard| shard.mode[BoundMode::ZeroCopy as usize].get()),
                ("copy", |shard| shard.mode[BoundMode::Copy as usize].get()),
                ("generic", |shard| shard.mode[BoundMode::Generic as usize].get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_packets_total",
        kind: Kind::Counter,
        help: "Packets over AF_XDP",
        labels: &["direction"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("received", |shard| shard.received_packets.get()),
                ("sent", |shard| shard.sent_packets.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_bytes_total",
        kind: Kind::Counter,
        help: "Bytes of the packets over AF_XDP, link headers included",
        labels: &["direction"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("received", |shard| shard.received_bytes.get()),
                ("sent", |shard| shard.sent_bytes.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_steering_total",
        kind: Kind::Counter,
        help: "Packets of the interface, by where the steering program sent them and why",
        labels: &["exit"],
        read: |metrics| metrics.steered(),
    },
    Metric {
        name: "mtproxy_tcp_dropped_total",
        kind: Kind::Counter,
        help: "Packets that the AF_XDP datapath dropped, each under one reason",
        labels: &["reason"],
        read: |metrics| metrics.dropped_by_shards(),
    },
    Metric {
        name: "mtproxy_tcp_connections",
        kind: Kind::Gauge,
        help: "Connections of the AF_XDP datapath now, to clients and upstream",
        labels: &["state"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("open", |shard| shard.connections_open.get()),
                ("half_open", |shard| shard.connections_half_open.get()),
                ("time_wait", |shard| shard.connections_time_wait.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_tcp_retransmitted_segments_total",
        kind: Kind::Counter,
        help: "Segments that the AF_XDP datapath sent again",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.retransmitted_segments.get()),
    },
    Metric {
        name: "mtproxy_tcp_retransmission_timeouts_total",
        kind: Kind::Counter,
        help: "Times that nothing was acknowledged for so long that the AF_XDP datapath began again",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.retransmission_timeouts.get()),
    },
    Metric {
        name: "mtproxy_tcp_given_up_total",
        kind: Kind::Counter,
        help: "Connections that the AF_XDP datapath gave up because the peer was silent for too long",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.given_up.get()),
    },
    Metric {
        name: "mtproxy_tcp_held_up_total",
        kind: Kind::Counter,
        help: "Times that a connection of the AF_XDP datapath could not send at once, by what it lacked",
        labels: &["reason"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("no_frame", |shard| shard.held_up_no_frame.get()),
                ("no_route", |shard| shard.held_up_no_route.get()),
                ("ring_full", |shard| shard.held_up_ring_full.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_tcp_syn_cookies_total",
        kind: Kind::Counter,
        help: "SYN cookies sent because too many connections were half open, and those that came back",
        labels: &["event"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("sent", |shard| shard.syn_cookies_sent.get()),
                ("accepted", |shard| shard.syn_cookies_accepted.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_frames",
        kind: Kind::Gauge,
        help: "Packet buffers of all queues, by who has them",
        labels: &["state"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("free", |shard| shard.frames_free.get()),
                ("fill", |shard| shard.frames_fill.get()),
                ("ours", |shard| shard.frames_ours.get()),
                ("in_flight", |shard| shard.frames_in_flight.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_transmit_ring_full_total",
        kind: Kind::Counter,
        help: "Packets that had to wait for room in a transmit ring",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.transmit_ring_full.get()),
    },
    Metric {
        name: "mtproxy_xdp_wrong_queue_total",
        kind: Kind::Counter,
        help: "Packets that came in on another queue than their connection's, by what became of them",
        labels: &["outcome"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("forwarded", |shard| shard.wrong_queue_forwarded.get()),
                ("lost", |shard| shard.wrong_queue_lost.get()),
                ("taken_over", |shard| shard.wrong_queue_taken_over.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_ports",
        kind: Kind::Gauge,
        help: "Ports that connections are dialled from, or were and may not be again yet",
        labels: &["state"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("used", |shard| shard.ports_used.get()),
                ("lingering", |shard| shard.ports_lingering.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_port_choices_total",
        kind: Kind::Counter,
        help: "Dials for which there was no port, or none but one with a drawback",
        labels: &["event"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("exhausted", |shard| shard.ports_exhausted.get()),
                ("off_queue", |shard| shard.ports_off_queue.get()),
                ("reopened", |shard| shard.ports_reopened.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_parked_total",
        kind: Kind::Counter,
        help: "Packets that waited for the next hop's link-layer address",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.parked_packets.get()),
    },
    Metric {
        name: "mtproxy_xdp_unresolved_hop_drops_total",
        kind: Kind::Counter,
        help: "Packets given up because the next hop's link-layer address did not become known",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.unresolved_hop_drops.get()),
    },
    Metric {
        name: "mtproxy_xdp_kernel_total",
        kind: Kind::Counter,
        help: "Packets that the kernel could not hand over or take, by its own statistics",
        labels: &["event"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("rx_dropped", |shard| shard.kernel_rx_dropped.get()),
                ("rx_ring_full", |shard| shard.kernel_rx_ring_full.get()),
                ("fill_ring_empty", |shard| shard.kernel_fill_ring_empty.get()),
                ("rx_invalid_descs", |shard| shard.kernel_rx_invalid_descs.get()),
                ("tx_invalid_descs", |shard| shard.kernel_tx_invalid_descs.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_bad_descriptors_total",
        kind: Kind::Counter,
        help: "Entries of the rings that the kernel should not have made, by what was wrong",
        labels: &["kind"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("rx_address", |shard| shard.bad_rx_addresses.get()),
                ("rx_length", |shard| shard.bad_rx_lengths.get()),
                ("rx_fragment", |shard| shard.rx_fragments.get()),
                ("completion", |shard| shard.bad_completions.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_xdp_link_down_total",
        kind: Kind::Counter,
        help: "System calls for the transmit ring that found the link down",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.kicks_link_down.get()),
    },
    Metric {
        name: "mtproxy_xdp_wake_ups_total",
        kind: Kind::Counter,
        help: "System calls that made the kernel look into a ring",
        labels: &[],
        read: |metrics| metrics.of_shards(|shard| shard.wake_ups.get()),
    },
    Metric {
        name: "mtproxy_xdp_turns_total",
        kind: Kind::Counter,
        help: "Turns of the AF_XDP workers' loops, by whether there was something to do",
        labels: &["load"],
        read: |metrics| {
            metrics.of_shards_by(&[
                ("busy", |shard| shard.busy_turns.get()),
                ("idle", |shard| shard.idle_turns.get()),
            ])
        },
    },
];
