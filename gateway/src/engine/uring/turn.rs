//! What each completion means: state first, then the event.
//!
//! Owns nothing; [`Turn`] borrows the engine's parts for one poll of one ring.
//! Pushes no operations: it leaves flags, and the next flush acts on them.
//!
//! Invariant: every completion but a further part of a multishot lowers `ops`
//! of its slot by one, and a closing slot is looked at again after each.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use gateway_ring::Completion;
use rustix::io::Errno;

use super::{
    CANCELLED, CLOSE_SENT, CLOSING, CONNECTING, FIN, Listening, OPEN, QUEUED, RECEIVING, SEND_MORE,
    SENDING, STARVED, STOPPING, Slot, Starved,
};
use crate::engine::sockets::is_exhausted;
use crate::engine::{ACCEPT_RETRY, ClosedBy, ConnId, EngineCounters, Events};

pub(super) struct Turn<'a, E> {
    /// Index of the ring's slot 0.
    pub(super) base: u32,
    /// Free slots of this ring.
    pub(super) free: &'a mut Vec<u32>,
    pub(super) slots: &'a mut [Slot],
    pub(super) listeners: &'a mut [Option<Listening>],
    pub(super) waiting: &'a mut u32,
    pub(super) todo: &'a mut VecDeque<u32>,
    pub(super) starved: &'a mut Starved,
    pub(super) full: &'a mut bool,
    pub(super) accept_at: &'a mut Option<Instant>,
    pub(super) counters: &'a mut EngineCounters,
    pub(super) events: &'a mut E,
}

impl<E: Events> Turn<'_, E> {
    pub(super) fn take(&mut self, completion: Completion<'_>) {
        match completion {
            Completion::Accepted {
                slot: at,
                listener,
                peer,
                result,
            } => {
                *self.waiting -= 1;
                if let Some(Some(listening)) = self.listeners.get_mut(listener as usize) {
                    listening.waiting -= 1;
                }
                match result {
                    Ok(()) => {
                        let (conn, slot) = self.slot(at);
                        slot.flags = OPEN | (slot.flags & (QUEUED | STARVED));
                        self.counters.accepted += 1;
                        self.enqueue(at);
                        self.events.accepted(conn, peer);
                    }
                    Err(error) => {
                        self.free.push(at);
                        if !is(&error, Errno::CANCELED) {
                            self.counters.accept_failed += 1;
                        }
                        if is_exhausted(&error) {
                            *self.accept_at = Some(Instant::now() + ACCEPT_RETRY);
                        }
                    }
                }
            }
            Completion::Connected { slot: at, result } => {
                let (conn, slot) = self.ended(at, CONNECTING);
                if !slot.has(CLOSING) {
                    match &result {
                        Ok(()) => slot.flags |= OPEN,
                        Err(error) => slot.begin_close(ClosedBy::Error(error.kind())),
                    }
                    self.events.connected(conn, result);
                }
                self.enqueue(at);
            }
            Completion::Received {
                slot: at,
                data,
                more,
            } => {
                self.starved.freed += 1;
                let (conn, slot) = if more {
                    self.slot(at)
                } else {
                    self.enqueue(at);
                    self.ended(at, RECEIVING)
                };
                if !slot.has(CLOSING) {
                    self.events.received(conn, data);
                }
            }
            Completion::ReceiveEnded { slot: at, result } => {
                let (_, slot) = self.ended(at, RECEIVING);
                match result {
                    Ok(()) => slot.begin_close(ClosedBy::Peer),
                    Err(error) if is(&error, Errno::NOBUFS) => {
                        slot.flags |= STARVED;
                        self.starved.slots.push_back(at);
                        self.counters.receive_starved += 1;
                    }
                    Err(error)
                        if is(&error, Errno::CANCELED)
                            || is(&error, Errno::INTR)
                            || is(&error, Errno::AGAIN) => {}
                    Err(error) => slot.begin_close(ClosedBy::Error(error.kind())),
                }
                self.enqueue(at);
            }
            Completion::Sent {
                slot: at,
                buf,
                result,
            } => {
                let (conn, slot) = self.ended(at, SENDING);
                let result = result.map_err(|error| match is(&error, Errno::CANCELED) {
                    true => io::ErrorKind::ConnectionAborted.into(),
                    false => error,
                });
                if let Err(error) = &result {
                    slot.begin_close(ClosedBy::Error(error.kind()));
                }
                if slot.has(CLOSING | FIN) {
                    self.enqueue(at);
                }
                self.events.sent(conn, buf, result);
            }
            Completion::SentPart { slot: at } => {
                self.ended(at, 0).1.flags |= SEND_MORE;
                self.enqueue(at);
            }
            Completion::ShutDown { slot: at } => {
                self.ended(at, 0);
                self.enqueue(at);
            }
            Completion::Cancelled { slot: at, again } => {
                self.ended(at, if again { CANCELLED } else { 0 });
                self.enqueue(at);
            }
            Completion::ReceiveStopped { slot: at } => {
                self.ended(at, STOPPING);
                self.enqueue(at);
            }
            Completion::Closed { slot: at } => {
                let (conn, slot) = self.ended(at, CLOSE_SENT);
                debug_assert_eq!(slot.ops, 0);
                let why = slot.why;
                *slot = Slot {
                    generation: slot.generation.wrapping_add(1),
                    // It may still stand in these lists, where it is looked at anew.
                    flags: slot.flags & (QUEUED | STARVED),
                    ..Slot::FREE
                };
                self.free.push(at);
                *self.full = false;
                *self.accept_at = None;
                self.events.closed(conn, why);
            }
        }
    }

    fn slot(&mut self, at: u32) -> (ConnId, &mut Slot) {
        let index = self.base + at;
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation;
        (ConnId { index, generation }, slot)
    }

    /// An operation of the slot has ended, and with it what `flags` say.
    fn ended(&mut self, at: u32, flags: u16) -> (ConnId, &mut Slot) {
        let (conn, slot) = self.slot(at);
        debug_assert!(slot.ops > 0);
        slot.ops = slot.ops.saturating_sub(1);
        slot.flags &= !flags;
        (conn, slot)
    }

    fn enqueue(&mut self, at: u32) {
        let (conn, slot) = self.slot(at);
        if !slot.has(QUEUED) {
            slot.flags |= QUEUED;
            self.todo.push_back(conn.index);
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
