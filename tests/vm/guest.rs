//! Everybody else in a guest: data centre, clients, and a reader of the proxy's numbers. One program with several tasks,
//! so that little has to be put into the guest.
//!
//! ```text
//!   vm-guest data-centre                          serves at both of the peer's addresses until it is killed
//!   vm-guest clients 10.99.0.1:443 4 2 20000000   so many clients of so many bytes each, through the data centre number 2
//!   vm-guest steady 10.99.0.1:443 2 /tmp/end      one client that downloads again and again until there is such a file
//!   vm-guest metric 'mtproxy_xdp_mode{mode="zero_copy"}'
//! ```
//! Read first: main.rs, and `prelude.sh` for how it is called.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::SecretKind;
use mtproxy_tests::cast::secret;
use mtproxy_tests::client_codec::ClientOptions;
use mtproxy_tests::test_client::unix_seconds;
use mtproxy_tests::{Command, DcMode, FakeDc, TestClient, metrics_page};

/// The peer's addresses; `init` gives them to the card.
const DATA_CENTRE: [&str; 2] = ["10.99.0.2:4000", "[fd99::2]:4000"];
/// Where the proxy shows its numbers.
const METRICS: &str = "127.0.0.1:9090";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["data-centre"] => serve(),
        ["clients", proxy, count, dc, len] => {
            clients(parsed(proxy), parsed(count), DcId(parsed(dc)), parsed(len));
            ExitCode::SUCCESS
        }
        ["steady", proxy, dc, end] => {
            steady(parsed(proxy), DcId(parsed(dc)), Path::new(end));
            ExitCode::SUCCESS
        }
        ["metric", sample] => {
            println!(
                "{}",
                metrics_page::sample(parsed(METRICS), sample).unwrap_or_else(|| panic!("no {sample}"))
            );
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("found {words:?}; expected a task of vm-guest");
            ExitCode::FAILURE
        }
    }
}

fn parsed<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("found {word:?} in the command line"))
}

fn serve() -> ExitCode {
    let _both = DATA_CENTRE.map(|address| FakeDc::start_on(parsed(address), DcMode::Packets));
    loop {
        std::thread::park();
    }
}

/// What a steady client downloads at a time, with a pause behind it that leaves the cores to others.
const PIECE_BYTES: u64 = 200_000;
const PAUSE: Duration = Duration::from_millis(50);

/// Every byte is checked, on one connection. Says what was the longest time that a piece took.
fn steady(proxy: SocketAddr, dc: DcId, end: &Path) {
    let options = ClientOptions::new(secret(SecretKind::Plain), dc, unix_seconds());
    let mut client = TestClient::connect(proxy, options);
    let (mut pieces, mut longest) = (0, Duration::ZERO);
    while !end.exists() {
        let began = Instant::now();
        client.download(PIECE_BYTES);
        longest = longest.max(began.elapsed());
        if pieces == 0 {
            println!("a first piece");
        }
        pieces += 1;
        std::thread::sleep(PAUSE);
    }
    println!("a steady client of {proxy}: {pieces} pieces, the slowest after {:.1} s", longest.as_secs_f64());
}

/// All connect, each asks a question, then each downloads and checks every byte.
fn clients(proxy: SocketAddr, count: usize, dc: DcId, len: u64) {
    let began = Instant::now();
    let connect = |_| {
        let options = ClientOptions::new(secret(SecretKind::Plain), dc, unix_seconds());
        TestClient::connect(proxy, options)
    };
    let mut clients: Vec<TestClient> = (0..count).map(connect).collect();
    let question = Command::Echo(vec![0x6d; 400]);
    for client in &mut clients {
        client.send_command(&question);
        assert_eq!(
            Command::parse(&client.receive_body()),
            Some(question.clone()),
            "the answer is not the question's"
        );
    }
    for client in &mut clients {
        client.download(len);
    }
    println!("{count} clients, {len} bytes each, {:.1} s", began.elapsed().as_secs_f64());
}
