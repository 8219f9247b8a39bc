//! Hosts that tests make up.

use crate::facts::{Fact, Facts, Rss, Unreadable, XdpHints};
use crate::link::Link;
use crate::survey::{ChannelCounts, Coalescing, Goals, Interrupt, Napi, Rings, Survey};
use crate::sysctl::PortRange;

/// A server with a card of eight queues, set up as we would.
pub(crate) fn server() -> Survey {
    let link = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: Some([2; 6]),
        mtu_bytes: 1500,
        is_up: true,
        has_carrier: true,
        receive_queues_max: 64,
        ..Link::default()
    };
    let facts = Facts {
        link,
        driver: Ok("ice".to_owned()),
        receive_queues: Ok(8),
        addresses: Ok(vec![("192.0.2.1".parse().unwrap(), 24)]),
        has_only_default_route: Ok(true),
        rss: Ok(Some(Rss {
            is_toeplitz: true,
            is_symmetric: false,
            hashes_four_tuple: true,
            key: vec![1; 52],
            table: (0..128).map(|entry| entry % 8).collect(),
        })),
        xdp: Ok(XdpHints {
            is_native: true,
            redirects: true,
            has_zero_copy: true,
            zero_copy_segments_max: Some(8),
            xsk_features: 0,
        }),
        kernel: Ok("6.18.3".to_owned()),
        ephemeral_ports: Ok(PortRange { first: 32768, last: 60999 }),
        reserved_ports: Ok(Vec::new()),
        forwards_ipv4: Ok(false),
    };
    Survey {
        facts,
        channels: Ok(Some(ChannelCounts { combined: 8, combined_max: 64 })),
        rings: Ok(Some(Rings { receive: 2048, receive_max: 8160 })),
        features: Ok(Vec::new()),
        coalescing: Ok(Some(Coalescing { receive_us: Some(50), is_adaptive: true })),
        napi: Ok(Napi { defer_hard_irqs: 0, gro_flush_timeout_ns: 0, is_threaded: Some(false) }),
        interrupts: Ok((0..8).map(|queue| interrupt(queue, &queue.to_string())).collect()),
        numa_node: None,
        numa_nodes: 1,
        cores: 8,
        has_irqbalance: false,
        huge_pages: Ok(0),
        may_use_xdp: true,
        memlock_bytes: None,
    }
}

pub(crate) fn interrupt(queue: usize, cores: &str) -> Interrupt {
    Interrupt { queue, number: 100 + u32::try_from(queue).unwrap(), cores: cores.to_owned() }
}

pub(crate) fn goals() -> Goals {
    Goals {
        queues: None,
        busy_poll: false,
        huge_pages: false,
        ports: PortRange { first: 61000, last: 65535 },
        umem_bytes: 32 << 20,
    }
}

/// A sandbox that answers no question.
pub(crate) fn unreadable() -> Survey {
    fn nothing<T>() -> Fact<T> {
        Err(Unreadable("no permission".to_owned()))
    }
    let server = server();
    Survey {
        facts: Facts {
            driver: nothing(),
            receive_queues: nothing(),
            addresses: nothing(),
            has_only_default_route: nothing(),
            rss: nothing(),
            xdp: nothing(),
            kernel: nothing(),
            ephemeral_ports: nothing(),
            reserved_ports: nothing(),
            forwards_ipv4: nothing(),
            ..server.facts
        },
        channels: nothing(),
        rings: nothing(),
        features: nothing(),
        coalescing: nothing(),
        napi: nothing(),
        interrupts: nothing(),
        huge_pages: nothing(),
        ..server
    }
}
