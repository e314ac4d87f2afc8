//! The four frames of the handshake, at the end that reads them. What only the holder of a key
//! can have made is taken only as it was made.

use protocol::cipher::Key;
use protocol::frame::write_crc;
use protocol::handshake::{
    Initiator, StaticKey, WELCOME_FRAME_BYTES, read_reject, respond, respond_resume, ticket_id,
};
use protocol::limits::FRAME_HEADER_BYTES;
use protocol::reason::CloseReason;
use protocol::ticket::Ticket;

use super::PARAMETERS;
use crate::script::{Script, Way};

const GATEWAY: [u8; 32] = [9; 32];
const CLIENT_EPHEMERAL: [u8; 32] = [7; 32];
const GATEWAY_EPHEMERAL: [u8; 32] = [8; 32];
const CLIENT_MS: u32 = 5;
const GATEWAY_MS: u32 = 6;

/// The second byte of an input: CRC and length of the frame are made right, so that more than
/// one input in four billion gets past them.
const MENDED: u8 = 1;

fn ticket() -> Ticket {
    Ticket::derive(&Key([1; 32]), &Key([2; 32]), &[3; 32])
}

fn hello(out: &mut Vec<u8>) -> Initiator {
    let gateway = StaticKey::from_secret(GATEWAY);
    Initiator::hello(gateway.public(), CLIENT_EPHEMERAL, CLIENT_MS, out).expect("a usable key")
}

fn resume(out: &mut Vec<u8>) -> Initiator {
    Initiator::resume(&ticket(), CLIENT_EPHEMERAL, CLIENT_MS, out).expect("a usable ticket")
}

/// Answers to the frame that `from` makes, or to this one.
fn answer(
    what: u8,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<protocol::handshake::Keys, CloseReason> {
    match what {
        0 => respond(
            &StaticKey::from_secret(GATEWAY),
            GATEWAY_EPHEMERAL,
            frame,
            GATEWAY_MS,
            &PARAMETERS,
            out,
        ),
        _ => respond_resume(
            &ticket(),
            GATEWAY_EPHEMERAL,
            frame,
            GATEWAY_MS,
            &PARAMETERS,
            out,
        ),
    }
}

/// The genuine frames: HELLO, RESUME, and the WELCOME of each.
fn genuine(what: u8) -> (Initiator, Vec<u8>, Vec<u8>) {
    let (mut first, mut welcome) = (Vec::new(), Vec::new());
    let initiator = match what {
        0 => hello(&mut first),
        _ => resume(&mut first),
    };
    answer(what, &first, &mut welcome).expect("our own frame");
    (initiator, first, welcome)
}

/// A frame for one of the four.
pub fn run(data: &[u8]) -> u64 {
    let mut way = Way::default();
    let mut script = Script::new(data);
    let (what, mended) = (script.u8() % 4, script.u8() & MENDED != 0);
    let mut frame = script.rest().to_vec();
    if mended && frame.len() >= FRAME_HEADER_BYTES {
        let length = (frame.len() as u32).to_le_bytes();
        frame[..3].copy_from_slice(&length[..3]);
        write_crc(&mut frame);
    }
    way.note(u64::from(what));
    way.note(read_reject(&frame).map_or(0, |reason| reason as u64));
    way.note(u64::from(ticket_id(&frame).is_some()));
    let pattern = what % 2;
    if what < 2 {
        let mut out = Vec::new();
        match answer(pattern, &frame, &mut out) {
            Ok(_) => {
                assert_eq!(out.len(), WELCOME_FRAME_BYTES);
                let (_, first, _) = genuine(pattern);
                assert_eq!(frame, first, "nobody else has made one");
                way.note(1 << 16);
            }
            Err(reason) => {
                assert!(out.is_empty(), "nothing is answered to what is refused");
                way.note(reason as u64);
            }
        }
    } else {
        let (initiator, _, welcome) = genuine(pattern);
        match initiator.welcome(&frame) {
            Ok((_, parameters)) => {
                assert_eq!(parameters, PARAMETERS);
                // The header of WELCOME is in the clear, and is not authenticated.
                let at = FRAME_HEADER_BYTES + 4;
                assert_eq!(frame[at..], welcome[at..], "nobody else has made one");
                way.note(1 << 16);
            }
            Err(reason) => way.note(reason as u64),
        }
    }
    way.value()
}

/// The genuine frames, each at its place, with and without mending.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for pattern in 0..2 {
        let (_, first, welcome) = genuine(pattern);
        let mut reject = Vec::new();
        protocol::handshake::reject(CloseReason::Full, GATEWAY_MS, &mut reject);
        for (what, frame) in [
            (pattern, &first),
            (pattern + 2, &welcome),
            (pattern + 2, &reject),
        ] {
            for mended in [0, MENDED] {
                let mut seed = vec![what, mended];
                seed.extend_from_slice(frame);
                seeds.push(seed);
            }
        }
    }
    seeds
}
