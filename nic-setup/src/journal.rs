//! What was changed on a host, written down before it was: so that it can be undone, also by another process after this
//! one was killed.
//!
//! ```text
//!   mtproxy-nic 1                      what this file is
//!   boot 1f0b…                         the kernel's boot: all that is changed here is gone with it
//!   moved KNOB⇥OLD                     the next change may move this knob, too
//!   set KNOB⇥OLD⇥NEW                   about to be turned
//!   now KNOB⇥VALUE                     was turned, and the kernel says this
//! ```
//! Each line is on the disk before what follows from it happens. A last line that has no end was cut off by a crash: what
//! it announces was not done. A `set` without its `now` may or may not have been done.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::knob::Knob;

const FIRST_LINE: &str = "mtproxy-nic 1";
/// A journal longer than this is none of ours: 21 stages make some hundred lines.
const LEN_MAX: u64 = 1 << 20;

/// One thing that was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A change may have moved this knob from `old`.
    Moved {
        /// The knob.
        knob: Knob,
        /// What it was.
        old: String,
    },
    /// A knob was, or was about to be, turned.
    Set {
        /// The knob.
        knob: Knob,
        /// What it was.
        old: String,
        /// What the kernel said afterwards; `None` if nobody was left to ask it.
        now: Option<String>,
    },
}

/// An open journal, which nobody else can open meanwhile.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    boot: String,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. `boot` is the kernel's, see [`boot_id`].
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open, `InvalidData` if it is no journal, and what the file system says.
    pub fn open(path: &Path, boot: &str) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        if file.metadata()?.len() > LEN_MAX {
            return Err(invalid("a file that is too long for a journal"));
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut journal = Self { file, path: path.to_owned(), boot: boot.to_owned(), entries: Vec::new() };
        // A beginning that was cut off was followed by nothing.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        if whole.lines().count() < 2 {
            journal.file.set_len(0)?;
            journal.write(&format!("{FIRST_LINE}\nboot {boot}"))?;
            sync_directory(path)?;
            return Ok(journal);
        }
        journal.file.set_len(whole.len() as u64)?;
        (journal.boot, journal.entries) = parse(whole)?;
        Ok(journal)
    }

    /// The boot of the kernel whose knobs were turned.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// What was written down, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A change is about to be made that may move this knob.
    pub(crate) fn moved(&mut self, knob: &Knob, old: &str) -> io::Result<()> {
        self.write(&format!("moved {knob}\t{old}"))?;
        self.entries.push(Entry::Moved { knob: knob.clone(), old: old.to_owned() });
        Ok(())
    }

    /// A knob is about to be turned.
    pub(crate) fn set(&mut self, knob: &Knob, old: &str, new: &str) -> io::Result<()> {
        self.write(&format!("set {knob}\t{old}\t{new}"))?;
        self.entries.push(Entry::Set { knob: knob.clone(), old: old.to_owned(), now: None });
        Ok(())
    }

    /// The last knob was turned.
    pub(crate) fn now(&mut self, knob: &Knob, value: &str) -> io::Result<()> {
        self.write(&format!("now {knob}\t{value}"))?;
        if let Some(Entry::Set { now, .. }) = self.entries.last_mut() {
            *now = Some(value.to_owned());
        }
        Ok(())
    }

    /// Everything is undone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        sync_directory(&self.path)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_all()
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn invalid(found: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("found {found} where a journal of mtproxy nic is expected"),
    )
}

/// Boot and entries of whole lines.
fn parse(text: &str) -> io::Result<(String, Vec<Entry>)> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(invalid("another first line"));
    }
    let boot = lines.next().and_then(|line| line.strip_prefix("boot ")).ok_or_else(|| invalid("no boot"))?;
    let mut entries = Vec::new();
    for line in lines {
        let wrong = || invalid(&format!("the line {line:?}"));
        let (word, rest) = line.split_once(' ').ok_or_else(wrong)?;
        let mut fields = rest.split('\t');
        let (Some(knob), Some(value)) = (fields.next(), fields.next()) else { return Err(wrong()) };
        let knob: Knob = knob.parse().map_err(|_| wrong())?;
        let old = value.to_owned();
        match word {
            "moved" => entries.push(Entry::Moved { knob, old }),
            "set" => entries.push(Entry::Set { knob, old, now: None }),
            "now" => match entries.last_mut() {
                Some(Entry::Set { knob: last, now, .. }) if *last == knob => *now = Some(old),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
    }
    Ok((boot.to_owned(), entries))
}

/// What tells this boot of the kernel from every other.
///
/// # Errors
/// If `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A directory of a test's own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mtproxy-nic-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("nic").join("eth0.journal")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_written_down_is_there_for_the_next_process() {
        let scratch = Scratch::new("next");
        let mut journal = Journal::open(&scratch.file(), "b1").unwrap();
        journal.moved(&Knob::RssTable, "0 1").unwrap();
        journal.set(&Knob::CombinedChannels, "2", "1").unwrap();
        journal.now(&Knob::CombinedChannels, "1").unwrap();
        journal.set(&Knob::ReceiveRing, "256", "2048").unwrap();
        let entries = journal.entries().to_vec();
        drop(journal);
        let journal = Journal::open(&scratch.file(), "b2").unwrap();
        assert_eq!((journal.boot(), journal.entries()), ("b1", entries.as_slice()));
        assert_eq!(entries[2], Entry::Set { knob: Knob::ReceiveRing, old: "256".to_owned(), now: None });
        journal.remove().unwrap();
        assert!(!scratch.file().exists());
    }

    #[test]
    fn two_processes_do_not_write_one_journal() {
        let scratch = Scratch::new("two");
        let first = Journal::open(&scratch.file(), "b").unwrap();
        let second = Journal::open(&scratch.file(), "b").unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(Journal::open(&scratch.file(), "b").is_ok());
    }

    #[test]
    fn a_line_that_was_cut_off_counts_for_nothing_and_what_comes_next_is_whole() {
        let scratch = Scratch::new("cut");
        drop(Journal::open(&scratch.file(), "b").unwrap());
        let mut file = OpenOptions::new().append(true).open(scratch.file()).unwrap();
        file.write_all(b"set rings:rx\t256\t20").unwrap();
        let mut journal = Journal::open(&scratch.file(), "b").unwrap();
        assert_eq!(journal.entries(), []);
        journal.set(&Knob::ReceiveRing, "256", "512").unwrap();
        drop(journal);
        assert_eq!(Journal::open(&scratch.file(), "b").unwrap().entries().len(), 1);
        fs::write(scratch.file(), "mtproxy-nic 1\nboo").unwrap();
        assert_eq!(Journal::open(&scratch.file(), "b3").unwrap().boot(), "b3");
    }

    #[test]
    fn another_file_is_refused_and_left_alone() {
        let scratch = Scratch::new("other");
        fs::create_dir_all(scratch.file().parent().unwrap()).unwrap();
        for text in [
            "something else\nentirely\n",
            "mtproxy-nic 1\nboot b\nset rings:rx\n",
            "mtproxy-nic 1\nboot b\nset file:/etc/passwd\ta\tb\n",
            "mtproxy-nic 1\nboot b\nnow rings:rx\t1\n",
        ] {
            fs::write(scratch.file(), text).unwrap();
            assert_eq!(
                Journal::open(&scratch.file(), "b").unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{text}"
            );
            assert_eq!(fs::read_to_string(scratch.file()).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(mtproxy-nic 1\nboot b\n)?([a-z]{0,5}( [a-z:/]{0,12}(\t[0-9]{0,3}){0,3})?\n){0,6}") {
            let _ = parse(&text);
        }
    }
}
