//! What the client asks the server for: one line of words.

use std::time::Duration;

use super::Selection;

/// The first word: of another version, neither end would understand the rest.
const VERSION: &str = "mtproxy-capture/1";
/// Longest line, its end included.
pub(super) const LINE_BYTES_MAX: usize = 256;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) selection: Selection,
    /// The capture ends by itself after so many packets.
    pub(super) packets: Option<u64>,
    /// Or after this time.
    pub(super) time: Option<Duration>,
}

impl Request {
    /// The line, without its end.
    pub(super) fn line(&self) -> String {
        let Selection { payload_bytes, one_in, address, port } = self.selection;
        let mut line = format!("{VERSION} payload={payload_bytes} one_in={one_in}");
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        };
        add("address", address.map(|it| it.to_string()));
        add("port", port.map(|it| it.to_string()));
        add("packets", self.packets.map(|it| it.to_string()));
        add("milliseconds", self.time.map(|it| it.as_millis().to_string()));
        line
    }

    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(VERSION) {
            return Err(format!(
                "found another version of mtproxy capture than this proxy's; expected {VERSION}"
            ));
        }
        let mut request = Self { selection: Selection::default(), packets: None, time: None };
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| unknown(word))?;
            let selection = &mut request.selection;
            match key {
                "payload" => selection.payload_bytes = number(word, value)?,
                "one_in" => selection.one_in = number(word, value)?,
                "address" => selection.address = Some(value.parse()?),
                "port" => selection.port = Some(number(word, value)?),
                "packets" => request.packets = Some(number(word, value)?),
                "milliseconds" => request.time = Some(Duration::from_millis(number(word, value)?)),
                _ => return Err(unknown(word)),
            }
        }
        if request.selection.one_in == 0 {
            return Err("found one connection in 0; expected 1 or more".to_owned());
        }
        Ok(request)
    }
}

fn number<T: std::str::FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| unknown(word))
}

fn unknown(word: &str) -> String {
    format!("found {word:?} in a request to capture; expected what `mtproxy capture` of this version asks")
}
