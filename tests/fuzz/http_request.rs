//! Requests to the page of metrics, from whoever reaches its port.

use std::sync::LazyLock;

use mtproxy_bin::telemetry::http::answer_to;
use mtproxy_bin::telemetry::metrics::{Metrics, Shards};

use crate::script::{Script, verbatim};

/// One request for each answer there is.
const REQUESTS: [&str; 5] = [
    "GET /metrics HTTP/1.1\r\nhost: example.com\r\n\r\n",
    "GET /healthz?x HTTP/1.0\r\n\r\n",
    "POST /metrics HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
    "GET /nothing HTTP/1.1\r\n\r\n",
    "nonsense\r\n\r\n",
];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new(1, Shards::NONE, 10));
static ANSWERS: LazyLock<[Vec<u8>; 5]> =
    LazyLock::new(|| REQUESTS.map(|request| answer_to(request.as_bytes(), &METRICS)));

fn good() -> Vec<Vec<u8>> {
    REQUESTS.map(|request| request.as_bytes().to_vec()).to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    verbatim(&good())
}

/// Nothing of a request is in its answer: the answer is one of five.
pub(crate) fn run(input: &[u8]) {
    let request = Script::new(input).text(&good());
    let answer = answer_to(&request, &METRICS);
    assert!(ANSWERS.contains(&answer), "{:?}", String::from_utf8_lossy(&answer));
}
