//! The loaded program and its maps.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use mtproxy_xdp_abi::{Addr, Exit, Listener, Local, PROGRAM, Prefix, QUEUES_MAX, Setting, Verdict, map};

use crate::attach::{self, AttachMode, Attachment};
use crate::beat::{Beat, monotonic_ns};
use crate::{Error, Settings};

/// How long a connection can be on its way into the kernel without being one that user space sees: a SYN is answered
/// up to 6 times, until 63 s after it (`tcp_synack_retries` is 5).
const HANDSHAKE: Duration = Duration::from_secs(64);

/// XDP's verdicts as numbers, `enum xdp_action` in linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The steering program: loaded, and attached to at most one interface.
///
/// Dropping it detaches. Everything that is added can be removed while packets come in; each call is one change of
/// one map, and the next packet sees it.
pub struct Steering {
    /// Before the program, so that it is dropped first.
    link: Option<(FdLink, Attachment)>,
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    beats: MapData,
    settings: Array<MapData, u64>,
    locals: HashMap<MapData, [u8; Addr::SIZE], [u8; Local::SIZE]>,
    listeners: HashMap<MapData, [u8; Listener::SIZE], u8>,
    deny: LpmTrie<MapData, [u8; Addr::SIZE], u8>,
    kernel_flows: Array<MapData, u64>,
    exits: PerCpuArray<MapData, u64>,
    queues: u32,
}

impl Steering {
    /// Loads the program for an interface with that many receive queues. It is attached to nothing yet.
    ///
    /// # Errors
    /// [`Error::Queues`], [`Error::Load`], or [`Error::Map`].
    pub fn load(settings: &Settings, queues: u32) -> Result<Self, Error> {
        if queues == 0 || queues > QUEUES_MAX {
            return Err(Error::Queues { asked: queues, most: QUEUES_MAX });
        }
        let mut ebpf = EbpfLoader::new()
            // The program reads no structure of the kernel's own, and so has nothing to relocate: parsing all of the
            // kernel's types would be most of the time that a restart takes.
            .btf(None)
            .map_max_entries(map::SOCKETS, queues)
            .map_max_entries(map::BEATS, queues)
            .load(include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o")))
            .map_err(|error| Error::Load(error.into()))?;
        program_mut(&mut ebpf).and_then(Xdp::load).map_err(|error| Error::Load(error.into()))?;

        let mut steering = Self {
            link: None,
            sockets: take(&mut ebpf, map::SOCKETS)?,
            beats: take_beats(&mut ebpf)?,
            settings: take(&mut ebpf, map::SETTINGS)?,
            locals: take(&mut ebpf, map::LOCALS)?,
            listeners: take(&mut ebpf, map::LISTENERS)?,
            deny: take(&mut ebpf, map::DENY)?,
            kernel_flows: take(&mut ebpf, map::KERNEL_FLOWS)?,
            exits: take(&mut ebpf, map::EXITS)?,
            ebpf,
            queues,
        };
        steering.set_settings(settings)?;
        Ok(steering)
    }

    /// Attaches to an interface. Whatever the kernel has accepted so far may go on: connections at our listeners are
    /// looked up in the kernel until [`clear_kernel_flows`](Self::clear_kernel_flows).
    ///
    /// # Errors
    /// [`Error::ForeignProgram`] when the interface runs another program, which is left as it is;
    /// [`Error::Attached`], [`Error::Interface`], [`Error::Attach`], [`Error::Mode`].
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<&Attachment, Error> {
        if let Some((_, attachment)) = &self.link {
            return Err(Error::Attached { interface: attachment.interface.clone() });
        }
        self.kernel_flows.set(0, monotonic_ns(), 0).map_err(Error::map(map::KERNEL_FLOWS))?;
        let program = program_mut(&mut self.ebpf).map_err(|error| Error::Load(error.into()))?;
        let attached = attach::attach(program, interface, mode)?;
        Ok(&self.link.insert(attached).1)
    }

    /// Where it is attached.
    #[must_use]
    pub fn attachment(&self) -> Option<&Attachment> {
        self.link.as_ref().map(|(_, attachment)| attachment)
    }

    /// Detaches; from here on the kernel gets everything. Maps and counters stay.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Changes how new connections are treated.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        settings.cells().into_iter().try_for_each(|(cell, value)| self.set_cell(cell, value))
    }

    /// While draining, new connections go to the kernel and ours go on.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_draining(&mut self, draining: bool) -> Result<(), Error> {
        self.set_cell(Setting::Draining, u64::from(draining))
    }

    fn set_cell(&mut self, cell: Setting, value: u64) -> Result<(), Error> {
        self.settings.set(cell.index(), value, 0).map_err(Error::map(map::SETTINGS))
    }

    /// Serves a receive queue by an AF_XDP socket, which must be bound to that queue.
    ///
    /// # Errors
    /// [`Error::Map`]: no such queue, or a socket without UMEM.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        self.sockets.set(queue, socket.as_fd().as_raw_fd(), 0).map_err(Error::map(map::SOCKETS))
    }

    /// Takes a queue's socket away. The kernel does so itself when the socket is closed.
    ///
    /// # Errors
    /// [`Error::Map`], also when there was none.
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), Error> {
        self.sockets.unset(queue).map_err(Error::map(map::SOCKETS))
    }

    /// The heartbeat of one queue, for the thread that polls it.
    ///
    /// # Errors
    /// [`Error::Queues`]: no such queue. [`Error::Map`].
    pub fn beat(&self, queue: u32) -> Result<Beat, Error> {
        if queue >= self.queues {
            return Err(Error::Queues { asked: queue, most: self.queues - 1 });
        }
        let fd = self.beats.fd().as_fd().try_clone_to_owned().map_err(MapError::from);
        let beats = fd.and_then(MapData::from_fd).and_then(Map::from_map_data).and_then(Array::try_from);
        Ok(Beat::new(beats.map_err(Error::map(map::BEATS))?, queue))
    }

    /// Declares a local address, or changes what we do there.
    ///
    /// # Errors
    /// [`Error::NotUnicast`], [`Error::Ports`], [`Error::Map`].
    pub fn set_local(&mut self, ip: IpAddr, local: &Local) -> Result<(), Error> {
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(Error::NotUnicast(ip));
        }
        if let Some(ports) = &local.upstream
            && (ports.is_empty() || ports.contains(&0))
        {
            return Err(Error::Ports { first: *ports.start(), last: *ports.end() });
        }
        self.locals.insert(Addr::new(ip).to_bytes(), local.to_bytes(), 0).map_err(Error::map(map::LOCALS))
    }

    /// Leaves a local address to the kernel, with its listeners, which come back if it is declared again.
    ///
    /// # Errors
    /// [`Error::Map`], also when it was not declared.
    pub fn remove_local(&mut self, ip: IpAddr) -> Result<(), Error> {
        self.locals.remove(&Addr::new(ip).to_bytes()).map_err(Error::map(map::LOCALS))
    }

    /// Listens at an exact address, one that was declared local.
    ///
    /// # Errors
    /// [`Error::NotLocal`], [`Error::Map`].
    pub fn add_listener(&mut self, at: SocketAddr) -> Result<(), Error> {
        match self.locals.get(&Addr::new(at.ip()).to_bytes(), 0) {
            Ok(_) => self.listeners.insert(listener(at), 0, 0).map_err(Error::map(map::LISTENERS)),
            Err(MapError::KeyNotFound) => Err(Error::NotLocal(at.ip())),
            Err(error) => Err(Error::map(map::LOCALS)(error)),
        }
    }

    /// Leaves a listener to the kernel.
    ///
    /// # Errors
    /// [`Error::Map`], also when there was none.
    pub fn remove_listener(&mut self, at: SocketAddr) -> Result<(), Error> {
        self.listeners.remove(&listener(at)).map_err(Error::map(map::LISTENERS))
    }

    /// Drops what a prefix of sources sends to our listeners and upstream ports.
    ///
    /// # Errors
    /// [`Error::Prefix`], [`Error::Map`].
    pub fn add_deny(&mut self, ip: IpAddr, bits: u8) -> Result<(), Error> {
        self.deny.insert(&prefix(ip, bits)?, 0, 0).map_err(Error::map(map::DENY))
    }

    /// Forgives a prefix that was added.
    ///
    /// # Errors
    /// [`Error::Prefix`], [`Error::Map`], also when it was not there.
    pub fn remove_deny(&mut self, ip: IpAddr, bits: u8) -> Result<(), Error> {
        self.deny.remove(&prefix(ip, bits)?).map_err(Error::map(map::DENY))
    }

    /// Whether the kernel may have connections at our listeners. While it may, each segment costs a look-up.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn kernel_flows(&self) -> Result<Option<KernelFlows>, Error> {
        let last_syn_ns = self.kernel_flows.get(&0, 0).map_err(Error::map(map::KERNEL_FLOWS))?;
        let gone_ns =
            self.settings.get(&Setting::KernelFlowsGoneNs.index(), 0).map_err(Error::map(map::SETTINGS))?;
        Ok((last_syn_ns > gone_ns).then_some(KernelFlows { last_syn_ns }))
    }

    /// Says that all connections of the kernel that `seen` speaks of are gone, where `seen` was read *before* user
    /// space looked and found none. A SYN that went to the kernel since then is not covered, so there is no race.
    ///
    /// Returns whether it was done; it is not while the last of them may still be in its handshake.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn clear_kernel_flows(&mut self, seen: KernelFlows, now_ns: u64) -> Result<bool, Error> {
        let over = seen.may_be_over(now_ns);
        if over {
            self.set_cell(Setting::KernelFlowsGoneNs, seen.last_syn_ns)?;
        }
        Ok(over)
    }

    /// How many packets left by each exit, over all CPUs, since the program was loaded.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counts, Error> {
        let mut counts = [0; EXITS];
        for (exit, count) in Exit::ALL.iter().zip(&mut counts) {
            let per_cpu = self.exits.get(&exit.index(), 0).map_err(Error::map(map::EXITS))?;
            *count = per_cpu.iter().sum();
        }
        Ok(Counts(counts))
    }

    /// Shows a frame to the program, as if it had come in by queue 0 of the loopback interface, and returns the
    /// verdict. Nothing is delivered, but counters count and a SYN is on its source's account.
    ///
    /// # Errors
    /// [`Error::Load`]: the kernel refuses frames that are shorter than an Ethernet header.
    pub fn judge(&self, frame: &[u8]) -> Result<Verdict, Error> {
        let judged = program(&self.ebpf).and_then(|program| {
            program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() })
        });
        match judged.map_err(|error| Error::Load(error.into()))?.return_value {
            XDP_DROP => Ok(Verdict::Drop),
            XDP_PASS => Ok(Verdict::Pass),
            XDP_REDIRECT => Ok(Verdict::Redirect),
            other => {
                Err(Error::Load(format!("the program's verdict is {other}, which it never returns").into()))
            }
        }
    }
}

/// The kernel may have connections at our listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFlows {
    /// When the last SYN for one of our listeners went to the kernel, in ns of CLOCK_MONOTONIC.
    pub last_syn_ns: u64,
}

impl KernelFlows {
    /// Whether the last of them has had its time to become a connection that `accept` returns, or nothing.
    #[must_use]
    pub fn may_be_over(self, now_ns: u64) -> bool {
        u128::from(now_ns.saturating_sub(self.last_syn_ns)) >= HANDSHAKE.as_nanos()
    }
}

const EXITS: usize = Exit::ALL.len();

/// Packets by exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; EXITS]);

impl Counts {
    /// Packets that left this way.
    #[must_use]
    pub fn of(&self, exit: Exit) -> u64 {
        self.0[exit as usize]
    }

    /// Every exit with its packets.
    pub fn iter(&self) -> impl Iterator<Item = (Exit, u64)> {
        Exit::ALL.iter().copied().zip(self.0)
    }

    /// All packets: each leaves by exactly one exit.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

fn listener(at: SocketAddr) -> [u8; Listener::SIZE] {
    Listener { addr: Addr::new(at.ip()), port: at.port() }.to_bytes()
}

fn prefix(ip: IpAddr, bits: u8) -> Result<Key<[u8; Addr::SIZE]>, Error> {
    let prefix = Prefix::new(ip, bits).map_err(Error::Prefix)?;
    Ok(Key::new(prefix.bits(), prefix.addr().to_bytes()))
}

fn program(ebpf: &Ebpf) -> Result<&Xdp, ProgramError> {
    ebpf.program(PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn program_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    ebpf.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error> {
    take_map(ebpf, name)?.try_into().map_err(Error::map(name))
}

/// Bare, because each [`Beat`] has its own descriptor of this map.
fn take_beats(ebpf: &mut Ebpf) -> Result<MapData, Error> {
    match take_map(ebpf, map::BEATS)? {
        Map::Array(data) => Ok(data),
        other => Err(Error::Load(format!("{} is {other:?}, and no array", map::BEATS).into())),
    }
}

fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map, Error> {
    ebpf.take_map(name).ok_or_else(|| Error::Load(format!("the object has no map {name}").into()))
}
