//! Decisions, apart from the mechanics that carry them out: typed inputs in, typed decisions out.
//!
//! ```text
//!   file               decides                                          policies.md   asked by
//!   net_connections/   accepting, reading, writing, pools, targets      1, 2          epoll datapath, middle_proxy/links
//!   net_events         flags of epoll, sleeping, idleness               3             epoll datapath, worker
//!   tcp_rpc_client     nonces, handshakes and silence of links          4             middle_proxy/link
//!   tcp_rpc_server     the other side of them; HTTP on the local port   5, 6          transport, the statistics port
//!   net_msg_buffers    sizes and limits of memory                       8             packet_buffers, engine
//!   net_thread         who is told of what                              9             engine
//!   forwarding         clients' packets and their links                 10            session/proxied, engine
//!   replay             which hellos are admitted                        6             session/handshaking
//!   address_memory     which addresses are tried last                   –             session/dialing
//! ```
//! Nothing here holds a session, a connection or a byte of theirs. docs/wave_a_status.md traces each decision of the C
//! proxy to its place, and says which fell away.

pub mod address_memory;
pub mod forwarding;
pub mod net_connections;
pub mod net_events;
pub mod net_msg_buffers;
pub mod net_thread;
pub mod replay;
pub mod tcp_rpc_client;
pub mod tcp_rpc_server;
