//! What is inside a sealed frame (PROTOCOL §5): kinds, their layouts, and the
//! header of a game's messages. Decoding borrows; encoding appends.
//!
//! The same bytes travel in the DATA records of the uplink.

mod channel;

pub use channel::{ChannelHeader, ChannelNotice};

use crate::datagram::Cid;
use crate::datagram::side::SECRET_BYTES;
use crate::ids::{ChannelId, GroupId, Incarnation, MessageId, SessionId};
use crate::limits::{LABEL_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX, REASON_TEXT_BYTES_MAX};
use crate::quality::{Ping, Pong, Report};

const LOGIN: u8 = 1;
const LOGIN_OK: u8 = 2;
const LOGOUT: u8 = 3;
const CLOSE: u8 = 4;
const PING: u8 = 5;
const PONG: u8 = 6;
const SYNC: u8 = 7;
const ACK: u8 = 8;
const GROUP_DOWN: u8 = 9;
const ATTACH: u8 = 10;
const SIDE_OPEN: u8 = 11;
const SIDE: u8 = 12;
const CREDIT: u8 = 13;
const QUEUE: u8 = 14;
const CHANNEL: u8 = 15;
const MESSAGE: u8 = 16;
const REQUEST: u8 = 17;
const REPLY: u8 = 18;
const ERROR: u8 = 19;
const CHANNEL_MESSAGE: u8 = 20;

const LANE_MASK: u8 = 0b11;
const FLAG_MORE: u8 = 0b100;
const SYNC_FRESH: u8 = 1;

/// Bytes of a header without a request id.
const SHORT_HEADER_BYTES: usize = 14;
const _: () = assert!(SHORT_HEADER_BYTES + 4 == MESSAGE_HEADER_BYTES_MAX);

/// The bytes of a CREDIT that lifts the limit.
pub const CREDIT_UNLIMITED: u32 = u32::MAX;

/// The body can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// This kind is not defined.
    UnknownKind(u8),
    /// Too short, too long, or a field has an undefined value.
    Malformed,
}

/// How a message may be treated on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Ordered, exactly once while both ends live.
    #[default]
    Reliable = 0,
    /// May be lost, repeated by nobody, in any order.
    Unreliable = 1,
    /// May be lost; never delivered after a newer one.
    Sequenced = 2,
}

/// Which of the four message kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// One way: notify from the client, push from the backend.
    Message,
    /// Wants replies with its request id.
    Request,
    /// Answer to a request; more may follow.
    Reply,
    /// Last answer to a request: a code and a text.
    Error,
}

impl MessageKind {
    const fn code(self) -> u8 {
        match self {
            Self::Message => MESSAGE,
            Self::Request => REQUEST,
            Self::Reply => REPLY,
            Self::Error => ERROR,
        }
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// Which kind.
    pub kind: MessageKind,
    /// Which lane.
    pub lane: Lane,
    /// More replies to this request follow.
    pub more: bool,
    /// Which backend group it is for, or from.
    pub group: GroupId,
    /// Position in its lane.
    pub number: u32,
    /// Everything up to here in the other direction has been processed.
    pub ack: u32,
    /// The game's own type.
    pub message: MessageId,
    /// Request id; 0 for `MessageKind::Message`.
    pub request: u32,
}

impl MessageHeader {
    /// Appends the header to `out`; the payload follows.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; MESSAGE_HEADER_BYTES_MAX];
        bytes[0] = self.kind.code();
        bytes[1] = self.lane as u8 | if self.more { FLAG_MORE } else { 0 };
        bytes[2..4].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.ack.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.message.0.to_le_bytes());
        bytes[14..].copy_from_slice(&self.request.to_le_bytes());
        out.extend_from_slice(match self.kind {
            MessageKind::Message => &bytes[..SHORT_HEADER_BYTES],
            _ => &bytes,
        });
    }

    /// Bytes of the encoded header.
    pub const fn encoded_bytes(&self) -> usize {
        match self.kind {
            MessageKind::Message => SHORT_HEADER_BYTES,
            _ => MESSAGE_HEADER_BYTES_MAX,
        }
    }
}

/// Overwrites the acknowledgement in an encoded message, for a resend.
pub fn patch_ack(message: &mut [u8], ack: u32) {
    if let Some(field) = message.get_mut(8..12) {
        field.copy_from_slice(&ack.to_le_bytes());
    }
}

/// Whether an encoded body, of which this is the start, may get lost or come out of
/// order: over datagrams it leaves by itself, and every other one in the reliable lane.
pub fn is_direct(body: &[u8]) -> bool {
    match *body {
        [PING | PONG, ..] => true,
        [MESSAGE | CHANNEL_MESSAGE, bits, ..] => bits & LANE_MASK != Lane::Reliable as u8,
        _ => false,
    }
}

/// The group of an encoded message of the sequenced lane, of which this is the start; not of
/// those of channels, which each have numbers of their own.
pub fn sequenced_group(body: &[u8]) -> Option<GroupId> {
    match *body {
        [MESSAGE, bits, low, high, ..] if bits & LANE_MASK == Lane::Sequenced as u8 => {
            Some(GroupId(u16::from_le_bytes([low, high])))
        }
        _ => None,
    }
}

/// A LOGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// 1: the credential is a token.
    pub method: u8,
    /// Version of the game client.
    pub client_version: u32,
    /// Distribution channel, for statistics.
    pub channel: &'a str,
    /// Device, for blacklists.
    pub device: &'a str,
    /// What proves the account.
    pub credential: &'a [u8],
}

/// A SYNC: where one end of a reliable stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The sender has seen nothing of this session; it takes the other's
    /// `base` as the first number.
    pub fresh: bool,
    /// Which group's stream.
    pub group: GroupId,
    /// The backend's end.
    pub incarnation: Incarnation,
    /// The number that the sender expects next.
    pub next: u32,
    /// The lowest number that the sender still holds, or will use next.
    pub base: u32,
}

/// A QUEUE: where a client is that waits to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePosition {
    /// From 1.
    pub position: u32,
    /// Until it is let in, about, seconds; `u32::MAX`: nobody knows.
    pub seconds: u32,
    /// How many wait.
    pub of: u32,
}

/// A decoded body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A client wants a session.
    Login(Login<'a>),
    /// It has one.
    LoginOk {
        /// Its id.
        session: SessionId,
        /// The gateway's calendar, Unix ms.
        unix_ms: u64,
    },
    /// The client ends its session.
    Logout,
    /// The sender closes the connection.
    Close {
        /// Wire code of a `CloseReason`; unknown codes are allowed.
        reason: u16,
        /// When to try again, ms; 0 if there is nothing to say.
        retry_after_ms: u32,
        /// For people.
        text: &'a str,
    },
    /// A sign of life that wants one.
    Ping(Ping),
    /// The answer.
    Pong(Pong),
    /// Where an end of a stream stands.
    Sync(Sync),
    /// An acknowledgement by itself.
    Ack {
        /// Which group's stream.
        group: GroupId,
        /// Everything up to here has been processed.
        ack: u32,
    },
    /// The group's backend is away.
    GroupDown {
        /// Which group.
        group: GroupId,
    },
    /// What the client may send to a group whose backend does not keep up.
    Credit {
        /// Which group.
        group: GroupId,
        /// Bytes of reliable messages, in place of what was left; `CREDIT_UNLIMITED`
        /// lifts the limit.
        bytes: u32,
    },
    /// The client takes the session that its handshake named.
    Attach,
    /// The client wants a side path over datagrams.
    SideOpen,
    /// It has one.
    Side {
        /// Its name.
        cid: Cid,
        /// What its keys come from.
        secret: &'a [u8; SECRET_BYTES],
    },
    /// The client waits to be let in; its LOGIN was good.
    Queue(QueuePosition),
    /// Of a channel: membership, keys and numbers.
    Channel {
        /// The publisher's group.
        group: GroupId,
        /// Which channel.
        channel: ChannelId,
        /// What it says.
        notice: ChannelNotice<'a>,
    },
    /// A message to the members of a channel.
    ChannelMessage {
        /// Its header.
        header: ChannelHeader,
        /// Its payload, as it stands (perhaps compressed).
        payload: &'a [u8],
    },
    /// A message of the game.
    Message {
        /// Its header.
        header: MessageHeader,
        /// Its payload, as it stands (perhaps compressed).
        payload: &'a [u8],
    },
}

impl<'a> Body<'a> {
    /// Decodes a body.
    ///
    /// # Errors
    /// `UnknownKind`, or `Malformed` for anything that does not fit its layout.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadBody> {
        let mut r = Reader(bytes);
        let kind = r.u8()?;
        let body = match kind {
            MESSAGE | REQUEST | REPLY | ERROR => return decode_message(kind, bytes),
            LOGIN => Self::Login(Login {
                method: r.u8()?,
                client_version: r.u32()?,
                channel: r.label()?,
                device: r.label()?,
                credential: r.rest(),
            }),
            LOGIN_OK => {
                r.zero()?;
                Self::LoginOk {
                    session: SessionId(r.u64()?),
                    unix_ms: r.u64()?,
                }
            }
            LOGOUT => Self::Logout,
            CLOSE => {
                r.zero()?;
                let (reason, retry_after_ms) = (r.u16()?, r.u32()?);
                let text = r.rest();
                if text.len() > REASON_TEXT_BYTES_MAX {
                    return Err(BadBody::Malformed);
                }
                let text = std::str::from_utf8(text).map_err(|_| BadBody::Malformed)?;
                Self::Close {
                    reason,
                    retry_after_ms,
                    text,
                }
            }
            PING => {
                r.zero()?;
                Self::Ping(Ping {
                    stamp: r.u32()?,
                    echo: r.u32()?,
                    held_us: r.u32()?,
                    report: r.report()?,
                })
            }
            PONG => {
                r.zero()?;
                Self::Pong(Pong {
                    stamp: r.u32()?,
                    own: r.u32()?,
                    report: r.report()?,
                })
            }
            SYNC => {
                let flags = r.u8()?;
                if flags & !SYNC_FRESH != 0 {
                    return Err(BadBody::Malformed);
                }
                Self::Sync(Sync {
                    fresh: flags & SYNC_FRESH != 0,
                    group: GroupId(r.u16()?),
                    incarnation: Incarnation(r.u64()?),
                    next: r.u32()?,
                    base: r.u32()?,
                })
            }
            ACK => {
                r.zero()?;
                Self::Ack {
                    group: GroupId(r.u16()?),
                    ack: r.u32()?,
                }
            }
            GROUP_DOWN => {
                r.zero()?;
                Self::GroupDown {
                    group: GroupId(r.u16()?),
                }
            }
            CREDIT => {
                r.zero()?;
                Self::Credit {
                    group: GroupId(r.u16()?),
                    bytes: r.u32()?,
                }
            }
            ATTACH => {
                r.zero()?;
                Self::Attach
            }
            SIDE_OPEN => {
                r.zero()?;
                Self::SideOpen
            }
            SIDE => {
                r.zero()?;
                Self::Side {
                    cid: Cid(r.u64()?),
                    secret: r.array()?,
                }
            }
            QUEUE => {
                r.zero()?;
                Self::Queue(QueuePosition {
                    position: r.u32()?,
                    seconds: r.u32()?,
                    of: r.u32()?,
                })
            }
            CHANNEL => channel::decode_notice(&mut r)?,
            CHANNEL_MESSAGE => channel::decode_message(&mut r)?,
            other => return Err(BadBody::UnknownKind(other)),
        };
        if r.0.is_empty() {
            Ok(body)
        } else {
            Err(BadBody::Malformed)
        }
    }

    /// Appends the body to `out`. Texts and labels above their bounds are cut
    /// at a character.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Login(login) => {
                out.extend_from_slice(&[LOGIN, login.method]);
                out.extend_from_slice(&login.client_version.to_le_bytes());
                for label in [login.channel, login.device] {
                    let label = truncated(label, LABEL_BYTES_MAX);
                    out.push(label.len() as u8);
                    out.extend_from_slice(label.as_bytes());
                }
                out.extend_from_slice(login.credential);
            }
            Self::LoginOk { session, unix_ms } => {
                out.extend_from_slice(&[LOGIN_OK, 0]);
                out.extend_from_slice(&session.0.to_le_bytes());
                out.extend_from_slice(&unix_ms.to_le_bytes());
            }
            Self::Logout => out.push(LOGOUT),
            Self::Close {
                reason,
                retry_after_ms,
                text,
            } => {
                out.extend_from_slice(&[CLOSE, 0]);
                out.extend_from_slice(&reason.to_le_bytes());
                out.extend_from_slice(&retry_after_ms.to_le_bytes());
                out.extend_from_slice(truncated(text, REASON_TEXT_BYTES_MAX).as_bytes());
            }
            Self::Ping(ping) => {
                out.extend_from_slice(&[PING, 0]);
                for field in [ping.stamp, ping.echo, ping.held_us] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
                encode_report(&ping.report, out);
            }
            Self::Pong(pong) => {
                out.extend_from_slice(&[PONG, 0]);
                out.extend_from_slice(&pong.stamp.to_le_bytes());
                out.extend_from_slice(&pong.own.to_le_bytes());
                encode_report(&pong.report, out);
            }
            Self::Sync(sync) => {
                out.extend_from_slice(&[SYNC, if sync.fresh { SYNC_FRESH } else { 0 }]);
                out.extend_from_slice(&sync.group.0.to_le_bytes());
                out.extend_from_slice(&sync.incarnation.0.to_le_bytes());
                out.extend_from_slice(&sync.next.to_le_bytes());
                out.extend_from_slice(&sync.base.to_le_bytes());
            }
            Self::Ack { group, ack } => {
                out.extend_from_slice(&[ACK, 0]);
                out.extend_from_slice(&group.0.to_le_bytes());
                out.extend_from_slice(&ack.to_le_bytes());
            }
            Self::GroupDown { group } => {
                out.extend_from_slice(&[GROUP_DOWN, 0]);
                out.extend_from_slice(&group.0.to_le_bytes());
            }
            Self::Credit { group, bytes } => {
                out.extend_from_slice(&[CREDIT, 0]);
                out.extend_from_slice(&group.0.to_le_bytes());
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Attach => out.extend_from_slice(&[ATTACH, 0]),
            Self::SideOpen => out.extend_from_slice(&[SIDE_OPEN, 0]),
            Self::Side { cid, secret } => {
                out.extend_from_slice(&[SIDE, 0]);
                out.extend_from_slice(&cid.0.to_le_bytes());
                out.extend_from_slice(secret);
            }
            Self::Channel {
                group,
                channel,
                ref notice,
            } => channel::encode_notice(group, channel, notice, out),
            Self::ChannelMessage { header, payload } => {
                header.encode(out);
                out.extend_from_slice(payload);
            }
            Self::Queue(queue) => {
                out.extend_from_slice(&[QUEUE, 0]);
                for field in [queue.position, queue.seconds, queue.of] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
            }
            Self::Message { header, payload } => {
                header.encode(out);
                out.extend_from_slice(payload);
            }
        }
    }
}

/// Appends a report, as PINGs, PONGs and records of the uplink have it.
pub(crate) fn encode_report(report: &Report, out: &mut Vec<u8>) {
    out.extend_from_slice(&report.round_trip_us.to_le_bytes());
    out.extend_from_slice(&report.jitter_us.to_le_bytes());
    out.push(report.loss);
}

fn lane_of(bits: u8) -> Result<Lane, BadBody> {
    match bits & LANE_MASK {
        0 => Ok(Lane::Reliable),
        1 => Ok(Lane::Unreliable),
        2 => Ok(Lane::Sequenced),
        _ => Err(BadBody::Malformed),
    }
}

fn decode_message(kind: u8, bytes: &[u8]) -> Result<Body<'_>, BadBody> {
    let mut r = Reader(bytes);
    let kind = match kind {
        MESSAGE => MessageKind::Message,
        REQUEST => MessageKind::Request,
        REPLY => MessageKind::Reply,
        _ => MessageKind::Error,
    };
    r.u8()?;
    let bits = r.u8()?;
    let lane = lane_of(bits)?;
    let more = bits & FLAG_MORE != 0;
    // A request that may be lost would leave its asker waiting for ever.
    if bits & !(LANE_MASK | FLAG_MORE) != 0
        || (more && kind != MessageKind::Reply)
        || (lane != Lane::Reliable && kind != MessageKind::Message)
    {
        return Err(BadBody::Malformed);
    }
    let header = MessageHeader {
        kind,
        lane,
        more,
        group: GroupId(r.u16()?),
        number: r.u32()?,
        ack: r.u32()?,
        message: MessageId(r.u16()?),
        request: if kind == MessageKind::Message {
            0
        } else {
            r.u32()?
        },
    };
    Ok(Body::Message {
        header,
        payload: r.rest(),
    })
}

/// The longest prefix of at most `bytes_max` bytes that ends at a character.
pub fn truncated(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A cursor that fails instead of reading past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], BadBody> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadBody::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadBody> {
        self.array().copied()
    }

    fn u8(&mut self) -> Result<u8, BadBody> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, BadBody> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadBody> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadBody> {
        self.take().map(u64::from_le_bytes)
    }

    /// A reserved byte.
    fn zero(&mut self) -> Result<(), BadBody> {
        if self.u8()? == 0 {
            Ok(())
        } else {
            Err(BadBody::Malformed)
        }
    }

    fn report(&mut self) -> Result<Report, BadBody> {
        Ok(Report {
            round_trip_us: self.u32()?,
            jitter_us: self.u32()?,
            loss: self.u8()?,
        })
    }

    fn label(&mut self) -> Result<&'a str, BadBody> {
        let length = usize::from(self.u8()?);
        if length > LABEL_BYTES_MAX {
            return Err(BadBody::Malformed);
        }
        let (label, rest) = self.0.split_at_checked(length).ok_or(BadBody::Malformed)?;
        self.0 = rest;
        std::str::from_utf8(label).map_err(|_| BadBody::Malformed)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests;
