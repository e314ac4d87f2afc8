//! What can happen in the world, and how it is written into the trace.

use std::net::SocketAddr;

use protocol::time::Time;

use super::tcp::Direction;
use crate::flow::Mark;
use crate::pipe::Segment;
use crate::trace::Trace;

/// Something that happens at a moment.
#[derive(Debug)]
pub enum Event {
    /// A client opens a connection, unless it lives another life by then.
    Connect { client: usize, life: u32 },
    /// A client's application does something.
    ClientAct { client: usize, life: u32 },
    /// A client's walker goes a step.
    ClientWalk { client: usize, life: u32 },
    /// A client's core wanted to be called.
    ClientWake { client: usize },
    /// A client that did not read does so again.
    ReadAgain { client: usize },
    /// A connection reaches a gateway.
    Accept { conn: u64 },
    /// A client hears that its connection stands.
    Established { conn: u64 },
    /// A client hears that nobody listens.
    Refused { conn: u64 },
    /// A segment comes out of the network.
    Segment {
        conn: u64,
        direction: Direction,
        segment: Segment,
    },
    /// A datagram comes out of the network at a gateway.
    DatagramUp {
        gateway: usize,
        from: SocketAddr,
        bytes: Vec<u8>,
        mark: Mark,
    },
    /// A datagram comes out of the network at an address of a client.
    DatagramDown {
        to: SocketAddr,
        bytes: Vec<u8>,
        is_changed: bool,
    },
    /// A shard's buffer has gone into the kernel.
    Sent { conn: u64 },
    /// A client's side hears that its connection is broken.
    ClientTold { conn: u64 },
    /// A shard's side hears that a connection is broken.
    ShardTold { conn: u64 },
    /// A shard reads a connection again.
    ShardRead { conn: u64 },
    /// A shard's core wanted to be called.
    ShardWake { shard: usize },
    /// A gateway's process ends.
    GatewayStop { gateway: usize },
    /// A gateway's process starts.
    GatewayStart { gateway: usize },
    /// A shard dials a backend.
    Dial {
        shard: usize,
        uplink: usize,
        boot: u32,
    },
    /// A link stands.
    LinkUp { link: u64 },
    /// Bytes of one stream of a link come.
    Chunk {
        link: u64,
        direction: Direction,
        stream: u8,
        bytes: Vec<u8>,
    },
    /// A shard hears that a link is lost.
    LinkShardTold { link: u64 },
    /// A backend hears that a link is lost.
    LinkTargetTold { link: u64 },
    /// Center's process starts.
    CenterStart,
    /// Center's core wanted to be called.
    CenterWake { boot: u32 },
    /// Center's disk is done with a batch.
    CenterDisk { boot: u32, batch: u64 },
    /// A game's process starts.
    GameStart { game: usize },
    /// A game's core wanted to be called.
    GameWake { game: usize },
    /// A game does something of its own accord.
    GameAct { game: usize, boot: u32 },
    /// A client is cut off.
    Cut { client: usize },
    /// The next fault strikes.
    Fault,
    /// Faults end.
    Heal,
    /// Applications stop sending.
    Quiet,
    /// Look whether everything is as it should be in the end.
    Look,
}

/// An address as a number.
fn number(address: &SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(address) => address.ip().to_bits().into(),
        SocketAddr::V6(_) => 0,
    }
}

impl Event {
    /// Writes it into the trace.
    pub fn note(&self, at: Time, trace: &mut Trace) {
        let mut plain = |kind: &str, numbers: &[u64]| trace.event(at, kind, numbers, &[]);
        match self {
            Self::Connect { client, life } => plain("connect", &[*client as u64, (*life).into()]),
            Self::ClientAct { client, life } => plain("act", &[*client as u64, (*life).into()]),
            Self::ClientWalk { client, life } => plain("walk", &[*client as u64, (*life).into()]),
            Self::ClientWake { client } => plain("client wake", &[*client as u64]),
            Self::ReadAgain { client } => plain("read again", &[*client as u64]),
            Self::Accept { conn } => plain("accept", &[*conn]),
            Self::Established { conn } => plain("established", &[*conn]),
            Self::Refused { conn } => plain("refused", &[*conn]),
            Self::Segment {
                conn,
                direction,
                segment,
            } => trace.event(
                at,
                "segment",
                &[*conn, *direction as u64, segment.at, segment.fin.into()],
                &segment.bytes,
            ),
            Self::DatagramUp {
                gateway,
                from,
                bytes,
                mark,
            } => trace.event(
                at,
                "datagram up",
                &[
                    *gateway as u64,
                    number(from),
                    mark.answers.into(),
                    mark.is_changed.into(),
                ],
                bytes,
            ),
            Self::DatagramDown {
                to,
                bytes,
                is_changed,
            } => trace.event(
                at,
                "datagram down",
                &[number(to), (*is_changed).into()],
                bytes,
            ),
            Self::Sent { conn } => plain("sent", &[*conn]),
            Self::ClientTold { conn } => plain("client told", &[*conn]),
            Self::ShardTold { conn } => plain("shard told", &[*conn]),
            Self::ShardRead { conn } => plain("shard read", &[*conn]),
            Self::ShardWake { shard } => plain("shard wake", &[*shard as u64]),
            Self::GatewayStop { gateway } => plain("gateway stop", &[*gateway as u64]),
            Self::GatewayStart { gateway } => plain("gateway start", &[*gateway as u64]),
            Self::Dial {
                shard,
                uplink,
                boot,
            } => plain("dial", &[*shard as u64, *uplink as u64, (*boot).into()]),
            Self::LinkUp { link } => plain("link up", &[*link]),
            Self::Chunk {
                link,
                direction,
                stream,
                bytes,
            } => trace.event(
                at,
                "chunk",
                &[*link, *direction as u64, (*stream).into()],
                bytes,
            ),
            Self::LinkShardTold { link } => plain("link shard told", &[*link]),
            Self::LinkTargetTold { link } => plain("link target told", &[*link]),
            Self::CenterStart => plain("center start", &[]),
            Self::CenterWake { boot } => plain("center wake", &[(*boot).into()]),
            Self::CenterDisk { boot, batch } => plain("disk done", &[(*boot).into(), *batch]),
            Self::GameStart { game } => plain("game start", &[*game as u64]),
            Self::GameWake { game } => plain("game wake", &[*game as u64]),
            Self::GameAct { game, boot } => plain("game act", &[*game as u64, (*boot).into()]),
            Self::Cut { client } => plain("cut", &[*client as u64]),
            Self::Fault => plain("fault", &[]),
            Self::Heal => plain("heal", &[]),
            Self::Quiet => plain("quiet", &[]),
            Self::Look => plain("look", &[]),
        }
    }
}
