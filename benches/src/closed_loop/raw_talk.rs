//! Talk with an echo: the payload goes out as it is and comes back as it is.
//!
//! Invariant: a request differs from the one before it on its connection, so an
//! answer that came twice is noticed.

use std::io;

use protocol::time::{Now, Time};

use super::{Args, Heard, Talk};
use crate::tiny::noise;

#[derive(Clone, Copy, Default)]
struct Line {
    /// Number of the request that is outstanding.
    number: u64,
    /// Bytes of its answer that are here.
    heard: usize,
    is_asked: bool,
}

pub(super) struct RawTalk {
    payload: Vec<u8>,
    lines: Vec<Line>,
}

impl RawTalk {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            payload: noise(args.payload_bytes.into()),
            lines: vec![Line::default(); args.connections as usize],
        }
    }
}

/// The number and the connection stand at the front of a payload.
fn front(index: u32, number: u64) -> [u8; 12] {
    let mut front = [0; 12];
    front[..8].copy_from_slice(&number.to_le_bytes());
    front[8..].copy_from_slice(&index.to_le_bytes());
    front
}

impl Talk for RawTalk {
    fn handle_connected(&mut self, _index: u32, _now: Now) -> io::Result<Heard> {
        Ok(Heard::Ready)
    }

    fn handle_received(&mut self, index: u32, data: &mut [u8], _now: Time) -> io::Result<Heard> {
        let line = &mut self.lines[index as usize];
        let end = line.heard + data.len();
        if end > self.payload.len() {
            return Err(io::Error::other("more came back than was sent"));
        }
        let front = front(index, line.number);
        self.payload[..front.len()].copy_from_slice(&front);
        if self.payload[line.heard..end] != *data {
            return Err(io::Error::other("something else came back than was sent"));
        }
        line.heard = end;
        if end < self.payload.len() {
            return Ok(Heard::Nothing);
        }
        Ok(Heard::Answer)
    }

    fn ask(&mut self, index: u32) -> io::Result<u32> {
        let line = &mut self.lines[index as usize];
        line.number += 1;
        line.heard = 0;
        line.is_asked = true;
        Ok(index)
    }

    fn poll_transmit(&mut self, index: u32, _now: Time, out: &mut Vec<u8>) -> bool {
        let line = &mut self.lines[index as usize];
        if !std::mem::take(&mut line.is_asked) {
            return false;
        }
        let front = front(index, line.number);
        self.payload[..front.len()].copy_from_slice(&front);
        out.extend_from_slice(&self.payload);
        true
    }

    fn handle_timeout(&mut self, _index: u32, _now: Time) -> io::Result<()> {
        Ok(())
    }
}
