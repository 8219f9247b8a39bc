//! Inputs that nobody thought of, for everything that reads what others send.
//!
//! A target has seeds, which are known to be good, and a body that panics when something is wrong; that
//! nothing panics by itself is the first thing every target shows. `cargo test` runs each on its seeds, on
//! what was ever found, and on some thousand random inputs. `make fuzz` runs one for long under libFuzzer,
//! which keeps what reaches new code; docs/testing.md says how.
//!
//! Read `script.rs` first: how a row of bytes becomes a test.

#![forbid(unsafe_code)]

mod captured;
mod cluster_file;
mod config_file;
mod engine;
mod frames;
mod hello;
mod http_request;
mod init_frame;
mod packets;
mod records;
mod script;
mod secret;

/// One thing to try inputs on.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// How the command line calls it.
    pub name: &'static str,
    /// Inputs that reach far, for a fuzzer to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics if something is wrong with what the input does.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), seeds: $name::seeds, run: $name::run },)*];

        #[cfg(test)]
        mod tests {
            $(
                #[test]
                fn $name() {
                    super::try_briefly(stringify!($name), super::$name::seeds(), super::$name::run);
                }
            )*
        }
    };
}

targets! { captured cluster_file config_file engine frames hello http_request init_frame packets records secret }

/// The seeds, what was found earlier, and random inputs: short ones, which spoil a seed a little, and long
/// ones, which are stories of their own.
#[cfg(test)]
fn try_briefly(name: &str, seeds: Vec<Vec<u8>>, run: fn(&[u8])) {
    use proptest::collection::vec;
    use proptest::prelude::*;

    seeds.iter().for_each(|seed| run(seed));
    let findings = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("findings").join(name);
    for finding in findings.read_dir().into_iter().flatten() {
        let path = finding.expect("a folder of the repository").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a file of the repository"));
    }
    let bytes = any::<u8>;
    let inputs = prop_oneof![vec(bytes(), 0..16), vec(bytes(), 0..64), vec(bytes(), 0..1200)];
    proptest!(ProptestConfig::with_cases(1000), |(input in inputs)| run(&input));
}
