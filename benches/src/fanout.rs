//! One message for many members, sealed for each of them: the baseline that
//! sealing once for all is compared with. Beside it two bare servers that send the same bytes to
//! all, [`mod@write`] and [`ring`], which `cargo xtask bench-fanout` compares the gateway with.
//!
//! Deliberately not here: who is a member.

pub mod ring;
pub mod write;

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::cipher::{Key, RekeyPolicy, Sealer};
use protocol::ids::{GroupId, MessageId};
use protocol::time::Time;

use crate::Digest;
use crate::tiny::noise;

const PAYLOAD_BYTES: usize = 64;

/// The members, each with keys of its own.
pub struct Members {
    sealers: Vec<Sealer>,
    /// What waits for each member's socket.
    queues: Vec<Vec<u8>>,
    payload: Vec<u8>,
    now: Time,
    number: u32,
}

impl Members {
    /// So many members.
    pub fn new(members: usize) -> Self {
        let now = Time(1_000_000);
        let sealer = |member: usize| {
            let mut key = [1; 32];
            key[..8].copy_from_slice(&(member as u64).to_le_bytes());
            Sealer::new(Key(key), now, RekeyPolicy::default())
        };
        Self {
            sealers: (0..members).map(sealer).collect(),
            queues: vec![Vec::new(); members],
            payload: noise(PAYLOAD_BYTES),
            now,
            number: 0,
        }
    }

    /// Sends one message to everybody: a frame in the queue of each, which the
    /// last message has left.
    pub fn seal_each(&mut self) {
        self.number += 1;
        self.now = self.now + 1_000;
        let header = MessageHeader {
            kind: MessageKind::Message,
            lane: Lane::Unreliable,
            more: false,
            group: GroupId(1),
            number: 0,
            ack: 0,
            message: MessageId(1),
            request: 0,
        };
        for (sealer, queue) in self.sealers.iter_mut().zip(&mut self.queues) {
            queue.clear();
            sealer.seal(self.now, 0, queue, |out| {
                header.encode(out);
                out.extend_from_slice(&self.payload);
            });
        }
    }
}

/// What stands in the queues after `messages` messages.
pub fn digest(members: usize, messages: usize) -> Digest {
    let mut all = Members::new(members);
    let mut digest = Digest::default();
    for _ in 0..messages {
        all.seal_each();
        all.queues.iter().for_each(|queue| digest.update(queue));
    }
    digest
}
