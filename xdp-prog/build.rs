//! Compiles the steering program with clang and leaves the object where `src/object.rs` embeds it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Debian names a versioned clang only by its version; 14 is that of Debian 12.
const CLANGS: [&str; 7] = ["clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];
const SOURCES: [&str; 3] = ["steer.bpf.c", "steer_maps.h", "steer_parse.h"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=CLANG");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    match build(&PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build(out: &Path) -> Result<(), String> {
    let header = out.join("abi.h");
    fs::write(&header, mtproxy_xdp_abi::CHeader.to_string())
        .map_err(|error| format!("{}: {error}", header.display()))?;

    let clang = find_clang()
        .ok_or("no clang for the steering program: apt install clang libbpf-dev, or set CLANG")?;
    let mut compile = Command::new(&clang);
    compile.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"]);
    compile.arg("-I").arg(out);
    if let Some(multiarch) = multiarch() {
        compile.arg("-I").arg(multiarch);
    }
    compile.args(["-c", SOURCES[0], "-o"]).arg(out.join("steer.bpf.o"));

    let done = compile.output().map_err(|error| format!("{clang}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("file not found") {
        return Err(format!(
            "{clang} misses a header of the steering program ({}): apt install clang libbpf-dev linux-libc-dev",
            said.lines().find(|line| line.contains("file not found")).unwrap_or_default().trim()
        ));
    }
    eprintln!("{said}");
    Err(format!("{clang} cannot compile the steering program, see above"))
}

fn find_clang() -> Option<String> {
    env::var("CLANG")
        .ok()
        .into_iter()
        .chain(CLANGS.map(String::from))
        .find(|clang| Command::new(clang).arg("--version").output().is_ok_and(|done| done.status.success()))
}

/// Where Debian keeps `asm/types.h`, which clang does not search when it compiles for BPF.
fn multiarch() -> Option<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    Some(PathBuf::from(format!("/usr/include/{arch}-linux-gnu"))).filter(|path| path.is_dir())
}
