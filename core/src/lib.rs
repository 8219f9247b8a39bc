#![forbid(unsafe_code)]
pub mod aes_ctr;
pub mod dc;
pub mod obfuscated2;
pub mod random;
pub mod secret;
pub mod time;
pub mod transport;
