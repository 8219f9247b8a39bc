//! The whole of it, on files and a server of this test's own.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crossbeam::channel::RecvTimeoutError;

use super::super::source_address;
use super::scratch::Scratch;
use super::test_server::TestServer;
use super::*;

const ONE: &[u8] = b"default 2;\nproxy_for 1 127.0.0.1:1001;\nproxy_for 2 127.0.0.1:1002;\n";
const OTHER: &[u8] = b"default 2;\nproxy_for 1 127.0.0.1:2001;\nproxy_for 2 127.0.0.1:2002;\n";
const SECRET: [u8; 40] = [7; 40];
/// For what happens at once.
const SOON: Duration = Duration::from_secs(20);
/// Later than everything that may be planned in these tests.
const DAYS: Duration = Duration::from_secs(3 * 86_400);

fn from_files(scratch: &Scratch) -> MiddleProxyPlan {
    MiddleProxyPlan {
        files: Some(MiddleProxyFiles {
            config: scratch.path("operators.conf"),
            secret: scratch.path("operators.secret"),
        }),
        refresh: None,
        nat: NatRules::default(),
        prefer_ip: PreferIp::V4,
        state_dir: Some(scratch.path("state")),
    }
}

fn from_server(scratch: &Scratch, server: &TestServer) -> MiddleProxyPlan {
    let refresh = RefreshSettings {
        config_url: server.url("/config"),
        config_url_v6: None,
        secret_url: server.url("/secret"),
        every: Duration::from_secs(86_400),
        confirm_after: Duration::from_millis(1),
    };
    MiddleProxyPlan { files: None, refresh: Some(refresh), ..from_files(scratch) }
}

/// A server that has everything.
fn server() -> TestServer {
    let server = TestServer::start();
    server.answer("/config", ONE);
    server.answer("/secret", &SECRET);
    server
}

/// A keeper with its downloads.
struct Bench {
    keeper: Keeper,
    arrival: Sender<Arrival>,
    arrivals: Receiver<Arrival>,
    /// When the files are looked at next.
    look_at: Instant,
}

impl Bench {
    fn started(plan: MiddleProxyPlan) -> Result<Self, Complaint> {
        let mut keeper = Keeper::open(plan).unwrap();
        let (arrival, arrivals) = channel::unbounded();
        keeper.complete_within(Duration::from_secs(5), &arrival, &arrivals)?;
        Ok(Self { keeper, arrival, arrivals, look_at: Instant::now() })
    }

    fn loaded(&self) -> Arc<LoadedMiddleProxies> {
        self.keeper.loaded().unwrap()
    }

    /// One round of all downloads, some days later. True if it changed what is known.
    fn download(&mut self, downloads: usize) -> bool {
        self.keeper.tick(Instant::now() + DAYS, &self.arrival);
        let arrivals: Vec<Arrival> =
            (0..downloads).map(|_| self.arrivals.recv_timeout(SOON).unwrap()).collect();
        thread::sleep(Duration::from_millis(5));
        let changes: Vec<bool> = arrivals.into_iter().map(|arrival| self.keeper.take(arrival)).collect();
        changes.contains(&true)
    }

    /// Two looks at the operator's files. True if they changed what is known.
    fn look_twice(&mut self) -> bool {
        let mut look = || {
            self.look_at += Duration::from_secs(10);
            self.keeper.tick(self.look_at, &self.arrival)
        };
        [look(), look()].contains(&true)
    }
}

fn ports(loaded: &LoadedMiddleProxies) -> Vec<u16> {
    loaded.clusters.targets().map(|target| target.address.port()).collect()
}

fn grow_old(path: &Path) {
    let long_ago = SystemTime::now() - DAYS;
    std::fs::File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn the_operators_files_are_known_at_once_with_where_they_came_from() {
    let scratch = Scratch::new("start-files");
    let config = scratch.file("operators.conf", ONE);
    scratch.file("operators.secret", &SECRET);
    let loaded = Bench::started(from_files(&scratch)).unwrap().loaded();
    assert_eq!((loaded.clusters.default, ports(&loaded)), (2, vec![1001, 1002]));
    assert_eq!(loaded.secret.bytes(), SECRET);
    assert_eq!(loaded.config_origin.name, config.display().to_string());
    assert_eq!(loaded.config_origin.bytes, ONE.len());
}

#[test]
fn all_that_is_wrong_with_the_operators_files_is_said_at_start() {
    let scratch = Scratch::new("start-bad-files");
    scratch.file("operators.conf", b"proxy_for nowhere;");
    let complaints = Keeper::open(from_files(&scratch)).unwrap_err().to_string();
    assert!(
        complaints.contains("operators.conf:1:") && complaints.contains("operators.secret"),
        "{complaints}"
    );
}

#[test]
fn a_file_that_changes_is_taken_and_a_bad_one_leaves_the_one_before() {
    let scratch = Scratch::new("change");
    scratch.file("operators.conf", ONE);
    scratch.file("operators.secret", &SECRET);
    let mut bench = Bench::started(from_files(&scratch)).unwrap();
    assert!(!bench.look_twice());
    scratch.file("operators.conf", OTHER);
    assert!(bench.look_twice());
    assert_eq!(ports(&bench.loaded()), [2001, 2002]);
    scratch.file("operators.conf", b"default 2; proxy_for");
    scratch.file("operators.secret", &[1; 31]);
    assert!(!bench.look_twice());
    std::fs::remove_file(scratch.path("operators.conf")).unwrap();
    assert!(!bench.look_twice());
    assert_eq!(ports(&bench.loaded()), [2001, 2002]);
    assert_eq!(bench.loaded().secret.bytes(), SECRET);
    scratch.file("operators.secret", &[8; 32]);
    assert!(bench.look_twice(), "one good file counts although the other is bad");
    assert_eq!(bench.loaded().secret.bytes(), [8; 32]);
}

#[test]
fn a_first_start_downloads_and_the_next_one_needs_no_network() {
    let scratch = Scratch::new("first");
    let server = server();
    let plan = from_server(&scratch, &server);
    let loaded = Bench::started(plan.clone()).unwrap().loaded();
    assert_eq!((ports(&loaded), loaded.secret.bytes()), (vec![1001, 1002], &SECRET[..]));
    assert!(loaded.config_origin.name.ends_with("/config"));
    drop(server);
    let loaded = Bench::started(plan).unwrap().loaded();
    assert_eq!(ports(&loaded), [1001, 1002]);
    assert!(loaded.config_origin.name.ends_with("state/proxy-multi.conf"), "{:?}", loaded.config_origin);
}

#[test]
fn a_first_start_without_an_answer_is_a_complaint_that_says_what_to_do() {
    let scratch = Scratch::new("first-none");
    let server = TestServer::start();
    server.answer("/secret", &SECRET);
    let mut keeper = Keeper::open(from_server(&scratch, &server)).unwrap();
    let (arrival, arrivals) = channel::unbounded();
    let message =
        keeper.complete_within(Duration::from_millis(500), &arrival, &arrivals).unwrap_err().to_string();
    for part in ["/config: found the answer 404", "expected", "--middle-proxy-config"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("/secret: "), "that one was answered: {message}");
}

#[test]
fn a_start_from_copies_does_not_wait_for_the_network() {
    let scratch = Scratch::new("old-copy");
    let server = server();
    let plan = from_server(&scratch, &server);
    Bench::started(plan.clone()).unwrap();
    let asked = server.requests().len();
    grow_old(&scratch.path("state/proxy-multi.conf"));
    let bench = Bench::started(plan).unwrap();
    assert_eq!(server.requests().len(), asked);
    let in_time = Instant::now() + Duration::from_secs(1);
    assert!(bench.keeper.next_at().unwrap() < in_time, "the old one is asked for at once");
}

#[test]
fn something_new_counts_when_it_was_seen_twice_and_is_kept() {
    let scratch = Scratch::new("newer");
    let server = server();
    let plan = from_server(&scratch, &server);
    let mut bench = Bench::started(plan.clone()).unwrap();
    assert!(!bench.download(2), "nothing new");
    server.answer("/config", OTHER);
    assert!(!bench.download(2), "seen once");
    assert_eq!(ports(&bench.loaded()), [1001, 1002]);
    assert!(bench.download(2), "seen twice");
    assert_eq!(ports(&bench.loaded()), [2001, 2002]);
    assert_eq!(std::fs::read(scratch.path("state/proxy-multi.conf")).unwrap(), OTHER);
}

#[test]
fn what_servers_send_instead_of_a_file_changes_nothing() {
    let scratch = Scratch::new("garbage");
    let server = server();
    let mut bench = Bench::started(from_server(&scratch, &server)).unwrap();
    server.answer("/config", b"<html>Too many requests</html>");
    server.answer("/secret", b"<html><body>Too many requests</body></html>");
    for _ in 0..3 {
        assert!(!bench.download(2));
    }
    assert_eq!(ports(&bench.loaded()), [1001, 1002]);
    assert_eq!(bench.loaded().secret.bytes(), SECRET);
    assert_eq!(std::fs::read(scratch.path("state/proxy-secret")).unwrap(), SECRET);
}

#[test]
fn a_damaged_copy_is_downloaded_again() {
    let scratch = Scratch::new("damaged");
    let server = server();
    std::fs::create_dir_all(scratch.path("state")).unwrap();
    scratch.file("state/proxy-multi.conf", b"proxy_for 2");
    let loaded = Bench::started(from_server(&scratch, &server)).unwrap().loaded();
    assert_eq!(ports(&loaded), [1001, 1002]);
}

#[test]
fn of_file_and_copy_the_younger_one_counts() {
    let scratch = Scratch::new("younger");
    let server = server();
    let download = from_server(&scratch, &server);
    Bench::started(download.clone()).unwrap();
    let config = scratch.file("operators.conf", OTHER);
    scratch.file("operators.secret", &SECRET);
    let both = MiddleProxyPlan { files: from_files(&scratch).files, ..download };
    assert_eq!(ports(&Bench::started(both.clone()).unwrap().loaded()), [2001, 2002]);
    grow_old(&config);
    assert_eq!(ports(&Bench::started(both).unwrap().loaded()), [1001, 1002]);
}

#[test]
fn the_other_family_is_used_where_only_it_has_a_route() {
    let scratch = Scratch::new("family");
    let server = server();
    server.answer("/config6", b"proxy_for 2 [::1]:6002;");
    let mut plan = from_server(&scratch, &server);
    if let Some(refresh) = &mut plan.refresh {
        refresh.config_url_v6 = Some(server.url("/config6"));
    }
    plan.prefer_ip = PreferIp::V6;
    let loaded = Bench::started(plan.clone()).unwrap().loaded();
    let has_ipv6 = source_address::towards("::1".parse().unwrap()).is_some();
    assert_eq!(ports(&loaded), if has_ipv6 { vec![6002] } else { vec![1001, 1002] });
    plan.prefer_ip = PreferIp::V4;
    assert_eq!(ports(&Bench::started(plan).unwrap().loaded()), [1001, 1002]);
}

fn next(events: &Receiver<ControlEvent>) -> Arc<LoadedMiddleProxies> {
    match events.recv_timeout(SOON).unwrap() {
        ControlEvent::MiddleProxies(loaded) => loaded,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_plan_is_answered_a_bad_one_with_what_was_known_and_the_thread_ends_with_its_owner() {
    let scratch = Scratch::new("follow");
    scratch.file("operators.conf", ONE);
    scratch.file("operators.secret", &SECRET);
    let plan = from_files(&scratch);
    let (sender, events) = channel::unbounded();
    let (loaded, watch) = MiddleProxyWatch::start(read(Some(plan.clone())).unwrap(), sender).unwrap();
    assert_eq!(ports(&loaded.unwrap()), [1001, 1002]);
    watch.follow(Some(plan.clone()));
    assert_eq!(ports(&next(&events)), [1001, 1002], "the same plan is answered too");
    scratch.file("operators.conf", OTHER);
    watch.follow(Some(plan.clone()));
    assert_eq!(ports(&next(&events)), [2001, 2002], "a reload does not wait for the file to rest");
    scratch.file("operators.conf", b"proxy_for");
    watch.follow(Some(plan.clone()));
    assert_eq!(ports(&next(&events)), [2001, 2002], "what was known stays");
    watch.follow(None);
    scratch.file("operators.conf", ONE);
    watch.follow(Some(plan));
    assert_eq!(ports(&next(&events)), [1001, 1002], "and middle proxies may come and go");
    drop(watch);
    assert_eq!(events.recv_timeout(SOON).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn a_reload_that_asks_for_downloads_is_answered_when_they_have_come() {
    let scratch = Scratch::new("follow-download");
    let server = server();
    let (sender, events) = channel::unbounded();
    let (loaded, watch) = MiddleProxyWatch::start(read(None).unwrap(), sender).unwrap();
    assert!(loaded.is_none());
    watch.follow(Some(from_server(&scratch, &server)));
    assert_eq!(ports(&next(&events)), [1001, 1002]);
}

#[test]
fn a_file_for_roots_eyes_only_need_not_be_read_again_at_a_reload() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new("reload-unchanged");
    scratch.file("operators.conf", ONE);
    let secret = scratch.file("operators.secret", &SECRET);
    let mut bench = Bench::started(from_files(&scratch)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    bench.keeper.replan(from_files(&scratch)).unwrap();
    assert_eq!(bench.loaded().secret.bytes(), SECRET);
}
