//! The records of an uplink's data streams. A DATA record carries a message
//! body exactly as a client's frame does, so that neither side encodes it
//! again. Control messages are prost (`control`).
//!
//! Layout: `u24 length of the whole record | u8 type | u64 session | rest`.

use core::net::{Ipv6Addr, SocketAddr};

use crate::ids::{Fence, SessionId};
use crate::limits::{ACCOUNT_BYTES_MAX, LABEL_BYTES_MAX, RECORD_BYTES_MAX, UPLINK_STREAMS};
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
}

/// The data stream, from 1, that carries a session's records.
pub const fn stream_of(session: SessionId) -> u8 {
    1 + (session.0 % UPLINK_STREAMS as u64) as u8
}

/// Appends one record.
pub fn encode(session: SessionId, record: &Record<'_>, out: &mut Vec<u8>) {
    encode_with(session, kind(record), out, |out| match *record {
        Record::Data(body) => out.extend_from_slice(body),
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
    });
}

/// Appends a DATA record whose body `write_body` appends.
pub fn encode_data(session: SessionId, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    encode_with(session, DATA, out, write_body);
}

const _: () = assert!(
    ACCOUNT_BYTES_MAX <= LABEL_BYTES_MAX,
    "both are written with one length byte"
);

const fn kind(record: &Record<'_>) -> u8 {
    match record {
        Record::Data(_) => DATA,
        Record::Open(_) => OPEN,
        Record::End { .. } => END,
        Record::Kick { .. } => KICK,
        Record::Gone => GONE,
        Record::Quality(_) => QUALITY,
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
