//! `mtproxy nic`: what a network card and its host are set to, what they should be, and how to get there and back.
//!
//! The stages, the journal and the changes themselves are `mtproxy_nic`'s; here are the words of the command line and
//! the tables. Read first: docs/nic-setup.md.

mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mtproxy_nic::Facts;
use mtproxy_nic::apply::{self, Step, examine};
use mtproxy_nic::finding::{Finding, State};
use mtproxy_nic::host::Host as _;
use mtproxy_nic::journal::{Journal, boot_id};
use mtproxy_nic::link::RawLink;
use mtproxy_nic::live::LiveHost;
use mtproxy_nic::netlink::Netlink;
use mtproxy_nic::survey::Goals;
use mtproxy_nic::sysctl::PortRange;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::complaint::{Complaint, Complaints};
use crate::settings::xdp::{FRAME_BYTES, XdpSettings};

/// `mtproxy nic …`.
#[derive(Debug, Subcommand)]
pub enum NicCommand {
    /// Lists interfaces, and what each may be good for
    List,
    /// Says what is as it should be and what is not; exits with 0 if nothing is to be changed, 1 if something is, 2 if
    /// AF_XDP cannot work
    Check(NicArgs),
    /// Says what `apply` would change, with the commands that do the same
    Plan(NicArgs),
    /// Makes the changes, keeping a journal of what was before
    Apply(NicArgs),
    /// Takes back what `apply` changed
    Undo(UndoArgs),
}

/// Options of `check`, `plan` and `apply`.
#[derive(Debug, Args)]
pub struct NicArgs {
    /// Name of the interface
    #[arg(value_name = "INTERFACE")]
    pub interface: String,

    /// Receive queues that there should be [default: the number of cores, or one less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: Option<u32>,

    /// Prepare for xdp.busy_poll = true
    #[arg(long)]
    pub busy_poll: bool,

    /// Prepare for xdp.huge_pages = true
    #[arg(long)]
    pub huge_pages: bool,

    /// Where the journal is kept
    #[arg(long, value_name = "DIRECTORY", default_value = JOURNALS)]
    pub journals: PathBuf,
}

/// Options of `undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// Name of the interface
    #[arg(value_name = "INTERFACE")]
    pub interface: String,

    /// Also take back what somebody else has changed since
    #[arg(long)]
    pub force: bool,

    /// Where the journal is kept
    #[arg(long, value_name = "DIRECTORY", default_value = JOURNALS)]
    pub journals: PathBuf,
}

const JOURNALS: &str = "/var/lib/mtproxy/nic";
/// Exit status of `check` and `apply`: something is to be changed, or was refused.
const CHANGES: u8 = 1;
/// Exit status of `check`: AF_XDP cannot work.
const BLOCKED: u8 = 2;

/// Does what the command says.
///
/// # Errors
/// If the interface cannot be looked at or the journal not be used.
pub fn run(command: &NicCommand) -> Result<ExitCode, Complaints> {
    Ok(match command {
        NicCommand::List => list()?,
        NicCommand::Check(args) => check(args)?,
        NicCommand::Plan(args) => plan(args)?,
        NicCommand::Apply(args) => apply(args)?,
        NicCommand::Undo(args) => undo(args)?,
    })
}

fn goals(args: &NicArgs) -> Goals {
    let NicArgs { queues, busy_poll, huge_pages, .. } = *args;
    Goals { queues, busy_poll, huge_pages, ..default_goals() }
}

/// What `mtproxy run` wants of a card unless it is told otherwise.
pub(crate) fn default_goals() -> Goals {
    let xdp = XdpSettings::default();
    Goals {
        queues: None,
        busy_poll: false,
        huge_pages: false,
        ports: PortRange { first: xdp.ports.first(), last: xdp.ports.last() },
        umem_bytes: u64::from(xdp.frames) * u64::from(FRAME_BYTES),
    }
}

fn list() -> Result<ExitCode, Complaint> {
    let links = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| RawLink::list(&mut netlink));
    let links = links.map_err(|error| unreadable("the interfaces", &error))?;
    let mut facts: Vec<Facts> = links.iter().filter_map(|link| Facts::read(&link.name).ok()).collect();
    facts.sort_by_key(|facts| facts.link.index);
    print(&table::interfaces(&facts));
    Ok(ExitCode::SUCCESS)
}

/// The host, and what its stages say.
fn look(args: &NicArgs) -> Result<(LiveHost, Vec<Finding>), Complaint> {
    let mut host = LiveHost::new(&args.interface).map_err(|error| unreadable(&args.interface, &error))?;
    let survey = host.survey().map_err(|error| unreadable(&args.interface, &error))?;
    let findings = examine(&survey, &goals(args));
    Ok((host, findings))
}

fn check(args: &NicArgs) -> Result<ExitCode, Complaint> {
    let (_, findings) = look(args)?;
    print(&table::findings(&args.interface, &findings, width()));
    Ok(status(&findings))
}

fn status(findings: &[Finding]) -> ExitCode {
    if findings.iter().any(|finding| matches!(finding.state, State::Blocked(_))) {
        ExitCode::from(BLOCKED)
    } else if findings.iter().any(|finding| !finding.changes().is_empty()) {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    }
}

fn plan(args: &NicArgs) -> Result<ExitCode, Complaint> {
    let (_, findings) = look(args)?;
    print(&table::plan(&args.interface, &findings));
    Ok(ExitCode::SUCCESS)
}

fn apply(args: &NicArgs) -> Result<ExitCode, Complaint> {
    let name = &args.interface;
    let (mut host, findings) = look(args)?;
    if findings.iter().all(|finding| finding.changes().is_empty()) {
        print(&format!("{name}: nothing to change\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let path = journal_path(&args.journals, name);
    let boot = boot_id().map_err(|error| unreadable("this kernel's boot", &error))?;
    let mut journal = open(&path, &boot)?;
    if journal.boot() != boot {
        // What it tells of is gone; what follows must not be mixed with it.
        journal.remove().map_err(|error| unusable(&path, &error))?;
        journal = open(&path, &boot)?;
    }
    let (mut made, mut refused) = (0_usize, 0_usize);
    let report = &mut |step: &Step| {
        *(if step.outcome.is_ok() { &mut made } else { &mut refused }) += 1;
        print(&table::step(name, step));
    };
    apply::apply(&mut host, &goals(args), &mut journal, report).map_err(|error| unusable(&path, &error))?;
    let undo = format!("mtproxy nic undo {name}");
    print(&format!("{made} made, {refused} refused; `{undo}` takes them back, and so does a reboot\n"));
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

fn undo(args: &UndoArgs) -> Result<ExitCode, Complaint> {
    let name = &args.interface;
    let path = journal_path(&args.journals, name);
    if !path.exists() {
        print(&format!("{name}: nothing to take back; there is no {}\n", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let boot = boot_id().map_err(|error| unreadable("this kernel's boot", &error))?;
    let journal = open(&path, &boot)?;
    if journal.boot() != boot {
        journal.remove().map_err(|error| unusable(&path, &error))?;
        print(&format!("{name}: nothing to take back; the host was rebooted since\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut host = LiveHost::new(name).map_err(|error| unreadable(name, &error))?;
    let restored = apply::undo(&mut host, journal.entries(), args.force);
    print(&table::restored(&restored));
    if restored.iter().all(|it| it.outcome.is_done()) {
        journal.remove().map_err(|error| unusable(&path, &error))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!(
        "{} stays, for another try; --force also takes back what others have changed since\n",
        path.display()
    ));
    Ok(ExitCode::from(CHANGES))
}

fn journal_path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.journal"))
}

fn open(path: &Path, boot: &str) -> Result<Journal, Complaint> {
    Journal::open(path, boot).map_err(|error| unusable(path, &error))
}

fn unreadable(what: &str, error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no way to read about {what} ({error}); expected an interface that `mtproxy nic list` shows, and netlink"
    ))
}

fn unusable(path: &Path, error: &io::Error) -> Complaint {
    let why = match error.kind() {
        io::ErrorKind::WouldBlock => "another `mtproxy nic` is at work".to_owned(),
        _ => error.to_string(),
    };
    Complaint::about_host(format!(
        "found no way to use the journal {} ({why}); expected a file that this user may write, and nobody else does now; \
        nothing is changed without it; name another directory with --journals",
        path.display()
    ))
}

/// Columns to fill.
fn width() -> usize {
    const DEFAULT: usize = 100;
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    match columns.filter(|_| io::stdout().is_terminal()) {
        Some(columns) => std::cmp::max(columns, 60),
        None => DEFAULT,
    }
}

/// A reader that has seen enough is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
