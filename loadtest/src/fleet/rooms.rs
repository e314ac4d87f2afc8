//! `chat` and `broadcast`: clients who speak in channels, and what each of them hears.
//!
//! In `broadcast` all are in one channel, in `chat` so many in each. Every message is to reach every
//! member, its speaker too, in the publisher's order. A message names its speaker and which of
//! its turns it is, and its content follows from both. The first of this worker's clients to hear a
//! message of a channel looks at all of that; to the others it must be the same message.
//!
//! Bounds: eight bytes for each message of a channel in which a client of this worker is.
//!
//! Invariant: at the end every message that was to be said has reached each client once, or is
//! counted as lost.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use protocol::body::{ChannelHeader, Lane, MessageHeader, MessageKind};
use protocol::chat::{JOIN, SAY, Say};
use protocol::ids::{ChannelId, GroupId};

use super::client::Judge;
use super::{Fleet, Stage};
use crate::messages::WorkerPlan;
use crate::payload::{self, PREFIX_BYTES, Shape};
use crate::schedule;

/// Bytes in front of what somebody said: whose session it was.
const SPEAKER_BYTES: usize = 8;

/// One client's membership.
#[derive(Debug, Default)]
pub(super) struct Hearer {
    pub is_member: bool,
    /// Number of the message that comes next.
    next: u32,
    heard: u64,
}

/// What was heard in one channel.
#[derive(Debug, Default)]
struct Log {
    /// A digest of each message, by its number from 1; 0 where it was not heard yet.
    digests: Vec<u64>,
    /// The turn that comes next of each speaker.
    turns: HashMap<u32, u32>,
    /// Messages that are to be said in it.
    planned: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rooms {
    size: u32,
    first_channel: u32,
    /// The channel of the first client of this worker.
    first_room: u32,
    logs: Vec<Log>,
    /// By client of the whole run: its place in the order of turns.
    places: Vec<u32>,
    pub members: u32,
    pub refused: u32,
}

impl Rooms {
    pub(super) fn new(plan: &WorkerPlan) -> Option<Self> {
        let rooms = plan.rooms?;
        let places = schedule::places(plan.clients, plan.seed);
        let total = schedule::total(plan.rate, plan.duration_ms);
        let first_room = plan.first / rooms.size;
        let last_room = (plan.first + plan.count.max(1) - 1) / rooms.size;
        let logs = (first_room..=last_room).map(|room| {
            let members = room * rooms.size..((room + 1) * rooms.size).min(plan.clients);
            let turns = members.map(|client| {
                let place = u64::from(places[client as usize]);
                total
                    .saturating_sub(place)
                    .div_ceil(u64::from(plan.clients))
            });
            Log {
                planned: turns.sum(),
                ..Log::default()
            }
        });
        Some(Self {
            size: rooms.size,
            first_channel: rooms.first_channel,
            first_room,
            logs: logs.collect(),
            places,
            members: 0,
            refused: 0,
        })
    }

    fn room(&self, client: u32) -> u32 {
        client / self.size
    }

    fn channel(&self, client: u32) -> ChannelId {
        // Channel 0 is everybody's.
        ChannelId(self.first_channel.wrapping_add(self.room(client)).max(1))
    }

    fn log(&mut self, client: u32) -> Option<&mut Log> {
        let at = self.room(client).checked_sub(self.first_room)?;
        self.logs.get_mut(at as usize)
    }

    /// What a client says at one of its turns.
    pub(super) fn encode(&self, plan: &WorkerPlan, client: u32, turn: u32, out: &mut Vec<u8>) {
        let mut text = Vec::with_capacity(plan.payload_bytes);
        let shape = Shape::random(plan.payload_bytes);
        payload::write(plan.seed, client, turn, shape, &mut text);
        out.clear();
        out.extend_from_slice(&self.channel(client).0.to_le_bytes());
        Say::all(Lane::Reliable, &text).encode(out);
    }

    /// Who said it and at which turn, if the content is theirs.
    fn speaker(plan: &WorkerPlan, text: &[u8]) -> Option<(u32, u32)> {
        let client = u32::from_le_bytes(*text.get(..PREFIX_BYTES)?.first_chunk()?);
        let turn = payload::sequence(text)?;
        let shape = Shape::random(plan.payload_bytes);
        let is_right = payload::is_of(text, plan.seed, client, turn, shape);
        is_right.then_some((client, turn))
    }
}

impl Log {
    /// Whether the message with this number is that one, and follows from what was heard before.
    fn take(&mut self, number: u32, digest: u64, client: u32, turn: u32) -> bool {
        let at = number as usize - 1;
        if self.digests.len() <= at {
            self.digests.resize(at + 1, 0);
        }
        if self.digests[at] != 0 {
            return self.digests[at] == digest;
        }
        self.digests[at] = digest;
        let next = self.turns.entry(client).or_default();
        let follows = turn == *next;
        *next = turn.wrapping_add(1);
        follows
    }
}

impl Judge<'_> {
    /// The answer to JOIN, the only request that there is.
    pub(super) fn room_message(&mut self, header: &MessageHeader, payload: &[u8]) {
        // A game that echoes sends back what was asked.
        if header.kind != MessageKind::Reply || !payload.is_empty() {
            self.seen.is_refused = true;
        }
    }

    pub(super) fn hear(&mut self, header: &ChannelHeader, payload: &[u8]) {
        self.tally.received += 1;
        let (Some(rooms), Some(hearer)) = (&mut self.rooms, &mut self.hearer) else {
            return self.tally.error("content");
        };
        let number = self.plan.first + self.index;
        let text = payload.get(SPEAKER_BYTES..).unwrap_or_default();
        let is_here = header.group == GroupId(self.plan.group)
            && header.channel == rooms.channel(number)
            && header.lane == Lane::Reliable
            && header.message == SAY;
        let speaker = Rooms::speaker(self.plan, text);
        let (true, Some((client, turn))) = (is_here && header.number > 0, speaker) else {
            return self.tally.error("content");
        };
        let expected = hearer.next.max(1);
        if header.number < expected {
            self.tally.duplicated += 1;
            return;
        }
        if header.number > expected {
            self.tally.out_of_order += 1;
        }
        hearer.next = header.number + 1;
        hearer.heard += 1;
        let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(text) | 1;
        let is_same_room = rooms.room(client) == rooms.room(number);
        let follows = rooms
            .log(number)
            .is_some_and(|log| log.take(header.number, digest, client, turn));
        if !is_same_room || !follows {
            self.tally.error("content");
        }
        if let (Some(schedule), Some(place)) = (self.schedule, rooms.places.get(client as usize)) {
            let due_at = schedule.moment(turn, *place);
            self.tally.interval.record(self.now.us_since(due_at));
        }
    }
}

impl Fleet {
    /// Asks for a client to be let into its channel, if it is its time.
    pub(super) fn enter_room(&mut self, index: u32) {
        let Some(rooms) = &self.rooms else {
            return;
        };
        let slot = &mut self.slots[index as usize];
        let Some(client) = slot.client.as_mut() else {
            return;
        };
        if slot.stage != Stage::In || !slot.group_up || slot.hearer.is_some() {
            return;
        }
        let channel = rooms.channel(self.plan.first + index).0.to_le_bytes();
        let group = GroupId(self.plan.group);
        if client.request(group, JOIN, &channel).is_ok() {
            slot.hearer = Some(Box::default());
            self.mark(index);
        }
    }

    pub(super) fn handle_room(&mut self, index: u32, joined: bool, refused: bool) {
        let Some(rooms) = &mut self.rooms else {
            return;
        };
        rooms.refused += u32::from(refused);
        if let Some(hearer) = &mut self.slots[index as usize].hearer
            && joined
            && !std::mem::replace(&mut hearer.is_member, true)
        {
            rooms.members += 1;
        }
    }

    /// A client that was in is so no more.
    pub(super) fn leave_room(&mut self, index: u32) {
        self.judge_hearer(index);
        if let (Some(rooms), Some(hearer)) =
            (&mut self.rooms, self.slots[index as usize].hearer.take())
        {
            rooms.members -= u32::from(hearer.is_member);
        }
    }

    fn missing(&mut self, index: u32) -> u64 {
        let number = self.plan.first + index;
        let (Some(rooms), Some(hearer)) = (&mut self.rooms, &self.slots[index as usize].hearer)
        else {
            return 0;
        };
        let heard = hearer.heard;
        // Of a run that was cut short only what others heard is known.
        let is_whole = !self.is_cut_short;
        let said = rooms.log(number).map_or(0, |log| {
            if is_whole {
                log.planned
            } else {
                log.digests.len() as u64
            }
        });
        said.saturating_sub(heard)
    }

    /// Whether every client has heard all that is to be said.
    pub(super) fn is_all_heard(&mut self) -> bool {
        self.rooms.is_none() || (0..self.slots.len() as u32).all(|index| self.missing(index) == 0)
    }

    /// What a client has not heard by now it never will.
    fn judge_hearer(&mut self, index: u32) {
        let missing = self.missing(index);
        self.tally.lost += missing;
        if let Some(hearer) = &mut self.slots[index as usize].hearer {
            hearer.heard += missing;
        }
    }

    /// The drain is over.
    pub(super) fn judge_hearers(&mut self) {
        for index in 0..self.slots.len() as u32 {
            self.judge_hearer(index);
        }
    }
}
