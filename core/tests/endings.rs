//! How sessions end: one test for each row of the table in docs/session.md, named there.
//!
//! Each test brings one session into a phase, lets one thing happen, says what must come of the bytes
//! that were under way, and compares what both peers were told with its row. So the document is the
//! oracle, and cannot say anything that was not observed.

mod driver;

#[path = "endings/closing.rs"]
mod closing;
#[path = "endings/dialing.rs"]
mod dialing;
#[path = "endings/fronting.rs"]
mod fronting;
#[path = "endings/handshaking.rs"]
mod handshaking;
#[path = "endings/relaying.rs"]
mod relaying;

use driver::table;

const SOURCES: [&str; 5] = [
    include_str!("endings/closing.rs"),
    include_str!("endings/dialing.rs"),
    include_str!("endings/fronting.rs"),
    include_str!("endings/handshaking.rs"),
    include_str!("endings/relaying.rs"),
];

#[test]
fn the_table_of_endings_and_these_tests_name_each_other() {
    let mut documented: Vec<String> = table::rows().into_iter().map(|row| row.test).collect();
    let mut tested = Vec::new();
    for source in SOURCES {
        for test in source.split("#[test]\nfn ").skip(1) {
            let name = test.split("()").next().unwrap();
            let on_one_line: String = test.split_whitespace().collect();
            let observes = format!("is_as_documented(\"{name}\"");
            assert!(on_one_line.contains(&observes), "{name} does not compare itself with its row");
            tested.push(name.to_owned());
        }
    }
    documented.sort();
    tested.sort();
    assert_eq!(documented, tested, "rows of docs/session.md, and tests");
}
