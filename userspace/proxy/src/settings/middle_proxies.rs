//! Settings of the way through middle proxies: the section `[middle_proxies]` and the four options of the command
//! line.
//!
//! Middle proxies are in use if the operator gave their two files, or asked for downloads. docs/middle-proxies.md
//! says when which is for whom.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mtproxy_core::dc::{DcId, PreferIp};
use mtproxy_core::middle_proxy::nat::{NatRule, NatRules};
use mtproxy_core::middle_proxy::proxy_req::ProxyTag;
use mtproxy_core::middle_proxy::settings::{MiddleProxies, MiddleProxyLimits};
use mtproxy_core::middle_proxy::{Clusters, TargetConfig};

use super::draft::DraftMiddleProxies;
use crate::complaint::{Complaint, Complaints, Place, Placed};
use crate::control::middle_proxies::{LoadedMiddleProxies, Target};
use crate::process;

/// How clients get to the data centres through middle proxies. All of it may change at a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddleProxySettings {
    /// The operator's own files; `None` if everything is downloaded.
    pub files: Option<MiddleProxyFiles>,
    /// How the files are kept current; `None` if that is the operator's business.
    pub refresh: Option<RefreshSettings>,
    /// Names the channel to show to clients.
    pub proxy_tag: Option<ProxyTag>,
    /// Addresses as middle proxies see them.
    pub nat: NatRules,
    /// Family of the links to middle proxies, where there is a choice.
    pub prefer_ip: PreferIp,
    /// Most bytes of answers that wait for one client, which is closed beyond it: inside a link nothing can be held
    /// back.
    pub client_buffer_bytes: usize,
    /// Most bytes that wait for or from all clients of one worker.
    pub buffer_bytes: usize,
    /// From the last byte of a link to a question whether it still works.
    pub ping: Duration,
}

impl MiddleProxySettings {
    /// What engines need to know, with the middle proxies as they are known now.
    #[must_use]
    pub fn for_engines(&self, loaded: &LoadedMiddleProxies) -> MiddleProxies {
        let target = |target: &Target| TargetConfig {
            address: target.address,
            min_connections: target.min_connections,
            max_connections: target.max_connections,
        };
        let clusters = loaded.clusters.by_id.iter();
        let clusters = clusters.map(|(id, targets)| (DcId(*id), targets.iter().map(target).collect()));
        MiddleProxies {
            secret: loaded.secret.clone(),
            clusters: Clusters::new(DcId(loaded.clusters.default), clusters),
            proxy_tag: self.proxy_tag,
            nat: self.nat.clone(),
            process: process::identity(),
            limits: MiddleProxyLimits {
                client_buffer_bytes: self.client_buffer_bytes,
                buffer_bytes: self.buffer_bytes,
                ping_after: self.ping,
                ..MiddleProxyLimits::default()
            },
        }
    }
}

/// The operator's own files (protocol.md section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddleProxyFiles {
    /// `proxy-multi.conf`: where the middle proxies are.
    pub config: PathBuf,
    /// `proxy-secret`: what they know.
    pub secret: PathBuf,
}

/// Whence and how often the files are downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshSettings {
    /// The middle proxies' IPv4 addresses.
    pub config_url: DownloadUrl,
    /// Their IPv6 addresses; `None` to do without.
    pub config_url_v6: Option<DownloadUrl>,
    /// What they know.
    pub secret_url: DownloadUrl,
    /// Between two downloads.
    pub every: Duration,
    /// Between a first and a second look at something new.
    pub confirm_after: Duration,
}

const CONFIG_URL: &str = "https://core.telegram.org/getProxyConfig";
const CONFIG_URL_V6: &str = "https://core.telegram.org/getProxyConfigV6";
const SECRET_URL: &str = "https://core.telegram.org/getProxySecret";

/// Once a day, as Telegram advises.
const REFRESH_HOURS_DEFAULT: u64 = 24;
/// Longer than a roll-out over the servers behind one name takes, and nobody waits for it.
const CONFIRM_SECONDS_DEFAULT: u64 = 600;

/// Least and most of [`MiddleProxySettings::client_buffer_bytes`]. The longest packet, 1 044 480 bytes, must fit. The
/// most is what the official proxy allows, an eighth of its memory for each client.
pub(super) const CLIENT_BUFFER_BYTES_MIN: u64 = 1 << 20;
pub(super) const CLIENT_BUFFER_BYTES_MAX: u64 = 32 << 20;
/// A client keeps about four parts of a file, of at most 1 MiB, on their way to it; what is behind by more is not
/// listening any more.
const CLIENT_BUFFER_BYTES_DEFAULT: usize = 4 << 20;

/// Least and most of [`MiddleProxySettings::buffer_bytes`]: some clients' whole share, and more than hosts have.
pub(super) const BUFFER_BYTES_MIN: u64 = 16 << 20;
pub(super) const BUFFER_BYTES_MAX: u64 = 1 << 40;
/// What the official proxy has for each of its processes.
const BUFFER_BYTES_DEFAULT: usize = 256 << 20;

/// Long enough that a busy link is never asked, short enough that clients still wait for a link that has stalled.
const PING_SECONDS_DEFAULT: u64 = 10;

impl Default for RefreshSettings {
    fn default() -> Self {
        let url = |text: &str| text.parse().expect("the built-in URLs are ones");
        Self {
            config_url: url(CONFIG_URL),
            config_url_v6: Some(url(CONFIG_URL_V6)),
            secret_url: url(SECRET_URL),
            every: Duration::from_secs(REFRESH_HOURS_DEFAULT * 3600),
            confirm_after: Duration::from_secs(CONFIRM_SECONDS_DEFAULT),
        }
    }
}

/// Where something may be downloaded: over HTTPS, or from this very host over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadUrl(String);

impl DownloadUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DownloadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DownloadUrl {
    type Err = String;

    /// Only what [`is_loopback`] is taken without TLS: a secret and addresses that anybody on the way could replace
    /// would lead all clients to him.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected one such as https://core.telegram.org/getProxyConfig";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("found {text:?}, which is no URL; {EXPECTED}"));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(format!("found a URL with a user's name in it; {EXPECTED}"));
        }
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        if authority.is_empty() || !text.chars().all(is_plain) || text.contains('#') {
            return Err(format!("found {text:?}, which is no URL; {EXPECTED}"));
        }
        match scheme {
            "https" => {}
            "http" if is_loopback(authority) => {}
            "http" => {
                return Err(format!(
                    "found {text:?}, which anybody on the way could answer; expected https://, or http:// to an \
                    address of this host such as 127.0.0.1"
                ));
            }
            _ => return Err(format!("found the scheme {scheme:?}; {EXPECTED}")),
        }
        Ok(Self(text.to_owned()))
    }
}

/// True if the host of `authority` is a loopback address. A name is not: it may resolve to anything.
fn is_loopback(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some("80"))),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("80")),
        },
    };
    let loops = host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || authority.starts_with('[') && host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
    loops && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Fills in the defaults of what was written; `None` if that does not ask for middle proxies. `usual_family` is the
/// one for data centres.
pub(super) fn settle(
    written: DraftMiddleProxies,
    usual_family: PreferIp,
    complaints: &mut Complaints,
) -> Option<MiddleProxySettings> {
    let has_url =
        written.config_url.is_some() || written.config_url_v6.is_some() || written.secret_url.is_some();
    // Whoever writes a URL wants it read; whoever gives files keeps them himself.
    let refreshes = written.refresh.as_ref().map_or(has_url, |refresh| refresh.value);
    let misses_files = written.config.is_none() && written.secret.is_none();
    let tag_or_nat = written
        .proxy_tag
        .as_ref()
        .map(|tag| (&tag.place, "a proxy tag"))
        .or(written.nat.as_ref().and_then(|rules| Some((&rules.first()?.place, "an address translation"))));
    if let (true, false, Some((place, what))) = (misses_files, refreshes, tag_or_nat) {
        complaints.push(Complaint::at(
            place.clone(),
            format!(
                "found {what} without middle proxies; expected a way to them, the only ones who see it; give \
                --middle-proxy-config and --middle-proxy-secret, or refresh = true under [middle_proxies]"
            ),
        ));
    }
    let files = files(written.config, written.secret, complaints);
    let refresh = refreshes.then(|| {
        let usual = RefreshSettings::default();
        RefreshSettings {
            // A deployment with a source of its own does not ask Telegram for the rest.
            config_url_v6: match (&written.config_url, written.config_url_v6) {
                (_, Some(url)) => Some(url),
                (Some(_), None) => None,
                (None, None) => usual.config_url_v6,
            },
            config_url: written.config_url.unwrap_or(usual.config_url),
            secret_url: written.secret_url.unwrap_or(usual.secret_url),
            every: written.refresh_every.unwrap_or(usual.every),
            confirm_after: written.confirm_after.unwrap_or(usual.confirm_after),
        }
    });
    let nat = nat_rules(written.nat.unwrap_or_default(), complaints);
    (files.is_some() || refresh.is_some()).then(|| MiddleProxySettings {
        files,
        refresh,
        proxy_tag: written.proxy_tag.map(|tag| tag.value),
        nat,
        prefer_ip: written.prefer_ip.unwrap_or(usual_family),
        client_buffer_bytes: written.client_buffer_bytes.unwrap_or(CLIENT_BUFFER_BYTES_DEFAULT),
        buffer_bytes: written.buffer_bytes.unwrap_or(BUFFER_BYTES_DEFAULT),
        ping: written.ping.unwrap_or(Duration::from_secs(PING_SECONDS_DEFAULT)),
    })
}

fn files(
    config: Option<Placed<PathBuf>>,
    secret: Option<Placed<PathBuf>>,
    complaints: &mut Complaints,
) -> Option<MiddleProxyFiles> {
    let incomplete = |place: Place, found: &str, missing: &str, option: &str, key: &str, source: &str| {
        Complaint::at(
            place,
            format!(
                "found {found} without {missing}; expected both, which belong together; give {option} FILE, or {key} \
                under [middle_proxies]: {source} has the file"
            ),
        )
    };
    match (config, secret) {
        (Some(config), Some(secret)) => Some(MiddleProxyFiles { config: config.value, secret: secret.value }),
        (Some(config), None) => {
            complaints.push(incomplete(
                config.place,
                "a file of middle proxies",
                "the secret that they know",
                "--middle-proxy-secret",
                "secret",
                SECRET_URL,
            ));
            None
        }
        (None, Some(secret)) => {
            complaints.push(incomplete(
                secret.place,
                "the middle proxies' secret",
                "the file that says where they are",
                "--middle-proxy-config",
                "config",
                CONFIG_URL,
            ));
            None
        }
        (None, None) => None,
    }
}

/// Rules as the engine has them. The first of too many, and one for an address that has a rule already, are
/// complained of.
fn nat_rules(written: Vec<Placed<NatRule>>, complaints: &mut Complaints) -> NatRules {
    let mut rules = NatRules::default();
    for Placed { value, place } in written {
        if let Err(error) = rules.add(value) {
            complaints.push(Complaint::at(place, error.to_string()));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::super::{Host, build, config_file};
    use super::*;
    use crate::settings::RunArgs;
    use std::path::Path;

    fn refused(text: &str) -> String {
        text.parse::<DownloadUrl>().unwrap_err()
    }

    #[test]
    fn the_worlds_urls_need_tls_and_those_of_this_host_do_not() {
        for good in [
            CONFIG_URL,
            "https://mirror.example:8443/a?b=c",
            "http://127.0.0.1:8080/config",
            "http://127.9.9.9/config",
            "http://[::1]:80/config",
            "http://[::1]",
        ] {
            assert_eq!(good.parse::<DownloadUrl>().unwrap().as_str(), good);
        }
        for bad in [
            "http://core.telegram.org/getProxyConfig",
            "http://localhost/",
            "http://127.0.0.1.example/",
            "http://127.0.0.1:port/",
            "http://127.0.0.1:65536/",
            "http://[::2]/",
            "http://::1/",
        ] {
            assert!(refused(bad).contains("anybody on the way"), "{bad}: {}", refused(bad));
        }
    }

    #[test]
    fn what_is_no_url_is_said_to_be_none() {
        for bad in [
            "",
            "core.telegram.org",
            "https://",
            "https:///path",
            "https://a b/",
            "https://a/#x",
            "https://a/\n",
        ] {
            assert!(refused(bad).contains("which is no URL; expected one such as https://"), "{bad}");
        }
        assert!(refused("ftp://a/").contains("found the scheme \"ftp\""));
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_repeating_it() {
        let message = refused("https://user:hunter2@mirror.example/");
        assert!(message.contains("a user's name") && !message.contains("hunter2"), "{message}");
        // An at sign behind the host is part of the path.
        assert!("https://mirror.example/@x".parse::<DownloadUrl>().is_ok());
    }

    const FILES: &str = "config = \"/m.conf\"\nsecret = \"/m.secret\"\n";

    fn settled(args: &RunArgs, section: &str) -> Result<Option<MiddleProxySettings>, String> {
        let text = format!("[middle_proxies]\n{section}");
        let file = config_file::parse(Path::new("f.toml"), &text).map_err(|error| error.to_string())?;
        let draft = Draft::from_command_line(args).over(file.draft);
        let settings = build::settle(draft, &Host::for_tests()).map_err(|error| error.to_string())?;
        Ok(settings.middle_proxies)
    }

    fn from_file(section: &str) -> Option<MiddleProxySettings> {
        settled(&RunArgs::default(), section).unwrap()
    }

    #[test]
    fn files_or_downloads_turn_middle_proxies_on_and_nothing_else_does() {
        assert_eq!(from_file("ping_seconds = 3\nclient_buffer_bytes = 1048576\n"), None);
        assert_eq!(from_file("refresh = false\nconfig_url = \"https://a/\"\n"), None);
        let files = from_file(FILES).unwrap();
        assert_eq!((files.files.unwrap().config, files.refresh), (PathBuf::from("/m.conf"), None));
        let downloads = from_file("refresh = true\n").unwrap();
        assert_eq!((downloads.files, downloads.refresh), (None, Some(RefreshSettings::default())));
        let both = from_file(&format!("{FILES}refresh = true\nrefresh_hours = 2\n")).unwrap();
        assert!(both.files.is_some() && both.refresh.unwrap().every == Duration::from_secs(7200));
    }

    #[test]
    fn whoever_writes_a_url_wants_it_read_and_no_other_of_the_same_kind() {
        let refresh = from_file("config_url = \"https://a/\"\n").unwrap().refresh.unwrap();
        assert_eq!(refresh.config_url.as_str(), "https://a/");
        assert_eq!(refresh.config_url_v6, None);
        assert_eq!(refresh.secret_url.as_str(), SECRET_URL);
        let refresh = from_file("secret_url = \"https://a/\"\n").unwrap().refresh.unwrap();
        assert_eq!(refresh.config_url_v6.unwrap().as_str(), CONFIG_URL_V6);
    }

    #[test]
    fn one_file_without_the_other_is_reported_where_it_stands() {
        let message = settled(&RunArgs::default(), "config = \"/m.conf\"\n").unwrap_err();
        assert!(
            message.starts_with("error: f.toml:2: found a file of middle proxies without the secret")
                && message.contains("expected both")
                && message.contains("--middle-proxy-secret FILE"),
            "{message}"
        );
        let args = RunArgs { middle_proxy_secret: Some("m".into()), ..RunArgs::default() };
        for section in ["", FILES] {
            let message = settled(&args, section).unwrap_err();
            assert!(
                message.starts_with("error: --middle-proxy-secret: found the middle proxies' secret without")
                    && message.contains("--middle-proxy-config FILE"),
                "{message}"
            );
        }
    }

    #[test]
    fn the_command_line_replaces_both_files_and_the_rest_stays() {
        let args = RunArgs {
            middle_proxy_config: Some("a".into()),
            middle_proxy_secret: Some("b".into()),
            proxy_tag: Some("ffffffffffffffffffffffffffffffff".parse().unwrap()),
            nat_info: vec!["10.0.0.9:192.0.2.9".parse().unwrap()],
            ..RunArgs::default()
        };
        let section =
            format!("{FILES}nat = [\"10.0.0.1:192.0.2.1\"]\nping_seconds = 7\nprefer_ip = \"v6\"\n");
        let settings = settled(&args, &section).unwrap().unwrap();
        assert_eq!(settings.files, Some(MiddleProxyFiles { config: "a".into(), secret: "b".into() }));
        assert_eq!(settings.proxy_tag, args.proxy_tag);
        let global = |ip: &str| settings.nat.global(ip.parse().unwrap()).to_string();
        assert_eq!((global("10.0.0.9"), global("10.0.0.1")), ("192.0.2.9".to_owned(), "10.0.0.1".to_owned()));
        assert_eq!((settings.ping.as_secs(), settings.prefer_ip), (7, PreferIp::V6));
    }

    #[test]
    fn a_tag_or_a_translation_without_middle_proxies_is_reported() {
        let tag = "proxy_tag = \"00112233445566778899aabbccddeeff\"\n";
        for (section, found) in
            [(tag, "a proxy tag"), ("nat = [\"10.0.0.1:192.0.2.1\"]\n", "an address translation")]
        {
            let message = settled(&RunArgs::default(), section).unwrap_err();
            assert!(
                message.starts_with(&format!("error: f.toml:2: found {found} without middle proxies")),
                "{message}"
            );
            assert!(settled(&RunArgs::default(), &format!("{section}{FILES}")).is_ok());
        }
    }

    #[test]
    fn the_family_is_that_of_data_centres_unless_it_is_given() {
        let prefer_ip = |text: &str| {
            let file = config_file::parse(Path::new("f"), text).unwrap();
            build::settle(file.draft, &Host::for_tests()).unwrap().middle_proxies.unwrap().prefer_ip
        };
        assert_eq!(prefer_ip("[middle_proxies]\nrefresh = true\n[dc]\nprefer_ip = \"v6\""), PreferIp::V6);
        assert_eq!(prefer_ip("[middle_proxies]\nrefresh = true\n"), PreferIp::V4);
    }

    #[test]
    fn buffers_hold_at_least_the_longest_packet() {
        let parses = |section: &str| settled(&RunArgs::default(), section).is_ok();
        assert!(parses("client_buffer_bytes = 1048576") && !parses("client_buffer_bytes = 1048575"));
        assert!(parses("client_buffer_bytes = 33554432") && !parses("client_buffer_bytes = 33554433"));
        assert!(parses("buffer_bytes = 16777216") && !parses("buffer_bytes = 16777215"));
        assert!(parses("ping_seconds = 600") && !parses("ping_seconds = 601") && !parses("ping_seconds = 0"));
    }

    #[test]
    fn at_most_sixteen_addresses_are_translated() {
        let nat = |rules: u32| {
            let rules: String = (0..rules).map(|n| format!("\"10.0.0.{n}:192.0.2.{n}\",\n")).collect();
            settled(&RunArgs::default(), &format!("{FILES}nat = [\n{rules}]\n"))
        };
        assert!(nat(16).is_ok());
        let message = nat(17).unwrap_err();
        assert!(message.starts_with("error: f.toml:21: ") && message.contains("16"), "{message}");
    }

    #[test]
    fn check_says_what_the_section_means() {
        let secrets =
            "[[secrets]]\nname = \"me\"\ndirect = true\nsecret = \"dd00112233445566778899aabbccddeeff\"\n";
        let explained = |section: &str| {
            let text = format!("{secrets}[middle_proxies]\n{section}");
            super::super::check_text(Path::new("f.toml"), &text, &Host::for_tests()).unwrap()
        };
        let (off, files, downloads) = (explained(""), explained(FILES), explained("refresh = true\n"));
        for (text, line) in [
            (&off, "middle_proxies.config               default    go straight to the data centres"),
            (&off, "me (dd clients only)"),
            (
                &files,
                "middle_proxies.secret               line 7     read what they know from /m.secret, again",
            ),
            (&files, "me (dd clients only; straight to the data centres)"),
            (&files, "middle_proxies.refresh              default    leave the files to you"),
            (
                &downloads,
                "download IPv6 addresses of middle proxies from https://core.telegram.org/getProxyConfigV6",
            ),
            (&downloads, "look for newer files about every 24 hours"),
            (&downloads, "keep a generated secret and the files of middle proxies in"),
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
