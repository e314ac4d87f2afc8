//! Records of an uplink: a batch of DATA records appended to a stream's buffer
//! by one side and taken apart by the other.
//!
//! Deliberately not here: QUIC, and the streams of sessions.

use protocol::body::{Body, Lane, MessageHeader, MessageKind};
use protocol::ids::{GroupId, MessageId, SessionId};
use protocol::uplink::{self, BadRecord, Record};

use crate::Digest;
use crate::tiny::noise;

/// Bytes of a record, its header included.
pub const RECORD_BYTES: usize = 100;

/// Writes batches of records and reads them.
pub struct Batch {
    payload: Vec<u8>,
    header: MessageHeader,
    /// The encoded batch.
    pub bytes: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        let header = MessageHeader {
            kind: MessageKind::Request,
            lane: Lane::Reliable,
            more: false,
            group: GroupId(1),
            number: 0,
            ack: 0,
            message: MessageId(1),
            request: 0,
        };
        let payload = RECORD_BYTES - uplink::RECORD_HEADER_BYTES - header.encoded_bytes();
        Self {
            payload: noise(payload),
            header,
            bytes: Vec::new(),
        }
    }
}

impl Batch {
    /// Encodes a batch in the place of the last one.
    pub fn encode(&mut self, records: usize) {
        self.bytes.clear();
        for number in 1..=records as u32 {
            self.header.number = number;
            self.header.request = number;
            let session = SessionId(u64::from(number));
            uplink::encode_data(session, &mut self.bytes, |out| {
                self.header.encode(out);
                out.extend_from_slice(&self.payload);
            });
        }
    }

    /// Decodes the batch, the messages' headers included; returns how many
    /// records it held.
    ///
    /// # Errors
    /// It is not what `encode` writes.
    pub fn decode(
        &self,
        mut each: impl FnMut(SessionId, &MessageHeader, &[u8]),
    ) -> Result<usize, BadRecord> {
        let mut run = self.bytes.as_slice();
        let mut records = 0;
        while let Some((session, record)) = uplink::next(&mut run)? {
            let Record::Data(body) = record else {
                return Err(BadRecord);
            };
            let Ok(Body::Message { header, payload }) = Body::decode(body) else {
                return Err(BadRecord);
            };
            each(session, &header, payload);
            records += 1;
        }
        Ok(records)
    }
}

/// What came through a batch.
///
/// # Panics
/// A record was lost.
pub fn digest(records: usize) -> Digest {
    let mut batch = Batch::default();
    batch.encode(records);
    assert_eq!(batch.bytes.len(), records * RECORD_BYTES);
    let mut digest = Digest::default();
    let decoded = batch.decode(|session, header, payload| {
        digest.update(&session.0.to_le_bytes());
        digest.update(&header.number.to_le_bytes());
        digest.update(payload);
    });
    assert_eq!(decoded, Ok(records), "every record was decoded");
    digest
}
