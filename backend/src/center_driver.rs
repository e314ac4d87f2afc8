//! Center as a process: its core, its journal and its uplinks in one loop.
//!
//! It decides nothing. Invariant: no uplink is accepted before the journal has been read,
//! rewritten and found to be writable.

mod desk;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use protocol::control::{ShardHello, ToBackend, ToShard};
use protocol::time::{Now, Time};
use uplink::{Acceptor, EndpointError, Identity, PublicKey, StreamIndex};

use crate::center::{Center, CenterSettings, LedgerError, Recovered};
use crate::counters::CenterCounters;
use crate::journal::{self, Done, Journal, JournalEngine, JournalError};
use crate::link::{LinkFault, LinkId};
use crate::link_driver::{Clock, LinkCounts, Role, drive_role};
pub use desk::{Desk, DeskEnd, DeskError, desk};

/// What a center process needs to know.
#[derive(Debug)]
pub struct CenterConfig {
    /// UDP address for the uplinks.
    pub listen: SocketAddr,
    /// The key that center proves.
    pub identity: Identity,
    /// The keys of the gateways that may connect.
    pub gateway_keys: Vec<PublicKey>,
    /// Directory of the journal; made if it is not there.
    pub data_dir: PathBuf,
    /// Journal driver; `None` chooses by a probe.
    pub engine: Option<JournalEngine>,
    /// The core's part. Its `boot` is drawn at random by the caller.
    pub settings: CenterSettings,
    /// What operators ask; see [`desk`].
    pub desk: DeskEnd,
}

/// Why a center could not start. Each is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CenterStartError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal was written by another version.
    #[error("the journal in {}: {error}", .dir.display())]
    Ledger {
        /// Where it lies.
        dir: PathBuf,
        /// What is wrong.
        error: LedgerError,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal in {}: {error}", .dir.display())]
    Write {
        /// Where it lies.
        dir: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The address cannot be had.
    #[error(transparent)]
    Listen(#[from] EndpointError),
}

/// A center that is ready to be driven.
pub struct OpenCenter {
    acceptor: Acceptor,
    clock: Clock,
    role: CenterRole,
    engine: JournalEngine,
}

impl OpenCenter {
    /// Where it listens; the port is a real one even if 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.acceptor.local_address()
    }

    /// Which driver writes the journal.
    pub fn engine(&self) -> JournalEngine {
        self.engine
    }
}

/// Opens the journal and the address. To be called in the tokio current-thread runtime that
/// will drive it. Blocks while the journal is read.
///
/// # Errors
/// See [`CenterStartError`].
pub async fn open_center(
    config: CenterConfig,
    counters: Arc<CenterCounters>,
) -> Result<OpenCenter, CenterStartError> {
    let dir = config.data_dir;
    let engine = match config.engine {
        Some(engine) => engine,
        None => {
            let (engine, why) = journal::probe();
            if let Some(why) = why {
                tracing::info!(%why, "no io_uring here, the journal is written by a plain thread");
            }
            engine
        }
    };
    // Any number that differs from start to start will do as the salt.
    let salt = config.settings.boot as u32;
    let (mut journal, replay) = Journal::open(&dir, salt, engine)?;
    if replay.torn_bytes > 0 {
        tracing::warn!(
            bytes = replay.torn_bytes,
            "cut a torn record off the journal; a crash leaves one, nothing that was granted is in it"
        );
    }
    let recovered =
        Recovered::replay(&replay.records).map_err(|error| CenterStartError::Ledger {
            dir: dir.clone(),
            error,
        })?;
    let shards = recovered.attached.len();
    let clock = Clock::start();
    let mut center = Center::new(clock.now(), config.settings, recovered);
    if let Some(batch) = center.poll_append() {
        let id = batch.id;
        let done = match journal.submit(batch) {
            Ok(()) => journal.done().await,
            Err(_) => None,
        };
        let result = done.map_or_else(|| Err(journal_gone()), |done| done.result);
        match result {
            Ok(journal_bytes) => center.handle_durable(clock.now(), id, journal_bytes),
            Err(error) => return Err(CenterStartError::Write { dir, error }),
        }
    }
    let acceptor = Acceptor::bind(config.listen, &config.identity, &config.gateway_keys)?;
    tracing::info!(
        journal = engine.label(),
        shards_awaited = shards,
        "center is ready"
    );
    Ok(OpenCenter {
        acceptor,
        clock,
        engine,
        role: CenterRole {
            center,
            journal,
            counters,
            desk: config.desk,
            is_writing: false,
            online_at: Time(0),
        },
    })
}

/// Runs center until `shutdown`. Then links are closed and what is in flight is written.
pub async fn drive_center(open: OpenCenter, shutdown: impl Future<Output = ()>) {
    let mut role = open.role;
    drive_role(open.acceptor, open.clock, &mut role, shutdown).await;
    role.journal.close().await;
}

/// Time, ms, between two counts of who is online; a center that nothing happens to counts with the
/// next renewal of a lease.
const ONLINE_MS: u64 = 1_000;

struct CenterRole {
    center: Center,
    journal: Journal,
    counters: Arc<CenterCounters>,
    desk: DeskEnd,
    /// A batch is on its way to the disk.
    is_writing: bool,
    /// When to say again who is online.
    online_at: Time,
}

impl CenterRole {
    fn batch_done(&mut self, now: Now, done: Done) {
        self.desk.batch_done(done.id, done.result.is_ok());
        match done.result {
            Ok(journal_bytes) => {
                let was_degraded = self.center.counts().degraded;
                self.center.handle_durable(now, done.id, journal_bytes);
                if was_degraded && !self.center.counts().degraded {
                    tracing::info!("the journal can be written again");
                }
            }
            Err(error) => self.journal_failed(now, &error),
        }
    }

    fn journal_failed(&mut self, now: Now, error: &std::io::Error) {
        tracing::error!(
            %error,
            "cannot write the journal; no claim is granted until it can be written again"
        );
        self.center.handle_journal_failed(now);
    }
}

impl Role for CenterRole {
    fn link_up(&mut self, now: Now, link: LinkId, hello: &ShardHello) -> Result<(), LinkFault> {
        self.center.handle_link_up(now, link, hello)
    }

    fn control(&mut self, now: Now, link: LinkId, message: ToBackend) -> Result<(), LinkFault> {
        self.center.handle_control(now, link, message)
    }

    fn records(&mut self, _: Now, _: LinkId, _: &[u8]) -> Result<(), LinkFault> {
        Err(LinkFault::Role)
    }

    fn link_down(&mut self, _: Now, link: LinkId) {
        self.center.handle_link_down(link);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.center.poll_timeout()
    }

    fn timeout(&mut self, now: Now) {
        self.center.handle_timeout(now);
    }

    fn poll_background(&mut self, cx: &mut Context<'_>, now: Now) {
        self.desk.poll(cx, now, &mut self.center);
        if now.time >= self.online_at {
            self.online_at = now.time.after_ms(ONLINE_MS);
            self.counters.publish_online(self.center.online());
        }
        // Once round a batch, and the next one takes the disk some time.
        loop {
            match self.journal.poll_done(cx) {
                Poll::Ready(Some(done)) => {
                    self.is_writing = false;
                    self.batch_done(now, done);
                }
                Poll::Ready(None) if self.is_writing => {
                    self.is_writing = false;
                    self.journal_failed(now, &journal_gone());
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            let Some(batch) = self.center.poll_append() else {
                return;
            };
            match self.journal.submit(batch) {
                Ok(()) => self.is_writing = true,
                Err(_) => self.journal_failed(now, &journal_gone()),
            }
        }
    }

    fn poll_control(&mut self) -> Option<(LinkId, ToShard)> {
        self.center.poll_send()
    }

    fn take_records(&mut self, _: &mut impl FnMut(LinkId, StreamIndex, &mut Vec<u8>)) {}

    fn poll_close(&mut self) -> Option<(LinkId, LinkFault)> {
        self.center.poll_close()
    }

    fn turn_ended(&mut self, links: &LinkCounts) {
        self.counters.publish(&self.center.counts(), links);
    }
}

fn journal_gone() -> std::io::Error {
    std::io::Error::other("the journal's thread has ended")
}
