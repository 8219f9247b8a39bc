//! The operator's own files: read at start and at a reload, and again whenever they change.
//!
//! A change is found by asking for size, time and inode every [`LOOK_EVERY`], not by inotify: that watches an inode
//! or a directory, and misses what really happens to such files, a mount or a symbolic link that now leads elsewhere,
//! or a change on another host of a network file system. Three calls in five seconds cost nothing that could be
//! measured.
//!
//! A file counts only when two looks in a row find it the same, so one that is being written is left in peace.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::document::{Content, Document};
use crate::complaint::{Complaint, Place};

/// Between two looks; a change counts after one to two of them.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads and checks the file at `path`.
///
/// # Errors
/// Why it cannot be used, with line and column.
pub(super) fn read<T: Content>(path: &Path) -> Result<Document<T>, Complaint> {
    let (bytes, modified) = read_bytes(path, T::BYTES_MAX).map_err(|error| {
        Complaint::about_host(format!(
            "{}: found {error}; expected to read {} there; check the path, its owner and permissions",
            path.display(),
            T::NAME
        ))
    })?;
    Document::read(&path.display().to_string(), &bytes, modified).map_err(|flaw| {
        let file = path.into();
        let place = match flaw.position {
            Some((line, column)) => Place::Position { file, line, column },
            None => Place::File(file),
        };
        Complaint::at(place, flaw.message)
    })
}

fn read_bytes(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, SystemTime)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("more than {bytes_max} bytes")));
    }
    Ok((bytes, metadata.modified()?))
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` if there is nothing to be seen at `path`.
    fn of(path: &Path) -> Option<Self> {
        let metadata: Metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Looks after one file.
#[derive(Debug)]
pub(super) struct FileWatch {
    /// As it was when it was last read, well or badly.
    read: Option<Stamp>,
    /// As it was at the last look.
    seen: Option<Stamp>,
}

impl FileWatch {
    /// Watches `path`, which is about to be read.
    pub(super) fn new(path: &Path) -> Self {
        let now = Stamp::of(path);
        Self { read: now, seen: now }
    }

    /// True if the file at `path` is the one that was read.
    pub(super) fn is_as_read(&self, path: &Path) -> bool {
        Stamp::of(path) == self.read
    }

    /// True if the file at `path` is another one than was read, and has come to rest: then it should be read. A file
    /// that is gone counts as one that changed.
    pub(super) fn has_changed(&mut self, path: &Path) -> bool {
        let now = Stamp::of(path);
        let rests = now == std::mem::replace(&mut self.seen, now);
        let changed = rests && now != self.read;
        if changed {
            self.read = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use mtproxy_core::middle_proxy::cluster_file::ClusterFile;
    use mtproxy_core::middle_proxy::secret::ProxySecret;

    #[test]
    fn a_mistake_is_reported_with_file_line_and_column() {
        let scratch = Scratch::new("files-mistake");
        let path = scratch.file("proxy-multi.conf", b"default 2;\n  proxy_for two 192.0.2.1:8888;\n");
        let message = read::<ClusterFile>(&path).unwrap_err().to_string();
        let begin = format!("{}:2:", path.display());
        assert!(message.starts_with(&begin) && message.contains("expected"), "{message}");
    }

    #[test]
    fn a_secret_of_a_wrong_size_is_reported_with_its_file() {
        let scratch = Scratch::new("files-secret");
        let path = scratch.file("proxy-secret", &[7; 31]);
        let message = read::<ProxySecret>(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: found 31", path.display())), "{message}");
    }

    #[test]
    fn what_cannot_be_read_is_reported_with_what_to_do() {
        let scratch = Scratch::new("files-none");
        for path in [scratch.path("none"), scratch.path("")] {
            let message = read::<ClusterFile>(&path).unwrap_err().to_string();
            assert!(
                message.contains(path.to_str().unwrap()) && message.contains("check the path"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_larger_than_the_limit_is_refused() {
        let scratch = Scratch::new("files-large");
        let path = scratch.file("large", &[0; 11]);
        assert!(read_bytes(&path, 11).is_ok());
        assert!(read_bytes(&path, 10).unwrap_err().to_string().contains("more than 10 bytes"));
    }

    #[test]
    fn a_change_counts_once_and_only_when_the_file_has_come_to_rest() {
        let scratch = Scratch::new("files-change");
        let path = scratch.file("f", b"one");
        let mut watch = FileWatch::new(&path);
        assert!(!watch.has_changed(&path) && !watch.has_changed(&path), "nothing happened");
        scratch.file("f", b"three");
        assert!(!watch.has_changed(&path), "it may still be being written");
        scratch.file("f", b"thirteen");
        assert!(!watch.has_changed(&path), "it was");
        assert!(watch.has_changed(&path));
        assert!(!watch.has_changed(&path), "it was read");
    }

    #[test]
    fn a_file_that_takes_its_place_and_one_that_goes_are_changes() {
        let scratch = Scratch::new("files-rename");
        let path = scratch.file("f", b"one");
        let mut watch = FileWatch::new(&path);
        let other = scratch.file("g", b"two");
        std::fs::rename(&other, &path).unwrap();
        assert!(!watch.has_changed(&path) && watch.has_changed(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed(&path) && watch.has_changed(&path) && !watch.has_changed(&path));
    }
}
