//! A path of datagrams beside a connection over a stream (PROTOCOL §12): the client asks for
//! it, proves it, and sends its unreliable and sequenced messages that way while it carries.
//!
//! Not here: the stream, which carries all the rest, and everything while the path does not.
//!
//! Invariant: whatever becomes of the path, the connection notices nothing.

use super::{Client, Event, Shared, State, Wire};
use crate::body::{Body, is_direct};
use crate::cipher::RekeyPolicy;
use crate::datagram::chunk::{Chunk, Chunks};
use crate::datagram::end::DIRECT_BYTES_MAX;
use crate::datagram::side::{Proof, SECRET_BYTES, SideKeys};
use crate::datagram::{Cid, End, split};
use crate::limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX};
use crate::reason::CloseReason;
use crate::time::Time;

use super::Closed;

/// Time, ms, until a challenge is repeated; each further time twice as long.
const RETRY_MS: u64 = 250;

/// Challenges without an answer after which the path is left alone for a while: 3.75 s later.
const TRIES_MAX: u32 = 5;

/// How long, ms, it is left alone then: a network that blocks UDP mostly goes on doing so.
const PAUSE_MS: u64 = 30_000;

/// What a client has of its side path.
#[derive(Debug, Default)]
pub(super) struct SidePath {
    /// The driver can send datagrams to the gateway.
    offered: bool,
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    end: End,
    proof: Proof,
    asked_at: Time,
    /// Challenges since the last answer.
    tries: u32,
    /// There was a message for the path since the last challenge.
    wanted: bool,
}

impl Open {
    /// When the path is to be asked whether it carries.
    fn ask_at(&self) -> Option<Time> {
        match self.tries {
            0 => self
                .wanted
                .then(|| self.proof.ask_at().unwrap_or(self.asked_at)),
            tries if tries < TRIES_MAX => Some(self.asked_at.after_ms(RETRY_MS << (tries - 1))),
            _ => self.wanted.then(|| self.asked_at.after_ms(PAUSE_MS)),
        }
    }

    fn ask(&mut self, now: Time) {
        if self.ask_at().is_none_or(|at| now < at) {
            return;
        }
        if self.tries == TRIES_MAX {
            self.tries = 0;
        }
        self.tries += 1;
        self.asked_at = now;
        self.wanted = false;
        self.end.set_challenge(Some(self.proof.challenge()));
        // A path that does not carry what it is to carry is none; and an address that has
        // not shown that it is ours is sent no more than came from it.
        if !self.proof.holds(now) {
            self.end.pad();
        }
    }
}

impl SidePath {
    /// The gateway has opened it. `false` if nobody asked for it.
    pub(super) fn open(
        &mut self,
        now: Time,
        cid: Cid,
        secret: &[u8; SECRET_BYTES],
        policy: RekeyPolicy,
    ) -> bool {
        if !self.offered || self.open.is_some() {
            return false;
        }
        let keys = SideKeys::derive(secret);
        let (seal, open) = (keys.client, keys.gateway);
        self.open = Some(Box::new(Open {
            end: End::new(cid, seal, open, policy, None, FRAME_BYTES_MAX, now),
            proof: Proof::default(),
            asked_at: now,
            tries: 0,
            wanted: true,
        }));
        true
    }

    /// Its connection is over.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// A message went, or came, that is the path's to carry.
    pub(super) fn want(&mut self) {
        if let Some(open) = &mut self.open {
            open.wanted = true;
        }
    }

    /// Takes a message that may get lost, if the path carries it.
    pub(super) fn push(&mut self, now: Time, flags: u8, body: &Body<'_>) -> bool {
        self.want();
        let (Some(open), Body::Message { header, payload }) = (&mut self.open, body) else {
            return false;
        };
        if !open.proof.holds(now) || header.encoded_bytes() + payload.len() > DIRECT_BYTES_MAX {
            return false;
        }
        let mut head = Vec::with_capacity(MESSAGE_HEADER_BYTES_MAX);
        header.encode(&mut head);
        open.end.push(flags, &[&head, payload]);
        true
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.open.as_ref().and_then(|open| open.ask_at())
    }
}

impl Client {
    /// The driver can send datagrams to the gateway: from the next login, or resume, over a
    /// stream on, a side path is asked for.
    pub fn offer_side_path(&mut self) {
        self.side.offered = true;
    }

    /// Whether unreliable and sequenced messages leave by the side path now.
    pub fn is_side_path_up(&self, now: Time) -> bool {
        let open = self.side.open.as_ref();
        open.is_some_and(|open| open.proof.holds(now))
    }

    /// Logged in: asks for the path where the driver offers one.
    pub(super) fn open_side_path(&mut self, now: Time) {
        if let State::Up(connection) = &mut self.state
            && self.side.offered
            && matches!(connection.wire, Wire::Stream(_))
        {
            connection.seal(now, 0, &mut self.out, |out| Body::SideOpen.encode(out));
        }
    }

    /// One datagram arrived by the side path; it is opened in place.
    pub fn handle_side_received(
        &mut self,
        now: Time,
        data: &mut [u8],
        shared: &mut Shared,
        events: &mut impl FnMut(Event<'_>),
    ) {
        let (Some((_, frame)), Some(open)) = (split(data), &mut self.side.open) else {
            return;
        };
        // What does not verify is somebody else's, or broken on its way.
        let Ok(opened) = open.end.open(now, frame) else {
            return;
        };
        let bad = Closed::ByClient(CloseReason::BadBody);
        for chunk in Chunks::new(opened.body) {
            let Some(open) = &mut self.side.open else {
                return;
            };
            let outcome = match chunk {
                Ok(Chunk::Challenge(token)) => {
                    open.end.handle_challenge(token);
                    Ok(())
                }
                Ok(Chunk::Response(token)) => {
                    if open.proof.handle_response(now, token) {
                        open.tries = 0;
                        open.end.set_challenge(None);
                    }
                    Ok(())
                }
                Ok(Chunk::NewCid(cid)) => {
                    open.end.cid = cid;
                    Ok(())
                }
                Ok(Chunk::Body { flags, bytes }) if is_direct(bytes) => {
                    self.handle_whole(now, flags, opened.age, bytes, shared, events)
                }
                Ok(Chunk::Body { .. } | Chunk::Padding(_)) => Ok(()),
                Ok(Chunk::Data { .. } | Chunk::Ack(_)) | Err(_) => Err(bad),
            };
            if let Err(closed) = outcome {
                return self.close(closed, events);
            }
        }
    }

    /// Appends the next datagram for the side path, if there is one; call again at once.
    pub fn poll_side_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let Some(open) = &mut self.side.open else {
            return false;
        };
        open.ask(now);
        open.end.write(now, DATAGRAM_BYTES_MAX, out)
    }
}

#[cfg(test)]
mod tests;
