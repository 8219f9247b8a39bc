//! Decisions, apart from the mechanics that carry them out: typed inputs in, typed decisions out.

pub mod replay;
