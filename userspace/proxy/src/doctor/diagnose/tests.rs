//! Patients that are made up: a healthy one, and one for each disease.

use std::time::Duration;

use mtproxy_core::dc::DcId;

use super::super::facts::Tls;
use super::*;
use crate::complaint::{Complaint, Complaints};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

fn healthy() -> Facts {
    let probe = |dc: i16, address: &str| Probe {
        dc: DcId(dc),
        address: address.parse().unwrap(),
        outcome: Ok(Duration::from_millis(40)),
    };
    let tls = Tls {
        is_1_3: true,
        key_exchange: "X25519".to_owned(),
        certificate_bytes: 2900,
        certificate: Ok(()),
        clock_ahead_seconds: Some(0),
    };
    Facts {
        settings: Ok(Settings {
            connections: 1000,
            descriptors_wanted: 2100,
            has_domains: true,
            ..Settings::default()
        }),
        datapath: Ok(Choice::Epoll { reason: "as configured".to_owned() }),
        card: None,
        listening: vec![("0.0.0.0:443".parse().unwrap(), Port::Free)],
        descriptors: 20_000,
        network: Some(Network {
            sources: [Some(HERE), None],
            data_centres: vec![probe(1, "192.0.2.1:443"), probe(2, "192.0.2.2:443")],
            fronts: vec![Front {
                domain: "www.example.com".to_owned(),
                addresses: Ok(vec!["203.0.113.5:443".parse().unwrap()]),
                published: Ok(vec![HERE]),
                tls: Ok(tls),
            }],
        }),
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    diagnose(&facts)
}

fn with_settings(change: impl FnOnce(&mut Settings)) -> Vec<Finding> {
    with(|facts| change(facts.settings.as_mut().unwrap()))
}

fn with_network(change: impl FnOnce(&mut Network)) -> Vec<Finding> {
    with(|facts| change(facts.network.as_mut().unwrap()))
}

fn with_tls(change: impl FnOnce(&mut Tls)) -> Vec<Finding> {
    with_network(|network| change(network.fronts[0].tls.as_mut().unwrap()))
}

#[track_caller]
fn has(findings: &[Finding], severity: Severity, words: &str) {
    let found = findings.iter().any(|it| it.severity == severity && it.sentence.contains(words));
    assert!(found, "no {} finding says {words:?}: {findings:#?}", severity.name());
}

/// Nothing worse than a note.
#[track_caller]
fn is_well(findings: &[Finding]) {
    assert!(findings.iter().all(|it| it.severity >= Severity::Note), "{findings:#?}");
}

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    let findings = diagnose(&healthy());
    is_well(&findings);
    has(&findings, Severity::Good, "2 of 2 data centres answer over IPv4, half of them within 40 ms");
    has(&findings, Severity::Good, "www.example.com leads to this host");
}

#[test]
fn the_worst_comes_first() {
    let findings = with(|facts| {
        facts.listening[0].1 = Port::Forbidden;
        facts.descriptors = 1;
    });
    let severities: Vec<Severity> = findings.iter().map(|it| it.severity).collect();
    assert!(severities.is_sorted(), "{severities:?}");
    assert_eq!(severities[..2], [Severity::Broken, Severity::Risky]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_all_there_is_to_say() {
    let findings = with(|facts| {
        facts.settings = Err(Complaints::from(Complaint::about_host("found nonsense; expected sense")));
    });
    assert_eq!(findings.len(), 1);
    has(&findings, Severity::Broken, "found nonsense");
}

#[test]
fn ports_are_free_taken_forbidden_or_elsewhere() {
    let of = |port| with(|facts| facts.listening[0].1 = port);
    is_well(&of(Port::Free));
    has(&of(Port::Taken), Severity::Risky, "somebody listens on 0.0.0.0:443");
    has(&of(Port::Forbidden), Severity::Broken, "may not listen");
    has(&of(Port::NotOurs), Severity::Broken, "no address of this host");
}

#[test]
fn open_files_must_be_enough() {
    is_well(&with(|facts| facts.descriptors = 2100));
    has(&with(|facts| facts.descriptors = 2099), Severity::Risky, "2100 open files, and 2099 are allowed");
}

#[test]
fn secrets_are_not_shown_and_their_weaknesses_are() {
    has(&with_settings(|it| it.has_secret_on_command_line = true), Severity::Risky, "on the command line");
    has(
        &with_settings(|it| it.recognisable_secrets = vec!["amy".to_owned()]),
        Severity::Note,
        "clients of amy",
    );
    has(&with_settings(|it| it.has_domains = false), Severity::Note, "no site to hide behind");
}

#[test]
fn data_centres_that_do_not_answer_are_one_address_a_family_or_the_network() {
    let silence = || Err("timed out".to_owned());
    let one = with_network(|network| network.data_centres[1].outcome = silence());
    has(&one, Severity::Risky, "do not answer over IPv4: 2 at 192.0.2.2:443");
    has(&one, Severity::Good, "1 of 2 data centres");
    let all = with_network(|network| network.data_centres.iter_mut().for_each(|it| it.outcome = silence()));
    has(&all, Severity::Broken, "no data centre can be reached");
    has(&all, Severity::Risky, "no data centre answers over IPv4, though there is a route (timed out)");
    let v6 = Probe { dc: DcId(1), address: "[2001:db8::1]:443".parse().unwrap(), outcome: silence() };
    let without_v6 = with_network(|network| network.data_centres.push(v6.clone()));
    is_well(&without_v6);
    has(&without_v6, Severity::Note, "no way to the Internet over IPv6");
    let with_broken_v6 = with_network(|network| {
        network.data_centres.push(v6);
        network.sources[1] = Some("2001:db8::7".parse().unwrap());
    });
    has(&with_broken_v6, Severity::Risky, "no data centre answers over IPv6, though there is a route");
}

#[test]
fn a_front_must_be_found_and_speak_tls_1_3_with_a_certificate_that_browsers_believe() {
    let unresolved = with_network(|network| network.fronts[0].addresses = Err("no answer".to_owned()));
    has(&unresolved, Severity::Broken, "www.example.com has no address here (no answer)");
    let silent = with_network(|network| network.fronts[0].tls = Err("connection refused".to_owned()));
    has(&silent, Severity::Broken, "speaks no TLS with us (connection refused)");
    has(&with_tls(|tls| tls.is_1_3 = false), Severity::Risky, "TLS 1.2 at the most");
    has(&with_tls(|tls| tls.certificate = Err("expired".to_owned())), Severity::Risky, "(expired)");
}

#[test]
fn a_name_that_leads_elsewhere_is_pointed_out_where_our_address_is_known() {
    let elsewhere =
        |network: &mut Network| network.fronts[0].published = Ok(vec!["203.0.113.9".parse().unwrap()]);
    has(&with_network(elsewhere), Severity::Risky, "leads to 203.0.113.9, and not to this host");
    let behind_nat = with_network(|network| {
        elsewhere(network);
        network.sources[0] = Some("192.168.1.2".parse().unwrap());
    });
    is_well(&behind_nat);
    has(&behind_nat, Severity::Note, "behind NAT");
}

#[test]
fn the_clock_may_be_two_seconds_behind_and_five_minutes_ahead() {
    for (ahead, is_right) in [(-2, true), (-3, false), (300, true), (301, false)] {
        let findings = with_tls(|tls| tls.clock_ahead_seconds = Some(ahead));
        let refused = findings.iter().any(|it| it.sentence.contains("fake-TLS clients are refused"));
        assert_eq!(refused, !is_right, "{ahead}");
    }
}

#[test]
fn middle_proxies_want_a_better_clock_and_a_rule_about_nat() {
    let through_links = |ahead: i64, source: &str, has_nat_rules| {
        let source = source.parse().unwrap();
        with(move |facts| {
            let settings = facts.settings.as_mut().unwrap();
            (settings.has_middle_proxies, settings.has_nat_rules) = (true, has_nat_rules);
            let network = facts.network.as_mut().unwrap();
            network.sources[0] = Some(source);
            network.fronts[0].published = Ok(vec![source]);
            network.fronts[0].tls.as_mut().unwrap().clock_ahead_seconds = Some(ahead);
        })
    };
    is_well(&through_links(29, "198.51.100.7", false));
    has(&through_links(30, "198.51.100.7", false), Severity::Broken, "middle proxies refuse us");
    has(&through_links(0, "10.0.0.2", false), Severity::Broken, "not what middle proxies see");
    is_well(&through_links(0, "10.0.0.2", true));
    // RFC 6598.
    has(&through_links(0, "100.64.0.1", false), Severity::Broken, "not what middle proxies see");
    is_well(&through_links(0, "100.128.0.1", true));
}

#[test]
fn a_card_that_could_be_better_is_a_note() {
    let card = Card { interface: "eth0".to_owned(), changes: 2, blocked: vec!["name eth1".to_owned()] };
    let findings = with(|facts| facts.card = Some(card));
    is_well(&findings);
    has(&findings, Severity::Note, "eth0 could be set up better in 2 ways");
    has(&findings, Severity::Note, "eth0 is no place for AF_XDP");
}
