//! The two files that a proxy needs to know middle proxies: on disk until dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::proxy_process::{ProxyCommand, ScratchDirectory};

/// What proxies and middle proxies of the tests share: 128 bytes, as the real one.
pub const PROXY_SECRET: [u8; 128] = {
    let mut bytes = [0; 128];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at as u8).wrapping_mul(3).wrapping_add(5);
        at += 1;
    }
    bytes
};
/// Whose channel is shown.
pub const PROXY_TAG: &str = "00112233445566778899aabbccddeeff";

/// Both files.
#[derive(Debug)]
pub struct MiddleProxyFiles {
    scratch: ScratchDirectory,
}

impl MiddleProxyFiles {
    /// With these middle proxies for every data centre, and so many links to each.
    ///
    /// # Panics
    /// If the files cannot be written.
    #[must_use]
    pub fn new(middle_proxies: &[SocketAddr], links: u16) -> Self {
        let files = Self { scratch: ScratchDirectory::new() };
        std::fs::write(files.secret(), PROXY_SECRET).expect("a scratch directory can be written to");
        files.rewrite(middle_proxies, links);
        files
    }

    /// Other middle proxies from now on.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn rewrite(&self, middle_proxies: &[SocketAddr], links: u16) {
        // In this order the minimum is never above the maximum.
        let mut text =
            format!("# for tests\nmin_connections 1;\nmax_connections {links};\nmin_connections {links};\n");
        for middle_proxy in middle_proxies {
            writeln!(text, "proxy_for 2 {middle_proxy};").expect("a String takes everything");
        }
        text.push_str("default 2;\n");
        self.rewrite_with(&text);
    }

    /// This text from now on, whole at once, as an operator's tools replace a file.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn rewrite_with(&self, text: &str) {
        let draft = self.config().with_extension("draft");
        std::fs::write(&draft, text).expect("a scratch directory can be written to");
        std::fs::rename(&draft, self.config()).expect("a file can be renamed within its directory");
    }

    /// proxy-multi.conf.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.scratch.path.join("proxy-multi.conf")
    }

    /// proxy-secret.
    #[must_use]
    pub fn secret(&self) -> PathBuf {
        self.scratch.path.join("proxy-secret")
    }

    /// Tells a proxy of them.
    #[must_use]
    pub fn told_to(&self, command: ProxyCommand) -> ProxyCommand {
        command
            .option("--middle-proxy-config", &self.config().to_string_lossy())
            .option("--middle-proxy-secret", &self.secret().to_string_lossy())
    }
}
