//! What was published to channels, and what members heard of it.
//!
//! It knows what games published while who was a member, as their logic says, and nothing of
//! how a message finds its members.
//!
//! Invariant: what was published is never changed.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::{ChannelHeader, Lane};
use protocol::ids::{ChannelId, SessionId};

use crate::message::{self, FromGame};
use crate::rule::{Rule, Step, Violation, check};

/// A channel of one start of a game, by the number of that.
type Place = (u32, ChannelId);

#[derive(Debug)]
struct Published {
    lane: Lane,
    members: BTreeSet<SessionId>,
}

/// What a session has heard of a channel.
#[derive(Debug, Default)]
struct Hearer {
    /// Messages by their index.
    heard: BTreeSet<u32>,
    /// One above the last one of the reliable lane.
    next: u32,
    /// Those before it need not come: it has left the channel since.
    left_at: u32,
    /// Reliable messages that it was told are lost, and that are not accounted for yet.
    lost: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Talk {
    published: BTreeMap<Place, Vec<Published>>,
    hearers: BTreeMap<(SessionId, Place), Hearer>,
    /// Losses that a session was told, by channel: of which start of the game they are shows with the next message.
    told_lost: BTreeMap<(SessionId, ChannelId), u64>,
    /// Messages that members heard.
    pub heard: u64,
    /// By shard, its start, the key and its sequence: a hash of the frame.
    sealed: BTreeMap<(usize, u32, u32, u32), u64>,
}

impl Talk {
    /// A game published something to these.
    pub fn note_published(
        &mut self,
        process: u32,
        channel: ChannelId,
        lane: Lane,
        members: BTreeSet<SessionId>,
    ) {
        let published = Published { lane, members };
        self.published
            .entry((process, channel))
            .or_default()
            .push(published);
    }

    /// A player has left a channel: what is still on its way to it may come, or not.
    pub fn note_left(&mut self, process: u32, channel: ChannelId, session: SessionId) {
        let place = (process, channel);
        let published = self.published.get(&place).map_or(0, Vec::len);
        let hearer = self.hearers.entry((session, place)).or_default();
        hearer.left_at = published as u32;
    }

    /// A client was told that it has missed so many reliable messages.
    pub fn note_lost(&mut self, session: SessionId, channel: ChannelId, count: u32) {
        *self.told_lost.entry((session, channel)).or_default() += u64::from(count);
    }

    /// A client heard something.
    ///
    /// # Errors
    /// `ChannelsTrue`.
    pub fn note_heard(
        &mut self,
        session: SessionId,
        header: &ChannelHeader,
        payload: &[u8],
    ) -> Step {
        let wrong = |what: &str| {
            Violation::new(
                Rule::ChannelsTrue,
                format!(
                    "session {session} heard in channel {}: {what}",
                    header.channel.0
                ),
            )
        };
        let (from, content) = FromGame::decode(payload).ok_or_else(|| wrong("changed content"))?;
        let sent = message::decode(content).ok_or_else(|| wrong("changed content"))?;
        let place = (from.life, header.channel);
        let index = from.counter;
        let published = self.published.get(&place).map_or(&[][..], Vec::as_slice);
        let Some(message) = published.get(index as usize) else {
            return Err(wrong("what was never said"));
        };
        if sent.attempt != header.channel.0 || sent.index != index || header.lane != message.lane {
            return Err(wrong("what was said elsewhere"));
        }
        if !message.members.contains(&session) {
            return Err(wrong("what was said while it was no member"));
        }
        let hearer = self.hearers.entry((session, place)).or_default();
        if !hearer.heard.insert(index) {
            return Err(wrong("a message twice"));
        }
        self.heard += 1;
        if message.lane != Lane::Reliable {
            return Ok(());
        }
        if index < hearer.next {
            return Err(wrong("a message after a later one"));
        }
        let from = hearer.next.max(hearer.left_at).min(index);
        let missing = missing(published, session, from, index);
        hearer.next = index + 1;
        let told = self.told_lost.remove(&(session, header.channel));
        hearer.lost += told.unwrap_or_default();
        check(missing <= hearer.lost, Rule::ChannelsTrue, || {
            format!(
                "session {session} missed {missing} messages of channel {}",
                header.channel.0
            )
        })?;
        hearer.lost -= missing;
        Ok(())
    }

    /// What a session that is a member has not heard of what it should have, if it is anything.
    pub fn unheard(&self, session: SessionId, process: u32, channel: ChannelId) -> Option<String> {
        let place = (process, channel);
        let published = self.published.get(&place)?;
        let hearer = self.hearers.get(&(session, place));
        let (next, lost) = hearer.map_or((0, 0), |hearer| {
            (hearer.next.max(hearer.left_at), hearer.lost)
        });
        let told = self.told_lost.get(&(session, channel)).copied();
        let missing = missing(published, session, next, published.len() as u32);
        (missing > lost + told.unwrap_or_default())
            .then(|| format!("{missing} messages of channel {} have not come", channel.0))
    }

    /// A shard sends a frame for a channel.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note_frame(&mut self, shard: (usize, u32), key: u32, sequence: u32, hash: u64) -> Step {
        let earlier = self.sealed.insert((shard.0, shard.1, key, sequence), hash);
        check(
            earlier.is_none_or(|earlier| earlier == hash),
            Rule::NoNonceTwice,
            || format!("a key of a channel sealed two frames under sequence {sequence}"),
        )
    }
}

/// Reliable messages from one index to before another that this session should have heard.
fn missing(published: &[Published], session: SessionId, from: u32, to: u32) -> u64 {
    let span = published
        .get(from as usize..to as usize)
        .unwrap_or_default();
    let its = span
        .iter()
        .filter(|message| message.lane == Lane::Reliable && message.members.contains(&session));
    its.count() as u64
}
