//! Looks at the frames of a connection's byte stream from outside, as somebody
//! on the path could: cuts them, out of a WebSocket too, notes which sequence was sealed over what, and
//! tells kinds apart by their length.
//!
//! Invariant: it knows no key. What it says about nonces follows from the
//! protocol: a key a direction of a connection, the nonce is the sequence,
//! which goes on through a rekey.

use protocol::frame::{self, FLAG_CHANNEL, FLAG_HANDSHAKE, Header};
use protocol::limits::{FRAME_HEADER_BYTES, TAG_BYTES};

use crate::rule::{Rule, Step, check};
use crate::trace;
use crate::web::Layer;

/// Frame bytes of a PING: header, kind, 0, three stamps and spans, report, tag.
const PING_FRAME_BYTES: usize = FRAME_HEADER_BYTES + 23 + TAG_BYTES;

/// Frame bytes of a PONG: header, kind, 0, two stamps, report, tag.
const PONG_FRAME_BYTES: usize = FRAME_HEADER_BYTES + 19 + TAG_BYTES;
/// Frame bytes of a LOGOUT.
const LOGOUT_FRAME_BYTES: usize = FRAME_HEADER_BYTES + 1 + TAG_BYTES;
/// Where the ephemeral public key lies in a HELLO or WELCOME.
const EPHEMERAL: std::ops::Range<usize> = FRAME_HEADER_BYTES + 4..FRAME_HEADER_BYTES + 36;
/// In a RESUME the id of the ticket comes before it.
const RESUME: u8 = 4;
const RESUME_EPHEMERAL: std::ops::Range<usize> = FRAME_HEADER_BYTES + 12..FRAME_HEADER_BYTES + 44;

/// Cuts a byte stream into whole frames.
#[derive(Debug, Default)]
pub struct Cutter {
    layer: Layer,
    partial: Vec<u8>,
}

impl Cutter {
    /// The frames that these bytes complete.
    pub fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.partial.extend_from_slice(bytes);
        let mut frames = self.layer.peel(&mut self.partial);
        if !matches!(self.layer, Layer::Plain) {
            return frames;
        }
        let mut at = 0;
        while let Some(length) = frame::length(&self.partial[at..]) {
            // A length below the header is an attack; it is passed on as it is.
            let length = length.max(3);
            if self.partial.len() - at < length {
                break;
            }
            frames.push(self.partial[at..at + length].to_vec());
            at += length;
        }
        self.partial.drain(..at);
        frames
    }
}

/// The ephemeral public key in the frame of a handshake.
pub fn ephemeral(frame: &[u8]) -> Option<&[u8]> {
    let is_resume = frame.get(FRAME_HEADER_BYTES) == Some(&RESUME);
    frame.get(if is_resume {
        RESUME_EPHEMERAL
    } else {
        EPHEMERAL
    })
}

fn is_handshake(frame: &[u8]) -> bool {
    Header::decode(frame).is_some_and(|header| header.flags & FLAG_HANDSHAKE != 0)
}

/// What one sender has sealed on one connection.
#[derive(Debug, Default)]
pub struct Sealed {
    cutter: Cutter,
    /// By sequence: a hash of the frame. Sequences have no gap.
    frames: Vec<u64>,
    /// Frames for channels since somebody asked: key, sequence and a hash.
    for_channels: Vec<(u32, u32, u64)>,
}

impl Sealed {
    /// Notes what a sender hands to its socket; a public key of a handshake
    /// goes to `ephemeral`.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note(&mut self, bytes: &[u8], mut ephemeral: impl FnMut(&[u8]) -> Step) -> Step {
        for frame in self.cutter.cut(bytes) {
            match self::ephemeral(&frame).filter(|_| is_handshake(&frame)) {
                Some(key) => ephemeral(key)?,
                None => self.note_frame(&frame)?,
            }
        }
        Ok(())
    }

    /// The frames for channels since the last time.
    pub fn take_for_channels(&mut self) -> Vec<(u32, u32, u64)> {
        std::mem::take(&mut self.for_channels)
    }

    /// Notes a sealed frame; one of a handshake, or none, is passed over.
    ///
    /// # Errors
    /// `NoNonceTwice`.
    pub fn note_frame(&mut self, frame: &[u8]) -> Step {
        let Some(header) =
            Header::decode(frame).filter(|header| header.flags & FLAG_HANDSHAKE == 0)
        else {
            return Ok(());
        };
        let hash = trace::hash(frame);
        if header.flags & FLAG_CHANNEL != 0 {
            if let Some(key) = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 4) {
                let key = u32::from_le_bytes([key[0], key[1], key[2], key[3]]);
                self.for_channels.push((key, header.sequence, hash));
            }
            return Ok(());
        }
        let sequence = header.sequence as usize;
        match self.frames.get(sequence) {
            Some(earlier) => check(*earlier == hash, Rule::NoNonceTwice, || {
                format!("sequence {sequence} was sealed over two different frames")
            }),
            None => {
                let frames = self.frames.len();
                self.frames.push(hash);
                check(sequence == frames, Rule::NoNonceTwice, || {
                    format!("sequence {sequence} was sealed after {frames} frames")
                })
            }
        }
    }
}

/// What a gateway does with a frame by itself, without forwarding it.
#[derive(Debug, Default)]
pub struct Delivered {
    cutter: Cutter,
    logged_in: bool,
    /// It began with a RESUME.
    pub resumes: bool,
}

impl Delivered {
    /// Of the frames that these bytes complete, the first `processed` were
    /// processed: how many of those the gateway answers itself.
    pub fn local_frames(&mut self, bytes: &[u8], processed: usize) -> u64 {
        let mut local = 0;
        for (at, frame) in self.cutter.cut(bytes).iter().enumerate() {
            if is_handshake(frame) {
                self.resumes |= frame.get(FRAME_HEADER_BYTES) == Some(&RESUME);
                continue;
            }
            if at >= processed {
                continue;
            }
            let is_login = !std::mem::replace(&mut self.logged_in, true);
            let local_bytes = [PING_FRAME_BYTES, PONG_FRAME_BYTES, LOGOUT_FRAME_BYTES];
            if is_login || local_bytes.contains(&frame.len()) {
                local += 1;
            }
        }
        local
    }
}

/// What an attacker on the path does to the client's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// Sends an earlier frame again.
    Replay,
    /// Sends a frame twice.
    Double,
    /// Swaps two frames.
    Swap,
    /// Flips a bit behind the length.
    Flip {
        /// Which, wrapped at the frame's length.
        bit: u64,
    },
}

/// An attacker on one connection.
#[derive(Debug, Default)]
pub struct Attacker {
    cutter: Cutter,
    /// What it will do next.
    pub armed: Option<Tampering>,
    recorded: Option<Vec<u8>>,
    held: Option<Vec<u8>>,
}

impl Attacker {
    /// What reaches the gateway instead of `bytes`, and where in it the first
    /// tampered frame ends.
    pub fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
        let mut out = Vec::new();
        let mut tampered = None;
        for mut frame in self.cutter.cut(bytes) {
            let is_sealed = frame
                .get(3)
                .is_some_and(|flags| flags & FLAG_HANDSHAKE == 0);
            if let Some(held) = self.held.take() {
                out.extend_from_slice(&frame);
                tampered.get_or_insert(out.len());
                out.extend_from_slice(&held);
                continue;
            }
            if !is_sealed {
                out.extend_from_slice(&frame);
                continue;
            }
            let earlier = self.recorded.get_or_insert_with(|| frame.clone()).clone();
            match self.armed.take() {
                None => out.extend_from_slice(&frame),
                Some(Tampering::Replay) => {
                    out.extend_from_slice(&frame);
                    out.extend_from_slice(&earlier);
                    tampered.get_or_insert(out.len());
                }
                Some(Tampering::Double) => {
                    out.extend_from_slice(&frame);
                    out.extend_from_slice(&frame);
                    tampered.get_or_insert(out.len());
                }
                Some(Tampering::Swap) => self.held = Some(frame),
                Some(Tampering::Flip { bit }) => {
                    let bits = (frame.len() as u64 - 3) * 8;
                    let bit = 24 + bit % bits;
                    frame[(bit / 8) as usize] ^= 1 << (bit % 8);
                    out.extend_from_slice(&frame);
                    tampered.get_or_insert(out.len());
                }
            }
        }
        (out, tampered)
    }
}
