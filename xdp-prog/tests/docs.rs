//! The page about steering names every exit with its verdict, in order, and nothing else.
#![forbid(unsafe_code)]

use mtproxy_xdp::Exit;

#[test]
fn the_table_of_exits_is_that_of_the_program() {
    let page = include_str!("../../docs/steering.md");
    let (_, section) = page.split_once("## Exits").expect("the section is there");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let written: Vec<_> = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
    let defined: Vec<_> =
        Exit::ALL.iter().map(|exit| format!("| `{}` | {}", exit.name(), exit.verdict().name())).collect();
    assert_eq!(written, defined);
}
