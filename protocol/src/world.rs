//! What players on a map and their server tell each other: message ids, layouts, encoding and
//! decoding, and what a client believes after it has applied what came.
//!
//! It decides nothing about who sees whom (that is the backend's map) and knows no session or
//! stream: its bytes are payloads of messages. [`path`] says where the walkers of a load test go.
//!
//! # Layouts
//! Little-endian. `W` is 2 or 4 bytes: the `width` that stands in front says which. Positions are
//! whole units of the map, from its origin; a unit's length is the map's configuration.
//!
//! | message | lane | layout |
//! |---|---|---|
//! | [`ENTER`] | request | tag u64, x u32, y u32 |
//! | reply to it | reliable | id u32, tick u32, map width u32, map height u32, view u32, hysteresis u32, visible max u16, tick ms u16 |
//! | [`MOVE`] | any | step u32, x u32, y u32 |
//! | [`CHANGES`] | reliable | width u8, tick u32, enters u16, leaves u16, enters × (id u32, tag u64, x W, y W), leaves × (id u32), then to the end rests × (id u32, x W, y W) |
//! | [`RETURNED`] | reliable | as the reply to `ENTER` |
//! | [`ABSENT`] | reliable | nothing |
//! | [`POSITIONS`] | sequenced | width u8, tick u32, then to the end (id u32, x W, y W) |
//!
//! # How a client applies them
//! The two lanes are not ordered among each other, so each entry counts as of its frame's tick,
//! and one that is not newer than what is known of that player is ignored. `CHANGES`: leaves,
//! then enters, then rests. An enter of one that is in view is a jump (a teleport), a rest says
//! reliably where one stopped, since the last `POSITIONS` may have been lost. `POSITIONS` of one
//! that is not in view are ignored.
//!
//! # When the game is started anew
//! The session goes on, the map is another one. `RETURNED` says that the player was put back:
//! the client forgets its view, and sends a `MOVE` to where it is by now. `ABSENT` says that it
//! was not: the client sends `ENTER` again, and forgets its view when the reply comes.
//!
//! Invariant: decoding never panics and takes no memory; a [`Belief`] holds at most
//! [`VISIBLE_MAX`] others.

pub mod path;

use crate::ids::MessageId;
use crate::limits::PAYLOAD_BYTES_MAX;

/// A player asks to be put on the map.
pub const ENTER: MessageId = MessageId(1);

/// A player has moved.
pub const MOVE: MessageId = MessageId(2);

/// Who came into view, who left it, who stopped.
pub const CHANGES: MessageId = MessageId(3);

/// Where those in view are that moved.
pub const POSITIONS: MessageId = MessageId(4);

/// A player is on the map again, where it stood, after the game was started anew: its view
/// begins empty, and its id is another one.
pub const RETURNED: MessageId = MessageId(5);

/// A player that moves is not on the map, since the game was started anew or it never entered.
/// Once until it has entered.
pub const ABSENT: MessageId = MessageId(6);

/// Error of a reply: the request does not follow its layout.
pub const REFUSED_MALFORMED: u16 = 1;

/// Error of a reply: no such request.
pub const REFUSED_UNKNOWN: u16 = 2;

/// Error of a reply: the player is on the map already.
pub const REFUSED_HERE_ALREADY: u16 = 3;

/// Error of a reply: the place is not on the map.
pub const REFUSED_OUTSIDE: u16 = 4;

/// Error of a reply: the map is full.
pub const REFUSED_FULL: u16 = 5;

/// Others that one player may see at most: what the frames and a client are built for.
pub const VISIBLE_MAX: usize = 255;

/// Bytes in front of the entries of `POSITIONS`.
const POSITIONS_HEADER_BYTES: usize = 5;

/// Bytes in front of the entries of `CHANGES`.
const CHANGES_HEADER_BYTES: usize = 9;

/// Largest `POSITIONS`, bytes.
pub const POSITIONS_BYTES_MAX: usize = POSITIONS_HEADER_BYTES + VISIBLE_MAX * 12;

/// Largest `CHANGES`, bytes: nobody stays and all seats are taken anew; who is new does not rest.
pub const CHANGES_BYTES_MAX: usize = CHANGES_HEADER_BYTES + VISIBLE_MAX * (20 + 4);

const _: () = assert!(POSITIONS_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(CHANGES_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// A payload does not follow its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a world message does not follow its layout")]
pub struct BadWorldMessage;

/// A place on the map, in whole units from its origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// To the right.
    pub x: u32,
    /// Down.
    pub y: u32,
}

impl Point {
    /// The square of the distance to `other`, in square units.
    pub const fn distance_squared(self, other: Self) -> u64 {
        let dx = self.x.abs_diff(other.x) as u64;
        let dy = self.y.abs_diff(other.y) as u64;
        dx * dx + dy * dy
    }
}

/// Bytes of one coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// u16: maps up to 65,536 units each way.
    Narrow = 2,
    /// u32.
    Wide = 4,
}

impl Width {
    /// The narrowest one for a map of this size, units.
    pub const fn of_map(width_units: u32, height_units: u32) -> Self {
        if width_units <= 1 << 16 && height_units <= 1 << 16 {
            Self::Narrow
        } else {
            Self::Wide
        }
    }

    const fn decode(byte: u8) -> Result<Self, BadWorldMessage> {
        match byte {
            2 => Ok(Self::Narrow),
            4 => Ok(Self::Wide),
            _ => Err(BadWorldMessage),
        }
    }
}

/// Another player and where it is. Ids are the map's own, not given twice in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Who.
    pub id: u32,
    /// Where.
    pub at: Point,
}

/// Another player that came into view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Who, for the other entries.
    pub id: u32,
    /// What the game lets others know of the player, say an account number.
    pub tag: u64,
    /// Where.
    pub at: Point,
}

/// The request of a player that wants to be on the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enter {
    /// What others shall know of it.
    pub tag: u64,
    /// Where it wants to be.
    pub at: Point,
}

impl Enter {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tag.to_le_bytes());
        put_wide(out, self.at);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It has not the length of an `Enter`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadWorldMessage> {
        let mut reader = Reader { rest: bytes };
        let enter = Self {
            tag: u64::from_le_bytes(reader.take()?),
            at: reader.point(Width::Wide)?,
        };
        reader.end(enter)
    }
}

/// The reply to [`Enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The player's own id, as others see it.
    pub id: u32,
    /// The tick before the first frame.
    pub tick: u32,
    /// The map's size, units.
    pub map_width_units: u32,
    /// The map's size, units.
    pub map_height_units: u32,
    /// Distance at which others come into view, units.
    pub view_units: u32,
    /// How much farther they must go to leave it, units.
    pub hysteresis_units: u32,
    /// Others in view at most.
    pub visible_max: u16,
    /// Time between ticks, ms.
    pub tick_ms: u16,
}

impl Entry {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for field in [
            self.id,
            self.tick,
            self.map_width_units,
            self.map_height_units,
            self.view_units,
            self.hysteresis_units,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.visible_max.to_le_bytes());
        out.extend_from_slice(&self.tick_ms.to_le_bytes());
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It has not the length of an `Entry`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadWorldMessage> {
        let mut reader = Reader { rest: bytes };
        let entry = Self {
            id: reader.u32()?,
            tick: reader.u32()?,
            map_width_units: reader.u32()?,
            map_height_units: reader.u32()?,
            view_units: reader.u32()?,
            hysteresis_units: reader.u32()?,
            visible_max: u16::from_le_bytes(reader.take()?),
            tick_ms: u16::from_le_bytes(reader.take()?),
        };
        reader.end(entry)
    }
}

/// A player's move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The client's count of its moves.
    pub step: u32,
    /// Where it is now.
    pub at: Point,
}

impl Move {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.step.to_le_bytes());
        put_wide(out, self.at);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It has not the length of a `Move`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadWorldMessage> {
        let mut reader = Reader { rest: bytes };
        let step = Self {
            step: reader.u32()?,
            at: reader.point(Width::Wide)?,
        };
        reader.end(step)
    }
}

/// Starts a `POSITIONS` payload; [`put_position`] appends to it.
pub fn begin_positions(out: &mut Vec<u8>, width: Width, tick: u32) {
    out.push(width as u8);
    out.extend_from_slice(&tick.to_le_bytes());
}

/// Appends one entry of a `POSITIONS` payload. Coordinates above the width's range are cut;
/// a map does not have them.
#[inline]
pub fn put_position(out: &mut Vec<u8>, width: Width, placed: Placed) {
    match width {
        Width::Narrow => {
            // One append of eight bytes: this is the innermost loop of a tick.
            let entry = u64::from(placed.id)
                | u64::from(placed.at.x as u16) << 32
                | u64::from(placed.at.y as u16) << 48;
            out.extend_from_slice(&entry.to_le_bytes());
        }
        Width::Wide => {
            out.extend_from_slice(&placed.id.to_le_bytes());
            put_wide(out, placed.at);
        }
    }
}

/// Takes a player's entry out of a `POSITIONS` payload that [`begin_positions`] has started, if
/// there is one; the payload is empty when it was the only one. There is nothing to tell then.
pub fn remove_position(out: &mut Vec<u8>, width: Width, id: u32) {
    let entry_bytes = 4 + 2 * width as usize;
    let entries = out.get(POSITIONS_HEADER_BYTES..).unwrap_or_default();
    let index = entries
        .chunks_exact(entry_bytes)
        .position(|entry| entry.starts_with(&id.to_le_bytes()));
    if let Some(index) = index {
        let start = POSITIONS_HEADER_BYTES + index * entry_bytes;
        out.drain(start..start + entry_bytes);
        if out.len() == POSITIONS_HEADER_BYTES {
            out.clear();
        }
    }
}

/// Appends a `CHANGES` payload.
pub fn encode_changes(
    out: &mut Vec<u8>,
    width: Width,
    tick: u32,
    enters: &[Entered],
    leaves: &[u32],
    rests: &[Placed],
) {
    debug_assert!(enters.len() <= usize::from(u16::MAX) && leaves.len() <= usize::from(u16::MAX));
    out.push(width as u8);
    out.extend_from_slice(&tick.to_le_bytes());
    out.extend_from_slice(&(enters.len() as u16).to_le_bytes());
    out.extend_from_slice(&(leaves.len() as u16).to_le_bytes());
    for enter in enters {
        out.extend_from_slice(&enter.id.to_le_bytes());
        out.extend_from_slice(&enter.tag.to_le_bytes());
        put_point(out, width, enter.at);
    }
    for leave in leaves {
        out.extend_from_slice(&leave.to_le_bytes());
    }
    for &rest in rests {
        put_position(out, width, rest);
    }
}

/// A decoded `POSITIONS` payload; borrows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions<'a> {
    /// As of which tick.
    pub tick: u32,
    width: Width,
    entries: &'a [u8],
}

impl<'a> Positions<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// It does not follow the layout.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadWorldMessage> {
        let mut reader = Reader { rest: bytes };
        let width = Width::decode(reader.take::<1>()?[0])?;
        let tick = reader.u32()?;
        if !reader.rest.len().is_multiple_of(4 + 2 * width as usize) {
            return Err(BadWorldMessage);
        }
        Ok(Self {
            tick,
            width,
            entries: reader.rest,
        })
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = Placed> + use<'a> {
        placed(self.entries, self.width)
    }
}

/// A decoded `CHANGES` payload; borrows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    /// As of which tick.
    pub tick: u32,
    width: Width,
    enters: &'a [u8],
    leaves: &'a [u8],
    rests: &'a [u8],
}

impl<'a> Changes<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// It does not follow the layout.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadWorldMessage> {
        let mut reader = Reader { rest: bytes };
        let width = Width::decode(reader.take::<1>()?[0])?;
        let tick = reader.u32()?;
        let enters = usize::from(u16::from_le_bytes(reader.take()?));
        let leaves = usize::from(u16::from_le_bytes(reader.take()?));
        let enters = reader.bytes(enters * (12 + 2 * width as usize))?;
        let leaves = reader.bytes(leaves * 4)?;
        if !reader.rest.len().is_multiple_of(4 + 2 * width as usize) {
            return Err(BadWorldMessage);
        }
        Ok(Self {
            tick,
            width,
            enters,
            leaves,
            rests: reader.rest,
        })
    }

    /// Who came into view, or jumped.
    pub fn enters(&self) -> impl Iterator<Item = Entered> + use<'a> {
        let width = self.width;
        self.enters
            .chunks_exact(12 + 2 * width as usize)
            .map_while(move |entry| {
                let mut reader = Reader { rest: entry };
                Some(Entered {
                    id: reader.u32().ok()?,
                    tag: u64::from_le_bytes(reader.take().ok()?),
                    at: reader.point(width).ok()?,
                })
            })
    }

    /// Ids of those that left the view.
    pub fn leaves(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.leaves
            .chunks_exact(4)
            .map_while(|entry| Reader { rest: entry }.u32().ok())
    }

    /// Where those stopped that were moving.
    pub fn rests(&self) -> impl Iterator<Item = Placed> + use<'a> {
        placed(self.rests, self.width)
    }
}

/// What a client knows of one other player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub id: u32,
    /// What the game lets others know of it.
    pub tag: u64,
    /// Where.
    pub at: Point,
    /// As of which tick.
    pub tick: u32,
}

/// Frames that contradict what the client knows, or each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// One left that was not in view.
    #[error("one left the view that was not in it")]
    LeftUnseen(u32),
    /// One stopped that is not in view.
    #[error("one that is not in view stopped")]
    RestedUnseen(u32),
    /// More are in view than [`VISIBLE_MAX`].
    #[error("more are in view than possible")]
    TooMany,
}

/// What a client believes it sees, by applying every frame as the module's documentation says.
#[derive(Clone, Debug, Default)]
pub struct Belief {
    /// In order of ids.
    seen: Vec<Seen>,
}

impl Belief {
    /// Applies a `CHANGES` frame. They must be applied in the order in which they were sent.
    ///
    /// # Errors
    /// The frame contradicts what is known; the rest of it was not applied.
    pub fn handle_changes(&mut self, changes: &Changes<'_>) -> Result<(), Contradiction> {
        for id in changes.leaves() {
            let index = self.find(id).map_err(|_| Contradiction::LeftUnseen(id))?;
            self.seen.remove(index);
        }
        for enter in changes.enters() {
            let seen = Seen {
                id: enter.id,
                tag: enter.tag,
                at: enter.at,
                tick: changes.tick,
            };
            match self.find(enter.id) {
                // A newer place may have overtaken a jump; then the jump is over already.
                Ok(index) if is_newer(changes.tick, self.seen[index].tick) => {
                    self.seen[index] = seen;
                }
                Ok(_) => {}
                Err(_) if self.seen.len() >= VISIBLE_MAX => return Err(Contradiction::TooMany),
                Err(index) => self.seen.insert(index, seen),
            }
        }
        for rest in changes.rests() {
            let index = self
                .find(rest.id)
                .map_err(|_| Contradiction::RestedUnseen(rest.id))?;
            self.place(index, rest.at, changes.tick);
        }
        Ok(())
    }

    /// Applies a `POSITIONS` frame. Says how many entries were of players in view.
    pub fn handle_positions(&mut self, positions: &Positions<'_>) -> usize {
        let mut known = 0;
        for moved in positions.iter() {
            if let Ok(index) = self.find(moved.id) {
                self.place(index, moved.at, positions.tick);
                known += 1;
            }
        }
        known
    }

    /// Everybody in view, in order of ids.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// One that may be in view.
    pub fn of(&self, id: u32) -> Option<&Seen> {
        self.find(id).ok().map(|index| &self.seen[index])
    }

    fn find(&self, id: u32) -> Result<usize, usize> {
        self.seen.binary_search_by_key(&id, |seen| seen.id)
    }

    fn place(&mut self, index: usize, at: Point, tick: u32) {
        let seen = &mut self.seen[index];
        if is_newer(tick, seen.tick) {
            seen.at = at;
            seen.tick = tick;
        }
    }
}

/// Ticks wrap after 13 years at ten a second; their difference as a signed number does not care.
const fn is_newer(tick: u32, than: u32) -> bool {
    tick.wrapping_sub(than) as i32 > 0
}

fn placed(entries: &[u8], width: Width) -> impl Iterator<Item = Placed> + use<'_> {
    entries
        .chunks_exact(4 + 2 * width as usize)
        .map_while(move |entry| {
            let mut reader = Reader { rest: entry };
            Some(Placed {
                id: reader.u32().ok()?,
                at: reader.point(width).ok()?,
            })
        })
}

fn put_wide(out: &mut Vec<u8>, at: Point) {
    out.extend_from_slice(&at.x.to_le_bytes());
    out.extend_from_slice(&at.y.to_le_bytes());
}

fn put_point(out: &mut Vec<u8>, width: Width, at: Point) {
    match width {
        Width::Narrow => {
            out.extend_from_slice(&(at.x as u16).to_le_bytes());
            out.extend_from_slice(&(at.y as u16).to_le_bytes());
        }
        Width::Wide => put_wide(out, at),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], BadWorldMessage> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(BadWorldMessage)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadWorldMessage> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(BadWorldMessage)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u32(&mut self) -> Result<u32, BadWorldMessage> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn point(&mut self, width: Width) -> Result<Point, BadWorldMessage> {
        Ok(match width {
            Width::Narrow => Point {
                x: u16::from_le_bytes(self.take()?).into(),
                y: u16::from_le_bytes(self.take()?).into(),
            },
            Width::Wide => Point {
                x: self.u32()?,
                y: self.u32()?,
            },
        })
    }

    fn end<T>(&self, value: T) -> Result<T, BadWorldMessage> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(BadWorldMessage)
        }
    }
}

#[cfg(test)]
mod tests;
