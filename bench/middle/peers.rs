//! What the proxies talk to, as a process of its own: its CPU time is in nobody's account.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use mtproxy_bench::attendant::Attendant;
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
    _process: Attendant,
    pub(crate) dc: SocketAddr,
    pub(crate) middle_proxy: SocketAddr,
}

impl Peers {
    pub(crate) fn start() -> Result<Self> {
        let process = Attendant::start(&[], &["peers"])?;
        let addresses: Vec<SocketAddr> =
            process.line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(addresses.len() == 2, "the peers said {:?} instead of their addresses", process.line);
        Ok(Self { _process: process, dc: addresses[0], middle_proxy: addresses[1] })
    }
}
