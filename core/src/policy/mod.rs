//! Decisions, apart from the mechanics that carry them out: typed inputs in, typed decisions out.

pub mod address_memory;
pub mod replay;
