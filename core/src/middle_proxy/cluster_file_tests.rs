//! What a file of middle proxies may hold, and what is said of one that holds something else.

use super::*;
use proptest::prelude::*;

fn error(text: &str) -> (usize, usize, String) {
    let error = parse(text.as_bytes()).unwrap_err();
    (error.line, error.column, error.message)
}

fn ids(file: &ClusterFile) -> Vec<(i16, usize)> {
    file.clusters.iter().map(|cluster| (cluster.id, cluster.targets.len())).collect()
}

#[test]
fn a_file_as_telegram_gives_it_is_read() {
    let text = "# force_probability 10 10\ndefault 2;\nproxy_for 1 149.154.175.50:8888;\n\
                proxy_for -1 149.154.175.50:8888;\nproxy_for 4 91.108.4.174:8888;\nproxy_for 4 91.108.4.205:8888;\n\
                proxy_for 203 [2001:b28:f23d:f003::d]:8888;\n";
    let file = parse(text.as_bytes()).unwrap();
    assert_eq!((file.default, ids(&file)), (2, vec![(1, 1), (-1, 1), (4, 2), (203, 1)]));
    let expected = TargetEntry {
        host: Host::Ip("2001:b28:f23d:f003::d".parse().unwrap()),
        port: 8888,
        min_connections: 4,
        max_connections: 8,
    };
    assert_eq!(file.clusters[3].targets, [expected]);
}

#[test]
fn limits_hold_for_the_lines_behind_them() {
    let text = "proxy a.example:1; max_connections 20; min_connections 10; proxy b-b_b.example:2;";
    let file = parse(text.as_bytes()).unwrap();
    let targets = &file.clusters[0].targets;
    assert_eq!((targets[0].min_connections, targets[0].max_connections), (4, 8));
    assert_eq!((targets[1].min_connections, targets[1].max_connections), (10, 20));
    assert_eq!(targets[1].host, Host::Name("b-b_b.example".to_owned()));
}

#[test]
fn words_need_no_blank_behind_them_where_the_official_proxy_needs_none() {
    let file = parse(b"default2;timeout 10;proxy\t192.0.2.1:1 # last\n;").unwrap();
    assert_eq!((file.default, ids(&file)), (2, vec![(0, 1)]));
}

#[test]
fn a_default_that_is_no_cluster_is_taken() {
    assert_eq!(parse(b"default 9;proxy_for 2 192.0.2.1:1;").unwrap().default, 9);
}

#[test]
fn errors_say_where_what_and_what_instead() {
    for (text, line, column, words) in [
        ("", 1, 1, "found no proxy at all"),
        ("default 2;", 1, 11, "found no proxy at all"),
        ("proxy_for 1 192.0.2.1:1", 1, 24, "found the end of the file; expected \";\""),
        ("proxy_for 1 192.0.2.1:1\nproxy_for 2 192.0.2.1:1;", 2, 1, "expected \";\""),
        ("\n  proxi 192.0.2.1:1;", 2, 3, "found \"proxi\"; expected default"),
        ("proxy_for1 192.0.2.1:1;", 1, 10, "expected a blank"),
        ("proxy_for x 192.0.2.1:1;", 1, 11, "found \"x\"; expected a data centre"),
        ("proxy_for 32768 192.0.2.1:1;", 1, 11, "from -32768 to 32767"),
        ("proxy 192.0.2.1;", 1, 16, "expected \":\" and a port"),
        ("proxy 192.0.2.1:0;", 1, 17, "from 1 to 65535"),
        ("proxy 192.0.2.1:65536;", 1, 17, "from 1 to 65535"),
        ("proxy [2001:db8::x]:1;", 1, 7, "IPv6 address in brackets"),
        ("proxy [2001:db8::1:1;", 1, 7, "IPv6 address in brackets"),
        ("proxy :1;", 1, 7, "expected a host"),
        ("timeout 9;", 1, 9, "from 10 to 30000"),
        ("timeout 30001;", 1, 9, "from 10 to 30000"),
        ("min_connections 9;", 1, 17, "from 1 to 8"),
        ("max_connections 3;", 1, 17, "from 4 to 1000"),
        ("max_connections 1001;", 1, 17, "from 4 to 1000"),
        ("proxy_for 1 a:1; proxy_for 2 a:1; proxy_for 1 a:1;", 1, 35, "data centre 1 for the second time"),
        ("proxy a:\u{1};", 1, 9, "the byte 0x01"),
    ] {
        let (at_line, at_column, message) = error(text);
        assert_eq!((at_line, at_column), (line, column), "{text:?}: {message}");
        assert!(message.contains(words), "{text:?}: {message}");
    }
}

#[test]
fn the_ends_of_every_range_are_taken() {
    for text in [
        "timeout 10; timeout 30000; proxy a:1; proxy a:65535;",
        "min_connections 1; max_connections 1000; min_connections 1000; proxy a:1;",
        "proxy_for -32768 a:1; proxy_for 32767 a:1;",
    ] {
        assert!(parse(text.as_bytes()).is_ok(), "{text}");
    }
    let longest = format!("proxy {}:1;", "a".repeat(63));
    assert!(parse(longest.as_bytes()).is_ok());
    assert!(error(&format!("proxy {}:1;", "a".repeat(64))).2.contains("at most 63 characters"));
}

#[test]
fn so_many_clusters_and_targets_and_not_one_more() {
    let clusters = |count: usize| (0..count).map(|id| format!("proxy_for {id} a:1;")).collect::<String>();
    assert!(parse(clusters(CLUSTERS_MAX).as_bytes()).is_ok());
    assert!(error(&clusters(CLUSTERS_MAX + 1)).2.contains("more than 1024 data centres"));
    assert!(parse("proxy a:1;".repeat(TARGETS_MAX).as_bytes()).is_ok());
    assert!(error(&"proxy a:1;".repeat(TARGETS_MAX + 1)).2.contains("more than 4096 proxies"));
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text: Vec<u8>) {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_like_a_file_makes_it_panic(text in "(proxy_for|proxy|default|[ :;#\\[\\]0-9a-z.\n-]){0,40}") {
        if let Err(error) = parse(text.as_bytes()) {
            prop_assert!(error.line >= 1 && error.column >= 1 && error.message.contains("expected"));
        }
    }
}
