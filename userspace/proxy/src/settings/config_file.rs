//! The configuration file: which keys there are, and what each may hold.
//!
//! docs/mtproxy.example.toml shows them all; a test holds the two together.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtproxy_core::dc::PreferIp;
use mtproxy_core::secret::DomainName;
use toml::de::DeTable;

use super::draft::{Draft, DraftLimits, DraftMiddleProxies, DraftTimeouts, DraftXdp, SecretEntry};
use super::middle_proxies::{
    BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, CLIENT_BUFFER_BYTES_MAX, CLIENT_BUFFER_BYTES_MIN,
};
use super::toml_section::{KeyLines, Reading, Section, number, text, text_as, yes_or_no};
use super::values::{Choice, Datapath, DcAddress, Domain, LogFormat, dc_id, secret_name, socket_address};
use super::xdp::{CONNECTIONS_MAX, Congestion, FRAMES_MAX, FRAMES_MIN, SYN_RATE_MAX, XdpMode};
use crate::complaint::{Complaint, Complaints, Placed};

/// A file that was understood.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) draft: Draft,
    pub(super) keys: KeyLines,
}

/// Larger files are refused: a mistyped path should not fill the memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the file at `path`.
///
/// # Errors
/// Everything in the file that the operator must change.
pub(super) fn read(path: &Path) -> Result<ConfigFile, Complaints> {
    let unreadable = |found: String| {
        Complaint::about_host(format!(
            "the configuration file {}: {found}; expected a readable TOML file; check the path \
            and its permissions",
            path.display()
        ))
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(format!("found {error}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("found {size} bytes, more than {FILE_BYTES_MAX}")).into());
    }
    let content = std::fs::read_to_string(path).map_err(|error| unreadable(format!("found {error}")))?;
    parse(path, &content)
}

/// Reads `content`; `path` is for complaints only.
pub(super) fn parse(path: &Path, content: &str) -> Result<ConfigFile, Complaints> {
    let reading = Reading::new(path, content);
    let document = match DeTable::parse(content) {
        Ok(document) => document,
        Err(error) => {
            // Only the parser's fixed words: its full report would quote the line.
            let offset = error.span().map_or(0, |span| span.start);
            reading.complain(offset, format!("found text that is not TOML: {}", error.message()));
            return Err(reading.finish().0);
        }
    };
    let draft = top(Section::top(&reading, document.get_ref()));
    drop(document);
    let (complaints, keys) = reading.finish();
    complaints.or(ConfigFile { draft, keys })
}

fn top(mut top: Section<'_>) -> Draft {
    let mut draft = Draft {
        listen: top.list("listen", text_as(socket_address)),
        secrets: top.sections("secrets").map(|list| list.into_iter().filter_map(secret).collect()),
        domains: top.sections("domains").map(|list| list.into_iter().filter_map(domain).collect()),
        datapath: top.value("datapath", text_as(Datapath::choose)),
        interface: value(top.value("interface", text)),
        workers: value(top.value("workers", number(1..=u64::from(u16::MAX), "threads"))),
        metrics: top.value("metrics", text_as(socket_address)),
        user: value(top.value("user", text)),
        state_dir: value(top.value("state_dir", text_as(absolute_path))),
        ..Draft::default()
    };
    if let Some(dc) = top.section("dc") {
        data_centres(dc, &mut draft);
    }
    if let Some(mut log) = top.section("log") {
        draft.log_filter = value(log.value("filter", text_as(str::parse)));
        draft.log_format = value(log.value("format", text_as(LogFormat::choose)));
        log.finish();
    }
    draft.timeouts = top.section("timeouts").map(timeouts).unwrap_or_default();
    draft.limits = top.section("limits").map(limits).unwrap_or_default();
    draft.xdp = top.section("xdp").map(xdp).unwrap_or_default();
    draft.middle_proxies = top.section("middle_proxies").map(middle_proxies).unwrap_or_default();
    top.finish();
    draft
}

fn secret(mut table: Section<'_>) -> Option<SecretEntry> {
    let name = table.value("name", text_as(secret_name));
    let secret = table.value("secret", text_as(str::parse));
    table.complain_of_missing("secret", "secret = \"…\" (`mtproxy secret` makes one)");
    let direct = value(table.value("direct", yes_or_no));
    table.finish();
    Some(SecretEntry { name, text: secret?, direct })
}

fn domain(mut table: Section<'_>) -> Option<Placed<Domain>> {
    let name = table.value("name", text_as(str::parse::<DomainName>));
    let address = value(table.value("address", text_as(socket_address)));
    let flight_bytes = value(table.value("flight_bytes", number(256..=16_384, "bytes")));
    table.complain_of_missing("name", "name = \"example.com\"");
    table.finish();
    name.map(|Placed { value: name, place }| Placed { value: Domain { name, address, flight_bytes }, place })
}

fn data_centres(mut dc: Section<'_>, draft: &mut Draft) {
    let id = number(0..=i16::MAX.unsigned_abs().into(), "for a data centre");
    draft.dc_default = value(dc.value("default", id)).map(mtproxy_core::dc::DcId);
    draft.prefer_ip = value(dc.value("prefer_ip", text_as(PreferIp::choose)));
    draft.dc_addresses = dc.section("addresses").map(|addresses| {
        let mut all = Vec::new();
        for (id, list) in addresses.lists_by_name(text_as(socket_address)) {
            match dc_id(&id.value) {
                Ok(id) => {
                    all.extend(list.into_iter().map(|address| DcAddress { id, address: address.value }));
                }
                Err(message) => dc.complain(&id, format!("dc.addresses: {message}")),
            }
        }
        all
    });
    dc.finish();
}

fn timeouts(mut table: Section<'_>) -> DraftTimeouts {
    let mut seconds = |key, least| {
        const DAY: u64 = 86_400;
        value(table.value(key, number(least..=DAY, "seconds"))).map(Duration::from_secs)
    };
    let timeouts = DraftTimeouts {
        first_byte: seconds("first_byte_seconds", 1),
        handshake: seconds("handshake_seconds", 1),
        dial: seconds("dial_seconds", 1),
        idle: seconds("idle_seconds", 1),
        linger: seconds("linger_seconds", 1),
        drain: seconds("drain_seconds", 0),
    };
    table.finish();
    timeouts
}

fn limits(mut table: Section<'_>) -> DraftLimits {
    let limits = DraftLimits {
        connections: value(table.value("connections", number(1..=10_000_000, "connections"))),
        relay_window_bytes: value(table.value("relay_window_bytes", number(4096..=16 << 20, "bytes"))),
        replay_entries: value(table.value("replay_entries", number(1024..=16 << 20, "entries"))),
    };
    table.finish();
    limits
}

fn xdp(mut table: Section<'_>) -> DraftXdp {
    let xdp = DraftXdp {
        mode: value(table.value("mode", text_as(XdpMode::choose))),
        ports: value(table.value("ports", text_as(str::parse))),
        frames: value(table.value("frames", number(FRAMES_MIN..=FRAMES_MAX, "packet buffers"))),
        huge_pages: value(table.value("huge_pages", yes_or_no)),
        busy_poll: value(table.value("busy_poll", yes_or_no)),
        pin: value(table.value("pin", yes_or_no)),
        trust_partial_checksums: value(table.value("trust_partial_checksums", yes_or_no)),
        connections: value(table.value("connections", number(1..=CONNECTIONS_MAX, "connections"))),
        syn_per_source: value(table.value("syn_per_source", number(0..=SYN_RATE_MAX, "SYNs a second"))),
        syn_burst: value(table.value("syn_burst", number(1..=SYN_RATE_MAX, "SYNs")))
            .and_then(NonZeroU32::new),
        deny: table.list("deny", text_as(str::parse)),
        congestion: value(table.value("congestion", text_as(Congestion::choose))),
    };
    table.finish();
    xdp
}

fn middle_proxies(mut table: Section<'_>) -> DraftMiddleProxies {
    const DAY_SECONDS: u64 = 86_400;
    const MONTH_HOURS: u64 = 31 * 24;
    let hours = number(1..=MONTH_HOURS, "hours");
    let confirm_seconds = number(1..=DAY_SECONDS, "seconds");
    let ping_seconds = number(1..=600, "seconds");
    let client_buffer = number(CLIENT_BUFFER_BYTES_MIN..=CLIENT_BUFFER_BYTES_MAX, "bytes");
    let middle_proxies = DraftMiddleProxies {
        config: table.value("config", text_as(absolute_path)),
        secret: table.value("secret", text_as(path_of_secret)),
        proxy_tag: table.value("proxy_tag", text_as(str::parse)),
        nat: table.list("nat", text_as(str::parse)),
        refresh: table.value("refresh", yes_or_no),
        config_url: value(table.value("config_url", text_as(str::parse))),
        config_url_v6: value(table.value("config_url_v6", text_as(str::parse))),
        secret_url: value(table.value("secret_url", text_as(str::parse))),
        refresh_every: value(table.value("refresh_hours", hours))
            .map(|hours: u64| Duration::from_secs(hours * 3600)),
        confirm_after: value(table.value("confirm_seconds", confirm_seconds)).map(Duration::from_secs),
        prefer_ip: value(table.value("prefer_ip", text_as(PreferIp::choose))),
        client_buffer_bytes: value(table.value("client_buffer_bytes", client_buffer)),
        buffer_bytes: value(
            table.value("buffer_bytes", number(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX, "bytes")),
        ),
        ping: value(table.value("ping_seconds", ping_seconds)).map(Duration::from_secs),
    };
    table.finish();
    middle_proxies
}

fn value<T>(placed: Option<Placed<T>>) -> Option<T> {
    placed.map(|placed| placed.value)
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("found {text:?}; expected a path that begins with /"))
    }
}

/// The same, without repeating what may be the secret itself.
fn path_of_secret(text: &str) -> Result<PathBuf, String> {
    absolute_path(text).map_err(|_| {
        "found a text that is no path from / on; expected the name of a file, since the secret is no text"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(content: &str) -> String {
        parse(Path::new("f.toml"), content).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_answered_with_its_line_and_the_nearest_key() {
        assert_eq!(
            complaints("# first line\nlisen = [\"0.0.0.0:443\"]\n"),
            "error: f.toml:2: found the unknown key \"lisen\"; did you mean \"listen\"?\n"
        );
        let nested = complaints("[timeouts]\nidle_seconds = 1\n\n[log]\nfiltr = \"info\"\n");
        assert_eq!(
            nested,
            "error: f.toml:5: found the unknown key \"log.filtr\"; did you mean \"filter\"?\n"
        );
        assert!(
            complaints("[[secrets]]\nsecret = \"x\"\nnmae = \"a\"")
                .contains("f.toml:3: found the unknown key \"secrets.nmae\"; did you mean \"name\"?")
        );
        assert!(complaints("colour = 1").contains("expected one of listen, secrets, domains"));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let all =
            complaints("workers = 0\nlisten = \"0.0.0.0:443\"\n[log]\nformat = \"xml\"\nfilter = \"inof\"\n");
        for part in [
            "f.toml:1: workers: found 0; expected 1 to 65535 threads",
            "f.toml:2: listen: found a text; expected a list in brackets",
            "f.toml:4: log.format: found \"xml\"; expected one of text, json",
            "f.toml:5: log.filter: found \"inof\" as a level",
        ] {
            assert!(all.contains(part), "{part}\nnot in\n{all}");
        }
    }

    #[test]
    fn mistakes_in_the_section_of_xdp_are_said_with_their_line() {
        let all = complaints(
            "[xdp]\nmode = \"zerocopy\"\nports = \"1000-2000\"\npin = \"yes\"\nframe = 1\n\
             deny = [\"192.0.2.1/24\"]\ncongestion = \"bbr\"\n",
        );
        for part in [
            "f.toml:2: xdp.mode: found \"zerocopy\"; expected one of auto, zero-copy, copy, generic; did you mean",
            "f.toml:3: xdp.ports: found \"1000-2000\", which begins with ports of well-known services",
            "f.toml:4: xdp.pin: found a text; expected true or false",
            "f.toml:5: found the unknown key \"xdp.frame\"; did you mean \"frames\"?",
            "f.toml:6: xdp.deny: found \"192.0.2.1/24\"",
            "f.toml:7: xdp.congestion: found \"bbr\"; expected one of cubic, newreno",
        ] {
            assert!(all.contains(part), "{part}\nnot in\n{all}");
        }
    }

    #[test]
    fn an_element_of_a_list_is_reported_on_its_own_line() {
        let message = complaints("listen = [\n  \"0.0.0.0:443\",\n  \"0.0.0.0\",\n]");
        assert!(
            message.starts_with("error: f.toml:3: listen: found the address \"0.0.0.0\" without a port"),
            "{message}"
        );
        assert!(complaints("listen = []").contains("listen: found an empty list"));
    }

    #[test]
    fn numbers_are_held_to_their_range_on_both_sides() {
        for (content, fits) in [
            ("[timeouts]\nidle_seconds = 0", false),
            ("[timeouts]\nidle_seconds = 1", true),
            ("[timeouts]\nidle_seconds = 86_400", true),
            ("[timeouts]\nidle_seconds = 86401", false),
            ("[timeouts]\ndrain_seconds = 0", true),
            ("[timeouts]\nidle_seconds = -1", false),
            ("[timeouts]\nidle_seconds = 1.5", false),
            ("[limits]\nrelay_window_bytes = 4095", false),
            ("[limits]\nrelay_window_bytes = 0x1000", true),
            ("[dc]\ndefault = 32767", true),
            ("[dc]\ndefault = 32768", false),
            ("[xdp]\nframes = 4095", false),
            ("[xdp]\nframes = 4096", true),
            ("[xdp]\nframes = 1_048_576", true),
            ("[xdp]\nframes = 1_048_577", false),
            ("[xdp]\nconnections = 0", false),
            ("[xdp]\nsyn_per_source = 0", true),
            ("[xdp]\nsyn_burst = 0", false),
            ("[xdp]\nsyn_burst = 1", true),
        ] {
            assert_eq!(parse(Path::new("f"), content).is_ok(), fits, "{content}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_never_repeated() {
        let key = "00112233445566778899aabbccddeeff";
        for content in [
            format!("[[secrets]]\nsecret = {key}"),
            format!("[[secrets]]\nsecret = \"{key}"),
            format!("[[secrets]]\nsecret = [\"{key}\"]"),
            format!("secrets = [\"{key}\"]"),
            format!("secrets = \"{key}\""),
            format!("[middle_proxies]\nsecret = \"{key}\""),
            format!("[middle_proxies]\nproxy_tag = \"dd{key}\""),
        ] {
            let message = complaints(&content);
            assert!(message.contains("found") && !message.contains("2233"), "{message}");
        }
    }

    #[test]
    fn a_table_without_what_it_is_for_is_reported() {
        assert!(
            complaints("[[secrets]]\nname = \"a\"").contains("f.toml:1: found [[secrets]] without secret")
        );
        assert!(
            complaints("\n[[domains]]\naddress = \"1.2.3.4:1\"")
                .contains("f.toml:2: found [[domains]] without name")
        );
    }

    #[test]
    fn data_centres_are_named_by_number() {
        let file = parse(
            Path::new("f"),
            "[dc.addresses]\n-4 = [\"1.2.3.4:443\"]\n\"2\" = [\"[::1]:1\", \"1.2.3.4:2\"]",
        )
        .unwrap();
        let found = file.draft.dc_addresses.unwrap();
        assert_eq!(found.iter().map(|dc| dc.id.0).collect::<Vec<_>>(), [-4, 2, 2]);
        assert!(
            complaints("[dc.addresses]\ntwo = [\"1.2.3.4:443\"]")
                .contains("f.toml:2: dc.addresses: found \"two\"")
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let message = read(Path::new("/nonexistent/mtproxy.toml")).unwrap_err().to_string();
        assert!(
            message.contains("/nonexistent/mtproxy.toml") && message.contains("check the path"),
            "{message}"
        );
    }
}
