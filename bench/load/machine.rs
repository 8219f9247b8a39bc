//! Where and when a run was made: without it a number says nothing.

use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// Where, when and how.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) nginx: String,
    /// Of the work tree in which the run was started; with `+` if it had changes.
    pub(crate) commit: String,
    /// UTC.
    pub(crate) date: String,
    pub(crate) command: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let uname = rustix::system::uname();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: uname.release().to_string_lossy().into_owned(),
            nginx: nginx_version(),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: ["mtproxy-load".to_owned(), arguments.join(" ")].join(" ").trim().to_owned(),
        }
    }

    /// All of it in one line.
    pub(crate) fn line(&self) -> String {
        let Self { cpu, cores, kernel, nginx, commit, date, command } = self;
        format!("{cpu}, {cores} cores, Linux {kernel}, {nginx}, commit {commit}, {date}, {command}")
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    model.unwrap_or("unknown CPU").to_owned()
}

fn nginx_version() -> String {
    // It answers on standard error: "nginx version: nginx/1.22.1".
    let output = Command::new("nginx").arg("-v").output().map(|output| output.stderr).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().trim_start_matches("nginx version: ").to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // Earlier results in the tree do not change what is measured.
    let changes = git(&["status", "--porcelain", "--", ".", ":!bench/results", ":!docs"]).unwrap_or_default();
    if changes.is_empty() { hash } else { hash + "+" }
}
