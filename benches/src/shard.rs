//! A shard's turn: what the gateway's [`Crowd`] computes in some rounds.
//!
//! Deliberately not here: the shard and its surroundings, which are the
//! gateway's own test harness.

use gateway::testing::Crowd;

use crate::Digest;
use crate::tiny::noise;

/// What the clients were answered in `rounds` rounds.
pub fn digest(clients: usize, payload_bytes: usize, rounds: usize) -> Digest {
    let mut crowd = Crowd::new(clients);
    let payload = noise(payload_bytes);
    let mut digest = Digest::default();
    for _ in 0..rounds {
        crowd.round(&payload, |header, payload| {
            digest.update(&header.request.to_le_bytes());
            digest.update(payload);
        });
    }
    digest
}
