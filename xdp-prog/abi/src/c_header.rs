//! The C header that the steering program is compiled with, written from the definitions of this crate.

use core::fmt::{Display, Formatter, Result};

use crate::{Addr, Exit, Listener, Local, Prefix, Setting, Verdict};

/// The text of `abi.h`: `enum exit`, `enum setting`, capacities, and the layout of each struct as assertions.
#[derive(Debug, Clone, Copy)]
pub struct CHeader;

impl Display for CHeader {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "/* Written by build.rs from the crate mtproxy-xdp-abi, for steer.bpf.c alone. */")?;
        enumeration(f, "exit", Exit::ALL.iter().map(|exit| exit.name()))?;
        for (verdict, name) in [(Verdict::Drop, "DROP"), (Verdict::Redirect, "REDIRECT")] {
            let first =
                Exit::ALL.iter().position(|exit| exit.verdict() == verdict).unwrap_or(Exit::ALL.len());
            writeln!(f, "#define FIRST_{name} {first}")?;
        }
        enumeration(f, "setting", Setting::ALL.iter().map(|setting| setting.name()))?;
        for (name, value) in [
            ("QUEUES_MAX", crate::QUEUES_MAX),
            ("LOCALS_MAX", crate::LOCALS_MAX),
            ("LISTENERS_MAX", crate::LISTENERS_MAX),
            ("DENY_MAX", crate::DENY_MAX),
            ("SYN_SOURCES_MAX", crate::SYN_SOURCES_MAX),
            ("EXTENSION_HEADERS_MAX", crate::EXTENSION_HEADERS_MAX),
            ("LOCAL_DEDICATED", Local::DEDICATED),
        ] {
            writeln!(f, "#define {name} {value}")?;
        }
        writeln!(f, "#define ABI_LAYOUT(STRUCT, FIELD) \\")?;
        for (name, size, fields) in LAYOUT {
            write!(f, "\tSTRUCT({name}, {size})")?;
            for (field, offset, size) in *fields {
                write!(f, " FIELD({name}, {field}, {offset}, {size})")?;
            }
            writeln!(f, " \\")?;
        }
        writeln!(f)
    }
}

/// A struct's name and size, and each field's name, offset and size, in bytes.
type Struct = (&'static str, usize, &'static [(&'static str, usize, usize)]);

const LAYOUT: &[Struct] = &[
    ("addr", Addr::SIZE, &[]),
    ("listener", Listener::SIZE, &[("addr", 0, 16), ("port", 16, 2), ("zero", 18, 2)]),
    ("local", Local::SIZE, &[("port_lo", 0, 2), ("port_hi", 2, 2), ("flags", 4, 4)]),
    ("prefix", Prefix::SIZE, &[("bits", 0, 4), ("addr", 4, 16)]),
];

/// `enum tag { TAG_A, TAG_B, TAGS };`
fn enumeration(f: &mut Formatter<'_>, tag: &str, names: impl Iterator<Item = &'static str>) -> Result {
    writeln!(f, "enum {tag} {{")?;
    for name in names {
        write!(f, "\t")?;
        capitals(f, tag)?;
        write!(f, "_")?;
        capitals(f, name)?;
        writeln!(f, ",")?;
    }
    write!(f, "\t")?;
    capitals(f, tag)?;
    writeln!(f, "S,\n}};")
}

fn capitals(f: &mut Formatter<'_>, text: &str) -> Result {
    text.chars().try_for_each(|c| write!(f, "{}", c.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_and_settings_are_numbered_in_their_order() {
        assert!(Exit::ALL.iter().map(|exit| exit.index()).eq(0..Exit::ALL.len() as u32));
        assert!(Setting::ALL.iter().map(|setting| setting.index()).eq(0..Setting::ALL.len() as u32));
    }

    #[test]
    fn exits_are_ordered_by_verdict_because_the_program_compares() {
        assert!(Exit::ALL.is_sorted_by_key(|exit| match exit.verdict() {
            Verdict::Pass => 0,
            Verdict::Drop => 1,
            Verdict::Redirect => 2,
        }));
    }
}
