//! What the proxies talk to, as a process of its own: its CPU time is in nobody's account.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use mtproxy_bench::this_program;
use mtproxy_tests::middle_proxy_files::PROXY_SECRET;
use mtproxy_tests::{DcMode, FakeDc, FakeMiddleProxy, MiddleProxyOptions};

/// Serves until standard input ends. Prints both addresses once they can be connected to.
pub(crate) fn serve() -> Result<()> {
    let dc = FakeDc::start(DcMode::Packets);
    // Requests are counted; to keep them would fill the memory.
    let options = MiddleProxyOptions { recorded_requests_max: 0, ..MiddleProxyOptions::new(&PROXY_SECRET) };
    let middle_proxy = FakeMiddleProxy::start(options);
    println!("{} {}", dc.address(), middle_proxy.address());
    std::io::stdout().flush().context("telling the addresses")?;
    let mut nothing = [0];
    // Ends with its parent, by end of file.
    let _ = std::io::stdin().read(&mut nothing);
    Ok(())
}

/// Both, running.
pub(crate) struct Peers {
    child: Child,
    pub(crate) dc: SocketAddr,
    pub(crate) middle_proxy: SocketAddr,
}

impl Peers {
    pub(crate) fn start() -> Result<Self> {
        let mut child = this_program(&[], &["peers"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting data centre and middle proxy")?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut line).context("reading the peers' addresses")?;
        let addresses: Vec<SocketAddr> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(addresses.len() == 2, "the peers said {line:?} instead of their addresses");
        Ok(Self { child, dc: addresses[0], middle_proxy: addresses[1] })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Nothing is left to be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}
