//! The file that says where middle proxies are (protocol.md section 9.2), as `core.telegram.org/getProxyConfig` gives it.
//!
//! ```text
//!   file      = { statement ";" }          blanks and "# comments" may stand anywhere between words
//!   statement = "default" id               serves data centres without a cluster
//!             | "proxy_for" id host:port   one target of a cluster; those of one id stand together
//!             | "proxy" host:port          the same for id 0
//!             | "timeout" ms               10 to 30000; checked, of no consequence
//!             | "min_connections" n        of the targets behind it
//!             | "max_connections" n        likewise
//! ```
//! Parsing is all there is here: names are resolved elsewhere, and a file that is not whole changes nothing.

use std::net::{IpAddr, Ipv6Addr};

/// Longest file.
pub const FILE_LEN_MAX: usize = 16 << 20;
/// Most clusters.
pub const CLUSTERS_MAX: usize = 1024;
/// Most targets.
pub const TARGETS_MAX: usize = 4096;
/// Links to a target at most, whatever the file says.
const CONNECTIONS_MAX: u64 = 1000;
/// Longest name of a host.
const HOST_LEN_MAX: usize = 63;

/// A file that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// The cluster for data centres without one: 0 if the file names none.
    pub default: i16,
    /// The clusters in the order of the file.
    pub clusters: Vec<ClusterEntry>,
}

/// One data centre's middle proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEntry {
    /// The data centre, signed as on the wire.
    pub id: i16,
    /// In the order of the file.
    pub targets: Vec<TargetEntry>,
}

/// One middle proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEntry {
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Links kept to it.
    pub min_connections: u16,
    /// Links to it at most.
    pub max_connections: u16,
}

/// A host as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name to be resolved.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFileError {
    /// Counted from one.
    pub line: usize,
    /// Counted from one, in bytes.
    pub column: usize,
    /// What was found, what was expected, what to do.
    pub message: String,
}

/// Reads a file.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &[u8]) -> Result<ClusterFile, ClusterFileError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > FILE_LEN_MAX {
        return parser.fail(0, format!("found {} bytes; expected at most {FILE_LEN_MAX}", text.len()));
    }
    let mut reading = Reading { default: 0, clusters: Vec::new(), targets: 0, min: 4, max: 8 };
    while parser.skip_blanks() {
        parser.statement(&mut reading)?;
        parser.semicolon()?;
    }
    if reading.targets == 0 {
        let message = "found no proxy at all; expected at least one line such as \"proxy_for 2 149.154.162.38:80;\"; \
                       download the file again";
        return parser.fail(text.len(), message.to_owned());
    }
    Ok(ClusterFile { default: reading.default, clusters: reading.clusters })
}

/// What was read so far.
struct Reading {
    default: i16,
    clusters: Vec<ClusterEntry>,
    targets: usize,
    min: u16,
    max: u16,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

type Parsed<T> = Result<T, ClusterFileError>;

impl Parser<'_> {
    fn fail<T>(&self, at: usize, message: String) -> Parsed<T> {
        let before = &self.text[..at.min(self.text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Err(ClusterFileError { line, column: 1 + before.len() - line_start, message })
    }

    /// What stands at `at`, for an error: never more than a word.
    fn found(&self, at: usize) -> String {
        let rest = &self.text[at.min(self.text.len())..];
        let word: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_graphic).take(24).collect();
        match (word.is_empty(), rest.first()) {
            (true, None) => "the end of the file".to_owned(),
            (true, Some(byte)) => format!("the byte {byte:#04x}"),
            _ => format!("{:?}", String::from_utf8_lossy(&word)),
        }
    }

    /// False at the end of the file.
    fn skip_blanks(&mut self) -> bool {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                }
                _ => return true,
            }
        }
        false
    }

    /// Passes over `word`, which need not end there: "default2" is two words.
    fn takes(&mut self, word: &str) -> bool {
        let is_here = self.text[self.at..].starts_with(word.as_bytes());
        if is_here {
            self.at += word.len();
        }
        is_here
    }

    fn statement(&mut self, reading: &mut Reading) -> Parsed<()> {
        let start = self.at;
        if self.takes("default") {
            reading.default = self.id()?;
        } else if self.takes("proxy_for") {
            if !matches!(self.text.get(self.at), Some(b' ' | b'\t')) {
                let found = self.found(self.at);
                return self.fail(
                    self.at,
                    format!("found {found}; expected a blank and the number of a data centre"),
                );
            }
            let id = self.id()?;
            self.target(id, start, reading)?;
        } else if self.takes("proxy") {
            self.target(0, start, reading)?;
        } else if self.takes("timeout") {
            self.number(10..=30_000, "milliseconds")?;
        } else if self.takes("min_connections") {
            reading.min = self.connections(1, reading.max.into())?;
        } else if self.takes("max_connections") {
            reading.max = self.connections(reading.min.into(), CONNECTIONS_MAX)?;
        } else {
            let message = format!(
                "found {}; expected default, proxy_for, proxy, timeout, min_connections or max_connections",
                self.found(start)
            );
            return self.fail(start, message);
        }
        Ok(())
    }

    fn semicolon(&mut self) -> Parsed<()> {
        self.skip_blanks();
        if self.takes(";") {
            return Ok(());
        }
        let message =
            format!("found {}; expected \";\" behind every statement, the last one too", self.found(self.at));
        self.fail(self.at, message)
    }

    fn target(&mut self, id: i16, start: usize, reading: &mut Reading) -> Parsed<()> {
        let host = self.host()?;
        if !self.takes(":") {
            let message = format!("found {}; expected \":\" and a port", self.found(self.at));
            return self.fail(self.at, message);
        }
        let port = self.number(1..=u64::from(u16::MAX), "as a port")?;
        if reading.targets == TARGETS_MAX {
            return self
                .fail(start, format!("found more than {TARGETS_MAX} proxies; expected at most so many"));
        }
        let entry = TargetEntry {
            host,
            port: u16::try_from(port).expect("bounded above"),
            min_connections: reading.min,
            max_connections: reading.max,
        };
        reading.targets += 1;
        if let Some(cluster) = reading.clusters.last_mut().filter(|cluster| cluster.id == id) {
            cluster.targets.push(entry);
            return Ok(());
        }
        if reading.clusters.iter().any(|cluster| cluster.id == id) {
            let message = format!("found data centre {id} for the second time; expected its lines together");
            return self.fail(start, message);
        }
        if reading.clusters.len() == CLUSTERS_MAX {
            return self.fail(
                start,
                format!("found more than {CLUSTERS_MAX} data centres; expected at most so many"),
            );
        }
        reading.clusters.push(ClusterEntry { id, targets: vec![entry] });
        Ok(())
    }

    fn host(&mut self) -> Parsed<Host> {
        self.skip_blanks();
        let start = self.at;
        if self.takes("[") {
            let rest = &self.text[self.at..];
            let end = rest.iter().position(|&byte| byte == b']').unwrap_or(0);
            let address =
                std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
            let Some(address) = address else {
                let message = format!("found {}; expected an IPv6 address in brackets", self.found(start));
                return self.fail(start, message);
            };
            self.at += end + 1;
            return Ok(Host::Ip(address.into()));
        }
        let is_of_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let name: Vec<u8> = self.text[start..].iter().copied().take_while(is_of_host).collect();
        if name.is_empty() || name.len() > HOST_LEN_MAX {
            let message = format!(
                "found {}; expected a host: a name or IPv4 address of at most {HOST_LEN_MAX} characters, or an IPv6 \
                 address in brackets",
                self.found(start)
            );
            return self.fail(start, message);
        }
        self.at += name.len();
        let name = String::from_utf8(name).expect("letters, digits, dots and dashes");
        Ok(name.parse().map_or(Host::Name(name), Host::Ip))
    }

    /// A data centre's number.
    fn id(&mut self) -> Parsed<i16> {
        self.skip_blanks();
        let start = self.at;
        let is_negative = self.takes("-");
        let digits = self.digits();
        let number = digits.map(|number| if is_negative { -number } else { number });
        match number.and_then(|number| i16::try_from(number).ok()) {
            Some(id) => Ok(id),
            None => {
                let message = format!(
                    "found {}; expected a data centre's number, from -32768 to 32767",
                    self.found(start)
                );
                self.fail(start, message)
            }
        }
    }

    fn connections(&mut self, least: u64, most: u64) -> Parsed<u16> {
        let number = self.number(least..=most, "connections")?;
        Ok(u16::try_from(number).expect("bounded by CONNECTIONS_MAX"))
    }

    fn number(&mut self, range: std::ops::RangeInclusive<u64>, unit: &str) -> Parsed<u64> {
        self.skip_blanks();
        let start = self.at;
        let number = self.digits().and_then(|number| u64::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(number),
            None => {
                let (least, most) = (range.start(), range.end());
                let message =
                    format!("found {}; expected a number from {least} to {most} {unit}", self.found(start));
                self.fail(start, message)
            }
        }
    }

    /// The digits here as a number; `None` without any, or if they are too many.
    fn digits(&mut self) -> Option<i64> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&self.text[self.at..self.at + count]).ok()?;
        self.at += count;
        digits.parse().ok()
    }
}

#[cfg(test)]
#[path = "cluster_file_tests.rs"]
mod tests;
