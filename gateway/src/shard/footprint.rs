//! What a shard keeps, for tests and fuzzing: the feature `testing`, in no release binary. Each
//! number is counted anew from what there is, not from what the counters say.

use super::Shard;
use super::connection::Phase;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Connections, those that are closing included.
    pub connections: usize,
    /// Of these, closing.
    pub closing: usize,
    /// Sessions with a connection.
    pub sessions: usize,
    /// Sessions without one.
    pub parked: usize,
    /// Claims that center has not answered.
    pub claims: usize,
    /// Tickets that center was asked for.
    pub seeks: usize,
    /// Sessions that center was asked to move here.
    pub moves: usize,
    /// Tickets that open something.
    pub tickets: usize,
    /// Ids of connections over datagrams.
    pub cids: usize,
    /// Addresses whose INIT is remembered.
    pub inits: usize,
    /// The most bytes that one client before login has here: frames that came in pieces and what
    /// waits to be sent.
    pub before_login_bytes_max: usize,
    /// The most segments that came early from one client before login.
    pub before_login_segments_max: usize,
}

impl Shard {
    /// Counts what there is.
    pub fn footprint(&self) -> Footprint {
        let connections = self.connections.iter().flatten();
        let (cids, inits) = self
            .datagrams
            .as_ref()
            .map_or((0, 0), |side| side.remembered());
        let mut footprint = Footprint {
            parked: self.parking.len(),
            claims: self.claims.len(),
            seeks: self.seeks.len(),
            moves: self.moves.len(),
            tickets: self.tickets.len(),
            cids,
            inits,
            ..Footprint::default()
        };
        for connection in connections {
            footprint.connections += 1;
            let datagrams = connection.datagrams.as_ref();
            let held = datagrams.map_or(0, |datagrams| datagrams.end.held_bytes());
            let segments = datagrams.map_or(0, |datagrams| datagrams.end.held_segments());
            let kept = connection.reassembly.pending_bytes() + held + connection.queued_bytes();
            match connection.phase {
                Phase::Session(_) => footprint.sessions += 1,
                Phase::Closing => footprint.closing += 1,
                _ => {
                    footprint.before_login_bytes_max = footprint.before_login_bytes_max.max(kept);
                    footprint.before_login_segments_max =
                        footprint.before_login_segments_max.max(segments);
                }
            }
        }
        footprint
    }
}
