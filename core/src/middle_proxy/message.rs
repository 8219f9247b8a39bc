//! What middle proxies say behind the handshake, and what we say back (protocol.md sections 7.7 and 7.8).
//!
//! ```text
//!  0      4                12        16
//!  ├ op ──┼ flags ┼ conn id ─────────┼ data: a packet for the client ──┤   RPC_PROXY_ANS
//!  ├ op ──┼ conn id ───────┼ token ──┤                                     RPC_SIMPLE_ACK
//!  ├ op ──┼ conn id ───────┤                                               RPC_CLOSE_EXT, RPC_CLOSE_CONN
//!  ├ op ──┼ number ────────┤                                               RPC_PING, RPC_PONG
//! ```

const PROXY_ANS: u32 = 0x4403_da0d;
const SIMPLE_ACK: u32 = 0x3bac_409b;
const CLOSE_EXT: u32 = 0x5eb6_34a2;
const CLOSE_CONN: u32 = 0x1fcf_425d;
const PING: u32 = 0x5730_a2df;
const PONG: u32 = 0x8430_eaa7;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet for a client.
    ProxyAns {
        /// 8: at once, 16: an error; both are of no consequence.
        flags: u32,
        /// Which client.
        conn_id: i64,
        /// The packet.
        data: &'a [u8],
    },
    /// A packet of a client has arrived.
    SimpleAck {
        /// Which client.
        conn_id: i64,
        /// What the client knows the packet by.
        token: u32,
    },
    /// A client's conversation is over, says the middle proxy.
    CloseExt {
        /// Which client.
        conn_id: i64,
    },
    /// The same, as a proxy says it.
    CloseConn {
        /// Which client.
        conn_id: i64,
    },
    /// Are you there?
    Ping {
        /// To be said again in the answer.
        id: i64,
    },
    /// I am.
    Pong {
        /// From the question.
        id: i64,
    },
    /// Something else.
    Unknown {
        /// Its first word.
        op: u32,
    },
    /// A known message of a length that it cannot have.
    Malformed {
        /// Its first word; zero if there is not even one.
        op: u32,
    },
}

impl<'a> Message<'a> {
    /// Reads a payload.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Self {
        let Some((op, rest)) = payload.split_first_chunk::<4>() else { return Self::Malformed { op: 0 } };
        let op = u32::from_le_bytes(*op);
        let parsed = match op {
            PROXY_ANS => proxy_ans(rest),
            SIMPLE_ACK => simple_ack(rest),
            CLOSE_EXT => number(rest).map(|conn_id| Self::CloseExt { conn_id }),
            CLOSE_CONN => number(rest).map(|conn_id| Self::CloseConn { conn_id }),
            PING => number(rest).map(|id| Self::Ping { id }),
            PONG => number(rest).map(|id| Self::Pong { id }),
            _ => return Self::Unknown { op },
        };
        parsed.unwrap_or(Self::Malformed { op })
    }
}

fn proxy_ans(rest: &[u8]) -> Option<Message<'_>> {
    let (flags, rest) = rest.split_first_chunk()?;
    let (conn_id, data) = rest.split_first_chunk()?;
    let (flags, conn_id) = (u32::from_le_bytes(*flags), i64::from_le_bytes(*conn_id));
    Some(Message::ProxyAns { flags, conn_id, data })
}

fn simple_ack(rest: &[u8]) -> Option<Message<'_>> {
    let (conn_id, token) = rest.split_first_chunk()?;
    let token = u32::from_le_bytes(token.try_into().ok()?);
    Some(Message::SimpleAck { conn_id: i64::from_le_bytes(*conn_id), token })
}

fn number(rest: &[u8]) -> Option<i64> {
    rest.try_into().ok().map(i64::from_le_bytes)
}

/// Nobody here is `conn_id` any more.
#[must_use]
pub fn close_conn(conn_id: i64) -> [u8; 12] {
    numbered(CLOSE_CONN, conn_id)
}

/// Are you there?
#[must_use]
pub fn ping(id: i64) -> [u8; 12] {
    numbered(PING, id)
}

/// I am.
#[must_use]
pub fn pong(id: i64) -> [u8; 12] {
    numbered(PONG, id)
}

/// The number in a ping; also a client may send one (protocol.md section 5, item 3).
#[must_use]
pub fn parse_ping(payload: &[u8]) -> Option<i64> {
    match Message::parse(payload) {
        Message::Ping { id } => Some(id),
        _ => None,
    }
}

fn numbered(op: u32, number: i64) -> [u8; 12] {
    let mut payload = [0; 12];
    payload[..4].copy_from_slice(&op.to_le_bytes());
    payload[4..].copy_from_slice(&number.to_le_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(op: u32, rest: &[u8]) -> Vec<u8> {
        [&op.to_le_bytes(), rest].concat()
    }

    #[test]
    fn answers_and_acknowledgements_are_taken_apart() {
        let answer =
            payload(PROXY_ANS, &[&24_u32.to_le_bytes()[..], &(-5_i64).to_le_bytes(), b"data"].concat());
        let expected = Message::ProxyAns { flags: 24, conn_id: -5, data: b"data" };
        assert_eq!(Message::parse(&answer), expected);
        let ack = payload(SIMPLE_ACK, &[&7_i64.to_le_bytes()[..], &0x8000_0001_u32.to_le_bytes()].concat());
        assert_eq!(Message::parse(&ack), Message::SimpleAck { conn_id: 7, token: 0x8000_0001 });
    }

    #[test]
    fn each_message_has_its_length_and_no_other() {
        for (op, len_min, len_max) in [
            (PROXY_ANS, 16, usize::MAX),
            (SIMPLE_ACK, 16, 16),
            (CLOSE_EXT, 12, 12),
            (CLOSE_CONN, 12, 12),
            (PING, 12, 12),
            (PONG, 12, 12),
        ] {
            for len in (4..=24).step_by(4) {
                let is_malformed =
                    Message::parse(&payload(op, &vec![0; len - 4])) == Message::Malformed { op };
                assert_eq!(is_malformed, !(len_min..=len_max).contains(&len), "{op:#x} {len}");
            }
        }
        assert_eq!(Message::parse(&[1, 2, 3]), Message::Malformed { op: 0 });
        assert_eq!(Message::parse(&payload(5, &[])), Message::Unknown { op: 5 });
    }

    #[test]
    fn what_is_composed_is_read_again() {
        assert_eq!(Message::parse(&close_conn(-1)), Message::CloseConn { conn_id: -1 });
        assert_eq!(Message::parse(&ping(3)), Message::Ping { id: 3 });
        assert_eq!(Message::parse(&pong(4)), Message::Pong { id: 4 });
        assert_eq!((parse_ping(&ping(9)), parse_ping(&pong(9))), (Some(9), None));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(payload: Vec<u8>) {
            let _ = Message::parse(&payload);
        }
    }
}
