//! A client's channels: the keys of each, and which of its messages come next.
//!
//! Reliable messages are numbered by their publisher, so that a number means the same whichever
//! gateway brings it. What was missed while the client had no connection, or before its gateway
//! knew of it, the publisher sends once more when it is asked (CATCH_UP).
//!
//! Invariants: a reliable message is given to the caller once, in order. Nothing that a key of
//! a channel opens is taken for anything but a message of that channel. At most
//! `CHANNELS_MAX` channels are kept, with two keys each.

use super::{Client, Closed, Event, State};
use crate::body::{Body, ChannelHeader, ChannelNotice, Lane};
use crate::channel::{ChannelOpener, key_id};
use crate::check::Age;
use crate::cipher::Key;
use crate::compress::Scratch;
use crate::frame::{FLAG_CHANNEL, FLAG_COMPRESSED, Header};
use crate::ids::{ChannelId, GroupId, Incarnation};
use crate::limits::{CHANNELS_PER_SESSION_MAX, GROUPS_MAX};
use crate::reason::CloseReason;
use crate::time::Time;

/// Channels of all groups.
const CHANNELS_MAX: usize = CHANNELS_PER_SESSION_MAX * GROUPS_MAX;

/// One channel that the client is a member of.
#[derive(Debug)]
struct Membership {
    group: GroupId,
    channel: ChannelId,
    incarnation: Incarnation,
    /// The gateway of this connection has said so.
    joined: bool,
    /// Number of the reliable message that comes next.
    next: u32,
    /// The one behind the last that is known to exist.
    end: u32,
    /// CATCH_UP is to be sent.
    ask: bool,
    /// It was, and its answer is not complete.
    asked: bool,
    sequenced_seen: u32,
    /// The present key, and the one before: a frame may have left before the key did.
    keys: [Option<ChannelOpener>; 2],
}

impl Membership {
    /// There are reliable messages up to `end`: asks for those that are missing.
    fn expect(&mut self, end: u32) {
        self.end = self.end.max(end);
        self.ask = self.joined && !self.asked && self.next < self.end;
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Channels(Vec<Membership>);

impl Channels {
    fn find(&mut self, group: GroupId, channel: ChannelId) -> Option<&mut Membership> {
        let mut all = self.0.iter_mut();
        all.find(|it| it.group == group && it.channel == channel)
    }

    /// The connection is over: keys are its own, numbers go on.
    pub(super) fn close(&mut self) {
        for it in &mut self.0 {
            it.joined = false;
            it.ask = false;
            it.asked = false;
            it.keys = [None, None];
        }
    }

    /// The next CATCH_UP to send: one at a time, or the answers for all channels together could be more
    /// than may wait for a client.
    pub(super) fn poll(&mut self) -> Option<Body<'static>> {
        if self.0.iter().any(|it| it.asked) {
            return None;
        }
        let it = self.0.iter_mut().find(|it| it.ask)?;
        it.ask = false;
        it.asked = true;
        Some(Body::Channel {
            group: it.group,
            channel: it.channel,
            notice: ChannelNotice::CatchUp { next: it.next },
        })
    }

    /// Whether a message is to be delivered.
    fn take(&mut self, header: &ChannelHeader, age: Age) -> bool {
        let Some(it) = self.find(header.group, header.channel) else {
            return false;
        };
        if !it.joined {
            return false;
        }
        match header.lane {
            Lane::Reliable if header.number == it.next => {
                it.next += 1;
                it.end = it.end.max(it.next);
                true
            }
            Lane::Reliable => {
                it.expect(header.number.saturating_add(1));
                false
            }
            Lane::Unreliable => age == Age::Fresh,
            Lane::Sequenced => {
                let ahead = header.number.wrapping_sub(it.sequenced_seen) as i32;
                let is_newer = age == Age::Fresh && ahead > 0;
                if is_newer {
                    it.sequenced_seen = header.number;
                }
                is_newer
            }
        }
    }
}

impl Client {
    /// Channels that the client is a member of.
    pub fn channels(&self) -> impl Iterator<Item = (GroupId, ChannelId)> {
        let all = self.channels.0.iter();
        all.map(|it| (it.group, it.channel))
    }

    pub(super) fn handle_notice(
        &mut self,
        group: GroupId,
        channel: ChannelId,
        notice: &ChannelNotice<'_>,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        if !matches!(self.state, State::Up(_)) {
            return Ok(());
        }
        if let ChannelNotice::Joined { incarnation, next } = *notice {
            self.handle_joined(group, channel, incarnation, next, events);
            return Ok(());
        }
        let Some(it) = self.channels.find(group, channel) else {
            return Ok(());
        };
        match *notice {
            ChannelNotice::Joined { .. } => {}
            ChannelNotice::Key { id, key, sequence } => {
                it.keys.swap(0, 1);
                it.keys[0] = Some(ChannelOpener::new(id, Key(*key), sequence));
            }
            ChannelNotice::Left => {
                self.channels
                    .0
                    .retain(|it| it.group != group || it.channel != channel);
                events(Event::ChannelLeft(group, channel));
            }
            ChannelNotice::Skip { from, to, lost } => {
                if (from..to).contains(&it.next) {
                    let missed = to - it.next;
                    it.next = to;
                    if lost {
                        events(Event::ChannelLost(group, channel, missed));
                    }
                } else if it.next < from {
                    it.expect(to);
                }
                it.end = it.end.max(it.next);
            }
            ChannelNotice::CaughtUp { next } => {
                it.asked = false;
                if it.next < next {
                    // The answer should have brought these, and another one would not.
                    let missed = next - it.next;
                    it.next = next;
                    events(Event::ChannelLost(group, channel, missed));
                }
                it.expect(it.next);
            }
            ChannelNotice::CatchUp { .. } => return Err(Closed::ByClient(CloseReason::BadBody)),
        }
        Ok(())
    }

    fn handle_joined(
        &mut self,
        group: GroupId,
        channel: ChannelId,
        incarnation: Incarnation,
        next: u32,
        events: &mut impl FnMut(Event<'_>),
    ) {
        let known = self.channels.find(group, channel);
        if let Some(it) = known.filter(|it| it.incarnation == incarnation) {
            it.joined = true;
            it.asked = false;
            return it.expect(next);
        }
        let channels = &mut self.channels.0;
        channels.retain(|it| it.group != group || it.channel != channel);
        if channels.len() >= CHANNELS_MAX {
            return;
        }
        channels.push(Membership {
            group,
            channel,
            incarnation,
            joined: true,
            next,
            end: next,
            ask: false,
            asked: false,
            sequenced_seen: 0,
            keys: [None, None],
        });
        events(Event::ChannelJoined(group, channel));
    }

    /// A message of a channel, whatever key it came under.
    pub(super) fn handle_channel_message(
        &mut self,
        header: &ChannelHeader,
        payload: &[u8],
        flags: u8,
        age: Age,
        scratch: &mut Scratch,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        if !matches!(self.state, State::Up(_)) || !self.channels.take(header, age) {
            return Ok(());
        }
        let payload = if flags & FLAG_COMPRESSED != 0 {
            scratch
                .decompress(payload)
                .map_err(|_| Closed::ByClient(CloseReason::BadCompression))?
        } else {
            payload
        };
        events(Event::ChannelMessage(*header, payload));
        Ok(())
    }

    /// A frame under the key of a channel, whose CRC has been checked. One that fails is dropped,
    /// whatever carries it: another member could have made it.
    pub(super) fn handle_channel_frame(
        &mut self,
        header: &Header,
        frame: &mut [u8],
        scratch: &mut Scratch,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        if header.flags & !(FLAG_CHANNEL | FLAG_COMPRESSED) != 0 {
            return Ok(());
        }
        let Some(id) = key_id(frame) else {
            return Ok(());
        };
        let mut found = None;
        for it in &mut self.channels.0 {
            let (group, channel) = (it.group, it.channel);
            let mut keys = it.keys.iter_mut().flatten();
            if let Some(key) = keys.find(|key| key.id() == id) {
                found = Some((group, channel, key));
            }
        }
        let Some((group, channel, key)) = found else {
            return Ok(());
        };
        let Some(body) = key.open(header, frame) else {
            return Ok(());
        };
        match Body::decode(body) {
            Ok(Body::ChannelMessage {
                header: it,
                payload,
            }) if it.group == group && it.channel == channel => {
                let flags = header.flags;
                // A member that forges cannot make another one close.
                let _ =
                    self.handle_channel_message(&it, payload, flags, Age::Fresh, scratch, events);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Seals the CATCH_UPs that are to be sent.
    pub(super) fn transmit_catch_ups(&mut self, now: Time, out: &mut Vec<u8>) {
        if let State::Up(connection) = &mut self.state {
            while let Some(body) = self.channels.poll() {
                connection.seal(now, 0, out, |out| body.encode(out));
            }
        }
    }
}

#[cfg(test)]
mod tests;
