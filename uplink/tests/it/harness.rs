//! Both ends of a link on one thread, and units whose content can be checked.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::limits::RECORD_BYTES_MAX;
use protocol::uplink::RECORD_HEADER_BYTES;
use uplink::{
    Acceptor, DialTarget, Dialer, Event, Identity, Link, LinkError, PublicKey, StreamIndex,
};

/// Nothing in these tests takes half as long on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn gateway_identity() -> Identity {
    Identity::from_seed([1; 32])
}

pub fn backend_identity() -> Identity {
    Identity::from_seed([2; 32])
}

pub fn acceptor() -> Acceptor {
    let allowed = [gateway_identity().public_key()];
    Acceptor::bind(loopback(), &backend_identity(), &allowed).unwrap()
}

pub fn dialer(identity: &Identity, address: SocketAddr, key: PublicKey) -> Dialer {
    let endpoint = uplink::client_endpoint().unwrap();
    Dialer::new(endpoint, identity, DialTarget { address, key }, 7)
}

/// Both ends and what made them.
pub struct Pair {
    pub gateway: Link,
    pub backend: Link,
    pub acceptor: Acceptor,
    pub dialer: Dialer,
}

pub async fn pair() -> Pair {
    let acceptor = acceptor();
    let address = acceptor.local_address().unwrap();
    let dialer = dialer(
        &gateway_identity(),
        address,
        backend_identity().public_key(),
    );
    join(acceptor, dialer).await
}

pub async fn join(mut acceptor: Acceptor, mut dialer: Dialer) -> Pair {
    let (mut gateway, mut backend) = (None, None);
    within(poll_fn(|cx| {
        if let Poll::Ready(link) = acceptor.poll_link(cx) {
            backend = Some(link);
        }
        while let Poll::Ready(event) = dialer.poll_link(cx) {
            match event {
                Event::Up(link) => gateway = Some(link),
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
        if gateway.is_some() && backend.is_some() {
            return Poll::Ready(());
        }
        Poll::Pending
    }))
    .await;
    let (gateway, backend) = (gateway.unwrap(), backend.unwrap());
    assert_eq!(gateway.peer(), backend_identity().public_key());
    assert_eq!(backend.peer(), gateway_identity().public_key());
    Pair {
        gateway,
        backend,
        acceptor,
        dialer,
    }
}

/// The future's output, or a failed test.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("did not happen in time")
}

/// Reads until nothing is left.
pub fn read_all(
    link: &mut Link,
    cx: &mut Context<'_>,
    sink: &mut impl FnMut(StreamIndex, &mut [u8]),
) -> Result<(), LinkError> {
    loop {
        match link.poll_read(cx, 1 << 18, sink) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(()),
        }
    }
}

/// The error that ends the link.
pub async fn end_of(link: &mut Link) -> LinkError {
    within(poll_fn(|cx| match read_all(link, cx, &mut |_, _| {}) {
        Ok(()) => Poll::Pending,
        Err(error) => Poll::Ready(error),
    }))
    .await
}

/// A seeded stream of numbers (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Appends a record of pseudo-random length and content: mostly small ones,
/// some of the largest size.
pub fn push_record(numbers: &mut Numbers, out: &mut Vec<u8>) {
    let draw = numbers.next();
    let bytes = match draw % 16 {
        0 => RECORD_BYTES_MAX,
        1..4 => {
            RECORD_HEADER_BYTES + (draw >> 8) as usize % (RECORD_BYTES_MAX - RECORD_HEADER_BYTES)
        }
        _ => RECORD_HEADER_BYTES + (draw >> 8) as usize % 200,
    };
    let start = out.len();
    out.extend_from_slice(&(bytes as u32).to_le_bytes()[..3]);
    while out.len() < start + bytes {
        out.extend_from_slice(&numbers.next().to_le_bytes());
    }
    out.truncate(start + bytes);
}

/// The records in what a sink was given; it must be nothing but whole ones.
pub fn split_records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        let (record, rest) = bytes.split_at(length);
        records.push(record);
        bytes = rest;
    }
    records
}
