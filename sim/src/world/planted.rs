//! What plants make of the bytes that a process puts on a link: of control messages, and of
//! records of any game. Those of a map's frames are in `planted_views`.
//!
//! Invariant: without a plant every byte stays as it is.

use prost::Message as _;
use protocol::body::{Body, Lane};
use protocol::control::{
    Claim, ClaimGranted, ClaimRefusal, ToBackend, ToShard, to_backend, to_shard,
};
use protocol::uplink::{self, Record};

use super::World;
use super::links::{Target, next_control};
use super::phases::Phase;
use super::tcp::Direction;
use crate::line;
use crate::plant::Plant;

/// How often a plant on a link strikes: every so many times.
const PLANT_EVERY: u64 = 10;

impl World {
    /// What a plant makes of the bytes of a link.
    pub(super) fn planted(
        &mut self,
        number: u64,
        direction: Direction,
        stream: u8,
        bytes: Vec<u8>,
    ) -> Vec<u8> {
        let Some(plant) = self.plant else {
            return bytes;
        };
        if stream != 0 {
            return match (plant, direction) {
                (Plant::DuplicateRecord, Direction::Up) => self.doubled(&bytes),
                (Plant::SkipMember | Plant::KeepMember, Direction::Down) => {
                    self.talk_planted(plant, &bytes)
                }
                (Plant::LeakOutbox, Direction::Down) => without_acknowledgements(&bytes),
                (_, Direction::Down) => self.views_planted(plant, number, bytes),
                _ => bytes,
            };
        }
        let to_center = self
            .links
            .get(&number)
            .is_some_and(|link| link.target == Target::Center);
        let mut out = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(message) = next_control(&mut rest) {
            let mut message = message.to_vec();
            match (plant, direction) {
                (Plant::DoubleGrant, Direction::Down) => self.grant_refused(&mut message),
                (Plant::ReuseToken, Direction::Up) => self.rename_token(&mut message),
                (Plant::ReviveTicket, Direction::Up) => self.revive_ticket(number, &mut message),
                (Plant::ReviveTicket, Direction::Down) => self.revive_answer(number, &mut message),
                (Plant::JumpQueue, Direction::Up) => self.make_up_place(&mut message),
                (Plant::HidePlaces, Direction::Down) => {
                    let decoded = ToShard::decode(message.as_slice()).unwrap_or_default();
                    if matches!(decoded.message, Some(to_shard::Message::Places(_))) {
                        continue;
                    }
                }
                (Plant::LeakSession, Direction::Up) if self.phase >= Phase::Leaving => {
                    let decoded = ToBackend::decode(message.as_slice()).unwrap_or_default();
                    if matches!(decoded.message, Some(to_backend::Message::Release(_))) {
                        continue;
                    }
                }
                (Plant::CutControl, Direction::Up)
                    if to_center && self.strikes(Plant::CutControl, PLANT_EVERY) =>
                {
                    message.pop();
                }
                _ => {}
            }
            out.extend_from_slice(&(message.len() as u32).to_le_bytes());
            out.extend_from_slice(&message);
        }
        out
    }

    /// Messages to channels that pass over a member, or members who leave and are not told of.
    fn talk_planted(&mut self, plant: Plant, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut run = bytes;
        while let Ok(Some((session, record))) = uplink::next(&mut run) {
            let is_leave = matches!(record, Record::Leave { .. });
            if let Record::Join { .. } = record {
                self.joined = Some(session);
            }
            if plant == Plant::KeepMember && is_leave {
                continue;
            }
            let skipped = self
                .joined
                .filter(|_| plant == Plant::SkipMember && matches!(record, Record::Publish { .. }));
            uplink::encode(skipped.unwrap_or(session), &record, &mut out);
        }
        out
    }

    /// Some unreliable messages twice.
    fn doubled(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut run = bytes;
        while let Ok(Some((session, record))) = uplink::next(&mut run) {
            uplink::encode(session, &record, &mut out);
            if is_unreliable(&record) && self.strikes(Plant::DuplicateRecord, PLANT_EVERY) {
                uplink::encode(session, &record, &mut out);
            }
        }
        out
    }

    fn grant_refused(&mut self, message: &mut Vec<u8>) {
        let Ok(decoded) = ToShard::decode(message.as_slice()) else {
            return;
        };
        if let Some(to_shard::Message::ClaimRefused(refused)) = decoded.message
            && refused.refusal() == ClaimRefusal::AlreadyOnline
        {
            self.plant_chances += 1;
            let number = (1 << 60) + self.plant_chances;
            let granted = ToShard {
                message: Some(to_shard::Message::ClaimGranted(ClaimGranted {
                    claim: refused.claim,
                    session: number,
                    fence: number,
                })),
            };
            *message = granted.encode_to_vec();
        }
    }

    fn rename_token(&mut self, message: &mut Vec<u8>) {
        let Ok(decoded) = ToBackend::decode(message.as_slice()) else {
            return;
        };
        if let Some(to_backend::Message::Claim(claim)) = decoded.message {
            self.plant_chances += 1;
            let renamed = ToBackend {
                message: Some(to_backend::Message::Claim(Claim {
                    token_id: format!("{}-{}", claim.token_id, self.plant_chances),
                    ..claim
                })),
            };
            *message = renamed.encode_to_vec();
        }
    }

    fn make_up_place(&mut self, message: &mut Vec<u8>) {
        let Ok(decoded) = ToBackend::decode(message.as_slice()) else {
            return;
        };
        if let Some(to_backend::Message::Claim(claim)) = decoded.message
            && self.plan.queue.is_some()
            && self.strikes(Plant::JumpQueue, PLANT_EVERY / 2)
        {
            let forged = ToBackend {
                message: Some(to_backend::Message::Claim(Claim {
                    place: line::NEW | 1,
                    ..claim
                })),
            };
            *message = forged.encode_to_vec();
        }
    }

    /// A shard asks center for a ticket that was used, or for its session.
    fn revive_ticket(&mut self, link: u64, message: &mut Vec<u8>) {
        let Ok(mut decoded) = ToBackend::decode(message.as_slice()) else {
            return;
        };
        match &mut decoded.message {
            Some(to_backend::Message::Seek(seek)) => {
                self.tickets
                    .revive_question(link, seek.seek, &mut seek.ticket);
            }
            Some(to_backend::Message::Move(wanted)) => {
                let revived = self.tickets.revive(wanted.ticket);
                wanted.ticket = revived.unwrap_or(wanted.ticket);
            }
            _ => return,
        }
        *message = decoded.encode_to_vec();
    }

    fn revive_answer(&mut self, link: u64, message: &mut Vec<u8>) {
        if let Ok(mut decoded) = ToShard::decode(message.as_slice())
            && let Some(to_shard::Message::Found(found)) = &mut decoded.message
        {
            self.tickets.revive_answer(link, found);
            *message = decoded.encode_to_vec();
        }
    }

    pub(super) fn without_some(&mut self, run: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = run;
        while let Ok(Some((session, record))) = uplink::next(&mut rest) {
            let is_lost =
                is_unreliable(&record) && self.strikes(Plant::DropRecordUncounted, PLANT_EVERY);
            if !is_lost {
                uplink::encode(session, &record, &mut out);
            }
        }
        out
    }
}

fn is_unreliable(record: &Record<'_>) -> bool {
    let Record::Data(body) = record else {
        return false;
    };
    matches!(
        Body::decode(body),
        Ok(Body::Message { header, .. }) if header.lane == Lane::Unreliable
    )
}

fn without_acknowledgements(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut run = bytes;
    while let Ok(Some((session, record))) = uplink::next(&mut run) {
        let Record::Data(body) = record else {
            uplink::encode(session, &record, &mut out);
            continue;
        };
        match Body::decode(body) {
            Ok(Body::Ack { .. }) => {}
            Ok(Body::Message {
                mut header,
                payload,
            }) => {
                header.ack = 0;
                uplink::encode_data(session, &mut out, |out| {
                    Body::Message { header, payload }.encode(out);
                });
            }
            _ => uplink::encode(session, &record, &mut out),
        }
    }
    out
}
