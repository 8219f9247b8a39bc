//! The command line: a contract that scripts, units and the tests of others rely on.
//!
//! It only reads words into a [`Cli`]; defaults and the configuration file are the business of
//! `settings`, which also has the options of `mtproxy run`.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use mtproxy_core::secret::DomainName;

use crate::capture::CaptureArgs;
use crate::doctor::DoctorArgs;
use crate::nic::NicCommand;
use crate::settings::RunArgs;
use crate::settings::values::SecretText;
use crate::top::TopArgs;

/// A Telegram MTProto proxy.
#[derive(Debug, Parser)]
#[command(name = "mtproxy", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the proxy in the foreground until SIGTERM or SIGINT
    Run(Box<RunArgs>),
    /// Prints a new secret
    Secret(SecretArgs),
    /// Prints the links and the QR code that configure a client
    Link(LinkArgs),
    /// Validates a configuration file and says what it means on this host
    Check(CheckArgs),
    /// Says what keeps the proxy from working well here, the worst first; exits with 1 if something is broken
    Doctor(Box<DoctorArgs>),
    /// Looks at a network card and its host, and sets them up for AF_XDP
    #[command(subcommand)]
    Nic(NicCommand),
    /// Writes the packets of the AF_XDP datapath to a pcapng file; tcpdump cannot see them
    Capture(CaptureArgs),
    /// Shows what a running proxy does now, thread by thread and queue by queue
    Top(TopArgs),
    /// Understands the official proxy's command line; so does a link to this program named mtproto-proxy
    #[command(disable_help_flag = true)]
    Compat(CompatArgs),
}

/// Options of `mtproxy secret`.
#[derive(Debug, Args)]
pub struct SecretArgs {
    /// Make a fake-TLS secret whose clients greet this site
    #[arg(long, value_name = "HOST")]
    pub domain: Option<DomainName>,
}

/// Options of `mtproxy link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Host name or address under which clients reach the proxy
    #[arg(long, value_name = "HOST")]
    pub server: String,

    /// Port under which clients reach the proxy
    #[arg(long, value_name = "N")]
    pub port: NonZeroU16,

    /// The client's secret, or @FILE that holds it
    #[arg(long, value_name = "SECRET")]
    pub secret: SecretText,
}

/// Options of `mtproxy compat`: those of the official proxy.
#[derive(Debug, Args)]
pub struct CompatArgs {
    /// As for mtproto-proxy; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub words: Vec<String>,
}

/// Options of `mtproxy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::{Datapath, LogFormat};
    use crate::settings::xdp::XdpMode;
    use clap::CommandFactory;
    use mtproxy_core::dc::DcId;

    fn run(words: &str) -> Result<RunArgs, String> {
        let words = ["mtproxy", "run"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Run(args) => Ok(*args),
            _ => unreachable!("the word was run"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_the_contract_is_read() {
        let args = run("--config f.toml --listen 0.0.0.0:443 --listen [::]:443 --secret aa --secret bb \
             --domain a.example --domain b.example=127.0.0.1:8443 --dc 2=127.0.0.1:1 \
             --dc -4=1.2.3.4:443 --dc 2=127.0.0.1:2 \
             --middle-proxy-config m.conf --middle-proxy-secret m.secret \
             --proxy-tag 00112233445566778899aabbccddeeff --nat-info 10.0.0.1:192.0.2.1 --nat-info 10.0.0.2:192.0.2.2 \
             --datapath epoll --interface eth0 --xdp-mode zero-copy --trust-partial-checksums --workers 3 --metrics 127.0.0.1:9090 --user nobody \
             --log debug --log-format json")
        .unwrap();
        assert_eq!(args.listen.len(), 2);
        assert_eq!(args.secret.iter().map(SecretText::reveal).collect::<Vec<_>>(), ["aa", "bb"]);
        assert_eq!(args.domain[1].address, Some("127.0.0.1:8443".parse().unwrap()));
        assert_eq!(args.dc.iter().map(|dc| dc.id).collect::<Vec<_>>(), [DcId(2), DcId(-4), DcId(2)]);
        assert_eq!(args.middle_proxy_config, Some("m.conf".into()));
        assert_eq!(args.middle_proxy_secret, Some("m.secret".into()));
        assert_eq!((args.proxy_tag.is_some(), args.nat_info.len()), (true, 2));
        assert_eq!(args.datapath, Some(Datapath::Epoll));
        assert_eq!((args.xdp_mode, args.trust_partial_checksums), (Some(XdpMode::ZeroCopy), true));
        assert_eq!(args.workers.map(NonZeroU16::get), Some(3));
        assert_eq!(args.log_format, Some(LogFormat::Json));
        assert_eq!(args.log.unwrap().to_string(), "debug");
    }

    #[test]
    fn a_negative_data_centre_may_also_stand_behind_an_equals_sign() {
        assert_eq!(run("--dc=-203=127.0.0.1:1").unwrap().dc[0].id, DcId(-203));
    }

    #[test]
    fn wrong_values_are_answered_with_the_option_and_what_was_expected() {
        for (words, expected) in [
            ("--listen 443", "--listen <ADDR:PORT>"),
            ("--listen 443", "expected an IP address and a port"),
            ("--dc 2", "expected ID=ADDR:PORT"),
            ("--workers 0", "--workers <N>"),
            ("--datapath ebpf", "epoll"),
            ("--xdp-mode zero_copy", "zero-copy"),
            ("--proxy-tag 0011", "--proxy-tag <HEX32>"),
            ("--nat-info 10.0.0.1", "--nat-info <LOCAL:GLOBAL>"),
            ("--log inof", "did you mean \"info\"?"),
            ("--lisen 0.0.0.0:443", "--listen"),
        ] {
            let message = run(words).unwrap_err();
            assert!(message.contains(expected), "{words}: {message}");
        }
    }

    #[test]
    fn a_secret_is_not_judged_here_and_not_shown_by_debug() {
        let args = run("--secret 00112233445566778899aabbccddeefg").unwrap();
        assert!(!format!("{args:?}").contains("0011"));
    }

    #[test]
    fn the_other_commands_insist_on_what_they_need() {
        let parses = |words: &str| Cli::try_parse_from(words.split(' ')).is_ok();
        assert!(parses("mtproxy secret") && parses("mtproxy secret --domain example.com"));
        assert!(parses("mtproxy link --server h --port 65535 --secret s"));
        assert!(!parses("mtproxy link --server h --port 0 --secret s"));
        assert!(!parses("mtproxy link --server h --secret s"));
        assert!(parses("mtproxy check --config f") && !parses("mtproxy check"));
        assert!(!parses("mtproxy") && !parses("mtproxy run extra"));
    }
}
