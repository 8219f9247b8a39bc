//! Memory for messages.

use mtproxy_core::policy::net_msg_buffers::{
    Allocation, PressureInput, SIZE_CLASSES, allocate, bytes_to_free, class_for, is_pressed, spares_kept,
};

/// The size of the buffer for `len` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_msg_buffers_size(len: usize) -> usize {
    SIZE_CLASSES[class_for(len)]
}

/// How many empty buffers of that size are kept.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_msg_buffers_spares(len: usize) -> usize {
    spares_kept(class_for(len))
}

/// True if there is memory for `len` more bytes.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_msg_buffers_may_allocate(len: usize, used: usize, limit: usize) -> bool {
    matches!(allocate(len, used, limit), Allocation::Class(_))
}

/// How many bytes must go.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_msg_buffers_to_free(used: usize, limit: usize) -> usize {
    bytes_to_free(PressureInput { used_bytes: used, limit_bytes: limit })
}

/// True if `percent` of the limit are used.
#[unsafe(no_mangle)]
pub extern "C" fn mtproxy_net_msg_buffers_is_pressed(used: usize, limit: usize, percent: u32) -> bool {
    is_pressed(PressureInput { used_bytes: used, limit_bytes: limit }, percent)
}
