//! From the official proxy's options to those of `mtproxy run`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::options::{Given, Parsed, UsageError};
use crate::settings::values::Datapath;
use crate::settings::{Compat, RunArgs};

/// The official proxy's own bounds.
const SLAVES_MAX: u16 = 256;
const PORTS_MAX: usize = 128;
/// Who the official proxy becomes, if it was root.
const USER_DEFAULT: &str = "mtproxy";
/// Where the official proxy looks for the secret if it is not told.
const SECRET_FILE_DEFAULT: &str = "secret";

type Usage<T> = Result<T, UsageError>;

fn wrong<T>(message: String) -> Usage<T> {
    Err(UsageError::Wrong(message))
}

/// What `mtproxy run` is to do.
pub(super) fn translate(parsed: &Parsed) -> Usage<RunArgs> {
    let [config] = &parsed.others[..] else {
        return wrong(format!(
            "found {} names of files; expected one, proxy-multi.conf",
            parsed.others.len()
        ));
    };
    let mut words = Words::default();
    for option in &parsed.options {
        words.take(option)?;
    }
    words.finish(config)
}

/// What was said so far.
#[derive(Default)]
struct Words {
    args: RunArgs,
    compat: Compat,
    http_ports: Vec<u16>,
    local_ports: Vec<u16>,
    serves_stats: bool,
    is_v6: bool,
    address: Option<Ipv4Addr>,
    secrets: Vec<String>,
    verbosity: u32,
    user: Option<String>,
}

impl Words {
    fn take(&mut self, option: &Given) -> Usage<()> {
        let argument = option.argument.as_deref().unwrap_or_default();
        let name = option.name;
        match name {
            "verbosity" => self.verbosity = toggled(option, self.verbosity + 1)?,
            "daemonize" => self.compat.is_daemon = toggled(option, u32::from(!self.compat.is_daemon))? != 0,
            "user" if self.user.is_some() => return wrong("found --user for the second time".to_owned()),
            "user" => self.user = Some(argument.to_owned()),
            "log" => self.compat.log_file = Some(argument.into()),
            "nice" => self.compat.nice = number(name, argument)?,
            "msg-buffers-size" => self.compat.buffer_bytes = Some(size(name, argument)?),
            "aes-pwd" => self.args.middle_proxy_secret = Some(argument.into()),
            "port" => self.local_ports = range_of_ports(argument)?,
            "http-stats" => self.serves_stats = true,
            "disable-tcp" => self.serves_stats = false,
            "http-ports" => self.http_ports = list_of_ports(argument)?,
            "ipv6" => self.is_v6 = true,
            "address" => self.address = Some(parse(name, argument, "an IPv4 address")?),
            "nat-info" => self.args.nat_info.push(argument.parse().map_err(UsageError::Wrong)?),
            "mtproto-secret" => self.secrets.push(secret(argument)?),
            "proxy-tag" => self.args.proxy_tag = Some(argument.parse().map_err(UsageError::Wrong)?),
            "domain" => {
                let domain =
                    argument.parse().map_err(|error| UsageError::Wrong(format!("--domain: {error}")))?;
                self.args.domain.push(domain);
            }
            "max-special-connections" => {
                self.compat.clients_max = Some(number(name, argument)?).filter(|&clients| clients > 0);
            }
            "connections" => {
                let connections = number(name, argument)?;
                self.compat.clients_max = self.compat.clients_max.or(Some(connections));
            }
            "slaves" => self.compat.slaves = bounded(name, argument, SLAVES_MAX)?,
            "ping-interval" => {
                let seconds: f64 = parse(name, argument, "a number of seconds")?;
                self.compat.ping = Duration::try_from_secs_f64(seconds).ok().filter(|ping| !ping.is_zero());
            }
            _ => self.compat.notes.push(format!("--{name} has no effect here; docs/compat.md says why")),
        }
        Ok(())
    }

    fn finish(mut self, config: &str) -> Usage<RunArgs> {
        if !self.args.domain.is_empty() && self.secrets.is_empty() {
            return wrong("found --domain without a secret; expected --mtproto-secret, too".to_owned());
        }
        if self.secrets.is_empty() {
            return wrong(
                "found no secret; expected --mtproto-secret with 32 hexadecimal digits: an open proxy is one for \
                 everybody who finds it, and is not served here"
                    .to_owned(),
            );
        }
        if self.serves_stats && self.local_ports.is_empty() {
            return wrong("found --http-stats without a port; expected --port, too".to_owned());
        }
        self.args.listen = self.listeners()?;
        self.args.secret =
            self.secrets.iter().map(|key| self.as_served(key).parse().expect("any text is one")).collect();
        self.args.middle_proxy_config = Some(config.into());
        self.args.middle_proxy_secret.get_or_insert_with(|| SECRET_FILE_DEFAULT.into());
        self.args.workers = NonZeroU16::new(self.compat.slaves.max(1));
        self.args.datapath = Some(Datapath::Epoll);
        self.args.log = Some(log_filter(self.verbosity));
        self.compat.stats_ports = if self.serves_stats { self.local_ports } else { Vec::new() };
        if rustix::process::geteuid().is_root() {
            self.args.user = Some(self.user.unwrap_or_else(|| USER_DEFAULT.to_owned()));
        }
        self.args.compat = Some(self.compat);
        Ok(self.args)
    }

    fn listeners(&self) -> Usage<Vec<SocketAddr>> {
        if self.http_ports.is_empty() {
            return wrong("found no port for clients; expected --http-ports, such as -H 443".to_owned());
        }
        let v4 = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut listeners = Vec::new();
        for &port in &self.http_ports {
            listeners.push(SocketAddr::from((v4, port)));
            if self.is_v6 {
                listeners.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
            }
        }
        Ok(listeners)
    }

    /// With one domain the official proxy admits clients with fake TLS only. With several a secret is for all of
    /// them, and others are admitted, too.
    fn as_served(&self, key: &str) -> String {
        match &self.args.domain[..] {
            [domain] => format!("ee{key}{}", data_encoding::HEXLOWER.encode(domain.name.as_str().as_bytes())),
            _ => key.to_owned(),
        }
    }
}

/// What `N` says, or else what an option without it means.
fn toggled(option: &Given, otherwise: u32) -> Usage<u32> {
    option.argument.as_deref().map_or(Ok(otherwise), |argument| number(option.name, argument))
}

fn parse<T: std::str::FromStr>(name: &str, argument: &str, what: &str) -> Usage<T> {
    argument.parse().map_err(|_| UsageError::Wrong(format!("--{name}: found {argument:?}; expected {what}")))
}

fn number<T: std::str::FromStr>(name: &str, argument: &str) -> Usage<T> {
    parse(name, argument, "a number")
}

fn bounded(name: &str, argument: &str, most: u16) -> Usage<u16> {
    let found: u16 = number(name, argument)?;
    if found > most { wrong(format!("--{name}: found {found}; expected at most {most}")) } else { Ok(found) }
}

fn port(text: &str) -> Usage<u16> {
    let port =
        text.parse().ok().filter(|&port: &u16| port > 0 && text.starts_with(|c: char| c.is_ascii_digit()));
    port.ok_or_else(|| UsageError::Wrong(format!("found {text:?}; expected a port from 1 to 65535")))
}

fn list_of_ports(text: &str) -> Usage<Vec<u16>> {
    let ports: Vec<u16> = text.split(',').map(port).collect::<Usage<_>>()?;
    if ports.len() > PORTS_MAX {
        return wrong(format!("found {} ports for clients; expected at most {PORTS_MAX}", ports.len()));
    }
    Ok(ports)
}

fn range_of_ports(text: &str) -> Usage<Vec<u16>> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    Ok((port(first)?..=port(last)?).collect())
}

/// Bytes, with k, m, g or t behind their number.
fn size(name: &str, text: &str) -> Usage<usize> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    size.ok_or_else(|| UsageError::Wrong(format!("--{name}: found {text:?}; expected bytes, such as 256m")))
}

/// Only the bare key: links tell clients the rest.
fn secret(text: &str) -> Usage<String> {
    let is_key = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).is_ok_and(|key| key.len() == 16);
    if is_key {
        return Ok(text.to_ascii_lowercase());
    }
    wrong(format!(
        "--mtproto-secret: found {} characters; expected exactly 32 hexadecimal digits",
        text.len()
    ))
}

fn log_filter(verbosity: u32) -> crate::settings::values::LogFilter {
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    level.parse().expect("a level is a filter")
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn translated(line: &str) -> Result<RunArgs, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        options::parse(&words).and_then(|parsed| translate(&parsed)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_command_line_is_understood() {
        let line = format!(
            "-u nobody -p 8888 -H 443 -S {KEY} -P {KEY} --aes-pwd proxy-secret proxy-multi.conf -M 1 --http-stats"
        );
        let args = translated(&line).unwrap();
        assert_eq!(args.listen, ["0.0.0.0:443".parse().unwrap()]);
        assert_eq!(args.middle_proxy_config, Some("proxy-multi.conf".into()));
        assert_eq!(args.middle_proxy_secret, Some("proxy-secret".into()));
        assert_eq!(args.proxy_tag.map(|tag| tag.to_string()).as_deref(), Some(KEY));
        assert_eq!(args.workers.map(NonZeroU16::get), Some(1));
        assert_eq!(args.secret[0].reveal(), KEY);
        assert_eq!(args.compat.unwrap().stats_ports, [8888]);
    }

    #[test]
    fn that_of_the_container_is_understood_too() {
        let line = format!(
            "-p 2398 -H 443,8443 -M 2 -C 60000 --aes-pwd s -u root c.conf --allow-skip-dh --nat-info \
             10.0.0.5:198.51.100.1 -S {KEY} --http-stats --msg-buffers-size 64m -T 2.5 -6 -vv -W 65536 -b 1 --crc32c"
        );
        let args = translated(&line).unwrap();
        let listen: Vec<String> = args.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["0.0.0.0:443", "[::]:443", "0.0.0.0:8443", "[::]:8443"]);
        assert_eq!((args.nat_info.len(), args.log.unwrap().to_string().as_str()), (1, "trace"));
        let compat = args.compat.unwrap();
        assert_eq!((compat.clients_max, compat.buffer_bytes), (Some(60_000), Some(64 << 20)));
        assert_eq!((compat.ping, compat.slaves), (Some(Duration::from_millis(2500)), 2));
        assert_eq!(compat.notes.len(), 4, "skip-dh, window, backlog, crc: {:?}", compat.notes);
    }

    #[test]
    fn one_domain_makes_every_secret_one_of_fake_tls() {
        let args = translated(&format!("-H 443 -S {KEY} -D a.example c.conf")).unwrap();
        assert_eq!(args.secret[0].reveal(), format!("ee{KEY}612e6578616d706c65"));
        let args = translated(&format!("-H 443 -S {KEY} -D a.example -D b.example c.conf")).unwrap();
        assert_eq!(args.secret[0].reveal(), KEY);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_expected() {
        let base = format!("-H 443 -S {KEY} c.conf");
        for (line, words) in [
            ("-H 443".to_owned(), "0 names of files"),
            (format!("{base} d.conf"), "2 names of files"),
            ("-H 443 c.conf".to_owned(), "expected --mtproto-secret"),
            ("-H 443 -D a.example c.conf".to_owned(), "--domain without a secret"),
            (format!("-H 443 -S dd{KEY} c.conf"), "exactly 32 hexadecimal digits"),
            (format!("-S {KEY} c.conf"), "expected --http-ports"),
            (format!("{base} --http-stats"), "expected --port, too"),
            (format!("{base} -M 257"), "at most 256"),
            (format!("{base} -H 0"), "a port from 1 to 65535"),
            (format!("{base} -H 443,+80"), "a port from 1 to 65535"),
            (format!("{base} --msg-buffers-size 5x"), "such as 256m"),
            (format!("{base} -u a -u b"), "for the second time"),
            (format!("{base} -P 12"), "32 hexadecimal digits"),
            (format!("{base} --address ::1"), "an IPv4 address"),
        ] {
            let error = translated(&line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
            assert!(!error.contains(KEY), "{error}");
        }
    }

    #[test]
    fn both_ends_of_every_range_are_taken() {
        let base = format!("-S {KEY} c.conf");
        assert!(translated(&format!("{base} -H 1,65535 -M 0")).is_ok());
        assert!(translated(&format!("{base} -H 443 -M 256 -p 1000:1002 --http-stats")).is_ok());
        let ports = vec!["443"; 129].join(",");
        assert!(translated(&format!("{base} -H {ports}")).unwrap_err().contains("at most 128"));
    }
}
