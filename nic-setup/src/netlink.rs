//! Questions to the kernel over netlink, answered before the call returns.
//!
//! A socket belongs to the network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

/// The kernel makes no datagram of a dump larger than 32 KiB (`netlink_recvmsg`, net/netlink/af_netlink.c);
/// twice that leaves room for a link with many virtual functions.
const DATAGRAM_MAX_BYTES: usize = 64 * 1024;

/// The kernel answers inside `sendto`; an answer this late will not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A dump that others' changes interrupt this often is given up; the next notification asks again.
const DUMP_ATTEMPTS: usize = 8;

/// A socket on which questions are asked one at a time.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

/// What the kernel answered.
#[derive(Debug)]
pub struct Answer<I> {
    /// The messages, in the kernel's order.
    pub messages: Vec<I>,
    /// Messages left out because their content could not be decoded.
    pub undecodable: usize,
}

impl Netlink {
    /// Opens a socket of a netlink protocol, such as [`netlink_sys::protocols::NETLINK_ROUTE`].
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // A connected netlink socket takes unicast from its peer alone: here, the kernel.
        socket.connect(&SocketAddr::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM_MAX_BYTES) })
    }

    /// Asks for one object or for one change; `flags` beyond `NLM_F_REQUEST` and `NLM_F_ACK`.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's failure.
    pub fn request<I>(&mut self, message: I, flags: u16) -> io::Result<Answer<I>>
    where
        I: NetlinkSerializable + NetlinkDeserializable,
    {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        Ok(self.receive()?.0)
    }

    /// Asks for all objects of a kind. If they change meanwhile, asks again.
    ///
    /// # Errors
    /// The kernel's refusal, the socket's failure, or `Interrupted` if the objects do not hold still.
    pub fn dump<I>(&mut self, message: I) -> io::Result<Answer<I>>
    where
        I: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let (answer, consistent) = self.receive()?;
            if consistent {
                return Ok(answer);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the objects kept changing while they were listed"))
    }

    fn send<I: NetlinkSerializable>(&mut self, message: I, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads until the last question's answer is complete. False if it was interrupted by a change.
    fn receive<I: NetlinkDeserializable>(&mut self) -> io::Result<(Answer<I>, bool)> {
        let mut answer = Answer { messages: Vec::new(), undecodable: 0 };
        let mut consistent = true;
        loop {
            self.datagram.clear();
            self.socket.recv(&mut self.datagram, 0)?;
            for message in messages(&self.datagram) {
                let Ok(header) = NetlinkBuffer::new_checked(message) else { return Err(garbled()) };
                if header.sequence_number() != self.sequence {
                    // The rest of an answer that was given up earlier.
                    continue;
                }
                consistent &= header.flags() & NLM_F_DUMP_INTR == 0;
                match NetlinkMessage::<I>::deserialize(message).map(|message| message.payload) {
                    Ok(NetlinkPayload::InnerMessage(inner)) => answer.messages.push(inner),
                    Ok(NetlinkPayload::Error(error)) => {
                        return if error.code.is_none() {
                            Ok((answer, consistent))
                        } else {
                            Err(error.to_io())
                        };
                    }
                    Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    Ok(NetlinkPayload::Done(_)) => return Ok((answer, consistent)),
                    Ok(_) => {}
                    Err(_) => answer.undecodable += 1,
                }
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The messages of one datagram, each with its header. What follows a message with an impossible length is
/// left out.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let message = rest.get(..length)?;
        // Messages begin at multiples of four bytes (`NLMSG_ALIGN`, linux/netlink.h).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no netlink message")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message without content: length, type, flags, sequence number, port.
    fn empty_message(length: u8) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[0] = length;
        bytes
    }

    #[test]
    fn messages_are_separated_by_their_padded_lengths() {
        let mut datagram = empty_message(17);
        datagram.extend([7, 0, 0, 0]);
        datagram.extend(empty_message(16));
        let lengths: Vec<usize> = messages(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lengths, [17, 16]);
    }

    #[test]
    fn an_impossible_length_ends_the_datagram() {
        for length in [0, 15, 17] {
            assert_eq!(messages(&empty_message(length)).count(), 0, "{length}");
        }
        assert_eq!(messages(&empty_message(16)).count(), 1);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_walk_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
        }
    }
}
