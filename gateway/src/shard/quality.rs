//! PING and PONG between a client and its shard, and with them how good the connection is
//! (`protocol::quality`).
//!
//! It ends no connection: who has been silent for too long is `handle_deadline`'s to
//! decide. Invariant: a PING makes one frame, whatever it says, and a session at most one
//! record for each of its backends in half a heartbeat.

use protocol::body::Body;
use protocol::quality::{Arrivals, Digest, Ping, Pong, Quality};
use protocol::reason::CloseReason;
use protocol::time::Now;
use protocol::uplink::{self, Record};

use super::Shard;
use super::connection::{Connection, Phase, Told};
use crate::engine::ConnId;

impl Connection {
    /// How the client's frames come.
    fn arrivals(&self) -> Arrivals {
        match (&self.ciphers, &self.datagrams) {
            (Some(ciphers), _) => Arrivals {
                jitter_us: ciphers.clock.jitter_us(),
                loss: 0,
            },
            (None, Some(datagrams)) => datagrams.end.arrivals(),
            (None, None) => Arrivals::default(),
        }
    }

    /// How good it is.
    pub fn quality(&self) -> Quality {
        self.meter.quality(self.arrivals())
    }

    fn update_loss(&mut self) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.end.update_loss();
        }
    }
}

impl Shard {
    /// Answers a client's PING.
    pub(super) fn handle_ping(
        &mut self,
        now: Now,
        connection: &mut Connection,
        ping: &Ping,
    ) -> Result<(), CloseReason> {
        connection.update_loss();
        let arrivals = connection.arrivals();
        let (pong, sample) = connection.meter.handle_ping(now.time, ping, arrivals);
        self.count_round_trip(sample);
        let queued = connection.queued_bytes().try_into().unwrap_or(u32::MAX);
        self.counters.send_queues.add(queued);
        self.tell_quality(now, connection);
        self.lend_out(connection);
        connection.seal(now.time, &Body::Pong(pong));
        self.counters.frames_sent.add(1);
        self.check_send_queue(connection)
    }

    /// A client's answer to our own PING.
    pub(super) fn handle_pong(&self, now: Now, connection: &mut Connection, pong: &Pong) {
        let sample = connection.meter.handle_pong(now.time, pong);
        self.count_round_trip(sample);
    }

    fn count_round_trip(&self, sample: Option<u32>) {
        if let Some(us) = sample {
            self.counters.round_trips.add(us);
        }
    }

    /// Tells the session's backends how good its connection is, where they would notice.
    fn tell_quality(&mut self, now: Now, connection: &mut Connection) {
        let quality = connection.quality();
        let Phase::Session(session) = &mut connection.phase else {
            return;
        };
        let told = Told {
            digest: quality.digest(),
            at_ms: now.time.wire_ms(),
        };
        let is_first = session.told.digest == Digest::default();
        let since_ms = told.at_ms.wrapping_sub(session.told.at_ms);
        // PINGs come a heartbeat apart, or a little less where the one before was late.
        let is_due = since_ms >= self.config.heartbeat_interval_ms / 2;
        let is_news = is_first || is_due && told.digest.differs(&session.told.digest);
        if quality.ours.round_trip_us == 0 || !is_news {
            return;
        }
        session.told = told;
        let id = session.id;
        for binding in &session.bindings {
            if let Some(at) = binding.uplink.map(usize::from)
                && self.uplinks[at].holds(binding)
            {
                let out = self.uplinks[at].stream(uplink::stream_of(id));
                uplink::encode(id, &Record::Quality(quality), out);
            }
        }
    }

    /// Asks a client that has long been silent for a sign of life.
    pub(super) fn ping(&mut self, now: Now, id: ConnId) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        if connection.is_stream() && connection.out.capacity() == 0 {
            connection.out = self.buffers.take();
        }
        connection.update_loss();
        let arrivals = connection.arrivals();
        let ping = connection.meter.ping(now.time, arrivals);
        connection.seal(now.time, &Body::Ping(ping));
        self.counters.frames_sent.add(1);
        self.list_for_send(id);
    }
}
