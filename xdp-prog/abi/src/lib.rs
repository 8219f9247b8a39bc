//! What the steering program and user space share.
#![no_std]
#![forbid(unsafe_code)]
