//! One end of an uplink as a gateway shard has it: dials, says hello, sends, collects what comes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use protocol::control::{ShardHello, ToBackend, ToShard, to_backend, to_shard};
use protocol::ids::SessionId;
use protocol::uplink::Record;
use uplink::{
    CLOSE_DONE, DialError, DialTarget, Dialer, Event, Identity, Link, LinkError, PublicKey,
    StreamIndex, client_endpoint,
};

/// Longest that anything in these tests may take; a bound for failures, never a pause.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on the kind of runtime that drivers want.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test hangs");
    }));
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

pub struct Shard {
    link: Link,
    messages: VecDeque<to_shard::Message>,
    records: VecDeque<Vec<u8>>,
}

impl Shard {
    /// Dials until there is a link or the first attempt that fails.
    pub async fn dial(
        address: SocketAddr,
        key: PublicKey,
        identity: &Identity,
    ) -> Result<Self, DialError> {
        let endpoint = client_endpoint().expect("a port");
        let target = DialTarget { address, key };
        let mut dialer = Dialer::new(endpoint, identity, target, 1);
        match poll_fn(|cx| dialer.poll_link(cx)).await {
            Event::Up(link) => Ok(Self {
                link,
                messages: VecDeque::new(),
                records: VecDeque::new(),
            }),
            Event::Failed { error, .. } => Err(error),
        }
    }

    /// Dials and says hello; returns the answer too.
    pub async fn attach(
        address: SocketAddr,
        key: PublicKey,
        name: &str,
        boot: u64,
    ) -> (Self, protocol::control::BackendHello) {
        let mut shard = Self::dial(address, key, &identity(GATEWAY_SEED))
            .await
            .expect("a link");
        shard.say(to_backend::Message::Hello(ShardHello {
            version: protocol::uplink::VERSION,
            gateway: name.to_owned(),
            shard: 0,
            boot,
            resume_ms: 0,
        }));
        match shard.hear().await {
            to_shard::Message::Hello(hello) => (shard, hello),
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, message: to_backend::Message) {
        let message = ToBackend {
            message: Some(message),
        };
        self.say_bytes(&message.encode_to_vec());
    }

    pub fn say_bytes(&mut self, bytes: &[u8]) {
        let buffer = self.link.buffer(StreamIndex::CONTROL);
        buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        buffer.extend_from_slice(bytes);
    }

    /// Gives QUIC what was said; hearing does that too.
    pub async fn flush(&mut self) {
        poll_fn(|cx| self.link.poll_flush(cx))
            .await
            .expect("a living link");
    }

    pub fn record(&mut self, session: u64, record: &Record<'_>) {
        let session = SessionId(session);
        let buffer = self.link.buffer(StreamIndex::of_session(session));
        protocol::uplink::encode(session, record, buffer);
    }

    pub async fn hear(&mut self) -> to_shard::Message {
        self.turn_until(|shard| shard.messages.pop_front())
            .await
            .expect("a living link")
    }

    /// The next record, encoded.
    pub async fn hear_record(&mut self) -> Vec<u8> {
        self.turn_until(|shard| shard.records.pop_front())
            .await
            .expect("a living link")
    }

    /// Waits until the backend closes the link; returns its code and word.
    pub async fn closed(&mut self) -> (u64, String) {
        match self.turn_until(|_| None::<()>).await {
            Err(LinkError::Closed { code, reason }) => (code, reason),
            other => panic!("{other:?}"),
        }
    }

    /// Sends what was said, and then is gone like a cut cable, as far as QUIC can be.
    pub fn cut(mut self) {
        self.link.close(CLOSE_DONE, "cut");
    }

    async fn turn_until<T>(
        &mut self,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, LinkError> {
        poll_fn(|cx| {
            if let Some(found) = found(self) {
                return Poll::Ready(Ok(found));
            }
            if let Poll::Ready(Err(error)) = self.link.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            loop {
                let (messages, records) = (&mut self.messages, &mut self.records);
                let mut sink = |stream: StreamIndex, bytes: &mut [u8]| {
                    if stream.is_control() {
                        let message = ToShard::decode(&*bytes).expect("the backend's own message");
                        messages.push_back(message.message.expect("a known message"));
                    } else {
                        split(bytes, records);
                    }
                };
                match self.link.poll_read(cx, 65_536, &mut sink) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            match found(self) {
                Some(found) => Poll::Ready(Ok(found)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

fn split(mut run: &[u8], records: &mut VecDeque<Vec<u8>>) {
    while let Some(length) = protocol::uplink::length(run).expect("the backend's own record") {
        let (record, rest) = run.split_at(length);
        records.push_back(record.to_vec());
        run = rest;
    }
}

/// Seed of the gateway's key in these tests.
pub const GATEWAY_SEED: u8 = 1;
/// Seed of the backend's.
pub const BACKEND_SEED: u8 = 2;
