//! The links of one shard: a dialer each, and the bytes between them and the
//! core. It dials again by itself; the core is told of each up and down.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::limits::UPLINK_STREAMS;
use protocol::time::Now;
use uplink::{DialTarget, Dialer, Event, Identity, Link, StreamIndex};

use crate::shard::Shard;

/// Bytes that one turn reads from one link, about: what bounds a turn.
const READ_BYTES_PER_TURN: usize = 262_144;

/// How long the end of a process waits for its last words to reach backends.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Failures in a row after which a backend that can't be reached is logged
/// only now and then.
const LOGGED_FAILURES: u32 = 3;

struct Uplink {
    dialer: Dialer,
    link: Option<Link>,
    failures: u32,
}

/// All uplinks of a shard, by the index that the core knows.
pub struct Uplinks {
    endpoint: quinn::Endpoint,
    uplinks: Vec<Uplink>,
}

impl Uplinks {
    /// Dialers that begin with the first poll. `jitter` spreads their attempts; it
    /// shows in their pauses, which are logged, so it must not be a secret.
    pub fn new(identity: &Identity, targets: &[DialTarget], jitter: u64) -> io::Result<Self> {
        let endpoint = uplink::client_endpoint().map_err(io::Error::other)?;
        let uplinks = (0u64..)
            .zip(targets)
            .map(|(index, &target)| Uplink {
                dialer: Dialer::new(
                    endpoint.clone(),
                    identity,
                    target,
                    jitter.wrapping_add(index),
                ),
                link: None,
                failures: 0,
            })
            .collect();
        Ok(Self { endpoint, uplinks })
    }

    /// Where an uplink leads.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.uplinks[index].dialer.target().address
    }

    /// Moves what the core appended into the links.
    pub fn collect(&mut self, shard: &mut Shard) {
        shard.poll_uplink(|index, stream, bytes| {
            if let Some(link) = &mut self.uplinks[index].link {
                let buffer = link.buffer(stream_index(stream));
                if buffer.is_empty() {
                    // No copy, and what a burst once needed is the link's to give back.
                    std::mem::swap(buffer, bytes);
                } else {
                    buffer.extend_from_slice(bytes);
                }
            }
            bytes.clear();
        });
    }

    /// The core does not want this link.
    pub fn refuse(&mut self, index: usize) {
        if let Some(link) = &mut self.uplinks[index].link {
            link.close(
                uplink::CLOSE_PROTOCOL,
                "refused by the gateway, see its log",
            );
        }
    }

    /// Flushes, reads and dials. Whether the core has something new.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Now, shard: &mut Shard) -> bool {
        let mut news = false;
        for (index, uplink) in self.uplinks.iter_mut().enumerate() {
            news |= uplink.poll(cx, index, now, shard);
        }
        news
    }

    /// Gives what was appended to QUIC, waits until it is acknowledged or the
    /// time is up, and closes.
    pub async fn close(&mut self) {
        for uplink in &mut self.uplinks {
            if let Some(link) = &mut uplink.link {
                // What is left after this is what the backend does not read.
                let flush = std::future::poll_fn(|cx| link.poll_flush(cx));
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, flush).await;
            }
        }
        // Closing discards what is in flight, so the backends are given a round
        // trip to acknowledge; an orderly close is the only signal they wait for.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for uplink in &mut self.uplinks {
            if let Some(link) = &mut uplink.link {
                link.close(uplink::CLOSE_DONE, "the gateway is shut down");
            }
        }
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Uplink {
    fn poll(&mut self, cx: &mut Context<'_>, index: usize, now: Now, shard: &mut Shard) -> bool {
        let mut news = false;
        while let Poll::Ready(event) = self.dialer.poll_link(cx) {
            news = true;
            match event {
                Event::Up(link) => {
                    self.failures = 0;
                    self.link = Some(link);
                    shard.handle_uplink_connected(index);
                }
                Event::Failed { error, retry_in } => {
                    self.failures += 1;
                    if self.failures <= LOGGED_FAILURES || self.failures.is_multiple_of(30) {
                        tracing::warn!(%error, ?retry_in, "uplink is down");
                    }
                }
            }
        }
        let Some(link) = &mut self.link else {
            return news;
        };
        let flushed = link.poll_flush(cx);
        let read = link.poll_read(cx, READ_BYTES_PER_TURN, &mut |stream, unit| {
            if stream.is_control() {
                shard.handle_uplink_control(now, index, unit);
            } else {
                shard.handle_uplink_records(now, index, unit);
            }
        });
        let failure = match (flushed, read) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Some(error),
            (_, Poll::Ready(Ok(_))) => {
                news = true;
                None
            }
            _ => None,
        };
        if let Some(error) = failure {
            tracing::warn!(address = %self.dialer.target().address, error = ?error.to_string(), "uplink is lost");
            for stream in StreamIndex::data() {
                shard.handle_uplink_untaken(link.untaken_records(stream));
            }
            self.link = None;
            self.dialer.lost();
            shard.handle_uplink_lost(index);
            // Registers the dialer's pause with the reactor.
            self.poll(cx, index, now, shard);
            return true;
        }
        let queued = (0..=UPLINK_STREAMS)
            .map(|stream| link.queued_bytes(stream_index(stream)))
            .sum();
        // Clients that waited for room are given credit.
        news |= shard.handle_uplink_queued(index, queued);
        news
    }
}

fn stream_index(stream: u8) -> StreamIndex {
    if stream == 0 {
        StreamIndex::CONTROL
    } else {
        StreamIndex::data()
            .nth(usize::from(stream) - 1)
            .unwrap_or(StreamIndex::CONTROL)
    }
}
