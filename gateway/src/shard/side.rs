//! Side paths (PROTOCOL §12): datagrams beside a connection over a stream, which carry the
//! messages that may get lost, while the path carries them both ways.
//!
//! Not here: what every connection over datagrams has, which is `datagrams`; such a path is
//! one of these whose connection is the stream's.
//!
//! Invariants:
//! - A path has keys of its own, is opened at most once a connection, and ends with it.
//! - What does not leave by the path leaves by the stream: nothing is lost by having one but
//!   what a path that breaks swallows until that is noticed.

use protocol::body::Body;
use protocol::datagram::end::DIRECT_BYTES_MAX;
use protocol::datagram::side::{Proof, SECRET_BYTES, SideKeys};
use protocol::datagram::{Cid, End};
use protocol::limits::LOGIN_FRAME_BYTES_MAX;
use protocol::reason::{CloseReason, DropReason};
use protocol::time::{Now, Time};
use rand_core::RngCore;

use super::Shard;
use super::connection::Connection;
use super::datagrams::Datagrams;
use super::story::Event;

impl Datagrams {
    /// The client asks whether the path carries; where that is not known on our side
    /// either, we ask back in the same datagram.
    pub(super) fn handle_challenge(&mut self, now: Time, token: [u8; 8]) {
        self.end.handle_challenge(token);
        self.ask_again(now);
    }

    /// With what leaves next, a side path is to show that it still carries.
    fn ask_again(&mut self, now: Time) {
        if let Some(proof) = &self.side
            && proof.is_old(now)
            && !self.is_in_doubt()
        {
            self.end.set_challenge(Some(proof.challenge()));
        }
    }

    /// An answer that is none of a new address: to what a side path asked.
    pub(super) fn handle_response(&mut self, now: Time, token: [u8; 8]) {
        let in_doubt = self.is_in_doubt();
        if let Some(proof) = &mut self.side
            && !in_doubt
            && proof.handle_response(now, token)
        {
            self.end.set_challenge(None);
        }
    }
}

impl Connection {
    /// Takes a message that may get lost, if a side path carries it.
    pub(super) fn push_beside(
        &mut self,
        now: Time,
        flags: u8,
        head: &[u8],
        payload: &[u8],
    ) -> bool {
        let Some(datagrams) = self.datagrams.as_deref_mut() else {
            return false;
        };
        let carries = datagrams.side.as_ref().is_some_and(|proof| {
            proof.holds(now)
                && !datagrams.is_in_doubt()
                && head.len() + payload.len() <= DIRECT_BYTES_MAX
        });
        if carries {
            datagrams.end.push(flags, &[head, payload]);
            datagrams.ask_again(now);
        }
        carries
    }
}

impl Shard {
    /// A client over a stream wants a side path.
    pub(super) fn open_side(
        &mut self,
        now: Now,
        connection: &mut Connection,
    ) -> Result<(), CloseReason> {
        if connection.datagrams.is_some() {
            return Err(CloseReason::BadBody);
        }
        let cid = Cid::new(self.config.shard.0 as u8, self.random.next_u64());
        let Some(side) = &mut self.datagrams else {
            self.counters.drop_frame(DropReason::UnknownKind);
            return Ok(());
        };
        if !side.insert(cid, connection.id) {
            // One in 2⁵⁶: no answer, no path.
            return Ok(());
        }
        let mut secret = [0; SECRET_BYTES];
        self.random.fill_bytes(&mut secret);
        let keys = SideKeys::derive(&secret);
        let end = End::new(
            cid,
            keys.gateway,
            keys.client,
            self.config.rekey,
            None,
            LOGIN_FRAME_BYTES_MAX,
            now.time,
        );
        let datagrams = Datagrams::new(end, None, Some(Proof::default()));
        connection.datagrams = Some(Box::new(datagrams));
        self.counters.side_paths.add(1);
        connection.note(now.time, Event::SidePath, 0);
        self.lend_out(connection);
        let secret = &secret;
        connection.seal(now.time, &Body::Side { cid, secret });
        self.counters.frames_sent.add(1);
        self.check_send_queue(connection)
    }
}

#[cfg(test)]
mod tests;
