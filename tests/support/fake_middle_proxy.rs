//! A middle proxy on a real socket, with Telegram behind it.
//!
//! One thread serves any number of links ([`Server`]); what is said is [`MiddleProxyCodec`]'s business.
//! Links are numbered from 0 in order of acceptance, as [`Server::sessions`] has them; each can be given
//! orders while it runs.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::dc_codec::Ending;
use crate::error::PeerError;
use crate::middle_proxy::{
    DataFault, Ends, LinkCounters, LinkReport, MiddleProxyCodec, MiddleProxyOptions, Misbehaviour,
    ProxyRequest,
};
use crate::server::{Accepted, Conversation, Server, Session};
use crate::test_client::{fresh_random, unix_seconds};

/// What a link of a middle proxy can be told while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// End at once, whatever is still to be sent.
    End(Ending),
    /// Read and say nothing. A link that does not read does not notice either that the proxy ends it.
    Stall,
    /// Go on after a stall.
    Resume,
    /// Ask the proxy whether it is there.
    Ping(i64),
    /// Send a client a packet that it has not asked for: whole words.
    Push {
        /// The proxy's number for the client's connection.
        connection: i64,
        /// The packet.
        packet: Vec<u8>,
    },
    /// Send this to every client of the link.
    PushToAll(Vec<u8>),
    /// Send a client a quick ack that it has not asked for.
    Acknowledge {
        /// The proxy's number for the client's connection.
        connection: i64,
        /// Bit 31 is set.
        token: u32,
    },
    /// Have a client's connection closed.
    CloseClient(i64),
    /// Do something wrong, now.
    Commit(DataFault),
}

/// What all links and the test share.
#[derive(Debug)]
struct Desk {
    /// For links to come.
    options: MiddleProxyOptions,
    /// One queue for each link.
    orders: Vec<VecDeque<LinkOrder>>,
}

/// A middle proxy, until dropped. Everything else it can do is [`Server`]'s.
#[derive(Debug)]
pub struct FakeMiddleProxy {
    server: Server<LinkReport>,
    desk: Arc<Mutex<Desk>>,
}

impl FakeMiddleProxy {
    /// A middle proxy on a free port of `127.0.0.1`.
    #[must_use]
    pub fn start(options: MiddleProxyOptions) -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options)
    }

    /// A middle proxy on a free port of `::1`.
    #[must_use]
    pub fn start_v6(options: MiddleProxyOptions) -> Self {
        Self::start_on(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), options)
    }

    /// A middle proxy on `address`; port 0 is a free one.
    #[must_use]
    pub fn start_on(address: SocketAddr, options: MiddleProxyOptions) -> Self {
        let desk = Arc::new(Mutex::new(Desk { options, orders: Vec::new() }));
        let converse = {
            let desk = Arc::clone(&desk);
            move |accepted| LinkConversation::new(accepted, Arc::clone(&desk))
        };
        Self { server: Server::start(address, converse), desk }
    }

    /// How links to come behave. Those that are there stay as they are.
    pub fn set_options(&self, options: MiddleProxyOptions) {
        lock(&self.desk).options = options;
    }

    /// What links to come do wrong. Those that are there stay as they are.
    pub fn set_misbehaviour(&self, misbehaviour: Option<Misbehaviour>) {
        lock(&self.desk).options.misbehaviour = misbehaviour;
    }

    /// Gives a link an order. Orders to a link that has ended are lost.
    ///
    /// # Panics
    /// If there has been no such link.
    #[track_caller]
    pub fn order(&self, link: usize, order: LinkOrder) {
        let mut desk = lock(&self.desk);
        let links = desk.orders.len();
        let Some(orders) = desk.orders.get_mut(link) else { panic!("link {link} of {links}") };
        orders.push_back(order);
        drop(desk);
        self.server.call();
    }

    /// Ends a link with FIN, at once.
    #[track_caller]
    pub fn kill_link(&self, link: usize) {
        self.order(link, LinkOrder::End(Ending::Close));
    }

    /// Ends a link with RST, at once.
    #[track_caller]
    pub fn reset_link(&self, link: usize) {
        self.order(link, LinkOrder::End(Ending::Reset));
    }

    /// A link reads and says nothing until [`resume_link`](Self::resume_link).
    #[track_caller]
    pub fn stall_link(&self, link: usize) {
        self.order(link, LinkOrder::Stall);
    }

    /// A link goes on after a stall.
    #[track_caller]
    pub fn resume_link(&self, link: usize) {
        self.order(link, LinkOrder::Resume);
    }

    /// Sends a client a packet that it has not asked for.
    #[track_caller]
    pub fn push(&self, link: usize, connection: i64, packet: &[u8]) {
        self.order(link, LinkOrder::Push { connection, packet: packet.to_vec() });
    }

    /// Waits until `count` links are ready and have not ended; their numbers.
    #[track_caller]
    pub fn wait_for_links(&self, count: usize) -> Vec<usize> {
        let is_there = |session: &Session<LinkReport>| session.report.is_ready() && !session.closed;
        let numbers = |sessions: &[Session<LinkReport>]| -> Vec<usize> {
            let ready = sessions.iter().enumerate().filter(|(_, session)| is_there(session));
            ready.map(|(link, _)| link).collect()
        };
        let what = format!("{count} links that are ready");
        numbers(&self.server.wait_until(&what, |sessions| numbers(sessions).len() >= count))
    }

    /// Waits for the first request that `is_it`; its link and itself.
    #[track_caller]
    pub fn wait_for_request(
        &self,
        what: &str,
        is_it: impl Fn(&ProxyRequest) -> bool,
    ) -> (usize, ProxyRequest) {
        let find = |sessions: &[Session<LinkReport>]| {
            let mut each = sessions.iter().enumerate();
            each.find_map(|(link, session)| Some((link, session.report.requests.iter().position(&is_it)?)))
        };
        let mut sessions = self.server.wait_until(what, |sessions| find(sessions).is_some());
        let (link, index) = find(&sessions).expect("waited for");
        (link, sessions[link].report.requests.swap_remove(index))
    }

    /// The recorded requests of all links, link by link.
    #[must_use]
    pub fn requests(&self) -> Vec<ProxyRequest> {
        self.server.sessions().into_iter().flat_map(|session| session.report.requests).collect()
    }

    /// What has been counted on each link.
    #[must_use]
    pub fn counters(&self) -> Vec<LinkCounters> {
        self.server.map_sessions(|session| session.report.counters)
    }

    /// Waits until what has been counted on all links, one by one, is as it should be.
    #[track_caller]
    pub fn wait_until_counted(&self, what: &str, condition: impl Fn(&[LinkCounters]) -> bool) {
        self.server.wait_until(what, |sessions| {
            condition(&sessions.iter().map(|session| session.report.counters).collect::<Vec<_>>())
        });
    }
}

impl Deref for FakeMiddleProxy {
    type Target = Server<LinkReport>;

    fn deref(&self) -> &Server<LinkReport> {
        &self.server
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().expect("nobody panics at the desk")
}

/// One link, and where its orders come from.
struct LinkConversation {
    codec: MiddleProxyCodec,
    desk: Arc<Mutex<Desk>>,
    link: usize,
}

impl LinkConversation {
    fn new(accepted: Accepted, desk: Arc<Mutex<Desk>>) -> Self {
        let mut locked = lock(&desk);
        let link = locked.orders.len();
        locked.orders.push(VecDeque::new());
        let options = locked.options.clone();
        drop(locked);
        let ends = Ends { proxy: canonical(accepted.peer), middle_proxy: canonical(accepted.local) };
        let codec = MiddleProxyCodec::new(options, ends, unix_seconds().cast_signed(), fresh_random());
        Self { codec, desk, link }
    }
}

/// A listener for both families sees IPv4 in disguise.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Conversation for LinkConversation {
    type Report = LinkReport;

    fn receive(&mut self, bytes: &[u8], report: &mut LinkReport) -> Result<(), PeerError> {
        let result = self.codec.receive(bytes);
        self.codec.move_report_to(report);
        Ok(result?)
    }

    fn end_of_input(&mut self) {
        self.codec.end_of_input();
    }

    fn has_output(&self) -> bool {
        self.codec.has_output()
    }

    fn fill(&mut self, wire: &mut Vec<u8>, len_min: usize) {
        self.codec.fill(wire, len_min);
    }

    fn take_ending(&mut self) -> Option<Ending> {
        self.codec.take_ending()
    }

    fn take_abrupt_ending(&mut self) -> Option<Ending> {
        self.codec.take_abrupt_ending()
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn is_reading(&self) -> bool {
        self.codec.is_reading()
    }

    fn attend(&mut self) -> Result<(), PeerError> {
        let orders = std::mem::take(&mut lock(&self.desk).orders[self.link]);
        for order in orders {
            match order {
                LinkOrder::End(ending) => self.codec.end_abruptly(ending),
                LinkOrder::Stall => self.codec.stall(),
                LinkOrder::Resume => self.codec.resume()?,
                LinkOrder::Ping(id) => self.codec.ping(id),
                LinkOrder::Push { connection, packet } => self.codec.push(connection, &packet),
                LinkOrder::PushToAll(packet) => {
                    self.codec.connections().into_iter().for_each(|each| self.codec.push(each, &packet));
                }
                LinkOrder::Acknowledge { connection, token } => self.codec.acknowledge(connection, token),
                LinkOrder::CloseClient(connection) => self.codec.close_client(connection),
                LinkOrder::Commit(fault) => self.codec.commit(&fault),
            }
        }
        Ok(())
    }

    fn report(&mut self, report: &mut LinkReport) {
        self.codec.move_report_to(report);
    }
}

#[cfg(test)]
mod tests;
