//! Echo on a bare ring: multishot receives into provided buffers, direct
//! descriptors, the sends of a turn submitted together.
//!
//! Accepts are those of `gateway-ring`, which keeps many single ones waiting.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway_ring::{Completion, Full, Ring, RingConfig};
use protocol::buffers::Buffers;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::{RECEIVE_BYTES, STOP_CHECK};

/// As the gateway's engine has it, so that only what is above the ring differs.
const SUBMISSION_ENTRIES: u32 = 64;
/// See [`SUBMISSION_ENTRIES`].
const COMPLETION_ENTRIES: u32 = 8_192;
/// See [`SUBMISSION_ENTRIES`].
const RECEIVE_BUFFERS: u16 = 1_024;
/// Accepts that wait in the kernel.
const ACCEPTS_WAITING: u32 = 64;

/// What one completion asks to be done, once the ring is free again.
enum Todo {
    Receive(u32),
    Send(u32, Vec<u8>),
    Continue(u32),
    Close(u32),
}

#[derive(Clone, Default)]
struct Slot {
    /// A buffer is on its way.
    is_sending: bool,
    /// Nothing comes any more; closed once no buffer is on its way, so that
    /// no completion meets the next user of the slot.
    is_ending: bool,
    /// What arrived while a buffer was on its way.
    behind: Vec<u8>,
}

struct Server {
    ring: Ring,
    free: Vec<u32>,
    accepts_waiting: u32,
    slots: Vec<Slot>,
    todo: VecDeque<Todo>,
    /// Slots whose receive found no buffer. Started again at most as many a turn
    /// as there are buffers: more would only fail again, each at the cost of an
    /// operation.
    starved: VecDeque<u32>,
    buffers: Buffers,
}

/// Echoes until `stop` is set.
///
/// # Errors
/// No ring can be made, or it fails.
pub fn serve(listener: TcpListener, connections_max: u32, stop: &AtomicBool) -> io::Result<()> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let config = RingConfig {
        submission_entries: SUBMISSION_ENTRIES,
        completion_entries: COMPLETION_ENTRIES,
        slots: connections_max,
        listeners: 1,
        receive_buffers: RECEIVE_BUFFERS,
        receive_buffer_bytes: RECEIVE_BYTES as u32,
    };
    let mut ring = Ring::new(config, wake.as_fd()).map_err(io::Error::other)?;
    ring.put_listener(0, listener.as_fd())?;
    let mut server = Server {
        ring,
        free: (0..connections_max).rev().collect(),
        accepts_waiting: 0,
        slots: vec![Slot::default(); connections_max as usize],
        todo: VecDeque::new(),
        starved: VecDeque::new(),
        buffers: Buffers::default(),
    };
    while !stop.load(Ordering::Relaxed) {
        server.turn()?;
    }
    Ok(())
}

impl Server {
    fn turn(&mut self) -> io::Result<()> {
        while self.accepts_waiting < ACCEPTS_WAITING
            && let Some(slot) = self.free.pop()
        {
            if self.ring.accept(0, slot) == Err(Full) {
                self.free.push(slot);
                break;
            }
            self.accepts_waiting += 1;
        }
        // After a turn all completions are taken, so all buffers are free.
        let free_buffers = usize::from(RECEIVE_BUFFERS).min(self.starved.len());
        let again = self.starved.drain(..free_buffers).map(Todo::Receive);
        self.todo.extend(again);
        self.act();
        if self.starved.is_empty() && self.todo.is_empty() {
            self.ring.submit_and_wait(STOP_CHECK)?;
        } else {
            self.ring.submit()?;
        }
        while self.reap() > 0 {}
        self.act();
        Ok(())
    }

    /// Pushes what is to be done, until the submission queue is full: then the
    /// kernel wants completions taken first, and the next turn goes on.
    fn act(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            let refused = match todo {
                Todo::Receive(slot) => self.ring.receive(slot).is_err().then_some(todo),
                Todo::Send(slot, buffer) => {
                    let refused = self.ring.send(slot, buffer.into()).err();
                    refused.map(|buffer| Todo::Send(slot, buffer.into_own()))
                }
                Todo::Continue(slot) => self.ring.continue_send(slot).is_err().then_some(todo),
                Todo::Close(slot) => self.ring.close(slot).is_err().then_some(todo),
            };
            if let Some(todo) = refused {
                self.todo.push_front(todo);
                break;
            }
        }
    }

    fn reap(&mut self) -> usize {
        let Self {
            ring,
            free,
            accepts_waiting,
            slots,
            todo,
            starved,
            buffers,
        } = self;
        ring.reap(usize::MAX, |completion| match completion {
            Completion::Accepted { slot, result, .. } => {
                *accepts_waiting -= 1;
                match result {
                    Ok(()) => todo.push_back(Todo::Receive(slot)),
                    Err(_) => free.push(slot),
                }
            }
            Completion::Received {
                slot: at,
                data,
                more,
            } => {
                let slot = &mut slots[at as usize];
                if slot.is_sending {
                    slot.behind.extend_from_slice(data);
                } else {
                    slot.is_sending = true;
                    let mut buffer = buffers.take();
                    buffer.extend_from_slice(data);
                    todo.push_back(Todo::Send(at, buffer));
                }
                if !more {
                    todo.push_back(Todo::Receive(at));
                }
            }
            Completion::ReceiveEnded { slot: at, result } => {
                let slot = &mut slots[at as usize];
                let is_starved = result
                    .is_err_and(|error| error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()));
                if is_starved {
                    starved.push_back(at);
                } else if slot.is_sending {
                    slot.is_ending = true;
                } else {
                    todo.push_back(Todo::Close(at));
                }
            }
            Completion::Sent {
                slot: at,
                buf,
                result,
            } => {
                buffers.give(buf.into_own());
                let slot = &mut slots[at as usize];
                if result.is_ok() && !slot.behind.is_empty() {
                    todo.push_back(Todo::Send(at, std::mem::take(&mut slot.behind)));
                } else {
                    slot.is_sending = false;
                    if slot.is_ending {
                        todo.push_back(Todo::Close(at));
                    }
                }
            }
            Completion::SentPart { slot } => todo.push_back(Todo::Continue(slot)),
            Completion::Closed { slot } => {
                slots[slot as usize] = Slot::default();
                free.push(slot);
            }
            Completion::Connected { .. }
            | Completion::ShutDown { .. }
            | Completion::Cancelled { .. }
            | Completion::ReceiveStopped { .. } => {}
        })
    }
}
