//! The game of the first group: an echo that numbers what it sends, answers
//! some requests in two parts and some later, and notes everything it hears,
//! for the world to check.

use std::collections::{BTreeMap, BTreeSet};

use backend::stub::{Context, Departure, Game, Message, Player, Request, SendError};
use protocol::body::Lane;
use protocol::channel::Filter;
use protocol::ids::{ChannelId, MessageId, SessionId};

use super::Heard;
use crate::message::{self, FromGame, Sent};
use crate::plant::Plant;

#[derive(Debug)]
struct Stay {
    life: u32,
    counters: [u32; 3],
}

/// The game.
#[derive(Debug)]
pub struct EchoGame {
    plant: Option<Plant>,
    stays: BTreeMap<SessionId, Stay>,
    next_life: u32,
    /// What it heard since the world looked.
    pub heard: Vec<Heard>,
    /// Requests that are answered later, with their payloads; at most
    /// `LATER_MAX`.
    later: Vec<(Request, Vec<u8>)>,
    received: u64,
    /// The number of its first stay, which no other start of a game has.
    pub process: u32,
    /// Members and messages so far of each channel.
    channels: BTreeMap<ChannelId, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    members: BTreeSet<SessionId>,
    published: u32,
}

/// Requests kept for later.
const LATER_MAX: usize = 16;

/// How often a plant of the game strikes: every so many messages.
const PLANT_EVERY: u64 = 20;

impl EchoGame {
    /// A game whose stays are numbered from `next_life`.
    pub fn new(plant: Option<Plant>, next_life: u32) -> Self {
        Self {
            plant,
            stays: BTreeMap::new(),
            next_life,
            heard: Vec::new(),
            later: Vec::new(),
            received: 0,
            process: next_life,
            channels: BTreeMap::new(),
        }
    }

    /// Sessions that the logic believes are here.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.stays.keys().copied().collect()
    }

    /// Reliable messages sent to a session in its present stay.
    pub fn sent_reliable(&self, session: SessionId) -> Option<(u32, u32)> {
        let stay = self.stays.get(&session)?;
        Some((stay.life, stay.counters[0]))
    }

    /// Answers what was kept for later.
    pub fn answer_later(&mut self, context: &mut Context<'_>) {
        for (request, payload) in std::mem::take(&mut self.later) {
            self.answer(context, &request, false, &payload);
        }
    }

    /// Makes a player a member of a channel, or no member any more.
    pub fn toggle(&mut self, context: &mut Context<'_>, session: SessionId, channel: ChannelId) {
        let members = &mut self.channels.entry(channel).or_default().members;
        if members.remove(&session) {
            context.leave(session, channel);
            self.heard.push(Heard::Left {
                process: self.process,
                channel,
                session,
            });
        } else if context.join(session, channel).is_ok() {
            members.insert(session);
        }
    }

    /// Says something to the members of a channel.
    pub fn say(&mut self, context: &mut Context<'_>, channel: ChannelId, lane: Lane, bytes: usize) {
        let known = self.channels.entry(channel).or_default();
        let sent = Sent {
            attempt: channel.0,
            lane: message::lane_number(lane),
            is_request: false,
            index: known.published,
        };
        let number = FromGame {
            life: self.process,
            counter: known.published,
        };
        let payload = number.encode(&message::encode(&sent, bytes));
        let (everybody, id) = (Filter::ALL, MessageId(4));
        if context
            .publish(channel, lane, &everybody, id, &payload)
            .is_ok()
        {
            known.published += 1;
            self.heard.push(Heard::Published {
                process: self.process,
                channel,
                lane,
                members: known.members.clone(),
            });
        }
    }

    /// The channels that a player is in.
    pub fn channels_of(&self, session: SessionId) -> impl Iterator<Item = ChannelId> {
        let channels = self.channels.iter();
        channels
            .filter(move |(_, channel)| channel.members.contains(&session))
            .map(|(id, _)| *id)
    }

    /// Sends a player something of the game's own accord.
    pub fn push(
        &mut self,
        context: &mut Context<'_>,
        session: SessionId,
        lane: Lane,
        payload: &[u8],
    ) {
        self.numbered(session, lane, payload, |bytes| {
            context.push(session, lane, protocol::ids::MessageId(3), bytes)
        });
    }

    fn numbered(
        &mut self,
        session: SessionId,
        lane: Lane,
        payload: &[u8],
        send: impl FnOnce(&[u8]) -> Result<(), SendError>,
    ) {
        let Some(stay) = self.stays.get_mut(&session) else {
            return;
        };
        let counter = &mut stay.counters[usize::from(message::lane_number(lane))];
        let number = FromGame {
            life: stay.life,
            counter: *counter,
        };
        let mut bytes = number.encode(payload);
        if self.plant == Some(Plant::CorruptPayload)
            && self.received.is_multiple_of(PLANT_EVERY)
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        if send(&bytes).is_ok() {
            *counter += 1;
        }
    }

    fn answer(&mut self, context: &mut Context<'_>, request: &Request, more: bool, payload: &[u8]) {
        self.numbered(request.session, Lane::Reliable, payload, |bytes| {
            if more {
                context.reply_more(request, bytes)
            } else {
                context.reply(request, bytes)
            }
        });
    }

    fn hear(&mut self, session: SessionId, lane: Lane, payload: &[u8]) {
        self.received += 1;
        let Some(stay) = self.stays.get(&session) else {
            return;
        };
        let heard = Heard::Received {
            session,
            life: stay.life,
            lane,
            payload: payload.to_vec(),
        };
        let strikes = lane == Lane::Reliable && self.received.is_multiple_of(PLANT_EVERY);
        match self.plant {
            Some(Plant::LoseDelivery) if strikes => {}
            Some(Plant::RepeatDelivery) if strikes => self.heard.extend([heard.clone(), heard]),
            _ => self.heard.push(heard),
        }
    }
}

impl Game for EchoGame {
    fn connected(&mut self, _: &mut Context<'_>, player: &Player<'_>) {
        let life = self.next_life;
        self.next_life += 1;
        let stay = Stay {
            life,
            counters: [0; 3],
        };
        self.stays.insert(player.session, stay);
        let heard = Heard::Connected {
            session: player.session,
            fence: player.fence,
            account: player.account.to_owned(),
            life,
        };
        if self.plant == Some(Plant::RepeatConnected) {
            self.heard.push(heard.clone());
        }
        self.heard.push(heard);
    }

    fn disconnected(&mut self, _: &mut Context<'_>, departure: &Departure) {
        self.stays.remove(&departure.session);
        for channel in self.channels.values_mut() {
            channel.members.remove(&departure.session);
        }
        self.later
            .retain(|(request, _)| request.session != departure.session);
        self.heard.push(Heard::Disconnected {
            session: departure.session,
        });
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        self.hear(message.session, message.lane, message.payload);
        let session = message.session;
        self.push(context, session, message.lane, message.payload);
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request, payload: &[u8]) {
        self.hear(request.session, Lane::Reliable, payload);
        let index = message::decode(payload).map_or(0, |sent| sent.index);
        match index % 8 {
            0 if self.later.len() < LATER_MAX => self.later.push((*request, payload.to_vec())),
            1 => {
                self.answer(context, request, true, payload);
                self.answer(context, request, false, payload);
            }
            _ => self.answer(context, request, false, payload),
        }
    }
}
