//! What carries a player: a stream of frames, WebSocket, or datagrams.
//!
//! Invariant: a read ends within `LOOK`, with bytes of frames or without any.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use protocol::buffers::Buffers;
use protocol::websocket::client::{ClientEnd, Received};

use super::{PATIENCE, random32};

/// How long one look at the socket may block.
const LOOK: Duration = Duration::from_millis(1);

/// The transports that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Frames over TCP.
    Tcp,
    /// Frames in messages of WebSocket.
    Web,
    /// Datagrams.
    Udp,
}

/// One that is open.
pub enum Socket {
    /// A stream of frames.
    Stream(TcpStream),
    /// The same over WebSocket.
    Web(Box<WebSocket>),
    /// Datagrams.
    Datagrams(UdpSocket),
}

impl Socket {
    /// Opens one of this kind.
    pub fn open(carrier: Carrier, address: SocketAddr) -> Self {
        match carrier {
            Carrier::Tcp => Self::Stream(tcp_socket(address)),
            Carrier::Web => Self::Web(Box::new(WebSocket::open(address))),
            Carrier::Udp => Self::Datagrams(udp_socket(address)),
        }
    }

    /// Bytes that came.
    pub fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.read(bytes),
            Self::Web(web) => web.read(bytes),
            Self::Datagrams(socket) => socket.recv(bytes),
        }
    }

    /// Sends whole frames, or a datagram.
    pub fn write(&mut self, bytes: &[u8]) {
        // A socket that fails is found out by the next read.
        let _ = match self {
            Self::Stream(stream) => stream.write_all(bytes),
            Self::Web(web) => web.write(bytes),
            Self::Datagrams(socket) => socket.send(bytes).map(drop),
        };
    }
}

/// Frames in messages of WebSocket.
pub struct WebSocket {
    /// What carries them.
    pub stream: TcpStream,
    end: ClientEnd,
    pool: Buffers,
    inbox: Vec<u8>,
}

impl WebSocket {
    /// Connects, and waits for the upgrade.
    fn open(address: SocketAddr) -> Self {
        let [random @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = random32();
        let mut web = Self {
            stream: tcp_socket(address),
            end: ClientEnd::new("gateway.test", random),
            pool: Buffers::default(),
            inbox: Vec::new(),
        };
        web.write(&[]).expect("a socket");
        let end = Instant::now() + PATIENCE;
        while !web.end.is_open() {
            assert!(Instant::now() < end, "the gateway upgrades");
            match web.fill() {
                Ok(read) => assert_ne!(read, 0, "the gateway upgrades"),
                Err(error) => assert!(is_nothing_yet(&error), "{error}"),
            }
        }
        web
    }

    fn write(&mut self, frames: &[u8]) -> std::io::Result<()> {
        let mut out = Vec::new();
        self.end.wrap(frames, &mut out);
        self.stream.write_all(&out)
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16_384];
        let read = self.stream.read(&mut bytes)?;
        let mut data = &mut bytes[..read];
        while let Some(received) = self.end.next(&mut data, &mut self.pool).expect("its rules") {
            if let Received::Message(frame) = received {
                self.inbox.extend_from_slice(frame);
            }
        }
        Ok(read)
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.inbox.is_empty() && self.fill()? == 0 {
            return Ok(0);
        }
        if self.inbox.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.inbox.len().min(bytes.len());
        bytes[..count].copy_from_slice(&self.inbox[..count]);
        self.inbox.drain(..count);
        Ok(count)
    }
}

/// Whether a read ended because nothing had come.
pub fn is_nothing_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn tcp_socket(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("something accepts");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(LOOK)).expect("a socket");
    stream
}

/// A socket that sends to there, and whose reads do not last.
pub fn udp_socket(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(to).expect("a socket");
    socket.set_read_timeout(Some(LOOK)).expect("a socket");
    socket
}
