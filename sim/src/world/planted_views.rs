//! What plants make of a map's frames on their way from the game to a shard.
//!
//! Invariant: numbers and acknowledgements of messages stay as they are; only what a map says is
//! changed.

use std::collections::BTreeMap;

use backend::map::{Layout, NodeIndex};
use protocol::body::{Body, MessageHeader, MessageKind};
use protocol::ids::SessionId;
use protocol::uplink::{self, Record};
use protocol::world::{
    CHANGES, Changes, ENTER, Entered, Entry, POSITIONS, Placed, Point, Positions, Width,
    begin_positions, encode_changes, put_position,
};

use super::World;
use super::links::Target;
use crate::plan::map::MapPlan;
use crate::plant::Plant;

/// How often a plant strikes a frame that it could spoil: every so many times.
const PLANT_EVERY: u64 = 3;

/// An id that no map gives within a run.
const NOBODY: u32 = 1 << 30;

/// What plants remember of frames that passed.
#[derive(Debug, Default)]
pub struct ViewPlants {
    /// By session: its own id.
    ids: BTreeMap<SessionId, u32>,
    /// By session: the frame of places that was told last.
    positions: BTreeMap<SessionId, Vec<u8>>,
    /// By session: the node whose rectangle its player was in.
    nodes: BTreeMap<SessionId, NodeIndex>,
}

/// A frame of changes, to be spoiled.
struct Told {
    enters: Vec<Entered>,
    leaves: Vec<u32>,
    rests: Vec<Placed>,
}

impl World {
    /// What reaches a shard of the records that a game sent.
    pub(super) fn views_planted(&mut self, plant: Plant, number: u64, bytes: Vec<u8>) -> Vec<u8> {
        let target = self.links.get(&number).map(|link| link.target);
        let (Some(map), Some(Target::Game(game))) = (self.plan.map.clone(), target) else {
            return bytes;
        };
        if game < self.plan.games {
            return bytes;
        }
        let mut out = Vec::new();
        let mut run = bytes.as_slice();
        while let Ok(Some((session, record))) = uplink::next(&mut run) {
            if let Record::Data(body) | Record::Latest { body, .. } = record
                && let Ok(Body::Message { header, payload }) = Body::decode(body)
                && let Some(payload) =
                    self.view_planted(plant, &map, (game, session), &header, payload)
            {
                let payload = payload.as_slice();
                let mut body = Vec::new();
                Body::Message { header, payload }.encode(&mut body);
                let body = body.as_slice();
                let planted = match record {
                    Record::Latest { key, .. } => Record::Latest { key, body },
                    _ => Record::Data(body),
                };
                uplink::encode(session, &planted, &mut out);
            } else {
                uplink::encode(session, &record, &mut out);
            }
        }
        out
    }

    /// The payload instead of this one, if the plant changes it.
    fn view_planted(
        &mut self,
        plant: Plant,
        map: &MapPlan,
        (game, session): (usize, SessionId),
        header: &MessageHeader,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match (header.kind, header.message) {
            (MessageKind::Reply, ENTER) => {
                let mut entry = Entry::decode(payload).ok()?;
                self.view_plants.ids.insert(session, entry.id);
                // Of the plants of a map's configuration the client is not told.
                entry.hysteresis_units = map.config.hysteresis_units;
                entry.visible_max = map.config.visible_max as u16;
                entry.encode(&mut out);
            }
            (MessageKind::Message, CHANGES) => {
                let changes = Changes::decode(payload).ok()?;
                let mut told = Told {
                    enters: changes.enters().collect(),
                    leaves: changes.leaves().collect(),
                    rests: changes.rests().collect(),
                };
                self.spoil_changes(plant, map, (game, session), &mut told);
                encode_changes(
                    &mut out,
                    Width::of_map(map.config.width_units, map.config.height_units),
                    changes.tick,
                    &told.enters,
                    &told.leaves,
                    &told.rests,
                );
            }
            (MessageKind::Message, POSITIONS) => {
                let positions = Positions::decode(payload).ok()?;
                let last = self.view_plants.positions.insert(session, payload.to_vec());
                if let Some(last) = last
                    && self.strikes(Plant::RepeatPlaces, PLANT_EVERY)
                {
                    return Some(last);
                }
                let mut places: Vec<Placed> = positions.iter().collect();
                self.spoil_positions(plant, map, &mut places);
                let width = Width::of_map(map.config.width_units, map.config.height_units);
                begin_positions(&mut out, width, positions.tick);
                for placed in places {
                    put_position(&mut out, width, placed);
                }
            }
            _ => return None,
        }
        Some(out)
    }

    fn spoil_changes(
        &mut self,
        plant: Plant,
        map: &MapPlan,
        (game, session): (usize, SessionId),
        told: &mut Told,
    ) {
        match plant {
            Plant::LoseLeave if !told.leaves.is_empty() && self.strikes(plant, PLANT_EVERY) => {
                told.leaves.pop();
            }
            Plant::RepeatEnter => {
                if let Some(enter) = told.enters.last().copied()
                    && self.strikes(plant, PLANT_EVERY)
                {
                    told.enters.push(enter);
                }
            }
            Plant::SeeSelf if self.strikes(plant, PLANT_EVERY) => {
                if let Some(&id) = self.view_plants.ids.get(&session) {
                    let (tag, at) = (0, Point::default());
                    told.enters.push(Entered { id, tag, at });
                }
            }
            Plant::LoseHandover => {
                let boot = (game, self.games[game].boot);
                let layout = Layout::new(map.config.clone()).ok();
                let at = self.truth.place_of(boot, session);
                if let (Some(layout), Some(at)) = (layout, at) {
                    let owner = layout.watchers(at).owner();
                    let last = self.view_plants.nodes.insert(session, owner);
                    if last.is_some_and(|last| last != owner) {
                        told.enters.clear();
                    }
                }
            }
            Plant::LoseBorderPlaces => told.rests.retain(|rest| !is_at_border(map, rest.at)),
            _ => {}
        }
    }

    fn spoil_positions(&mut self, plant: Plant, map: &MapPlan, places: &mut Vec<Placed>) {
        match plant {
            Plant::TellUnseen if self.strikes(plant, PLANT_EVERY) => {
                let (id, at) = (NOBODY, Point::default());
                places.push(Placed { id, at });
            }
            Plant::LeaveMap if self.strikes(plant, PLANT_EVERY) => {
                if let Some(placed) = places.last_mut() {
                    placed.at.y = map.config.height_units;
                }
            }
            Plant::LoseBorderPlaces => places.retain(|placed| !is_at_border(map, placed.at)),
            _ => {}
        }
    }
}

/// Whether more than one node watches a place.
fn is_at_border(map: &MapPlan, at: Point) -> bool {
    Layout::new(map.config.clone()).is_ok_and(|layout| layout.watchers(at).nodes().len() > 1)
}
