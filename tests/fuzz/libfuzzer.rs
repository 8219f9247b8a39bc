//! libFuzzer's way in: chooses the target, and writes its seeds where the search begins.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use mtproxy_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let known = TARGETS.iter().copied().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("found the target {name:?}; expected one of {}", names.join(", ")))
});

fn write_seeds() {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    for (index, seed) in (TARGET.seeds)().iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{index}")), seed).expect("a folder for seeds");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |input: &[u8]| (TARGET.run)(input));
