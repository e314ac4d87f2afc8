//! The task of a client: joins the state to a socket, a clock and randomness, and decides nothing.
//!
//! Invariant: it reads only while the game takes what comes, and ends once the state is over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::buffers::Buffers;
use protocol::websocket::client::{ClientEnd, Received, Refused};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout};

use crate::link::Link;
use crate::socket::Socket;
use crate::{Error, Transport};

/// How long a look-up and a connect may take together; a lost SYN is resent after 1 and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the token source may take. A token lives for a minute at most, so who takes longer
/// than half of it has none to give.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of one read: some hundred small frames, or the largest datagram.
const READ_BYTES: usize = 16_384;

const _: () = assert!(READ_BYTES >= protocol::limits::DATAGRAM_BYTES_MAX);

/// Connects again and again until it is over.
pub(crate) async fn drive<F, T, E>(link: Arc<Link>, transport: Transport, mut tokens: F)
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let failure = match begin(&link, transport, &mut tokens).await {
            Ok((socket, side, websocket)) => carry(&link, &socket, side, websocket).await.err(),
            Err(failure) => Some(failure),
        };
        // Without randomness all clients wait as long, and no handshake begins.
        let random = random().map_or(0, u64::from_le_bytes);
        let wait = link.with(|state, now| state.handle_end(now, failure, random));
        match wait {
            Some(wait) => pause(&link, wait).await,
            None => return,
        }
    }
}

/// One attempt at a connection, up to the first byte of its handshake.
async fn begin<F, T, E>(
    link: &Link,
    transport: Transport,
    tokens: &mut F,
) -> Result<(Socket, Option<UdpSocket>, Option<ClientEnd>), Error>
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (needs_token, gateway) =
        link.with(|state, _| (state.needs_token(), state.gateway().to_owned()));
    let token = if needs_token {
        let token = timeout(TOKEN_TIMEOUT, tokens()).await;
        let token = token.map_err(|_| Error::TokenTimeout)?;
        Some(token.map_err(|error| Error::Token(Arc::from(error.into())))?)
    } else {
        None
    };
    let socket = timeout(CONNECT_TIMEOUT, Socket::connect(&gateway, transport))
        .await
        .map_err(|_| Error::ConnectTimeout)?
        .map_err(Error::io)?;
    let websocket = match transport {
        Transport::WebSocket => Some(ClientEnd::new(&gateway, random().map_err(Error::io)?)),
        Transport::Tcp | Transport::Udp => None,
    };
    let side = if link.with(|state, _| state.wants_side_path()) {
        // Without it the connection carries everything.
        socket.beside().await.ok()
    } else {
        None
    };
    let ephemeral = random().map_err(Error::io)?;
    link.with(|state, now| {
        state.begin(now, token, ephemeral);
        if side.is_some() {
            state.offer_side_path();
        }
    });
    Ok((socket, side, websocket))
}

/// Moves bytes until the connection has ended.
async fn carry(
    link: &Link,
    socket: &Socket,
    mut side: Option<UdpSocket>,
    mut websocket: Option<ClientEnd>,
) -> Result<(), Error> {
    let mut pool = Buffers::default();
    let mut arrived = vec![0; READ_BYTES];
    let mut frames = Vec::new();
    let mut leaving = Vec::new();
    let mut left = 0;
    let mut datagram = Vec::new();
    loop {
        if left == leaving.len() {
            leaving.clear();
            left = 0;
            match &mut websocket {
                None => link.with(|state, now| state.poll_transmit(now, &mut leaving)),
                Some(websocket) => {
                    frames.clear();
                    if websocket.is_open() {
                        link.with(|state, now| state.poll_transmit(now, &mut frames));
                    }
                    websocket.wrap(&frames, &mut leaving);
                }
            }
        }
        // Also where there is no socket any more: what nobody takes would be due for ever.
        while link.with(|state, now| state.poll_side_transmit(now, &mut datagram)) {
            // What the socket does not take at once is lost, as datagrams may be.
            let _ = side.as_ref().map(|side| side.try_send(&datagram));
            datagram.clear();
        }
        let (has_ended, has_room, timeout) =
            link.with(|state, _| (state.has_ended(), state.has_room(), state.poll_timeout()));
        let (false, Some(timeout)) = (has_ended, timeout) else {
            return Ok(());
        };
        let moved = tokio::select! {
            ready = socket.readable(), if has_room => {
                match ready.and_then(|()| socket.try_read(&mut arrived)) {
                    Ok(read) => receive(link, &mut websocket, &mut arrived[..read], &mut pool),
                    Err(error) => Err(Error::io(error)),
                }
            }
            ready = readable(side.as_ref()), if has_room && side.is_some() => {
                if !receive_beside(link, side.as_ref(), ready, &mut arrived) {
                    side = None;
                }
                Ok(())
            }
            ready = socket.writable(), if left < leaving.len() => {
                let sent = ready.and_then(|()| socket.try_write(&leaving[left..]));
                sent.map(|sent| left += sent).map_err(Error::io)
            }
            () = sleep_until(link.instant(timeout)) => {
                link.with(|state, now| state.handle_timeout(now));
                Ok(())
            }
            () = link.to_task.notified() => Ok(()),
        };
        match moved {
            // Another socket call took what this one was told of.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                link.with(|state, now| state.handle_disconnected(now));
                return Err(error);
            }
            Ok(()) => {}
        }
    }
}

async fn readable(side: Option<&UdpSocket>) -> io::Result<()> {
    match side {
        Some(side) => side.readable().await,
        None => std::future::pending().await,
    }
}

/// Hands on a datagram that came beside the connection. Whether the socket is still of use:
/// whatever becomes of it, the connection goes on.
fn receive_beside(
    link: &Link,
    side: Option<&UdpSocket>,
    ready: io::Result<()>,
    arrived: &mut [u8],
) -> bool {
    let Some(side) = side else { return false };
    match ready.and_then(|()| side.try_recv(arrived)) {
        Ok(read) => {
            link.with(|state, now| state.handle_side_received(now, &mut arrived[..read]));
            true
        }
        // Nobody listens there, so far, or another call took it.
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
        ),
    }
}

/// Hands on what a read brought, out of its WebSocket where it has one.
fn receive(
    link: &Link,
    websocket: &mut Option<ClientEnd>,
    mut data: &mut [u8],
    pool: &mut Buffers,
) -> Result<(), Error> {
    let Some(websocket) = websocket else {
        link.with(|state, now| state.handle_received(now, data));
        return Ok(());
    };
    loop {
        match websocket.next(&mut data, pool) {
            Ok(Some(Received::Message(frame))) => {
                link.with(|state, now| state.handle_received(now, frame));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(Refused::Status(status)) => return Err(Error::NoWebSocket(status)),
            Err(Refused::Accept | Refused::Violation) => return Err(Error::NoWebSocket(0)),
        }
    }
}

/// Waits for a time, and until the game has taken enough to go on.
async fn pause(link: &Link, wait: Duration) {
    let until = Instant::now() + wait;
    let mut is_due = false;
    loop {
        let (is_over, has_room) = link.with(|state, _| (state.over().is_some(), state.has_room()));
        if is_over || (is_due && has_room) {
            return;
        }
        tokio::select! {
            () = sleep_until(until), if !is_due => is_due = true,
            () = link.to_task.notified() => {}
        }
    }
}

/// Fresh random bytes.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}
