//! The event loop of the data centre.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use mtproxy_tests::pattern;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::conversation::{Conversation, Supplies};
use super::{NOISE_LEN, SOURCE_PROOF_LEN, Service};
use crate::socket_buffers::set_socket_buffers;

/// User data of standard input; those of the listeners are their services' indices above it.
const STDIN: u64 = 1 << 32;
const LISTENER: u64 = STDIN + 1;
/// Connections accepted before the open ones have their turn again.
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_WAIT: usize = 256;

/// Serves until standard input ends. Prints the ports once they can be connected to.
pub fn serve(bulk_buffer: u32) -> Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll")?;
    epoll::add(&epoll, std::io::stdin(), EventData::new_u64(STDIN), EventFlags::IN)
        .context("watching standard input, which must be a pipe")?;
    let mut listeners = Vec::new();
    for service in Service::ALL {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listening")?;
        listener.set_nonblocking(true).context("listening")?;
        if service != Service::Echo {
            // Inherited by the connections.
            set_socket_buffers(&listener, bulk_buffer)?;
        }
        let data = EventData::new_u64(LISTENER + service.index() as u64);
        epoll::add(&epoll, &listener, data, EventFlags::IN).context("watching a listener")?;
        listeners.push(listener);
    }
    let ports: Vec<String> =
        listeners.iter().filter_map(|l| Some(l.local_addr().ok()?.port().to_string())).collect();
    println!("{}", ports.join(" "));
    std::io::stdout().flush().context("telling the ports")?;
    Loop { epoll, listeners, conversations: Vec::new(), supplies: Supplies::new(proof(), noise()) }.run()
}

fn proof() -> Vec<u8> {
    pattern::bytes(0, SOURCE_PROOF_LEN)
}

fn noise() -> Vec<u8> {
    pattern::bytes(1 << 40, NOISE_LEN)
}

struct Loop {
    epoll: OwnedFd,
    /// By [`Service::index`].
    listeners: Vec<TcpListener>,
    /// By file descriptor: small numbers, reused by the kernel.
    conversations: Vec<Option<Conversation>>,
    supplies: Supplies,
}

impl Loop {
    fn run(mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_PER_WAIT);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for events"),
            }
            for event in &events {
                let flags = event.flags;
                match event.data.u64() {
                    STDIN => return Ok(()),
                    data if data >= LISTENER => self.accept(usize::try_from(data - LISTENER)?)?,
                    descriptor => self.converse(usize::try_from(descriptor)?, flags)?,
                }
            }
        }
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let socket = match self.listeners[index].accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The client has gone again.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accepting"),
            };
            socket.set_nonblocking(true).context("accepting")?;
            socket.set_nodelay(true).context("accepting")?;
            let descriptor = usize::try_from(socket.as_raw_fd())?;
            let data = EventData::new_u64(descriptor as u64);
            epoll::add(&self.epoll, &socket, data, EventFlags::IN).context("watching a connection")?;
            if self.conversations.len() <= descriptor {
                self.conversations.resize_with(descriptor + 1, || None);
            }
            self.conversations[descriptor] = Some(Conversation::new(socket, Service::ALL[index]));
        }
        Ok(())
    }

    fn converse(&mut self, descriptor: usize, flags: EventFlags) -> Result<()> {
        let Some(conversation) = self.conversations.get_mut(descriptor).and_then(Option::as_mut) else {
            return Ok(());
        };
        let interest = conversation.interest();
        if !conversation.proceed(flags, &mut self.supplies) {
            self.conversations[descriptor] = None;
            return Ok(());
        }
        if conversation.interest() != interest {
            let data = EventData::new_u64(descriptor as u64);
            epoll::modify(&self.epoll, conversation.socket(), data, conversation.interest())
                .context("watching a connection")?;
        }
        Ok(())
    }
}
