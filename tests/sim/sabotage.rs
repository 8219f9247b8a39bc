//! Ways to break a run on purpose, each of which one checker must notice.

use mtproxy_core::event::What;

use crate::order::Order;
use crate::violation::Checker;

/// Something that a broken engine or driver might do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    LosesOneByte,
    DoublesOneByte,
    ExchangesTwoBytes,
    BringsBytesToSomebodyElse,
    CutsOffTheEnd,
    IgnoresCredit,
    AcknowledgesTooEarly,
    AcknowledgesTooLittle,
    ForgetsToResume,
    ClosesTwice,
    WritesBehindFin,
    ForgetsToClose,
    ForgetsTheEnd,
    EndsTwice,
    AdmitsStrangers,
    DialsSomewhereElse,
    ClosesWhatShouldBeReset,
    SwallowsFin,
    ClosesTooEarly,
    HurriesTheClock,
    SleepsThroughDeadlines,
    SpinsForEver,
}

impl Sabotage {
    pub(crate) const ALL: [(Self, Checker); 22] = [
        (Self::LosesOneByte, Checker::Content),
        (Self::DoublesOneByte, Checker::Content),
        (Self::ExchangesTwoBytes, Checker::Content),
        (Self::BringsBytesToSomebodyElse, Checker::Content),
        (Self::CutsOffTheEnd, Checker::Completeness),
        (Self::IgnoresCredit, Checker::Credit),
        (Self::AcknowledgesTooEarly, Checker::QueueBound),
        (Self::AcknowledgesTooLittle, Checker::Backlog),
        (Self::ForgetsToResume, Checker::Liveness),
        (Self::ClosesTwice, Checker::Streams),
        (Self::WritesBehindFin, Checker::Streams),
        (Self::ForgetsToClose, Checker::Leftovers),
        (Self::ForgetsTheEnd, Checker::Events),
        (Self::EndsTwice, Checker::Events),
        (Self::AdmitsStrangers, Checker::Admission),
        (Self::DialsSomewhereElse, Checker::Dials),
        (Self::ClosesWhatShouldBeReset, Checker::Endings),
        (Self::SwallowsFin, Checker::Endings),
        (Self::ClosesTooEarly, Checker::Endings),
        (Self::HurriesTheClock, Checker::Timeouts),
        (Self::SleepsThroughDeadlines, Checker::Leftovers),
        (Self::SpinsForEver, Checker::Progress),
    ];

    /// Changes what the engine has ordered. `somebody_else` is an open stream of another session.
    pub(crate) fn tamper(
        self,
        orders: &mut Vec<Order>,
        somebody_else: Option<mtproxy_core::stream::StreamId>,
    ) {
        match self {
            Self::LosesOneByte | Self::DoublesOneByte | Self::ExchangesTwoBytes => {
                if let Some(bytes) = first_bytes(orders) {
                    self.tamper_with_bytes(bytes);
                }
            }
            Self::BringsBytesToSomebodyElse => {
                let send = orders.iter_mut().find_map(|order| match order {
                    Order::Send { to, .. } => Some(to),
                    _ => None,
                });
                if let (Some(to), Some(other)) = (send, somebody_else) {
                    *to = other;
                }
            }
            Self::ForgetsToResume => orders.retain(|order| !matches!(order, Order::Resume(_))),
            Self::ClosesTwice => double(orders, |order| matches!(order, Order::Close(_))),
            Self::ForgetsToClose => {
                orders.retain(|order| !matches!(order, Order::Close(_) | Order::Abort(_)));
            }
            Self::WritesBehindFin => {
                let at = orders.iter().position(|order| matches!(order, Order::Shutdown(_)));
                if let Some(&Order::Shutdown(to)) = at.map(|at| &orders[at]) {
                    orders.push(Order::Send { to, bytes: vec![0] });
                }
            }
            Self::ForgetsTheEnd => {
                orders.retain(|order| {
                    !matches!(order, Order::Report(event) if matches!(event.what, What::Ended { .. }))
                });
            }
            Self::EndsTwice => double(
                orders,
                |order| matches!(order, Order::Report(event) if matches!(event.what, What::Ended { .. })),
            ),
            Self::DialsSomewhereElse => {
                for order in orders {
                    if let Order::Dial { address, .. } = order {
                        address.set_port(444);
                    }
                }
            }
            Self::ClosesWhatShouldBeReset => {
                for order in orders {
                    if let Order::Abort(stream) = order {
                        *order = Order::Close(*stream);
                    }
                }
            }
            Self::ClosesTooEarly => {
                for order in orders {
                    if let Order::Shutdown(stream) = order {
                        *order = Order::Close(*stream);
                    }
                }
            }
            Self::SwallowsFin => orders.retain(|order| !matches!(order, Order::Shutdown(_))),
            Self::CutsOffTheEnd
            | Self::IgnoresCredit
            | Self::AcknowledgesTooEarly
            | Self::AcknowledgesTooLittle
            | Self::AdmitsStrangers
            | Self::HurriesTheClock
            | Self::SleepsThroughDeadlines
            | Self::SpinsForEver => {}
        }
    }

    /// `bytes` are more than a few.
    fn tamper_with_bytes(self, bytes: &mut Vec<u8>) {
        let (middle, last) = (bytes.len() / 2, bytes.len() - 1);
        match self {
            Self::LosesOneByte => drop(bytes.remove(middle)),
            Self::DoublesOneByte => bytes.insert(middle, bytes[middle]),
            _ => bytes.swap(0, last),
        }
    }
}

fn first_bytes(orders: &mut [Order]) -> Option<&mut Vec<u8>> {
    orders.iter_mut().find_map(|order| match order {
        Order::Send { bytes, .. } if bytes.len() > 20 => Some(bytes),
        _ => None,
    })
}

fn double(orders: &mut Vec<Order>, is_it: impl Fn(&Order) -> bool) {
    if let Some(at) = orders.iter().position(is_it) {
        let copy = orders[at].clone();
        orders.insert(at + 1, copy);
    }
}
