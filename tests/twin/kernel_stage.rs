//! The program itself on hosts of their own: peers are sockets, the network is veth, time is real.
//!
//! Which datapath it is run with is all in which the two stages here differ. Needs root.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::cast::{DOMAIN, secret};
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::{Lab3, Lab3Options, PATIENCE, ProxyCommand, ProxyProcess};

use crate::deployment;
use crate::script::Scene;
use crate::stage::{READ_MAX, Received, Sent, Stage, Upstream};

/// How long the stage waits before peers are looked at again that had nothing to do.
const MOMENT: Duration = Duration::from_millis(1);

/// The program with one datapath.
pub(crate) struct KernelStage<const IS_XDP: bool> {
    connections: Vec<Connection>,
    servers: Vec<(Upstream, TcpListener)>,
    clients: u64,
    begun: Instant,
    // Processes end before their hosts do.
    _proxy: ProxyProcess,
    lab: Lab3,
}

pub(crate) type EpollStage = KernelStage<false>;
pub(crate) type XdpStage = KernelStage<true>;

struct Connection {
    stream: Option<TcpStream>,
    is_fin_told: bool,
    is_rst_told: bool,
    /// The kernel has said that the peer is gone. It says so once, to whoever asks first.
    is_broken: bool,
}

impl<const IS_XDP: bool> Stage for KernelStage<IS_XDP> {
    fn set(scene: Scene, _unix_seconds: u32) -> Self {
        let lab = Lab3::new(Lab3Options::default()).unwrap_or_else(|error| panic!("building a lab: {error}"));
        let servers = lab.dc.enter(|| {
            deployment::servers().map(|(who, address)| {
                let listener = TcpListener::bind(address).expect("a host of its own");
                listener.set_nonblocking(true).expect("O_NONBLOCK");
                (who, listener)
            })
        });
        let proxy = command(scene, IS_XDP).within(&lab.proxy).start();
        let (connections, servers) = (Vec::new(), servers.into());
        let mut stage = Self { connections, servers, clients: 0, begun: Instant::now(), _proxy: proxy, lab };
        if IS_XDP {
            stage.wait_for_steering();
        }
        stage
    }

    fn connect(&mut self, is_v6: bool) -> usize {
        self.clients += 1;
        let address = deployment::proxy_address(is_v6);
        let stream = self.lab.client.enter(|| TcpStream::connect(address)).expect("the proxy accepts");
        self.insert(stream)
    }

    fn accept(&mut self) -> Option<(Upstream, usize)> {
        let accepted = self.servers.iter().find_map(|(who, listener)| match listener.accept() {
            Ok((stream, _)) => Some((*who, stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("accepting: {error}"),
        });
        accepted.map(|(who, stream)| (who, self.insert(stream)))
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) -> Sent {
        let Connection { stream, is_broken, .. } = &mut self.connections[connection];
        let Some(stream) = stream else { return Sent::Broken };
        match stream.write(bytes) {
            Ok(len) => Sent::Took(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Took(0),
            Err(error) => {
                assert!(is_end(&error), "sending: {error}");
                *is_broken = true;
                Sent::Broken
            }
        }
    }

    fn receive(&mut self, connection: usize) -> Received {
        let Connection { stream, is_fin_told, is_rst_told, is_broken } = &mut self.connections[connection];
        let Some(stream) = stream else { return Received::Nothing };
        if *is_fin_told {
            // Behind FIN, reads say FIN; only writing and SO_ERROR tell of a reset.
            *is_broken |= stream.take_error().is_ok_and(|error| error.is_some());
            let is_news = *is_broken && !std::mem::replace(is_rst_told, true);
            return if is_news { Received::Rst } else { Received::Nothing };
        }
        let mut buffer = vec![0; READ_MAX];
        match stream.read(&mut buffer) {
            Ok(0) if *is_broken => {
                *is_rst_told = true;
                Received::Rst
            }
            Ok(0) => {
                *is_fin_told = true;
                Received::Fin
            }
            Ok(len) => {
                buffer.truncate(len);
                Received::Bytes(buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
            Err(error) => {
                assert!(is_end(&error), "receiving: {error}");
                *is_rst_told = true;
                Received::Rst
            }
        }
    }

    fn finish(&mut self, connection: usize) {
        if let Some(stream) = &self.connections[connection].stream {
            // Fails only if the connection is gone, which the next read tells.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn reset(&mut self, connection: usize) {
        if let Some(stream) = self.connections[connection].stream.take() {
            let zero = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&stream, zero).expect("SO_LINGER");
        }
    }

    fn let_go(&mut self, connection: usize) {
        self.connections[connection].stream = None;
    }

    fn pass(&mut self, is_waiting: bool) {
        if is_waiting {
            std::thread::sleep(MOMENT);
        }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// AF_XDP fails open: what goes wrong there is served by the kernel, and nobody would notice. By design that
    /// is what becomes of clients while a shard gets no CPU to beat: a few, on a machine that is busy.
    fn check_way(&self) {
        let (clients, accepted) = (self.clients, self.accepted_by_the_kernel());
        let is_our_way = if IS_XDP { accepted * 4 <= clients } else { accepted >= clients };
        assert!(is_our_way, "the kernel has accepted {accepted} of {clients} clients");
    }
}

impl<const IS_XDP: bool> KernelStage<IS_XDP> {
    /// A shard beats a moment after the program is ready; until then its clients go to the kernel.
    fn wait_for_steering(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.accepted_by_the_kernel();
            let connection = self.connect(false);
            self.let_go(connection);
            if self.accepted_by_the_kernel() == before {
                return;
            }
            assert!(Instant::now() < deadline, "awaiting that clients are steered to AF_XDP");
            std::thread::sleep(MOMENT);
        }
    }

    /// Clients whose connections are the kernel's (RFC 1213 section 6, tcpPassiveOpens).
    fn accepted_by_the_kernel(&self) -> u64 {
        self.lab.proxy.enter(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("there is a /proc");
            let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
            let (names, values) = lines.next().zip(lines.next()).expect("two lines about TCP");
            let index = names.split(' ').position(|name| name == "PassiveOpens").expect("it is counted");
            values.split(' ').nth(index).and_then(|value| value.parse().ok()).expect("a number")
        })
    }

    fn insert(&mut self, stream: TcpStream) -> usize {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        self.connections.push(Connection {
            stream: Some(stream),
            is_fin_told: false,
            is_rst_told: false,
            is_broken: false,
        });
        self.connections.len() - 1
    }
}

/// The scene as an operator configures it.
fn command(scene: Scene, is_xdp: bool) -> ProxyCommand {
    let [first_byte, handshake, idle, linger] = deployment::timeouts(scene);
    let mut command = ProxyCommand::new()
        .listen(deployment::proxy_address(false))
        .listen(deployment::proxy_address(true))
        .secret(&secret(SecretKind::Plain))
        .option("--workers", "1")
        .config(&format!(
            "[timeouts]\nfirst_byte_seconds = {first_byte}\nhandshake_seconds = {handshake}\n\
            idle_seconds = {idle}\nlinger_seconds = {linger}\n"
        ));
    for (id, addresses) in deployment::data_centres() {
        command = addresses.into_iter().fold(command, |command, address| command.dc(id, address));
    }
    if scene != Scene::Frontless {
        command = command.domain(DOMAIN, deployment::front_address());
    }
    if is_xdp {
        command
            .option("--datapath", "xdp")
            .option("--interface", PROXY_INTERFACE)
            .option("--xdp-mode", "copy")
    } else {
        command.option("--datapath", "epoll")
    }
}

fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
