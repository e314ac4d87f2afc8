//! The game of the first group: an echo that numbers what it sends, answers
//! some requests in two parts and some later, and notes everything it hears,
//! for the world to check.

use std::collections::BTreeMap;

use backend::stub::{Context, Departure, Game, Message, Player, Request, SendError};
use protocol::body::Lane;
use protocol::ids::SessionId;

use super::Heard;
use crate::message::{self, FromGame};
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
