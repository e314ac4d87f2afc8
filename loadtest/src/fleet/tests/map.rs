//! The game `walk` in memory: the real map of the backend, told of and heard through faults.

use std::collections::BTreeMap;

use backend::map::{Frame, Map, MapConfig, Walker};
use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::ids::{MessageId, SessionId};
use protocol::time::Time;
use protocol::world::{
    CHANGES, Changes, ENTER, Enter, Entered, Entry, MOVE, Move, POSITIONS, Placed, Positions,
    Width, begin_positions, encode_changes, put_position,
};

/// What goes wrong with the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// Others come into view too late.
    ShortSight,
    /// Some players are shown to nobody.
    Hidden,
    /// Who leaves a view is not said to.
    Ghosts,
    /// After some ticks nobody is told of a move.
    Frozen,
    /// Places are told with an error of one unit.
    Shifted,
    /// A move takes effect only on its way to one side.
    Stuck,
    /// Who leaves is said to twice.
    LeavesTwice,
    /// Nobody is let in.
    Closed,
}

const TICK_MS: u64 = 100;
/// Of so many players one is hidden.
const HIDDEN_EVERY: u32 = 7;
/// From this tick on moves are not told.
const FROZEN_FROM: u32 = 60;

pub(super) struct MapServer {
    bug: Bug,
    map: Map,
    walkers: BTreeMap<u64, Walker>,
    next_tick: Time,
}

/// What a session is to be told.
pub(super) type Told = (u64, Lane, MessageId, Vec<u8>);

impl MapServer {
    pub(super) fn new(bug: Bug) -> Self {
        let mut config = MapConfig::default();
        if bug == Bug::ShortSight {
            config.view_units -= 40;
        }
        Self {
            bug,
            map: Map::new(config).expect("a map"),
            walkers: BTreeMap::new(),
            next_tick: Time(0),
        }
    }

    /// A message of a session; returns the answer to a request.
    pub(super) fn handle(
        &mut self,
        session: u64,
        header: &MessageHeader,
        payload: &[u8],
    ) -> Option<(MessageKind, Vec<u8>)> {
        match header.message {
            ENTER => {
                let enter = Enter::decode(payload).expect("a request");
                if self.bug == Bug::Closed {
                    return Some((MessageKind::Error, vec![5, 0]));
                }
                let entered = self
                    .map
                    .handle_enter(SessionId(session), enter.tag, enter.at);
                let walker = entered.expect("room on the map");
                self.walkers.insert(session, walker);
                let config = MapConfig::default();
                let mut reply = Vec::new();
                Entry {
                    id: walker.id(),
                    tick: self.map.tick(),
                    map_width_units: config.width_units,
                    map_height_units: config.height_units,
                    view_units: config.view_units,
                    hysteresis_units: config.hysteresis_units,
                    visible_max: config.visible_max as u16,
                    tick_ms: TICK_MS as u16,
                }
                .encode(&mut reply);
                Some((MessageKind::Reply, reply))
            }
            MOVE => {
                let step = Move::decode(payload).expect("a move");
                let walker = self.walkers[&session];
                let old = self.map.place_of(walker).expect("on the map");
                if self.bug != Bug::Stuck || step.at.x >= old.x {
                    self.map.handle_move(walker, step.at).expect("on the map");
                }
                None
            }
            other => panic!("{other:?}"),
        }
    }

    /// A session is over.
    pub(super) fn forget(&mut self, session: u64) {
        if let Some(walker) = self.walkers.remove(&session) {
            self.map.handle_leave(walker).expect("on the map");
        }
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Time) -> Vec<Told> {
        let mut told = Vec::new();
        if now < self.next_tick {
            return told;
        }
        self.next_tick = now.after_ms(TICK_MS);
        let bug = self.bug;
        self.map.handle_tick(&mut |session, frame| match frame {
            Frame::Changes(bytes) => {
                let bytes = changes(bug, bytes);
                told.push((session.0, Lane::Reliable, CHANGES, bytes));
            }
            Frame::Positions(bytes) => {
                if let Some(bytes) = positions(bug, bytes) {
                    told.push((session.0, Lane::Sequenced, POSITIONS, bytes));
                }
            }
        });
        told
    }
}

fn shift(bug: Bug, mut placed: Placed) -> Placed {
    if bug == Bug::Shifted {
        placed.at.y += 1;
    }
    placed
}

fn changes(bug: Bug, bytes: &[u8]) -> Vec<u8> {
    let changes = Changes::decode(bytes).expect("a frame");
    let is_shown = |id: u32| bug != Bug::Hidden || !id.is_multiple_of(HIDDEN_EVERY);
    let enters: Vec<Entered> = changes
        .enters()
        .filter(|enter| is_shown(enter.id))
        .collect();
    let mut leaves: Vec<u32> = changes.leaves().filter(|id| is_shown(*id)).collect();
    match bug {
        Bug::Ghosts => leaves.clear(),
        Bug::LeavesTwice => leaves.extend(leaves.clone()),
        _ => {}
    }
    let rests: Vec<Placed> = changes
        .rests()
        .filter(|rest| is_shown(rest.id))
        .filter(|_| bug != Bug::Frozen || changes.tick < FROZEN_FROM)
        .map(|rest| shift(bug, rest))
        .collect();
    let mut out = Vec::new();
    encode_changes(
        &mut out,
        Width::Narrow,
        changes.tick,
        &enters,
        &leaves,
        &rests,
    );
    out
}

fn positions(bug: Bug, bytes: &[u8]) -> Option<Vec<u8>> {
    let positions = Positions::decode(bytes).expect("a frame");
    if bug == Bug::Frozen && positions.tick >= FROZEN_FROM {
        return None;
    }
    let mut out = Vec::new();
    begin_positions(&mut out, Width::Narrow, positions.tick);
    for placed in positions.iter() {
        put_position(&mut out, Width::Narrow, shift(bug, placed));
    }
    Some(out)
}
