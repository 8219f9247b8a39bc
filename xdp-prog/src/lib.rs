//! The steering program: built from C, embedded, loaded and configured.
#![forbid(unsafe_code)]
