//! The secret that the proxy made for itself, kept so that users' links outlive a restart.
//!
//! One file, readable by its owner only. It is never overwritten: a file that cannot be read as a
//! secret is the operator's to mend, because a new secret would lock every user out.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretError, SecretKind};
use zeroize::Zeroizing;

use crate::complaint::Complaint;

/// Name of the file in the state directory.
pub const SECRET_FILE: &str = "secret";

/// A secret that nobody had to configure.
#[derive(Debug)]
pub struct KeptSecret {
    /// The secret.
    pub secret: Secret,
    /// Where it is kept.
    pub path: PathBuf,
    /// True if it was made just now.
    pub is_new: bool,
}

/// The secret kept in `state_dir`, made and kept there if there is none yet.
///
/// # Errors
/// If the directory or the file in it cannot be used.
pub fn kept_secret(state_dir: &Path) -> Result<KeptSecret, Complaint> {
    let path = state_dir.join(SECRET_FILE);
    if let Some(secret) = read(&path)? {
        return Ok(KeptSecret { secret, path, is_new: false });
    }
    let secret = new_secret(SecretKind::Plain)?;
    let kept = keep(state_dir, &path, &secret).map_err(|error| {
        Complaint::about_host(format!(
            "found no way to keep a generated secret in {} ({error}); expected a directory that this user \
             can write; set state_dir in the configuration file, or give --secret",
            state_dir.display()
        ))
    })?;
    if kept {
        return Ok(KeptSecret { secret, path, is_new: true });
    }
    // Another process was faster; both must use the same secret.
    let secret = read(&path)?.ok_or_else(|| unreadable(&path, &io::ErrorKind::NotFound.into()))?;
    Ok(KeptSecret { secret, path, is_new: false })
}

/// A secret from the operating system's randomness.
///
/// # Errors
/// If there is none to be had.
pub fn new_secret(kind: SecretKind) -> Result<Secret, Complaint> {
    Ok(Secret::generate(&mut Random::from_seed(seed()?), kind))
}

/// Randomness of the operating system.
///
/// # Errors
/// If there is none to be had.
pub fn seed() -> Result<[u8; 32], Complaint> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Complaint::about_host(format!(
            "found no randomness ({error}); expected the system call \
            getrandom to work; look for a filter that forbids it"
        ))
    })?;
    Ok(seed)
}

fn read(path: &Path) -> Result<Option<Secret>, Complaint> {
    let content = match std::fs::read_to_string(path) {
        Ok(content) => Zeroizing::new(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    content.parse().map(Some).map_err(|error: SecretError| {
        Complaint::about_host(format!(
            "{}: {error}; put the secret back, or remove the file for a new one, which needs new \
            links for all users",
            path.display()
        ))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "{}: found {error}; expected to read the secret kept there; check its owner and permissions",
        path.display()
    ))
}

/// True if the secret is now at `path`, false if there was a file already.
fn keep(state_dir: &Path, path: &Path, secret: &Secret) -> io::Result<bool> {
    const OWNER_ONLY: u32 = 0o600;
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let draft_path = state_dir.join(format!("{SECRET_FILE}.{}", std::process::id()));
    let mut draft =
        OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(&draft_path)?;
    let text = Zeroizing::new(format!("{}\n", secret.reveal()));
    let written = draft.write_all(text.as_bytes()).and_then(|()| draft.sync_all());
    // A link appears whole or not at all, like a rename, but does not replace what is there.
    let linked = written.and_then(|()| std::fs::hard_link(&draft_path, path));
    std::fs::remove_file(&draft_path)?;
    match linked {
        Ok(()) => File::open(state_dir)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A directory of this test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mtproxy-state-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_second_start_finds_the_secret_of_the_first() {
        let scratch = Scratch::new("reuse");
        let state_dir = scratch.0.join("not/yet/there");
        let first = kept_secret(&state_dir).unwrap();
        let second = kept_secret(&state_dir).unwrap();
        assert!(first.is_new && !second.is_new);
        assert_eq!(first.secret, second.secret);
        assert_eq!(first.secret.kind(), &SecretKind::Plain);
        let names: Vec<_> =
            std::fs::read_dir(&state_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [SECRET_FILE], "no draft is left behind");
    }

    #[test]
    fn only_the_owner_can_read_it() {
        let scratch = Scratch::new("mode");
        let state_dir = scratch.0.join("state");
        let kept = kept_secret(&state_dir).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.path), mode(&state_dir)), (0o600, 0o700));
    }

    #[test]
    fn a_file_that_holds_no_secret_is_left_alone_and_reported() {
        let scratch = Scratch::new("broken");
        let path = scratch.0.join(SECRET_FILE);
        std::fs::write(&path, "0011223344").unwrap();
        let message = kept_secret(&scratch.0).unwrap_err().to_string();
        assert!(
            message.contains("found 5 bytes; expected 16") && message.contains("remove the file"),
            "{message}"
        );
        assert!(message.contains(path.to_str().unwrap()) && !message.contains("0011"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0011223344");
    }

    #[test]
    fn a_secret_that_appeared_meanwhile_is_not_replaced() {
        let scratch = Scratch::new("race");
        let path = scratch.0.join(SECRET_FILE);
        let mine = new_secret(SecretKind::Plain).unwrap();
        let theirs = new_secret(SecretKind::Plain).unwrap();
        assert!(keep(&scratch.0, &path, &theirs).unwrap());
        assert!(!keep(&scratch.0, &path, &mine).unwrap());
        assert_eq!(read(&path).unwrap(), Some(theirs));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_what_to_do() {
        let scratch = Scratch::new("blocked");
        let file = scratch.0.join("file");
        std::fs::write(&file, "").unwrap();
        let message = kept_secret(&file.join("state")).unwrap_err().to_string();
        assert!(message.contains("/file/") && message.contains("expected"), "{message}");
    }
}
