//! The two kinds of channels: `CHANNEL_MESSAGE`, which all members get, and `CHANNEL`, by
//! which a member, its gateway and the publisher agree on keys and numbers.
//!
//! Only layouts. What they mean is the client's core's, the shard's and the stub's.

use super::{BadBody, Body, CHANNEL, CHANNEL_MESSAGE, LANE_MASK, Lane, Reader};
use crate::ids::{ChannelId, GroupId, Incarnation, MessageId};
use crate::limits::CHANNEL_HEADER_BYTES;

const JOINED: u8 = 1;
const KEY: u8 = 2;
const LEFT: u8 = 3;
const CATCH_UP: u8 = 4;
const SKIP: u8 = 5;
const CAUGHT_UP: u8 = 6;

/// The header of a channel's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelHeader {
    /// How it may be treated on its way.
    pub lane: Lane,
    /// The publisher's group.
    pub group: GroupId,
    /// Position in its lane of the channel, the same for all members; 0 in the unreliable lane.
    pub number: u32,
    /// Which channel.
    pub channel: ChannelId,
    /// The game's own type.
    pub message: MessageId,
}

impl ChannelHeader {
    /// Appends the header to `out`; the payload follows.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; CHANNEL_HEADER_BYTES];
        bytes[0] = CHANNEL_MESSAGE;
        bytes[1] = self.lane as u8;
        bytes[2..4].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.channel.0.to_le_bytes());
        bytes[12..].copy_from_slice(&self.message.0.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// What a `CHANNEL` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelNotice<'a> {
    /// The client is a member, in this connection.
    Joined {
        /// Which start of the channel: of another one the numbers mean nothing.
        incarnation: Incarnation,
        /// Number of the next reliable message.
        next: u32,
    },
    /// A key that messages are sealed with from now on.
    Key {
        /// Its name in front of what it seals.
        id: u32,
        /// The key.
        key: &'a [u8; 32],
        /// Sequence of the next frame under it.
        sequence: u64,
    },
    /// The client is no member any more.
    Left,
    /// From a client: send the reliable messages from this number on.
    CatchUp {
        /// The number that it expects.
        next: u32,
    },
    /// Some reliable messages do not come.
    Skip {
        /// The first of them.
        from: u32,
        /// The one behind the last.
        to: u32,
        /// The publisher does not have them any more; else they are not for this member.
        lost: bool,
    },
    /// The answer to a `CatchUp` is complete.
    CaughtUp {
        /// Up to which number, exclusively.
        next: u32,
    },
}

pub(super) fn encode_notice(
    group: GroupId,
    channel: ChannelId,
    notice: &ChannelNotice<'_>,
    out: &mut Vec<u8>,
) {
    let kind = match notice {
        ChannelNotice::Joined { .. } => JOINED,
        ChannelNotice::Key { .. } => KEY,
        ChannelNotice::Left => LEFT,
        ChannelNotice::CatchUp { .. } => CATCH_UP,
        ChannelNotice::Skip { .. } => SKIP,
        ChannelNotice::CaughtUp { .. } => CAUGHT_UP,
    };
    out.extend_from_slice(&[CHANNEL, kind]);
    out.extend_from_slice(&group.0.to_le_bytes());
    out.extend_from_slice(&channel.0.to_le_bytes());
    match *notice {
        ChannelNotice::Joined { incarnation, next } => {
            out.extend_from_slice(&incarnation.0.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        ChannelNotice::Key { id, key, sequence } => {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        ChannelNotice::Left => {}
        ChannelNotice::CatchUp { next } | ChannelNotice::CaughtUp { next } => {
            out.extend_from_slice(&next.to_le_bytes());
        }
        ChannelNotice::Skip { from, to, lost } => {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
            out.push(u8::from(lost));
        }
    }
}

pub(super) fn decode_notice<'a>(r: &mut Reader<'a>) -> Result<Body<'a>, BadBody> {
    let kind = r.u8()?;
    let group = GroupId(r.u16()?);
    let channel = ChannelId(r.u32()?);
    let notice = match kind {
        JOINED => ChannelNotice::Joined {
            incarnation: Incarnation(r.u64()?),
            next: r.u32()?,
        },
        KEY => ChannelNotice::Key {
            id: r.u32()?,
            key: r.array()?,
            sequence: r.u64()?,
        },
        LEFT => ChannelNotice::Left,
        CATCH_UP => ChannelNotice::CatchUp { next: r.u32()? },
        SKIP => ChannelNotice::Skip {
            from: r.u32()?,
            to: r.u32()?,
            lost: match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err(BadBody::Malformed),
            },
        },
        CAUGHT_UP => ChannelNotice::CaughtUp { next: r.u32()? },
        _ => return Err(BadBody::Malformed),
    };
    Ok(Body::Channel {
        group,
        channel,
        notice,
    })
}

pub(super) fn decode_message<'a>(r: &mut Reader<'a>) -> Result<Body<'a>, BadBody> {
    let bits = r.u8()?;
    if bits & !LANE_MASK != 0 {
        return Err(BadBody::Malformed);
    }
    let header = ChannelHeader {
        lane: super::lane_of(bits)?,
        group: GroupId(r.u16()?),
        number: r.u32()?,
        channel: ChannelId(r.u32()?),
        message: MessageId(r.u16()?),
    };
    Ok(Body::ChannelMessage {
        header,
        payload: r.rest(),
    })
}
