//! nginx's stream module as a relay: what moving the same bytes costs without knowing what they are.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mtproxy_bench::data_centre::{Ports, Service};
use rustix::process::{Pid, Signal};

/// Where Debian keeps the module; elsewhere it may be part of the program.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    master: Child,
    ports: Ports,
    directory: PathBuf,
}

impl Nginx {
    /// Starts one between free ports and `upstream`.
    pub(crate) fn start(upstream: &Ports, workers: usize, buffer: &str) -> Result<Self> {
        let ports = free_ports()?;
        let directory = std::env::temp_dir().join(format!("mtproxy-load-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&directory).context("making a directory for nginx")?;
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration(&ports, upstream, workers, buffer))
            .context("configuring nginx")?;
        let master = Command::new("nginx")
            .arg("-p")
            .arg(&directory)
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .spawn()
            .context("starting nginx; it is in the Debian packages nginx and libnginx-mod-stream")?;
        let nginx = Self { master, ports, directory };
        nginx.wait_until_listening()?;
        Ok(nginx)
    }

    /// Where it listens.
    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// Master and workers.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let master = self.master.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .context("listing nginx's workers")?;
        let workers: Result<Vec<u32>, _> = children.split_whitespace().map(str::parse).collect();
        Ok([vec![master], workers.context("listing nginx's workers")?].concat())
    }

    fn wait_until_listening(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for address in self.ports.addresses() {
            while TcpStream::connect(address).is_err() {
                if Instant::now() > deadline {
                    bail!("nginx does not listen on {address} after {PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Not SIGKILL: the master would leave its workers behind.
        let _ = rustix::process::kill_process(Pid::from_child(&self.master), Signal::TERM);
        let _ = self.master.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// As nginx itself says it, for instance nginx/1.22.1.
pub(crate) fn version() -> String {
    let Ok(output) = Command::new("nginx").arg("-v").output() else { return "no nginx".to_owned() };
    // It answers on standard error: "nginx version: nginx/1.22.1".
    String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned()
}

/// nginx cannot be told to find ports itself.
fn free_ports() -> Result<Ports> {
    let listeners: Result<Vec<TcpListener>, _> =
        (0..Service::COUNT).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let mut ports = [0; Service::COUNT];
    for (port, listener) in ports.iter_mut().zip(listeners.context("finding free ports")?) {
        *port = listener.local_addr().context("finding free ports")?.port();
    }
    Ok(Ports::new(ports))
}

/// What a careful operator would write for a relay: no log, a listening socket a worker, no Nagle delay,
/// room for many clients.
fn configuration(ports: &Ports, upstream: &Ports, workers: usize, buffer: &str) -> String {
    let mut text = String::new();
    if Path::new(STREAM_MODULE).exists() {
        let _ = writeln!(text, "load_module {STREAM_MODULE};");
    }
    let _ = write!(
        text,
        "daemon off;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\npid nginx.pid;\n\
         error_log stderr crit;\nevents {{ use epoll; worker_connections 16384; }}\n\
         stream {{\n  access_log off;\n  tcp_nodelay on;\n  proxy_buffer_size {buffer};\n\
         \x20 proxy_connect_timeout 5s;\n  proxy_timeout 10m;\n"
    );
    let pairs: Vec<(SocketAddr, SocketAddr)> =
        ports.addresses().into_iter().zip(upstream.addresses()).collect();
    for (listen, to) in pairs {
        let _ = writeln!(text, "  server {{ listen {listen} reuseport backlog=4096; proxy_pass {to}; }}");
    }
    text.push_str("}\n");
    text
}
