//! An HTTP server for tests, on loopback: says what it was told to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::settings::middle_proxies::DownloadUrl;

/// One server; it ends with its owner.
pub(super) struct TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl TestServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let serve = move || {
            for stream in listener.incoming() {
                if theirs.is_over.load(Ordering::SeqCst) {
                    return;
                }
                theirs.serve(stream.unwrap());
            }
        };
        Self { address, shared, thread: Some(thread::spawn(serve)) }
    }

    pub(super) fn url(&self, path: &str) -> DownloadUrl {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Answers requests for `path` with `body` and an old date from now on.
    pub(super) fn answer(&self, path: &str, body: &[u8]) {
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(body);
        self.answer_raw(path, &answer);
    }

    pub(super) fn answer_raw(&self, path: &str, answer: &[u8]) {
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer.to_owned());
    }

    /// The requests so far, whole.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            request.push(byte[0]);
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        self.requests.lock().unwrap().push(request);
        let none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        let answer = self.answers.lock().unwrap().get(&path).cloned().unwrap_or(none);
        // Whoever has heard enough may have left.
        let _ = stream.write_all(&answer);
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
