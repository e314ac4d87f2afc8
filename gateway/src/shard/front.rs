//! What comes before a client's frames: the shard's end of `crate::front`.

use protocol::frame;
use protocol::limits::FRAME_HEADER_BYTES;
use protocol::reason::CloseReason;
use protocol::time::Now;

use super::Shard;
use super::connection::{Connection, Phase};
use crate::front::tls::{FIRST_BYTES, Tls};
use crate::front::{Front, Step};

impl Shard {
    /// The first bytes are no length of a frame. They may be the beginning of
    /// something else, which then gets them and `data`.
    pub(super) fn handle_bad_length(
        &mut self,
        now: Now,
        connection: &mut Connection,
        length: usize,
        data: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        if !matches!(connection.phase, Phase::Hello) {
            return Err(CloseReason::BadLength);
        }
        let [a, b, c, ..] = length.to_le_bytes();
        let first = [a, b, c];
        // Where they came in pieces, they stand no longer in `data`.
        let taken: &[u8] = match connection.reassembly.pending_bytes() {
            0 => &[],
            _ => &first,
        };
        if first.starts_with(&FIRST_BYTES)
            && connection.tls.is_none()
            && let Some(tls) = self.config.front.certificate.accept(taken)
        {
            connection.reassembly.release(&mut self.buffers);
            connection.tls = Some(tls);
            return self.handle_tls(now, connection, data, pause_us);
        }
        let Some(front) = Front::of_first_bytes(first, taken) else {
            return Err(CloseReason::BadLength);
        };
        connection.reassembly.release(&mut self.buffers);
        connection.front = Some(front);
        self.handle_front(now, connection, data, pause_us)
    }

    /// Bytes as they are without TLS.
    pub(super) fn handle_plain(
        &mut self,
        now: Now,
        connection: &mut Connection,
        data: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        match connection.front {
            Some(_) => self.handle_front(now, connection, data, pause_us),
            None => self.handle_stream(now, connection, data, pause_us),
        }
    }

    /// Records of TLS, and what they carry.
    pub(super) fn handle_tls(
        &mut self,
        now: Now,
        connection: &mut Connection,
        mut data: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        let mut plain = self.buffers.take();
        let mut end = Ok(());
        while end.is_ok() {
            let record_bytes_max = Tls::record_bytes_max(connection.frame_bytes_max());
            let Some(tls) = &mut connection.tls else {
                break;
            };
            let was_open = tls.is_open();
            plain.clear();
            end = match tls.next(&mut data, record_bytes_max, &mut plain, &mut self.buffers) {
                Ok(false) => break,
                Ok(true) if !was_open => {
                    self.counters.tls_handshakes.add(u64::from(tls.is_open()));
                    Ok(())
                }
                // TLS's own traffic, beside that of the handshake, counts as frames.
                Ok(true) if plain.is_empty() => {
                    self.charge(now, connection, 0, pause_us).map(|_| ())
                }
                Ok(true) => self.handle_plain(now, connection, &mut plain, pause_us),
                Err(reason) => Err(reason),
            };
        }
        self.buffers.give(plain);
        end
    }

    /// Bytes for a front, and through it for the client's session.
    pub(super) fn handle_front(
        &mut self,
        now: Now,
        connection: &mut Connection,
        mut data: &mut [u8],
        pause_us: &mut u64,
    ) -> Result<(), CloseReason> {
        let Some(mut front) = connection.front.take() else {
            return Ok(());
        };
        let mut end = Ok(());
        while end.is_ok() {
            let frame_bytes_max = connection.frame_bytes_max();
            let peer = connection.peer;
            let config = &self.config.front;
            match front.next(config, peer, &mut data, frame_bytes_max, &mut self.buffers) {
                Ok(Step::Wait) => break,
                Ok(Step::Done(address)) => {
                    self.enter_told(now, connection, address)?;
                    return self.handle_stream(now, connection, data, pause_us);
                }
                Ok(Step::Open(address)) => end = self.enter_told(now, connection, address),
                Ok(Step::Message { text: true, .. }) => {
                    front.refuse_text();
                    end = Err(CloseReason::BadWebsocket);
                }
                Ok(Step::Message { bytes, .. }) => {
                    // A message is a frame, neither less nor more.
                    let is_frame = bytes.len() >= FRAME_HEADER_BYTES
                        && frame::length(bytes) == Some(bytes.len());
                    end = match is_frame {
                        true => self.handle_frame(now, connection, bytes, pause_us),
                        false => Err(CloseReason::BadLength),
                    };
                }
                Ok(Step::Overhead(bytes)) => {
                    end = self.charge(now, connection, bytes, pause_us).map(|_| ());
                }
                Err(reason) => end = Err(reason),
            }
        }
        connection.front = Some(front);
        end
    }
}
