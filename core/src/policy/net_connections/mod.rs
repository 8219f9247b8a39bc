//! Connections and pools of them: what the C proxy's net-connections decides (policies.md sections 1 and 2).
//!
//! ```text
//!   connection.rs   one connection: accepting, reading, writing, failing, closing   the epoll datapath
//!   target.rs       one address: found or made, kept, forgotten                     middle_proxy/links
//!   pool.rs         the connections to one address: how many, when, which           middle_proxy/links
//! ```
//! Nothing here holds a connection or reads a clock.

pub mod connection;
pub mod pool;
pub mod target;
