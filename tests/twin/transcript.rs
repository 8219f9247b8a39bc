//! What a peer has heard, in lines that can be compared.

use std::fmt::Write as _;

use mtproxy_tests::pattern;
use sha2::{Digest, Sha256};

use crate::script::Told;

/// Bytes shown as they are; more are shown by their hash.
const SHOWN_MAX: usize = 80;
/// Width of one side of a comparison.
const COLUMN: usize = 74;

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Rst,
}

/// Bytes in order, kept as what is told of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Where the pattern begins that the other side speaks.
    base: u64,
    pub(crate) len: u64,
    hash: Sha256,
    first: Vec<u8>,
    first_difference: Option<u64>,
    pub(crate) ends: Vec<End>,
}

impl Heard {
    pub(crate) fn of_pattern_from(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let at = self.base + self.len;
        self.first_difference = self.first_difference.or_else(|| pattern::first_difference(at, bytes));
        self.hash.update(bytes);
        self.first.extend(bytes.iter().take(SHOWN_MAX - self.first.len()));
        self.len += bytes.len() as u64;
    }

    pub(crate) fn told(&self) -> Told {
        match self.ends[..] {
            [] => Told::Nothing,
            [End::Fin] => Told::Fin,
            [End::Rst] => Told::Rst,
            _ => Told::FinThenRst,
        }
    }

    pub(crate) fn is_pattern(&self) -> bool {
        self.first_difference.is_none()
    }

    /// The bytes in a line; without their number if how many there are is nobody's promise.
    pub(crate) fn describe(&self, is_cut_short: bool) -> String {
        match self.first_difference {
            None if is_cut_short => "a beginning of the pattern".to_owned(),
            None => format!("{} bytes of the pattern", self.len),
            Some(_) if self.len as usize <= SHOWN_MAX => format!("\"{}\"", self.first.escape_ascii()),
            Some(_) => {
                let hash =
                    self.hash.clone().finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
                        let _ = write!(hex, "{byte:02x}");
                        hex
                    });
                format!("{} bytes, SHA-256 {hash}.. \"{}..", self.len, self.first[..16].escape_ascii())
            }
        }
    }
}

/// Both transcripts side by side, the first line that differs marked. `None` if they are the same.
pub(crate) fn difference(names: [&str; 2], sides: [&[String]; 2]) -> Option<String> {
    if sides[0] == sides[1] {
        return None;
    }
    let lines = sides[0].len().max(sides[1].len());
    let line = |side: usize, index: usize| sides[side].get(index).map_or("", String::as_str);
    let first = (0..lines).find(|&index| line(0, index) != line(1, index));
    let mut text = format!("  {:COLUMN$} | {}\n", names[0], names[1]);
    for index in 0..lines {
        let mark = if first == Some(index) { '>' } else { ' ' };
        let _ = writeln!(text, "{mark} {:COLUMN$} | {}", line(0, index), line(1, index));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_both_sides_and_marks_the_first_line_that_differs() {
        let lines = |ends: &[&str]| ends.iter().map(|&end| end.to_owned()).collect::<Vec<_>>();
        let (one, other) = (lines(&["10 bytes", "FIN", "RST"]), lines(&["10 bytes", "RST"]));
        assert_eq!(difference(["one", "other"], [&one, &one.clone()]), None);
        let text = difference(["one", "other"], [&one, &other]).expect("they differ");
        let marked: Vec<&str> = text.lines().filter(|line| line.starts_with('>')).collect();
        assert!(marked.len() == 1 && marked[0].contains("FIN") && marked[0].ends_with("| RST"), "{text}");
        let longer = difference(["one", "other"], [&one[..2], &one]).expect("one line is missing");
        assert!(longer.lines().any(|line| line.starts_with('>') && line.ends_with("| RST")), "{longer}");
    }

    #[test]
    fn a_byte_that_is_lost_or_changed_shows() {
        let whole = pattern::bytes(40, 1000);
        let heard = |pieces: &[&[u8]]| {
            let mut heard = Heard::of_pattern_from(40);
            pieces.iter().for_each(|piece| heard.hear(piece));
            heard.describe(false)
        };
        assert_eq!(heard(&[&whole[..7], &whole[7..]]), "1000 bytes of the pattern");
        assert!(heard(&[&whole[..7], &whole[8..]]).contains("SHA-256"));
        assert_eq!(heard(&[b"GET /"]), "\"GET /\"");
    }
}
