//! The part of the list of metrics that tells threads and queues apart. What is summed elsewhere says how much; this says
//! whether one of them has more than its share. `mtproxy top` shows it.

use super::{BYTE_ORIGINS, BoundMode, Counter, Kind, Metric, sessions_open};

pub(super) const METRICS: [Metric; 15] = [
    Metric {
        name: "mtproxy_worker_sessions_open",
        kind: Kind::Gauge,
        help: "Client connections now, by the thread that serves them",
        labels: &["worker"],
        read: |metrics| metrics.by_worker(|worker| sessions_open(std::iter::once(worker))),
    },
    Metric {
        name: "mtproxy_worker_sessions_opened_total",
        kind: Kind::Counter,
        help: "Client connections accepted, by thread",
        labels: &["worker"],
        read: |metrics| metrics.by_worker(|worker| worker.sessions_opened.get()),
    },
    Metric {
        name: "mtproxy_worker_authenticated_total",
        kind: Kind::Counter,
        help: "Clients that showed a valid secret, by thread",
        labels: &["worker"],
        read: |metrics| metrics.by_worker(|worker| worker.authenticated.iter().map(Counter::get).sum()),
    },
    Metric {
        name: "mtproxy_worker_received_bytes_total",
        kind: Kind::Counter,
        help: "Bytes received in all sessions, by thread and by the side they came from",
        labels: &["worker", "from"],
        read: |metrics| {
            metrics.of_each_worker(|worker| {
                let origins = BYTE_ORIGINS.into_iter().zip(&worker.received_bytes);
                origins.map(|(from, bytes)| (Some(from), bytes.get())).collect()
            })
        },
    },
    Metric {
        name: "mtproxy_worker_awake_microseconds_total",
        kind: Kind::Counter,
        help: "Time that each thread has not slept; one that never does is at its limit",
        labels: &["worker"],
        read: |metrics| metrics.by_worker(|worker| worker.awake_microseconds.get()),
    },
    Metric {
        name: "mtproxy_queue_mode",
        kind: Kind::Gauge,
        help: "1 for how the packets of each queue come and go",
        labels: &["queue", "mode"],
        read: |metrics| {
            metrics.by_queue(&[
                ("zero_copy", |shard| shard.mode[BoundMode::ZeroCopy as usize].get()),
                ("copy", |shard| shard.mode[BoundMode::Copy as usize].get()),
                ("generic", |shard| shard.mode[BoundMode::Generic as usize].get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_packets_total",
        kind: Kind::Counter,
        help: "Packets over AF_XDP, by queue",
        labels: &["queue", "direction"],
        read: |metrics| {
            metrics.by_queue(&[
                ("received", |shard| shard.received_packets.get()),
                ("sent", |shard| shard.sent_packets.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_bytes_total",
        kind: Kind::Counter,
        help: "Bytes of the packets over AF_XDP, by queue, link headers included",
        labels: &["queue", "direction"],
        read: |metrics| {
            metrics.by_queue(&[
                ("received", |shard| shard.received_bytes.get()),
                ("sent", |shard| shard.sent_bytes.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_connections",
        kind: Kind::Gauge,
        help: "Connections of the AF_XDP datapath now, by queue, to clients and upstream",
        labels: &["queue", "state"],
        read: |metrics| {
            metrics.by_queue(&[
                ("open", |shard| shard.connections_open.get()),
                ("half_open", |shard| shard.connections_half_open.get()),
                ("time_wait", |shard| shard.connections_time_wait.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_retransmitted_segments_total",
        kind: Kind::Counter,
        help: "Segments that the AF_XDP datapath sent again, by queue",
        labels: &["queue"],
        read: |metrics| metrics.by_queue(&[("", |shard| shard.retransmitted_segments.get())]),
    },
    Metric {
        name: "mtproxy_queue_dropped_total",
        kind: Kind::Counter,
        help: "Packets that the AF_XDP datapath dropped, by queue, each under one reason",
        labels: &["queue", "reason"],
        read: |metrics| metrics.dropped_by_queue(),
    },
    Metric {
        name: "mtproxy_queue_frames",
        kind: Kind::Gauge,
        help: "Packet buffers of each queue, by who has them: nobody, the fill ring, the proxy, the device to send from",
        labels: &["queue", "state"],
        read: |metrics| {
            metrics.by_queue(&[
                ("free", |shard| shard.frames_free.get()),
                ("fill", |shard| shard.frames_fill.get()),
                ("ours", |shard| shard.frames_ours.get()),
                ("in_flight", |shard| shard.frames_in_flight.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_ring_trouble_total",
        kind: Kind::Counter,
        help: "Times that a ring of a queue was in the way: receive or transmit ring full, fill ring empty",
        labels: &["queue", "ring"],
        read: |metrics| {
            metrics.by_queue(&[
                ("receive", |shard| shard.kernel_rx_ring_full.get()),
                ("transmit", |shard| shard.transmit_ring_full.get()),
                ("fill", |shard| shard.kernel_fill_ring_empty.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_turns_total",
        kind: Kind::Counter,
        help: "Turns of each AF_XDP worker's loop, by whether there was something to do",
        labels: &["queue", "load"],
        read: |metrics| {
            metrics.by_queue(&[
                ("busy", |shard| shard.busy_turns.get()),
                ("idle", |shard| shard.idle_turns.get()),
            ])
        },
    },
    Metric {
        name: "mtproxy_queue_wake_ups_total",
        kind: Kind::Counter,
        help: "System calls that made the kernel look into a ring, by queue",
        labels: &["queue"],
        read: |metrics| metrics.by_queue(&[("", |shard| shard.wake_ups.get())]),
    },
];
