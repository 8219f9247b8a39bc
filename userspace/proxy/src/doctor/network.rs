//! Asking the network: everything at once, each question with its patience, never longer than ten seconds together.
//!
//! Nothing is sent but what a browser, or the proxy itself, would send: greetings and one HEAD request to fronts, and
//! connections to data centres that are closed again.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
    Stream,
};

use super::facts::{Front, Network, Probe, Tls};
use crate::control::lookup;
use crate::control::middle_proxies::clock_skew::{ClockReading, parse_http_date, unix_now};
use crate::control::source_address;
use crate::settings::Settings;
use crate::settings::values::Domain;

/// For one connection, and for each read and write on it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Addresses that the routing table is asked about: of the world, by family (RFC 5737 and 3849 have none of it).
const WORLD: [&str; 2] = ["8.8.8.8", "2001:4860:4860::8888"];
/// As much of an answer to HEAD as is read.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// Asks everything that `settings` give reason to ask.
pub(super) fn ask(settings: &Settings) -> Network {
    let table = settings.dc.table();
    let addresses =
        table.iter().flat_map(|(id, addresses)| addresses.iter().map(move |address| (id, *address)));
    let (data_centres, fronts) = thread::scope(|scope| {
        let probes: Vec<_> = addresses.map(|(dc, address)| scope.spawn(move || probe(dc, address))).collect();
        let fronts: Vec<_> = settings.domains.iter().map(|domain| scope.spawn(|| front(domain))).collect();
        let probes = probes.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let fronts = fronts.into_iter().filter_map(|thread| thread.join().ok()).collect();
        (probes, fronts)
    });
    let source = |world: &str| source_address::towards(world.parse().expect("a constant"));
    Network { sources: WORLD.map(source), data_centres, fronts }
}

fn probe(dc: mtproxy_core::dc::DcId, address: SocketAddr) -> Probe {
    let began = Instant::now();
    let outcome = TcpStream::connect_timeout(&address, PATIENCE);
    Probe { dc, address, outcome: outcome.map(|_| began.elapsed()).map_err(|error| error.to_string()) }
}

fn front(domain: &Domain) -> Front {
    let name = domain.name.as_str().to_owned();
    let found = lookup::resolve_all(
        std::slice::from_ref(&name),
        |name| lookup::of_system(name, 443),
        lookup::PATIENCE,
    );
    let published =
        found.into_iter().next().expect("an answer for each question").map_err(|error| error.to_string());
    let addresses = match domain.address {
        Some(address) => Ok(vec![address]),
        None => published.clone(),
    };
    let tls = match addresses.as_ref().map(|addresses| addresses.first()) {
        Ok(Some(address)) => greet(&name, *address),
        Ok(None) | Err(_) => Err("it has no address".to_owned()),
    };
    let ip = |addresses: Vec<SocketAddr>| addresses.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>();
    Front { domain: name, addresses, published: published.map(ip), tls }
}

/// A whole handshake and a HEAD request.
fn greet(name: &str, address: SocketAddr) -> Result<Tls, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| text(&error))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|error| text(&error))?;
    socket.set_write_timeout(Some(PATIENCE)).map_err(|error| text(&error))?;
    let verifier = Arc::new(Witness::new().map_err(|error| text(&error))?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Witness>::clone(&verifier))
        .with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).map_err(|error| text(&error))?;
    let mut connection = ClientConnection::new(Arc::new(config), server).map_err(|error| text(&error))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| text(&error))?;
    }
    let clock_ahead_seconds = date(name, &mut connection, &mut socket);
    let key_exchange = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
    let certificates = connection.peer_certificates().unwrap_or_default();
    Ok(Tls {
        is_1_3: connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        key_exchange: key_exchange.unwrap_or_else(|| "an unknown key exchange".to_owned()),
        certificate_bytes: certificates.iter().map(|certificate| certificate.len()).sum(),
        certificate: verifier.verdict(),
        clock_ahead_seconds,
    })
}

/// How far our clock is ahead of the site's. A site that does not say is no worse for it.
fn date(name: &str, connection: &mut ClientConnection, socket: &mut TcpStream) -> Option<i64> {
    let ours_when_asked = unix_now();
    let mut stream = Stream::new(connection, socket);
    write!(stream, "HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").ok()?;
    let mut head = Vec::new();
    let mut part = [0; 2048];
    while head.len() < HEAD_LEN_MAX && !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(&part[..count]),
        }
    }
    date_of(&String::from_utf8_lossy(&head), [ours_when_asked, unix_now()])
}

/// `ours` are our clock's times before and after.
fn date_of(head: &str, ours: [u64; 2]) -> Option<i64> {
    let of_line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| parse_http_date(value))?
    };
    let server = head.lines().find_map(of_line)?;
    let [ours_when_asked, ours_when_answered] = ours;
    Some(ClockReading { server, ours_when_asked, ours_when_answered }.ahead_seconds())
}

/// Believes everybody, and remembers whether a browser would have: a bad certificate is a finding, not the end.
#[derive(Debug)]
struct Witness {
    browser: Arc<WebPkiServerVerifier>,
    verdict: Mutex<Result<(), String>>,
}

impl Witness {
    fn new() -> Result<Self, rustls::client::VerifierBuilderError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let browser = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { browser, verdict: Mutex::new(Ok(())) })
    }

    fn verdict(&self) -> Result<(), String> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.browser.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let verdict = verified.map(drop).map_err(|error| error.to_string());
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.browser.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.browser.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.browser.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_tells_how_far_our_clock_is_ahead() {
        let head = "HTTP/1.1 200 OK\r\nServer: x\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(date_of(head, [784_111_777; 2]), Some(0));
        assert_eq!(date_of(head, [784_111_779; 2]), Some(2));
        assert_eq!(date_of(head, [784_111_774; 2]), Some(-3));
        assert_eq!(date_of("HTTP/1.1 200 OK\r\n\r\n", [0; 2]), None);
        assert_eq!(date_of("HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", [0; 2]), None);
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_an_outcome_and_not_a_wait() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(probe(mtproxy_core::dc::DcId(2), address).outcome.is_ok());
        drop(listener);
        let began = Instant::now();
        assert!(probe(mtproxy_core::dc::DcId(2), address).outcome.is_err());
        assert!(greet("front.example", address).is_err());
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn somebody_who_speaks_something_else_is_no_front() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.write_all(b"220 mail.example ESMTP\r\n");
        });
        let outcome = greet("front.example", address);
        server.join().unwrap();
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
