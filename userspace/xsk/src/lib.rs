//! The fence around AF_XDP.
