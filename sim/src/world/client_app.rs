//! What a client's application does in its session: it sends, asks, falls silent, logs out or
//! just goes.
//!
//! Invariant: what the core did not take was not sent.

use protocol::body::Lane;
use protocol::ids::MessageId;
use protocol::time::Time;

use super::World;
use super::client_side::GROUP;
use super::event::Event;
use super::phases::Phase;
use crate::message::{self, Sent};
use crate::rule::Step;

/// Messages that an application sends at once now and then, at most.
const BURST_MAX: u64 = 100;

impl World {
    pub(super) fn client_lives(&mut self, client: usize) {
        let pace_us = self.pace_us();
        let life = self.clients[client].life;
        self.after_us(pace_us, Event::ClientAct { client, life });
    }

    fn pace_us(&mut self) -> u64 {
        self.random.between(1, 2_000 * self.plan.pace_ms)
    }

    /// The application does something.
    pub(super) fn client_act(&mut self, client: usize, life: u32) -> Step {
        let host = &mut self.clients[client];
        if host.life != life || self.phase >= Phase::Quiet {
            return Ok(());
        }
        let pace_us = self.pace_us();
        self.after_us(pace_us, Event::ClientAct { client, life });
        let now = self.clients[client].clock.now(self.now).time;
        let in_session = self.clients[client].session().is_some();
        let leaves = !self.plan.endures;
        match self.random.below(100) {
            0..3 if in_session && leaves => {
                if let Some(core) = &mut self.clients[client].core {
                    core.logout(now);
                }
            }
            3 if leaves => return self.client_disconnected(client),
            4..80 => {
                for _ in 0..self.random.between(1, 3) {
                    self.client_sends(client, now);
                }
            }
            80..83 => {
                for _ in 0..self.random.below(BURST_MAX) {
                    self.client_sends(client, now);
                }
            }
            _ => {}
        }
        self.client_flush(client)
    }

    fn client_sends(&mut self, client: usize, now: Time) {
        let (lane, is_request) = match self.random.below(10) {
            0..5 => (Lane::Reliable, true),
            5..8 => (Lane::Reliable, false),
            8 => (Lane::Unreliable, false),
            _ => (Lane::Sequenced, false),
        };
        let bytes = match self.random.below(20) {
            0 => self.random.below(self.plan.payload_bytes_max),
            _ => self.random.below(120),
        } as usize;
        let host = &mut self.clients[client];
        let (Some(core), Some(attempt)) = (&mut host.core, host.attempt) else {
            return;
        };
        let number = message::lane_number(lane);
        let sent = Sent {
            attempt,
            lane: number,
            is_request,
            index: self.book.attempts[attempt as usize].pushed[usize::from(number)],
        };
        let payload = message::encode(&sent, bytes);
        // What is not taken was not sent; the application goes on.
        if is_request {
            if let Ok(request) = core.request(GROUP, MessageId(1), &payload) {
                self.book.note_sent(&sent, Some(request));
            }
        } else if core
            .send(now, lane, GROUP, MessageId(2), &payload, &mut host.shared)
            .is_ok()
        {
            self.book.note_sent(&sent, None);
        }
    }

    /// Everybody leaves.
    pub(super) fn client_leaves(&mut self, client: usize) -> Step {
        let host = &mut self.clients[client];
        let now = host.clock.now(self.now).time;
        if let Some(core) = &mut host.core
            && core.session().is_some()
        {
            core.logout(now);
            self.client_flush(client)
        } else if host.is_connected() {
            self.client_disconnected(client)
        } else {
            Ok(())
        }
    }
}
