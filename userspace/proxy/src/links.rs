//! What an operator hands to users: proxy links and their QR code.
//!
//! Links carry the secret; they go to standard output when asked for, and never into a log.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::str::FromStr;

use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::secret::{DomainName, Secret, SecretKind};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use tracing::info;

use crate::settings::values::Domain;
use crate::settings::{NamedSecret, Settings};

/// The host under which clients reach the proxy: an address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(String);

impl ServerName {
    /// Stands in a link for an address that only the operator knows.
    #[must_use]
    pub fn unknown() -> Self {
        Self("<this host's public address>".to_owned())
    }
}

impl From<IpAddr> for ServerName {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for ServerName {
    type Err = String;

    /// Reads an address, with or without the brackets of an IPv6 one, or a host name.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(address.into());
        }
        match text.parse::<DomainName>() {
            Ok(name) => Ok(Self(name.to_string())),
            Err(_) => Err(format!(
                "found {text:?}; expected the address or host name under which clients reach the \
                proxy, without scheme or port"
            )),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A link that configures a client: where the proxy is and the secret that opens it.
/// Its texts contain the secret.
#[derive(Clone)]
pub struct ProxyLink<'a> {
    /// Where clients reach the proxy.
    pub server: ServerName,
    /// The port there.
    pub port: u16,
    /// The secret, whose kind decides the client's mode.
    pub secret: &'a Secret,
}

impl ProxyLink<'_> {
    /// The form that opens the app directly.
    #[must_use]
    pub fn tg(&self) -> String {
        format!("tg://proxy?{}", self.query())
    }

    /// The form that survives messengers and cameras, which may refuse unknown schemes.
    #[must_use]
    pub fn https(&self) -> String {
        format!("https://t.me/proxy?{}", self.query())
    }

    fn query(&self) -> String {
        // Nothing to escape: hex, digits, and letters that are valid in a host.
        format!("server={}&port={}&secret={}", self.server, self.port, self.secret.reveal())
    }
}

/// Prints the links of a proxy that listens on `listening` to standard output, one a line, with the name
/// of each secret. Not into the journal of systemd, which others may read.
pub fn announce(settings: &Settings, listening: &[SocketAddr]) {
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        info!("links are not written to the journal; `mtproxy link` prints them");
        return;
    }
    let Some(&listener) = listening.first() else { return };
    let server = server_name(listener.ip());
    let mut lines = String::new();
    for NamedSecret { name, secret, .. } in settings.secrets.iter().take(ANNOUNCED_MAX) {
        let secret = &as_clients_use_it(secret, &settings.domains);
        let link = ProxyLink { server: server.clone(), port: listener.port(), secret };
        lines.push_str(&format!("{}  # {name}\n", link.tg()));
    }
    // A reader that is gone misses nothing that `mtproxy link` does not say.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    if settings.secrets.len() > ANNOUNCED_MAX {
        info!(
            shown = ANNOUNCED_MAX,
            secrets = settings.secrets.len(),
            "more secrets than links shown; `mtproxy link` prints the others"
        );
    }
}

/// More would push the lines that matter at start off the screen.
const ANNOUNCED_MAX: usize = 16;

/// With a site to hide behind, a plain secret is best used inside fake TLS.
fn as_clients_use_it(secret: &Secret, domains: &[Domain]) -> Secret {
    match (secret.kind(), domains.first()) {
        (SecretKind::Plain, Some(domain)) => {
            Secret::new(*secret.key(), SecretKind::FakeTls(domain.name.clone()))
        }
        _ => secret.clone(),
    }
}

/// The name for a listener's address: itself if it is one; for all addresses of the host, the public one
/// if the host has it (behind NAT it does not).
fn server_name(listener: IpAddr) -> ServerName {
    if !listener.is_unspecified() {
        return listener.into();
    }
    outgoing_address()
        .filter(|address| is_public(*address))
        .map_or_else(ServerName::unknown, |address| IpAddr::V4(address).into())
}

/// The address from which this host would reach Telegram. Asks the routing table and sends nothing.
fn outgoing_address() -> Option<Ipv4Addr> {
    let telegram = DcTable::builtin(PreferIp::V4).addresses(DcId(2)).first().copied()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(telegram).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// False for the ranges that routers of the Internet do not forward (RFC 6890).
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_carrier_grade_nat = a == 100 && (64..128).contains(&b);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_documentation()
        || address.is_multicast()
        || is_carrier_grade_nat)
}

/// Who will look at a QR code drawn in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canvas {
    /// A terminal that understands colours: black on white whatever its theme.
    Terminal,
    /// A file or a pipe: for light text on a dark ground.
    Plain,
}

/// `text` as a QR code of half blocks, with its quiet zone.
///
/// # Errors
/// If the text is too long for any QR code.
pub fn qr_code(text: &str, canvas: Canvas) -> Result<String, String> {
    // The lowest error correction: a screen has no scratches, and larger modules scan better.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error| {
        format!("found a link too long for a QR code ({error}); expected a shorter host or domain")
    })?;
    let (dark, light) = match canvas {
        Canvas::Terminal => (Dense1x2::Dark, Dense1x2::Light),
        // Blocks are drawn in the colour of text, so light modules must be the blocks.
        Canvas::Plain => (Dense1x2::Light, Dense1x2::Dark),
    };
    let picture = code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build();
    Ok(match canvas {
        Canvas::Plain => picture,
        Canvas::Terminal => picture.lines().map(black_on_white).collect::<Vec<_>>().join("\n"),
    })
}

fn black_on_white(line: &str) -> String {
    // From the 256-colour palette, whose entries 16 and 231 no theme changes.
    format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m")
}

/// Answer of `mtproxy link`: both links and the code of the second.
///
/// # Errors
/// If server or secret are not ones.
pub fn describe(server: &str, port: NonZeroU16, secret: &Secret, canvas: Canvas) -> Result<String, String> {
    let link = ProxyLink { server: server.parse()?, port: port.get(), secret };
    Ok(format!("{}\n{}\n\n{}\n", link.tg(), link.https(), qr_code(&link.https(), canvas)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        "dd000102030405060708090a0b0c0d0e0f".parse().unwrap()
    }

    #[test]
    fn both_links_carry_server_port_and_secret() {
        let secret = secret();
        let link = ProxyLink { server: "proxy.example".parse().unwrap(), port: 443, secret: &secret };
        let query = "proxy?server=proxy.example&port=443&secret=dd000102030405060708090a0b0c0d0e0f";
        assert_eq!(link.tg(), format!("tg://{query}"));
        assert_eq!(link.https(), format!("https://t.me/{query}"));
    }

    #[test]
    fn a_server_is_an_address_or_a_name_and_nothing_more() {
        for (text, name) in [
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("a.example", "a.example"),
        ] {
            assert_eq!(text.parse::<ServerName>().unwrap().to_string(), name);
        }
        for bad in ["", "https://a.example", "a.example:443", "192.0.2.1:443", "a b", "a&secret=1"] {
            assert!(
                bad.parse::<ServerName>().unwrap_err().contains("expected the address or host name"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_plain_secret_is_shown_in_the_mode_that_hides_best() {
        let plain: Secret = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let domains = ["a.example".parse().unwrap(), "b.example".parse().unwrap()];
        assert_eq!(as_clients_use_it(&plain, &[]), plain);
        assert_eq!(
            as_clients_use_it(&plain, &domains).reveal(),
            "ee000102030405060708090a0b0c0d0e0f612e6578616d706c65"
        );
        assert_eq!(as_clients_use_it(&secret(), &domains), secret(), "dd admits no fake TLS");
    }

    #[test]
    fn a_listener_on_one_address_is_named_by_it() {
        assert_eq!(server_name("192.0.2.1".parse().unwrap()).to_string(), "192.0.2.1");
        assert_eq!(server_name("2001:db8::1".parse().unwrap()).to_string(), "2001:db8::1");
    }

    #[test]
    fn addresses_that_no_client_could_reach_are_not_shown() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("100.63.0.1", true),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn a_qr_code_is_square_and_has_its_quiet_zone() {
        let picture = qr_code("https://t.me/proxy?server=a&port=1&secret=b", Canvas::Plain).unwrap();
        let lines: Vec<Vec<char>> = picture.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        // Version 3 has 29 modules; four more on each side are the quiet zone.
        assert_eq!(width, 29 + 8);
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(lines.iter().all(|line| line.len() == width));
        assert!(lines[..2].iter().flatten().all(|&c| c == '█'), "the upper quiet zone is light");
        assert!(
            lines
                .iter()
                .all(|line| line[..4].iter().chain(&line[width - 4..]).all(|&c| c == '█' || c == '▀'))
        );
        // The finder pattern: seven dark modules in a row, the next row dark only at both ends.
        assert_eq!(lines[2][4..11].iter().collect::<String>(), " ▄▄▄▄▄ ");
    }

    #[test]
    fn on_a_terminal_the_code_is_dark_on_light_and_says_so_in_every_line() {
        let picture = qr_code("x", Canvas::Terminal).unwrap();
        assert!(
            picture
                .lines()
                .all(|line| line.starts_with("\x1b[38;5;16;48;5;231m ") && line.ends_with("\x1b[0m"))
        );
    }
}
