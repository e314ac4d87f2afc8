//! The records of an uplink's data streams. A DATA record carries a message
//! body exactly as a client's frame does, so that neither side encodes it
//! again. Control messages are prost (`control`).
//!
//! Layout: `u24 length of the whole record | u8 type | u64 session | rest`.

use core::net::{Ipv6Addr, SocketAddr};

use crate::channel::Filter;
use crate::ids::{ChannelId, Fence, Incarnation, SessionId};
use crate::limits::{
    ACCOUNT_BYTES_MAX, LABEL_BYTES_MAX, LIST_SESSIONS_MAX, RECORD_BYTES_MAX, UPLINK_STREAMS,
};
use crate::quality::{Quality, Report};

/// ALPN of the QUIC connection.
pub const ALPN: &[u8] = b"sallyport-uplink-1";

/// Version told in the hello messages.
pub const VERSION: u32 = 3;

/// Bytes in front of each record's own part.
pub const RECORD_HEADER_BYTES: usize = 12;

const DATA: u8 = 1;
const OPEN: u8 = 2;
const END: u8 = 3;
const KICK: u8 = 4;
const GONE: u8 = 5;
const QUALITY: u8 = 6;
const JOIN: u8 = 7;
const LEAVE: u8 = 8;
const PUBLISH: u8 = 9;
const LIST: u8 = 10;
const ATTRIBUTE: u8 = 11;
const LATEST: u8 = 13;

const OPEN_HAS_ADDRESS: u8 = 1;
const OPEN_AWAY: u8 = 2;

/// A record can't be decoded; the link can't be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord;

/// A client's address: IPv6, or IPv4 mapped into it, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Network byte order.
    pub ip: [u8; 16],
    /// The client's port.
    pub port: u16,
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        SocketAddr::new(ip, self.port).fmt(f)
    }
}

/// The session is here: told to the backend after login, each time the link or
/// the client comes back, and when the client is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Which claim of the session; a backend refuses a lower one.
    pub fence: Fence,
    /// When the login was done, Unix ms.
    pub unix_ms: u64,
    /// Version of the game client.
    pub client_version: u32,
    /// Only if the backend asked for it.
    pub address: Option<ClientAddress>,
    /// Its client has lost the connection and may come back: send nothing until
    /// the next OPEN.
    pub away: bool,
    /// The account.
    pub account: &'a str,
    /// Distribution channel.
    pub channel: &'a str,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message body in the clear, both ways.
    Data(&'a [u8]),
    /// Backend → gateway: a message body of the sequenced lane, of which only the latest
    /// with this key is worth sending.
    Latest {
        /// The game's own.
        key: u32,
        /// As in `Data`.
        body: &'a [u8],
    },
    /// Gateway → backend.
    Open(Open<'a>),
    /// Gateway → backend: the session has ended.
    End {
        /// Which claim has ended.
        fence: Fence,
        /// Wire code of a `CloseReason`.
        reason: u16,
        /// When, Unix ms.
        unix_ms: u64,
    },
    /// Backend → gateway: end the session.
    Kick {
        /// Which claim.
        fence: Fence,
        /// Wire code of a `CloseReason`.
        reason: u16,
    },
    /// Gateway → backend: the session is not here, or not any more. It may be
    /// opened from elsewhere.
    Gone,
    /// Gateway → backend: how good the client's connection is, when that has changed.
    Quality(Quality),
    /// Backend → gateway: the session is a member of a channel, from now on or still.
    Join {
        /// Which channel of this backend.
        channel: ChannelId,
        /// Which start of it.
        incarnation: Incarnation,
        /// Number of its next reliable message.
        next: u32,
    },
    /// Backend → gateway: it is no member any more.
    Leave {
        /// Which channel.
        channel: ChannelId,
    },
    /// Backend → gateway: a message to the members of a channel, as the body that they get. The
    /// record's session is the one that the filter leaves out.
    Publish {
        /// Who gets it.
        filter: Filter,
        /// A `CHANNEL_MESSAGE`.
        body: &'a [u8],
    },
    /// Backend → gateway: one message of the unreliable lane to several sessions. The record's
    /// session is 0.
    List {
        /// Whose.
        sessions: Sessions<'a>,
        /// A `MESSAGE`.
        body: &'a [u8],
    },
    /// Backend → gateway: an attribute of a session.
    Attribute {
        /// Which, by the group's own name for it.
        key: u16,
        /// What it is from now on; 0 takes it away.
        value: u32,
    },
}

/// Sessions as they stand in a record, at most `LIST_SESSIONS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sessions<'a>(&'a [u8]);

impl Sessions<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = SessionId> {
        let (ids, _) = self.0.as_chunks::<8>();
        ids.iter().map(|id| SessionId(u64::from_le_bytes(*id)))
    }
}

/// The data stream, from 1, that carries what concerns a channel: who is a member, and what is
/// published, in one order.
pub const fn stream_of_channel(channel: ChannelId) -> u8 {
    1 + (channel.0 % UPLINK_STREAMS as u32) as u8
}

/// Appends a LIST record to the first `LIST_SESSIONS_MAX` sessions, whose message `write_body`
/// appends.
pub fn encode_list(
    sessions: &[SessionId],
    out: &mut Vec<u8>,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    let sessions = &sessions[..sessions.len().min(LIST_SESSIONS_MAX)];
    encode_with(SessionId(0), LIST, out, |out| {
        out.extend_from_slice(&(sessions.len() as u16).to_le_bytes());
        for session in sessions {
            out.extend_from_slice(&session.0.to_le_bytes());
        }
        write_body(out);
    });
}

/// Appends a PUBLISH record, whose body `write_body` appends.
pub fn encode_publish(filter: &Filter, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    encode_with(filter.except, PUBLISH, out, |out| {
        encode_filter(filter, out);
        write_body(out);
    });
}

/// All of it but the session that it leaves out, which stands in front of the record.
fn encode_filter(filter: &Filter, out: &mut Vec<u8>) {
    out.extend_from_slice(&filter.version_min.to_le_bytes());
    out.extend_from_slice(&filter.version_max.to_le_bytes());
    out.push(u8::from(filter.attribute.is_some()));
    let (key, value) = filter.attribute.unwrap_or_default();
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&value.to_le_bytes());
}

/// The data stream, from 1, that carries a session's records.
pub const fn stream_of(session: SessionId) -> u8 {
    1 + (session.0 % UPLINK_STREAMS as u64) as u8
}

/// Appends one record.
pub fn encode(session: SessionId, record: &Record<'_>, out: &mut Vec<u8>) {
    encode_with(session, kind(record), out, |out| match *record {
        Record::Data(body) => out.extend_from_slice(body),
        Record::Latest { key, body } => {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(body);
        }
        Record::Open(open) => {
            out.extend_from_slice(&open.fence.0.to_le_bytes());
            out.extend_from_slice(&open.unix_ms.to_le_bytes());
            out.extend_from_slice(&open.client_version.to_le_bytes());
            let address = if open.address.is_some() {
                OPEN_HAS_ADDRESS
            } else {
                0
            };
            out.push(address | if open.away { OPEN_AWAY } else { 0 });
            if let Some(address) = open.address {
                out.extend_from_slice(&address.ip);
                out.extend_from_slice(&address.port.to_le_bytes());
            }
            for label in [open.account, open.channel] {
                let label = crate::body::truncated(label, LABEL_BYTES_MAX);
                out.push(label.len() as u8);
                out.extend_from_slice(label.as_bytes());
            }
        }
        Record::End {
            fence,
            reason,
            unix_ms,
        } => {
            out.extend_from_slice(&fence.0.to_le_bytes());
            out.extend_from_slice(&reason.to_le_bytes());
            out.extend_from_slice(&unix_ms.to_le_bytes());
        }
        Record::Kick { fence, reason } => {
            out.extend_from_slice(&fence.0.to_le_bytes());
            out.extend_from_slice(&reason.to_le_bytes());
        }
        Record::Gone => {}
        Record::Quality(quality) => {
            crate::body::encode_report(&quality.ours, out);
            crate::body::encode_report(&quality.theirs, out);
        }
        Record::Join {
            channel,
            incarnation,
            next,
        } => {
            out.extend_from_slice(&channel.0.to_le_bytes());
            out.extend_from_slice(&incarnation.0.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        Record::Leave { channel } => out.extend_from_slice(&channel.0.to_le_bytes()),
        Record::Publish { filter, body } => {
            encode_filter(&filter, out);
            out.extend_from_slice(body);
        }
        Record::List { sessions, body } => {
            out.extend_from_slice(&((sessions.0.len() / 8) as u16).to_le_bytes());
            out.extend_from_slice(sessions.0);
            out.extend_from_slice(body);
        }
        Record::Attribute { key, value } => {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
    });
}

/// Appends a DATA record whose body `write_body` appends.
pub fn encode_data(session: SessionId, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    encode_with(session, DATA, out, write_body);
}

/// Appends a LATEST record whose body `write_body` appends.
pub fn encode_latest(
    session: SessionId,
    key: u32,
    out: &mut Vec<u8>,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    encode_with(session, LATEST, out, |out| {
        out.extend_from_slice(&key.to_le_bytes());
        write_body(out);
    });
}

const _: () = assert!(
    ACCOUNT_BYTES_MAX <= LABEL_BYTES_MAX,
    "both are written with one length byte"
);

const fn kind(record: &Record<'_>) -> u8 {
    match record {
        Record::Data(_) => DATA,
        Record::Latest { .. } => LATEST,
        Record::Open(_) => OPEN,
        Record::End { .. } => END,
        Record::Kick { .. } => KICK,
        Record::Gone => GONE,
        Record::Quality(_) => QUALITY,
        Record::Join { .. } => JOIN,
        Record::Leave { .. } => LEAVE,
        Record::Publish { .. } => PUBLISH,
        Record::List { .. } => LIST,
        Record::Attribute { .. } => ATTRIBUTE,
    }
}

fn encode_with(session: SessionId, kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, kind]);
    out.extend_from_slice(&session.0.to_le_bytes());
    write(out);
    let length = (out.len() - start) as u32;
    out[start..start + 3].copy_from_slice(&length.to_le_bytes()[..3]);
}

/// The length of the record that starts here, once three bytes are there.
///
/// # Errors
/// The length is outside its bounds.
pub fn length(start: &[u8]) -> Result<Option<usize>, BadRecord> {
    match crate::frame::length(start) {
        None => Ok(None),
        Some(length) if (RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&length) => {
            Ok(Some(length))
        }
        Some(_) => Err(BadRecord),
    }
}

/// Decodes the first record of a run of whole records, which it shortens;
/// `None` at its end.
///
/// # Errors
/// The run is not what `encode` writes.
pub fn next<'a>(run: &mut &'a [u8]) -> Result<Option<(SessionId, Record<'a>)>, BadRecord> {
    if run.is_empty() {
        return Ok(None);
    }
    let length = length(run)?.ok_or(BadRecord)?;
    let (record, rest) = run.split_at_checked(length).ok_or(BadRecord)?;
    *run = rest;
    let mut r = Cursor(&record[3..]);
    let [kind] = r.take()?;
    let session = SessionId(u64::from_le_bytes(r.take()?));
    let record = match kind {
        DATA => return Ok(Some((session, Record::Data(r.0)))),
        LATEST => {
            let key = u32::from_le_bytes(r.take()?);
            return Ok(Some((session, Record::Latest { key, body: r.0 })));
        }
        OPEN => {
            let fence = Fence(u64::from_le_bytes(r.take()?));
            let unix_ms = u64::from_le_bytes(r.take()?);
            let client_version = u32::from_le_bytes(r.take()?);
            let [flags] = r.take()?;
            if flags & !(OPEN_HAS_ADDRESS | OPEN_AWAY) != 0 {
                return Err(BadRecord);
            }
            let address = if flags & OPEN_HAS_ADDRESS != 0 {
                Some(ClientAddress {
                    ip: r.take()?,
                    port: u16::from_le_bytes(r.take()?),
                })
            } else {
                None
            };
            Record::Open(Open {
                fence,
                unix_ms,
                client_version,
                address,
                away: flags & OPEN_AWAY != 0,
                account: r.label()?,
                channel: r.label()?,
            })
        }
        END => Record::End {
            fence: Fence(u64::from_le_bytes(r.take()?)),
            reason: u16::from_le_bytes(r.take()?),
            unix_ms: u64::from_le_bytes(r.take()?),
        },
        KICK => Record::Kick {
            fence: Fence(u64::from_le_bytes(r.take()?)),
            reason: u16::from_le_bytes(r.take()?),
        },
        GONE => Record::Gone,
        QUALITY => Record::Quality(Quality {
            ours: r.report()?,
            theirs: r.report()?,
        }),
        JOIN => Record::Join {
            channel: ChannelId(u32::from_le_bytes(r.take()?)),
            incarnation: Incarnation(u64::from_le_bytes(r.take()?)),
            next: u32::from_le_bytes(r.take()?),
        },
        LEAVE => Record::Leave {
            channel: ChannelId(u32::from_le_bytes(r.take()?)),
        },
        PUBLISH => {
            let version_min = u32::from_le_bytes(r.take()?);
            let version_max = u32::from_le_bytes(r.take()?);
            let [has_attribute] = r.take()?;
            let key = u16::from_le_bytes(r.take()?);
            let value = u32::from_le_bytes(r.take()?);
            let attribute = match has_attribute {
                0 if (key, value) == (0, 0) => None,
                1 => Some((key, value)),
                _ => return Err(BadRecord),
            };
            let filter = Filter {
                except: session,
                version_min,
                version_max,
                attribute,
            };
            let body = std::mem::take(&mut r.0);
            Record::Publish { filter, body }
        }
        LIST => {
            let count = usize::from(u16::from_le_bytes(r.take()?));
            if count > LIST_SESSIONS_MAX {
                return Err(BadRecord);
            }
            let (sessions, body) = r.0.split_at_checked(8 * count).ok_or(BadRecord)?;
            r.0 = &[];
            let sessions = Sessions(sessions);
            Record::List { sessions, body }
        }
        ATTRIBUTE => Record::Attribute {
            key: u16::from_le_bytes(r.take()?),
            value: u32::from_le_bytes(r.take()?),
        },
        _ => return Err(BadRecord),
    };
    if r.0.is_empty() {
        Ok(Some((session, record)))
    } else {
        Err(BadRecord)
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadRecord)?;
        self.0 = rest;
        Ok(*head)
    }

    fn report(&mut self) -> Result<Report, BadRecord> {
        Ok(Report {
            round_trip_us: u32::from_le_bytes(self.take()?),
            jitter_us: u32::from_le_bytes(self.take()?),
            loss: u8::from_le_bytes(self.take()?),
        })
    }

    fn label(&mut self) -> Result<&'a str, BadRecord> {
        let [length] = self.take()?;
        if usize::from(length) > LABEL_BYTES_MAX {
            return Err(BadRecord);
        }
        let (label, rest) = self
            .0
            .split_at_checked(usize::from(length))
            .ok_or(BadRecord)?;
        self.0 = rest;
        std::str::from_utf8(label).map_err(|_| BadRecord)
    }
}

#[cfg(test)]
mod tests;
