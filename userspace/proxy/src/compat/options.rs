//! The official proxy's words: GNU long and short options before, behind and between what is no option.
//!
//! A long option has its argument behind `=` or in the next word; one whose argument is optional only behind `=`. Short
//! options may be written together; the first that takes an argument takes the rest. `--` ends all options.

use std::fmt;

/// Whether an option has an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None.
    No,
    /// Always.
    Required,
    /// Only in the long form, behind `=`.
    Optional,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Behind two dashes.
    pub long: &'static str,
    /// Behind one.
    pub short: Option<char>,
    /// Whether it has an argument.
    pub argument: Argument,
    /// What it does, for people.
    pub help: &'static str,
}

const fn spec(long: &'static str, short: Option<char>, argument: Argument, help: &'static str) -> Spec {
    Spec { long, short, argument, help }
}

use Argument::{No, Optional, Required};

/// Every option of the official proxy, release lines 0.01 and 0.02.
pub const OPTIONS: &[Spec] = &[
    spec("help", Some('h'), No, "print this, and end with 2"),
    spec("verbosity", Some('v'), Optional, "say more; each -v one step more"),
    spec("user", Some('u'), Required, "user to become when started as root (mtproxy)"),
    spec("log", Some('l'), Required, "file for the log, opened with -d and on SIGUSR1"),
    spec("daemonize", Some('d'), Optional, "leave the terminal; does not fork"),
    spec("nice", None, Required, "priority of the process"),
    spec("msg-buffers-size", None, Required, "bytes that may wait in a process: n, or n with k, m, g or t"),
    spec("aes-pwd", None, Required, "the file proxy-secret"),
    spec("port", Some('p'), Required, "local port for statistics, or a range A:B"),
    spec("http-stats", None, No, "serve /stats on the local port"),
    spec("http-ports", Some('H'), Required, "ports for clients, with commas between them"),
    spec("ipv6", Some('6'), No, "serve clients over IPv6, too"),
    spec("address", None, Required, "IPv4 address for clients"),
    spec("nat-info", None, Required, "LOCAL:GLOBAL, how an address of this host looks from outside"),
    spec("mtproto-secret", Some('S'), Required, "secret of 32 hexadecimal digits; repeatable"),
    spec("proxy-tag", Some('P'), Required, "tag of 32 hexadecimal digits from @MTProxybot"),
    spec("domain", Some('D'), Required, "site behind which to hide; repeatable"),
    spec("max-special-connections", Some('C'), Required, "most clients in a worker; 0 for no limit"),
    spec("window-clamp", Some('W'), Required, "no effect: windows follow what is relayed"),
    spec("slaves", Some('M'), Required, "workers, 0 to 256"),
    spec("ping-interval", Some('T'), Required, "seconds of silence after which a link is asked"),
    spec("connections", Some('c'), Required, "most connections"),
    spec("backlog", Some('b'), Required, "no effect: always as long as the kernel allows"),
    spec("disable-tcp", None, No, "no local port"),
    spec("crc32c", None, No, "no effect: always offered"),
    spec("allow-skip-dh", None, No, "no effect: nobody connects to us with RPC"),
    spec("force-dh", None, No, "no effect, as ever"),
    spec(
        "max-accept-rate",
        None,
        Required,
        "no effect: floods are held off in the kernel and by --syn limits",
    ),
    spec("max-dh-accept-rate", None, Required, "no effect: nobody connects to us with RPC"),
    spec("multithread", None, Optional, "no effect: workers are threads"),
    spec("tcp-cpu-threads", None, Required, "no effect: workers are threads"),
    spec("tcp-iothreads", None, Required, "no effect: workers are threads"),
    spec("cpu-threads", None, Required, "no effect: workers are threads"),
    spec("io-threads", None, Required, "no effect: workers are threads"),
];

/// An option that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its long name.
    pub name: &'static str,
    /// Its argument.
    pub argument: Option<String>,
}

/// A command line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The options in order.
    pub options: Vec<Given>,
    /// Everything else in order.
    pub others: Vec<String>,
}

/// Why a command line is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Help was asked for.
    Help,
    /// What was found, and what was expected.
    Wrong(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => Ok(()),
            Self::Wrong(message) => f.write_str(message),
        }
    }
}

/// Takes a command line apart.
///
/// # Errors
/// For an option that there is not, and for one without its argument or with one that it does not have.
pub fn parse(words: &[String]) -> Result<Parsed, UsageError> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.others.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            parsed.options.push(long_option(long, &mut words)?);
        } else if word.len() > 1 && word.starts_with('-') {
            short_options(&word[1..], &mut words, &mut parsed.options)?;
        } else {
            parsed.others.push(word.clone());
        }
    }
    if parsed.options.iter().any(|option| option.name == "help") {
        return Err(UsageError::Help);
    }
    Ok(parsed)
}

fn long_option<'a>(word: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<Given, UsageError> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let spec = OPTIONS.iter().find(|spec| spec.long == name);
    let spec = spec.ok_or_else(|| UsageError::Wrong(format!("found the unknown option --{name}")))?;
    let argument = match (spec.argument, value) {
        (No, Some(_)) => {
            return Err(UsageError::Wrong(format!("found an argument for --{name}; expected none")));
        }
        (Required, None) => Some(next_word(&format!("--{name}"), rest)?),
        (_, value) => value,
    };
    Ok(Given { name: spec.long, argument })
}

fn short_options<'a>(
    letters: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    options: &mut Vec<Given>,
) -> Result<(), UsageError> {
    for (at, letter) in letters.char_indices() {
        let spec = OPTIONS.iter().find(|spec| spec.short == Some(letter));
        let spec = spec.ok_or_else(|| UsageError::Wrong(format!("found the unknown option -{letter}")))?;
        if spec.argument != Required {
            options.push(Given { name: spec.long, argument: None });
            continue;
        }
        let attached = &letters[at + letter.len_utf8()..];
        let argument =
            if attached.is_empty() { next_word(&format!("-{letter}"), rest)? } else { attached.to_owned() };
        options.push(Given { name: spec.long, argument: Some(argument) });
        break;
    }
    Ok(())
}

fn next_word<'a>(option: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<String, UsageError> {
    let missing = || UsageError::Wrong(format!("found {option} without its argument"));
    rest.next().cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn parsed(line: &str) -> Result<Parsed, UsageError> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn given(line: &str) -> Vec<(&'static str, Option<String>)> {
        parsed(line).unwrap().options.into_iter().map(|option| (option.name, option.argument)).collect()
    }

    #[test]
    fn names_are_used_once() {
        let longs: HashSet<_> = OPTIONS.iter().map(|spec| spec.long).collect();
        let shorts: HashSet<_> = OPTIONS.iter().filter_map(|spec| spec.short).collect();
        assert_eq!(longs.len(), OPTIONS.len());
        assert_eq!(shorts.len(), OPTIONS.iter().filter(|spec| spec.short.is_some()).count());
    }

    #[test]
    fn arguments_stand_behind_equals_signs_in_the_next_word_or_attached() {
        let port = |text: &str| vec![("port", Some(text.to_owned()))];
        for line in ["--port 8888", "--port=8888", "-p 8888", "-p8888"] {
            assert_eq!(given(line), port("8888"), "{line}");
        }
        assert_eq!(given("--port="), port(""));
    }

    #[test]
    fn an_optional_argument_is_taken_only_behind_an_equals_sign() {
        assert_eq!(given("--verbosity=3"), [("verbosity", Some("3".to_owned()))]);
        let line = parsed("--verbosity 3 -v3").unwrap_err();
        assert_eq!(line, UsageError::Wrong("found the unknown option -3".to_owned()));
        assert_eq!(parsed("-v 3").unwrap().others, ["3"]);
        assert_eq!(given("-vvv").len(), 3);
    }

    #[test]
    fn options_stand_anywhere_and_letters_together() {
        let all = parsed("-vd proxy.conf -M 1 --http-stats").unwrap();
        assert_eq!(all.others, ["proxy.conf"]);
        let names: Vec<_> = all.options.iter().map(|option| option.name).collect();
        assert_eq!(names, ["verbosity", "daemonize", "slaves", "http-stats"]);
        assert_eq!(given("-6dM4").last(), Some(&("slaves", Some("4".to_owned()))));
        assert_eq!(parsed("-d -- -p -x").unwrap().others, ["-p", "-x"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, words) in [
            ("--prot 1", "the unknown option --prot"),
            ("-x", "the unknown option -x"),
            ("--port", "--port without its argument"),
            ("-M", "-M without its argument"),
            ("--ipv6=1", "an argument for --ipv6; expected none"),
        ] {
            assert!(parsed(line).unwrap_err().to_string().contains(words), "{line}");
        }
        assert_eq!(parsed("-M 1 --help"), Err(UsageError::Help));
        assert_eq!(parsed("-h"), Err(UsageError::Help));
    }
}
