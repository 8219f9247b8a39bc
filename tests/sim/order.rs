//! The engine's actions as values of their own, so that they outlive the input and can be tampered with.

use std::net::SocketAddr;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::event::Event;
use mtproxy_core::stream::StreamId;

/// One action, with its bytes.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Dial { stream: StreamId, address: SocketAddr },
    Send { to: StreamId, bytes: Vec<u8> },
    Shutdown(StreamId),
    Close(StreamId),
    Abort(StreamId),
    Resume(StreamId),
    Report(Event),
}

/// Takes the actions out; `input` is what `Relay` points into.
pub(crate) fn take_orders(actions: &mut Actions, input: &[u8]) -> Vec<Order> {
    let order = |action: &Action| match action {
        Action::Dial { stream, address } => Order::Dial { stream: *stream, address: *address },
        Action::Write { to, range } => {
            Order::Send { to: *to, bytes: actions.bytes()[range.clone()].to_vec() }
        }
        Action::Relay { to, range } => Order::Send { to: *to, bytes: input[range.clone()].to_vec() },
        Action::Shutdown(stream) => Order::Shutdown(*stream),
        Action::Close(stream) => Order::Close(*stream),
        Action::Abort(stream) => Order::Abort(*stream),
        Action::Resume(stream) => Order::Resume(*stream),
        Action::Report(event) => Order::Report(*event),
    };
    let orders = actions.as_slice().iter().map(order).collect();
    actions.clear();
    orders
}
