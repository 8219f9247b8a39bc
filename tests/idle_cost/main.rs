//! What idle clients cost: memory each, and wake-ups, which must be none.
//!
//! Everything here measures one process by the kernel's own accounts, so it runs one test at a time and
//! wants no other work on the proxy under test; what else runs on the machine does not matter.

#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_tests::test_client::unix_seconds;
use mtproxy_tests::{
    ClientOptions, DcMode, FakeDc, FrontManner, FrontSite, PATIENCE, ProxyCommand, ProxyProcess, TestClient,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of this process that are no client's.
const OWN_DESCRIPTORS: u64 = 200;

/// How many clients fit under this machine's limit of descriptors, which is raised as far as it goes.
fn clients_that_fit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("a process may raise its soft limit to the hard one");
    let Some(descriptors) = limit.maximum else { return CLIENTS };
    let fitting = usize::try_from(descriptors.saturating_sub(OWN_DESCRIPTORS) / 2).unwrap_or(CLIENTS);
    if fitting < CLIENTS {
        eprintln!("only {fitting} clients instead of {CLIENTS}: the limit of open files is {descriptors}");
    }
    fitting.min(CLIENTS)
}

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

const KEY: [u8; 16] = *b"sixteen byte key";
const DOMAIN: &str = "front.example";
/// 5,000 here are 10,000 descriptors in this process (client and data centre) and as many in the proxy.
const CLIENTS: usize = 5000;
/// The promise: what one idle client may cost, bytes of proportional set size.
const BYTES_PER_CLIENT_MAX: u64 = 2048;
const WATCHED: Duration = Duration::from_secs(5);

fn start(dc: &FakeDc, front: &FrontSite) -> ProxyProcess {
    ProxyCommand::new()
        .secret(&Secret::new(KEY, SecretKind::Plain))
        .domain(DOMAIN, front.address())
        .dc(2, dc.address())
        .start()
}

fn client(proxy: &ProxyProcess) -> TestClient {
    let kind = SecretKind::FakeTls(DOMAIN.parse().expect("a domain"));
    let options = ClientOptions::new(Secret::new(KEY, kind), DcId(2), unix_seconds());
    let mut client = TestClient::connect(proxy.address(), options);
    client.ask_for_pq();
    client
}

/// Waits until the proxy has slept through half a second, then counts for [`WATCHED`] how often its
/// threads went to sleep again.
#[track_caller]
fn wake_ups_when_settled(proxy: &ProxyProcess) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut before = proxy.cost().voluntary_switches;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = proxy.cost().voluntary_switches;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "awaiting half a second without wake-ups");
        before = now;
    }
    std::thread::sleep(WATCHED);
    proxy.cost().voluntary_switches - before
}

#[test]
fn five_thousand_idle_clients_cost_two_kib_each_and_no_wake_ups() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dc = FakeDc::start(DcMode::Packets);
    let front = FrontSite::start(FrontManner::AnswersAtOnce);
    let count = clients_that_fit();
    let proxy = start(&dc, &front);
    // The first client pays for what is made once.
    drop(client(&proxy));
    dc.wait_until("the first client's end", |s| s[0].closed);
    let before = proxy.cost();
    let mut clients: Vec<TestClient> = (0..count).map(|_| client(&proxy)).collect();
    assert_eq!(dc.open(), count as u64);
    let wake_ups = wake_ups_when_settled(&proxy);
    let after = proxy.cost();
    let each = after.pss_bytes.saturating_sub(before.pss_bytes) / count as u64;
    eprintln!("{count} idle ee clients: {each} bytes each (PSS), {wake_ups} wake-ups in {WATCHED:?}");
    assert!(each <= BYTES_PER_CLIENT_MAX, "an idle client costs {each} bytes: from {before:?} to {after:?}");
    assert_eq!(wake_ups, 0, "idle clients wake nobody");
    for client in clients.iter_mut().step_by(500) {
        client.ask_for_pq();
    }
}

#[test]
fn a_proxy_without_clients_does_not_wake_up() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dc = FakeDc::start(DcMode::Packets);
    let front = FrontSite::start(FrontManner::AnswersAtOnce);
    let proxy = start(&dc, &front);
    assert_eq!(wake_ups_when_settled(&proxy), 0);
}
