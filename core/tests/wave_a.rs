//! docs/wave_a_status.md and docs/c_to_rust_dependency_graph.md say where each decision is, who asks it, and which test shows
//! it. They are held against the sources here, so that they cannot say what is not so.

use std::path::{Path, PathBuf};

const STATUS: &str = include_str!("../../docs/wave_a_status.md");
const GRAPH: &str = include_str!("../../docs/c_to_rust_dependency_graph.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core lies in the workspace").to_owned()
}

fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backquotes in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// True if `name` stands in `text` as a word.
fn names(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}

fn rows() -> Vec<Vec<&'static str>> {
    let is_row = |line: &&str| line.starts_with("| ") && line.contains("`policy/");
    STATUS
        .lines()
        .filter(is_row)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_decision_is_there_with_its_test_and_asked_where_it_is_said_to_be() {
    assert!(rows().len() > 40, "{} rows", rows().len());
    for row in rows() {
        let [item, decision, asked, test, remark] = row[..] else { panic!("{row:?}") };
        let [file, name] = quoted(decision)[..] else { panic!("{item}: {decision}") };
        let policy = source(&format!("core/src/{file}"));
        assert!(names(&policy, name), "{item}: {file} has no {name}");
        let [test] = quoted(test)[..] else { panic!("{item}: {test}") };
        let tests = file.replace("connection.rs", "connection_tests.rs");
        let has_test = [file, &tests].iter().any(|file| {
            let path = root().join("core/src").join(file);
            std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {test}()")))
        });
        assert!(has_test, "{item}: there is no test {test} beside {file}");
        match quoted(asked)[..] {
            [asked] => {
                let is_apart = !asked.contains("/policy/");
                assert!(is_apart && names(&source(asked), name), "{item}: {asked} does not name {name}");
            }
            _ => assert!(!remark.is_empty(), "{item} is asked nowhere, and nothing says why"),
        }
    }
}

#[test]
fn every_module_of_the_seed_has_its_rows() {
    for module in
        ["tcp_rpc_server", "tcp_rpc_client", "net_events", "net_connections", "net_msg_buffers", "net_thread"]
    {
        let of_module = format!("| `{module}`:");
        assert!(STATUS.lines().any(|line| line.starts_with(&of_module)), "{module}");
    }
}

#[test]
fn every_file_of_the_graph_exists() {
    let files: Vec<&str> = GRAPH.lines().filter(|line| line.starts_with("| ")).flat_map(quoted).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        assert!(root().join(file).is_file(), "{file}");
    }
}
