//! Clients through middle proxies: what arrives, in which order, and who is told what when something ends.

mod driver;

#[path = "middle_proxy/endings.rs"]
mod endings;
#[path = "middle_proxy/links.rs"]
mod links;
#[path = "middle_proxy/relay.rs"]
mod relay;
#[path = "middle_proxy/sharing.rs"]
mod sharing;

#[test]
fn the_table_of_endings_through_middle_proxies_names_tests_that_exist() {
    const SOURCES: [&str; 3] = [
        include_str!("middle_proxy/endings.rs"),
        include_str!("middle_proxy/links.rs"),
        include_str!("middle_proxy/sharing.rs"),
    ];
    let document = include_str!("../../docs/session.md");
    let (_, section) = document.split_once("## Through a middle proxy").expect("the section is there");
    let rows: Vec<&str> =
        section.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let test = row.rsplit('`').nth(1).expect("a row ends with its test");
        assert!(SOURCES.iter().any(|source| source.contains(&format!("fn {test}()"))), "{test}");
    }
}
