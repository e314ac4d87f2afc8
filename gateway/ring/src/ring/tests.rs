//! What the engine's tests over real sockets do not reach: the edges of the
//! queues, and misuse that must stay harmless.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::{Completion, Op, Ring, RingConfig, SendBuffer, user_data};

const SMALL: RingConfig = RingConfig {
    submission_entries: 4,
    completion_entries: 8,
    slots: 64,
    listeners: 1,
    receive_buffers: 4,
    receive_buffer_bytes: 16,
};

/// `None` where io_uring is forbidden on purpose; the engine's tests check how
/// that is reported.
fn ring() -> Option<(Ring, OwnedFd)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    match Ring::new(SMALL, wake.as_fd()) {
        Ok(ring) => Some((ring, wake)),
        Err(error) => {
            let forbidden = std::env::var_os("SALLYPORT_TEST_WITHOUT_URING");
            assert!(forbidden.is_some_and(|v| v == "1"), "{error}");
            None
        }
    }
}

fn pairs(ring: &mut Ring, count: u32) -> Vec<UnixStream> {
    (0..count)
        .map(|slot| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ring.put_socket(slot, ours.as_fd()).unwrap();
            theirs
        })
        .collect()
}

#[test]
fn user_data_keeps_its_parts_apart() {
    for op in 1..=9 {
        let op = Op::from_bits(op).unwrap();
        let bits = user_data(op, 0xff_ffff, u32::MAX);
        assert_eq!(
            Op::from_bits((bits >> 56) as u8).map(|o| o as u8),
            Some(op as u8)
        );
        assert_eq!(user_data(op, 0, 7) as u32, 7);
        assert_eq!(user_data(op, 5, 7) >> 32 & 0xff_ffff, 5);
    }
    assert!(Op::from_bits(0).is_none() && Op::from_bits(10).is_none());
}

/// 64 sends through 4 submission entries into 8 completion entries.
#[test]
fn full_queues_lose_nothing() {
    let Some((mut ring, _wake)) = ring() else {
        return;
    };
    let mut theirs = pairs(&mut ring, 64);
    for slot in 0..64 {
        ring.send(slot, vec![slot as u8; 3].into()).unwrap();
    }
    let mut back = [0; 64];
    let mut count = 0;
    for _ in 0..1_000 {
        ring.submit().unwrap();
        ring.reap(5, |completion| {
            if let Completion::Sent { slot, buf, result } = completion {
                assert_eq!(*buf, [slot as u8; 3]);
                result.unwrap();
                back[slot as usize] += 1;
                count += 1;
            }
        });
        if count == 64 {
            break;
        }
    }
    assert_eq!(back, [1; 64]);
    assert!(ring.overflows() > 0, "the test must overflow the queue");
    for (slot, socket) in theirs.iter_mut().enumerate() {
        let mut bytes = [0; 3];
        socket.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [slot as u8; 3]);
    }
}

#[test]
fn one_buffer_at_a_time() {
    let Some((mut ring, _wake)) = ring() else {
        return;
    };
    let _theirs = pairs(&mut ring, 1);
    assert_eq!(
        ring.send(0, SendBuffer::default()),
        Err(SendBuffer::default())
    );
    ring.send(0, vec![1].into()).unwrap();
    assert_eq!(ring.send(0, vec![2].into()), Err(vec![2].into()));
    assert!(ring.take_unsent(0).is_none(), "the kernel has it");
    ring.submit().unwrap();
    let mut sent = SendBuffer::default();
    ring.reap(usize::MAX, |completion| {
        if let Completion::Sent { buf, .. } = completion {
            sent = buf;
        }
    });
    assert_eq!(*sent, [1]);
    ring.continue_send(0).unwrap();
    assert!(!ring.has_submissions(), "nothing is left to continue");
    ring.send(0, sent).unwrap();
}

/// More than the four buffers hold: the receive ends, and goes on when asked.
#[test]
fn received_bytes_survive_starvation() {
    let Some((mut ring, _wake)) = ring() else {
        return;
    };
    let mut theirs = pairs(&mut ring, 1);
    let bytes: Vec<u8> = (0..=255).collect();
    theirs[0].write_all(&bytes).unwrap();
    let mut all = Vec::new();
    let mut starved = 0;
    ring.receive(0).unwrap();
    for _ in 0..1_000 {
        ring.submit().unwrap();
        let mut ended = false;
        ring.reap(usize::MAX, |completion| match completion {
            Completion::Received { data, more, .. } => {
                all.extend_from_slice(data);
                ended |= !more;
            }
            Completion::ReceiveEnded { result, .. } => {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
                starved += 1;
                ended = true;
            }
            _ => panic!("nothing else was asked for"),
        });
        if all.len() == bytes.len() {
            break;
        }
        if ended {
            ring.receive(0).unwrap();
        }
    }
    assert_eq!(all, bytes);
    assert!(starved > 0, "the test must run out of buffers");
}

#[test]
fn wakes_only_while_armed() {
    let Some((mut ring, wake)) = ring() else {
        return;
    };
    let readable = |wake: &OwnedFd| {
        let mut fds = [PollFd::new(wake, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() > 0
    };
    let mut theirs = pairs(&mut ring, 1);
    ring.receive(0).unwrap();
    ring.submit().unwrap();
    theirs[0].write_all(b"x").unwrap();
    assert!(!readable(&wake), "nobody asked to be woken");
    assert!(ring.has_work(), "but the flag tells");
    ring.submit().unwrap();
    assert!(ring.has_completions());
    ring.reap(usize::MAX, |completion| drop(completion));
    ring.arm_wake();
    assert!(!readable(&wake) && !ring.has_work());
    theirs[0].write_all(b"y").unwrap();
    assert!(readable(&wake));
}

#[test]
fn dropped_with_everything_in_flight() {
    let Some((mut ring, _wake)) = ring() else {
        return;
    };
    let mut theirs = pairs(&mut ring, 3);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    ring.put_listener(0, listener.as_fd()).unwrap();
    ring.accept(0, 60).unwrap();
    ring.receive(0).unwrap();
    // Stays in flight, since nobody reads.
    ring.send(1, vec![7; 8 << 20].into()).unwrap();
    ring.submit().unwrap();
    // Never submitted.
    ring.receive(2).unwrap();
    drop(ring);
    // The sockets are closed by now, not some time later.
    theirs[0]
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(theirs[0].read(&mut [0; 1]).unwrap(), 0);
}
