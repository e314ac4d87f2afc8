//! The bare way without a ring: what anybody sends is written to all, one call for each.
//!
//! Invariant: every socket takes a message whole, or serving ends with an error.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::echo::{RECEIVE_BYTES, STOP_CHECK};

const LISTENER: Token = Token(usize::MAX);
const READY_EVENTS_MAX: usize = 1_024;

/// Serves until `stop` is set.
///
/// # Errors
/// epoll fails, or a socket is full: nobody may have more than one message outstanding.
pub fn serve(listener: TcpListener, connections_max: u32, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sockets: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut events = Events::with_capacity(READY_EVENTS_MAX);
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(STOP_CHECK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let Token(at) = event.token();
            if event.token() == LISTENER {
                while let Some(mut socket) = accept(&listener)? {
                    if sockets.len() < connections_max as usize {
                        let token = Token(sockets.len());
                        poll.registry()
                            .register(&mut socket, token, Interest::READABLE)?;
                        sockets.push(Some(socket));
                    }
                }
                continue;
            }
            let mut received = 0;
            if let Some(socket) = &mut sockets[at] {
                match socket.read(&mut buffer) {
                    Ok(bytes) => received = bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => {}
                }
            }
            if received == 0 {
                sockets[at] = None;
                continue;
            }
            for socket in sockets.iter_mut().flatten() {
                if socket.write(&buffer[..received])? < received {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
        }
    }
    Ok(())
}

fn accept(listener: &mio::net::TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((socket, _)) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
