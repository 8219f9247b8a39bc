//! The host that we are on: reads it for the stages, and turns its knobs.
//!
//! It decides nothing. What it reads is of this thread's network namespace; what is below `/sys` only if that is what
//! `/sys` shows.

use std::path::Path;
use std::{fs, io};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::ethtool::Ethtool;
use crate::facts::{Fact, Facts, Unreadable, in_sys, not_in_sys};
use crate::host::Host;
use crate::knob::Knob;
use crate::link::Link;
use crate::netlink::Netlink;
use crate::survey::{Interrupt, Napi, Survey};

/// This host, and one of its interfaces.
#[derive(Clone, Debug)]
pub struct LiveHost {
    name: String,
    index: u32,
}

impl LiveHost {
    /// With the interface `name`.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn new(name: &str) -> io::Result<Self> {
        let link = Link::find(&mut Netlink::open(NETLINK_ROUTE)?, name)?;
        Ok(Self { name: link.name, index: link.index })
    }

    fn ethtool(&self) -> io::Result<Ethtool> {
        Ethtool::open(self.index)
    }
}

impl Host for LiveHost {
    fn survey(&mut self) -> io::Result<Survey> {
        let facts = Facts::read(&self.name)?;
        let device = in_sys(&facts.link);
        Ok(Survey {
            channels: self.ethtool().and_then(|mut it| it.channel_counts()).map_err(Unreadable::from),
            rings: self.ethtool().and_then(|mut it| it.rings()).map_err(Unreadable::from),
            features: self.ethtool().and_then(|mut it| it.features()).map_err(Unreadable::from),
            coalescing: self.ethtool().and_then(|mut it| it.coalescing()).map_err(Unreadable::from),
            napi: device.as_deref().map_or_else(|| Err(not_in_sys()), napi),
            interrupts: interrupts(&facts.link),
            numa_node: device.as_deref().and_then(|device| parsed(&device.join("device/numa_node")).ok()),
            numa_nodes: numa_nodes(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            has_irqbalance: is_running("irqbalance"),
            huge_pages: parsed(Path::new("/proc/sys/vm/nr_hugepages")).map_err(Unreadable::from),
            may_use_xdp: may_use_xdp(),
            memlock_bytes: match effective_capabilities().contains(CapabilitySet::IPC_LOCK) {
                true => None,
                false => getrlimit(Resource::Memlock).current,
            },
            facts,
        })
    }

    fn read(&mut self, knob: &Knob) -> io::Result<String> {
        match knob {
            Knob::File(path) => Ok(one_line(&fs::read_to_string(path)?)),
            Knob::CombinedChannels => {
                present(self.ethtool()?.channel_counts()?).map(|counts| counts.combined.to_string())
            }
            Knob::ReceiveRing => present(self.ethtool()?.rings()?).map(|rings| rings.receive.to_string()),
            Knob::ReceiveCoalescing => {
                let us = self.ethtool()?.coalescing()?.and_then(|coalescing| coalescing.receive_us);
                present(us).map(|us| us.to_string())
            }
            Knob::Feature(name) => {
                let features = self.ethtool()?.features()?;
                let feature = present(features.into_iter().find(|feature| feature.name == *name))?;
                Ok(if feature.is_on { "on" } else { "off" }.to_owned())
            }
            Knob::RssTable => {
                let rss = present(self.ethtool()?.rss()?)?;
                Ok(rss.table.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn write(&mut self, knob: &Knob, value: &str) -> io::Result<()> {
        match knob {
            // Some files refuse an empty write, and take a lone newline for the empty value.
            Knob::File(path) => fs::write(path, format!("{value}\n")),
            Knob::CombinedChannels => self.ethtool()?.set_combined_channels(number(value)?),
            Knob::ReceiveRing => self.ethtool()?.set_receive_ring(number(value)?),
            Knob::ReceiveCoalescing => self.ethtool()?.set_receive_coalescing(number(value)?),
            Knob::Feature(name) => self.ethtool()?.set_feature(name, value == "on"),
            Knob::RssTable => {
                let table = value.split(' ').map(number).collect::<io::Result<Vec<u32>>>()?;
                self.ethtool()?.set_rss_table(&table)
            }
        }
    }
}

/// True if this process may load programs and open AF_XDP sockets: CAP_NET_ADMIN, CAP_NET_RAW, and CAP_BPF or
/// CAP_SYS_ADMIN.
#[must_use]
pub fn may_use_xdp() -> bool {
    let effective = effective_capabilities();
    effective.contains(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW)
        && effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
}

fn effective_capabilities() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

fn present<T>(value: Option<T>) -> io::Result<T> {
    value.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the device has no such thing"))
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("found {text:?}, expected a number"))
    })
}

/// White space as single spaces, none at the ends.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn parsed<T: std::str::FromStr>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("found {:?}", text.trim()));
    text.trim().parse().map_err(|_| wrong())
}

fn napi(device: &Path) -> Fact<Napi> {
    Ok(Napi {
        defer_hard_irqs: parsed(&device.join("napi_defer_hard_irqs"))?,
        gro_flush_timeout_ns: parsed(&device.join("gro_flush_timeout"))?,
        is_threaded: parsed::<u32>(&device.join("threaded")).ok().map(|threaded| threaded != 0),
    })
}

fn numa_nodes() -> usize {
    let entries =
        fs::read_dir("/sys/devices/system/node").map(|entries| entries.filter_map(Result::ok).collect());
    let entries: Vec<fs::DirEntry> = entries.unwrap_or_default();
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
    entries.iter().filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count().max(1)
}

fn is_running(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.filter_map(Result::ok).any(|process| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|command| command.trim() == name)
    })
}

/// The interrupts of the link's receive queues, in their order.
fn interrupts(link: &Link) -> Fact<Vec<Interrupt>> {
    let Some(directory) = in_sys(link) else {
        return match link.kind {
            // Made of software: there are none wherever it is.
            Some(_) => Ok(Vec::new()),
            None => Err(not_in_sys()),
        };
    };
    let device = directory.join("device");
    // virtio's device is below the one that has the interrupts.
    let numbers: Vec<u32> = [device.join("msi_irqs"), device.join("../msi_irqs")]
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let text = fs::read_to_string("/proc/interrupts")?;
    let mut found = Vec::new();
    for (queue, number) in receive_interrupts(&text, &numbers) {
        let cores = fs::read_to_string(format!("/proc/irq/{number}/smp_affinity_list"))?;
        found.push(Interrupt { queue, number, cores: cores.trim().to_owned() });
    }
    Ok(found)
}

/// Queue and number of each interrupt in `text`, which is `/proc/interrupts`, that is one of `numbers` and serves a
/// receive queue. Drivers name them as they like: `eth0-TxRx-3`, `virtio1-input.0`, `mlx5_comp2@pci:0000:03:00.0`.
fn receive_interrupts(text: &str, numbers: &[u32]) -> Vec<(usize, u32)> {
    let mut found: Vec<(usize, u32)> = text
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.trim_start().split_once(':')?;
            let number = number.parse().ok().filter(|number| numbers.contains(number))?;
            Some((queue_of(rest.split_whitespace().last()?)?, number))
        })
        .collect();
    found.sort_unstable();
    found
}

fn queue_of(action: &str) -> Option<usize> {
    let name = action.split('@').next()?.to_ascii_lowercase();
    let front = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let queue = name[front.len()..].parse().ok()?;
    let is_separated = front.ends_with(['-', '.']) || front.ends_with("comp");
    let only_sends = front.ends_with("output.") || (front.ends_with("tx-") && !front.contains("rx"));
    (is_separated && !only_sends).then_some(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_interrupts_are_known_by_number_and_name() {
        // As the drivers of Linux 6.18 name them: igb, virtio_net, mlx5, and one with vectors for each direction.
        let text = "           CPU0       CPU1\n\
            \x20 24:          1          0  PCI-MSIX-0000:01:00.0    0-edge      eth0\n\
            \x20 25:          9          0  PCI-MSIX-0000:01:00.0    1-edge      eth0-TxRx-0\n\
            \x20 26:          0          3  PCI-MSIX-0000:01:00.0    2-edge      eth0-TxRx-1\n\
            \x20 30:          0          0  PCI-MSIX-0000:02:00.0    0-edge      virtio1-config\n\
            \x20 31:          0          0  PCI-MSIX-0000:02:00.0    1-edge      virtio1-input.0\n\
            \x20 32:          0          0  PCI-MSIX-0000:02:00.0    2-edge      virtio1-output.0\n\
            \x20 41:          0          0  PCI-MSIX-0000:03:00.0    2-edge      mlx5_comp2@pci:0000:03:00.0\n\
            \x20 42:          0          0  PCI-MSIX-0000:03:00.0    0-edge      mlx5_async0@pci:0000:03:00.0\n\
            \x20 51:          0          0  PCI-MSIX-0000:04:00.0    1-edge      eth3-rx-0\n\
            \x20 52:          0          0  PCI-MSIX-0000:04:00.0    2-edge      eth3-tx-0\n\
            NMI:          0          0   Non-maskable interrupts\n";
        assert_eq!(receive_interrupts(text, &[24, 25, 26]), [(0, 25), (1, 26)]);
        assert_eq!(receive_interrupts(text, &[30, 31, 32]), [(0, 31)]);
        assert_eq!(receive_interrupts(text, &[41, 42]), [(2, 41)]);
        assert_eq!(receive_interrupts(text, &[51, 52]), [(0, 51)]);
        assert_eq!(receive_interrupts(text, &[]), []);
    }

    #[test]
    fn what_a_file_says_is_one_line() {
        assert_eq!(one_line("32768\t60999\n"), "32768 60999");
        assert_eq!(one_line("\n"), "");
    }
}
