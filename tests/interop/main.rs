//! A client library that we did not write, through the proxy: Telethon, from PyPI.
//!
//! `make interop` makes the Python environment that the variable `MTPROXY_INTEROP_PYTHON` names, and runs
//! this with `--ignored`. See telethon_client.py for what is said on each connection.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::{DcMode, FakeDc, ProxyCommand};

/// Telethon pauses for two seconds per connection, and all connections run at once.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs Telethon, which `make interop` installs"]
fn telethon_gets_its_res_pq_over_each_of_its_mtproxy_connections() {
    let python = std::env::var_os("MTPROXY_INTEROP_PYTHON")
        .expect("MTPROXY_INTEROP_PYTHON names a Python with Telethon; `make interop` makes one");
    let dc = FakeDc::start(DcMode::Packets);
    let secret = Secret::new(*b"sixteen byte key", SecretKind::Plain);
    let proxy = ProxyCommand::new()
        .secret(&secret)
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
        .dc(2, dc.address())
        .start();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/telethon_client.py");
    let plain = secret.reveal();
    let dd = format!("dd{plain}");
    let mut client = Command::new(python)
        .arg(script)
        .args(proxy.addresses().iter().map(SocketAddr::to_string))
        .args(["--", &plain, &dd])
        .stdin(Stdio::null())
        .spawn()
        .expect("the Python that `make interop` made can be started");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = client.try_wait().expect("the script is a child of ours") {
            break status;
        }
        if Instant::now() > deadline {
            // It is gone already, or ends now.
            let _ = client.kill();
            let _ = client.wait();
            panic!("awaiting the end of the Telethon script for {PATIENCE:?} in vain");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "Telethon's lines above say what failed ({status})");

    let sessions = dc.sessions();
    let count = |transport, id| {
        sessions.iter().filter(|session| session.report.init == Some((DcId(id), transport))).count()
    };
    for id in [2, -2] {
        // Two families; the padded transport with both forms of the secret.
        assert_eq!(count(Transport::Abridged, id), 2, "{sessions:?}");
        assert_eq!(count(Transport::Intermediate, id), 2, "{sessions:?}");
        assert_eq!(count(Transport::PaddedIntermediate, id), 4, "{sessions:?}");
    }
}
