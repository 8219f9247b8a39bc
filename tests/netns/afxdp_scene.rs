//! The cast of [`NamespaceScene`] around a proxy whose datapath is AF_XDP, and what must hold at its end.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use mtproxy_tests::cast::Mode;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::test_client::fresh_random;
use mtproxy_tests::{
    ClientCodec, DcMode, FrontManner, FrontSite, Lab3, Lab3Options, NamespaceScene, PATIENCE, Pace,
    ProxyCommand, Socket, TestClient, metrics_page,
};
use rustix::process::Signal;

/// Then a shard that does not beat is taken for hung (xdp-prog, `DEFAULT_STALE_AFTER`), and a little for the
/// signal's way to it.
pub(crate) const STALE_AFTER: Duration = Duration::from_millis(150 + 20);

/// A client, from a connection that has come about already.
pub(crate) fn client_on(stream: TcpStream) -> TestClient {
    let codec = ClientCodec::new(Mode::Dd.options(), fresh_random());
    TestClient::open(Socket::from_stream(stream).expect("a connected socket"), codec, Pace::WHOLE)
}

/// How packets get to and from the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The driver runs the program, the kernel copies.
    Copy,
    /// The kernel runs the program on its own packets, and copies.
    Generic,
}

impl Bound {
    pub(crate) const ALL: [Self; 2] = [Self::Copy, Self::Generic];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Generic => "generic",
        }
    }
}

/// Tests of how long something takes have the machine for themselves.
static MACHINE: RwLock<()> = RwLock::new(());

enum Turn {
    Shared { _held: RwLockReadGuard<'static, ()> },
    Alone { _held: RwLockWriteGuard<'static, ()> },
}

/// A proxy over AF_XDP, its peers and its hosts.
pub(crate) struct AfxdpScene {
    scene: NamespaceScene,
    queues: u32,
    /// Shards that have been started until now.
    shards: u32,
    /// Times that AF_XDP has come back.
    returns: usize,
    _turn: Turn,
}

/// What can differ from one scene to the next.
pub(crate) struct Setting {
    pub(crate) bound: Bound,
    pub(crate) lab: Lab3Options,
    pub(crate) dc: DcMode,
    pub(crate) dc_v6: bool,
    pub(crate) is_alone: bool,
    /// The front is on the proxy's own host, at an address of loopback.
    pub(crate) has_front_at_home: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            bound: Bound::Copy,
            lab: Lab3Options::default(),
            dc: DcMode::Packets,
            dc_v6: false,
            is_alone: false,
            has_front_at_home: false,
        }
    }
}

impl Setting {
    pub(crate) fn bound(bound: Bound) -> Self {
        Self { bound, ..Self::default() }
    }

    pub(crate) fn queues(queues: u32) -> Self {
        Self { lab: Lab3Options { queues, ..Lab3Options::default() }, ..Self::default() }
    }

    pub(crate) fn start(self) -> Option<AfxdpScene> {
        self.start_with(|command| command)
    }

    /// `None` without root, which is said.
    pub(crate) fn start_with(
        self,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Option<AfxdpScene> {
        // A test that failed has nothing more to say about the next.
        let turn = if self.is_alone {
            Turn::Alone { _held: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
        } else {
            Turn::Shared { _held: MACHINE.read().unwrap_or_else(PoisonError::into_inner) }
        };
        let lab = Lab3::or_skip(self.lab)?;
        let front_at = if self.has_front_at_home {
            (&lab.proxy, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        } else {
            (&lab.dc, SocketAddr::new(Lab3::dc_ip(self.dc_v6), 0))
        };
        let front = front_at.0.enter(|| FrontSite::start_on(front_at.1, FrontManner::AnswersAtOnce));
        let scene = NamespaceScene::with_front(lab, front, self.dc, self.dc_v6, |command| {
            let command = command
                .option("--datapath", "xdp")
                .option("--interface", PROXY_INTERFACE)
                .option("--xdp-mode", self.bound.name())
                .option("--metrics", &METRICS.to_string());
            complete(command)
        });
        let queues = self.lab.channels.unwrap_or(self.lab.queues);
        let scene = AfxdpScene { scene, queues, shards: queues, returns: 0, _turn: turn };
        scene.wait_for_beats();
        Some(scene)
    }
}

/// `xdp.frames`, of each queue, unless it is configured.
const FRAMES: u64 = 16_384;

const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

impl Deref for AfxdpScene {
    type Target = NamespaceScene;

    fn deref(&self) -> &NamespaceScene {
        &self.scene
    }
}

impl DerefMut for AfxdpScene {
    fn deref_mut(&mut self) -> &mut NamespaceScene {
        &mut self.scene
    }
}

impl AfxdpScene {
    /// Until every shard beats its first clients are the kernel's. A shard shows its frames behind its first beat.
    #[track_caller]
    pub(crate) fn wait_for_beats(&self) {
        let deadline = Instant::now() + PATIENCE;
        let states = ["free", "fill", "ours", "in_flight"];
        let shown = || states.map(|state| self.sample(&format!("mtproxy_xdp_frames{{state=\"{state}\"}}")));
        while shown().iter().sum::<u64>() < u64::from(self.queues) * FRAMES {
            assert!(Instant::now() < deadline, "awaiting the shards' first beats");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until AF_XDP has come back by itself, with so many queues, and said so.
    #[track_caller]
    pub(crate) fn wait_for_return(&mut self, queues: u32) {
        self.returns += 1;
        let is_return = |line: &&String| line.contains("AF_XDP is back");
        let deadline = Instant::now() + PATIENCE;
        while self.proxy.stderr().iter().filter(is_return).count() < self.returns {
            assert!(Instant::now() < deadline, "awaiting AF_XDP's return: {:#?}", self.proxy.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.queues = queues;
        self.shards += queues;
        self.wait_for_beats();
    }

    /// A client of the kernel's own sockets, though there are shards: it came while the process stood still.
    #[track_caller]
    pub(crate) fn client_over_sockets(&self) -> TestClient {
        let address = self.address(false);
        let mut stream = None;
        self.proxy.while_stopped(|| {
            std::thread::sleep(STALE_AFTER);
            stream = self.lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).ok();
        });
        let mut client = client_on(stream.expect("the kernel completes the handshake"));
        client.ask_for_pq();
        client
    }

    /// A sample of the proxy's metrics, named with its labels.
    #[track_caller]
    pub(crate) fn sample(&self, name: &str) -> u64 {
        let value = self.lab.proxy.enter(|| metrics_page::sample(METRICS, name));
        value.unwrap_or_else(|| panic!("there is no sample {name}"))
    }

    /// Waits until a sample is at least `least`.
    #[track_caller]
    pub(crate) fn wait_for_sample(&self, name: &str, least: u64) {
        self.lab.proxy.enter(|| metrics_page::wait_for_sample(METRICS, name, least, PATIENCE));
    }

    /// Packets of the interface that left the steering program by this exit, once the proxy has looked again.
    #[track_caller]
    pub(crate) fn steered(&self, exit: &str) -> u64 {
        self.sample(&format!("mtproxy_steering_total{{exit=\"{exit}\"}}"))
    }

    /// The id of the program on the proxy's interface.
    pub(crate) fn has_program(&self) -> bool {
        let output = Command::new("ip")
            .args(["-n", self.lab.proxy.name(), "link", "show", "dev", PROXY_INTERFACE])
            .output()
            .expect("ip runs");
        String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
    }

    /// Stops the proxy, whose clients are gone, and checks that every frame was found again and nothing is left
    /// on its host.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        assert!(self.has_program(), "the proxy has been on its interface until now");
        self.proxy.signal(Signal::TERM);
        self.assert_ends_well(PATIENCE);
    }

    /// The same for a proxy that was told to stop already.
    #[track_caller]
    pub(crate) fn assert_ends_well(&mut self, patience: Duration) {
        let status = self.proxy.wait_for_exit(patience);
        assert!(status.success(), "{status}");
        let _ = self.proxy.wait_for_line("the last line", |line| line.contains("stopped"));
        let said = self.proxy.stderr();
        let census: Vec<&String> = said.iter().filter(|line| line.contains("frames at the end")).collect();
        assert_eq!(census.len() as u32, self.shards, "each shard counts its frames: {census:#?}");
        assert!(census.iter().all(|line| line.contains("accounted=true")), "{census:#?}");
        assert!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
        assert!(!self.has_program(), "the program goes with the proxy");
    }
}
