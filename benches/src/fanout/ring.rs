//! The bare way with a ring: what anybody sends is one buffer that all sends share, and they are
//! submitted in chunks.
//!
//! Invariant: a slot has one send on its way.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway_ring::{Completion, Ring, RingConfig, SendBuffer};
use rustix::event::{EventfdFlags, eventfd};

use crate::echo::{RECEIVE_BYTES, STOP_CHECK};

/// As the gateway's engine has it, so that only what is above the ring differs.
const SUBMISSION_ENTRIES: u32 = 64;
/// See [`SUBMISSION_ENTRIES`].
const COMPLETION_ENTRIES: u32 = 2_048;
/// Only one member speaks.
const RECEIVE_BUFFERS: u16 = 64;
/// Accepts that wait in the kernel.
const ACCEPTS_WAITING: u32 = 64;
/// Sends between two looks at what has ended.
const CHUNK: usize = 512;

/// Serves until `stop` is set.
///
/// # Errors
/// No ring can be made, or it fails, or a send does.
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
    let full = || io::Error::other("the ring takes no more");
    let mut ring = Ring::new(config, wake.as_fd()).map_err(io::Error::other)?;
    ring.put_listener(0, listener.as_fd())?;
    let mut free: Vec<u32> = (0..connections_max).rev().collect();
    let (mut accepts_waiting, mut members) = (0, Vec::new());
    let mut said: VecDeque<Arc<[u8]>> = VecDeque::new();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        while accepts_waiting < ACCEPTS_WAITING
            && let Some(slot) = free.pop()
        {
            ring.accept(0, slot).map_err(|_| full())?;
            accepts_waiting += 1;
        }
        if let Some(message) = said.front() {
            let end = (next + CHUNK).min(members.len());
            for slot in &members[next..end] {
                let buffer = SendBuffer::Shared(Arc::clone(message));
                ring.send(*slot, buffer).map_err(|_| full())?;
            }
            next = end;
            if end == members.len() {
                said.pop_front();
                next = 0;
            }
            ring.submit()?;
        } else {
            ring.submit_and_wait(STOP_CHECK)?;
        }
        let mut receive = Vec::new();
        let mut failed = None;
        while ring.reap(CHUNK, |completion| match completion {
            Completion::Accepted { slot, result, .. } => {
                accepts_waiting -= 1;
                if result.is_ok() {
                    members.push(slot);
                    receive.push(slot);
                }
            }
            Completion::Received { slot, data, more } => {
                said.push_back(Arc::from(&*data));
                if !more {
                    receive.push(slot);
                }
            }
            Completion::ReceiveEnded { slot, .. } => members.retain(|member| *member != slot),
            Completion::Sent { result, .. } => failed = result.err(),
            _ => {}
        }) > 0
        {}
        // Who has gone is no failure: it ends like that.
        if let Some(error) = failed
            && !members.is_empty()
        {
            return Err(error);
        }
        for slot in receive {
            ring.receive(slot).map_err(|_| full())?;
        }
    }
    Ok(())
}
