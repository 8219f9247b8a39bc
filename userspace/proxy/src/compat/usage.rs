//! What is printed for a command line that is not understood.

use std::fmt::Write as _;

use super::options::{Argument, OPTIONS, UsageError};

/// The error, and all options.
pub(super) fn text(program: &str, error: &UsageError) -> String {
    let mut text = String::new();
    if *error != UsageError::Help {
        let _ = writeln!(text, "{error}");
    }
    let _ = writeln!(
        text,
        "usage: {program} [options] FILE\n\nServes Telegram clients through the middle proxies that FILE, proxy-multi.conf, \
         names; understands the official proxy's options.\n"
    );
    for spec in OPTIONS {
        let short = spec.short.map_or_else(String::new, |letter| format!("-{letter}, "));
        let argument = match spec.argument {
            Argument::No => "",
            Argument::Required => " ARG",
            Argument::Optional => "[=N]",
        };
        let name = format!("--{}{argument}", spec.long);
        let _ = writeln!(text, "  {short:>4}{name:<32} {}", spec.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_there_and_what_was_wrong_comes_first() {
        let text = text("mtproto-proxy", &UsageError::Wrong("found nonsense".to_owned()));
        assert!(text.starts_with("found nonsense\nusage: mtproto-proxy [options] FILE"), "{text}");
        assert!(OPTIONS.iter().all(|spec| text.contains(spec.long) && text.contains(spec.help)));
    }
}
