//! Which proxy is looked at, and its page.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::complaint::Complaint;
use crate::local::{self, Door};

/// For a page: a busy host takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest page: some thousand lines for each queue of the largest card.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// Where a proxy's page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// At the process of this number.
    Process(u32),
    /// At this address.
    Address(SocketAddr),
}

impl Source {
    /// What was asked for, else the only one there is.
    pub(super) fn find(pid: Option<u32>, at: Option<SocketAddr>) -> Result<Self, Complaint> {
        match (pid, at) {
            (_, Some(address)) => Ok(Self::Address(address)),
            (Some(pid), None) => Ok(Self::Process(pid)),
            (None, None) => choose(&local::proxies().unwrap_or_default()),
        }
    }

    /// The page.
    pub(super) fn fetch(self) -> Result<String, Complaint> {
        let answer = match self {
            Self::Process(pid) => Door::Metrics(pid).enter().and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                ask(stream)
            }),
            Self::Address(address) => TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                ask(stream)
            }),
        };
        let found = |what: &str| {
            Complaint::about_host(format!(
                "found {what} at {self}; expected a proxy that runs, in this network namespace, and root or its user to look"
            ))
        };
        let answer = answer.map_err(|error| found(&format!("no metrics ({error})")))?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Err(found("no answer")) };
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(found(&format!("{:?}", head.lines().next().unwrap_or_default())));
        }
        Ok(body.to_owned())
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

fn choose(proxies: &[u32]) -> Result<Source, Complaint> {
    match proxies {
        [only] => Ok(Source::Process(*only)),
        [] => Err(Complaint::about_host(
            "found no running proxy; expected one in this network namespace; name the one of another with --at ADDR:PORT, its \
            --metrics",
        )),
        several => {
            let numbers: Vec<String> = several.iter().map(u32::to_string).collect();
            Err(Complaint::about_host(format!(
                "found several running proxies; expected one; choose with --pid out of {}",
                numbers.join(", ")
            )))
        }
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: mtproxy\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_proxy_is_taken_and_none_or_several_are_said() {
        assert_eq!(choose(&[7]).unwrap(), Source::Process(7));
        assert!(choose(&[]).unwrap_err().to_string().contains("found no running proxy"));
        assert!(choose(&[7, 9]).unwrap_err().to_string().contains("--pid out of 7, 9"));
        let at = "192.0.2.1:9090".parse().unwrap();
        assert_eq!(Source::find(None, Some(at)).unwrap(), Source::Address(at));
        assert_eq!(Source::find(Some(3), None).unwrap(), Source::Process(3));
    }
}
