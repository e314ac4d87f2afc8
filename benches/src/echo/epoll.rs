//! Echo on bare epoll, through `mio`: edge-triggered, written back at once.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{RECEIVE_BYTES, STOP_CHECK};

/// As the gateway's engine has it.
const READY_EVENTS_MAX: usize = 1_024;
const LISTENER: Token = Token(usize::MAX);

struct Conn {
    socket: TcpStream,
    /// What the socket did not take.
    behind: Vec<u8>,
}

struct Server {
    poll: Poll,
    listener: mio::net::TcpListener,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    buffer: Box<[u8]>,
}

/// Echoes until `stop` is set.
///
/// # Errors
/// epoll fails.
pub fn serve(listener: TcpListener, connections_max: u32, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        poll: Poll::new()?,
        listener: mio::net::TcpListener::from_std(listener),
        conns: (0..connections_max).map(|_| None).collect(),
        free: (0..connections_max as usize).rev().collect(),
        buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
    };
    server
        .poll
        .registry()
        .register(&mut server.listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(READY_EVENTS_MAX);
    while !stop.load(Ordering::Relaxed) {
        match server.poll.poll(&mut events, Some(STOP_CHECK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                Token(at) => server.serve(at, event.is_read_closed() || event.is_error()),
            }
        }
    }
    Ok(())
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut socket, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            // Beyond the bound: closed at once.
            let Some(at) = self.free.pop() else {
                continue;
            };
            self.poll.registry().register(
                &mut socket,
                Token(at),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            self.conns[at] = Some(Conn {
                socket,
                behind: Vec::new(),
            });
        }
    }

    fn serve(&mut self, at: usize, is_ended: bool) {
        let Some(conn) = &mut self.conns[at] else {
            return;
        };
        if echo(conn, is_ended, &mut self.buffer).is_err() {
            // Dropping the socket takes it out of epoll.
            self.conns[at] = None;
            self.free.push(at);
        }
    }
}

/// Writes and reads until the socket would block. An error is the end; where
/// one was announced no further event comes, so it is read up to it.
fn echo(conn: &mut Conn, is_ended: bool, buffer: &mut [u8]) -> io::Result<()> {
    let waiting = std::mem::take(&mut conn.behind);
    write(conn, &waiting)?;
    // What is not taken is not read: the socket's own buffer is the bound.
    while conn.behind.is_empty() {
        match conn.socket.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                write(conn, &buffer[..read])?;
                // A short read has emptied the socket (epoll(7)).
                if read < buffer.len() && !is_ended {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write(conn: &mut Conn, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match conn.socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.behind.extend_from_slice(bytes);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
