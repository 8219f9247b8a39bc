//! The values of single settings, each parsed once into a type that cannot be wrong.
//!
//! The command line and the configuration file share these parsers, so a value means the same in
//! both. Their errors say what was found, what was expected and what to write instead.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use mtproxy_core::dc::{DcId, PreferIp};
use mtproxy_core::secret::DomainName;
use tracing_subscriber::filter::Targets;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::complaint::nearest;

/// Reads `ADDR:PORT`, with an IPv6 address in brackets. Names are not resolved: which of a name's
/// addresses to listen on, or to trust, is for the operator to say.
///
/// # Errors
/// What was found, what was expected.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let found = if text.parse::<std::net::IpAddr>().is_ok() {
            format!("found the address {text:?} without a port")
        } else {
            format!("found {text:?}")
        };
        format!("{found}; expected an IP address and a port, such as 192.0.2.1:443 or [2001:db8::1]:443")
    })
}

/// A secret as it was written: a secret, or `@FILE` for the file that holds one.
/// Kept from `Debug` and wiped when dropped, since it may still turn out not to parse.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// What was written.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// A site behind which the proxy hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The name in the client's hello.
    pub name: DomainName,
    /// Where the site really is; `None` to resolve the name, port 443.
    pub address: Option<SocketAddr>,
    /// Size in bytes of the encrypted part of the site's first flight; `None` for a size of this
    /// deployment's own.
    pub flight_bytes: Option<u16>,
}

impl FromStr for Domain {
    type Err = String;

    /// Reads `HOST` or `HOST=ADDR:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (name, Some(socket_address(address)?)),
            None => (text, None),
        };
        let name = name.parse().map_err(|error| format!("{error}, optionally followed by =ADDR:PORT"))?;
        Ok(Self { name, address, flight_bytes: None })
    }
}

/// One address of a data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DcAddress {
    /// The data centre.
    pub id: DcId,
    /// Where it is.
    pub address: SocketAddr,
}

impl FromStr for DcAddress {
    type Err = String;

    /// Reads `ID=ADDR:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((id, address)) = text.split_once('=') else {
            return Err(format!("found {text:?}; expected ID=ADDR:PORT, such as 2=149.154.167.51:443"));
        };
        Ok(Self { id: dc_id(id)?, address: socket_address(address)? })
    }
}

/// Reads a data centre's number.
///
/// # Errors
/// What was found, what was expected.
pub fn dc_id(text: &str) -> Result<DcId, String> {
    text.parse().map(DcId).map_err(|_| {
        format!(
            "found {text:?} for a data centre; expected its number: 1 to 5, 203, negative for \
            media, 10001 and up for test"
        )
    })
}

/// How bytes move between the network and the sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Datapath {
    /// The fastest that this host and this build offer.
    #[default]
    Auto,
    /// AF_XDP sockets.
    Xdp,
    /// Kernel sockets.
    Epoll,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A setting with a few named values.
pub trait Choice: Copy + 'static {
    /// Every value with its name.
    const NAMES: &'static [(&'static str, Self)];

    /// The value called `text`.
    ///
    /// # Errors
    /// What was found, the names, and which one was probably meant.
    fn choose(text: &str) -> Result<Self, String> {
        if let Some((_, value)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
        let hint = nearest(text, &names).map_or(String::new(), |name| format!("; did you mean {name:?}?"));
        Err(format!("found {text:?}; expected one of {}{hint}", names.join(", ")))
    }
}

impl Choice for Datapath {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("xdp", Self::Xdp), ("epoll", Self::Epoll)];
}

impl Choice for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Choice for PreferIp {
    const NAMES: &'static [(&'static str, Self)] = &[("v4", Self::V4), ("v6", Self::V6)];
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Which log lines are written: levels, optionally for one part, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter for the subscriber.
    #[must_use]
    pub fn targets(&self) -> Targets {
        self.0.parse().expect("every directive was checked when the filter was read")
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    /// Stricter than the subscriber's own parser, for which a mistyped level is the name of a part.
    fn from_str(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let level = directive.split_once('=').map_or(directive, |(_, level)| level).trim();
            if !LEVELS.contains(&level) {
                let hint =
                    nearest(level, &LEVELS).map_or(String::new(), |word| format!("; did you mean {word:?}?"));
                return Err(format!(
                    "found {level:?} as a level; expected one of {}, such as info or \
                    info,mtproxy_core=debug{hint}",
                    LEVELS.join(", ")
                ));
            }
        }
        text.parse::<Targets>().map_err(|error| {
            format!("found {text:?}, which is no filter ({error}); expected one such as info")
        })?;
        Ok(Self(text.to_owned()))
    }
}

/// Name of a secret for statistics and logs: it becomes a label and must not need quoting.
///
/// # Errors
/// What was found, what was expected.
pub fn secret_name(text: &str) -> Result<String, String> {
    const LEN_MAX: usize = 64;
    let fits = (1..=LEN_MAX).contains(&text.chars().count());
    if fits && text.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c)) {
        return Ok(text.to_owned());
    }
    Err(format!("found the name {text:?}; expected 1 to {LEN_MAX} letters, digits or - _ . @ +"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_port_and_no_name() {
        assert_eq!(socket_address("[::1]:0").unwrap().port(), 0);
        assert!(socket_address("192.0.2.1:65535").is_ok());
        for (text, found) in [
            ("192.0.2.1", "without a port"),
            ("::1", "without a port"),
            ("192.0.2.1:65536", "found \"192.0.2.1:65536\""),
            ("localhost:443", "found \"localhost:443\""),
            (":443", "found \":443\""),
        ] {
            let message = socket_address(text).unwrap_err();
            assert!(
                message.contains(found) && message.contains("expected an IP address and a port"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_domain_may_say_where_it_is() {
        let domain: Domain = "example.com".parse().unwrap();
        assert_eq!((domain.name.as_str(), domain.address), ("example.com", None));
        let domain: Domain = "example.com=[::1]:8443".parse().unwrap();
        assert_eq!(domain.address, Some("[::1]:8443".parse().unwrap()));
        for bad in
            ["", "=1.2.3.4:1", "exa mple.com", "example.com=", "example.com=1.2.3.4", "example.com:443"]
        {
            assert!(bad.parse::<Domain>().unwrap_err().contains("expected"), "{bad}");
        }
    }

    #[test]
    fn a_data_centre_may_be_negative() {
        let dc: DcAddress = "-4=1.2.3.4:443".parse().unwrap();
        assert_eq!((dc.id, dc.address), (DcId(-4), "1.2.3.4:443".parse().unwrap()));
        assert!("32767=1.2.3.4:443".parse::<DcAddress>().is_ok());
        for bad in ["32768=1.2.3.4:443", "2", "two=1.2.3.4:443", "2=1.2.3.4", "=1.2.3.4:443"] {
            assert!(bad.parse::<DcAddress>().unwrap_err().contains("expected"), "{bad}");
        }
    }

    #[test]
    fn a_mistyped_choice_is_answered_with_the_nearest_one() {
        assert_eq!(Datapath::choose("epoll"), Ok(Datapath::Epoll));
        let message = Datapath::choose("epol").unwrap_err();
        assert_eq!(message, "found \"epol\"; expected one of auto, xdp, epoll; did you mean \"epoll\"?");
        assert!(!PreferIp::choose("neither").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn a_mistyped_level_is_not_taken_for_a_part() {
        for good in ["info", "off", "warn,mtproxy_core=trace", "mtproxy=debug"] {
            assert_eq!(good.parse::<LogFilter>().unwrap().to_string(), good);
        }
        for bad in ["inof", "", "info,", "mtproxy=loud", "info;debug"] {
            assert!(bad.parse::<LogFilter>().unwrap_err().contains("expected one of off"), "{bad}");
        }
        assert!("inof".parse::<LogFilter>().unwrap_err().contains("did you mean \"info\"?"));
    }

    #[test]
    fn names_are_short_and_need_no_quoting() {
        for good in ["a", "secret-1", "жена", &"x".repeat(64)] {
            assert!(secret_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\nb", &"x".repeat(65)] {
            assert!(secret_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_text_of_a_secret_is_kept_from_debug() {
        let text: SecretText = "0123".parse().unwrap();
        assert_eq!(format!("{text:?}"), "SecretText(..)");
    }
}
