//! One file from one server, over HTTPS, within a deadline.
//!
//! Nothing of this host goes along but its address: no user agent, no cookies. Redirects are not followed, since a
//! URL is what the operator chose to trust, and the proxy of the environment is not used, since it was set for
//! others.

use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;

use super::clock_skew::{ClockReading, parse_http_date, unix_now};
use crate::settings::middle_proxies::DownloadUrl;

/// For one file, from the look-up of the name to the last byte.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a server sent.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub(super) body: Vec<u8>,
    /// Absent if the server did not say the time, or the answer came from a cache.
    pub(super) clock: Option<ClockReading>,
}

/// Asks for `url`; at most `bytes_max` bytes are taken.
///
/// # Errors
/// What was found instead of the file.
pub(super) fn fetch(url: &DownloadUrl, bytes_max: u64) -> Result<Downloaded, String> {
    let ours_when_asked = unix_now();
    let found = |error: ureq::Error| match error {
        ureq::Error::Io(error) => format!("found {error}"),
        error => format!("found {error}"),
    };
    let mut response = agent().get(url.as_str()).call().map_err(found)?;
    let ours_when_answered = unix_now();
    let status = response.status().as_u16();
    if status != 200 {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let hint = match header("location") {
            Some(place) if (300..400).contains(&status) => {
                format!(" to {place:?}; give that URL if you trust it")
            }
            _ => String::new(),
        };
        return Err(format!("found the answer {status}{hint}; expected 200 and the file"));
    }
    let headers = response.headers();
    let date = headers.get("date").and_then(|value| parse_http_date(value.to_str().ok()?));
    // A cache on the way sends the date at which it was asked first.
    let clock = date.filter(|_| !headers.contains_key("age")).map(|server| ClockReading {
        server,
        ours_when_asked,
        ours_when_answered,
    });
    let body = response.body_mut().with_config().limit(bytes_max).read_to_vec().map_err(found)?;
    Ok(Downloaded { body, clock })
}

/// One for each file, so that no connection outlives it.
fn agent() -> Agent {
    Config::builder()
        .timeout_global(Some(DEADLINE))
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent("")
        .max_idle_connections(0)
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::super::test_server::TestServer;
    use super::*;

    fn fetch_from(server: &TestServer, bytes_max: u64) -> Result<Downloaded, String> {
        fetch(&server.url("/file"), bytes_max)
    }

    #[test]
    fn a_file_comes_with_the_servers_time_and_our_request_names_nobody() {
        let server = TestServer::start();
        server.answer("/file", b"content");
        let downloaded = fetch_from(&server, 7).unwrap();
        assert_eq!(downloaded.body, b"content");
        assert_eq!(downloaded.clock.unwrap().server, 784_111_777);
        let request = server.requests().pop().unwrap().to_ascii_lowercase();
        assert!(request.starts_with("get /file http/1.1\r\n"), "{request}");
        assert!(!request.contains("user-agent") && !request.contains("cookie"), "{request}");
    }

    #[test]
    fn one_byte_too_many_is_refused() {
        let server = TestServer::start();
        server.answer("/file", b"content");
        let message = fetch_from(&server, 6).unwrap_err();
        assert!(message.contains("found"), "{message}");
    }

    #[test]
    fn every_status_but_200_is_an_error_that_names_it() {
        let server = TestServer::start();
        assert!(fetch_from(&server, 100).unwrap_err().contains("found the answer 404; expected 200"));
        server.answer_raw(
            "/file",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n",
        );
        let message = fetch_from(&server, 100).unwrap_err();
        assert!(message.contains("302 to \"http://127.0.0.1:1/x\"; give that URL"), "{message}");
        assert_eq!(server.requests().len(), 2, "a redirect is not followed");
    }

    #[test]
    fn an_answer_from_a_cache_says_nothing_about_the_time() {
        let server = TestServer::start();
        server.answer_raw(
            "/file",
            b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAge: 60\r\nContent-Length: 1\r\n\r\nx",
        );
        assert_eq!(fetch_from(&server, 100).unwrap().clock, None);
    }

    #[test]
    fn nobody_at_home_is_an_error_at_once() {
        let server = TestServer::start();
        let url = server.url("/file");
        drop(server);
        assert!(fetch(&url, 100).unwrap_err().starts_with("found "), "it says what was found");
    }
}
