//! Where and when a run was made: without it a number says nothing.

use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// Where, when and how.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Its model.
    pub cpu: String,
    /// How many this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Its version, where it took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nginx: Option<String>,
    /// Of the work tree in which the run was started; with `+` if it had changes.
    pub commit: String,
    /// UTC.
    pub date: String,
    /// The command line.
    pub command: String,
}

impl Machine {
    /// This one, seen from `program`.
    #[must_use]
    pub fn this(program: &str) -> Self {
        let uname = rustix::system::uname();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: uname.release().to_string_lossy().into_owned(),
            nginx: None,
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: [program.to_owned(), arguments.join(" ")].join(" ").trim().to_owned(),
        }
    }

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { cpu, cores, kernel, nginx, commit, date, command } = self;
        let nginx = nginx.as_ref().map(|version| format!(", {version}")).unwrap_or_default();
        format!("{cpu}, {cores} cores, Linux {kernel}{nginx}, commit {commit}, {date}, {command}")
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    model.unwrap_or("unknown CPU").to_owned()
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
