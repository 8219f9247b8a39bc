//! The configuration file. It is the operator's, so it is not hostile; but its mistakes go into a log, and
//! must be told without what may be a secret.

use std::num::NonZeroUsize;
use std::path::Path;

use mtproxy_bin::settings::{Host, check_text};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::script::{Script, verbatim};

const EXAMPLE: &str = include_str!("../../docs/mtproxy.example.toml");
const KEY_HEX: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

fn good() -> Vec<Vec<u8>> {
    // The example with its commented-out keys in force.
    let full: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|key| !key.starts_with([' ', '#'])).unwrap_or(line))
        .collect();
    let full = full.join("\n").replace("@/etc/mtproxy/family.secret", KEY_HEX);
    let secrets = format!(
        "[[secrets]]\nname = \"a\"\nsecret = \"dd{KEY_HEX}\"\n\
        [[secrets]]\nsecret = \"ee{KEY_HEX}612e6578616d706c65\"\n[dc.addresses]\n-4 = [\"[::1]:1\"]\n"
    );
    [EXAMPLE.to_owned(), full, secrets, String::new()].map(String::into_bytes).to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    verbatim(&good())
}

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(&Script::new(input).text(&good())).into_owned();
    let host = Host {
        is_root: false,
        may_use_port_443: false,
        has_ipv6: true,
        cores: NonZeroUsize::MIN,
        state_directory: None,
        xdg_state_home: None,
        home: Some("/home/operator".into()),
    };
    let said = match check_text(Path::new("f.toml"), &text, &host) {
        Ok(explained) => explained,
        Err(complaints) => {
            let complaints = complaints.to_string();
            assert!(complaints.lines().count() > 0 && complaints.starts_with("error: "), "{complaints:?}");
            complaints
        }
    };
    for secret in secrets_of(&text) {
        // What also stands elsewhere in the file may be told from there.
        if secret.len() >= 16 && text.matches(&secret).count() == 1 {
            assert!(!said.contains(&secret), "a secret is told:\n{said}");
        }
    }
}

/// Every value of a key that is called `secret`, unless it is the name of a file.
fn secrets_of(text: &str) -> Vec<String> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let Some(DeValue::Array(tables)) = document.get_ref().get("secrets").map(Spanned::get_ref) else {
        return Vec::new();
    };
    let secret = |table: &Spanned<DeValue<'_>>| {
        let value = table.get_ref().as_table()?.get("secret")?.get_ref().as_str()?;
        (!value.starts_with('@')).then(|| value.to_owned())
    };
    tables.iter().filter_map(secret).collect()
}
