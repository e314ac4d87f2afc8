//! What a proxy has seen, and its one-line form.

use std::fmt;

/// Everything is counted over both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// TCP connections that were taken.
    pub connections: u64,
    /// UDP flows that were begun.
    pub flows: u64,
    /// Connections and flows that were refused: the target did not answer, or there are as many
    /// as are allowed.
    pub refused: u64,
    /// Bytes of TCP that were passed on.
    pub stream_bytes: u64,
    /// Pieces of TCP that waited as if a segment had been lost.
    pub stream_stalls: u64,
    /// Datagrams that came.
    pub datagrams: u64,
    /// Datagrams that were passed on, copies included.
    pub passed: u64,
    /// Datagrams that were lost on purpose.
    pub lost: u64,
    /// Datagrams that were passed on twice.
    pub duplicated: u64,
    /// Datagrams that were held back so that later ones overtake them.
    pub reordered: u64,
    /// Datagrams that found no room: the rate, the queue of a flow, or a socket.
    pub overflowed: u64,
    /// Datagrams that came to a flow while it was silent, or when it was cut.
    pub silenced: u64,
    /// Flows that were cut.
    pub cuts: u64,
    /// Changes of a flow's address.
    pub rebinds: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            flows,
            refused,
            stream_bytes,
            stream_stalls,
            datagrams,
            passed,
            lost,
            duplicated,
            reordered,
            overflowed,
            silenced,
            cuts,
            rebinds,
        } = self;
        write!(
            f,
            "connections={connections} flows={flows} refused={refused} stream_bytes={stream_bytes} \
             stream_stalls={stream_stalls} datagrams={datagrams} passed={passed} lost={lost} \
             duplicated={duplicated} reordered={reordered} overflowed={overflowed} \
             silenced={silenced} cuts={cuts} rebinds={rebinds}"
        )
    }
}
