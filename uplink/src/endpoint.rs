//! The UDP sockets under the uplinks.
//!
//! Owns how they are made: addresses, kernel buffers, sizes of packets. One
//! endpoint carries many links; it must be made inside a tokio runtime, whose
//! thread then does all its work.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes asked of the kernel for each direction of a socket: several turns of
/// a busy shard, so that a turn of some milliseconds loses no packets. The
/// kernel grants what `net.core.rmem_max` and `wmem_max` permit.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Somebody else has the address, most likely an older process.
    #[error(
        "UDP {address} is taken; stop the process that has it (ss -ulpn shows it) or choose another port"
    )]
    Taken {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Any other refusal by the system.
    #[error("cannot open UDP {address}: {source}")]
    Socket {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The endpoint from which a gateway shard dials all its backends, on a free
/// port. To be called in the runtime of the shard's thread.
///
/// # Errors
/// The system gives no UDP socket.
pub fn client_endpoint() -> Result<Endpoint, EndpointError> {
    // Both families through one socket; a machine without IPv6 has the other.
    open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), None)
        .or_else(|_| open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None))
}

pub(crate) fn open(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, EndpointError> {
    bind(address)
        .and_then(|socket| {
            Endpoint::new(
                EndpointConfig::default(),
                server,
                socket.into(),
                Arc::new(TokioRuntime),
            )
        })
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => EndpointError::Taken { address },
            _ => EndpointError::Socket { address, source },
        })
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is no error; refused altogether it is only slower.
    if let Err(error) = socket
        .set_recv_buffer_size(SOCKET_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER_BYTES))
    {
        tracing::debug!(%error, "socket buffers stay as they are");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
