//! The local port: `GET /stats` from this host, as the official proxy answers it.
//!
//! One thread that sleeps in `accept`, and one request at a time. What is no HTTP is closed: the RPC that the official
//! proxy speaks here has no users.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mtproxy_core::policy::tcp_rpc_server::{Upgrade, upgrade};

use crate::complaint::Complaint;
use crate::telemetry::log::Calendar;

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 16_384;
/// After a failed accept.
const ACCEPT_BREAK: Duration = Duration::from_secs(1);

/// Opens the first of `ports` that is free on 127.0.0.1.
///
/// # Errors
/// If none is.
pub fn bind(ports: &[u16]) -> Result<TcpListener, Complaint> {
    let mut last = None;
    for &port in ports {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some((port, error)),
        }
    }
    let (port, error) = last.unwrap_or((0, io::ErrorKind::InvalidInput.into()));
    Err(Complaint::about_host(format!(
        "found no way to serve statistics on 127.0.0.1:{port} ({error}); expected a free port; give another with --port"
    )))
}

/// Serves what `page` gives until the process ends.
///
/// # Errors
/// If the system has no thread left.
pub fn serve(listener: TcpListener, page: impl Fn() -> String + Send + 'static) -> io::Result<()> {
    let answer_all = move || loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                // Whoever does not take the answer misses it.
                let _ = answer(stream, peer, &page);
            }
            Err(_) => thread::sleep(ACCEPT_BREAK),
        }
    };
    thread::Builder::new().name("stats".to_owned()).spawn(answer_all).map(drop)
}

fn answer(mut stream: TcpStream, peer: SocketAddr, page: &impl Fn() -> String) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..len]);
        if let Some(first) = head.first_chunk()
            && upgrade(*first, true, true) != Upgrade::Http
        {
            return Ok(());
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") || head.len() > HEAD_BYTES_MAX {
            break;
        }
    }
    stream.write_all(respond(&head, peer.ip(), page).as_bytes())
}

/// The whole answer to a request with this head.
fn respond(head: &[u8], peer: IpAddr, page: &impl Fn() -> String) -> String {
    let text = String::from_utf8_lossy(head);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let has_body = text.lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("content-length") && value.trim() != "0"
    });
    if head.len() > HEAD_BYTES_MAX {
        return error_page(400, "Bad Request");
    }
    if method != "GET" || has_body {
        return error_page(501, "Not Implemented");
    }
    if uri != "/stats" || peer != Ipv4Addr::LOCALHOST {
        return error_page(404, "Not Found");
    }
    let body = page();
    response("200 OK", "text/plain", &body)
}

fn error_page(code: u16, words: &str) -> String {
    let body = format!(
        "<html>\n<head><title>{code} {words}</title></head>\n<body>\n<h1>{code} {words}</h1>\n<hr>MTProxy/1.0\n</body>\n\
         </html>\n"
    );
    response(&format!("{code} {words}"), "text/html", &body)
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    let len = body.len();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let date = http_date(now);
    format!(
        "HTTP/1.1 {status}\r\nServer: MTProxy/1.0\r\nDate: {date}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    )
}

/// RFC 9110 section 5.6.7, from Unix seconds.
fn http_date(unix: u64) -> String {
    // The first of January 1970 was a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Calendar { year, month, day, hour, minute, second } = Calendar::of(unix);
    let (weekday, month) = (DAYS[(unix / 86_400 % 7) as usize], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str, peer: &str) -> String {
        let answer = respond(head.as_bytes(), peer.parse().unwrap(), &|| "pid\t1\n".to_owned());
        answer.lines().next().unwrap().to_owned()
    }

    #[test]
    fn only_the_exact_page_is_given_and_only_to_this_host() {
        let here = "127.0.0.1";
        assert_eq!(status("GET /stats HTTP/1.1\r\n\r\n", here), "HTTP/1.1 200 OK");
        for uri in ["/", "/stats?x", "/statsx", "/stat", "stats"] {
            assert_eq!(
                status(&format!("GET {uri} HTTP/1.1\r\n\r\n"), here),
                "HTTP/1.1 404 Not Found",
                "{uri}"
            );
        }
        for peer in ["127.0.0.2", "::1", "192.0.2.1"] {
            assert_eq!(status("GET /stats HTTP/1.1\r\n\r\n", peer), "HTTP/1.1 404 Not Found", "{peer}");
        }
    }

    #[test]
    fn other_methods_and_bodies_are_not_implemented() {
        for head in ["POST /stats HTTP/1.1\r\n\r\n", "HEAD /stats HTTP/1.1\r\n\r\n"] {
            assert_eq!(status(head, "127.0.0.1"), "HTTP/1.1 501 Not Implemented");
        }
        let with_body = "GET /stats HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(status(with_body, "127.0.0.1"), "HTTP/1.1 501 Not Implemented");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @N`
        for (unix, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(unix), expected);
        }
    }
}
