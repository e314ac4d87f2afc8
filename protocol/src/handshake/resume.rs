//! The handshake of a resume: Noise NNpsk0 under a ticket's key. Who can answer
//! it knows the key, so neither side needs another proof of the other.
//!
//! Invariant: nothing but zeros travels in it, and its first message proves
//! nothing of its freshness; so nobody may act on it before a sealed frame has
//! verified.

use super::{
    CLEAR_BYTES, Initiator, Keys, Parameters, VERSION, builder, open_handshake, write_welcome,
};
use crate::frame::{self, AAD_BYTES, FLAG_HANDSHAKE, Header};
use crate::ids::TicketId;
use crate::limits::FRAME_HEADER_BYTES;
use crate::reason::CloseReason;
use crate::ticket::Ticket;

/// The Noise protocol name of a resume (revision 34, §8 and §9).
pub const NOISE_RESUME_NAME: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

const PROLOGUE_LABEL: &[u8; 14] = b"sallyport-re-1";
const TYPE_RESUME: u8 = 4;
const ID_BYTES: usize = 8;

/// Bytes of padding, sealed: with them a RESUME is as long as its WELCOME, so that
/// an answer over UDP is never longer than the question.
const PADDING_BYTES: usize = 16;
const NOISE_RESUME_BYTES: usize = 32 + PADDING_BYTES + 16;

/// Bytes of a RESUME frame.
pub const RESUME_FRAME_BYTES: usize =
    FRAME_HEADER_BYTES + CLEAR_BYTES + ID_BYTES + NOISE_RESUME_BYTES;
const _: () = assert!(RESUME_FRAME_BYTES >= super::WELCOME_FRAME_BYTES);

const CLEAR: [u8; CLEAR_BYTES] = [TYPE_RESUME, VERSION, 0, 0];

impl Initiator {
    /// Appends a RESUME frame to `out`; `welcome` reads the answer. `ephemeral`
    /// is the secret X25519 key of this handshake: fresh, secret, never used again.
    ///
    /// # Errors
    /// `BadHandshake`, which no ticket brings about.
    pub fn resume(
        ticket: &Ticket,
        ephemeral: [u8; 32],
        timestamp_ms: u32,
        out: &mut Vec<u8>,
    ) -> Result<Self, CloseReason> {
        let head = Header {
            length: RESUME_FRAME_BYTES as u32,
            flags: FLAG_HANDSHAKE,
            sequence: 0,
            timestamp_ms,
            crc: 0,
        }
        .encode();
        let id = ticket.id().0.to_le_bytes();
        let prologue = prologue(&head, &CLEAR, &id);
        let mut noise = builder(NOISE_RESUME_NAME, ephemeral)?
            .prologue(&prologue)
            .and_then(|b| b.psk(0, ticket.key()))
            .and_then(snow::Builder::build_initiator)
            .map_err(|_| CloseReason::BadHandshake)?;
        let mut body = [0; CLEAR_BYTES + ID_BYTES + NOISE_RESUME_BYTES];
        body[..CLEAR_BYTES].copy_from_slice(&CLEAR);
        body[CLEAR_BYTES..CLEAR_BYTES + ID_BYTES].copy_from_slice(&id);
        noise
            .write_message(&[0; PADDING_BYTES], &mut body[CLEAR_BYTES + ID_BYTES..])
            .map_err(|_| CloseReason::BadHandshake)?;
        frame::encode_handshake(timestamp_ms, &body, out);
        Ok(Self {
            noise: Box::new(noise),
        })
    }
}

/// The ticket that a first frame names, if it is a RESUME. `None` for whatever
/// else it may be; `respond` says what is wrong with that.
pub fn ticket_id(frame: &[u8]) -> Option<TicketId> {
    let (kind, _, rest) = open_handshake(frame).ok()?;
    let (id, _) = rest.split_first_chunk()?;
    (kind == TYPE_RESUME).then_some(TicketId(u64::from_le_bytes(*id)))
}

/// The gateway's side, all of it: reads a RESUME frame, appends the WELCOME
/// frame to `out`, and returns the keys. They prove only that somebody has had
/// the ticket at some time: act on the first sealed frame, not before.
///
/// # Errors
/// `BadFlags`, `BadCrc`, `BadVersion`, `BadHandshake`; nothing was appended.
pub fn respond_resume(
    ticket: &Ticket,
    ephemeral: [u8; 32],
    resume: &[u8],
    timestamp_ms: u32,
    parameters: &Parameters,
    out: &mut Vec<u8>,
) -> Result<Keys, CloseReason> {
    let (kind, clear, rest) = open_handshake(resume)?;
    if clear[1] != VERSION {
        return Err(CloseReason::BadVersion);
    }
    let (id, message) = rest
        .split_first_chunk::<ID_BYTES>()
        .ok_or(CloseReason::BadHandshake)?;
    if kind != TYPE_RESUME || message.len() != NOISE_RESUME_BYTES {
        return Err(CloseReason::BadHandshake);
    }
    let prologue = prologue(resume, &clear, id);
    let mut noise = builder(NOISE_RESUME_NAME, ephemeral)?
        .prologue(&prologue)
        .and_then(|b| b.psk(0, ticket.key()))
        .and_then(snow::Builder::build_responder)
        .map_err(|_| CloseReason::BadHandshake)?;
    noise
        .read_message(message, &mut [0; PADDING_BYTES])
        .map_err(|_| CloseReason::BadHandshake)?;
    write_welcome(&mut noise, timestamp_ms, parameters, out)
}

fn prologue(
    header: &[u8],
    clear: &[u8; CLEAR_BYTES],
    id: &[u8; ID_BYTES],
) -> [u8; PROLOGUE_LABEL.len() + AAD_BYTES + CLEAR_BYTES + ID_BYTES] {
    let mut out = [0; PROLOGUE_LABEL.len() + AAD_BYTES + CLEAR_BYTES + ID_BYTES];
    let (label, rest) = out.split_at_mut(PROLOGUE_LABEL.len());
    label.copy_from_slice(PROLOGUE_LABEL);
    let (head, rest) = rest.split_at_mut(AAD_BYTES);
    head.copy_from_slice(&header[..AAD_BYTES]);
    rest[..CLEAR_BYTES].copy_from_slice(clear);
    rest[CLEAR_BYTES..].copy_from_slice(id);
    out
}

#[cfg(test)]
mod tests;
