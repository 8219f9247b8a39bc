//! What this deployment is to be: settings, valid by construction.
//!
//! ```text
//! command line ─┐
//!               ├─► Draft (as written, with places) ─► Settings (complete, checked)
//! TOML file ────┘                                ▲
//!                                    Host (what defaults depend on)
//! ```
//! What the command line says replaces what the file says, option by option; a list is one option.
//! Nothing here opens a port, resolves a name or writes a file, so `mtproxy check` can use all of it.

mod build;
pub mod cidr;
mod config_file;
mod draft;
mod explain;
mod host;
pub mod middle_proxies;
mod run_args;
mod toml_section;
pub mod values;
pub mod xdp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::config::{Config, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Route, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::policy::replay::ENTRIES_DEFAULT;
use mtproxy_core::secret::Secret;

pub use build::read_secret;
pub use cidr::Cidr;
pub use host::Host;
pub use run_args::{Compat, RunArgs};

use crate::complaint::Complaints;
use crate::control::middle_proxies::LoadedMiddleProxies;
use config_file::ConfigFile;
use draft::Draft;
use middle_proxies::MiddleProxySettings;
use values::{Datapath, Domain, LogFilter, LogFormat};
use xdp::XdpSettings;

/// Everything that `mtproxy run` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to accept clients. Port 0 lets the kernel choose one.
    pub listen: Vec<SocketAddr>,
    /// Who may use the proxy, each with the name that statistics show. Empty until a generated secret
    /// was put in (see `state`).
    pub secrets: Vec<NamedSecret>,
    /// The sites behind which the proxy hides, the default one first; those of `ee` secrets included.
    pub domains: Vec<Domain>,
    /// Where the data centres are.
    pub dc: DcSettings,
    /// How clients get to the data centres through middle proxies; `None` if all of them go direct.
    pub middle_proxies: Option<MiddleProxySettings>,
    /// How bytes move.
    pub datapath: Datapath,
    /// Network interface for AF_XDP.
    pub interface: Option<String>,
    /// Threads that serve clients.
    pub workers: NonZeroUsize,
    /// Where to serve metrics and health, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// User to become once the ports are open.
    pub user: Option<String>,
    /// Where a generated secret is kept. `None` only if `secrets` came from the operator.
    pub state_dir: Option<PathBuf>,
    /// Which log lines are written.
    pub log_filter: LogFilter,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long each thing may take.
    pub timeouts: Timeouts,
    /// From SIGTERM until sessions that are still open are cut.
    pub drain: Duration,
    /// How much of each thing there may be.
    pub limits: Limits,
    /// How the AF_XDP datapath works.
    pub xdp: XdpSettings,
}

/// A secret that admits clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSecret {
    /// What statistics and logs show.
    pub name: String,
    /// What clients must know.
    pub secret: Secret,
    /// True if its clients go straight to the data centres even with middle proxies.
    pub direct: bool,
}

impl NamedSecret {
    /// As the engines want it.
    fn routed(&self) -> (String, Secret, Route) {
        let route = if self.direct { Route::Direct } else { Route::MiddleProxies };
        (self.name.clone(), self.secret.clone(), route)
    }
}

/// Where the data centres are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcSettings {
    /// Serves ids without an entry.
    pub default: DcId,
    /// Family tried first among the built-in addresses.
    pub prefer_ip: PreferIp,
    /// Entries that replace built-in ones, each in the order tried.
    pub overrides: BTreeMap<DcId, Vec<SocketAddr>>,
}

impl DcSettings {
    /// The built-in table with these changes.
    #[must_use]
    pub fn table(&self) -> DcTable {
        let mut table = DcTable::builtin(self.prefer_ip);
        for (id, addresses) in &self.overrides {
            table.set(*id, addresses.clone());
        }
        table.set_default(self.default);
        table
    }
}

impl Default for DcSettings {
    fn default() -> Self {
        // The client library's own first data centre, as in the built-in table.
        Self { default: DcId(2), prefer_ip: PreferIp::V4, overrides: BTreeMap::new() }
    }
}

/// Default of [`Settings::drain`]: what most transfers need to finish, and less than the 90 s after which
/// systemd kills.
const DRAIN_DEFAULT: Duration = Duration::from_secs(30);

/// How much of each thing there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at a time, over all workers; `None` for what the limit of open files allows.
    pub connections: Option<usize>,
    /// Bytes that may wait for a slow side before the other is no longer read.
    pub relay_window_bytes: usize,
    /// Authentic hellos remembered to recognise a replay.
    pub replay_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
            replay_entries: ENTRIES_DEFAULT,
        }
    }
}

impl Settings {
    /// The settings that the command line and the file it names describe on this host.
    ///
    /// # Errors
    /// Everything that the operator must change.
    pub fn load(args: &RunArgs, host: &Host) -> Result<Self, Complaints> {
        let file = match &args.config {
            Some(path) => config_file::read(path)?,
            None => ConfigFile::default(),
        };
        build::settle(Draft::from_command_line(args).over(file.draft), host)
    }

    /// What the engines need to know of these settings, with the fronts where they now are, and with what is known
    /// about middle proxies if these settings want them.
    #[must_use]
    pub fn engine_config(&self, fronts: Fronts, middle_proxies: Option<&LoadedMiddleProxies>) -> Config {
        let known = self.middle_proxies.as_ref().zip(middle_proxies);
        Config {
            credentials: Credentials::routed(self.secrets.iter().map(NamedSecret::routed)),
            fronts,
            dc_table: self.dc.table(),
            middle_proxies: known.map(|(settings, loaded)| Arc::new(settings.for_engines(loaded))),
            timeouts: self.timeouts,
            relay_window_bytes: self.limits.relay_window_bytes,
        }
    }

    /// Names of the settings in `newer` that differ and take effect only at a restart.
    #[must_use]
    pub fn needing_restart(&self, newer: &Self) -> Vec<&'static str> {
        let fixed = [
            ("listen", self.listen != newer.listen),
            ("datapath", self.datapath != newer.datapath),
            ("interface", self.interface != newer.interface),
            ("workers", self.workers != newer.workers),
            ("metrics", self.metrics != newer.metrics),
            ("user", self.user != newer.user),
            ("state_dir", self.state_dir != newer.state_dir),
            ("log", (&self.log_filter, self.log_format) != (&newer.log_filter, newer.log_format)),
            ("limits.connections", self.limits.connections != newer.limits.connections),
            ("limits.replay_entries", self.limits.replay_entries != newer.limits.replay_entries),
        ];
        let fixed = fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name);
        fixed.chain(self.xdp.needing_restart(&newer.xdp)).collect()
    }
}

/// Validates the file at `path` and says in words what each setting means on this host.
///
/// # Errors
/// Everything in the file that the operator must change.
pub fn check(path: &Path, host: &Host) -> Result<String, Complaints> {
    explain_file(path, config_file::read(path)?, host)
}

/// The same for a file of this content; `path` is only spoken of.
///
/// # Errors
/// As for [`check`].
pub fn check_text(path: &Path, content: &str, host: &Host) -> Result<String, Complaints> {
    explain_file(path, config_file::parse(path, content)?, host)
}

fn explain_file(path: &Path, file: ConfigFile, host: &Host) -> Result<String, Complaints> {
    let settings = build::settle(file.draft, host)?;
    Ok(explain::explain(path, &settings, &file.keys, host))
}

/// Where clients are accepted unless the operator says otherwise: every address, on the port of the
/// web if this process may use it.
fn default_listen(host: &Host) -> Vec<SocketAddr> {
    let port = if host.may_use_port_443 { 443 } else { 8443 };
    let mut addresses = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)];
    if host.has_ipv6 {
        addresses.push(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    addresses
}

/// Where a generated secret is kept unless the operator says otherwise.
fn default_state_dir(host: &Host) -> Option<PathBuf> {
    if let Some(directory) = &host.state_directory {
        return Some(directory.clone());
    }
    if host.is_root {
        return Some("/var/lib/mtproxy".into());
    }
    let user_state = host.xdg_state_home.clone().or_else(|| Some(host.home.as_ref()?.join(".local/state")));
    user_state.map(|directory| directory.join("mtproxy"))
}

#[cfg(test)]
mod tests {
    use super::xdp::{DENY_MAX, XdpMode};
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/mtproxy.example.toml");

    fn settled(args: &RunArgs, file: &str, host: &Host) -> Result<Settings, Complaints> {
        let file = config_file::parse(Path::new("f.toml"), file)?;
        build::settle(Draft::from_command_line(args).over(file.draft), host)
    }

    fn from_file(file: &str) -> Result<Settings, Complaints> {
        settled(&RunArgs::default(), file, &Host::for_tests())
    }

    /// The example with its commented-out keys in force: those without a space behind the `#`.
    fn example_in_full() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        EXAMPLE.lines().map(uncomment).collect()
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        assert_eq!(from_file(EXAMPLE).unwrap(), from_file("").unwrap());
    }

    #[test]
    fn the_example_mentions_every_key_that_exists() {
        let full = config_file::parse(Path::new("example"), &example_in_full()).unwrap();
        let unmentioned: Vec<_> = full.keys.iter().filter(|(_, line)| line.is_none()).collect();
        assert_eq!(unmentioned, []);
        assert!(full.keys.len() > 25, "keys were counted: {:?}", full.keys);
    }

    #[test]
    fn every_line_of_check_speaks_of_a_key_that_exists() {
        let full = config_file::parse(Path::new("example"), &example_in_full()).unwrap();
        let host = Host::for_tests();
        let settings = from_file("[[secrets]]\nsecret = \"dd00112233445566778899aabbccddeeff\"").unwrap();
        let text = explain::explain(Path::new("f.toml"), &settings, &full.keys, &host);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert!(lines.len() > 20 && lines.iter().all(|line| line.contains(" line ")), "{text}");
        assert!(
            text.contains("admit 1 secret: secret-1 (dd clients only)") && !text.contains("2233"),
            "{text}"
        );
    }

    #[test]
    fn the_command_line_replaces_the_files_value_and_a_list_as_a_whole() {
        let file = "listen = [\"192.0.2.1:1\", \"192.0.2.2:2\"]\nworkers = 7\n[log]\nformat = \"json\"\n\
             [dc.addresses]\n2 = [\"192.0.2.3:3\"]\n4 = [\"192.0.2.4:4\"]\n";
        let args = RunArgs {
            listen: vec!["127.0.0.1:9".parse().unwrap()],
            dc: vec!["4=127.0.0.1:4".parse().unwrap()],
            ..RunArgs::default()
        };
        let settings = settled(&args, file, &Host::for_tests()).unwrap();
        assert_eq!(settings.listen, args.listen);
        assert_eq!(settings.dc.overrides, BTreeMap::from([(DcId(4), vec!["127.0.0.1:4".parse().unwrap()])]));
        assert_eq!((settings.workers.get(), settings.log_format), (7, LogFormat::Json));
    }

    #[test]
    fn an_ee_secret_brings_its_domain_unless_that_has_an_address_already() {
        let ee = "ee00112233445566778899aabbccddeeff612e6578616d706c65"; // a.example
        let secret = format!("[[secrets]]\nsecret = \"{ee}\"\n");
        let domains = from_file(&secret).unwrap().domains;
        assert_eq!(domains, ["a.example".parse().unwrap()]);
        let with_address = format!(
            "{secret}[[domains]]\nname = \"b.example\"\n\
            [[domains]]\nname = \"a.example\"\naddress = \"127.0.0.1:8443\"\n"
        );
        let domains = from_file(&with_address).unwrap().domains;
        assert_eq!(domains, ["b.example".parse().unwrap(), "a.example=127.0.0.1:8443".parse().unwrap()]);
    }

    #[test]
    fn what_is_there_twice_is_reported_where_it_stands_again() {
        let secret = "secret = \"00112233445566778899aabbccddeeff\"\n";
        let other = "secret = \"dd00112233445566778899aabbccddeeff\"\n";
        for (file, complaint) in [
            (
                format!("[[secrets]]\nname = \"a\"\n{secret}[[secrets]]\n{secret}"),
                "f.toml:5: secret 2: found the same secret as \"a\"",
            ),
            (
                format!("[[secrets]]\nname = \"a\"\n{secret}[[secrets]]\nname = \"a\"\n{other}"),
                "f.toml:5: secret 2: found the name \"a\" for the second time",
            ),
            (
                "listen = [\"1.2.3.4:5\",\n\"1.2.3.4:5\"]".to_owned(),
                "f.toml:2: found the address 1.2.3.4:5 for the second time",
            ),
            (
                "[[domains]]\nname = \"a\"\n[[domains]]\nname = \"a\"".to_owned(),
                "f.toml:4: found the domain a for the second time",
            ),
        ] {
            let message = from_file(&file).unwrap_err().to_string();
            assert!(message.contains(complaint), "{complaint}\nnot in\n{message}");
        }
        assert!(
            from_file("listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]").is_ok(),
            "port 0 is another port each time"
        );
        assert!(
            from_file(&format!("[[secrets]]\n{secret}[[secrets]]\n{other}")).is_ok(),
            "one key in two modes"
        );
    }

    #[test]
    fn a_wrong_secret_on_the_command_line_is_counted_and_not_repeated() {
        let args = RunArgs {
            secret: vec!["00112233445566778899aabbccddeeff".parse().unwrap(), "1122334455".parse().unwrap()],
            ..RunArgs::default()
        };
        let message = settled(&args, "", &Host::for_tests()).unwrap_err().to_string();
        assert_eq!(
            message,
            "error: --secret: secret 2: found 5 bytes; expected 16 (32 hexadecimal digits)\n"
        );
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own() {
        let path = std::env::temp_dir().join(format!("mtproxy-secret-{}", std::process::id()));
        std::fs::write(&path, "dd00112233445566778899aabbccddeeff\n").unwrap();
        let args =
            RunArgs { secret: vec![format!("@{}", path.display()).parse().unwrap()], ..RunArgs::default() };
        let settings = settled(&args, "", &Host::for_tests());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(settings.unwrap().secrets[0].secret.reveal(), "dd00112233445566778899aabbccddeeff");
        let message = settled(&args, "", &Host::for_tests()).unwrap_err().to_string();
        assert!(
            message.contains("found no readable file") && message.contains("mtproxy-secret-"),
            "{message}"
        );
    }

    #[test]
    fn the_port_of_the_web_is_taken_where_it_may_be() {
        let listen = |may_use_port_443, has_ipv6| {
            let host = Host { may_use_port_443, has_ipv6, ..Host::for_tests() };
            settled(&RunArgs::default(), "", &host).unwrap().listen
        };
        assert_eq!(listen(true, true), ["0.0.0.0:443".parse().unwrap(), "[::]:443".parse().unwrap()]);
        assert_eq!(listen(false, false), ["0.0.0.0:8443".parse().unwrap()]);
    }

    #[test]
    fn the_state_directory_is_the_units_then_roots_then_the_users() {
        let base = Host { home: Some("/h".into()), ..Host::for_tests() };
        let xdg = Host { xdg_state_home: Some("/x".into()), ..base.clone() };
        let root = Host { is_root: true, ..xdg.clone() };
        let unit = Host { state_directory: Some("/u".into()), ..root.clone() };
        for (host, directory) in
            [(base, "/h/.local/state/mtproxy"), (xdg, "/x/mtproxy"), (root, "/var/lib/mtproxy"), (unit, "/u")]
        {
            assert_eq!(default_state_dir(&host), Some(directory.into()));
        }
    }

    #[test]
    fn without_a_home_a_secret_must_be_given() {
        let homeless = Host { home: None, ..Host::for_tests() };
        let message = settled(&RunArgs::default(), "", &homeless).unwrap_err().to_string();
        assert!(message.contains("HOME") && message.contains("--secret"), "{message}");
        let with_secret = "[[secrets]]\nsecret = \"00112233445566778899aabbccddeeff\"";
        assert!(settled(&RunArgs::default(), with_secret, &homeless).is_ok());
    }

    #[test]
    fn the_xdp_datapath_needs_an_interface_by_name() {
        let args = RunArgs { datapath: Some(Datapath::Xdp), ..RunArgs::default() };
        let message = settled(&args, "", &Host::for_tests()).unwrap_err().to_string();
        assert!(
            message.contains("--datapath: found the datapath xdp without the interface")
                && message.contains("expected --interface NAME"),
            "{message}"
        );
        assert!(settled(&args, "interface = \"eth0\"", &Host::for_tests()).is_ok());
    }

    #[test]
    fn the_section_of_xdp_is_filled_in_and_the_command_line_replaces_two_of_its_keys() {
        assert_eq!(from_file("[xdp]\nsyn_burst = 7").unwrap().xdp, XdpSettings::default());
        let file = "[xdp]\nmode = \"copy\"\nports = \"2000-3000\"\nsyn_per_source = 5\nsyn_burst = 7\n\
             deny = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n";
        let args =
            RunArgs { xdp_mode: Some(XdpMode::Generic), trust_partial_checksums: true, ..RunArgs::default() };
        let xdp = settled(&args, file, &Host::for_tests()).unwrap().xdp;
        assert_eq!((xdp.mode, xdp.trust_partial_checksums), (XdpMode::Generic, true));
        assert_eq!((xdp.ports.to_string(), xdp.deny.len(), xdp.frames), ("2000-3000".to_owned(), 2, 16_384));
        let limit = xdp.syn_limit.unwrap();
        assert_eq!((limit.per_second.get(), limit.burst.get()), (5, 7));
    }

    #[test]
    fn check_says_of_the_section_of_xdp_what_it_means_with_this_datapath() {
        let explained = |file: &str| check_text(Path::new("f.toml"), file, &Host::for_tests()).unwrap();
        let wanted = "interface = \"eth0\"\ndatapath = \"xdp\"\n\
             [xdp]\nframes = 4097\nsyn_per_source = 1\ntrust_partial_checksums = true\n";
        for (file, line) in [
            (
                wanted,
                "xdp.frames                          line 4     give each queue 4097 packet buffers: 9 MiB\n",
            ),
            (wanted, "take 1 SYN a second from one source\n"),
            (wanted, "corrupted: the two cannot be told apart\n"),
            ("", "with AF_XDP, give each queue 16384 packet buffers: 32 MiB\n"),
            (
                "datapath = \"epoll\"",
                "xdp.frames                          default    make no use of it: only the xdp",
            ),
        ] {
            let text = explained(file);
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn more_denied_networks_than_the_table_holds_are_refused() {
        let deny = |count| format!("[xdp]\ndeny = [{}]", "\"192.0.2.0/24\",".repeat(count));
        assert!(from_file(&deny(DENY_MAX)).is_ok());
        let message = from_file(&deny(DENY_MAX + 1)).unwrap_err().to_string();
        assert!(message.contains("f.toml:2: xdp.deny: found 65537 networks"), "{message}");
    }

    #[test]
    fn a_default_data_centre_needs_an_address() {
        let message = from_file("[dc]\ndefault = 77").unwrap_err();
        assert!(message.to_string().contains("found the default data centre 77"), "{message}");
        assert!(from_file("[dc]\ndefault = 77\n[dc.addresses]\n77 = [\"192.0.2.1:443\"]").is_ok());
    }

    #[test]
    fn a_reload_names_what_only_a_restart_changes() {
        let old = from_file("").unwrap();
        let new =
            from_file("workers = 1\nmetrics = \"127.0.0.1:1\"\n[timeouts]\nidle_seconds = 1\n").unwrap();
        assert_eq!(old.needing_restart(&new), ["workers", "metrics"]);
        assert!(old.needing_restart(&old).is_empty());
        let xdp = from_file("[xdp]\nmode = \"copy\"\npin = false\ndeny = [\"192.0.2.0/24\"]\n").unwrap();
        assert_eq!(old.needing_restart(&xdp), ["xdp.mode", "xdp.pin"]);
        let limited =
            |burst| from_file(&format!("[xdp]\nsyn_per_source = 9\nsyn_burst = {burst}\n")).unwrap();
        assert_eq!(limited(1).needing_restart(&limited(2)), ["xdp.syn_burst"]);
    }
}
