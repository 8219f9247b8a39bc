//! The last good copy of each downloaded file, so that a start needs no network.
//!
//! Copies lie in the state directory under the names that the official documentation gives them, and only their owner
//! can read them. They appear whole or not at all. Their time of change says when they were last known to be current:
//! a download that finds nothing new moves it on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::document::{Content, Document};
use super::files;
use crate::complaint::Complaint;

/// One file's copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    state_dir: PathBuf,
    name: &'static str,
}

impl Cache {
    pub(super) fn new(state_dir: &Path, name: &'static str) -> Self {
        Self { state_dir: state_dir.to_owned(), name }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.state_dir.join(self.name)
    }

    /// The copy, if there is one.
    ///
    /// # Errors
    /// Why the copy that is there cannot be used.
    pub(super) fn load<T: Content>(&self) -> Result<Option<Document<T>>, Complaint> {
        let path = self.path();
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => files::read(&path).map(Some),
        }
    }

    /// Keeps `bytes` in place of the copy before.
    pub(super) fn save(&self, bytes: &[u8]) -> io::Result<()> {
        const OWNER_ONLY: u32 = 0o600;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.state_dir)?;
        let draft_path = self.state_dir.join(format!("{}.new", self.name));
        // What an interrupted attempt left behind may belong to anybody.
        match std::fs::remove_file(&draft_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut draft = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&draft_path)?;
        draft.write_all(bytes)?;
        draft.sync_all()?;
        std::fs::rename(&draft_path, self.path())?;
        File::open(&self.state_dir)?.sync_all()
    }

    /// Notes that the copy is still what its source has.
    pub(super) fn confirm(&self) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.path())?.set_modified(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use mtproxy_core::middle_proxy::secret::ProxySecret;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    fn loaded(cache: &Cache) -> Option<Vec<u8>> {
        cache.load::<ProxySecret>().unwrap().map(|document| document.content.bytes().to_vec())
    }

    #[test]
    fn what_was_saved_is_loaded_and_the_next_one_replaces_it() {
        let scratch = Scratch::new("cache-save");
        let cache = Cache::new(&scratch.path("not/yet/there"), "proxy-secret");
        assert_eq!(loaded(&cache), None);
        cache.save(&[1; 40]).unwrap();
        assert_eq!(loaded(&cache), Some(vec![1; 40]));
        cache.save(&[2; 41]).unwrap();
        assert_eq!(loaded(&cache), Some(vec![2; 41]));
        let names: Vec<_> = std::fs::read_dir(scratch.path("not/yet/there"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["proxy-secret"], "no draft is left behind");
    }

    #[test]
    fn only_the_owner_can_read_the_copy_even_where_a_draft_was_left_behind() {
        let scratch = Scratch::new("cache-mode");
        let draft = scratch.file("proxy-secret.new", b"left behind");
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o644)).unwrap();
        let cache = Cache::new(scratch.dir(), "proxy-secret");
        cache.save(&[1; 40]).unwrap();
        let mode = std::fs::metadata(cache.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_copy_that_was_damaged_is_reported_and_not_used() {
        let scratch = Scratch::new("cache-damaged");
        let cache = Cache::new(scratch.dir(), "proxy-secret");
        scratch.file("proxy-secret", &[1; 5]);
        let message = cache.load::<ProxySecret>().unwrap_err().to_string();
        assert!(message.contains("proxy-secret") && message.contains("found 5"), "{message}");
    }

    #[test]
    fn a_confirmed_copy_is_current_again() {
        let scratch = Scratch::new("cache-confirm");
        let cache = Cache::new(scratch.dir(), "proxy-secret");
        cache.save(&[1; 40]).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
        File::options().append(true).open(cache.path()).unwrap().set_modified(long_ago).unwrap();
        let age = || {
            let current_at = cache.load::<ProxySecret>().unwrap().unwrap().origin.current_at;
            SystemTime::now().duration_since(current_at).unwrap_or_default()
        };
        assert!(age() > Duration::from_secs(900_000));
        cache.confirm().unwrap();
        assert!(age() < Duration::from_secs(900_000));
        assert_eq!(loaded(&cache), Some(vec![1; 40]));
    }
}
