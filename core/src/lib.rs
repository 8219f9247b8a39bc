#![forbid(unsafe_code)]
pub mod aes_ctr;
pub mod config;
pub mod credentials;
pub mod dc;
pub mod error;
pub mod event;
pub mod fake_tls;
pub mod keyed_hash;
pub mod obfuscated2;
pub mod policy;
pub mod random;
pub mod secret;
pub mod time;
pub mod transport;
