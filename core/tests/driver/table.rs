//! The table of endings in docs/session.md, as the tests hold it against what they observe.

use std::fmt::Write;

use mtproxy_core::error::DropReason;
use mtproxy_core::event::What;

use super::Told;
use super::scene::Scene;

const DOCUMENT: &str = include_str!("../../../docs/session.md");

/// One row: what the peers are told, what is reported, and the test that observes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) client_told: String,
    pub(crate) upstream_told: String,
    pub(crate) reported: String,
    pub(crate) test: String,
}

/// The rows of the table, from its heading to the first line that is none.
pub(crate) fn rows() -> Vec<Row> {
    let mut lines = DOCUMENT.lines().skip_while(|line| !line.starts_with("| phase | what happened |"));
    assert!(lines.next().is_some(), "docs/session.md has no table of endings");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(parse_row).collect()
}

fn parse_row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [_phase, _happened, client_told, upstream_told, reported, test] = cells[..] else {
        panic!("a row of {} cells: {line}", cells.len());
    };
    Row {
        client_told: client_told.to_owned(),
        upstream_told: upstream_told.to_owned(),
        reported: reported.to_owned(),
        test: test.trim_matches('`').to_owned(),
    }
}

impl Scene {
    /// What was observed is what docs/session.md says in the row of `test`.
    pub(crate) fn is_as_documented(&mut self, test: &str) {
        self.world.answer_farewells();
        let row = rows().into_iter().find(|row| row.test == test);
        let row = row.unwrap_or_else(|| panic!("docs/session.md has no row for {test}"));
        let observed = Row {
            client_told: describe(self.client_told()),
            upstream_told: describe(self.upstream_told()),
            reported: self.describe_reports(),
            test: test.to_owned(),
        };
        assert_eq!(observed, row, "observed, and documented in docs/session.md");
        if self.world.outcome().is_some() {
            self.world.assert_empty();
        }
    }

    fn describe_reports(&self) -> String {
        let mut text = String::new();
        for what in self.world.reported() {
            let (kind, why) = match what {
                What::Fronted(why) => ("fronted", why.name()),
                What::Discarding(why) => ("discarding", why.name()),
                What::Misbehaved(why) => ("misbehaved", why.name()),
                What::Ended { outcome, .. } => ("ended", outcome.map_or_else(DropReason::name, |()| "ok")),
                What::Opened
                | What::Greeted { .. }
                | What::Authenticated { .. }
                | What::DialFailed { .. }
                | What::Connected { .. } => continue,
            };
            let separator = if text.is_empty() { "" } else { ", " };
            write!(text, "{separator}{kind}: {why}").unwrap();
        }
        if text.is_empty() { "–".to_owned() } else { text }
    }
}

fn describe(told: Told) -> String {
    match told {
        Told::Absent => "–",
        Told::Dialled(1) => "dialled",
        Told::Dialled(_) => "dialled again",
        Told::Nothing => "nothing",
        Told::Fin => "FIN",
        Told::Closed => "closed",
        Told::Rst => "RST",
    }
    .to_owned()
}
