//! The official proxy's command line, exit codes, signals and statistics: `mtproto-proxy …` as its users have it in their
//! units, or `mtproxy compat …`.
//!
//! ```text
//!   words ─► options ─► translate ─► RunArgs with a Compat ─► run::serve
//!                                        │
//!            stats_port ◄── stats ◄──────┘ the local port, and its page
//! ```
//! It only translates: everything that happens afterwards is the proxy's. docs/compat.md has the table of all options, and
//! what is different on purpose.

pub mod options;
pub mod stats;
pub mod stats_port;
mod translate;
mod usage;

use std::process::ExitCode;

use crate::run;

/// Exit code of the official proxy for a command line that it does not understand.
const EXIT_USAGE: u8 = 2;

/// True if the program was called by the official proxy's name.
#[must_use]
pub fn is_its_name(program: &str) -> bool {
    program.rsplit('/').next() == Some("mtproto-proxy")
}

/// Does what the official proxy would do for these words.
#[must_use]
pub fn main(program: &str, words: &[String]) -> ExitCode {
    let translated = options::parse(words).and_then(|parsed| translate::translate(&parsed));
    match translated {
        Ok(args) => run::serve(&args).unwrap_or_else(|complaints| {
            eprint!("{complaints}");
            ExitCode::FAILURE
        }),
        Err(error) => {
            print!("{}", usage::text(program, &error));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_of_the_programs_name_counts() {
        assert!(is_its_name("mtproto-proxy") && is_its_name("/opt/bin/mtproto-proxy"));
        assert!(!is_its_name("mtproxy") && !is_its_name("/mtproto-proxy/mtproxy"));
    }
}
