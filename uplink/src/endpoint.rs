//! The UDP sockets under the uplinks.
//!
//! Owns how they are made: addresses, kernel buffers, sizes of packets. One
//! endpoint carries many links; it must be made inside a tokio runtime, whose
//! thread then does all its work.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::Identity;
use crate::tls;

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
    let on = |address| open(address, None, EndpointConfig::default());
    on(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

/// The endpoint of a backend.
///
/// Its connection ids and reset tokens come from the identity, not from chance:
/// so a backend that was killed and is back on its port can tell a gateway that
/// it knows nothing of the old link (stateless reset, RFC 9000 §10.3), and the
/// gateway dials again at once instead of waiting for the idle timeout.
pub(crate) fn server_endpoint(
    address: SocketAddr,
    config: quinn::ServerConfig,
    identity: &Identity,
) -> Result<Endpoint, EndpointError> {
    let reset_key = identity.derived_key("sallyport uplink stateless reset");
    let [a, b, c, d, e, f, g, h, ..] = identity.derived_key("sallyport uplink connection id");
    let id_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    open(address, Some(config), endpoint)
}

fn open(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
    mut endpoint: EndpointConfig,
) -> Result<Endpoint, EndpointError> {
    // What is accepted follows what is sent. quinn allocates 2,048 of these for
    // receiving (13 MB); the kernel fills 64 KiB of each 64 at most, so that
    // 2 MiB of it are ever touched.
    endpoint
        .max_udp_payload_size(tls::MTU_BYTES_MAX)
        .expect("between 1,200 and 65,527");
    bind(address)
        .and_then(|socket| Endpoint::new(endpoint, server, socket.into(), Arc::new(TokioRuntime)))
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
