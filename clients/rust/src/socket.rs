//! The two sockets that carry a client, what is the same about them, and the one beside a stream.
//!
//! Invariant: over datagrams each call moves one whole datagram.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpStream, UdpSocket, lookup_host};

use crate::Transport;

pub(crate) enum Socket {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Socket {
    /// Looks the name up and connects.
    pub(crate) async fn connect(address: &str, transport: Transport) -> io::Result<Self> {
        if transport != Transport::Udp {
            let stream = TcpStream::connect(address).await?;
            // Messages are small and somebody waits for each.
            stream.set_nodelay(true)?;
            return Ok(Self::Stream(stream));
        }
        let to = lookup_host(address).await?.next();
        let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?;
        Ok(Self::Datagrams(datagrams(to).await?))
    }

    /// A socket for datagrams to where a stream leads.
    pub(crate) async fn beside(&self) -> io::Result<UdpSocket> {
        match self {
            Self::Stream(stream) => datagrams(stream.peer_addr()?).await,
            Self::Datagrams(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.readable().await,
            Self::Datagrams(socket) => socket.readable().await,
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.writable().await,
            Self::Datagrams(socket) => socket.writable().await,
        }
    }

    /// What has come; `UnexpectedEof` at the end of a stream.
    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => match stream.try_read(into)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                read => Ok(read),
            },
            Self::Datagrams(socket) => socket.try_recv(into),
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.try_write(bytes),
            Self::Datagrams(socket) => socket.try_send(bytes),
        }
    }
}

async fn datagrams(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}
