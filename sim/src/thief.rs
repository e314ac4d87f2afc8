//! Somebody who has copied a ticket with its key and tries to get into its session with it: the
//! least of a client that a gateway would answer.
//!
//! Invariant: what it does is what the client would have done.

use protocol::body::Body;
use protocol::check::{self, ClockOffset};
use protocol::cipher::{Opener, RekeyPolicy, Sealer};
use protocol::frame::Header;
use protocol::handshake::Initiator;
use protocol::ticket::Ticket;
use protocol::time::Time;

use crate::wire::Cutter;

/// How far it has come.
#[derive(Debug)]
enum State {
    /// The connection does not carry frames yet.
    Waits(Ticket),
    /// RESUME is out.
    Asked(Initiator),
    /// ATTACH is out.
    Proved(Box<(Opener, ClockOffset)>),
    /// It will hear nothing that it could read.
    Over,
}

/// A thief on its connection.
#[derive(Debug)]
pub struct Thief {
    /// Whose ticket it has.
    pub session: u64,
    /// The shard that it asked had still to hear that the session was given away.
    pub was_late: bool,
    state: State,
    cutter: Cutter,
}

impl Thief {
    /// With this ticket of a session.
    pub fn new(session: u64, ticket: Ticket) -> Self {
        Self {
            session,
            was_late: false,
            state: State::Waits(ticket),
            cutter: Cutter::default(),
        }
    }

    /// Frames can be sent: RESUME, if it is not out.
    pub fn begin(&mut self, now: Time, ephemeral: [u8; 32]) -> Vec<u8> {
        let mut out = Vec::new();
        if let State::Waits(ticket) = &self.state {
            let initiator = Initiator::resume(ticket, ephemeral, now.wire_ms(), &mut out);
            self.state = initiator.map_or(State::Over, State::Asked);
        }
        out
    }

    /// Bytes came. Appends the frames to be sent; whether it has got in.
    pub fn handle_received(&mut self, now: Time, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut is_in = false;
        for mut frame in self.cutter.cut(bytes) {
            is_in |= self.handle_frame(now, &mut frame, out);
        }
        is_in
    }

    fn handle_frame(&mut self, now: Time, frame: &mut [u8], out: &mut Vec<u8>) -> bool {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Asked(initiator) => {
                let peer_ms = Header::decode(frame).map_or(0, |header| header.timestamp_ms);
                if let Ok((keys, _)) = initiator.welcome(frame) {
                    let mut sealer = Sealer::new(keys.client, now, RekeyPolicy::default());
                    sealer.seal(now, 0, out, |out| Body::Attach.encode(out));
                    let clock = ClockOffset::new(peer_ms, now);
                    self.state = State::Proved(Box::new((Opener::new(keys.gateway), clock)));
                }
                false
            }
            State::Proved(mut keys) => {
                let (opener, clock) = &mut *keys;
                let opened = check::open(frame, opener, clock, now);
                let body = opened
                    .ok()
                    .and_then(|opened| Body::decode(opened.body).ok());
                let is_in = matches!(body, Some(Body::LoginOk { .. }));
                self.state = State::Proved(keys);
                is_in
            }
            state @ (State::Waits(_) | State::Over) => {
                self.state = state;
                false
            }
        }
    }
}
