//! The messages of the game `chat` (PROTOCOL §13), which channels are tried and measured with:
//! layouts that game and clients share.

use crate::body::Lane;
use crate::channel::Filter;
use crate::ids::{MessageId, SessionId};

/// A request: u32 channel. Answered by nothing.
pub const JOIN: MessageId = MessageId(1);
/// A request: u32 channel. Answered by nothing.
pub const LEAVE: MessageId = MessageId(2);
/// u32 channel, then what `SHOUT` has. What members get: u64 session of who said it, text.
pub const SAY: MessageId = MessageId(3);
/// [`Say`]. What everybody gets: u64 session of who said it, text.
pub const SHOUT: MessageId = MessageId(4);
/// u8 lane, u16 count, so many u64 sessions, text. What they get: u64 session, text.
pub const TELL: MessageId = MessageId(5);
/// A request: u16 key, u32 value. Answered by nothing.
pub const MARK: MessageId = MessageId(6);

/// What somebody says, behind the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Say<'a> {
    /// How it is to travel.
    pub lane: Lane,
    /// Who said it does not get it.
    pub not_to_me: bool,
    /// From this version of the client on.
    pub version_min: u32,
    /// Up to this one.
    pub version_max: u32,
    /// Only to those with this attribute; key 0 is none.
    pub attribute: (u16, u32),
    /// The text.
    pub text: &'a [u8],
}

impl<'a> Say<'a> {
    /// To everybody.
    pub fn all(lane: Lane, text: &'a [u8]) -> Self {
        Self {
            lane,
            not_to_me: false,
            version_min: 0,
            version_max: u32::MAX,
            attribute: (0, 0),
            text,
        }
    }

    /// u8 lane, u8 not to me, u32 version min, u32 version max, u16 key, u32 value, text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.lane as u8, u8::from(self.not_to_me)]);
        out.extend_from_slice(&self.version_min.to_le_bytes());
        out.extend_from_slice(&self.version_max.to_le_bytes());
        out.extend_from_slice(&self.attribute.0.to_le_bytes());
        out.extend_from_slice(&self.attribute.1.to_le_bytes());
        out.extend_from_slice(self.text);
    }

    /// `None` for what `encode` does not write.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let ([lane, not_to_me], rest) = bytes.split_first_chunk()?;
        let (version_min, rest) = rest.split_first_chunk()?;
        let (version_max, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (value, text) = rest.split_first_chunk()?;
        Some(Self {
            lane: lane_of(*lane)?,
            not_to_me: *not_to_me != 0,
            version_min: u32::from_le_bytes(*version_min),
            version_max: u32::from_le_bytes(*version_max),
            attribute: (u16::from_le_bytes(*key), u32::from_le_bytes(*value)),
            text,
        })
    }

    /// Who is to hear it.
    pub fn filter(&self, speaker: SessionId) -> Filter {
        Filter {
            except: if self.not_to_me {
                speaker
            } else {
                SessionId(0)
            },
            version_min: self.version_min,
            version_max: self.version_max,
            attribute: (self.attribute.0 != 0).then_some(self.attribute),
        }
    }
}

/// The lane with this code.
pub fn lane_of(code: u8) -> Option<Lane> {
    match code {
        0 => Some(Lane::Reliable),
        1 => Some(Lane::Unreliable),
        2 => Some(Lane::Sequenced),
        _ => None,
    }
}

/// A message of [`TELL`].
pub fn encode_tell(lane: Lane, to: &[SessionId], text: &[u8], out: &mut Vec<u8>) {
    out.push(lane as u8);
    out.extend_from_slice(&(to.len() as u16).to_le_bytes());
    for session in to {
        out.extend_from_slice(&session.0.to_le_bytes());
    }
    out.extend_from_slice(text);
}
