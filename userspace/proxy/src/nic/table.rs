//! What `mtproxy nic` shows, as text.

use std::fmt::Write as _;

use mtproxy_nic::Facts;
use mtproxy_nic::apply::{Restored, Step, Undoing};
use mtproxy_nic::finding::{Finding, State};

use crate::columns::{self, Align};

/// Where the lines below a finding begin.
const INDENT: usize = 11;

/// All interfaces: a line each.
pub(super) fn interfaces(all: &[Facts]) -> String {
    let mut rows =
        vec![["interface", "kind", "driver", "queues", "XDP by its own account"].map(str::to_owned)];
    rows.extend(all.iter().map(|facts| {
        let link = &facts.link;
        let kind = match (&link.controller, &link.kind) {
            (Some(controller), _) => format!("port of {}", controller.name),
            (None, Some(kind)) => kind.clone(),
            (None, None) if link.name == "lo" => "loopback".to_owned(),
            (None, None) => "device".to_owned(),
        };
        let xdp = match &facts.xdp {
            Ok(xdp) if xdp.has_zero_copy => "native, zero-copy",
            Ok(xdp) if xdp.is_native && xdp.redirects => "native, copying",
            Ok(_) => "generic only",
            Err(_) => "?",
        };
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        [
            link.name.clone(),
            kind,
            or_unknown(facts.driver.as_ref().ok().cloned()),
            or_unknown(facts.receive_queues.as_ref().ok().map(u32::to_string)),
            xdp.to_owned(),
        ]
    }));
    aligned(&rows)
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    columns::aligned(rows, Align::Left).iter().map(|line| line.to_owned() + "\n").collect()
}

/// What the stages say: a line each, and more where something is to be done.
pub(super) fn findings(interface: &str, findings: &[Finding], width: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { stage, found, wanted, why, sureness, state } = finding;
        let _ = write!(text, "{:8} {stage:15} {found}", state.name());
        if found != wanted && !matches!(state, State::Absent | State::Unknown(_)) {
            let _ = write!(text, "; wanted: {wanted}");
        }
        text.push('\n');
        let because = || format!("why: {why} ({})", sureness.name());
        let lines = match state {
            State::Fine | State::Absent => Vec::new(),
            State::Unknown(reason) => vec![format!("why: {reason}")],
            State::Advice(how) | State::Blocked(how) => vec![because(), format!("do: {how}")],
            State::Change(changes) => {
                let commands = changes.iter().map(|change| format!("do: {}", change.command(interface)));
                std::iter::once(because()).chain(commands).collect()
            }
        };
        for line in lines {
            push_wrapped(&mut text, &line, width);
        }
    }
    let count = |is_it: fn(&State) -> bool| findings.iter().filter(|finding| is_it(&finding.state)).count();
    let _ = writeln!(
        text,
        "\n{} to change with `mtproxy nic apply {interface}`, {} to do by hand, {} in the way of AF_XDP, {} unknown",
        count(|state| matches!(state, State::Change(_))),
        count(|state| matches!(state, State::Advice(_))),
        count(|state| matches!(state, State::Blocked(_))),
        count(|state| matches!(state, State::Unknown(_))),
    );
    text
}

/// The line, indented and broken at spaces.
fn push_wrapped(text: &mut String, line: &str, width: usize) {
    let mut column = 0;
    for word in line.split(' ') {
        let len = word.chars().count();
        if column == 0 || column + 1 + len > width.saturating_sub(INDENT) {
            if column > 0 {
                text.push('\n');
            }
            // What is continued stands a little further in.
            let indent = if column == 0 { INDENT - 2 } else { INDENT };
            text.extend(std::iter::repeat_n(' ', indent));
            column = len;
        } else {
            text.push(' ');
            column += 1 + len;
        }
        text.push_str(word);
    }
    text.push('\n');
}

/// The changes, with the commands that do the same.
pub(super) fn plan(interface: &str, findings: &[Finding]) -> String {
    let mut rows = vec![["stage", "knob", "from", "to", "the same by hand"].map(str::to_owned)];
    for finding in findings {
        rows.extend(finding.changes().iter().map(|change| {
            let command = change.command(interface);
            [
                finding.stage.to_owned(),
                change.knob.to_string(),
                short(&change.from),
                short(&change.to),
                command,
            ]
        }));
    }
    match rows.len() {
        1 => format!("{interface}: nothing to change\n"),
        _ => {
            aligned(&rows)
                + "\nAfter each change the host is looked at anew: what follows may come out differently.\n"
        }
    }
}

/// A table of 128 queues says nothing to a reader.
fn short(value: &str) -> String {
    const LEN_MAX: usize = 24;
    match value.char_indices().nth(LEN_MAX) {
        None if value.is_empty() => "(empty)".to_owned(),
        None => value.to_owned(),
        Some((end, _)) => format!("{}…", &value[..end]),
    }
}

/// One change that was made or refused.
pub(super) fn step(interface: &str, step: &Step) -> String {
    let command = step.change.command(interface);
    match &step.outcome {
        Ok(now) => format!(
            "made     {:15} {command}  (was {}, is {})\n",
            step.stage,
            short(&step.change.from),
            short(now)
        ),
        Err(why) => format!("refused  {:15} {command}  ({why})\n", step.stage),
    }
}

/// What undoing has done.
pub(super) fn restored(all: &[Restored]) -> String {
    let mut text = String::new();
    for Restored { knob, old, outcome } in all {
        let old = short(old);
        let _ = match outcome {
            Undoing::Restored => writeln!(text, "restored  {knob}  to {old}"),
            Undoing::WasThatAlready => writeln!(text, "unchanged {knob}  {old}"),
            Undoing::LeftToOthers(now) => {
                writeln!(text, "LEFT      {knob}  somebody else made it {}; it was {old}", short(now))
            }
            Undoing::Failed(why) => writeln!(text, "FAILED    {knob}  to {old}: {why}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_nic::finding::Sureness;
    use mtproxy_nic::knob::{Change, Knob};

    fn finding(state: State) -> Finding {
        Finding {
            stage: "rings",
            found: "256 of 4096".to_owned(),
            wanted: "2048".to_owned(),
            why: "a short ring loses bursts",
            sureness: Sureness::RuleOfThumb,
            state,
        }
    }

    fn change() -> State {
        State::Change(vec![Change { knob: Knob::ReceiveRing, from: "256".to_owned(), to: "2048".to_owned() }])
    }

    #[test]
    fn what_is_fine_takes_a_line_and_what_is_not_says_why_and_what_to_do() {
        let fine = Finding { found: "2048".to_owned(), ..finding(State::Fine) };
        let text = findings("eth0", &[fine, finding(change())], 100);
        let expected = "fine     rings           2048\n\
            change   rings           256 of 4096; wanted: 2048\n         \
            why: a short ring loses bursts (rule of thumb)\n         \
            do: ethtool -G eth0 rx 2048\n\n\
            1 to change with `mtproxy nic apply eth0`, 0 to do by hand, 0 in the way of AF_XDP, 0 unknown\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "word ".repeat(60);
        let text = findings("eth0", &[finding(State::Blocked(long))], 60);
        assert!(text.lines().take(8).all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(text.matches("word").count(), 60);
    }

    #[test]
    fn a_plan_is_a_table_or_says_that_there_is_nothing() {
        assert_eq!(plan("eth0", &[finding(State::Fine)]), "eth0: nothing to change\n");
        let text = plan("eth0", &[finding(change())]);
        assert!(text.contains("rings  rings:rx  256   2048  ethtool -G eth0 rx 2048\n"), "{text}");
    }
}
