//! The page where operators read: `GET /metrics` and `GET /healthz`, over plain HTTP/1; on a port if one is configured, and
//! always for `mtproxy top` ([`Door::Metrics`]).
//!
//! One thread each that sleeps in `accept` until somebody asks, and then serves one request at a time: it must
//! never take a core, memory or descriptors from the clients. A request may take [`PATIENCE`] in all, and
//! be [`REQUEST_BYTES_MAX`] long.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::metrics::Metrics;
use crate::complaint::Complaint;
use crate::local::{self, Door};

/// For one request and its answer. A scrape on a busy host takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Scrapers send about 300 bytes; some proxies add their headers.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// After a failed accept: long enough not to burn a core while there is no descriptor to be had.
const ACCEPT_BREAK: Duration = Duration::from_secs(1);

/// Opens the port. Apart from [`serve`], because a low port needs the rights that are given up in between.
///
/// # Errors
/// If the port cannot be had.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Complaint> {
    TcpListener::bind(address).map_err(|error| {
        Complaint::about_host(format!(
            "found no way to serve metrics on {address} ({error}); expected a free port on an \
             address of this host; choose another with --metrics, or see who has it with `ss -ltnp`"
        ))
    })
}

/// Serves until the process ends.
///
/// # Errors
/// If the system has no thread left.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<()> {
    let body = move || answer_all(|| Ok(listener.accept()?.0), &metrics);
    thread::Builder::new().name("http".to_owned()).spawn(body).map(drop)
}

/// Serves this host's root, and the user of this process.
///
/// # Errors
/// If the system has no thread left, or the name is taken.
pub fn serve_locally(metrics: Arc<Metrics>) -> io::Result<()> {
    let listener = Door::Metrics(std::process::id()).open()?;
    let accept = move || {
        let stream = listener.accept()?.0;
        local::admit(&stream).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        Ok(stream)
    };
    thread::Builder::new().name("http-local".to_owned()).spawn(move || answer_all(accept, &metrics)).map(drop)
}

fn answer_all<S: Connection>(accept: impl Fn() -> io::Result<S>, metrics: &Metrics) {
    loop {
        match accept() {
            Ok(stream) => {
                if let Err(error) = answer(stream, metrics) {
                    debug!(%error, "metrics request failed");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                debug!(%error, "metrics request refused");
            }
            Err(error) => {
                warn!(%error, "cannot accept metrics requests");
                thread::sleep(ACCEPT_BREAK);
            }
        }
    }
}

/// What a request comes by.
trait Connection: io::Read + io::Write {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()>;
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()>;
    fn end_answer(&self) -> io::Result<()>;
}

macro_rules! connections {
    ($($stream:ty)*) => {
        $(impl Connection for $stream {
            fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
                Self::set_read_timeout(self, Some(timeout))
            }

            fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
                Self::set_write_timeout(self, Some(timeout))
            }

            fn end_answer(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        })*
    };
}

connections! { TcpStream UnixStream }

fn answer(mut stream: impl Connection, metrics: &Metrics) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let response = match read_head(&mut stream, deadline)? {
        Head::Complete(head) => answer_to(&head, metrics),
        Head::TooLong => Response::text("431 Request Header Fields Too Large", "request too long\n").bytes(),
        Head::Broken => return Ok(()),
    };
    stream.set_write_timeout(remaining(deadline)?)?;
    stream.write_all(&response)?;
    // Closing with unread bytes would reset the connection and could take the answer with it.
    stream.end_answer()?;
    let mut rest = [0; 1024];
    for _ in 0..64 {
        stream.set_read_timeout(remaining(deadline)?)?;
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

/// What came of reading a request's head.
enum Head {
    Complete(Vec<u8>),
    TooLong,
    /// The client went away.
    Broken,
}

fn read_head(stream: &mut impl Connection, deadline: Instant) -> io::Result<Head> {
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    while head.len() < REQUEST_BYTES_MAX {
        stream.set_read_timeout(remaining(deadline)?)?;
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(Head::Broken);
        }
        head.extend_from_slice(&chunk[..len]);
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Head::Complete(head));
        }
    }
    Ok(Head::TooLong)
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The whole answer to a request with this head, which anyone may have sent.
#[must_use]
pub fn answer_to(head: &[u8], metrics: &Metrics) -> Vec<u8> {
    respond(head, metrics).bytes()
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    /// Another header line, or nothing.
    extra: &'static str,
    body: String,
}

impl Response {
    fn text(status: &'static str, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", extra: "", body: body.to_owned() }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, content_type, extra, body } = self;
        let len = body.len();
        format!(
            "HTTP/1.1 {status}\r\n\
            content-type: {content_type}\r\n\
            content-length: {len}\r\n\
            {extra}connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

fn respond(head: &[u8], metrics: &Metrics) -> Response {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Response::text("400 Bad Request", "expected an HTTP/1 request\n");
    };
    if !version.starts_with("HTTP/1.") {
        return Response::text("400 Bad Request", "expected an HTTP/1 request\n");
    }
    let path = target.split('?').next().unwrap_or_default();
    match (path, method) {
        ("/metrics", "GET") => Response {
            content_type: "text/plain; version=0.0.4",
            ..Response::text("200 OK", &metrics.exposition())
        },
        ("/healthz", "GET") if metrics.is_draining() => {
            Response::text("503 Service Unavailable", "draining\n")
        }
        ("/healthz", "GET") => Response::text("200 OK", "ok\n"),
        ("/metrics" | "/healthz", _) => {
            Response { extra: "allow: GET\r\n", ..Response::text("405 Method Not Allowed", "use GET\n") }
        }
        _ => Response::text("404 Not Found", "there are /metrics and /healthz\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Shards;
    use std::io::{Read as _, Write as _};

    struct Page {
        address: SocketAddr,
        metrics: Arc<Metrics>,
    }

    impl Page {
        fn open() -> Self {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let metrics = Arc::new(Metrics::new(1, Shards::NONE, 10));
            serve(listener, metrics.clone()).unwrap();
            Self { address, metrics }
        }

        fn ask(&self, request: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.write_all(request).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }
    }

    #[test]
    fn metrics_and_health_are_served_and_nothing_else() {
        let page = Page::open();
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET /healthz HTTP/1.1\r\n\r\n", "200 OK"),
            ("POST /metrics HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "405 Method Not Allowed"),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("DELETE /x HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("hello\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = page.ask(request.as_bytes());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {answer}");
        }
    }

    #[test]
    fn the_page_has_the_type_of_the_exposition_and_its_own_length() {
        let answer = Page::open().ask(b"GET /metrics HTTP/1.1\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: text/plain; version=0.0.4\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("mtproxy_workers 1\n"));
    }

    #[test]
    fn health_turns_when_draining_begins() {
        let page = Page::open();
        assert!(page.ask(b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nok\n"));
        page.metrics.start_draining();
        let answer = page.ask(b"GET /healthz HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
    }

    #[test]
    fn a_request_may_come_in_pieces_but_not_grow_without_end() {
        let page = Page::open();
        let mut stream = TcpStream::connect(page.address).unwrap();
        for piece in ["GET /hea", "lthz HTTP/1.1\r\n", "\r\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");

        let fitting = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(REQUEST_BYTES_MAX - 100));
        assert!(page.ask(fitting.as_bytes()).starts_with("HTTP/1.1 200 "));
        let endless = "a".repeat(REQUEST_BYTES_MAX);
        assert!(page.ask(endless.as_bytes()).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn a_client_that_says_nothing_delays_the_next_one_by_no_more_than_the_patience() {
        let page = Page::open();
        let _silent = TcpStream::connect(page.address).unwrap();
        let asked = Instant::now();
        assert!(page.ask(b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
        assert!(asked.elapsed() < PATIENCE + Duration::from_secs(5), "{:?}", asked.elapsed());
    }

    #[test]
    fn a_taken_port_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = bind(address).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--metrics"), "{message}");
    }

    #[test]
    fn the_same_page_is_behind_the_door_of_this_process() {
        let metrics = Arc::new(Metrics::new(1, Shards::NONE, 10));
        serve_locally(Arc::clone(&metrics)).unwrap();
        let mut stream = Door::Metrics(std::process::id()).enter().unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&metrics.exposition()),
            "{answer}"
        );
    }
}
