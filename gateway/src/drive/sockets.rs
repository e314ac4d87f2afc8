//! The sockets of a gateway: one of each protocol a shard, all on one port.
//!
//! Owns how they are opened, before any shard runs, and what to say if they can't be. Reads and
//! accepts nothing.
//!
//! Invariant: TCP and UDP have the same port, or there is no gateway.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::{GatewayConfig, StartError};

/// Ports that are tried where any will do.
const PORT_TRIES: u32 = 16;

/// Backlog of a listening socket; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// What the kernel keeps of what is sent to a client: enough for 10 Mbit/s at 100 ms, far above a
/// game's. It doubles this for its own bookkeeping. Left to itself it goes up to 4 MiB for each
/// client that does not read.
const SEND_BUFFER_BYTES: usize = 131_072;

/// The address with its port, and the sockets of both protocols. Where any port will do, one
/// may be free for TCP and not for UDP: then another is tried.
pub(super) fn bind(
    config: &GatewayConfig,
) -> Result<(SocketAddr, Vec<TcpListener>, Vec<UdpSocket>), StartError> {
    let mut tries = if config.listen.port() == 0 {
        PORT_TRIES
    } else {
        1
    };
    loop {
        let listeners = listen(config.listen, config.shards)?;
        let address = listeners
            .first()
            .and_then(|listener| listener.local_addr().ok())
            .unwrap_or(config.listen);
        tries -= 1;
        match bind_datagrams(config, address) {
            Ok(sockets) => return Ok((address, listeners, sockets)),
            Err(StartError::PortTaken(_)) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// The UDP sockets on the port of the TCP listeners, if there are to be any.
fn bind_datagrams(
    config: &GatewayConfig,
    address: SocketAddr,
) -> Result<Vec<UdpSocket>, StartError> {
    if !config.udp {
        return Ok(Vec::new());
    }
    crate::datagrams::bind(address, config.shards).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        _ => StartError::Listen { address, source },
    })
}

/// One listening socket a shard on the same port; the kernel spreads clients.
fn listen(address: SocketAddr, shards: u32) -> Result<Vec<TcpListener>, StartError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        _ => StartError::Listen { address, source },
    };
    let socket = |address: SocketAddr, shared: bool| -> io::Result<socket2::Socket> {
        let domain = socket2::Domain::for_address(address);
        let socket =
            socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    // A port shared by SO_REUSEPORT looks free to another gateway of the same
    // user; a first bind without it tells.
    let probe = socket(address, false).map_err(failed)?;
    let bound = probe
        .local_addr()
        .map_err(failed)?
        .as_socket()
        .unwrap_or(address);
    drop(probe);
    (0..shards)
        .map(|_| {
            let socket = socket(bound, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()
        .map_err(failed)
}
