//! A real web site, as far as strangers can tell: it has bytes of its own and keeps what it is sent.
//!
//! A stranger who gets exactly [`FrontSite::ANSWER_LEN`] bytes of [`answer`](FrontSite::answer) has
//! spoken with it, and nobody else has those bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;

use crate::dc_codec::Ending;
use crate::error::PeerError;
use crate::pattern;
use crate::server::{Conversation, Server};

/// When a front site answers, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontManner {
    /// Answers the first bytes, then listens until the stranger closes.
    AnswersAtOnce,
    /// Answers the first bytes and closes in the same breath: data and FIN arrive together.
    AnswersAndCloses,
    /// Answers only when the stranger has sent FIN: proof of a half-close that got through.
    AnswersAtEof,
    /// Closes for sending before it has heard anything, and keeps what the stranger says.
    OnlyListens,
}

/// A real site, until dropped. Each session's report is every byte it was sent.
#[derive(Debug)]
pub struct FrontSite {
    server: Server<Vec<u8>>,
}

impl FrontSite {
    /// Length of the answer: several segments, so that one lost from the middle or the end shows.
    pub const ANSWER_LEN: usize = 5000;

    /// A site on a free port of `127.0.0.1`.
    #[must_use]
    pub fn start(manner: FrontManner) -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), manner)
    }

    /// A site on `address`; port 0 is a free one.
    #[must_use]
    pub fn start_on(address: SocketAddr, manner: FrontManner) -> Self {
        Self { server: Server::start(address, move |_| FrontCodec::new(manner)) }
    }

    /// The bytes it answers with, always the same.
    #[must_use]
    pub fn answer() -> Vec<u8> {
        // Far from position 0, where the tests' payload comes from.
        pattern::bytes(1 << 40, Self::ANSWER_LEN)
    }
}

impl Deref for FrontSite {
    type Target = Server<Vec<u8>>;

    fn deref(&self) -> &Server<Vec<u8>> {
        &self.server
    }
}

struct FrontCodec {
    manner: FrontManner,
    output: Vec<u8>,
    ending: Option<Ending>,
    answered: bool,
}

impl FrontCodec {
    fn new(manner: FrontManner) -> Self {
        let ending = (manner == FrontManner::OnlyListens).then_some(Ending::HalfClose);
        Self { manner, output: Vec::new(), ending, answered: false }
    }

    fn answer(&mut self) {
        if !self.answered {
            self.answered = true;
            self.output = FrontSite::answer();
        }
    }
}

impl Conversation for FrontCodec {
    type Report = Vec<u8>;

    fn receive(&mut self, bytes: &[u8], report: &mut Vec<u8>) -> Result<(), PeerError> {
        report.extend_from_slice(bytes);
        match self.manner {
            FrontManner::AnswersAtOnce => self.answer(),
            FrontManner::AnswersAndCloses => {
                self.answer();
                self.ending = Some(Ending::Close);
            }
            FrontManner::AnswersAtEof | FrontManner::OnlyListens => {}
        }
        Ok(())
    }

    fn end_of_input(&mut self) {
        if self.manner == FrontManner::AnswersAtEof {
            self.answer();
        }
        self.ending = Some(Ending::Close);
    }

    fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn fill(&mut self, wire: &mut Vec<u8>, _len_min: usize) {
        wire.append(&mut self.output);
    }

    fn take_ending(&mut self) -> Option<Ending> {
        self.ending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::InputEnd;
    use crate::socket::{Pace, ReadEnd, Socket};

    #[test]
    fn every_byte_is_kept_and_the_answer_is_always_the_same() {
        for manner in [FrontManner::AnswersAtOnce, FrontManner::AnswersAndCloses, FrontManner::AnswersAtEof] {
            let front = FrontSite::start(manner);
            let mut stranger = Socket::connect(front.address());
            stranger.send(b"GET / HTTP/1.1", Pace::WHOLE);
            if manner != FrontManner::AnswersAndCloses {
                stranger.half_close();
            }
            assert_eq!(stranger.read_to_end(), (FrontSite::answer(), ReadEnd::Eof), "{manner:?}");
            let sessions = front.wait_until("the end", |s| s.iter().all(|s| s.closed));
            assert_eq!(sessions[0].report, b"GET / HTTP/1.1");
        }
    }

    #[test]
    fn a_site_that_only_listens_says_so_with_a_fin_and_keeps_listening() {
        let front = FrontSite::start(FrontManner::OnlyListens);
        let mut stranger = Socket::connect(front.address());
        assert_eq!(stranger.read_to_end(), (vec![], ReadEnd::Eof));
        stranger.send(b"still here", Pace::pieces(1));
        stranger.half_close();
        let sessions = front.wait_until("the end", |s| s[0].closed);
        assert_eq!(sessions[0].report, b"still here");
        assert_eq!(sessions[0].input_end, Some(InputEnd::Eof));
    }
}
