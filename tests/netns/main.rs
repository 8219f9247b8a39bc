//! The proxy on hosts of their own: network namespaces with one interface each, a router between them.
//!
//! Needs root, iproute2, ethtool and clang; without root each test says that it is skipped.

#![forbid(unsafe_code)]

mod afxdp_capture;
mod afxdp_crowd;
mod afxdp_endings;
mod afxdp_fail_open;
mod afxdp_loss;
mod afxdp_middle_proxies;
mod afxdp_offloads;
mod afxdp_queues;
mod afxdp_reattach;
mod afxdp_relay;
mod afxdp_scene;
mod afxdp_strangers;
mod afxdp_top;
mod drain;
mod network;
mod relay;
mod router_program;
