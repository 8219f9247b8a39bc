//! Applying and undoing on hosts that are made up, killed at every moment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::facts::Unreadable;
use crate::stages::made_up;
use crate::survey::{ChannelCounts, Feature, Napi, Rings};
use crate::sysctl::PortRange;

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const DEFER: &str = "/sys/class/net/eth0/napi_defer_hard_irqs";
const TIMEOUT: &str = "/sys/class/net/eth0/gro_flush_timeout";
const QUEUES_MAX: u32 = 16;

/// A host in memory. It dies at the write of that number, before or after it took effect.
#[derive(Clone)]
struct Pretended {
    knobs: BTreeMap<Knob, String>,
    refuses: Option<Knob>,
    writes_left: usize,
    dies_before_effect: bool,
}

fn file(path: &str) -> Knob {
    Knob::File(path.to_owned())
}

fn lro() -> Knob {
    Knob::Feature("rx-lro".to_owned())
}

impl Pretended {
    fn new(queues: u32, ring: u32, lro_is_on: bool, reserved: &str, defer: u32) -> Self {
        let table = even_table(queues);
        let knobs = [
            (Knob::CombinedChannels, queues.to_string()),
            (Knob::ReceiveRing, ring.to_string()),
            (Knob::RssTable, table),
            (lro(), if lro_is_on { "on" } else { "off" }.to_owned()),
            (file(RESERVED), reserved.to_owned()),
            (file(DEFER), defer.to_string()),
            (file(TIMEOUT), "0".to_owned()),
        ];
        Self { knobs: knobs.into(), refuses: None, writes_left: usize::MAX, dies_before_effect: false }
    }

    fn number<T: std::str::FromStr>(&self, knob: &Knob) -> T {
        self.knobs[knob].parse().unwrap_or_else(|_| panic!("{knob} is a number"))
    }
}

fn even_table(queues: u32) -> String {
    (0..queues).cycle().take(32).map(|queue| queue.to_string()).collect::<Vec<_>>().join(" ")
}

impl Host for Pretended {
    fn survey(&mut self) -> io::Result<Survey> {
        let mut survey = made_up::server();
        let queues = self.number(&Knob::CombinedChannels);
        survey.channels = Ok(Some(ChannelCounts { combined: queues, combined_max: QUEUES_MAX }));
        survey.facts.receive_queues = Ok(queues);
        survey.rings = Ok(Some(Rings { receive: self.number(&Knob::ReceiveRing), receive_max: 4096 }));
        let table = self.knobs[&Knob::RssTable].split(' ').map(|queue| queue.parse().unwrap()).collect();
        survey.facts.rss.as_mut().unwrap().as_mut().unwrap().table = table;
        let feature =
            Feature { name: "rx-lro".to_owned(), is_on: self.knobs[&lro()] == "on", is_fixed: false };
        survey.features = Ok(vec![feature]);
        survey.facts.ephemeral_ports = Ok(PortRange { first: 1024, last: 65535 });
        let ranges = self.knobs[&file(RESERVED)].split(',').filter(|range| !range.is_empty());
        let range = |(first, last): (&str, &str)| PortRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        };
        survey.facts.reserved_ports =
            Ok(ranges.map(|text| range(text.split_once('-').unwrap_or((text, text)))).collect());
        let napi = Napi {
            defer_hard_irqs: self.number(&file(DEFER)),
            gro_flush_timeout_ns: self.number(&file(TIMEOUT)),
            is_threaded: Some(false),
        };
        survey.napi = Ok(napi);
        survey.interrupts = Err(Unreadable("none here".to_owned()));
        Ok(survey)
    }

    fn read(&mut self, knob: &Knob) -> io::Result<String> {
        self.knobs.get(knob).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, knob: &Knob, value: &str) -> io::Result<()> {
        if self.refuses.as_ref() == Some(knob) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let is_last = self.writes_left == 0;
        self.writes_left = self.writes_left.saturating_sub(1);
        assert!(!(is_last && self.dies_before_effect), "killed");
        self.knobs.insert(knob.clone(), value.to_owned());
        if *knob == Knob::CombinedChannels {
            // As drivers do.
            self.knobs.insert(Knob::RssTable, even_table(value.parse().unwrap()));
        }
        assert!(!is_last, "killed");
        Ok(())
    }
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-apply-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.0, "boot").unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn goals() -> Goals {
    Goals { busy_poll: true, ..made_up::goals() }
}

#[test]
fn every_change_is_made_and_afterwards_nothing_is_left_to_change() {
    let place = Place::new("every");
    let mut host = Pretended::new(2, 256, true, "", 0);
    let mut steps = Vec::new();
    apply(&mut host, &goals(), &mut place.journal(), &mut |step| steps.push(step.clone())).unwrap();
    let stages: Vec<&str> = steps.iter().map(|step| step.stage).collect();
    assert_eq!(stages, ["channels", "rings", "merging", "napi", "napi", "ports"]);
    assert!(steps.iter().all(|step| step.outcome.is_ok()), "{steps:?}");
    let left: Vec<Finding> = examine(&host.survey().unwrap(), &goals())
        .into_iter()
        .filter(|it| !it.changes().is_empty())
        .collect();
    assert_eq!(left, []);
}

#[test]
fn a_knob_that_is_refused_costs_nothing_but_itself() {
    let place = Place::new("refused");
    let mut host = Pretended { refuses: Some(Knob::ReceiveRing), ..Pretended::new(2, 256, true, "", 0) };
    let before = host.knobs.clone();
    let mut refused = Vec::new();
    let report = &mut |step: &Step| refused.extend(step.outcome.is_err().then_some(step.stage));
    apply(&mut host, &goals(), &mut place.journal(), report).unwrap();
    assert_eq!(refused, ["rings"]);
    assert_eq!(host.knobs[&lro()], "off");
    let restored = undo(&mut host, place.journal().entries(), false);
    assert!(restored.iter().all(|it| it.outcome.is_done()), "{restored:?}");
    assert_eq!(host.knobs, before);
}

#[test]
fn what_somebody_else_has_turned_since_is_left_to_them_unless_forced() {
    let place = Place::new("else");
    let mut host = Pretended::new(8, 256, false, "", 2);
    apply(&mut host, &goals(), &mut place.journal(), &mut |_| ()).unwrap();
    host.knobs.insert(Knob::ReceiveRing, "4096".to_owned());
    let restored = undo(&mut host, place.journal().entries(), false);
    let ring = restored.iter().find(|it| it.knob == Knob::ReceiveRing).unwrap();
    assert_eq!(ring.outcome, Undoing::LeftToOthers("4096".to_owned()));
    assert_eq!(host.knobs[&file(RESERVED)], "", "and everything else is as it was");
    let _ = undo(&mut host, place.journal().entries(), true);
    assert_eq!(host.knobs[&Knob::ReceiveRing], "256");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_host_is_what_it_was_after_undo_wherever_apply_was_killed_and_however_often_it_ran(
        (queues, ring) in (1..=QUEUES_MAX, 64_u32..4096),
        lro_is_on: bool,
        reserved in prop_oneof![Just(""), Just("8080"), Just("61000-65535")],
        defer in 0_u32..4,
        crash in 0_usize..9,
        dies_before_effect: bool,
        runs in 1..3,
    ) {
        let place = Place::new("killed");
        let _ = std::fs::remove_file(&place.0);
        let mut host = Pretended::new(queues, ring, lro_is_on, reserved, defer);
        let before = host.knobs.clone();
        for _ in 0..runs {
            (host.writes_left, host.dies_before_effect) = (crash, dies_before_effect);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _ = apply(&mut host, &goals(), &mut place.journal(), &mut |_| ());
            }));
            // Few hosts need as many changes; then nobody is killed.
            drop(outcome);
        }
        host.writes_left = usize::MAX;
        let journal = place.journal();
        let restored = undo(&mut host, journal.entries(), false);
        prop_assert!(restored.iter().all(|it| it.outcome.is_done()), "{:?}", restored);
        prop_assert_eq!(&host.knobs, &before);
        // And once more is no harm.
        let again = undo(&mut host, journal.entries(), false);
        prop_assert!(again.iter().all(|it| it.outcome == Undoing::WasThatAlready));
    }
}
