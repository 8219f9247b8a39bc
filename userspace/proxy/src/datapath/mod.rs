//! Datapaths: what moves ordered bytes between the network and the engine.
//!
//! A datapath knows connections and bytes, never sessions, secrets or policies; the engine knows those,
//! never a socket. A worker drives one datapath in turns of *wait, receive, time out*.

pub mod epoll;
