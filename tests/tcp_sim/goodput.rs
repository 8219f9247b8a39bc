//! What congestion control makes of loss and delay: a table, kept in `goodput.txt`.
//!
//! One connection of 4 MB over a bottleneck of 20 Mbit/s with a queue of one
//! bandwidth-delay product. Virtual time makes the numbers exact: a difference is a change of behaviour,
//! to be looked at and then recorded by `TCP_SIM_RECORD=1`.

use std::fmt::Write;

use mtproxy_tests::dice::Dice;

use crate::memory_link::{Header, Shape};
use crate::network::{Bottleneck, Faults};
use crate::plan::{
    Conversation, Device, FIRST_PORT, LISTENING_PORT, Limits, MILLISECOND, Opening, Plan, SECOND, Wraps,
    address,
};
use crate::script::{Ending, Script};
use crate::simulation::{Options, run_plan};

const BYTES: u64 = 4_000_000;
const BYTES_PER_SECOND: u64 = 2_500_000;
const RTTS_MS: [u64; 4] = [10, 40, 100, 250];
/// In a thousand packets of each direction.
const LOSSES: [usize; 6] = [0, 1, 5, 10, 30, 100];
/// Averages out where the losses happen to fall.
const SEEDS: u64 = 8;

fn script(total: u64) -> Script {
    Script {
        total,
        is_echo: false,
        chunk_max: 64 << 10,
        write_pause_max: 0,
        takes_at_once: 1 << 20,
        read_pause_max: 0,
        holds: false,
        ending: if total > 0 { Ending::AfterAll } else { Ending::AfterPeer },
    }
}

fn plan(rtt_ms: u64, loss: usize, is_cubic: bool) -> Plan {
    let delay = rtt_ms * MILLISECOND / 2;
    let queue = (BYTES_PER_SECOND * rtt_ms / 1_000 / 1_500).max(16) as usize;
    let bottleneck = Some(Bottleneck { bytes_per_second: BYTES_PER_SECOND, queue });
    let path = Faults { loss, delay, bottleneck, calm_at: u64::MAX, ..Faults::default() };
    let shape = Shape {
        frames: 16_384,
        fill: 1_024,
        transmit_ring: 4_096,
        mtu_bytes: 1_500,
        header: Header::Ethernet,
    };
    let limits = Limits {
        half_open_max: 256,
        receive_buffer_max_bytes: 4 << 20,
        send_buffer_max_bytes: 4 << 20,
        is_cubic,
        connections_max: 16,
        keepalive: None,
    };
    let device = Device { completion_max: 20, poll_max: 10, headroom: 0, stall: None, unrouted: None };
    Plan {
        shapes: [shape; 2],
        limits: [limits; 2],
        devices: [device.clone(), device],
        paths: [path.clone(), path],
        calm_at: 0,
        conversations: vec![Conversation {
            at: 0,
            hosts: [0, 1],
            addresses: [(address(0, false), FIRST_PORT).into(), (address(1, false), LISTENING_PORT).into()],
            opening: Opening::Ordinary,
            scripts: [script(BYTES), script(0)],
            reuses: None,
            forgeries: Vec::new(),
        }],
        storm: None,
        stop: None,
        wraps: Wraps::Nothing,
        clock_origin: SECOND,
        secret_seeds: [[1; 32], [2; 32]],
    }
}

/// Bytes a second, from the first SYN to the last byte read.
fn goodput(rtt_ms: u64, loss: usize, is_cubic: bool) -> u64 {
    let total: u64 = (0..SEEDS)
        .map(|seed| {
            let options = Options { seed, ..Options::default() };
            let tally = run_plan(options, plan(rtt_ms, loss, is_cubic), Dice::new(seed))
                .unwrap_or_else(|found| panic!("rtt {rtt_ms} ms, loss {loss}: {found:?}"));
            tally.last_read_micros
        })
        .sum();
    BYTES * SECOND * SEEDS / total
}

/// What a sender reaches that knows the rate, keeps the queue from running dry and sends again at once what
/// was lost.
fn ideal(rtt_ms: u64, loss: usize) -> u64 {
    const HEADERS: f64 = 14.0 + 20.0 + 32.0;
    const TEXT: f64 = 1_500.0 - 20.0 - 32.0;
    let sent = BYTES as f64 * (TEXT + HEADERS) / TEXT / (1.0 - loss as f64 / 1_000.0);
    // Handshake and request, and half a round trip until the last byte has come.
    let seconds = 1.5 * rtt_ms as f64 / 1_000.0 + sent / BYTES_PER_SECOND as f64;
    (BYTES as f64 / seconds) as u64
}

fn table() -> String {
    let mut table = String::from(
        "Goodput in Mbit/s of one connection that sends 4 MB over 20 Mbit/s, handshake included; mean of 8 seeds.\n\
         Rows: RTT. Columns: packets lost in a thousand, in each direction. The queue holds one bandwidth-delay product.\n",
    );
    type Goodput = fn(u64, usize) -> u64;
    let rows: [(&str, Goodput); 3] = [
        ("ideal", ideal),
        ("CUBIC", |rtt, loss| goodput(rtt, loss, true)),
        ("NewReno", |rtt, loss| goodput(rtt, loss, false)),
    ];
    for (name, goodput) in rows {
        let _ = write!(table, "\n{name:<8}");
        for loss in LOSSES {
            let _ = write!(table, "{loss:>8}");
        }
        table.push('\n');
        for rtt in RTTS_MS {
            let _ = write!(table, "{:<8}", format!("{rtt} ms"));
            for loss in LOSSES {
                let _ = write!(table, "{:>8.2}", goodput(rtt, loss) as f64 * 8.0 / 1e6);
            }
            table.push('\n');
        }
    }
    table
}

#[test]
fn goodput_is_as_recorded() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tcp_sim/goodput.txt");
    let table = table();
    if std::env::var_os("TCP_SIM_RECORD").is_some() {
        std::fs::write(path, &table).expect("the table can be written");
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    assert!(table == recorded, "recorded:\n{recorded}\nfound:\n{table}\nTCP_SIM_RECORD=1 records it");
}
