//! Client connections: two pipes over a network that delays, loses, repeats
//! and reorders segments, and ways for a connection to end that each side
//! hears of, or does not.
//!
//! Invariant: a connection that a shard's core was told of ends with exactly
//! one `handle_closed`, unless its process ends before.

use gateway::engine::{ConnId, SendBuffer};
use protocol::time::Time;

use super::World;
use super::event::Event;
use crate::pipe::{Pipe, Segment};
use crate::plan::Transport;
use crate::plant::Plant;
use crate::rule::Step;
use crate::thief::Thief;
use crate::web::Web;
use crate::wire::{Attacker, Delivered, Sealed};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to gateway, gateway to backend.
    Up,
    /// Back.
    Down,
}

/// Retransmission timeout, microseconds; doubles with each loss of a segment.
const RETRANSMIT_US: u64 = 200_000;

/// Bytes of what a client sent that are kept for a replay.
const RECORDED_BYTES_MAX: usize = 4_096;

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// Who connected; `None` for a stranger.
    pub client: Option<usize>,
    /// Its client's WebSocket, where it is in one.
    pub web: Option<Web>,
    /// To which shard.
    pub shard: usize,
    /// Which start of it; told when it was accepted.
    pub shard_boot: u32,
    /// Its name there.
    pub id: Option<ConnId>,
    /// From the client.
    pub up: Pipe,
    /// To the client.
    pub down: Pipe,
    /// Nothing gets through any more.
    pub is_cut: bool,
    /// The client's side holds it open.
    pub client_open: bool,
    /// The shard's side holds it open.
    pub shard_open: bool,
    /// The shard does not read.
    pub is_paused: bool,
    /// Segments are held up until then.
    pub stalled_until: Time,
    /// The buffer that the shard is sending.
    pub sending: Option<SendBuffer>,
    /// What each end sealed.
    pub sealed: [Sealed; 2],
    /// What the shard was given.
    pub delivered: Delivered,
    /// Somebody on the path.
    pub attacker: Attacker,
    /// Where in `up` the first tampered frame ends.
    pub tampered_at: Option<u64>,
    /// What a stranger sends.
    pub script: Vec<u8>,
    /// A stranger who has copied a ticket.
    pub thief: Option<Thief>,
    /// The beginning of what the client sent.
    pub recorded: Vec<u8>,
}

impl Conn {
    /// Whether its client may send frames.
    pub fn carries_frames(&self) -> bool {
        self.web.as_ref().is_none_or(Web::is_open)
    }

    /// Hands frames to the client's socket, in their WebSocket, and what that has to say itself.
    fn put(&mut self, frames: &[u8]) {
        let bytes = match &mut self.web {
            Some(web) => &web.wrap(frames),
            None => frames,
        };
        if self.recorded.len() < RECORDED_BYTES_MAX {
            self.recorded.extend_from_slice(bytes);
        }
        self.up.write(bytes);
    }
}

impl World {
    /// Somebody opens a connection to a shard.
    pub(super) fn open_conn(
        &mut self,
        client: Option<usize>,
        shard: usize,
        transport: Transport,
    ) -> u64 {
        let random = self.random.secret();
        let web = (transport == Transport::WebSocket)
            .then(|| Web::new(std::array::from_fn(|at| random[at])));
        let conn = self.next_conn;
        self.next_conn += 1;
        self.conns.insert(
            conn,
            Conn {
                client,
                web,
                shard,
                shard_boot: 0,
                id: None,
                up: Pipe::default(),
                down: Pipe::default(),
                is_cut: false,
                client_open: true,
                shard_open: false,
                is_paused: false,
                stalled_until: Time(0),
                sending: None,
                sealed: Default::default(),
                delivered: Delivered::default(),
                attacker: Attacker::default(),
                tampered_at: None,
                script: Vec::new(),
                thief: None,
                recorded: Vec::new(),
            },
        );
        let after_us = 2 * self.network_us();
        self.after_us(after_us, Event::Accept { conn });
        conn
    }

    /// One way through the clients' network.
    pub(super) fn network_us(&mut self) -> u64 {
        let network = self.plan.network;
        network.delay_us + self.random.below(network.jitter_us + 1)
    }

    /// Puts what can go on the wire.
    pub(super) fn pump(&mut self, number: u64, direction: Direction) {
        let network = self.plan.network;
        loop {
            let bytes_max = if self.random.chance(100) {
                1 + self.random.index(64)
            } else {
                network.segment_bytes_max
            };
            let Some(conn) = self.conns.get_mut(&number) else {
                return;
            };
            let pipe = match direction {
                Direction::Up => &mut conn.up,
                Direction::Down => &mut conn.down,
            };
            let Some(segment) = pipe.segment(bytes_max) else {
                break;
            };
            let is_cut = conn.is_cut;
            let client = conn.client;
            let stalled_until = conn.stalled_until;
            if is_cut || (client == Some(0) && self.is_stalled_for_ever()) {
                continue;
            }
            let mut delay_us = self.network_us();
            let mut retransmit_us = RETRANSMIT_US;
            while retransmit_us < 16 * RETRANSMIT_US && self.random.chance(network.loss_per_mille) {
                delay_us += retransmit_us;
                retransmit_us *= 2;
            }
            let at = (self.now + delay_us).max(stalled_until);
            if self.random.chance(network.repeat_per_mille) {
                let later = at + self.network_us();
                self.push(
                    later,
                    Event::Segment {
                        conn: number,
                        direction,
                        segment: segment.clone(),
                    },
                );
            }
            self.push(
                at,
                Event::Segment {
                    conn: number,
                    direction,
                    segment,
                },
            );
        }
        if direction == Direction::Down
            && let Some(conn) = self.conns.get(&number)
            && conn.sending.is_some()
            && conn.down.is_flushed()
        {
            let after_us = self.random.below(500);
            self.after_us(after_us, Event::Sent { conn: number });
        }
    }

    pub(super) fn is_stalled_for_ever(&self) -> bool {
        self.plant == Some(Plant::StallForever) && self.now >= self.plan.heal_at
    }

    pub(super) fn segment(&mut self, number: u64, direction: Direction, segment: Segment) -> Step {
        let Some(conn) = self.conns.get_mut(&number) else {
            return Ok(());
        };
        if conn.is_cut {
            return Ok(());
        }
        match direction {
            Direction::Up => {
                conn.up.arrive(segment);
                self.shard_read(number)
            }
            Direction::Down => {
                conn.down.arrive(segment);
                if !conn.client_open {
                    // Nobody has this socket any more: the kernel says so.
                    if conn.shard_open {
                        let after_us = self.network_us();
                        self.after_us(after_us, Event::ShardTold { conn: number });
                    }
                    return Ok(());
                }
                self.client_read(number)
            }
        }
    }

    /// The client's side is closed: in order, after what was written.
    pub(super) fn close_client_side(&mut self, number: u64) {
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.client_open = false;
            conn.up.shut();
        }
        self.pump(number, Direction::Up);
        self.forget_conn(number);
    }

    /// Gives a connection up that neither side has any more.
    pub(super) fn forget_conn(&mut self, number: u64) {
        let is_over = |conn: &Conn| !conn.client_open && !conn.shard_open && conn.id.is_some();
        if self.conns.get(&number).is_some_and(is_over) {
            self.conns.remove(&number);
        }
    }

    /// The frames that a client or stranger sends, through whoever is on the path.
    pub(super) fn client_writes(&mut self, number: u64, frames: &[u8]) {
        let hides = self.plant == Some(Plant::HideTampering);
        let Some(conn) = self.conns.get_mut(&number) else {
            return;
        };
        let (mut passed, mut tampered) = (frames.to_vec(), None);
        if conn.client.is_some() {
            (passed, tampered) = conn.attacker.pass(frames);
        }
        if hides && tampered.is_some() {
            conn.tampered_at.get_or_insert(conn.up.written() + 1);
            (passed, tampered) = (frames.to_vec(), None);
        }
        let (before, behind) = passed.split_at(tampered.unwrap_or_default());
        if tampered.is_some() {
            conn.put(before);
            conn.tampered_at.get_or_insert(conn.up.written());
        }
        conn.put(behind);
        self.pump(number, Direction::Up);
    }
}
